"""The image of the FastAPI service, run as it should be run."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.fastapi import service
from mlops_mini import containers
from mlops_mini.client import RestClient
from tests.deploy.container import HARDENED, Container
from tests.serving.servers import wait_until

pytestmark = pytest.mark.docker
MOST_BYTES = 0.6e9
STOP_S = 10


@pytest.fixture
def running(fastapi_image: containers.Image, flight_models: Path) -> Iterator[Container]:
    """A container of it, locked up, on a free port."""
    volume = f"--volume={flight_models}:/models/flights:ro"
    arguments = ["run", "--detach", *HARDENED, "--publish=127.0.0.1::8501", volume]
    container = Container(containers.docker(*arguments, fastapi_image.digest))
    try:
        container.wait_until_ready()
        yield container
    finally:
        containers.docker("rm", "--force", container.id)


def test_it_answers_locked_up_as_nobody_and_ends_well(running: Container) -> None:
    flight = service.EXAMPLE.model_dump(exclude_none=True)
    with RestClient(running.address(8501), model="flights") as client:
        answer = client.predict({name: [value] for name, value in flight.items()})
    assert answer.version == 1
    assert 0 < answer["probability"][0] < 1

    assert running.sh("id -u").stdout.strip() == "10001"
    assert "Read-only file system" in running.sh("touch /opt/service/x").stderr
    healthy = "{{.State.Health.Status}}"
    wait_until(lambda: running.inspect(healthy) == "healthy", "the health check", pace_s=0.2)

    began = time.monotonic()
    containers.docker("stop", "--time=60", running.id)
    assert time.monotonic() - began < STOP_S
    assert running.inspect("{{.State.ExitCode}}") == "0"


def test_it_is_small_and_tells_nothing_of_this_machine(
    fastapi_image: containers.Image, record_property
) -> None:
    (known,) = json.loads(containers.docker("image", "inspect", fastapi_image.digest))
    history = containers.docker("history", "--no-trunc", fastapi_image.digest)

    assert known["Size"] <= MOST_BYTES
    record_property(fastapi_image.name, f"{known['Size'] / 1e9:.2f} GB")
    assert known["Config"]["User"] == "10001:10001"
    for word in ("PIP_", "BEGIN CERTIFICATE", socket.gethostname()):
        assert word not in history + json.dumps(known["Config"])
