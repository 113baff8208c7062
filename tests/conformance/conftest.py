"""Servers for the conformance suite: ours, or any other at the addresses given."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conformance import models, protos
from tests.conformance.protos import Protos
from tests.conformance.served import Served, serve_tables
from tests.once import made_once
from tests.serving.servers import Launcher, Server, run_in_child


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup(
        "conformance", "another server, started as tests/conformance/models.py says"
    )
    group.addoption("--rest-address", help="host:port of its REST API")
    group.addoption("--grpc-address", help="host:port of its gRPC API")
    group.addoption(
        "--server-binary", default="", help="a tensorflow_model_server for tests that start one"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what asks the other server, so that `-m real` selects it."""
    given = {"tables": "--rest-address", "launcher": "--server-binary"}
    for item in items:
        for fixture, option in given.items():
            if fixture in getattr(item, "fixturenames", ()) and config.getoption(option, ""):
                item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def serving_protos(tmp_path_factory: pytest.TempPathFactory) -> Protos:

    def make(folder: Path) -> None:
        run_in_child(protos.write_descriptors, folder / "all.binpb", log_file=folder / "write.log")

    return Protos(made_once(tmp_path_factory, "protos", make) / "all.binpb")


@pytest.fixture(scope="session")
def table_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the base paths and the configuration of `models.write_all`."""

    def make(base: Path) -> None:
        run_in_child(models.write_all, base, log_file=base / "build.log")

    return made_once(tmp_path_factory, "table_models", make)


@pytest.fixture(scope="session")
def launcher(request: pytest.FixtureRequest) -> Launcher:
    """Starts the server under test with the flags of a test's own."""
    return Launcher(request.config.getoption("--server-binary", ""))


@pytest.fixture(scope="session")
def tables(
    request: pytest.FixtureRequest, serving_protos: Protos, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The server that the tables are asked of: all models of `models.config`."""
    rest = request.config.getoption("--rest-address", default=None)
    if rest:
        given = request.config.getoption("--grpc-address")
        with closing(Served(rest, given, serving_protos)) as served:
            yield served
        return
    base, folder = request.getfixturevalue("table_models"), tmp_path_factory.mktemp("tables")
    with serve_tables(base, folder, serving_protos) as (_, served):
        yield served


@pytest.fixture(scope="session")
def tables_cors(
    request: pytest.FixtureRequest, serving_protos: Protos, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server of model m with the flags that change REST answers."""
    if request.config.getoption("--rest-address", default=None):
        pytest.skip("the server at --rest-address has other flags")
    server = Server.start(
        request.getfixturevalue("table_models") / "m",
        tmp_path_factory.mktemp("tables_cors"),
        "--rest_api_enable_cors_support",
        "--rest_api_timeout_in_ms=1000",
    )
    with closing(server), closing(Served(server.rest, server.grpc, serving_protos)) as served:
        server.wait_for(1)
        yield served
