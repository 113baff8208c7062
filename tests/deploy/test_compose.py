"""A canary at 10 % through Docker Compose, from its file as it is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_mini import containers

pytestmark = [pytest.mark.docker, pytest.mark.slow]
REPOSITORY = Path(__file__).parents[2]


def test_the_canary_gets_a_tenth_and_nothing_is_left(
    component_images: None, record_property
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tools.compose"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "failed 0" in ran.stdout
    record_property("canary by Compose", re.search("stable answered .*", ran.stdout)[0])
    assert "Prometheus counts stable" in ran.stdout
    label = "--filter=label=com.docker.compose.project=mlops-mini"
    assert not containers.docker("ps", "--all", "--quiet", label)
    assert not containers.docker("network", "ls", "--quiet", label)
