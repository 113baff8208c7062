"""SageMaker: requests by its service model, our image by hand, and Local Mode of its SDK."""

import copy
import json
import os
import shutil
import subprocess
import tarfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd

from mlops_mini import containers
from mlops_mini.errors import DataIntegrityError, UnavailableError
from mlops_mini.flights.use_case import FLIGHTS
from mlops_mini.pipeline import examples
from mlops_mini.workspace import data_folder
from tests.deployment import messages
from tools import docker_engine, image
from tools.platforms import environments, toy
from tools.platforms.piece import Piece

_WHAT: dict[str, Any] = {
    "name": "SageMaker",
    "notes_tool": "Amazon SageMaker: training jobs, endpoints with variants, Model Monitor",
    "our_object": "the image's verbs `train` and `serve`, `serving.sagemaker_routes`, and"
    " `deployment.sagemaker*`, from the pipeline, a `TrafficPolicy`, statistics and schema",
    "command": "make platforms ONLY=sagemaker",
}
# February judges what January has taught: a model that the gate blesses.
HYPERPARAMETERS = {
    "use_case": "mlops_mini.flights.use_case:FLIGHTS",
    "period": "2013-02",
    "train_periods": "1",
    "seed": "0",
}
N_ROWS = 3
JSON, LINES, SEVERAL, CSV = (
    "application/json", "application/jsonlines", "application/jsons", "text/csv",
)  # fmt: skip
# What half_plus_two is asked in each format, and its predictions, or the status of the refusal.
ASKED: tuple[tuple[str, str, Any], ...] = (
    (JSON, '{"instances": [1, 2, 5]}', [2.5, 3.0, 4.5]),
    (JSON, "[1, 2, 5]", [[2.5, 3.0, 4.5]]),  # one row of three numbers
    (LINES, "1\n2\n5", [2.5, 3.0, 4.5]),
    (SEVERAL, "1 2 5", [2.5, 3.0, 4.5]),
    (CSV, "1\n2\n5", [2.5, 3.0, 4.5]),
    (CSV, "1,2\n5", 400),
    (CSV, "", 400),
    ("image/png", "1", 415),
    ("application/json; charset=utf-8", "1", 415),
)
# What is changed in a request, and what its refusal says.
BROKEN: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("CreateEndpoint", {"EndpointName": "bad name!"}, "doesn't fit"),
    ("CreateEndpoint", {"Endpoint": "flights"}, "Unknown parameter"),
    ("CreateModel", {"ExecutionRoleArn": "me"}, "ExecutionRoleArn"),
    ("CreateTrainingJob", {"HyperParameters": {"seed": 0}}, "Invalid type"),
    ("CreateTrainingJob", {"ResourceConfig": {"InstanceType": "m5.large"}}, "that are allowed"),
    (
        "CreateMonitoringSchedule",
        {"MonitoringScheduleConfig": {"MonitoringType": "All"}},
        "that are allowed",
    ),
    ("CreateTrainingJob", {"HyperParameters": {"seed": "0" * 3000}}, "is more than"),
)


def run(folder: Path) -> Piece:
    """Validate the requests; train, deploy and ask by the SDK; call the container by hand."""
    environment = environments.made("sagemaker")
    facts = _requests(environment, folder)
    with ExitStack() as stack:
        try:
            stack.enter_context(docker_engine.running())
        except UnavailableError as exc:
            return Piece(
                state="skipped",
                reason=f"the requests were checked, but {exc}",
                facts=facts,
                **_WHAT,
            )
        image.build_all(["components", "sagemaker"])
        facts |= _failing_job(folder / "failing")
        facts |= _local_mode(environment, folder / "local")
        facts |= _by_hand(folder / "served", folder / "local" / "trained" / "model.tar.gz")
        size = int(containers.docker("image", "inspect", "--format={{.Size}}", image.SAGEMAKER))
        facts["image"] = f"{size / 1e9:.2f} GB"
    return Piece(state="ran", facts=facts, **_WHAT)


def _requests(environment: Path, folder: Path) -> dict[str, str]:
    """Have our requests validated, and copies of them with something wrong."""
    calls = messages.of_sagemaker()
    by_name = {call["operation"]: call for call in calls}
    wrong = []
    for operation, change, words in BROKEN:
        call = copy.deepcopy(by_name[operation])
        for key, value in change.items():
            inner = call["request"].get(key)
            is_merged = isinstance(inner, dict) and isinstance(value, dict)
            call["request"][key] = {**inner, **value} if is_merged else value
        wrong.append((call, words))
    (folder / "requests.json").write_text(json.dumps([*calls, *(call for call, _ in wrong)]))
    found = environments.ask(environment, "sagemaker_requests", folder)
    problems = found["findings"]
    if refused := [each for each in problems[: len(calls)] if each]:
        raise DataIntegrityError(f"the service model refuses our requests: {refused}")
    for (call, words), said in zip(wrong, problems[len(calls) :], strict=True):
        if not any(words in line for line in said):
            raise DataIntegrityError(f"{call} isn't refused with {words!r}, but {said}")
    return {
        "botocore": found["botocore"],
        "requests that fit the service model": f"{len(calls)} of {len(calls)}",
        "broken copies that are refused": f"{len(wrong)} of {len(wrong)}",
    }


