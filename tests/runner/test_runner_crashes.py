"""Runners that are killed, canceled, run out of disk, or meet each other: each a real process."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlops_mini.errors import AbortedError, MlopsMiniError, UnavailableError
from mlops_mini.runner.runner import Runner
from tests.runner import faults, gates
from tests.serving.servers import wait_until

REPOSITORY = Path(__file__).parents[2]
RUN = """
import json, os, signal, sys
from pathlib import Path
from mlops_mini.errors import MlopsMiniError
from mlops_mini.runner.runner import Runner
from tests.runner import faults, gates

signal.signal(signal.SIGTERM, signal.default_int_handler)  # as a command line does it
root, name, arguments, *run_ids = sys.argv[1:]
pipeline = getattr(faults, name)
with Runner(Path(root), n_workers=2) as runner:
    gates.say(f"runner {os.getpid()} is ready")
    try:
        if run_ids:
            run = runner.resume(run_ids[0], pipeline)
        else:
            run = runner.run(pipeline, arguments=json.loads(arguments))
    except MlopsMiniError as exc:
        sys.exit(f"{type(exc).__name__}: {exc}")
    print(run.id, run.state)
"""


@pytest.fixture(autouse=True)
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lines").mkdir()
    monkeypatch.setenv("MLOPS_MINI_TEST_LINES", str(tmp_path / "lines" / "lines"))
    return gates.lines_file()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Iterator:
    """Starts a runner in a process of its own; its output goes into `output.txt`."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(pipeline: str, *run_ids: str, **arguments: str) -> subprocess.Popen[bytes]:
        given = [str(root), pipeline, json.dumps(arguments), *run_ids]
        command = [sys.executable, "-c", RUN, *given]
        with (tmp_path / "output.txt").open("ab") as output:
            started.append(subprocess.Popen(command, stdout=output, stderr=output, cwd=REPOSITORY))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.wait()


def pids_of(task: str) -> list[int]:
    """Wait until a task has begun, and read the processes that it names."""
    line = wait_until(lambda: gates.said(beginning=f"{task} begins"), f"task {task}")[0]
    return [int(pid) for pid in line.split()[2:]]


def wait_for_the_end_of(pids: list[int]) -> None:
    wait_until(lambda: not any(map(gates.is_running, pids)), f"the end of {pids}")


# Killed.


@pytest.mark.parametrize("where", ["a", "slow", "push"])
def test_a_killed_run_is_resumed_and_what_was_finished_is_kept(
    where: str, start, root: Path
) -> None:
    gates.open_gates(*{"a", "slow", "push"} - {where})
    killed = start("slowly")
    pids = pids_of(where)
    killed.kill()
    killed.wait()
    wait_for_the_end_of(pids)
    gates.open_gates(where)

    with Runner(root) as runner:
        (left,) = runner.runs()
        states = {task.state for task in runner.show(left.id).tasks.values()}
        run = runner.resume(left.id, faults.slowly)

    assert (left.state, run.id, run.state) == ("INTERRUPTED", left.id, "SUCCEEDED")
    assert f"--resume {left.id}" in left.reason
    assert "INTERRUPTED" in states
    assert "RUNNING" not in states
    begun = Counter(line.split()[0] for line in gates.said() if " begins " in line)
    assert begun == {"a": 1, "slow": 1, "push": 1} | {where: 2}
    assert gates.said(beginning="pushed") == [f"pushed {run.id} whole hello"]


def test_an_orphan_does_nothing_more_once_its_run_is_resumed(start, root: Path) -> None:
    killed = start("slowly")
    gates.open_gates("a")
    pids_of("slow")
    killed.kill()
    killed.wait()

    with Runner(root) as runner, ThreadPoolExecutor() as pool:
        resumed = pool.submit(runner.resume, runner.runs()[0].id, faults.slowly)
        wait_until(lambda: gates.said(beginning="slow begins")[1:], "the second attempt")
        gates.open_gates("slow", "push")
        run = resumed.result(timeout=120)

    assert gates.said(beginning="pushed") == [f"pushed {run.id} whole hello"]


def test_nothing_is_left_running_when_the_runner_is_killed(start) -> None:
    killed = start("waiting", name="it")
    pids = pids_of("it")
    assert all(map(gates.is_running, pids))

    killed.kill()

    wait_for_the_end_of(pids)
    assert gates.said(beginning="it ends") == []


