"""Components of our pipeline in their images make what they make as processes, digest by digest."""

from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from mlops_mini.pipeline import challenger, components, definition
from mlops_mini.runner.records import RunRecord
from mlops_mini.runner.runner import Runner
from mlops_mini.runner.tasks import Mode

pytestmark = [pytest.mark.docker, pytest.mark.slow]
USE_CASE = "mlops_mini.flights.use_case:FLIGHTS"


@dsl.pipeline(name="two-models")
def two_models(
    use_case: str,
    use_case_digest: str,
    train_periods: list[str],
    test_period: str,
    data_folder: str,
    data_digest: str,
) -> None:
    """From files to a candidate with TensorFlow and a challenger with XGBoost."""
    case = {"use_case": use_case, "use_case_digest": use_case_digest}
    periods = {"train_periods": train_periods, "test_period": test_period}
    raw = components.ingest(data_folder=data_folder, data_digest=data_digest, **case, **periods)
    verified = components.verify(raw=raw.outputs["raw"], expected=data_digest)
    data = {"data_digest": verified.outputs["data_digest"]}
    validated = components.validate(raw=raw.outputs["raw"], **case, **periods, **data)
    tabled = components.features(
        clean=validated.outputs["clean"], holdout_days=7, **case, **periods, **data
    )
    train = {"train_examples": tabled.outputs["train_examples"], **data}
    columns = {name: tabled.outputs[name] for name in ("label", "features")}
    warm_start = {"warm_start": "", "warm_start_digest": ""}
    components.train(seed=0, epochs=1, **train, **columns, **case, **warm_start)
    challenger.challenger(
        seed=0,
        key=tabled.outputs["key"],
        test_examples=tabled.outputs["test_examples"],
        **train,
        **columns,
    )


def run(mode: Mode, folder: Path) -> RunRecord:
    given = definition.arguments(
        USE_CASE,
        "2013-W06",
        models_folder=folder / "models",
        verdicts_folder=folder / "verdicts",
        n_train_periods=2,
        holdout_days=7,
    )
    names = ("data_folder", "data_digest", "train_periods", "test_period", "use_case_digest")
    arguments = {"use_case": USE_CASE, **{name: given[name] for name in names}}
    with Runner(folder / "runs", mode=mode, volumes=definition.VOLUMES) as runner:
        return runner.run(two_models, arguments)


def made(record: RunRecord) -> dict[str, Any]:
    return {
        f"{path} {name}": artifact["digest"]
        for path, task in record.tasks.items()
        for name, artifact in task.outputs["artifacts"].items()
    } | {path: task.outputs["parameters"] for path, task in record.tasks.items()}


def test_candidate_and_challenger_are_the_same(component_images: None, tmp_path: Path) -> None:
    in_containers = run("docker", tmp_path / "containers")
    as_processes = run("fork", tmp_path / "processes")

    assert made(in_containers) == made(as_processes)
    assert {"train model", "challenger booster"} <= set(made(in_containers))
