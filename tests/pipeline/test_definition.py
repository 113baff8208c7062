"""The pipeline as compiled, and the arguments of a run."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from mlops_mini import workspace
from mlops_mini.errors import NotFoundError
from mlops_mini.flights.use_case import FLIGHTS
from mlops_mini.model import champions, publish
from mlops_mini.pipeline import definition, examples
from tests.model.published import publication, toy_export

DATA = workspace.data_folder()
NAME = "mlops_mini.flights.use_case:FLIGHTS"


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict:
    file = definition.write_package(tmp_path_factory.mktemp("package") / "pipeline.yaml")
    return next(yaml.safe_load_all(file.read_text()))


def tasks_of(spec: dict) -> dict[str, dict]:
    """All tasks by name, those of groups too."""
    found = dict(spec["root"]["dag"]["tasks"])
    for component in spec["components"].values():
        found |= component.get("dag", {}).get("tasks", {})
    return found


def test_compiles_to_the_same_bytes_each_time(tmp_path: Path) -> None:
    files = [definition.write_package(tmp_path / name) for name in ("a.yaml", "b.yaml")]

    assert files[0].read_bytes() == files[1].read_bytes()


def test_only_what_acts_outside_of_the_run_is_never_cached_and_tried_again(spec) -> None:
    tasks = tasks_of(spec)
    work = {
        name
        for name, task in tasks.items()
        if "dag" not in spec["components"][task["componentRef"]["name"]]
    }

    assert work == {
        "ingest", "verify", "validate", "features", "train", "evaluate", "serving-check", "gate",
        "publish", "challenger", "score", "write-verdict",
    }  # fmt: skip
    cached = {name for name in work if tasks[name].get("cachingOptions", {}).get("enableCache")}
    assert work - cached == {"publish", "write-verdict"}
    retried = {name: task["retryPolicy"] for name, task in tasks.items() if "retryPolicy" in task}
    assert {name: policy["maxRetryCount"] for name, policy in retried.items()} == {
        "publish": 2,
        "write-verdict": 2,
    }


def test_the_verdict_is_written_whatever_happens(spec) -> None:
    root = spec["root"]["dag"]["tasks"]
    last = root["write-verdict"]

    assert set(root) == {"exit-handler-1", "write-verdict"}
    assert last["dependentTasks"] == ["exit-handler-1"]
    assert last["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert last["inputs"]["parameters"]["status"]["taskFinalStatus"]["producerTask"] == (
        "exit-handler-1"
    )


def test_publishing_waits_for_a_blessing_and_the_verdict_for_no_challenger(spec) -> None:
    tasks = tasks_of(spec)
    conditions = {
        name: task["triggerPolicy"]["condition"]
        for name, task in tasks.items()
        if "condition" in task.get("triggerPolicy", {})
    }

    assert {name: text.split("--")[1] for name, text in conditions.items()} == {
        "condition-2": "gate-blessed'] == true",
        "condition-3": "with_challenger'] == true",
    }
    assert tasks["gate"]["dependentTasks"] == ["evaluate", "serving-check"]


def test_arguments_are_what_the_pipeline_asks_for(spec, tmp_path: Path) -> None:
    found = definition.arguments(
        NAME, "2013-03", models_folder=tmp_path / "flights", verdicts_folder=tmp_path / "verdicts"
    )

    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert set(found) == set(parameters)
    assert found["train_periods"] == ["2013-01", "2013-02"]
    months = [FLIGHTS.calendar.period(month) for month in ("2013-01", "2013-02", "2013-03")]
    assert found["data_digest"] == examples.digest(FLIGHTS, months, data_folder=DATA)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("period", "n_train_periods", "train_periods"),
    [
        ("2013-02", None, ["2013-01"]),
        ("2013-12", 2, ["2013-10", "2013-11"]),
        ("2013-W02", None, ["2013-W00", "2013-W01"]),
        ("2013-W10", 1, ["2013-W09"]),
    ],
)
def test_trains_on_the_periods_just_before(
    tmp_path: Path, period, n_train_periods, train_periods
) -> None:
    found = definition.arguments(
        NAME,
        period,
        models_folder=tmp_path,
        verdicts_folder=tmp_path,
        n_train_periods=n_train_periods,
    )

    assert found["train_periods"] == train_periods


def test_a_version_that_was_rolled_back_is_no_baseline(tmp_path: Path) -> None:
    export, models = toy_export(tmp_path / "export"), tmp_path / "flights"
    for number in (1, 2, 3):
        alias = "challenger" if number == 3 else "champion"
        publish.publish(export, models, publication=publication(number, alias=alias))
    champions.reconcile(models)

    def baseline() -> str:
        asked = definition.arguments(
            NAME, "2013-06", models_folder=models, verdicts_folder=tmp_path / "verdicts"
        )
        return Path(asked["baseline"]).name

    assert baseline() == "2"
    champions.roll_back(models, 2)
    assert baseline() == "1"


def test_a_gap_ends_what_is_trained_on(tmp_path: Path) -> None:
    (tmp_path / "flights").mkdir()
    for month in ("2013-01", "2013-03", "2013-04"):
        shutil.copy(DATA / "flights" / f"{month}.parquet", tmp_path / "flights")
    shutil.copy(DATA / "weather.parquet", tmp_path)

    found = definition.arguments(
        NAME, "2013-04", models_folder=tmp_path, verdicts_folder=tmp_path, data_folder=tmp_path
    )

    assert found["train_periods"] == ["2013-03"]
    with pytest.raises(NotFoundError, match=r"some periods before 2013-03 .* there are none"):
        definition.arguments(
            NAME, "2013-03", models_folder=tmp_path, verdicts_folder=tmp_path, data_folder=tmp_path
        )


@pytest.mark.parametrize(
    ("period", "n_train_periods", "message"),
    [
        ("2013-01", None, "some periods before 2013-01 are needed to train on"),
        ("2013-03", 3, r"3 periods before 2013-03 .* there are \['2013-01', '2013-02'\]"),
        ("2014-01", None, "no flights of 2014-01"),
        ("2014-W01", None, "no flights of 2014-01"),
    ],
)
def test_says_what_is_missing(tmp_path: Path, period, n_train_periods, message) -> None:
    with pytest.raises(NotFoundError, match=message):
        definition.arguments(
            NAME,
            period,
            models_folder=tmp_path,
            verdicts_folder=tmp_path,
            n_train_periods=n_train_periods,
        )


def test_the_baseline_was_judged_earlier_so_a_second_run_has_the_same_arguments(
    tmp_path: Path,
) -> None:
    export = tmp_path / "export"
    export.mkdir()
    (export / "saved_model.pb").write_bytes(b"graph")

    def publish_for(period: str, digest: str) -> None:
        publication = publish.Publication(
            run_id=f"run-{period}",
            model_digest=digest,
            test_period=period,
            train_periods=("2013-01",),
            data_digest="d",
        )
        publish.publish(export, tmp_path / "flights", publication=publication)

    def ask(**changes) -> dict:
        folders = {"models_folder": tmp_path / "flights", "verdicts_folder": tmp_path / "verdicts"}
        return definition.arguments(NAME, "2013-04", **folders, **changes)

    assert (ask()["baseline"], ask(is_warm_start=True)["epochs"]) == ("", 5)
    publish_for("2013-02", "a")
    publish_for("2013-03", "b")
    publish.publish(export, tmp_path / "flights")
    before = ask()
    publish_for("2013-04", "c")
    publish_for("2013-05", "e")

    assert ask() == before
    assert before["baseline"] == str(tmp_path / "flights" / "2")
    assert before["baseline_digest"] == "b"
    assert (before["warm_start"], before["epochs"]) == ("", 5)
    warm = ask(is_warm_start=True, n_train_periods=1)
    assert (warm["warm_start"], warm["warm_start_digest"]) == (before["baseline"], "b")
    assert (warm["epochs"], warm["train_periods"]) == (1, ["2013-03"])
