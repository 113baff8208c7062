"""What is made once for all workers: also if two come at once, and after a maker has died."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.once import made_once


@pytest.fixture
def factory(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.TempPathFactory]:
    """A worker's, in a run of its own."""
    worker = tmp_path_factory.mktemp("run") / "popen-gw0"
    worker.mkdir()
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    monkeypatch.setattr(tmp_path_factory, "_basetemp", worker)
    return tmp_path_factory


def test_of_many_who_ask_at_once_one_makes_it(factory: pytest.TempPathFactory) -> None:
    made: list[Path] = []
    is_made_twice = threading.Event()

    def make(folder: Path) -> None:
        made.append(folder)
        if made[1:]:
            is_made_twice.set()
        is_made_twice.wait(0.3)  # time for another to come in, if it could
        (folder / "file").write_text("whole")

    def ask(_: int) -> tuple[Path, str]:
        folder = made_once(factory, "it", make)
        return folder, (folder / "file").read_text()

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(ask, range(8)))

    assert found == {(made[0], "whole")}
    assert len(made) == 1
    assert made[0].parent == factory.getbasetemp().parent  # where other workers find it


def test_what_a_maker_that_failed_has_left_is_made_anew(factory: pytest.TempPathFactory) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        made_once(factory, "it", fail)

    folder = made_once(factory, "it", lambda folder: (folder / "whole").touch())

    assert [path.name for path in folder.iterdir()] == ["whole"]
