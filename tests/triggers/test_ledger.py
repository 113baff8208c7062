import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlops_mini.errors import (
    AbortedError,
    DataIntegrityError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from mlops_mini.triggers.ledger import Ledger, Limits
from mlops_mini.triggers.reasons import Firing, on_demand

START = datetime(2013, 3, 9, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
COMMON = """
import sys
from datetime import datetime, timedelta, UTC
from pathlib import Path
from mlops_mini.triggers.ledger import Ledger, Limits
from mlops_mini.triggers.reasons import Firing
ledger = Ledger(Path(sys.argv[1]), limits=Limits(lease=timedelta(hours=1)))
"""
FIRE = """
print("ready", flush=True)
sys.stdin.readline()
for _ in range(5):
    print(ledger.fire(Firing(kind="new_data", key="march@1")).verdict, flush=True)
"""
WORK = """
claim = ledger.claim()
print(claim.entry.run_id, flush=True)
sys.stdin.readline()
"""
PUBLISH = """
try:
    claim.beat()
    Path(sys.argv[1]).with_name("published").touch()
except Exception as exc:
    print(exc)
"""


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "triggers.sqlite"


def opened(file: Path, clock: Clock, **limits: object) -> Ledger:
    return Ledger(file, limits=Limits(**limits), clock=clock, wait_s=0.1)


def drift(window: int, *, basis: str = "") -> Firing:
    return Firing(kind="drift", key=f"drift:1:W{window:02}", basis=basis)


def child(code: str, file: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", COMMON + code, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_of_40_concurrent_fires_of_one_key_by_8_processes_1_is_accepted(file: Path) -> None:
    Ledger(file)
    processes = [child(FIRE, file) for _ in range(8)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()

    verdicts = [line for process in processes for line in process.communicate()[0].split()]

    assert sorted(verdicts) == ["DUPLICATE"] * 39 + ["PENDING"]
    assert [entry.key for entry in Ledger(file).entries()] == ["march@1"]


def test_a_worker_that_was_killed_is_taken_over_with_its_run_id(file: Path, clock: Clock) -> None:
    ledger = opened(file, clock, lease=HOUR)
    ledger.fire(drift(9))
    worker = child(WORK, file)
    run_id = worker.stdout.readline().strip()
    worker.kill()  # SIGKILL
    assert worker.wait() == -signal.SIGKILL
    worker.communicate()
    beat_at = ledger.entries()[0].beat_at  # of the worker's clock

    clock.now = beat_at + HOUR
    assert ledger.claim() is None
    clock.now += timedelta(microseconds=1)
    claim = ledger.claim()

    assert claim.entry.run_id == run_id
    assert (claim.entry.claims, claim.entry.owner_pid) == (2, os.getpid())


def test_a_slow_live_worker_stops_before_its_side_effects(file: Path, clock: Clock) -> None:
    ledger = opened(file, clock, lease=HOUR)
    ledger.fire(drift(9))
    slow = child(WORK + PUBLISH, file)
    slow.stdout.readline()
    clock.now = ledger.entries()[0].beat_at + 1.1 * HOUR  # while it's waiting for something
    quick = ledger.claim()

    said = slow.communicate("go on\n")[0]

    assert "no longer owns drift:1:W09, which is RUNNING, claimed 2 times" in said
    assert not file.with_name("published").exists()
    quick.beat()
    quick.finish("refused")
    (entry,) = ledger.entries()
    assert (entry.state, entry.outcome, entry.owner_pid) == ("DONE", "refused", os.getpid())


def test_who_has_lost_a_claim_can_end_nothing(file: Path, clock: Clock) -> None:
    ledger = opened(file, clock, lease=HOUR)
    ledger.fire(drift(9))
    slow = ledger.claim()
    clock.now += HOUR
    slow.beat()  # in time
    clock.now += 1.1 * HOUR
    quick = ledger.claim()

    for late in (slow.beat, lambda: slow.finish("blessed"), lambda: slow.fail("x")):
        with pytest.raises(AbortedError):
            late()
    quick.finish("refused")
    with pytest.raises(AbortedError, match="which is DONE"):
        quick.beat()


def test_a_worker_beats_while_it_works(file: Path) -> None:
    lease = timedelta(seconds=0.3)
    ledger = Ledger(file, limits=Limits(lease=lease))
    ledger.fire(drift(9))
    claim = ledger.claim()
    started_at = claim.entry.beat_at

    with claim.kept():
        while ledger.entries()[0].beat_at < started_at + 3 * lease:
            threading.Event().wait(0.05)

    assert ledger.entries()[0].claims == 1
    claim.finish("blessed")


def test_a_crash_after_the_claim_leaves_nothing_to_fire_again(file: Path, clock: Clock) -> None:
    ledger = opened(file, clock, lease=HOUR)
    ledger.fire(drift(9))
    first = ledger.claim()

    assert ledger.fire(drift(9)).verdict == "DUPLICATE"
    clock.now += 2 * HOUR
    again = opened(file, clock, lease=HOUR).claim()

    assert again.entry.run_id == first.entry.run_id
    assert again.trigger == {"kind": "drift", "key": "drift:1:W09", "reason": {}}


def test_a_cool_down_is_told_in_days_and_without_a_whole_digest(file: Path, clock: Clock) -> None:
    ledger = opened(file, clock, cool_down=14 * 24 * HOUR)
    ledger.fire(Firing(kind="new_data", key="new_data:w1.csv@0123456789ab" + 52 * "c"))
    clock.now += 7 * 24 * HOUR

    later = ledger.fire(Firing(kind="new_data", key="new_data:w2.csv@" + 64 * "d"))

    assert later.entry.suppressed_by == (
        "cool-down: new_data:w1.csv@0123456789ab was fired 7 days ago, and 14 days must pass"
    )


def test_the_cool_down_ends_exactly_when_it_has_passed(file: Path, clock: Clock) -> None:
    ledger = opened(file, clock, cool_down=HOUR)
    ledger.fire(drift(1))
    clock.now += HOUR - timedelta(microseconds=1)
    early = ledger.fire(drift(2))
    clock.now += timedelta(microseconds=1)
    in_time = ledger.fire(drift(3))

    assert early.verdict == "SUPPRESSED"
    assert "cool-down: drift:1:W01 was fired 0:59:59.999999 ago" in early.entry.suppressed_by
    assert in_time.verdict == "PENDING"
    assert ledger.fire(drift(2)).verdict == "DUPLICATE"  # which changes nothing
    assert ledger.entries()[1].state == "SUPPRESSED"


def test_of_two_fires_before_a_claim_the_second_is_too_soon(file: Path, clock: Clock) -> None:
    ledger = opened(file, clock, cool_down=HOUR)

    assert ledger.fire(drift(1)).verdict == "PENDING"
    assert ledger.fire(drift(2)).verdict == "SUPPRESSED"
    assert ledger.claim().entry.key == "drift:1:W01"
    assert ledger.claim() is None


@pytest.mark.parametrize("state", ["RUNNING", "DONE", "FAILED"])
def test_the_cool_down_counts_whatever_was_accepted(file: Path, clock: Clock, state: str) -> None:
    ledger = opened(file, clock, cool_down=HOUR)
    ledger.fire(drift(1))
    claim = ledger.claim()
    {"RUNNING": claim.beat, "DONE": lambda: claim.finish("x"), "FAILED": lambda: claim.fail("x")}[
        state
    ]()

    assert ledger.fire(drift(2)).verdict == "SUPPRESSED"
    clock.now += HOUR
    assert ledger.fire(drift(3)).verdict == "PENDING"


def test_what_was_suppressed_delays_nothing(file: Path, clock: Clock) -> None:
    ledger = opened(file, clock, cool_down=HOUR)
    ledger.fire(drift(1))
    clock.now += 0.9 * HOUR
    ledger.fire(drift(2))
    clock.now += 0.2 * HOUR

    assert ledger.fire(drift(3)).verdict == "PENDING"


def test_a_storm_of_drift_is_one_run(file: Path, clock: Clock) -> None:
    ledger = opened(file, clock, cool_down=24 * HOUR)
    verdicts = []
    for window in range(40):
        verdicts.append(ledger.fire(drift(window)).verdict)
        clock.now += timedelta(minutes=10)

    assert verdicts == ["PENDING"] + ["SUPPRESSED"] * 39


def test_on_demand_waits_for_the_run_and_for_no_cool_down(file: Path, clock: Clock) -> None:
    ledger = opened(file, clock, cool_down=HOUR)
    ledger.fire(drift(1))
    running = ledger.claim()

    assert ledger.fire(on_demand("7", reason="please")).verdict == "PENDING"
    assert ledger.claim() is None  # one at a time
    running.finish("blessed")
    assert ledger.claim().entry.key == "on_demand:7"


def test_pending_ones_run_in_the_order_in_which_they_came(file: Path, clock: Clock) -> None:
    ledger = opened(file, clock)
    for window in (3, 1, 2):
        ledger.fire(drift(window))
        clock.now -= HOUR  # whatever the clock says

    run = []
    while claim := ledger.claim():
        run.append(claim.entry.key)
        claim.finish("blessed")

    assert run == ["drift:1:W03", "drift:1:W01", "drift:1:W02"]


def test_a_clock_that_goes_back_fires_nothing_twice_and_stops_nothing(
    file: Path, clock: Clock
) -> None:
    ledger = opened(file, clock, cool_down=HOUR, lease=HOUR)
    ledger.fire(drift(1))
    ledger.claim()
    clock.now -= 0.5 * HOUR

    assert ledger.fire(drift(1)).verdict == "DUPLICATE"
    assert ledger.fire(drift(2)).verdict == "SUPPRESSED"
    assert ledger.claim() is None
    clock.now -= timedelta(days=365)  # it was a year ahead: nobody waits for a year
    assert ledger.fire(drift(3)).verdict == "PENDING"
    assert ledger.claim().entry.key == "drift:1:W01"


def test_what_is_refused_three_times_is_not_tried_again_until_something_changes(
    file: Path, clock: Clock
) -> None:
    ledger = opened(file, clock)

    def run(window: int, outcome: str, basis: str = "data 1") -> str:
        verdict = ledger.fire(drift(window, basis=basis)).verdict
        if claim := ledger.claim():
            claim.finish(outcome)
        return verdict

    assert [run(i, "refused") for i in range(3)] == ["PENDING"] * 3
    assert run(3, "refused") == "SUPPRESSED"
    assert "refused 3 times in a row" in ledger.entries()[0].suppressed_by
    other_kind = Firing(kind="new_data", key="march", basis="data 1")
    assert ledger.fire(other_kind).verdict == "PENDING"
    ledger.claim().finish("blessed")
    assert [run(i, "refused", "data 2") for i in (4, 5)] == ["PENDING"] * 2
    assert run(6, "undecided", "data 2") == "PENDING"  # not in a row any more
    assert [run(i, "refused", "data 2") for i in (7, 8)] == ["PENDING"] * 2
    assert run(9, "refused", "") == "PENDING"  # nobody knows what it would be tried on


def test_a_locked_ledger_says_so_and_changes_nothing(file: Path, clock: Clock) -> None:
    ledger = opened(file, clock)
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("begin exclusive")

    with pytest.raises(UnavailableError, match=r"was held by others for 0\.1 s"):
        ledger.fire(drift(1))
    holder.execute("rollback")
    holder.close()

    assert ledger.fire(drift(1)).verdict == "PENDING"


def test_a_full_disk_fires_nothing(file: Path) -> None:
    Ledger(file)
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (2**15, 2**15))
n = 0
try:
    while True:
        ledger.fire(Firing(kind="drift", key=f"drift:1:{n}", reason={"x": "y" * 4000}))
        n += 1
except Exception as exc:
    print(type(exc).__name__, n, exc)
"""
    name, n, message = child(code, file).communicate()[0].split(maxsplit=2)

    assert name == ResourceExhaustedError.__name__
    assert "make room there" in message
    ledger = Ledger(file)  # in which there's room again
    assert len(ledger.entries()) == int(n) > 0
    assert ledger.fire(drift(1)).verdict == "PENDING"


def test_a_lost_ledger_stops_its_worker_and_a_new_one_gives_the_same_run_ids(
    file: Path, clock: Clock
) -> None:
    ledger = opened(file, clock)
    ledger.fire(drift(1))
    claim = ledger.claim()
    file.unlink()

    for lost in (claim.beat, ledger.claim, lambda: ledger.fire(drift(1))):
        with pytest.raises(NotFoundError, match=r"triggers\.sqlite is gone"):
            lost()
    assert not file.exists()

    anew = opened(file, clock)
    with pytest.raises(AbortedError, match="which is not there"):
        claim.beat()
    anew.fire(drift(1))
    assert anew.claim().entry.run_id == claim.entry.run_id


def test_another_file_is_no_ledger(file: Path, clock: Clock) -> None:
    file.write_text("no database, but long enough to be none" * 30)

    with pytest.raises(DataIntegrityError, match="is no ledger any more"):
        opened(file, clock)


def test_reasons_are_read_back_and_kinds_chosen(file: Path, clock: Clock) -> None:
    ledger = opened(file, clock)
    ledger.fire(Firing(kind="drift", key="a", reason={"psi": {"delay": 0.3}}))
    ledger.fire(on_demand("7"))

    assert [entry.key for entry in ledger.entries(limit=1)] == ["on_demand:7"]
    (entry,) = ledger.entries(kind="drift")
    assert (entry.reason, entry.fired_at) == ({"psi": {"delay": 0.3}}, START)
    assert json.dumps(entry.reason)


@pytest.mark.parametrize(
    "limits", [{"cool_down": -HOUR}, {"lease": timedelta(0)}, {"max_refusals": 0}]
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError, match="must be 0 or more"):
        Limits(**limits)


def test_a_clock_without_a_zone_is_refused(file: Path) -> None:
    ledger = Ledger(file, clock=lambda: datetime(2013, 1, 1))  # noqa: DTZ001

    with pytest.raises(InvalidArgumentError, match="without a time zone"):
        ledger.fire(drift(1))