def test_a_killed_fork_server_fails_the_run_which_can_be_resumed(start, root: Path) -> None:
    with Runner(root) as runner, ThreadPoolExecutor() as pool:
        failed = pool.submit(runner.run, faults.waiting, arguments={"name": "it"})
        task, server, child = pids_of("it")
        os.kill(server, signal.SIGKILL)
        with pytest.raises((AbortedError, UnavailableError), match=r"fork server.*[Rr]esume"):
            failed.result(timeout=120)
        wait_for_the_end_of([task, child])
        gates.open_gates("it")

        run = runner.resume(runner.runs()[0].id, faults.waiting)

    assert run.state == "SUCCEEDED"
    assert gates.said(beginning="it ends") == ["it ends"]


@pytest.mark.slow
def test_however_often_it_is_killed_the_result_is_the_same_and_pushed_once(
    start, root: Path, tmp_path: Path
) -> None:
    def wait_s(process: subprocess.Popen[bytes], timeout_s: float) -> float | None:
        """Seconds from the time when it is ready to its end; None if it does not end in time."""
        ready = f"runner {process.pid} is ready"
        wait_until(lambda: gates.said(beginning=ready), ready)
        began = time.monotonic()
        try:
            assert process.wait(timeout_s) == 0, (tmp_path / "output.txt").read_text()
        except subprocess.TimeoutExpired:
            return None
        return time.monotonic() - began

    gates.open_gates("a", "slow", "push")
    smooth_s = wait_s(start("slowly"), 60)
    moments = random.Random(7)
    n_kills, unfinished = 0, []
    while n_kills < 20 or unfinished:
        process = start("slowly", *unfinished)
        if wait_s(process, smooth_s * moments.random() if n_kills < 20 else 60) is None:
            process.kill()
            process.wait()
            n_kills += 1
        with Runner(root) as runner:
            runs = [runner.show(run.id) for run in runner.runs()]
        unfinished = [run.id for run in runs if run.state == "INTERRUPTED"]

    assert [run.state for run in runs] == ["SUCCEEDED"] * len(runs)
    pushed = sorted(f"pushed {run.id} whole hello" for run in runs)
    assert sorted(gates.said(beginning="pushed")) == pushed
    made = {run.tasks["slow"].outputs["artifacts"]["made"]["digest"] for run in runs}
    assert len(made) == 1


# Canceled.


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_canceled_run_ends_its_tasks_and_still_runs_the_exit_task(
    how: signal.Signals, start, root: Path
) -> None:
    canceled = start("exit_after_wait")
    pids = pids_of("body")

    canceled.send_signal(how)

    assert canceled.wait(timeout=120) != 0
    wait_for_the_end_of(pids)
    assert gates.said()[2:] == ["state=CANCELLED"]
    with Runner(root) as runner:
        run = runner.show(runner.runs()[0].id)
        assert run.state == "CANCELLED"
        assert run.tasks["exit-handler-1/waits"].state == "CANCELLED"
        gates.open_gates("body")
        assert runner.resume(run.id, faults.exit_after_wait).state == "SUCCEEDED"
    assert gates.said()[4:] == ["body ends", "later", "state=SUCCEEDED"]


def test_a_second_interrupt_ends_the_exit_task_too(start, root: Path) -> None:
    canceled = start("exit_waits")
    pids = pids_of("body")
    canceled.send_signal(signal.SIGINT)
    pids += pids_of("exit")
    assert canceled.poll() is None

    canceled.send_signal(signal.SIGINT)

    assert canceled.wait(timeout=120) != 0
    wait_for_the_end_of(pids)
    with Runner(root) as runner:
        assert runner.runs()[0].state == "CANCELLED"


# At the same time.


def test_two_runs_at_once_under_one_root_both_finish(start, root: Path) -> None:
    both = [start("waiting", name=name) for name in ("one", "two")]
    for name in ("one", "two"):
        pids_of(name)
    gates.open_gates("one", "two")

    assert [process.wait(timeout=120) for process in both] == [0, 0]
    with Runner(root) as runner:
        assert [run.state for run in runner.runs()] == ["SUCCEEDED", "SUCCEEDED"]


