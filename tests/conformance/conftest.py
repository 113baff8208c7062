"""Servers for the conformance suite: ours, or any other at the addresses given."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conformance import models, protos
from tests.conformance.protos import Protos
from tests.conformance.served import Served, serve_tables
from tests.serving.servers import run_in_child


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup(
        "conformance", "another server, started as tests/conformance/models.py says"
    )
    group.addoption("--rest-address", help="host:port of its REST API")
    group.addoption("--grpc-address", help="host:port of its gRPC API")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what asks the other server, so that `-m real` selects it."""
    if config.getoption("--rest-address", default=None):
        for item in items:
            if "tables" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def serving_protos(tmp_path_factory: pytest.TempPathFactory) -> Protos:
    folder = tmp_path_factory.mktemp("protos")
    run_in_child(protos.write_descriptors, folder / "all.binpb", log_file=folder / "write.log")
    return Protos(folder / "all.binpb")


@pytest.fixture(scope="session")
def table_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the base paths and the configuration of `models.write_all`."""
    base = tmp_path_factory.mktemp("table_models")
    run_in_child(models.write_all, base, log_file=base / "build.log")
    return base


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
