"""What has happened to a model: its runs, and which version was the champion when."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_mini.lineage import lineage
from mlops_mini.model import champions
from mlops_mini.model.champions import Move
from mlops_mini.runner.records import RunRecord

if TYPE_CHECKING:
    from mlops_mini.description import TextTable


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A run of the pipeline, and what has come of it.

    Attributes:
        run_id: The run.
        started_at: ISO 8601, UTC.
        state: As `RunRecord.state`.
        test_period: The newest month or week, whose last days judged.
        decision: The gate's; empty if it wasn't reached.
        reason: Why, or why the run has failed.
        version: What it has published, None if nothing.
    """

    run_id: str
    started_at: str
    state: str
    test_period: str
    decision: str
    reason: str
    version: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What has happened to a model, oldest first.

    Attributes:
        model: Its name.
        trials: Its runs.
        moves: The changes of its champion.
    """

    model: str
    trials: tuple[Trial, ...]
    moves: tuple[Move, ...]


def read(workspace: Path, *, model: str = "") -> History:
    """Read the history of a model.

    Args:
        workspace: Folder of models, verdicts and runs.
        model: Name of the model; the only one in the workspace if empty.

    Raises:
        NotFoundError: There's no such model, or no record of runs.
    """
    name = lineage.model_of(workspace, model)
    models = workspace / "models" / name
    published = champions.versions_by_run(models)
    with lineage.records_of(workspace) as records:
        runs = [records.run(run.id) for run in reversed(records.runs())]
    return History(
        model=name,
        trials=tuple(
            _trial(run, published.get(run.id))
            for run in runs
            if Path(str(run.arguments.get("models_folder", ""))).name == name
        ),
        moves=tuple(champions.moves(models)),
    )


def _trial(run: RunRecord, version: int | None) -> Trial:
    gate = lineage.task_of(run, "gate")
    said = gate.outputs["parameters"] if gate else {}
    decision = said.get("decision") or ("blessed" if said.get("blessed") else "refused")
    return Trial(
        run_id=run.id,
        started_at=run.started_at,
        state=run.state,
        test_period=str(run.arguments.get("test_period", "")),
        decision=decision if gate else "",
        reason=run.reason or said.get("reason", ""),
        version=version,
    )


def tables(history: History) -> list[TextTable]:
    """Lay a history out: for each table a title, the header, and rows of text."""
    trials = [
        (
            each.run_id,
            each.test_period,
            each.decision if each.state == "SUCCEEDED" else each.state,
            "" if each.version is None else str(each.version),
            each.reason,
        )
        for each in history.trials
    ]
    moves = [
        (
            str(move.version),
            move.at[:16],
            "none" if move.before is None else str(move.before),
            f"{move.kind}{f' by {move.by}' if move.by else ''}",
            move.reason,
        )
        for move in history.moves
    ]
    return [
        (
            f"Runs of {history.model}",
            ("run", "data until", "verdict", "version", "why"),
            trials,
        ),
        (
            f"Champions of {history.model}",
            ("version", "since (UTC)", "before it", "how", "why"),
            moves,
        ),
    ]


def document(history: History) -> dict[str, Any]:
    """Reduce a history to what JSON can hold."""
    return {
        "model": history.model,
        "runs": [asdict(trial) for trial in history.trials],
        "champions": [asdict(move) for move in history.moves],
    }
