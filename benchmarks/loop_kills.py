"""Kills processes of a loop at random moments, resumes it, and compares what it decides.

The loop plays thirteen weeks of made sensors, with all that goes wrong in a year. It's played once
undisturbed and once with 30 kills: every few seconds one of its processes, chosen at random, gets
SIGKILL, be it the loop itself, a model server, Envoy, the fork server, a task of a pipeline or the
comparison. Whenever the loop has ended before its time, it's resumed.

    .venv/bin/python -m benchmarks.loop_kills [DATE]

writes `benchmarks/loop_kills.md`; it takes about a quarter of an hour on two cores.
"""

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from mlops_mini.loop import state
from mlops_mini.model import publish
from mlops_mini.monitoring.journal import Journal
from mlops_mini.use_case import load
from tests.tenants import made

N_KILLS = 30
USE_CASE = "tests.tenants.weekly:WEEKLY"
MONTHS = ("2026-01", "2026-02", "2026-03", "2026-04", "2026-05")
COMMAND = [str(Path(sys.executable).with_name("mlops-mini")), "loop"]
NAMES = {
    "mlops_mini.serving.server": "model server",
    "envoy": "Envoy",
    "mlops_mini.loop.comparison": "comparison",
    "mlops_mini.runner.fork_server": "fork server or a task",
}
# What a kill may add to a timeline, and must not take away.
BY_KILLS = ("canary lost",)


def begin(workspace: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start a loop, or go on with one."""
    with (workspace.parent / f"{workspace.name}.txt").open("ab") as log:
        return subprocess.Popen(
            [*COMMAND, "--workspace", str(workspace), *more], stdout=log, stderr=log
        )


def outcome(workspace: Path) -> dict[str, Any]:
    """Collect what must be the same: decisions, versions, and how often requests count."""
    known, case = state.read(workspace), load(USE_CASE)
    journal = Journal(workspace / "journal.sqlite", model=case.name, calendar=case.calendar)
    periods = [case.calendar.period(each.period) for each in known.served]
    rows = {str(period): journal.rows(period) for period in periods}
    return {
        "decisions": [
            (event.period, event.kind, event.version)
            for event in known.events
            if event.kind not in BY_KILLS
        ],
        "versions": [v.version for v in publish.published_versions(workspace / "models/stops")],
        "requests": {period: len(each) for period, each in rows.items()},
        "labels": {period: int(each["label"].notna().sum()) for period, each in rows.items()},
    }


def victims(process: subprocess.Popen[bytes]) -> list[tuple[str, psutil.Process]]:
    """List the processes of a loop by what they are."""
    found = [("the loop itself", psutil.Process(process.pid))]
    for each in psutil.Process(process.pid).children(recursive=True):
        try:
            line = " ".join(each.cmdline())
        except psutil.Error:
            continue
        name = next((name for word, name in NAMES.items() if word in line), "")
        if name:
            found.append((name, each))
    return found


def check(is_right: bool, message: str) -> None:
    """Stop the script at the first result that is wrong."""
    if not is_right:
        raise SystemExit(message)


def main() -> None:
    """Play undisturbed, play with kills, compare, and write the table."""
    chance = random.Random(0)  # noqa: S311 - no secret
    root = Path(tempfile.mkdtemp(prefix="loop_kills_"))
    made.write_sensors(root / "data", months=MONTHS)
    flags = ["--use-case", USE_CASE, "--data", str(root / "data"), "--first", "4", "--weeks", "13"]
    started = time.monotonic()
    check(begin(root / "undisturbed", *flags).wait() == 0, f"see {root / 'undisturbed.txt'}")
    whole_s = time.monotonic() - started
    expected = outcome(root / "undisturbed")

    workspace, rows, n_resumed = root / "killed", [], 0
    loop = begin(workspace, *flags)
    while len(rows) < N_KILLS:
        try:
            status = loop.wait(chance.uniform(1, whole_s / 6))
        except subprocess.TimeoutExpired:
            name, victim = chance.choice(victims(loop))
            where = "before its first step"
            if (workspace / state.FILE).exists():
                known = state.read(workspace)
                where = f"{known.period}, {known.step}"
            victim.kill()
            rows.append((name, where))
            print(len(rows), name, where, file=sys.stderr, flush=True)
            if name == "the loop itself":
                loop.wait()
        else:
            if status == 0:  # it was faster than the kills: once more from the start
                check(outcome(workspace) == expected, f"{outcome(workspace)}\n{expected}")
                loop = begin(workspace, *flags)
                continue
        if loop.poll() is not None:
            n_resumed += 1
            is_begun = (workspace / state.FILE).exists()
            loop = begin(workspace, *(["--resume"] if is_begun else flags))
    while loop.wait() != 0:
        n_resumed += 1
        check(n_resumed < 3 * N_KILLS, f"see {root / 'killed.txt'}")
        loop = begin(workspace, "--resume")
    found = outcome(workspace)
    check(found == expected, json.dumps([expected, found], indent=1))
    counts = Counter(name for name, _ in rows)
    lines = [
        "# A loop whose processes are killed",
        "",
        (
            f"Written by `benchmarks/loop_kills.py` on"
            f" {(sys.argv[1:] or [datetime.now(UTC).date().isoformat()])[0]};"
        ),
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores.",
        "",
        (
            f"Thirteen weeks of made sensors; undisturbed they take {whole_s:.0f} s. With {N_KILLS}"
            f" kills the loop was"
        ),
        (
            f"resumed {n_resumed} times, and ended with the same {len(expected['decisions'])}"
            f" decisions, versions {expected['versions']},"
        ),
        (
            f"{sum(expected['requests'].values()):,} requests and"
            f" {sum(expected['labels'].values()):,} labels, each once."
        ),
        "",
        "| killed | times |",
        "| --- | ---: |",
        *(f"| {name} | {n} |" for name, n in counts.most_common()),
        "",
        "| kill | process | while |",
        "| ---: | --- | --- |",
        *(f"| {number} | {name} | {where} |" for number, (name, where) in enumerate(rows, 1)),
    ]
    text = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
