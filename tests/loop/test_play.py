"""The loop with real processes: what it decides, whatever is killed, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mlops_mini.data.periods import Calendar
from mlops_mini.errors import AlreadyExistsError
from mlops_mini.lineage import lineage
from mlops_mini.loop import plan, play, report, state
from mlops_mini.model import champions, publish
from mlops_mini.monitoring.journal import Journal
from mlops_mini.rollout import release
from mlops_mini.use_case import load
from tests.once import made_once
from tests.tenants import made

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [str(Path(sys.executable).with_name("mlops-mini")), "loop"]
SENSORS = "tests.tenants.weekly:WEEKLY"
MONTHS = ("2026-01", "2026-02", "2026-03")

pytestmark = pytest.mark.slow


def start(workspace: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with (workspace.parent / f"{workspace.name}.txt").open("ab") as log:
        return subprocess.Popen(
            [*COMMAND, "--workspace", str(workspace), *arguments], stdout=log, stderr=log, cwd=ROOT
        )


def wait_until(process: subprocess.Popen[bytes], look: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not look():
        assert process.poll() is None, f"ended with {process.returncode}"
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def seen(workspace: Path) -> state.State:
    return state.read(workspace)


def has_begun(workspace: Path, task: str) -> bool:
    """Tell whether some run has got as far as one of its tasks."""
    return any((workspace / "runs").glob(f"*/exit-handler-1/{task}"))


def child(process: subprocess.Popen[bytes], *words: str) -> psutil.Process | None:
    """Find a process of a loop by words of its command."""
    for each in psutil.Process(process.pid).children(recursive=True):
        try:
            line = " ".join(each.cmdline())
        except psutil.Error:
            continue
        if all(word in line for word in words):
            return each
    return None


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        made.write_sensors(folder, months=MONTHS)

    return made_once(tmp_path_factory, "sensors_of_the_loop", make)


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight weeks of the sensors, killed three times on the way. Never change it."""

    def make(folder: Path) -> None:
        workspace = folder / "loop"
        flags = ["--use-case", SENSORS, "--data", str(data), "--first", "4", "--weeks", "8"]
        # In the midst of the first pipeline: the loop itself.
        loop = start(workspace, *flags)
        wait_until(loop, lambda: has_begun(workspace, "train"))
        loop.kill()
        loop.wait()
        # While it serves: the model server. In the release: the loop again.
        loop = start(workspace, "--resume")
        wait_until(loop, lambda: (workspace / "logs").exists() and seen(workspace).served)
        server = child(loop, "mlops_mini.serving.server", "v1")
        assert server is not None
        server.kill()
        wait_until(loop, lambda: seen(workspace).releasing)
        loop.kill()
        loop.wait()
        loop = start(workspace, "--resume")
        assert loop.wait() == 0, (folder / "loop.txt").read_text()[-3000:]

    return made_once(tmp_path_factory, "killed_loop", make) / "loop"


def test_it_decides_as_if_nothing_had_been_killed(killed):
    known = seen(killed)

    decided = [
        (event.kind, event.period, event.version)
        for event in known.events
        if event.kind != "canary lost"
    ]
    assert decided == [
        ("first", "2026-W04", 1),
        ("quarantined", "2026-W07", None),
        ("mended", "2026-W08", None),
        ("fired", "2026-W08", None),
        ("blessed", "2026-W08", 2),
        ("releasing", "2026-W08", 2),
        ("promoted", "2026-W08", 2),
    ]
    assert (known.step, known.stable, known.releasing) == ("end", 2, None)


def test_nothing_is_published_twice_and_the_lineage_tells_it_all(killed):
    models = killed / "models" / "stops"

    assert [each.version for each in publish.published_versions(models)] == [1, 2]
    assert champions.champion(models) == 2
    found = lineage.of_version(killed, 2, model="stops")
    assert not found.problems
    assert found.run is not None
    assert found.run.trigger["kind"] == "new_data"
    assert found.run.release["phase"] == "PROMOTED"
    judged = {part.period for part in found.partitions if part.role == "judged at its end"}
    assert judged == {"2026-W07"}


def test_every_request_is_answered_and_counted_once(killed):
    case = load(SENSORS)
    calendar: Calendar = case.calendar
    journal = Journal(killed / "journal.sqlite", model=case.name, calendar=calendar)
    known = seen(killed)

    assert [each.period for each in known.served] == [f"2026-W{week:02}" for week in range(4, 12)]
    for each in known.served:
        rows = journal.rows(calendar.period(each.period))
        assert len(rows) == each.n_requests == 7 * 24 * 4
        assert rows["label"].notna().sum() == each.n_labeled == 7 * 24 * 4
    versions = Counter[str]()
    for each in known.served:
        versions.update(each.by_version)
    assert set(versions) == {"1", "2"}
    assert journal.n_unknown_labels() == 0


def test_the_canary_was_mirrored_before_anybody_had_its_answers(killed):
    folder = max((killed / "releases").iterdir())

    phases = [each["phase"] for each in release.decisions(folder)]

    assert phases == ["SHADOW", "RAMP", "RAMP", "RAMP", "PROMOTED"]
    made = release.read(folder)
    differs = next(each for each in made.evidence() if each.guardrail == "other answers")
    assert differs.counts.n_canary > 10


def test_what_was_served_is_between_both_extremes_or_near(killed):
    written = report.record(killed)

    assert {each["period"] for each in written["periods"] if each["never"] and each["always"]} == {
        each["period"] for each in written["periods"]
    }
    quality = written["quality"]
    assert abs(quality["served"] - quality["always"]) < 0.1
    assert "version 2 comes from" in (killed / report.PAGE).read_text()


def test_a_finished_loop_says_so_at_once_and_another_cannot_begin_beside_it(killed, data):
    with state.owned(killed), pytest.raises(AlreadyExistsError, match="another process works in"):
        play.begin(killed, plan.of_data(SENSORS, data, n_first=4, n_played=1))

    again = subprocess.run(
        [*COMMAND, "--resume", "--workspace", str(killed), "--json"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip

    assert json.loads(again.stdout)["stable"] == 2


def test_ctrl_c_is_one_line_that_says_how_to_go_on(data, tmp_path):
    workspace = tmp_path / "loop"
    flags = ["--use-case", SENSORS, "--data", str(data), "--first", "4", "--weeks", "1"]
    loop = start(workspace, *flags)
    wait_until(loop, lambda: has_begun(workspace, "ingest"))
    family = psutil.Process(loop.pid).children(recursive=True)

    os.kill(loop.pid, signal.SIGINT)

    assert loop.wait(60) == 1
    last = (tmp_path / "loop.txt").read_text().splitlines()[-1]
    assert last.startswith("mlops-mini: stopped in 2026-W04; `")
    assert last.endswith(f"mlops-mini loop --resume --workspace {workspace}` goes on from there")
    psutil.wait_procs(family, timeout=10)
    assert not [each for each in family if each.is_running()]


def test_weeks_of_flights(tmp_path):
    loop = start(tmp_path / "loop", "--weeks", "8")

    assert loop.wait() == 0, (tmp_path / "loop.txt").read_text()[-3000:]
    known = seen(tmp_path / "loop")
    assert [event.kind for event in known.events if event.kind != "suppressed"] == [
        "first", "quarantined", "mended", "fired", "blessed", "releasing", "promoted",
    ]  # fmt: skip
    assert "distance" in next(e.text for e in known.events if e.kind == "quarantined")
    quality = report.record(tmp_path / "loop")["quality"]
    assert quality["served"] < quality["never"]
