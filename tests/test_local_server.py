"""Our server as a child process: it starts, takes flags, answers, and ends with its starter."""

import urllib.request
from pathlib import Path

import psutil
import pytest

from mlops_mini.errors import UnavailableError
from mlops_mini.local_server import LocalServer


@pytest.mark.slow
def test_a_version_is_served_with_the_flags_that_were_given(
    toy_models: Path, tmp_path: Path
) -> None:
    with LocalServer(
        toy_models / "toy", tmp_path / "server", flags=["--rest_api_enable_cors_support"]
    ) as server:
        server.wait_until_served(1)
        with urllib.request.urlopen(server.rest_url) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert not psutil.pid_exists(server.process.pid)


def test_a_server_that_cannot_start_says_why(toy_models: Path, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"the model server exited 255; its last words: .*"):
        LocalServer(toy_models / "toy", tmp_path / "server", flags=["--max_num_load_retries=many"])
