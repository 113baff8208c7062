"""How long the loop takes, where the time goes, and whether it decides the same a second time.

Plays eight weeks of flights once and the year twice, each from scratch and in a process of its own.
A sentence that does not hold any more is not printed: the script stops at it.

    .venv/bin/python -m benchmarks.loop_time [DATE [FOLDER]]

writes `benchmarks/loop_time.md`; it takes a quarter of an hour on two calm cores. The loops stay in
the folder, so that a script that was ended goes on with the one that it was at, and those that are
over aren't played again: remove the folder for new ones.
"""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.features import claim
from benchmarks.gate_replay import table
from mlops_mini.loop import report, state

COMMAND = [str(Path(sys.executable).with_name("mlops-mini")), "loop"]


def play(workspace: Path, *flags: str) -> dict[str, Any]:
    """Play a loop from scratch, or to its end, unless it's over; return its record."""
    begun = (workspace / state.FILE).exists()
    if not (begun and state.read(workspace).step == "end"):
        ended = subprocess.run(
            [*COMMAND, "--workspace", str(workspace), *(["--resume"] if begun else flags)],
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise SystemExit(ended.stderr[-2000:])
    return report.record(workspace)


def decisions(record: dict[str, Any]) -> list[tuple[str, str, int | None]]:
    """List what was decided: when, what, and about which version."""
    return [(each["period"], each["kind"], each["version"]) for each in record["events"]]


def stages(weeks: dict[str, Any], year: dict[str, Any]) -> str:
    """Lay the seconds out by stage, longest first."""
    of_weeks, of_year = weeks["seconds"], year["seconds"]
    lines = [
        [stage, f"{of_weeks.get(stage, 0):.0f}", f"{s:.0f}", f"{s / sum(of_year.values()):.0%}"]
        for stage, s in sorted(of_year.items(), key=lambda each: -each[1])
    ]
    total = ["together", f"{sum(of_weeks.values()):.0f}", f"{sum(of_year.values()):.0f}", ""]
    return table(["stage", "8 weeks (s)", "year (s)", "of the year"], [*lines, total])


def say(year: dict[str, Any]) -> list[str]:
    """Say what the year shows."""
    kinds = [kind for _, kind, _ in decisions(year)]
    quality = year["quality"]
    n = {
        kind: kinds.count(kind)
        for kind in ("promoted", "undecided", "refused", "quarantined", "rolled back")
    }
    return [
        claim(
            f"The served log loss is {quality['served']:.4f}; never retrained it would have been"
            f" {quality['never']:.4f}, retrained each week {quality['always']:.4f}:"
            f" {quality['share']:.0%} of the gap is closed, with {n['promoted']} promotions.",
            quality["share"] >= 0.6,
            n["promoted"] <= 8,
        ),
        claim(
            f"Candidates undecided: {n['undecided']}, refused: {n['refused']}; deliveries set"
            f" aside: {n['quarantined']}; versions rolled back: {n['rolled back']}.",
            n["undecided"] + n["refused"] >= 1,
            n["quarantined"] >= 1,
            n["rolled back"] >= 1,
        ),
    ]


def main(date: str, folder: str = "runs/loop_time") -> None:
    """Play what isn't over yet, and write the page."""
    before = os.getloadavg()[0]
    root = Path(folder)
    weeks = play(root / "weeks", "--weeks", "8")
    year, again = (play(root / name) for name in ("year", "again"))
    difference = abs(again["quality"]["served"] - year["quality"]["served"])
    sentences = [
        *say(year),
        claim(
            f"A second year from scratch decides the same; its log loss differs by"
            f" {difference:.4f}.",
            decisions(again) == decisions(year),
            difference < 0.005,
        ),
    ]
    text = f"""# The time of the loop

Written by `benchmarks/loop_time.py` on {date}; Python {platform.python_version()},
{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {before:.1f} before.

{stages(weeks, year)}

`begin` and `retrain` are runs of the pipeline, `release` starts a new version's server, `wait` and
`serve` are requests, `comparison` is what was still to be compared at the end.

{chr(10).join(sentences)}
"""
    print(text)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:] or [f"{datetime.now(UTC):%Y-%m-%d}"])
