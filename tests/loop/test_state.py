"""How far a loop has come, and what is done next."""

import json
import subprocess
import sys

import pytest

from mlops_mini.data.periods import Calendar
from mlops_mini.errors import (
    AlreadyExistsError,
    DataIntegrityError,
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
)
from mlops_mini.loop import state
from mlops_mini.loop.plan import Plan
from mlops_mini.loop.state import Served, State

PLAN = Plan(use_case="churn:CHURN", data_folder="data", first="2026-01", last="2026-04", n_first=2)
PLAYED = PLAN.periods(Calendar())[2:]
START = State(plan=PLAN, period="2026-03")
SERVED = Served(
    period="2026-03", n_requests=9, n_labeled=8, log_loss=0.5, by_version={"1": 9}, psi={"usd": 0.1}
)


def test_each_period_goes_through_the_same_steps_after_the_first_model():
    known, steps = START, []
    while known.step != "end":
        steps.append((known.period, known.step))
        known = state.following(known, PLAYED)

    assert steps[0] == ("2026-03", "begin")
    march = [step for period, step in steps[1:] if period == "2026-03"]
    assert march == ["wait", "deliver", "look", "retrain", "release", "serve"]
    assert [step for period, step in steps if period == "2026-04"] == march


def test_what_is_written_is_read(tmp_path):
    known = State(
        plan=PLAN.with_incidents(Calendar()), period="2026-03", step="serve", stable=1,
        releasing=2, attempt=2, checked={"a@b": "too many rows break a rule"}, served=(SERVED,),
    ).noted("first", "it serves", version=1)  # fmt: skip

    state.write(tmp_path, known)

    assert state.read(tmp_path) == known


def test_a_workspace_of_another_format_is_left_alone(tmp_path):
    state.write(tmp_path, START)
    message = json.loads((tmp_path / state.FILE).read_text())
    (tmp_path / state.FILE).write_text(json.dumps(message | {"format_version": 99}))

    with pytest.raises(FailedPreconditionError, match=r"is of format 99, .* goes on with format 1"):
        state.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format_version": 1}'])
def test_a_damaged_state_is_told(tmp_path, text):
    (tmp_path / state.FILE).write_text(text)

    with pytest.raises((DataIntegrityError, FailedPreconditionError), match="begin a new loop"):
        state.read(tmp_path)


def test_there_may_be_no_loop(tmp_path):
    with pytest.raises(NotFoundError, match=r"no loop in .*: name its workspace, or begin one"):
        state.read(tmp_path)
    with pytest.raises(NotFoundError), state.owned(tmp_path):
        pass


def test_one_process_at_a_time_and_a_dead_one_s_lock_falls_with_it(tmp_path):
    (tmp_path / state.MARK).touch()
    code = (
        "import os, sys; from pathlib import Path; from mlops_mini.loop import state\n"
        "with state.owned(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )

    died = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)

    assert died.returncode == -9
    taken = pytest.raises(AlreadyExistsError, match="another process works in ")
    with state.owned(tmp_path), taken, state.owned(tmp_path):
        pass


def test_a_full_disk_leaves_the_last_state(tmp_path):
    state.write(tmp_path, START)
    code = (
        "import resource, signal, sys; from dataclasses import replace; from pathlib import Path\n"
        "from mlops_mini.loop import state\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "known = state.read(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "state.write(Path(sys.argv[1]), replace(known, step='serve'))"
    )

    failed = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )

    assert ResourceExhaustedError.__name__ in failed.stderr
    assert "make room there, then resume the loop" in failed.stderr
    assert state.read(tmp_path) == START
