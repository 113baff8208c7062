"""Real folders, fake servables: what is served after which changes on the disk."""

import logging
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.serving.lifecycle import ModelLifecycle, Retries
from mlops_mini.serving.model_config import ModelConfig, VersionPolicy
from tests.serving.servers import wait_until

LATEST = VersionPolicy()
ALL = VersionPolicy(n_latest=0)


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
        self.folder, self.log, self.now_s = folder, list[str](), 0.0
        self.lifecycle = ModelLifecycle(
            "m",
            load=self._load,
            retries=Retries(most=0),
            clock=lambda: self.now_s,
        )
        self.configure()

    def configure(self, policy: VersionPolicy = LATEST, **labels: int) -> None:
        self.lifecycle.configure(
            ModelConfig(name="m", base_path=str(self.folder), policy=policy, labels=labels)
        )

    def _load(self, folder: Path, number: int) -> Any:
        self.log.append(f"load {number}")
        if "broken" in (folder / "saved_model.pb").read_text():
            raise InvalidArgumentError("bad graph")
        return FakeServable(number, self.log)

    def write(self, folder_name: str, content: str = "graph") -> None:
        (self.folder / folder_name).mkdir(parents=True, exist_ok=True)
        (self.folder / folder_name / "saved_model.pb").write_text(content)

    def pause_s(self, poll_wait_s: float) -> float | None:
        return self.lifecycle.pause_s(poll_wait_s, first_looks_s=0.1)

    def remove(self, folder_name: str) -> None:
        (self.folder / folder_name / "saved_model.pb").unlink(missing_ok=True)
        (self.folder / folder_name).rmdir()

    def tick(self, times: int = 2) -> list[tuple[int, str]]:
        for _ in range(times):
            self.lifecycle.tick()
        return [(status.version, status.state.name) for status in self.lifecycle.statuses()]

    def served(self, version: int | None = None, label: str = "") -> int:
        with self.lifecycle.acquire(version=version, label=label) as servable:
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
    assert model.pause_s(5) == 0.1

    assert model.tick(1) == [(1, "AVAILABLE")]
    assert model.log == ["load 1"]
    assert model.pause_s(5) == 5
    assert model.pause_s(0) is None


