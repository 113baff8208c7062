"""What tests of the FastAPI service and of its image share."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.fastapi import service
from tests.once import made_once


@pytest.fixture(scope="session")
def flight_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `flights` with version 1, as `train.py` has made it. Never change it."""

    def make(base: Path) -> None:
        train = Path(service.__file__).with_name("train.py")
        base.chmod(0o755)
        subprocess.run([sys.executable, str(train), str(base / "flights")], check=True)

    return made_once(tmp_path_factory, "fastapi_models", make) / "flights"
