"""Speed of the pipeline's runner itself: many small tasks, and a whole command whose work is done.

Runs a pipeline of 1,000 tasks that each double a number, then the same once more, when all of them
are taken from the cache; each pair in a process of its own, with a folder of its own. Then runs the
flights' pipeline by `mlops-mini pipeline run` and, that done, again and again: each is a new
process, which takes ten tasks from the cache and runs two, for these have effects outside. Prints
the table and writes it to benchmarks/pipeline_runner.md; fails if a median misses its goal.

Example: python -m benchmarks.pipeline_runner
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from kfp import dsl

from mlops_mini.runner.runner import Runner

N_TASKS = 1_000
# Seconds of each measurement that are promised on two calm cores.
GOALS_S = {
    "1,000 small tasks": 15.0,
    "the same 1,000, all cached": 4.0,
    "flights again, the whole command": 2.0,
}
PERIOD = "2013-03"


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def double(x: int) -> int:
    """Double a number."""
    return 2 * x


@dsl.pipeline(name="many-small-tasks")
def many(numbers: list[int]) -> None:
    """Double many numbers, a task each."""
    with dsl.ParallelFor(numbers) as x:
        double(x=x)


def measure_many(folder: Path) -> list[float]:
    """Seconds of a first run, and of the same once more."""
    seconds = []
    with Runner(folder) as runner:
        for state in ("SUCCEEDED", "CACHED"):
            start = time.perf_counter()
            run = runner.run(many, {"numbers": list(range(N_TASKS))})
            seconds.append(time.perf_counter() - start)
            states = [task.state for task in run.tasks.values() if task.component == "double"]
            if states != [state] * N_TASKS:
                raise RuntimeError(f"expected {N_TASKS} tasks {state}, got {sorted(set(states))}")
    return seconds


def many_in_own_process() -> list[float]:
    """Measure the small tasks in a process that has run nothing before."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.pipeline_runner", "--measure", folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        return [float(seconds) for seconds in json.loads(done.stdout)]


def run_flights(workspace: Path, states: set[str]) -> float:
    """Seconds that the command takes, as whoever types it waits; its tasks end in these states."""
    script = Path(sys.executable).with_name("mlops-mini")
    options = ["--period", PERIOD, "--workspace", str(workspace), "--json"]
    start = time.perf_counter()
    done = subprocess.run(
        [script, "pipeline", "run", *options], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - start
    found = {task["state"] for task in json.loads(done.stdout)["tasks"].values()}
    if found != states:
        raise RuntimeError(f"expected tasks {sorted(states)}, got {sorted(found)}: {done.stderr}")
    return seconds


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--date", default=datetime.now(UTC).date().isoformat())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        sys.stdout.write(json.dumps(measure_many(Path(options.measure))))
        return
    load_before = os.getloadavg()[0]
    figures: dict[str, list[float]] = {name: [] for name in GOALS_S}
    with tempfile.TemporaryDirectory() as folder:
        first_s = run_flights(Path(folder), {"SUCCEEDED"})
        for _ in range(options.rounds):
            again_s = run_flights(Path(folder), {"SUCCEEDED", "CACHED"})
            for name, seconds in zip(GOALS_S, [*many_in_own_process(), again_s], strict=True):
                figures[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in figures.items()}
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},"
        f" kfp {version('kfp')}, TensorFlow {version('tensorflow')}"
    )
    lines = [
        f"| {name} | {medians[name]:.2f} | {min(seconds):.2f} to {max(seconds):.2f} |"
        f" {GOALS_S[name]:.0f} |"
        for name, seconds in figures.items()
    ]
    text = "\n".join(
        [
            "# Speed of the runner itself",
            "",
            "A pipeline of 1,000 tasks that double a number, each in a process of its own; the",
            f"same once more; and `mlops-mini pipeline run --period {PERIOD}` for the second time",
            "in a workspace, from the start of Python to its end: ten tasks come from the cache,",
            f"`publish` and `write-verdict` run. (The first time it took {first_s:.1f} s.)",
            "",
            "| what | s, median | s, all | goal |",
            "| --- | ---: | ---: | ---: |",
            *lines,
            "",
            f"{options.rounds} rounds, in turn; load average before them {load_before:.1f}.",
            f"{options.date}, {machine}.",
        ]
    )
    sys.stdout.write(text + "\n")
    if late := [name for name, goal_s in GOALS_S.items() if medians[name] > goal_s]:
        sys.exit(f"slower than promised: {', '.join(late)}")
    Path(__file__).with_suffix(".md").write_text(text + "\n")


if __name__ == "__main__":
    main()
