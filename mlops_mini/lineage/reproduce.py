"""Run a recorded run again, from its own inputs, and see what comes out differently."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_mini.errors import AlreadyExistsError, FailedPreconditionError, NotFoundError
from mlops_mini.lineage import compare, lineage
from mlops_mini.lineage.compare import Difference
from mlops_mini.lineage.lineage import Lineage
from mlops_mini.runner import artifacts
from mlops_mini.runner.records import RunRecord, TaskRecord

if TYPE_CHECKING:
    from mlops_mini.description import TextTable

# What these make is another folder, another number, or holds how long a prediction has taken; what
# the gate has decided is compared with the rest of both runs.
_NEVER_THE_SAME = {"publish", "write-verdict", "gate"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Remade:
    """Something that a run has made, and what it was this time.

    Attributes:
        task: Name of the task.
        output: Name of the artifact.
        recorded: Digest of what it was.
        again: Digest of what it is now, empty if it was not made.
    """

    task: str
    output: str
    recorded: str
    again: str

    @property
    def is_same(self) -> bool:
        """Whether it's the same to the digest."""
        return self.recorded == self.again


@dataclass(frozen=True, kw_only=True, slots=True)
class Reproduction:
    """What has come of running a run again.

    Attributes:
        run_id: The run.
        workspace: Where it ran again.
        remade: Each artifact of its tasks, in order.
        differences: What the two runs don't share, such as code, packages and metrics.
        largest_metric_difference: Over AUC and log loss of all models; 0 if all are the same.
        tolerance: What was allowed of that.
    """

    run_id: str
    workspace: Path
    remade: tuple[Remade, ...]
    differences: tuple[Difference, ...]
    largest_metric_difference: float
    tolerance: float

    @property
    def is_reproduced(self) -> bool:
        """Whether metrics are the same within the tolerance."""
        return self.largest_metric_difference <= self.tolerance

    @property
    def is_identical(self) -> bool:
        """Whether everything is the same to the digest."""
        return all(each.is_same for each in self.remade)


def reproduce(
    workspace: Path,
    run_id: str,
    *,
    scratch: Path,
    tolerance: float = 0.002,
    on_task: Callable[[TaskRecord], None] = lambda _task: None,
) -> Reproduction:
    """Run a run again, from the data that it has copied and the versions that it was given.

    Nothing is taken from a cache, and nothing is published but into a folder of its own.

    Args:
        workspace: Folder of models, verdicts and runs.
        run_id: The run.
        scratch: Where to run; made if it isn't there.
        tolerance: Largest difference of a metric that still counts as reproduced: another processor
            trains a little differently.
        on_task: Told of each change of a task, in another thread.

    Raises:
        NotFoundError: There's no such run; or its data, or a version that it was given, is gone.
        FailedPreconditionError: One of them was edited.
        AlreadyExistsError: It was run again in this folder before.
        AbortedError: It has failed this time.
    """
    from mlops_mini.pipeline import definition
    from mlops_mini.runner.runner import Runner

    before = lineage.of_run(workspace, run_id)
    run = before.run
    if run is None:
        raise NotFoundError(f"no record of run {run_id!r} in {workspace}: {before.problems}")
    if (scratch / "runs" / run_id).exists():
        raise AlreadyExistsError(
            f"{run_id} was run again in {scratch} before: remove that folder, or name another one"
            " (--scratch)"
        )
    raw = _inputs(before, run)
    models = scratch / "models" / before.model
    arguments = {
        **run.arguments,
        "data_folder": str(raw),
        "models_folder": str(models.resolve()),
        "verdicts_folder": str((scratch / "verdicts").resolve()),
        "registry": "",
    }
    with Runner(scratch / "runs", on_task=on_task) as runner:
        again = runner.run(definition.continuous_training, arguments, run_id=run_id)
    after = lineage.of_run(scratch, run_id)
    return Reproduction(
        run_id=run_id,
        workspace=scratch,
        remade=tuple(_remade(run, again)),
        differences=tuple(compare.compare(before, after)),
        largest_metric_difference=_largest_difference(before, after),
        tolerance=tolerance,
    )


def _inputs(before: Lineage, run: RunRecord) -> Path:
    """Find the recorded inputs, and make sure that they are what they were."""
    raw = before.artifact("raw")
    for name, artifact in lineage.artifacts_of(run):
        if name == "raw" and not artifacts.is_unchanged(artifact):
            raise FailedPreconditionError(
                f"the data that {run.id} has copied to {raw} was edited since: restore it, or start"
                " a new run"
            )
    for parent in before.parents:
        if not Path(parent.folder).is_dir():
            raise NotFoundError(
                f"the {parent.role} of {run.id} is gone: {parent.folder}, which answered"
                f" {parent.digest[:12]}; publish that model again, or start a new run"
            )
    return raw


def _remade(run: RunRecord, again: RunRecord) -> Iterator[Remade]:
    for path, task in run.tasks.items():
        made = again.tasks[path].outputs.get("artifacts", {}) if path in again.tasks else {}
        for name, artifact in task.outputs.get("artifacts", {}).items():
            if task.component not in _NEVER_THE_SAME:
                yield Remade(
                    task=task.name,
                    output=name,
                    recorded=artifact["digest"],
                    again=made.get(name, {}).get("digest", ""),
                )


def _largest_difference(before: Lineage, after: Lineage) -> float:
    differences = [0.0]
    for who, measured in before.metrics.items():
        for name in ("auc", "log_loss"):
            pair = [measured.get(name), after.metrics.get(who, {}).get(name)]
            if pair[0] is not None:
                differences.append(abs(pair[0] - pair[1]) if pair[1] is not None else float("inf"))
    return max(differences)


def tables(reproduction: Reproduction) -> list[TextTable]:
    """Lay a reproduction out: for each table a title, the header, and rows of text."""
    remade = [
        (
            each.task,
            each.output,
            each.recorded[:12],
            each.again[:12],
            "" if each.is_same else "other",
        )
        for each in reproduction.remade
    ]
    metrics = f"{reproduction.largest_metric_difference:.2g}, {reproduction.tolerance:g} is allowed"
    return [
        (
            f"{reproduction.run_id}, run again",
            ("task", "output", "recorded", "again", "is"),
            remade,
        ),
        compare.table(reproduction.differences, ("recorded", "again")),
        (
            "Verdict",
            ("metrics differ by at most", "artifacts"),
            [(metrics, "all the same" if reproduction.is_identical else "some are other")],
        ),
    ]


def document(reproduction: Reproduction) -> dict[str, Any]:
    """Reduce a reproduction to what JSON can hold."""
    known: dict[str, Any] = json.loads(json.dumps(asdict(reproduction), default=str))
    return known | {
        "is_reproduced": reproduction.is_reproduced,
        "is_identical": reproduction.is_identical,
    }
