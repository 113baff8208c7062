"""Versions of a toy model, published as the pipeline does it, and a registry for them."""

from pathlib import Path

import pytest

from mlops_mini.model.publish import Publication
from mlops_mini.model.registry import Registry
from tests.once import made_once


def toy_export(folder: Path) -> Path:
    """Write what passes for a SavedModel where nothing loads it."""
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"index")
    return folder


def publication(number: int, **changes: str) -> Publication:
    """Where the `number`th model comes from."""
    known = {
        "run_id": f"run-{number}",
        "model_digest": f"{number:064x}",
        "test_period": f"2013-{number + 1:02}",
        "train_periods": ("2013-01",),
        "data_digest": f"{number + 100:064x}",
    }
    return Publication(**{**known, **changes})


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry without models, which costs seconds to make. Copy it."""
    folder = made_once(
        tmp_path_factory, "registry", lambda made: Registry(f"sqlite:///{made}/registry.sqlite")
    )
    return folder / "registry.sqlite"