def test_a_file_in_a_linked_folder_counts_as_a_change(model: Model, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    model.write("1")
    (model.folder / "1" / "variables").symlink_to(tmp_path / "elsewhere")
    model.tick(1)
    (tmp_path / "elsewhere" / "variables.index").write_text("x")

    assert model.tick(1) == []
    assert model.tick(1) == [(1, "AVAILABLE")]


@pytest.mark.parametrize("has_good_one", [False, True])
def test_what_can_never_be_loaded_is_said_once_and_told_to_who_asks(
    model: Model, caplog: pytest.LogCaptureFixture, has_good_one: bool
) -> None:
    if has_good_one:
        model.write("1")
    (model.folder / "7").mkdir()
    (model.folder / "8").write_text("no folder")
    (model.folder / "9").symlink_to(model.folder / "gone")
    with caplog.at_level(logging.WARNING):
        states = model.tick(5)

    assert states == ([(1, "AVAILABLE")] if has_good_one else [])
    reasons = {
        "9": f"it is a link to {model.folder}/gone, which is not there",
        "8": "it is a file, not a folder",
        "7": "it is an empty folder",
    }
    assert caplog.messages == [
        f"{{name: m version: {number}}} waits: {reason}" for number, reason in reasons.items()
    ]
    versions = model.lifecycle.report()["versions"]
    good = {"1": {"state": "AVAILABLE"}} if has_good_one else {}
    waiting = {number: {"state": "START", "waits": why} for number, why in reasons.items()}
    assert versions == {**waiting, **good}
    why = "" if has_good_one else f"version 9 waits: {reasons['9']}"
    assert model.lifecycle.why_not_ready() == why
    assert model.lifecycle.is_tried

    (model.folder / "8").unlink()
    model.write("8")
    assert model.tick()[0] == (8, "AVAILABLE")


def test_a_copy_that_goes_on_is_told_and_holds_nobody_up(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    model.write("1")
    model.tick(1)
    assert not model.lifecycle.is_tried
    for step in range(3):
        model.write("1", "graph" * step)
        assert model.tick(1) == []
        assert model.lifecycle.is_tried
    assert model.lifecycle.why_not_ready() == "version 1 waits: its files still change"
    assert caplog.messages == ["{name: m version: 1} waits: its files still change"]


def test_what_is_served_stays_and_a_change_under_its_number_is_warned_about_once(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model.write("1")
    model.tick()
    model.write("1", "another graph")
    model.tick(3)
    model.write("1", "a third graph")
    model.tick(3)

    changed = "is served as it was loaded, but files in {} have changed since: a change needs a"
    where = model.folder / "1"
    assert caplog.messages == [f"{{name: m version: 1}} {changed.format(where)} new number"]
    assert model.log == ["load 1"]


def test_another_folder_with_the_same_number_is_warned_about_once(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model.write("1")
    model.tick()
    before, model.folder = model.folder, tmp_path / "other"
    model.write("1")
    model.configure()
    model.tick(3)

    what = f"is served from {before}/1, not from {model.folder}/1: a change needs a new number"
    assert caplog.messages == [f"{{name: m version: 1}} {what}"]
    model.write("2")
    assert model.tick()[0] == (2, "AVAILABLE")


def test_without_polling_a_version_that_is_named_is_looked_at_until_it_is_complete(
    model: Model,
) -> None:
    model.write("1")
    model.tick()
    assert model.pause_s(0) is None
    model.write("3")
    model.configure(VersionPolicy(specific=frozenset({3})))
    model.tick(1)
    assert model.pause_s(0) == 0.1
    assert model.pause_s(5) == 5
    assert model.tick(1) == [(3, "AVAILABLE"), (1, "END")]
    assert model.pause_s(0) is None


def test_the_new_version_is_loaded_before_the_old_one_is_unloaded(model: Model) -> None:
    model.write("1")
    model.tick()
    model.write("2")

    assert model.tick() == [(2, "AVAILABLE"), (1, "END")]
    assert model.log == ["load 1", "load 2", "close 1"]
    with pytest.raises(NotFoundError):
        model.served(1)


def test_an_unload_waits_for_the_requests_that_run_and_holds_nothing_up(model: Model) -> None:
    model.write("1")
    model.tick()
    with model.lifecycle.acquire() as servable:
        model.write("2")
        assert model.tick() == [(2, "AVAILABLE"), (1, "UNLOADING")]
        model.write("3")
        assert model.tick() == [(3, "AVAILABLE"), (2, "END"), (1, "UNLOADING")]
        assert not cast("FakeServable", servable).is_closed
        assert model.lifecycle.n_running == 1
        model.lifecycle.wake.clear()

    assert model.lifecycle.wake.is_set()  # the next look need not wait for its time
    assert model.tick(1) == [(3, "AVAILABLE"), (2, "END"), (1, "END")]
    assert model.log[-1] == "close 1"


def test_a_version_on_its_way_out_is_served_again_without_a_load(model: Model) -> None:
    model.write("1")
    model.tick()
    with model.lifecycle.acquire():
        model.write("2")
        model.tick()
        model.remove("2")
        assert model.tick() == [(2, "END"), (1, "AVAILABLE")]

    assert model.served() == 1
    assert model.log == ["load 1", "load 2", "close 2"]


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


def test_a_model_that_is_not_wanted_is_unloaded_and_its_state_kept(model: Model) -> None:
    model.write("1")
    model.tick()

    model.lifecycle.configure(None)

    assert model.tick(1) == [(1, "END")]
    assert model.log[-1] == "close 1"


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
        wait_until(lambda n=number: n in seen, f"version {number} to be seen", pace_s=0.001)
    done.set()
    for thread in threads:
        thread.join(10)
    model.tick()

    assert model.log.count("close 28") == 1


def _states(model: Model) -> list[tuple[int, str]]:
    return model.tick(0)


def test_the_latest_two_are_served(model: Model) -> None:
    model.configure(VersionPolicy(n_latest=2))
    for name in ("1", "2", "3"):
        model.write(name)

    assert model.tick() == [(3, "AVAILABLE"), (2, "AVAILABLE")]
    model.write("4")
    assert model.tick() == [(4, "AVAILABLE"), (3, "AVAILABLE"), (2, "END")]
    assert model.log == ["load 3", "load 2", "load 4", "close 2"]


def test_a_broken_one_of_the_latest_two_is_replaced_by_the_next_lower(model: Model) -> None:
    model.configure(VersionPolicy(n_latest=2))
    for name in ("1", "2"):
        model.write(name)
    model.write("3", "broken")

    assert model.tick() == [(3, "END"), (2, "AVAILABLE"), (1, "AVAILABLE")]


def test_all_versions_are_served_and_a_removed_one_goes(model: Model) -> None:
    model.configure(ALL)
    for name in ("1", "2", "3"):
        model.write(name)
    assert model.tick() == [(3, "AVAILABLE"), (2, "AVAILABLE"), (1, "AVAILABLE")]

    model.remove("2")

    assert model.tick() == [(3, "AVAILABLE"), (2, "END"), (1, "AVAILABLE")]
    assert model.served(1) == 1


def test_specific_versions_are_served_and_a_missing_one_is_waited_for(model: Model) -> None:
    model.configure(VersionPolicy(specific=frozenset({1, 3})))
    for name in ("1", "2"):
        model.write(name)
    assert model.tick() == [(1, "AVAILABLE")]

    model.write("3")

    assert model.tick() == [(3, "AVAILABLE"), (1, "AVAILABLE")]


def test_a_policy_that_asks_for_what_is_not_there_yet_keeps_what_is_served(model: Model) -> None:
    model.write("1")
    model.tick()
    model.configure(VersionPolicy(specific=frozenset({2})))
    assert model.tick() == [(1, "AVAILABLE")]

    model.write("2")

    assert model.tick() == [(2, "AVAILABLE"), (1, "END")]
    model.remove("2")
    assert model.tick(1) == [(2, "END"), (1, "END")]


def test_a_failed_version_is_tried_again_as_often_as_told_then_ends(model: Model) -> None:
    model.lifecycle._retries = Retries(most=2, interval_s=60)
    model.write("1")
    model.tick()
    model.write("2", "broken")

    assert model.tick(5) == [(2, "LOADING"), (1, "AVAILABLE")]
    assert model.log == ["load 1", "load 2"]
    assert model.pause_s(0) == 60
    model.now_s = 59.5
    assert model.pause_s(5) == 0.5
    for now_s, state in ((60, "LOADING"), (120, "END"), (180, "END")):
        model.now_s = now_s
        assert model.tick() == [(2, state), (1, "AVAILABLE")]
    assert model.log == ["load 1", "load 2", "load 2", "load 2"]
    assert model.pause_s(0) is None


def test_a_version_that_waits_for_its_next_try_is_tried_at_once_when_it_changes(
    model: Model,
) -> None:
    model.lifecycle._retries = Retries(most=1, interval_s=60)
    model.write("1", "broken")
    assert model.tick() == [(1, "LOADING")]
    assert model.lifecycle.statuses()[0].error_message == ""  # it has not ended
    assert model.lifecycle.why_not_ready() == "version 1 cannot be loaded: bad graph"

    model.write("1", "repaired")

    assert model.tick() == [(1, "AVAILABLE")]
    assert model.lifecycle.why_not_ready() == ""


@pytest.mark.parametrize("is_removed", [True, False])
def test_a_version_that_waits_for_its_next_try_ends_when_it_is_not_wanted(
    model: Model, is_removed: bool
) -> None:
    model.lifecycle._retries = Retries(most=5, interval_s=60)
    model.write("1")
    model.write("2", "broken")
    assert model.tick() == [(2, "LOADING"), (1, "AVAILABLE")]

    if is_removed:
        model.remove("2")
        assert model.tick() == [(2, "END"), (1, "AVAILABLE")]
    else:
        model.write("3")
        assert model.tick() == [(3, "AVAILABLE"), (2, "END"), (1, "END")]


def test_a_rollback_from_a_broken_version_and_back_again_is_no_livelock(model: Model) -> None:
    model.write("1")
    model.tick()
    model.write("2", "broken")
    model.tick()
    model.remove("2")
    assert model.tick() == [(2, "END"), (1, "AVAILABLE")]

    model.write("2", "repaired")

    assert model.tick() == [(2, "AVAILABLE"), (1, "END")]


def test_a_label_stands_for_its_version_once_that_is_available(model: Model) -> None:
    model.configure(ALL, stable=1, canary=2)
    model.write("1")
    model.tick()
    assert model.served(label="stable") == 1
    with pytest.raises(NotFoundError, match=r"^Servable not found for request: Specific\(m, 2\)$"):
        model.served(label="canary")
    with pytest.raises(InvalidArgumentError, match=r"^Unrecognized servable version label: zz$"):
        model.served(label="zz")

    model.write("2")
    model.tick()

    assert model.served(label="canary") == 2


def test_a_label_that_moves_stays_until_its_new_version_is_available(model: Model) -> None:
    model.configure(ALL, stable=1)
    model.write("1")
    model.tick()

    model.configure(ALL, stable=2)
    assert model.served(label="stable") == 1
    model.write("2")
    model.tick()
    assert model.served(label="stable") == 2
    model.configure(ALL)
    with pytest.raises(InvalidArgumentError, match="Unrecognized"):
        model.served(label="stable")


def test_a_model_that_is_wanted_again_tries_what_failed_again(model: Model) -> None:
    model.write("1", "broken")
    model.tick()
    model.lifecycle.configure(None)
    model.tick()
    model.configure()

    model.tick()

    assert model.log == ["load 1", "load 1"]
