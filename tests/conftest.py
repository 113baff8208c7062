"""What tests of several folders share: toy models, and servers that serve them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from mlops_mini import notebook
from tests.certificates import Pair, make_pairs
from tests.once import made_once
from tests.serving import models
from tests.serving.servers import Server, run_in_child

pytest_plugins = (
    "tests.engine",
    "tests.flight_data",
    "tests.model.published",
    "tests.summary",
    "tests.trained",
)

hypothesis.settings.register_profile("busy", deadline=None)  # workers hold each other up
hypothesis.settings.load_profile("busy")

StartServer = Callable[..., Server]
# Files that take longest, begun first so that no worker is left alone with one at the end.
LONGEST = (
    "tests/deploy/test_server_image.py",
    "tests/pipeline/test_in_containers.py",
    "tests/deploy/test_compose.py",
    "tests/loop/test_play.py",
    "tests/runner/test_runner_crashes.py",
    "tests/flights/test_worth.py",
    "tests/tenants/test_tenants.py",
    "tests/test_cli.py",
    "tests/notebooks/test_refresh.py",
    "tests/model/test_publish.py",
    "tests/conformance/test_versions.py",
    "tests/conformance/test_start.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest files first where workers share the files."""
    if hasattr(config, "workerinput"):
        places = {file: place for place, file in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(LONGEST)))


# Before any test asks a server: a proxy that the environment names cannot reach this machine's.
notebook.ask_this_machine_directly()


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the base paths that `tests.serving.models.write_all` lists. Never change it."""

    def make(base: Path) -> None:
        run_in_child(models.write_all, base, log_file=base / "build.log")

    return made_once(tmp_path_factory, "toy_models", make)


@pytest.fixture(scope="session")
def toy_server(toy_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the toy model, named m, version 1, for tests that only ask."""
    server = Server.start(toy_models / "toy", tmp_path_factory.mktemp("toy_server"))
    server.wait_for(1)
    yield server
    server.close()


@pytest.fixture(scope="session")
def pairs() -> dict[str, Pair]:
    """Keys and certificates by name, as `tests.certificates` describes them."""
    return make_pairs()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers of a test's own: `start_server(base_path, *flags)`; ends them with it."""
    started: list[Server] = []

    def start(base_path: Path, *flags: str) -> Server:
        started.append(Server.start(base_path, tmp_path / f"server_{len(started)}", *flags))
        return started[-1]

    yield start
    for server in started:
        server.close()