def _failing_job(base: Path) -> dict[str, str]:
    """Run `train` with a hyperparameter that is no number."""
    config = base / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text(json.dumps({**HYPERPARAMETERS, "seed": "three"}))
    began = time.monotonic()
    ran = subprocess.run(
        ["docker", "run", "--rm", f"--volume={base}:/opt/ml", image.SAGEMAKER, "train"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    failure = base / "output" / "failure"
    if ran.returncode != 1 or "is no whole number" not in failure.read_text():
        raise DataIntegrityError(f"train ended with {ran.returncode}: {ran.stdout}{ran.stderr}")
    return {
        "a job that fails": f"exit 1 after {time.monotonic() - began:.1f} s, and in"
        f" `output/failure`: {failure.read_text()}"
    }


def _rows() -> list[dict[str, Any]]:
    """Take some flights with their features, as a client would send them."""
    month = FLIGHTS.calendar.period("2013-02")
    read = examples.read(FLIGHTS, [month.previous(), month], data_folder=data_folder())
    rows: pd.DataFrame = read.periods[-1].features.dropna().head(N_ROWS)
    return [dict(row) for row in json.loads(rows.to_json(orient="records"))]


def _local_mode(environment: Path, folder: Path) -> dict[str, str]:
    """Train, deploy and predict by the SDK, which starts our image by Compose."""
    folder.mkdir()
    (folder / "hyperparameters.json").write_text(json.dumps(HYPERPARAMETERS))
    rows = _rows()
    (folder / "rows.json").write_text(json.dumps(rows))
    quiet = folder / "sdk.yaml"  # else each call tells AWS about itself, or tries to
    quiet.write_text(
        "SchemaVersion: '1.0'\nSageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}\n"
    )
    compose = environments.made("images") / "bin"
    before = {name: os.environ.get(name) for name in ("PATH", "SAGEMAKER_USER_CONFIG_OVERRIDE")}
    os.environ["PATH"] = f"{compose}:{os.environ['PATH']}"
    os.environ["SAGEMAKER_USER_CONFIG_OVERRIDE"] = str(quiet)
    try:
        data = str(data_folder().resolve())
        found = environments.ask(environment, "sagemaker_local", folder, image.SAGEMAKER, data)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})
        _remove_what_the_sdk_leaves()
    by_lines, by_json = found["by_lines"], found["by_json"]
    if by_lines != by_json or len(by_lines) != len(rows):
        raise DataIntegrityError(f"answers differ: {by_lines} and {by_json}")
    return {
        "SDK": f"sagemaker {found['version']}, Local Mode",
        "trained by the SDK": f"{found['train_s']:.0f} s, with the pipeline's gate;"
        f" model.tar.gz {found['archive_bytes'] / 1e3:,.0f} kB",
        "deployed by the SDK": f"{found['deploy_s']:.0f} s",
        "predictions by the SDK": f"{len(by_lines)} flights, the same as JSON lines and as JSON",
    }


def _remove_what_the_sdk_leaves() -> None:
    """Remove Local Mode's ended containers and its network, for the SDK doesn't."""
    network = "sagemaker-local"
    ended = containers.docker("ps", "--all", "--quiet", f"--filter=network={network}").split()
    if ended:
        containers.docker("rm", "--force", *ended)
    if containers.docker("network", "ls", "--quiet", f"--filter=name={network}"):
        containers.docker("network", "rm", network)


def _by_hand(base: Path, archive: Path) -> dict[str, str]:
    """Start `serve` as SageMaker does, with the trained model and a toy, and ask in each format."""
    models = base / "model"
    models.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        tar.extractall(models, filter="data")
    toy.write_half_plus_two(models / "half_plus_two" / "1")
    server = containers.docker(
        "run", "--detach", "--publish=127.0.0.1::8080", f"--volume={base}:/opt/ml:ro",
        "--env=SAGEMAKER_TFS_DEFAULT_MODEL_NAME=half_plus_two", image.SAGEMAKER, "serve",
    )  # fmt: skip
    try:
        address = containers.docker("port", server, "8080").splitlines()[0]
        ready_s = toy.seconds_until(lambda: toy.ask(address, "GET", "/ping") == (200, ""), server)
        for content_type, body, expected in ASKED:
            status, said = toy.ask(address, "POST", "/invocations", body, content_type)
            answered = json.loads(said)["predictions"] if status == 200 else status
            if answered != expected:
                raise DataIntegrityError(f"{content_type} {body!r}: {status} {said}")
        began = time.monotonic()
        containers.docker("stop", "--time=30", server)
        stop_s = time.monotonic() - began
        status = containers.docker("inspect", "--format={{.State.ExitCode}}", server)
    finally:
        containers.docker("rm", "--force", server)
    if status != "0":
        raise DataIntegrityError(f"the server ended with {status}")
    shutil.rmtree(models)
    return {
        "`serve` by hand": f"/ping is 200 after {ready_s:.1f} s; stops in {stop_s:.1f} s, exit 0",
        "requests to /invocations": f"{len(ASKED)} of {len(ASKED)} answered as the contract says",
    }
