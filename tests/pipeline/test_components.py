"""Components as functions, on two real weeks: what passes between them are files."""

import ast
import hashlib
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from kfp import dsl

from mlops_mini import workspace
from mlops_mini.data import quarantine
from mlops_mini.errors import DataIntegrityError
from mlops_mini.flights import preparation
from mlops_mini.flights.features import FEATURES
from mlops_mini.flights.use_case import FLIGHTS
from mlops_mini.model import publish, registry
from mlops_mini.model.digest import model_digest
from mlops_mini.model.registry import Registry
from mlops_mini.pipeline import challenger, components, examples

ROOT = Path(__file__).resolve().parents[2]
OURS = [
    value
    for value in vars(components).values()
    if isinstance(value, dsl.python_component.PythonComponent)
]


def verify(raw: Path, expected: str, output: Path) -> subprocess.CompletedProcess[str]:
    """Run the command that Kubeflow would run."""
    container = components.verify.component_spec.implementation.container
    return subprocess.run(
        [*container.command, str(raw), expected, str(output)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_ingest_makes_a_data_folder_of_what_the_periods_need(stages) -> None:
    raw = stages.path("raw")

    assert {str(path.relative_to(raw)) for path in raw.rglob("*") if path.is_file()} == {
        "checksums.txt",
        "flights/2013-01.parquet",  # the week before reaches into January
        "flights/2013-02.parquet",
        "weather.parquet",
    }
    listed = hashlib.sha256((raw / "checksums.txt").read_bytes()).hexdigest()
    assert (
        listed
        == stages.data_digest
        == examples.digest(FLIGHTS, stages.periods, data_folder=workspace.data_folder())
    )


def test_ingest_refuses_files_that_are_not_what_the_caller_saw(tmp_path: Path, stages) -> None:
    with pytest.raises(DataIntegrityError, match=f"{'0' * 64} was asked for.* have changed"):
        components.ingest.python_func(
            **stages.use_case,
            train_periods=["2013-W05"],
            test_period="2013-W06",
            data_folder=str(stages.path("raw")),
            data_digest="0" * 64,
            raw=dsl.Dataset(uri=str(tmp_path / "raw")),
        )


def test_verify_says_the_digest_of_good_files(tmp_path: Path, stages) -> None:
    output = tmp_path / "outputs" / "data_digest"

    verified = verify(stages.path("raw"), stages.data_digest, output)

    assert (verified.returncode, verified.stderr) == (0, "")
    assert output.read_text() == stages.data_digest


@pytest.mark.parametrize("how", ["changed", "missing"])
def test_verify_names_the_bad_file_and_no_other(tmp_path: Path, stages, how) -> None:
    shutil.copytree(stages.path("raw"), tmp_path / "raw data")
    bad = tmp_path / "raw data" / "flights" / "2013-02.parquet"
    bad.write_bytes(bad.read_bytes() + b"x") if how == "changed" else bad.unlink()

    verified = verify(tmp_path / "raw data", stages.data_digest, tmp_path / "digest")

    assert verified.returncode == 1
    assert "raw data is damaged: " in verified.stderr
    assert "flights/2013-02.parquet: FAILED" in verified.stderr
    assert "2013-01" not in verified.stderr
    assert not (tmp_path / "digest").exists()


def test_verify_refuses_another_list_of_checksums(tmp_path: Path, stages) -> None:
    shutil.copytree(stages.path("raw"), tmp_path / "raw")
    listing = tmp_path / "raw" / "checksums.txt"
    listing.write_text("".join(listing.read_text().splitlines(keepends=True)[:-1]))

    verified = verify(tmp_path / "raw", stages.data_digest, tmp_path / "digest")

    assert verified.returncode == 1
    assert f"expected {stages.data_digest}: start a new run" in verified.stderr


def test_validate_keeps_or_sets_aside_each_row(stages) -> None:
    quarantined = pd.read_csv(stages.path("quarantined"))

    assert list(quarantined.columns) == list(quarantine.COLUMNS)
    (line,) = quarantined.to_dict("records")
    assert (line["period"], line["table"], line["column"]) == ("2013-W06", "weather", "wind_speed")
    weather = pd.read_parquet(stages.path("clean") / "weather.parquet")
    assert weather["wind_speed"].max() < 100
    assert stages.path("findings").read_text().startswith("- ")


def test_examples_have_key_features_label_and_slices(stages) -> None:
    (last,) = examples.read(FLIGHTS, stages.periods[1:], data_folder=stages.path("clean")).periods
    features, labels = last.labeled()

    written = pd.read_parquet(stages.path("test_examples"))

    names = list(FEATURES.names)
    assert list(written) == ["flight_id", *names, "late", "hours"]
    pd.testing.assert_frame_equal(written.set_index("flight_id")[names], features, check_exact=True)
    assert (written["late"] == labels).all()
    hours = last.rows.set_index("flight_id")["hours"]
    assert (written["hours"].to_numpy() == hours[written["flight_id"]].to_numpy()).all()
    assert tuple(written["hours"].cat.categories) == preparation.HOURS


def test_train_says_what_the_model_answers(candidate) -> None:
    model, digest = candidate

    assert digest == model_digest(model)
    assert (model / "assets.extra" / "model.keras").is_file()


def test_evaluate_gate_and_publish_pass_files_and_values(
    tmp_path: Path, stages, candidate, empty_registry: Path
) -> None:
    model, digest = candidate
    metrics = dsl.Metrics(uri=str(tmp_path / "metrics"))
    common = {"data_digest": stages.data_digest, "model_digest": digest}
    test = dsl.Dataset(uri=str(stages.path("test_examples")))

    metrics_digest = components.evaluate.python_func(
        model=dsl.Model(uri=str(model)),
        test_examples=test,
        **stages.columns,
        baseline=str(model),
        baseline_digest=digest,
        metrics=metrics,
        **common,
    )
    report = json.loads((tmp_path / "metrics").read_text())
    assert report["candidate"] == report["baseline"]
    assert metrics.metadata["log_loss"] == report["candidate"]["overall"]["all"]["log_loss"]
    assert metrics_digest == hashlib.sha256((tmp_path / "metrics").read_bytes()).hexdigest()

    blessed, reason = components.gate.python_func(
        metrics=metrics, metrics_digest=metrics_digest, passed=True, finding=""
    )
    assert blessed
    assert reason == "its log loss equals the baseline's"
    assert components.gate.python_func(
        metrics=metrics, metrics_digest=metrics_digest, passed=False, finding="no answer"
    ) == (False, "it cannot be served: no answer")

    shutil.copy(empty_registry, tmp_path)
    uri = registry.uri_beside(tmp_path / "flights")
    published = [
        components.publish.python_func(
            model=dsl.Model(uri=str(model)),
            models_folder=str(tmp_path / "flights"),
            run_id="run-1",
            test_period=stages.test_period,
            train_periods=stages.train_periods,
            registry=uri,
            began="2013-03-01T00:00:00Z",
            **common,
        )
        for _ in range(2)
    ]
    assert published == [1, 1]
    known = publish.Publication.read(tmp_path / "flights" / "1")
    assert known == publish.Publication(
        run_id="run-1",
        test_period="2013-W06",
        train_periods=("2013-W05",),
        began="2013-03-01T00:00:00Z",
        **common,
    )
    champion = Registry(uri).client.get_model_version_by_alias("flights", "champion")
    assert champion.tags["model_digest"] == digest

    components.write_verdict.python_func(
        status=dsl.PipelineTaskFinalStatus(
            state="SUCCEEDED",
            pipeline_job_resource_name="run-1",
            pipeline_task_name="exit-handler-1",
            error_code=None,
            error_message=None,
        ),
        verdicts_folder=str(tmp_path / "verdicts"),
        models_folder=str(tmp_path / "flights"),
        run_id="run-1",
    )
    assert json.loads((tmp_path / "verdicts" / "run-1.json").read_text()) == {
        "run_id": "run-1",
        "state": "SUCCEEDED",
        "error": "",
        "version": 1,
    }


def test_the_candidate_can_be_served(stages, candidate) -> None:
    model, digest = candidate

    passed, finding = components.serving_check.python_func(
        model=dsl.Model(uri=str(model)),
        test_examples=dsl.Dataset(uri=str(stages.path("test_examples"))),
        features=stages.columns["features"],
        model_digest=digest,
        data_digest=stages.data_digest,
    )

    assert passed, finding
    assert finding == "50 answers over REST and gRPC are the model's own within 1e-05"


def test_score_measures_predictions_made_elsewhere(tmp_path: Path, stages) -> None:
    written = pd.read_parquet(stages.path("test_examples"))
    guess = written["late"].mean()
    written[::-1].assign(probability=guess)[["flight_id", "probability"]].to_parquet(
        tmp_path / "predictions"
    )
    metrics = dsl.Metrics(uri=str(tmp_path / "metrics"))

    components.score.python_func(
        predictions=dsl.Dataset(uri=str(tmp_path / "predictions")),
        test_examples=dsl.Dataset(uri=str(stages.path("test_examples"))),
        **{name: stages.columns[name] for name in ("key", "label", "slices")},
        predictions_digest="",
        data_digest="",
        metrics=metrics,
    )

    overall = json.loads((tmp_path / "metrics").read_text())["candidate"]["overall"]["all"]
    assert overall["n_rows"] == len(written)
    assert overall["log_loss"] == pytest.approx(overall["base_rate_log_loss"])
    assert metrics.metadata["log_loss"] == overall["log_loss"]


def test_the_challenger_asks_for_exactly_its_lock() -> None:
    lines = (ROOT / "environments" / "xgboost.txt").read_text().splitlines()

    assert [line for line in lines if not line.startswith("#")] == challenger.PACKAGES


def test_no_component_reads_an_artifact_without_a_digest_of_it() -> None:
    """Kubeflow remembers by names of artifacts and values of parameters, not by contents."""
    readers = [
        (component.name, component.component_spec.inputs)
        for component in [*OURS, components.verify, challenger.challenger]
    ]

    for name, inputs in readers:
        reads = any(spec.type.startswith("system.") for spec in inputs.values())
        digests = [key for key in inputs if key.endswith("digest") or key == "expected"]
        assert digests or not reads, name
    assert len(readers) == 12


@pytest.mark.parametrize("component", [*OURS, challenger.challenger], ids=lambda each: each.name)
def test_a_body_is_thin_and_brings_its_imports(component) -> None:
    source = inspect.getsource(component.python_func)
    function = ast.parse(source).body[0]

    imported = {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    module_names = set(vars(sys.modules[component.python_func.__module__])) - imported
    loaded = {
        node.id
        for statement in function.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    local = {argument.arg for argument in function.args.args} | {function.name}
    assert not (loaded & module_names) - local - set(dir(__builtins__))


def test_ours_need_no_installation_and_the_challengers_image_is_plain_python() -> None:
    for component in OURS:
        container = component.component_spec.implementation.container
        assert container.image == components.IMAGE
        assert "pip install" not in " ".join(container.command)
    other = challenger.challenger.component_spec.implementation.container
    assert other.image == "python:3.11"
    script = " ".join(other.command)
    assert "xgboost-cpu==3.2.0" in script
    assert "kfp==2.17.0' '--no-deps'" in script
    assert "mlops_mini" not in yaml.safe_dump(other.command)
