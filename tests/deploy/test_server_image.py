"""The image of the model server, used as TensorFlow Serving's documentation uses its own."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_mini import containers
from mlops_mini.client import GrpcClient
from mlops_mini.errors import AlreadyExistsError
from tests.conformance.models import write_half_plus_two
from tests.deploy.container import HARDENED, Container
from tests.once import made_once
from tests.serving.servers import copy_version, run_in_child, wait_until

pytestmark = pytest.mark.docker
REPOSITORY = Path(__file__).parents[2]
MOST_BYTES = 1.25e9
STOP_S = 10
# The lab of the course notes; only the name of the image differs.
RUN = """docker run -p 8501:8501 \
  -v "$PWD/half_plus_two:/models/half_plus_two" \
  -e MODEL_NAME=half_plus_two \
  IMAGE"""
ASK = """curl -d '{"instances": [1.0, 2.0, 5.0]}' \
  -X POST http://localhost:8501/v1/models/half_plus_two:predict"""


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds `half_plus_two`, with version 123. Never change it."""

    def make(base: Path) -> None:
        base.chmod(0o755)
        folder = base / "half_plus_two" / "00000123"
        run_in_child(write_half_plus_two, str(folder), log_file=base / "log")

    return made_once(tmp_path_factory, "half_plus_two", make)


@pytest.fixture
def models(written: Path, tmp_path: Path) -> Path:
    """A copy of it, for tests that add to it."""
    tmp_path.chmod(0o755)
    shutil.copytree(written / "half_plus_two", tmp_path / "half_plus_two")
    return tmp_path


Run = Callable[..., Container]


@pytest.fixture(scope="module")
def run_for_all(server_image: containers.Image) -> Iterator[Run]:
    """Starts containers with free ports on this machine, and removes them at the end."""
    started: list[Container] = []

    def run(*flags: str, arguments: tuple[str, ...] = (), image: str = "") -> Container:
        ports = ["--publish=127.0.0.1::8500", "--publish=127.0.0.1::8501"]
        named = image or server_image.digest
        made = containers.docker("run", "--detach", *ports, *flags, named, *arguments)
        started.append(Container(made))
        return started[-1]

    yield run
    for container in started:
        containers.docker("rm", "--force", "--volumes", container.id)


@pytest.fixture
def run(run_for_all: Run) -> Run:
    return run_for_all


def mounted(folder: Path, target: str = "/models") -> str:
    return f"--mount=type=bind,source={folder},target={target}/{folder.name}"


@pytest.fixture(scope="module")
def hardened(run_for_all: Run, written: Path) -> Container:
    """A server as it should be run, for tests that only ask."""
    folder = written / "half_plus_two"
    volume = f"--volume={folder}:/models/half_plus_two:ro"
    container = run_for_all(*HARDENED, volume, "--env=MODEL_NAME=half_plus_two")
    container.wait_until_ready()
    return container


def test_the_labs_lines_work_word_for_word(server_image: containers.Image, models: Path) -> None:
    line = RUN.replace("IMAGE", server_image.digest)
    with (models / "log").open("w") as log:
        # `exec`, since the signal below is for `docker run`, not for the shell around it.
        server = subprocess.Popen(
            ["bash", "-c", f"exec {line}"], cwd=models, stdout=log, stderr=log
        )
    try:

        def ask() -> str:
            assert server.poll() is None, (models / "log").read_text()
            asked = subprocess.run(["bash", "-c", ASK], capture_output=True, text=True, check=False)
            return asked.stdout

        answer = wait_until(ask, "the answer", pace_s=0.2)
        assert json.loads(answer) == {"predictions": [2.5, 3.0, 4.5]}
    finally:
        server.terminate()
        assert server.wait(60) == 0
        # The line says neither a name nor `--rm`.
        ours = f"--filter=ancestor={server_image.digest}"
        ended = containers.docker("ps", "--all", "--quiet", ours, "--filter=status=exited")
        for left in ended.split():
            ports = containers.docker("inspect", "--format={{.HostConfig.PortBindings}}", left)
            if "8501/tcp:[{ 8501}]" in ports:
                containers.docker("rm", left)


def test_it_runs_locked_up_as_nobody_and_answers_over_both_apis(hardened: Container) -> None:
    assert hardened.predict("half_plus_two", [1.0, 2.0, 5.0]) == [2.5, 3.0, 4.5]
    with GrpcClient(hardened.address(8500), model="half_plus_two") as client:
        assert client.predict({"x": np.float32([4])})["y"].tolist() == [4.0]

    status = hardened.sh("cat /proc/1/status").stdout
    facts = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == ["10001"] * 4
    assert facts["Gid"].split() == ["10001"] * 4
    assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")


@pytest.mark.parametrize("path", ["/x", "/opt/code/x", "/models/half_plus_two/x", "/etc/x"])
def test_it_can_write_nowhere(hardened: Container, path: str) -> None:
    assert "Read-only file system" in hardened.sh(f"touch {path}").stderr


def test_docker_knows_that_it_is_healthy(hardened: Container) -> None:
    def look() -> bool:
        return hardened.inspect("{{.State.Health.Status}}") == "healthy"

    wait_until(look, "the health check", pace_s=0.2)
    assert hardened.sh("health").returncode == 0


def test_it_is_unhealthy_without_its_model_and_says_what_to_mount(run: Run) -> None:
    container = run("--env=MODEL_NAME=m", arguments=("--file_system_poll_wait_seconds=1",))
    wait_until(lambda: "there is no model" in container.log(), "its first words", pace_s=0.1)
    assert '-v "$PWD/m:/models/m" -e MODEL_NAME=m' in container.log()
    wait_until(lambda: container.ask("/readyz")[0] == 503, "the server", pace_s=0.1)
    checked = container.sh("health")
    assert checked.returncode == 1
    assert "m" in checked.stdout


def test_it_stops_in_time_and_ends_well(run: Run, written: Path, record_property) -> None:
    began = time.monotonic()
    mount = mounted(written / "half_plus_two")
    container = run(*HARDENED, mount, "--env=MODEL_NAME=half_plus_two")
    container.wait_until_ready()
    assert container.predict("half_plus_two", [2.0]) == [3.0]
    started = time.monotonic()
    containers.docker("stop", "--time=60", container.id)
    stop_s = time.monotonic() - started

    assert stop_s < STOP_S
    assert container.inspect("{{.State.ExitCode}}") == "0"
    times = f"first answer after {started - began:.1f} s, stops in {stop_s:.1f} s"
    record_property("model server in a locked container", times)


def test_an_unreadable_folder_is_one_line_with_the_way_out(run: Run, models: Path) -> None:
    secret = models / "half_plus_two" / "00000123" / "saved_model.pb"
    secret.chmod(0o600)
    container = run(mounted(models / "half_plus_two"), "--env=MODEL_NAME=half_plus_two")
    wait_until(lambda: container.inspect("{{.State.Running}}") == "false", "its end", pace_s=0.1)

    assert container.inspect("{{.State.ExitCode}}") == "1"
    assert container.log() == (
        "serve: user 10001 may not read /models/half_plus_two/00000123/saved_model.pb: on the host,"
        " run chmod -R a+rX on the folder that is mounted there\n"
    )


def test_a_version_in_place_of_the_models_folder_is_named(run: Run, written: Path) -> None:
    version = written / "half_plus_two" / "00000123"
    container = run(f"--volume={version}:/models/m:ro", "--env=MODEL_NAME=m")
    wait_until(lambda: "mount it as /models/m/1" in container.log(), "the line", pace_s=0.1)


def test_a_taken_port_is_one_line(server_image: containers.Image) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(AlreadyExistsError, match=f"^port {port} is taken"):
            containers.docker("run", "--rm", f"-p=127.0.0.1:{port}:8501", server_image.digest)


# TensorFlow Serving's own examples: https://www.tensorflow.org/tfx/serving/docker and
# https://www.tensorflow.org/tfx/serving/serving_config


def config_of(*models: str, more: str = "") -> str:
    entries = "".join(
        f'  config {{ name: "{name}" base_path: "/models/{name}/"'
        f' model_platform: "tensorflow" {more} }}\n'
        for name in models
    )
    return f"model_config_list {{\n{entries}}}\n"


def test_several_models_by_a_configuration_file_that_is_read_again(run: Run, models: Path) -> None:
    first, second = models / "my_first_model", models / "my_second_model"
    (models / "half_plus_two").rename(first)
    copy_version(first / "00000123", first / "00000124")
    shutil.copytree(first, second)
    (models / "config").mkdir()
    config = models / "config" / "models.config"
    config.write_text(config_of("my_first_model"))
    container = run(
        mounted(first), mounted(second), f"--volume={models}/config:/models/config:ro",
        arguments=(
            "--model_config_file=/models/config/models.config",
            "--model_config_file_poll_wait_seconds=1",
        ),
    )  # fmt: skip
    container.wait_until_ready()
    assert container.predict("my_first_model", [2.0]) == [3.0]
    assert container.ask("/v1/models/my_second_model")[0] == 404

    policy = "model_version_policy { specific { versions: 123 versions: 124 } }"
    labels = (
        'version_labels { key: "stable" value: 123 } version_labels { key: "canary" value: 124 }'
    )
    (models / "config" / "new").write_text(
        config_of("my_first_model", "my_second_model", more=f"{policy} {labels}")
    )
    (models / "config" / "new").rename(config)

    def is_applied() -> bool:
        asked = [f"/v1/models/{m}/versions/123" for m in ("my_first_model", "my_second_model")]
        return [container.ask(path)[0] for path in asked] == [200, 200]

    wait_until(is_applied, "the new configuration", pace_s=0.2)
    for which in ("/labels/stable", "/labels/canary", "/versions/124"):
        wait_until(
            lambda which=which: (
                container.ask(f"/v1/models/my_second_model{which}:predict", {"instances": [2.0]})
                == (200, {"predictions": [3.0]})
            ),
            which,
            pace_s=0.2,
        )


def test_batching_and_monitoring_by_their_files(run: Run, models: Path) -> None:
    (models / "batching_parameters.txt").write_text(
        "max_batch_size { value: 128 }\nbatch_timeout_micros { value: 0 }\n"
        "max_enqueued_batches { value: 1000000 }\nnum_batch_threads { value: 8 }\n"
    )
    (models / "monitoring_config.txt").write_text(
        'prometheus_config { enable: true, path: "/monitoring/prometheus/metrics" }\n'
    )
    container = run(
        mounted(models / "half_plus_two"),
        mounted(models / "batching_parameters.txt"), mounted(models / "monitoring_config.txt"),
        "--env=MODEL_NAME=half_plus_two",
        arguments=(
            "--enable_batching", "--batching_parameters_file=/models/batching_parameters.txt",
            "--monitoring_config_file=/models/monitoring_config.txt",
        ),
    )  # fmt: skip
    container.wait_until_ready()

    assert container.predict("half_plus_two", [1.0, 2.0, 5.0]) == [2.5, 3.0, 4.5]
    status, page = container.ask("/monitoring/prometheus/metrics")
    assert status == 200
    assert ":tensorflow:serving:request_count" in page


def test_an_image_of_ones_own_by_copy_and_commit(
    run: Run, models: Path, server_image: containers.Image
) -> None:
    base = run(image=server_image.name)
    containers.docker("cp", str(models / "half_plus_two"), f"{base.id}:/models/half_plus_two")
    containers.docker("commit", "--change=ENV MODEL_NAME half_plus_two", base.id, "my-container")
    containers.docker("kill", base.id)
    try:
        container = run(image="my-container")
        container.wait_until_ready()
        assert container.predict("half_plus_two", [2.0]) == [3.0]
    finally:
        containers.docker("rm", "--force", container.id)
        containers.docker("image", "rm", "my-container")


def test_flags_after_the_image_win(run: Run, models: Path) -> None:
    container = run(
        mounted(models / "half_plus_two"), "--env=MODEL_BASE_PATH=/models",
        arguments=("--model_name=another", "--model_base_path=/models/half_plus_two"),
    )  # fmt: skip
    container.wait_until_ready()
    assert container.predict("another", [2.0]) == [3.0]


# As SageMaker and Vertex AI call a container. SageMaker starts it as root.


def test_as_sagemaker_calls_it(run: Run, models: Path) -> None:
    shutil.copytree(models / "half_plus_two", models / "job" / "model" / "half_plus_two")
    container = run(
        "--user=0", "--publish=127.0.0.1::8080", f"--volume={models}/job:/opt/ml:ro",
        arguments=("serve",),
    )  # fmt: skip

    def invoke(body: str, content_type: str) -> tuple[int, Any]:
        with closing(http.client.HTTPConnection(container.address(8080), timeout=60)) as connection:
            connection.request("POST", "/invocations", body, {"Content-Type": content_type})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def pings() -> bool:
        with closing(http.client.HTTPConnection(container.address(8080), timeout=60)) as connection:
            try:
                connection.request("GET", "/ping")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                assert container.inspect("{{.State.Running}}") == "true", container.log()
                return False

    wait_until(pings, "/ping", pace_s=0.1)
    expected = (200, {"predictions": [2.5, 3.0]})
    assert invoke("1.0\n2.0", "text/csv") == invoke("1 2", "application/jsons") == expected
    assert invoke("1", "image/png")[0] == 415


def test_what_only_another_image_can_is_said(run: Run) -> None:
    container = run("--user=0", arguments=("train",))
    wait_until(lambda: container.inspect("{{.State.Running}}") == "false", "its end", pace_s=0.1)

    assert container.inspect("{{.State.ExitCode}}") == "1"
    assert container.log() == "serve: this image only serves; mlops-mini-sagemaker also trains\n"


def test_as_vertex_ai_calls_it(run: Run, written: Path) -> None:
    told = {
        "MODEL_NAME": "half_plus_two",
        "AIP_HTTP_PORT": "8501",
        "AIP_PREDICT_ROUTE": "/v1/models/half_plus_two:predict",
        "AIP_HEALTH_ROUTE": "/readyz",
        "AIP_STORAGE_URI": "/artifacts",
    }
    variables = [f"--env={name}={value}" for name, value in told.items()]
    container = run(*variables, f"--volume={written}/half_plus_two:/artifacts:ro")
    container.wait_until_ready()

    body = {"instances": [1.0, 2.0], "parameters": {"confidence": 0.5}}
    answer = container.ask(told["AIP_PREDICT_ROUTE"], body)
    assert answer == (200, {"predictions": [2.5, 3.0]})


# What the image is, without starting it.


def test_what_the_image_says_of_itself(server_image: containers.Image, record_property) -> None:
    (known,) = json.loads(containers.docker("image", "inspect", server_image.digest))

    assert known["Size"] <= MOST_BYTES
    record_property(server_image.name, f"{known['Size'] / 1e9:.2f} GB")
    assert known["Config"]["User"] == "10001:10001"
    assert set(known["Config"]["ExposedPorts"]) == {"8500/tcp", "8501/tcp"}
    assert known["Config"]["Healthcheck"]["Test"] == ["CMD", "health"]
    assert {"MODEL_NAME=model", "MODEL_BASE_PATH=/models"} <= set(known["Config"]["Env"])


def test_nothing_of_this_machine_is_in_its_history(server_image: containers.Image) -> None:
    history = containers.docker("history", "--no-trunc", server_image.digest)
    (known,) = json.loads(containers.docker("image", "inspect", server_image.digest))
    told = history + json.dumps(known["Config"])

    here = [value for name, value in os.environ.items() if name.startswith("PIP_") and "/" in value]
    for word in ("PIP_", "BEGIN CERTIFICATE", str(REPOSITORY), socket.gethostname(), *here):
        assert word not in told


def test_its_bytecode_is_there_and_its_tools_are_not(server_image: containers.Image) -> None:
    script = (
        "from importlib.util import cache_from_source as c; import sys, pathlib, mlops_mini.wire;"
        "import grpc, numpy; missing = [m.__file__ for m in sys.modules.values()"
        " if getattr(m, '__file__', None) and m.__file__.startswith('/opt')"
        " and m.__file__.endswith('.py') and not pathlib.Path(c(m.__file__)).exists()];"
        "print(missing); import pip"
    )
    ran = subprocess.run(
        ["docker", "run", "--rm", "--entrypoint=python", server_image.digest, "-c", script],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.stdout.strip() == "[]"
    assert "No module named 'pip'" in ran.stderr


@pytest.mark.parametrize("folder", ["docker", "fastapi"])
def test_the_dockerfile_is_as_hadolint_wants_it(folder: str) -> None:
    environment = REPOSITORY / ".cache" / "environments" / "images"
    made = [
        sys.executable,
        "tools/set_up.py",
        str(environment),
        "--lock",
        "environments/images.txt",
    ]
    subprocess.run(made, cwd=REPOSITORY, check=True, capture_output=True)
    checked = subprocess.run(
        [str(environment / "bin" / "hadolint"), f"deploy/{folder}/Dockerfile"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (checked.stdout, checked.returncode) == ("", 0)
