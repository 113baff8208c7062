"""Write runs into MLflow, where its web page shows and compares them.

The runner's own records are the truth; what is written here can be removed and written anew.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from mlops_mini.lineage import lineage
from mlops_mini.lineage.lineage import Lineage
from mlops_mini.model import registry
from mlops_mini.model.registry import Registry
from mlops_mini.runner.records import RunRecord

_TOLD = "told_as_of"
_STATES = {"SUCCEEDED": "FINISHED", "FAILED": "FAILED", "CANCELLED": "KILLED"}
_LONGEST_DIGEST = 36


def sync(workspace: Path, *, model: str = "") -> list[str]:
    """Make MLflow show what a workspace holds: its versions, aliases and ended runs.

    Args:
        workspace: Folder of models, verdicts and runs.
        model: Name of the model; the only one in the workspace if empty.

    Returns:
        What was written or mended, a sentence each; nothing when it's called again.

    Raises:
        NotFoundError: There's no such model, or no record of runs.
        UnavailableError: The registry is locked by another process.
        FailedPreconditionError: The registry was made by another version of MLflow.
        DataIntegrityError: The registry's file holds something else.
    """
    name = lineage.model_of(workspace, model)
    models = (workspace / "models" / name).resolve()
    opened = Registry(registry.uri_beside(models))
    changed = registry.reconcile(models, registry=opened)
    with lineage.records_of(workspace) as records:
        runs = list(reversed(records.runs()))
    for run in runs:
        if run.ended_at and Path(str(run.arguments.get("models_folder", ""))).name == name:
            own = opened.run_of(name, run.id, began=run.started_at)
            tags = opened.client.get_run(own).data.tags
            if tags.get(_TOLD) != run.ended_at:
                known = lineage.of_run(workspace, run.id)
                _tell(opened, own, known, run, ended_at=run.ended_at)
                changed.append(f"wrote run {run.id}")
    return changed


def _tell(opened: Registry, own: str, known: Lineage, run: RunRecord, *, ended_at: str) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    client: Any = opened.client
    ended_ms = int(datetime.fromisoformat(ended_at).timestamp() * 1000)
    inputs = [
        DatasetInput(
            Dataset(
                name=f"{part.table} {part.period}",
                digest=part.digest[:_LONGEST_DIGEST],
                source_type="local",
                source=json.dumps({"uri": run.arguments.get("data_folder", "")}),
                profile=json.dumps({"n_rows": part.n_rows, "n_quarantined": part.n_quarantined}),
            ),
            [InputTag("mlflow.data.context", part.role)],
        )
        for part in known.partitions
    ]
    if inputs:
        client.log_inputs(own, datasets=inputs)
    said = {
        "state": run.state,
        "reason": run.reason,
        "verdict": known.verdict.get("decision", ""),
        "verdict_reason": known.verdict.get("reason", ""),
        "pipeline_digest": run.spec_digest,
        "code_digest": run.code_digest,
        "environment_digest": run.environment_digest,
        "git_commit": run.git_commit,
        "trigger": json.dumps(run.trigger),
        "release": json.dumps(run.release),
    }
    parameters = known.parameters | {
        "train_periods": ", ".join(run.arguments.get("train_periods", [])),
        "test_period": run.arguments.get("test_period", ""),
    }
    client.log_batch(
        own,
        metrics=[
            Metric(f"{who}/{name}", value, ended_ms, 0)
            for who, measured in known.metrics.items()
            for name, value in measured.items()
            if value is not None
        ],
        params=[Param(name, str(value)) for name, value in parameters.items()],
        tags=[RunTag(name, value) for name, value in said.items() if value],
    )
    if known.version is not None and known.folder and known.folder.is_dir():
        opened.tag(known.model, known.version, "verdict", json.dumps(known.verdict))
    client.set_terminated(own, status=_STATES.get(run.state, "KILLED"), end_time=ended_ms)
    client.set_tag(own, _TOLD, ended_at)
