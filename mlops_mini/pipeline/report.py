"""What a run of the pipeline has done, as tables for people."""

from __future__ import annotations

from pathlib import Path

from mlops_mini.description import TextTable
from mlops_mini.model import gate
from mlops_mini.runner.records import RunRecord, TaskRecord

_DIGEST = 64  # characters of a sha256


def run_tables(run: RunRecord) -> list[TextTable]:
    """Lay a pipeline's run out: its tasks, and what the gate has asked if it came to that."""
    verdicts = [
        Path(task.outputs["artifacts"]["verdict"]["uri"])
        for task in run.tasks.values()
        if "verdict" in task.outputs.get("artifacts", {})
    ]
    return [_run_table(run), *(_gate_table(f) for f in verdicts if f.is_file())]


def _gate_table(verdict_file: Path) -> TextTable:
    header = ("rule, of its slices the worst", "measured", "limit", "verdict")
    return ("Gate", header, gate.summarize(gate.read(verdict_file)))


def _run_table(run: RunRecord) -> TextTable:
    rows = [
        (
            task.name,
            task.state,
            f"{task.elapsed_s:.1f}" if task.attempt and task.state != "CACHED" else "",
            str(task.attempt or ""),
            task.error or _in_short(task),
        )
        for task in run.tasks.values()
    ]
    return (f"{run.id}: {run.state}", ("task", "state", "s", "attempts", "what"), rows)


def _in_short(task: TaskRecord) -> str:
    """Put what a task has returned into a few words: no digest, and of a list its length."""
    shown = [
        f"{len(value)} {name}" if isinstance(value, list) else f"{name} {value}"
        for name, value in task.outputs.get("parameters", {}).items()
        if not (isinstance(value, str) and len(value) == _DIGEST)
    ]
    return ", ".join(shown).removeprefix("Output ")
