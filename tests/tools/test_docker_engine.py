"""The Docker engine that tools borrow, and what is said if there's none or something is left."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_mini import containers
from tools import docker_engine

REPOSITORY = Path(__file__).parents[2]


def test_a_command_runs_without_an_engine_and_the_reason_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd
) -> None:
    (tmp_path / "data").touch()  # a file where the engine's folder should be
    monkeypatch.setattr(docker_engine, "FOLDER", tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")

    status = docker_engine.main(["echo", "without one"])

    printed, said = capfd.readouterr()
    assert (status, printed) == (0, "without one\n")
    reasons = ("none is installed", "only root can start one", "the Docker engine didn't start: ")
    assert any(reason in said for reason in reasons), said
    assert said.endswith("what needs one is skipped\n")


def test_an_engine_that_others_use_is_not_waited_for(tmp_path: Path) -> None:
    sockets = docker_engine._sockets(tmp_path)
    sockets.mkdir()
    with (tmp_path / "users.lock").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        docker_engine._wait_for_its_end(tmp_path)
    sockets.rmdir()  # nobody has ended it


@pytest.mark.docker
def test_what_a_command_leaves_is_named_and_is_a_failure(
    docker_engine_running: None, capfd
) -> None:
    name = f"left-{os.getpid()}"
    try:
        status = docker_engine.run_and_look(["docker", "network", "create", name])
    finally:
        containers.docker("network", "rm", name)

    assert status == 1
    assert f"network {name}" in capfd.readouterr().err


def test_tests_that_are_left_out_are_counted_and_measurements_printed(tmp_path: Path) -> None:
    (tmp_path / "test_two.py").write_text(
        "import pytest\n\n"
        "@pytest.mark.docker\ndef test_in_a_container(): pass\n\n"
        "def test_a_size(record_property): record_property('image', '1.2 GB')\n"
    )
    options = ("-q", "-n1", "-c", "/dev/null", "-m", "not docker", "-p", "tests.summary")
    alone = {"PYTHONPATH": str(REPOSITORY), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "xdist", *options, "test_two.py"],
        cwd=tmp_path, env={**os.environ, **alone},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert "image: 1.2 GB\nleft out, since they need a Docker engine: 1 (`make con" in ran.stdout
