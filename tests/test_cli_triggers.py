"""`mlops-mini trigger` as a person types it."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from mlops_mini import cli_triggers
from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.pipeline import definition
from mlops_mini.triggers.ledger import Ledger


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli_triggers.app, [str(each) for each in arguments])


@pytest.mark.parametrize("verb", ["list", "fire", "history", "export"])
def test_help_shows_an_example(verb: str) -> None:
    assert f"mlops-mini trigger {verb}" in run(verb, "--help").stdout.partition("Example:")[2]


def test_a_request_is_fired_once_run_and_found_again(tmp_path: Path) -> None:
    (tmp_path / "triggers.yaml").write_text("schedule: {cron: '@weekly'}\ndrift: {threshold: .25}")
    asked = ("fire", "--workspace", tmp_path, "--reason", "new runway", "--request-id", "7")

    first, again = run(*asked), run(*asked)
    Ledger(tmp_path / "triggers.sqlite").claim().finish("blessed")
    history = json.loads(run("history", "--workspace", tmp_path, "--json").stdout)
    listed = run("list", "--workspace", tmp_path).stdout

    assert (first.stdout, again.stdout) == ("PENDING on_demand:7\n", "DUPLICATE on_demand:7\n")
    assert [(each["state"], each["outcome"], each["reason"]) for each in history] == [
        ("DONE", "blessed", {"asked": "new runway"})
    ]
    assert "PSI above 0.25" in listed
    assert "next by schedule: " in listed
    assert "DONE" in listed
    assert "blessed" in run("history", "--workspace", tmp_path).stdout
    document = json.loads(run("list", "--workspace", tmp_path, "--json").stdout)
    assert [each["state"] for each in document["reasons"]] == ["DONE", "-", "-", "-", "-"]


def test_two_requests_without_an_id_are_two(tmp_path: Path) -> None:
    asked = ("fire", "--workspace", tmp_path, "--reason", "x", "--json")

    assert [json.loads(run(*asked).stdout)["verdict"] for _ in range(2)] == ["PENDING", "PENDING"]


def test_manifests_for_argo_are_printed_and_others_need_a_schedule(tmp_path: Path) -> None:
    printed = run("export", "argo", "--name", "retrain", "--workspace", tmp_path)
    without = run("export", "vertex", "--name", "x", "--workspace", tmp_path)
    unknown = run("export", "airflow", "--name", "x", "--workspace", tmp_path)

    assert [each["kind"] for each in yaml.safe_load_all(printed.stdout)] == [
        "EventSource",
        "Sensor",
    ]
    assert isinstance(without.exception, InvalidArgumentError)
    assert "needs a schedule" in str(without.exception)
    assert "no target 'airflow'" in str(unknown.exception)


def test_a_schedule_holds_the_compiled_pipeline(tmp_path: Path) -> None:
    (tmp_path / "triggers.yaml").write_text("schedule: {cron: '@weekly'}")
    package = definition.write_package(tmp_path / "pipeline.yaml")
    common = ("--name", "weekly", "--workspace", tmp_path, "--package", package)

    kubeflow = json.loads(run("export", "kubeflow", *common).stdout)
    where = ("--parent", "projects/p/locations/l", "--root", "gs://b")
    vertex = json.loads(run("export", "vertex", *common, *where).stdout)

    assert kubeflow["pipeline_spec"]["pipelineInfo"]["name"] == "continuous-training"
    job = vertex["createPipelineJobRequest"]["pipelineJob"]
    assert job["pipelineSpec"] == kubeflow["pipeline_spec"]


def test_a_workspace_that_is_not_there(tmp_path: Path) -> None:
    asked = run("list", "--workspace", tmp_path / "nowhere")

    assert isinstance(asked.exception, NotFoundError)
    assert "no workspace" in str(asked.exception)
