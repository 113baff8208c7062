"""What the server's tests share."""

from pathlib import Path

import pytest


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """An empty base path."""
    (tmp_path / "model").mkdir()
    return tmp_path / "model"