def test_a_new_root_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    code = """
import multiprocessing, sys
from pathlib import Path
from mlops_mini.runner.runner import Runner

def open_all(roots, barrier):
    for root in roots:
        barrier.wait()
        assert Runner(root).runs() == []

context = multiprocessing.get_context("fork")
barrier = context.Barrier(4, timeout=60)  # so that one failure ends them all
roots = [Path(sys.argv[1]) / str(i) for i in range(60)]
four = [context.Process(target=open_all, args=(roots, barrier)) for _ in range(4)]
for process in four:
    process.start()
for process in four:
    process.join()
sys.exit(any(process.exitcode for process in four))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def test_two_runs_at_once_by_one_runner_both_finish(root: Path) -> None:
    with Runner(root) as runner, ThreadPoolExecutor() as pool:
        both = [pool.submit(runner.run, faults.waiting, arguments={"name": n}) for n in "xy"]
        for name in "xy":
            pids_of(name)
        gates.open_gates("x", "y")

        assert [one.result(timeout=120).state for one in both] == ["SUCCEEDED", "SUCCEEDED"]


def test_a_run_that_somebody_works_at_is_not_resumed(start, root: Path) -> None:
    first = start("waiting", name="it")
    pids_of("it")

    with Runner(root) as runner:
        (run,) = runner.runs()
        with pytest.raises(MlopsMiniError, match=rf"another process.*{run.id}"):
            runner.resume(run.id, faults.waiting)
    gates.open_gates("it")

    assert first.wait(timeout=120) == 0
    assert len(gates.said(beginning="it begins")) == 1


def test_a_run_that_goes_on_reads_running_and_is_not_disturbed_by_who_looks(
    start, root: Path
) -> None:
    running = start("waiting", name="it")
    pids_of("it")

    with Runner(root) as runner:
        seen = {runner.runs()[0].state for _ in range(100)}
        seen |= {runner.show(runner.runs()[0].id).state for _ in range(100)}
    gates.open_gates("it")

    assert seen == {"RUNNING"}
    assert running.wait(timeout=120) == 0


def test_a_task_that_pauses_before_another_attempt_holds_no_worker(start, root: Path) -> None:
    canceled = start("pausing")
    pids_of("it")

    canceled.send_signal(signal.SIGINT)

    assert canceled.wait(timeout=120) == 1
    with Runner(root) as runner:
        tasks = runner.show(runner.runs()[0].id).tasks
    assert {task.state for task in tasks.values()} == {"CANCELLED"}


def test_nothing_in_a_session_of_its_own_is_left_when_the_runner_is_killed(start) -> None:
    killed = start("detached")
    pids = pids_of("detached")
    assert all(map(gates.is_running, pids))

    killed.kill()

    wait_for_the_end_of(pids)


# No room.


def test_a_file_that_may_not_grow_fails_its_task(start, root: Path) -> None:
    limited = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n{RUN}"

    done = subprocess.run(
        [sys.executable, "-c", limited, str(root), "filling", "{}"],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "fills-the-disk" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    with Runner(root) as runner:
        run = runner.resume(runner.runs()[0].id, faults.filling)
    assert run.state == "SUCCEEDED"
    assert gates.said(beginning="first") == ["first"]


@pytest.mark.parametrize("n_bytes_left", [2_000_000, 0])
def test_a_full_disk_fails_its_task_and_the_run_goes_on_when_there_is_room(
    n_bytes_left: int, root: Path, tmp_path: Path
) -> None:
    root.mkdir()
    code = f"""
import subprocess, sys, pathlib
from mlops_mini.errors import MlopsMiniError
from mlops_mini.runner.runner import Runner
from tests.runner import faults

root = pathlib.Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", root], check=True)
(root / "ballast").write_bytes(b"x" * (8_500_000 - {n_bytes_left}))
with Runner(root) as runner:
    try:
        runner.run(faults.filling)
    except MlopsMiniError as exc:
        print(exc)
    subprocess.run(["mount", "-o", "remount,size=64m", root], check=True)
    run = runner.resume(runner.runs()[0].id, faults.filling)
    print(run.state)
"""
    namespace = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        # Containers may forbid them; the test of RLIMIT_FSIZE above needs none.
        pytest.skip("no mount namespaces here")

    done = subprocess.run(
        [*namespace, sys.executable, "-c", code, str(root)],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    message, state = done.stdout.splitlines()
    assert re.search("No space left on device|disk is full|disk I/O error", message)
    assert re.search("make room.*resume", message)
    assert state == "SUCCEEDED"
