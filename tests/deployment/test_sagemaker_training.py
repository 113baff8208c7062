"""What SageMaker asks of a training container, by folders and exit status."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlops_mini.deployment import sagemaker, sagemaker_training
from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError
from mlops_mini.model.publish import Publication
from mlops_mini.serving import model_config
from tests.deployment.messages import ACCOUNT
from tests.tenants import made

ROOT = Path(__file__).parents[2]
SERVE = ROOT / "deploy" / "docker" / "serve"
USE_CASE = "tests.tenants.churn:CHURN"
HYPERPARAMETERS = {"use_case": USE_CASE, "period": "2026-02", "holdout_days": "14", "seed": "3"}
# As Local Mode writes it; names that end so are nobody's (RFC 2606).
RESOURCES = {
    "current_host": "algo-1-x7k2p.invalid",
    "hosts": ["algo-1-x7k2p.invalid"],
    "network_interface_name": "eth0",
}


def lay_out(base: Path, hyperparameters: dict[str, str], **resources: Any) -> Path:
    """Write the files of the platform."""
    config = base / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    (config / "resourceconfig.json").write_text(json.dumps({**RESOURCES, **resources}))
    (config / "inputdataconfig.json").write_text('{"train": {"TrainingInputMode": "File"}}')
    (base / "input" / "data").mkdir()
    return base


def test_the_version_of_a_run_is_handed_over_with_its_verdict(
    workspace: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    version = sagemaker_training.hand_over(workspace, "first", tmp_path)

    assert version == tmp_path / "model" / "churn" / "1"
    known = Publication.read(version)
    assert known is not None
    assert known.test_period == "2026-02"
    verdict = json.loads((tmp_path / "output/data/verdict.json").read_text())
    assert verdict["decision"] == "blessed"
    # What a training job shows of it are the numbers that its definitions find in the log.
    definitions = sagemaker.training_job("t", ACCOUNT, {})["AlgorithmSpecification"]
    found = {
        metric["Name"]: re.findall(metric["Regex"], caplog.text)
        for metric in definitions["MetricDefinitions"]
    }
    assert found == {"candidate:auc": ["0.75"], "candidate:log_loss": ["0.45"]}


@pytest.mark.parametrize("run_id", ["third", "fourth"])
def test_a_candidate_that_is_not_blessed_is_no_model(
    workspace: Path, tmp_path: Path, run_id: str
) -> None:
    with pytest.raises(FailedPreconditionError, match=r"the candidate is (refused|undecided): "):
        sagemaker_training.hand_over(workspace, run_id, tmp_path)

    assert (tmp_path / "output" / "data" / "verdict.json").exists()
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": "three"}, "hyperparameter seed='three' is no whole number"),
        ({"holdout_days": "1.5"}, "hyperparameter holdout_days='1.5' is no whole number"),
        ({"learning_rate": "0.1"}, "there's no hyperparameter 'learning_rate', only use_case"),
        ({"use_case": "nowhere:NOTHING"}, "nowhere"),
        ({"period": "yesterday"}, "yesterday"),
        ({}, "the channel 'train' is empty: it must hold the tables"),
    ],
)
def test_a_job_that_cannot_be_says_why_and_exits_with_1(
    tmp_path: Path, changed: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path, {**HYPERPARAMETERS, **changed})
    if changed:
        made.write_customers(tmp_path / "input/data/train", months=("2026-01",), n_rows=10)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))

    assert sagemaker_training.main() == 1
    assert words in (tmp_path / "output" / "failure").read_text()
    assert not (tmp_path / "model").exists()


def test_what_is_missing_and_a_second_host_are_named(tmp_path: Path) -> None:
    for missing in ("use_case", "period"):
        given = {key: text for key, text in HYPERPARAMETERS.items() if key != missing}
        with pytest.raises(InvalidArgumentError, match=f"hyperparameter '{missing}' is missing"):
            sagemaker_training.train(lay_out(tmp_path / missing, given))
    hosts = ["algo-1", "algo-2"]
    with pytest.raises(FailedPreconditionError, match="there are 2 hosts, and one trains"):
        sagemaker_training.train(lay_out(tmp_path / "b", HYPERPARAMETERS, hosts=hosts))


def test_a_host_that_cannot_be_resolved_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(FailedPreconditionError, match="the channel 'train' is empty"):
        sagemaker_training.train(lay_out(tmp_path, HYPERPARAMETERS))


def test_a_file_of_the_platform_that_is_no_json_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, HYPERPARAMETERS)
    (tmp_path / "input/config/hyperparameters.json").write_text("{")

    with pytest.raises(InvalidArgumentError, match=r"hyperparameters\.json holds no JSON"):
        sagemaker_training.train(tmp_path)


def test_a_fault_of_our_own_is_a_failure_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path, HYPERPARAMETERS)
    (tmp_path / "input/config/hyperparameters.json").write_text('{"use_case": 5, "period": 5}')
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    (tmp_path / "input/config/resourceconfig.json").write_text('{"hosts": 5}')

    assert sagemaker_training.main() == 1
    assert "TypeError" in (tmp_path / "output" / "failure").read_text()


# The entry script, with a Python that only says how it's called.


def run(base: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    programs = base / "programs"
    programs.mkdir()
    (programs / "python").write_text('#!/bin/sh\n[ "$1" = -c ] || printf "%s\\n" "$@"\n')
    (programs / "python").chmod(0o755)
    own = {
        "PATH": f"{programs}:{os.environ['PATH']}", "SAGEMAKER_BASE_DIR": str(base), **variables,
    }  # fmt: skip
    command = ["sh", str(SERVE), *arguments]
    return subprocess.run(command, env=own, capture_output=True, text=True, check=False)


def versions(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "saved_model.pb").touch()


def test_serve_starts_the_server_with_all_models_that_were_unpacked(tmp_path: Path) -> None:
    versions(tmp_path / "model", "b/1", "export/a/1", "export/a/12", "export/a/1x")

    ran = run(tmp_path, "serve", "--open_ports_early", SAGEMAKER_BIND_TO_PORT="8081")

    flags = dict(flag.partition("=")[::2] for flag in ran.stdout.splitlines()[2:])
    config = Path(flags.pop("--model_config_file"))
    assert flags == {
        "--bind_address": "0.0.0.0",
        "--port": "8500",
        "--rest_api_port": "8081",
        "--sagemaker_model": "b",
        "--open_ports_early": "",
    }
    described = model_config.read(config, is_first=True)
    config.unlink()
    assert {(each.name, each.base_path) for each in described} == {
        ("a", f"{tmp_path}/model/export/a"),
        ("b", f"{tmp_path}/model/b"),
    }


def test_train_starts_the_trainer(tmp_path: Path) -> None:
    lay_out(tmp_path, HYPERPARAMETERS)

    ran = run(tmp_path, "train")

    assert ran.stdout.split() == ["-m", "mlops_mini.deployment.sagemaker_training"]
    assert (ran.returncode, ran.stderr) == (0, "")


def test_train_without_its_input_says_what_to_mount(tmp_path: Path) -> None:
    ran = run(tmp_path, "train")

    assert ran.returncode == 1
    assert f"can't read {tmp_path}/input: mount it" in ran.stderr


def test_serve_without_a_model_says_how_to_pack_one(tmp_path: Path) -> None:
    (tmp_path / "model" / "m").mkdir(parents=True)

    ran = run(tmp_path, "serve")

    assert ran.returncode == 1
    assert f"serve: there is no NAME/NUMBER/saved_model.pb in {tmp_path}/model" in ran.stderr


def test_serve_names_the_models_that_are_there(tmp_path: Path) -> None:
    versions(tmp_path / "model", "export/m/1")

    ran = run(tmp_path, "serve", SAGEMAKER_TFS_DEFAULT_MODEL_NAME="n")

    assert ran.returncode == 1
    assert ran.stderr == (
        f"serve: SAGEMAKER_TFS_DEFAULT_MODEL_NAME is n, and {tmp_path}/model has no such model,"
        f" but {tmp_path}/model/export/m\n"
    )


VERTEX = {
    "AIP_HTTP_PORT": "8080",
    "AIP_PREDICT_ROUTE": "/v1/models/m:predict",
    "AIP_HEALTH_ROUTE": "/readyz",
    "MODEL_NAME": "m",
}


def test_vertex_says_where_and_on_which_port(tmp_path: Path) -> None:
    versions(tmp_path, "artifacts/1")

    ran = run(tmp_path, **VERTEX, AIP_STORAGE_URI=f"{tmp_path}/artifacts")

    assert ran.stderr == ""
    assert {
        "--rest_api_port=8080",
        "--model_name=m",
        f"--model_base_path={tmp_path}/artifacts",
    } <= {*ran.stdout.splitlines()}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"AIP_PREDICT_ROUTE": "/predict"}, "predictRoute /v1/models/m:predict"),
        ({"AIP_PREDICT_ROUTE": ""}, "AIP_PREDICT_ROUTE is not set"),
        ({"AIP_HEALTH_ROUTE": "/health"}, "healthRoute /readyz"),
        ({"AIP_STORAGE_URI": "gs://bucket/model"}, "buckets aren't read here: build an image FROM"),
    ],
)
def test_what_vertex_was_told_wrongly_is_said(
    tmp_path: Path, changed: dict[str, str], words: str
) -> None:
    ran = run(tmp_path, **{**VERTEX, **changed})

    assert (ran.returncode, ran.stdout) == (1, "")
    assert words in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_without_their_words_it_is_tensorflow_servings_entry(tmp_path: Path) -> None:
    versions(tmp_path, "models/m/1")

    ran = run(tmp_path, "--strict_start", MODEL_NAME="m", MODEL_BASE_PATH=f"{tmp_path}/models")

    assert ran.stdout.splitlines() == [
        "-m", "mlops_mini.serving.server", "--bind_address=0.0.0.0", "--port=8500",
        "--rest_api_port=8501", "--model_name=m", f"--model_base_path={tmp_path}/models/m",
        "--strict_start",
    ]  # fmt: skip
