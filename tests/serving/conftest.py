"""What the server's tests share."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> Iterator[None]:
    """An unload collects garbage: spare it what other tests have left in this process, a second."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """An empty base path."""
    (tmp_path / "model").mkdir()
    return tmp_path / "model"
