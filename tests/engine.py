"""A Docker engine for tests, and the images that they run: made once, kept for the next time."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mlops_mini import containers
from mlops_mini.errors import UnavailableError
from tests.once import made_once
from tools import docker_engine, image


@pytest.fixture(scope="session")
def docker_engine_running() -> Iterator[None]:
    """An engine that the command `docker` finds; without one, tests are skipped with the reason."""
    with ExitStack() as stack:
        try:
            stack.enter_context(docker_engine.running())
        except UnavailableError as exc:
            pytest.skip(str(exc))
        yield


@pytest.fixture(scope="session")
def base_image(docker_engine_running: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian with Python, and its name."""

    def make(folder: Path) -> None:
        (folder / "name").write_text(image.base())

    return (made_once(tmp_path_factory, "base_image", make) / "name").read_text()


@pytest.fixture(scope="session")
def server_image(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> containers.Image:
    """The image of the model server, of the code as it is now."""
    made_once(tmp_path_factory, "server_image", lambda _: image.build_all(["server"]))
    return containers.image(image.SERVER)


@pytest.fixture(scope="session")
def component_images(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The images that the components of our pipeline name."""
    made_once(tmp_path_factory, "component_images", lambda _: image.build_all(["components"]))


@pytest.fixture(scope="session")
def fastapi_image(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> containers.Image:
    """The image of the FastAPI service."""
    made_once(tmp_path_factory, "fastapi_image", lambda _: image.build_all(["fastapi"]))
    return containers.image(image.FASTAPI)
