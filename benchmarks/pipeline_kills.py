"""Kills the pipeline of flights at random moments, resumes it, and compares what comes of it.

Each trial begins a run in a workspace of its own, kills it with SIGKILL after a random part of the
time that an undisturbed run takes, and resumes it until it has succeeded. All must end with the
same semantic digests as the undisturbed run, one version, and no process left over.

    .venv/bin/python -m benchmarks.pipeline_kills [DATE]

writes `benchmarks/pipeline_kills.md`; it takes about a quarter of an hour on two cores.
"""

import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from mlops_mini.model import publish
from mlops_mini.runner.runner import Runner

N_KILLS = 20
PERIOD = ["--period", "2013-02", "--train-periods", "1"]
COMMAND = [str(Path(sys.executable).with_name("mlops-mini")), "pipeline", "run", *PERIOD]


def begin(workspace: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start a run, or go on with one."""
    with (workspace / "output.txt").open("ab") as log:
        return subprocess.Popen(
            [*COMMAND, "--workspace", str(workspace), *more], stdout=log, stderr=log
        )


def outcome(workspace: Path) -> dict[str, Any]:
    """Digest what a workspace's only run has made: artifacts by task, and versions."""
    runner = Runner(workspace / "runs")
    (run,) = runner.runs()
    tasks = runner.show(run.id).tasks
    return {
        "state": run.state,
        "artifacts": {
            f"{path}.{name}": made["digest"]
            for path, task in sorted(tasks.items())
            for name, made in task.outputs.get("artifacts", {}).items()
        },
        "versions": [v.version for v in publish.published_versions(workspace / "models/flights")],
    }


def left_over(workspace: Path) -> list[int]:
    """Find processes that still work below a workspace."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = [*(process.info["cmdline"] or ()), process.info["cwd"] or ""]
        if any(str(workspace) in word for word in words):
            found.append(process.pid)
    return found


def check(is_right: bool, message: str) -> None:
    """Stop the script at the first result that is wrong."""
    if not is_right:
        raise SystemExit(message)


def run_to_its_end(workspace: Path, *more: str) -> None:
    """Run, or resume, without a disturbance."""
    status = begin(workspace, *more).wait()
    check(status == 0, (workspace / "output.txt").read_text()[-2000:])


def kill_and_resume(workspace: Path, after_s: float) -> int | None:
    """Kill a run once and resume it: how many of its tasks were kept, None if it was faster."""
    process = begin(workspace)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    runner = Runner(workspace / "runs")
    runs = runner.runs()
    if runs and runs[0].state != "INTERRUPTED":
        return None
    kept = 0
    if runs:
        done = runner.show(runs[0].id).tasks.values()
        kept = sum(task.state == "SUCCEEDED" for task in done)
    run_to_its_end(workspace, *(["--resume", runs[0].id] if runs else []))
    deadline = time.monotonic() + 10
    while left := left_over(workspace):
        check(time.monotonic() < deadline, f"left over: {left}")
        time.sleep(0.1)
    return kept


def main() -> None:
    """Run, kill, resume, compare, and print the table."""
    moments = random.Random(0)  # noqa: S311 - no secret
    root = Path(tempfile.mkdtemp(prefix="pipeline_kills_"))
    undisturbed = root / "undisturbed"
    undisturbed.mkdir()
    started = time.monotonic()
    run_to_its_end(undisturbed)
    whole_s = time.monotonic() - started
    expected = outcome(undisturbed)
    rows: list[str] = []
    while len(rows) < N_KILLS:
        workspace = root / f"kill_{len(rows)}"
        workspace.mkdir()
        after_s = moments.uniform(0, whole_s)
        kept = kill_and_resume(workspace, after_s)
        if kept is not None:
            found = outcome(workspace)
            check(found == expected, json.dumps([expected, found], indent=2))
            versions = len(found["versions"])
            rows.append(f"| {len(rows) + 1} | {after_s:.1f} | {kept} | the same | {versions} |")
            sys.stderr.write(rows[-1] + "\n")
        shutil.rmtree(workspace)
    shutil.rmtree(root)
    today = sys.argv[1] if len(sys.argv) > 1 else datetime.now(UTC).date().isoformat()
    lines = [
        "# A pipeline that is killed and resumed",
        "",
        f"Written by `benchmarks/pipeline_kills.py` on {today};",
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores.",
        "",
        f"The pipeline of flights, judged on 2013-02: an undisturbed run takes {whole_s:.0f} s and",
        f"makes {len(expected['artifacts'])} artifacts. Each line is a run of its own, killed with",
        "SIGKILL once and resumed under the same id. Artifacts are compared by semantic digest.",
        "",
        "| kill | after, s | tasks kept | artifacts | versions published |",
        "| ---: | ---: | ---: | --- | ---: |",
        *rows,
        "",
    ]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
