"""The workspace whose versions are explained is one that jobs could have left."""

from tests.lineage.conftest import played, workspace

__all__ = ["played", "workspace"]
