"""Let a person decide where the gate could not: publish the candidate of an undecided run.

A candidate that the gate has blessed is trained once more, on the days that judged it, too. One
that a person lets through is published just as it was judged, and its publication says so.
"""

from __future__ import annotations

from pathlib import Path

from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError
from mlops_mini.lineage import lineage
from mlops_mini.model import champions
from mlops_mini.model.publish import Publication, PublishedVersion
from mlops_mini.model.registry import publish_and_register
from mlops_mini.runner import artifacts


def approve(workspace: Path, run_id: str, *, by: str) -> PublishedVersion:
    """Publish a candidate that the gate has neither blessed nor refused.

    Doing it again changes nothing: the run has published then.

    Args:
        workspace: Folder of models, verdicts and runs.
        run_id: The run whose verdict is "undecided".
        by: Who takes the responsibility.

    Returns:
        The version, which is the champion.

    Raises:
        NotFoundError: There's no such run, or its candidate is gone.
        InvalidArgumentError: `by` names nobody.
        FailedPreconditionError: The verdict is another; or the candidate was edited, or was
            compared with a version that's no longer the champion.
    """
    if not by.strip():
        raise InvalidArgumentError("an approval needs the name of a person: give one by --by")
    known = lineage.of_run(workspace, run_id)
    run, decision = known.run, known.verdict.get("decision", "none")
    if run is None:
        raise FailedPreconditionError(f"{run_id} can't be approved: {'; '.join(known.problems)}")
    models = Path(run.arguments["models_folder"])
    if decision == "undecided" and known.publication and known.version is not None:
        return PublishedVersion(version=known.version, path=models / str(known.version))
    if decision != "undecided":
        raise FailedPreconditionError(
            f"the verdict on {run_id} is {decision!r}, and only an undecided one is left to people:"
            " what is blessed is published already, what is refused stays refused"
        )
    current = champions.champion(models)
    compared = next((parent for parent in known.parents if parent.role == "baseline"), None)
    if current != (compared.version if compared else None):
        raise FailedPreconditionError(
            f"{run_id} was compared with version {compared.version if compared else 'none'}, and"
            f" the champion is version {current} by now: run the pipeline again"
        )
    train = lineage.task_of(run, "train")
    model = known.artifact("model")
    if train is None or not artifacts.is_unchanged(train.outputs["artifacts"]["model"]):
        raise FailedPreconditionError(
            f"the candidate of {run_id} was edited after it was judged: run the pipeline again"
        )
    # Where only its last days judge, a candidate has learned from the test period, too.
    holdout_days = run.arguments.get("holdout_days", 0)
    seen = [run.arguments["test_period"]] if "holdout_days" in run.arguments else []
    publication = Publication(
        run_id=run_id,
        model_digest=train.outputs["parameters"]["Output"],
        test_period=run.arguments["test_period"],
        train_periods=(*run.arguments["train_periods"], *seen),
        data_digest=run.arguments["data_digest"],
        began=run.started_at,
        approved_by=by,
        holdout_days=holdout_days,
    )
    return publish_and_register(
        model, models, publication=publication, uri=run.arguments.get("registry", "")
    )
