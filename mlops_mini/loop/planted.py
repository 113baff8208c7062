"""A bad version that comes around the gate: somebody exports a model by hand, classes swapped.

It's published by a pipeline of two tasks that asks nobody, so that its lineage is on record, and a
release is the first to notice.
"""

# Kubeflow reads the components' annotations and source.
# ruff: noqa: ARG001, D417
# mypy: disable-error-code="untyped-decorator, valid-type"

from pathlib import Path

from kfp import dsl
from kfp.dsl import Model, Output

from mlops_mini.errors import AbortedError
from mlops_mini.model.publish import Publication
from mlops_mini.pipeline import components
from mlops_mini.runner.records import RunRecord
from mlops_mini.runner.runner import Runner


@dsl.component(base_image=components.IMAGE, install_kfp_package=False)
def export_by_hand(version_folder: str, version_digest: str, model: Output[Model]) -> str:
    """Export a version's model once more, and swap its classes by mistake.

    Args:
        version_folder: Folder of the version.
        version_digest: What it answers.

    Returns:
        model: A SavedModel.
        Output: Digest of what it answers.
    """
    from pathlib import Path

    from mlops_mini.loop.swapped import swap_classes
    from mlops_mini.model.digest import model_digest

    swap_classes(Path(version_folder), Path(model.path))
    return model_digest(Path(model.path))


@dsl.pipeline(name="by-hand")
def by_hand(
    version_folder: str,
    version_digest: str,
    models_folder: str,
    train_periods: list[str],
    test_period: str,
    data_digest: str,
) -> None:
    """Publish without a test.

    Args:
        version_folder: Folder of the version to export again.
        version_digest: What it answers.
        models_folder: Folder of the model's versions.
        train_periods: As that version's publication says, like the others.
        test_period: The last period.
        data_digest: Of the data.
    """
    exported = export_by_hand(version_folder=version_folder, version_digest=version_digest)
    components.publish(
        model=exported.outputs["model"],
        model_digest=exported.outputs["Output"],
        models_folder=models_folder,
        registry="",
        train_periods=train_periods,
        test_period=test_period,
        data_digest=data_digest,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        began=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER,
    ).set_caching_options(False)


def publish(runner: Runner, run_id: str, version_folder: Path) -> RunRecord:
    """Publish the bad version; again under the same id changes nothing.

    Args:
        runner: Runs the pipeline.
        run_id: Names the run.
        version_folder: Of the version that it's made from.

    Raises:
        AbortedError: The run has failed.
    """
    known = Publication.read(version_folder)
    if known is None:
        raise AbortedError(f"{version_folder} doesn't tell where it comes from")
    arguments = {
        "version_folder": str(version_folder),
        "version_digest": known.model_digest,
        "models_folder": str(version_folder.parent),
        "train_periods": list(known.train_periods[:-1]),
        "test_period": known.test_period,
        "data_digest": known.data_digest,
    }
    if any(run.id == run_id for run in runner.runs()):
        return runner.resume(run_id, by_hand)
    return runner.run(by_hand, arguments, run_id=run_id)
