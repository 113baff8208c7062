"""The life of a run: its name, its root, who else works at it, and our own faults."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Optional

import pytest
from kfp import compiler, dsl

from mlops_mini.errors import AbortedError, AlreadyExistsError, InternalError, InvalidArgumentError
from mlops_mini.runner.records import TaskRecord
from mlops_mini.runner.runner import Runner
from tests.conformance.components import boom, say
from tests.runner import faults, gates
from tests.serving.servers import wait_until


@pytest.fixture(autouse=True)
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lines").mkdir()
    monkeypatch.setenv("MLOPS_MINI_TEST_LINES", str(tmp_path / "lines" / "lines"))
    return gates.lines_file()


@pytest.fixture
def inline(tmp_path: Path) -> Iterator[Runner]:
    with Runner(tmp_path / "runs", mode="inline") as runner:
        yield runner


@dsl.pipeline
def says(s: str = "hello"):
    say(s=s).set_caching_options(enable_caching=False)


@dsl.pipeline
def loops(items: Optional[list[str]] = None):  # noqa: UP045 - KFP does not know `| None`
    with dsl.ParallelFor(items) as item:
        say(s=item)


@dsl.pipeline
def gated():
    faults.needs_gate().set_caching_options(enable_caching=False)


@dsl.pipeline
def waits_and_says():
    faults.waits(name="it").set_caching_options(enable_caching=False)
    say(s="said").after(say(s="first"))


def file_of(pipeline: Any, folder: Path, *, meanwhile: Callable[[], object]) -> Path:
    """Compile a pipeline into a file that lets something happen while it is read."""

    class File(type(folder)):
        def read_text(self, *args: Any) -> str:
            meanwhile()
            return super().read_text(*args)

    compiler.Compiler().compile(pipeline, str(folder / "pipeline.yaml"))
    return File(folder / "pipeline.yaml")


def test_a_run_that_another_finished_meanwhile_is_not_run_again(
    inline: Runner, tmp_path: Path
) -> None:
    with pytest.raises(AbortedError, match="the gate is shut"):
        inline.run(gated)
    run_id = inline.runs()[0].id
    gates.open_gates("needs_gate")
    with Runner(tmp_path / "runs", mode="inline") as other:
        package = file_of(gated, tmp_path, meanwhile=lambda: other.resume(run_id, gated))

        run = inline.resume(run_id, package)

    assert run.state == "SUCCEEDED"
    assert gates.said() == ["needs_gate", "needs_gate"]


def test_a_name_that_another_took_meanwhile_is_refused(inline: Runner, tmp_path: Path) -> None:
    with Runner(tmp_path / "runs", mode="inline") as other:
        package = file_of(says, tmp_path, meanwhile=lambda: other.run(says, run_id="mine"))

        with pytest.raises(AlreadyExistsError, match="there is a run 'mine'"):
            inline.run(package, run_id="mine")

    assert gates.said() == ["hello"]
    assert inline.show("mine").state == "SUCCEEDED"


@pytest.mark.parametrize("run_id", ["", ".hidden", "a/b", "../x", "a b", "x" * 129, "é"])
def test_what_cannot_name_a_folder_cannot_name_a_run(
    run_id: str, inline: Runner, tmp_path: Path
) -> None:
    if run_id:
        with pytest.raises(InvalidArgumentError, match="cannot name a run"):
            inline.run(says, run_id=run_id)
    else:
        assert inline.run(says, run_id=run_id).id.startswith("says-")
    assert {one.name for one in (tmp_path / "runs").iterdir() if one.is_dir()} <= {
        run.id for run in inline.runs()
    }


@pytest.mark.parametrize(
    "run_id", ["runs.sqlite", "runs.lock", "runs.sqlite-wal", "Runs.SQLite", "fork_server.log"]
)
def test_a_run_cannot_be_called_as_a_file_of_ours(run_id: str, inline: Runner) -> None:
    with pytest.raises(InvalidArgumentError, match="the runner's own files"):
        inline.run(says, run_id=run_id)

    assert inline.run(says, run_id="runs-of-mine").state == "SUCCEEDED"


def test_a_pipeline_with_a_long_name_names_its_runs_shorter(inline: Runner) -> None:
    @dsl.pipeline(name="n" * 120)
    def long():
        say(s="hello")

    assert inline.run(long).id.startswith("n" * 90 + "-2")


def test_a_root_may_be_relative_and_the_folder_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Runner(Path("some runs"), n_workers=1) as runner:
        monkeypatch.chdir("/")
        run = runner.run(says)

    assert run.tasks["say"].log_file.exists()
    assert run.tasks["say"].log_file.is_relative_to(tmp_path / "some runs" / run.id)


def test_inline_no_log_is_named_for_there_is_none(inline: Runner) -> None:
    with pytest.raises(AbortedError, match="boom went off") as caught:
        inline.run(faults.of_one(boom))

    assert "log" not in str(caught.value)


def test_a_loop_over_nothing_at_all_fails_and_says_so(inline: Runner) -> None:
    with pytest.raises(AbortedError, match=r"for-loop-1.*which has no value: give it a list"):
        inline.run(loops)

    assert inline.runs()[0].state == "FAILED"
    assert inline.run(loops, {"items": []}).state == "SUCCEEDED"


def test_a_run_is_named_by_its_pipeline_and_the_clock(tmp_path: Path) -> None:
    noon = datetime(2013, 3, 10, 12, 30, 5, tzinfo=UTC)
    with Runner(tmp_path / "runs", mode="inline", clock=lambda: noon) as runner:
        ids = [runner.run(says).id for _ in range(2)]

    assert len(set(ids)) == 2
    assert all(run_id.startswith("says-2013-03-10T123005-") for run_id in ids)


def test_nothing_runs_on_when_the_run_ends_by_a_fault_of_ours(tmp_path: Path) -> None:
    def told(task: TaskRecord) -> None:
        if task.path == "say" and task.state == "SUCCEEDED":
            wait_until(lambda: gates.said(beginning="it begins"), "the other task")
            raise LookupError("the one who is told is broken")

    with Runner(tmp_path / "runs", n_workers=2, on_task=told) as runner:
        with pytest.raises(InternalError, match="the one who is told is broken"):
            runner.run(waits_and_says)
        (line,) = gates.said(beginning="it begins")
        pids = [int(pid) for pid in line.split()[2:]]
        task, _server, child = pids
        wait_until(lambda: not any(map(gates.is_running, (task, child))), "their end")

    gates.open_gates("it")
    with Runner(tmp_path / "runs", n_workers=2) as runner:
        run = runner.resume(runner.runs()[0].id, waits_and_says)

    assert run.state == "SUCCEEDED"
    assert gates.said(beginning="it ends") == ["it ends"]


def test_as_many_workers_as_cores_that_this_process_may_use(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from mlops_mini.runner.runner import Runner
if hasattr(os, "sched_setaffinity"):  # as `taskset` and containers do; macOS has no such limit
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
with Runner(Path(sys.argv[1])) as runner:
    print(runner._n_workers)
"""

    told = subprocess.check_output([sys.executable, "-c", code, tmp_path], text=True)

    assert int(told) == (1 if hasattr(os, "sched_setaffinity") else os.cpu_count())


def test_a_run_opens_its_records_once_however_many_tasks_it_has(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
opened = []
sys.addaudithook(lambda event, args: opened.append(args) if event == "sqlite3.connect" else None)
from mlops_mini.runner.runner import Runner
from tests.runner.test_runner import loops
with Runner(Path(sys.argv[1]), mode="inline") as runner:
    runner.run(loops, {"items": ["a", "b", "c", "d"]})
print(len(opened))
"""

    told = subprocess.check_output([sys.executable, "-c", code, tmp_path / "runs"], text=True)

    assert int(told.split()[-1]) == 1


def test_a_run_reads_no_other_run(inline: Runner) -> None:
    other = inline.run(says, {"s": "other"})
    with contextlib.closing(sqlite3.connect(inline.root / "runs.sqlite")) as connection:
        connection.execute("update run set arguments = 'unreadable' where id = ?", (other.id,))
        connection.commit()

    assert inline.run(says, {"s": "this"}, run_id="this").state == "SUCCEEDED"
    with pytest.raises(AlreadyExistsError, match=f"there is a run '{other.id}'"):
        inline.run(says, run_id=other.id)
