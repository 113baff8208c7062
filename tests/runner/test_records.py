"""The file of all runs: many writers, any clock."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from mlops_mini.errors import NotFoundError
from mlops_mini.runner.records import Records, RunRecord, TaskRecord

NOON = datetime(2013, 11, 3, 12, tzinfo=UTC)
WRITE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from mlops_mini.runner.records import Records, RunRecord, TaskRecord

records = Records(Path(sys.argv[1]), clock=lambda: datetime.now(UTC))
me, now = sys.argv[2], records.now()
run = RunRecord(
    id=me, pipeline="p", spec_digest="", arguments={}, state="RUNNING", started_at=now
)
records.save_run(run)
for i in range(50):
    task = TaskRecord(run_id=me, path=f"t{i}", component="c", key=f"k{i}", state="RUNNING")
    records.save_task(task)
    records.with_key(f"k{i}")
    records.save_task(TaskRecord(run_id=me, path=f"t{i}", component="c", key=f"k{i}",
                                 state="SUCCEEDED", attempt=1))
"""


def opened(file: Path, clock: Callable[[], datetime] = lambda: NOON) -> Records:
    return Records(file, clock=clock)


def run_of(run_id: str, records: Records, **changes: object) -> RunRecord:
    known = {"pipeline": "p", "spec_digest": "d", "arguments": {"x": 1}, "state": "RUNNING"}
    return RunRecord(id=run_id, started_at=records.now(), **{**known, **changes})


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    records = opened(tmp_path / "runs.sqlite")
    run = records.save_run(run_of("one", records, arguments={"é": [1, 2.5, None, {"a": True}]}))
    tasks = [
        TaskRecord(
            run_id="one",
            path=path,
            component="c",
            state="FAILED",
            inputs={"parameters": {"x": 1}},
            outputs={"artifacts": {}},
            error="line one\nline 'two'",
            started_at=records.now(),
        )
        for path in ("z", "for-loop-1[0]/a")
    ]
    for task in tasks:
        records.save_task(task)

    found = opened(tmp_path / "runs.sqlite").run("one")

    assert (found.arguments, found.state) == (run.arguments, "RUNNING")
    assert list(found.tasks.items()) == [(task.path, task) for task in tasks]


def test_a_task_keeps_its_place_however_often_it_is_written(tmp_path: Path) -> None:
    records = opened(tmp_path / "runs.sqlite")
    records.save_run(run_of("one", records))
    for path, state in (("b", "RUNNING"), ("a", "RUNNING"), ("b", "SUCCEEDED")):
        records.save_task(TaskRecord(run_id="one", path=path, component="c", state=state))

    tasks = records.run("one").tasks

    assert [(path, task.state) for path, task in tasks.items()] == [
        ("b", "SUCCEEDED"),
        ("a", "RUNNING"),
    ]


def test_times_are_written_in_utc_whatever_the_clocks_zone(tmp_path: Path) -> None:
    in_new_york = opened(tmp_path / "x", lambda: NOON.astimezone(ZoneInfo("America/New_York")))

    assert in_new_york.now() == opened(tmp_path / "x").now() == "2013-11-03T12:00:00.000+00:00"


def test_the_newest_run_is_first_even_if_the_clock_went_back(tmp_path: Path) -> None:
    times = iter([NOON, NOON - timedelta(hours=1), NOON - timedelta(hours=1)])
    records = opened(tmp_path / "runs.sqlite", lambda: next(times))
    for run_id in ("first", "second", "third"):
        records.save_run(run_of(run_id, records))

    assert [run.id for run in records.runs()] == ["third", "second", "first"]


def test_only_tasks_that_have_succeeded_are_found_by_their_key(tmp_path: Path) -> None:
    records = opened(tmp_path / "runs.sqlite")
    records.save_run(run_of("one", records))
    for state in ("SUCCEEDED", "CACHED", "FAILED", "RUNNING"):
        records.save_task(TaskRecord(run_id="one", path=state, component="c", key="k", state=state))

    assert [task.path for task in records.with_key("k")] == ["SUCCEEDED"]
    assert records.with_key("other") == []


def test_a_missing_run_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    records = opened(tmp_path / "runs.sqlite")
    with pytest.raises(NotFoundError, match=r"no run .two.*there are none"):
        records.run("two")
    records.save_run(run_of("one", records))

    with pytest.raises(NotFoundError, match=r"no run 'two'.*there are one"):
        records.run("two")


def test_eight_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "runs.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, str(file), f"{i}"]) for i in range(8)]

    assert [writer.wait(timeout=120) for writer in writers] == [0] * 8
    records = opened(file)
    assert sorted(run.id for run in records.runs()) == [f"{i}" for i in range(8)]
    for i in range(8):
        states = [task.state for task in records.run(f"{i}").tasks.values()]
        assert states == ["SUCCEEDED"] * 50
    assert len(records.with_key("k7")) == 8


def test_a_task_is_found_by_the_name_that_people_read_and_gives_what_it_made(
    tmp_path: Path,
) -> None:
    gate = TaskRecord(
        run_id="one",
        path="exit-handler-1/gate",
        component="gate",
        state="CACHED",
        outputs={"parameters": {"Output": True}, "artifacts": {"made": {"uri": "/runs/made"}}},
    )
    run = run_of("one", opened(tmp_path / "runs.sqlite"), tasks={gate.path: gate})

    assert run.states == {"gate": "CACHED"}
    assert run.task("gate").parameter() is True
    assert run.task("gate").artifact("made") == Path("/runs/made")
    with pytest.raises(NotFoundError, match=r"run 'one' has no task 'gat', it has \['gate'\]"):
        run.task("gat")
