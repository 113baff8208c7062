"""Real folders, fake servables: what is served after which changes on the disk."""

import logging
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.serving.lifecycle import ModelLifecycle
from tests.serving.servers import wait_until


class FakeServable:
    """Knows its number, and whether it was closed."""

    def __init__(self, number: int, log: list[str]) -> None:
        self.version, self.log, self.is_closed = number, log, False

    def close(self) -> None:
        self.is_closed = True
        self.log.append(f"close {self.version}")


class Model:
    """A lifecycle over a folder in which a version is one file; the word `broken` fails to load."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, list[str]()
        self.lifecycle = ModelLifecycle(name="m", base_path=folder, load=self._load)

    def _load(self, folder: Path, number: int) -> Any:
        self.log.append(f"load {number}")
        if "broken" in (folder / "saved_model.pb").read_text():
            raise InvalidArgumentError("bad graph")
        return FakeServable(number, self.log)

    def write(self, folder_name: str, content: str = "graph") -> None:
        (self.folder / folder_name).mkdir(parents=True, exist_ok=True)
        (self.folder / folder_name / "saved_model.pb").write_text(content)

    def remove(self, folder_name: str) -> None:
        (self.folder / folder_name / "saved_model.pb").unlink(missing_ok=True)
        (self.folder / folder_name).rmdir()

    def tick(self, times: int = 2) -> list[tuple[int, str]]:
        for _ in range(times):
            self.lifecycle.tick()
        return [(status.version, status.state.name) for status in self.lifecycle.statuses()]

    def served(self, version: int | None = None) -> int:
        with self.lifecycle.acquire(version) as servable:
            assert not cast("FakeServable", servable).is_closed
            return servable.version


@pytest.fixture
def model(tmp_path: Path) -> Model:
    (tmp_path / "m").mkdir()
    return Model(tmp_path / "m")


def test_the_highest_version_is_loaded_and_no_other(model: Model) -> None:
    for name in ("1", "3", "2", "v9", "4.tmp", "1e3", "-7", str(2**63)):
        model.write(name)

    assert model.tick() == [(3, "AVAILABLE")]
    assert model.log == ["load 3"]
    assert model.served() == model.served(3) == 3


def test_leading_zeros_are_part_of_no_number(model: Model) -> None:
    model.write("00000123")

    assert model.tick() == [(123, "AVAILABLE")]


def test_a_version_that_is_not_available_is_not_found(model: Model) -> None:
    with pytest.raises(NotFoundError, match=r"^Servable not found for request: Latest\(m\)$"):
        model.served()
    model.write("1")
    model.tick()
    with pytest.raises(NotFoundError, match=r"^Servable not found for request: Specific\(m, 0\)$"):
        model.served(0)


def test_a_folder_that_still_changes_waits(model: Model) -> None:
    (model.folder / "1").mkdir()
    assert model.tick(3) == []  # empty: nothing to load
    for content in ("g", "gr", "gra"):
        model.write("1", content)
        assert model.tick(1) == []
    assert model.lifecycle.is_waiting

    assert model.tick(1) == [(1, "AVAILABLE")]
    assert model.log == ["load 1"]
    assert not model.lifecycle.is_waiting


def test_a_file_in_a_linked_folder_counts_as_a_change(model: Model, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    model.write("1")
    (model.folder / "1" / "variables").symlink_to(tmp_path / "elsewhere")
    model.tick(1)
    (tmp_path / "elsewhere" / "variables.index").write_text("x")

    assert model.tick(1) == []
    assert model.tick(1) == [(1, "AVAILABLE")]


def test_a_plain_file_named_like_a_version_is_not_one(model: Model) -> None:
    model.write("5")
    (model.folder / "6").write_text("not a folder")

    assert model.tick() == [(5, "AVAILABLE")]


def test_the_new_version_is_loaded_before_the_old_one_is_unloaded(model: Model) -> None:
    model.write("1")
    model.tick()
    model.write("2")

    assert model.tick() == [(2, "AVAILABLE"), (1, "END")]
    assert model.log == ["load 1", "load 2", "close 1"]
    with pytest.raises(NotFoundError):
        model.served(1)


def test_an_unload_waits_for_the_requests_that_run(model: Model) -> None:
    model.write("1")
    model.tick()
    with model.lifecycle.acquire() as servable:
        model.write("2")
        ticking = threading.Thread(target=model.tick)
        ticking.start()
        wait_until(lambda: (1, "UNLOADING") in _states(model), "the unload to begin")
        assert model.served() == 2  # nobody waits for it
        assert not cast("FakeServable", servable).is_closed
        assert model.lifecycle.n_running == 1
    ticking.join(10)

    assert model.log[-1] == "close 1"
    assert _states(model) == [(2, "AVAILABLE"), (1, "END")]


def test_a_request_that_fails_lets_go_of_its_version(model: Model) -> None:
    model.write("1")
    model.tick()

    with pytest.raises(InvalidArgumentError), model.lifecycle.acquire():
        raise InvalidArgumentError("bad input")

    assert model.lifecycle.n_running == 0


def test_a_broken_version_takes_nobody_down(model: Model) -> None:
    model.write("1")
    model.tick()
    model.write("2", "broken")

    assert model.tick(5) == [(2, "END"), (1, "AVAILABLE")]
    assert model.log == ["load 1", "load 2"]  # not tried again while its files are the same
    failed = model.lifecycle.statuses()[0]
    assert (failed.error_code, failed.error_message) == (3, "bad graph")


def test_a_start_with_a_broken_newest_version_serves_the_next_lower_one(model: Model) -> None:
    model.write("1")
    model.write("2", "broken")

    assert model.tick() == [(2, "END"), (1, "AVAILABLE")]


def test_a_broken_version_is_tried_again_once_it_is_repaired(model: Model) -> None:
    model.write("1")
    model.write("2", "broken")
    model.tick()
    model.write("2", "repaired")

    assert model.tick() == [(2, "AVAILABLE"), (1, "END")]
    assert model.lifecycle.statuses()[0].error_message == ""


def test_a_removed_newest_version_rolls_back(model: Model) -> None:
    model.write("1")
    model.write("2")
    model.tick()
    model.remove("2")

    assert model.tick() == [(2, "END"), (1, "AVAILABLE")]
    assert model.log == ["load 2", "load 1", "close 2"]


def test_a_removed_version_stays_while_its_replacement_fails(model: Model) -> None:
    model.write("1")
    model.tick()
    model.write("2", "broken")
    model.remove("1")

    assert model.tick(4) == [(2, "END"), (1, "AVAILABLE")]


def test_a_missing_base_path_keeps_what_is_served(model: Model) -> None:
    model.write("1")
    model.tick()
    model.folder.rename(model.folder.with_name("away"))

    assert model.tick(3) == [(1, "AVAILABLE")]


def test_an_empty_folder_unloads_and_the_state_is_kept(model: Model) -> None:
    model.write("1")
    model.tick()
    model.remove("1")

    assert model.tick(1) == [(1, "END")]
    assert model.log[-1] == "close 1"
    model.write("1")
    assert model.tick() == [(1, "AVAILABLE")]


def test_states_are_listed_in_descending_order_and_the_ended_are_kept(model: Model) -> None:
    for number in (2, 9, 10):
        model.write(str(number))
        model.tick()

    assert _states(model) == [(10, "AVAILABLE"), (9, "END"), (2, "END")]


def test_closing_unloads_everything(model: Model) -> None:
    model.write("1")
    model.tick()

    model.lifecycle.close()

    assert _states(model) == [(1, "END")]


def test_a_folder_without_versions_is_warned_about_once(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model.tick(5)
        model.folder.rmdir()
        model.tick(5)

    assert [message[:40] for message in caplog.messages] == [
        "No versions of servable m found under ba",
        "Could not find base path " + str(model.folder)[:15],
    ]


def test_requests_never_miss_while_versions_come_and_go(model: Model) -> None:
    model.write("1")
    model.tick()
    done, seen = threading.Event(), set[int]()

    def ask() -> None:
        while not done.is_set():
            seen.add(model.served())

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(2, 30):
        model.write(str(number))
        model.tick()
    done.set()
    for thread in threads:
        thread.join(10)

    assert 29 in seen
    assert model.log.count("close 28") == 1


def _states(model: Model) -> list[tuple[int, str]]:
    return model.tick(0)
