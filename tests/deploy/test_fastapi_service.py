"""The FastAPI service as a process of its own, asked over its real port."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from sklearn.exceptions import InconsistentVersionWarning

from deploy.fastapi import service
from mlops_mini.client import GrpcClient, RestClient
from mlops_mini.errors import InvalidArgumentError, NotFoundError, UnavailableError
from mlops_mini.flights import year
from mlops_mini.flights.features import FEATURES
from mlops_mini.local_server import LocalServer
from mlops_mini.rollout.envoy import Envoy
from mlops_mini.rollout.policy import Backend
from tests.rollout.backends import Load, policy
from tests.serving.servers import copy_version, wait_until

PROGRAM = (sys.executable, str(service.__file__))
FLIGHT = service.EXAMPLE.model_dump()


@pytest.fixture(scope="module")
def running(flight_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """The service, for tests that only ask."""
    with LocalServer(flight_models, tmp_path_factory.mktemp("service"), program=PROGRAM) as server:
        server.wait_until_served(1)
        yield server


@pytest.fixture
def models(flight_models: Path, tmp_path: Path) -> Path:
    """A copy of its models, for tests that add to them."""
    return Path(shutil.copytree(flight_models, tmp_path / "flights"))


def ask(server: LocalServer, body: Any, path: str = ":predict") -> tuple[int, Any]:
    """Send a body, of bytes or of what JSON can say, and return status and answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    # Without a pool, so that no connection outlives the process that's asked.
    answer = urllib3.request("POST", f"{server.rest_url}{path}", body=data, retries=False)
    return answer.status, json.loads(answer.data)


def look(server: LocalServer, path: str) -> tuple[int, str]:
    root = server.rest_url.partition("/v1/")[0]
    answer = urllib3.request("GET", f"{root}{path}", retries=False)
    return answer.status, answer.data.decode()


# What it promises.


def test_its_inputs_are_features_and_take_every_flight_of_a_month() -> None:
    features = year.read(["2013-02"]).features[list(service.Flight.model_fields)]
    optional = [
        name for name, info in service.Flight.model_fields.items() if not info.is_required()
    ]
    assert set(features) <= set(FEATURES.names)
    for row in features.to_dict("records"):
        for name in ("mins", "dow"):
            row[name] = int(row[name])
        for name in optional:
            row[name] = None if np.isnan(row[name]) else row[name]
        service.Flight.model_validate(row)


def test_the_client_of_the_model_server_gets_what_the_model_says(
    running: LocalServer, flight_models: Path
) -> None:
    flights = [service.Flight(**FLIGHT | {"mins": mins, "dest": "ORD"}) for mins in (400, 1_300)]
    expected = service.Model(flight_models).predict(flights)
    rows = [flight.model_dump() for flight in flights]
    columns = {name: [row[name] for row in rows] for name in FLIGHT if name != "org_dep_mean_3h"}

    assert ask(running, {"instances": rows}) == (200, {"predictions": expected})
    with running.client("rest") as client:
        answer = client.predict(columns)
        assert answer.version == 1
        assert answer["probability"].tolist() == expected
        assert client.versions() == {1: "AVAILABLE"}
        assert client.predict(columns, version=1).version == 1
        with pytest.raises(NotFoundError, match="version 7 isn't served; this process has 1"):
            client.predict(columns, version=7)
        with pytest.raises(InvalidArgumentError, match=r"inputs\.1\.mins: Input should be less"):
            client.predict(columns | {"mins": [0, 1_440]})


def test_it_speaks_no_grpc(running: LocalServer) -> None:
    client = GrpcClient(running.address("rest"), model="flights", retry_s=0)
    with client, pytest.raises(UnavailableError):
        client.predict({"mins": np.int64([1])})


# What it refuses.


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"mins": "315"}, "mins: Input should be a valid integer"),
        ({"mins": 315.5}, "mins: Input should be a valid integer"),
        ({"distance": float("nan")}, "distance: Input should be a finite number"),
        ({"block": float("inf")}, "block: Input should be a finite number"),
        ({"origin": "BOS"}, "origin: Input should be 'EWR', 'JFK' or 'LGA'"),
        ({"org_dep_mean3h": 5.0}, "org_dep_mean3h: Extra inputs are not permitted"),
        ({"org_overdue": True}, "org_overdue: Input should be a valid number"),
    ],
)
def test_a_wrong_input_is_named(running: LocalServer, wrong: dict[str, Any], says: str) -> None:
    status, answer = ask(running, {"instances": [FLIGHT, FLIGHT | wrong]})
    assert status == 400
    assert answer == {"error": answer["error"]}
    assert f"instances.1.{says}" in answer["error"]


def test_a_request_is_limited_in_rows_and_in_bytes(running: LocalServer) -> None:
    status, answer = ask(running, {"instances": [FLIGHT] * service.MOST_ROWS})
    assert (status, len(answer["predictions"])) == (200, service.MOST_ROWS)

    status, answer = ask(running, {"instances": [FLIGHT] * (service.MOST_ROWS + 1)})
    assert status == 400
    assert "at most 1000 items" in answer["error"]
    padding = b" " * service.MOST_BYTES
    assert ask(running, b"{}" + padding) == (
        413,
        {"error": "a request has at most 1,000,000 bytes"},
    )


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=5),
    st.sampled_from([10**400, -(10**30), "9" * 300, "\ud800", "", [], {}, "JFK"]),
)  # fmt: skip
NAMES = st.one_of(st.sampled_from([*FLIGHT, "\ud800", ""]), st.text(st.characters(), max_size=5))
JSON = st.recursive(
    ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
)
FLIGHTS = st.dictionaries(NAMES, JSON, max_size=2).map(lambda wrong: FLIGHT | wrong)
BODIES = st.one_of(
    JSON,
    st.fixed_dictionaries({"instances": st.lists(FLIGHTS, max_size=3)}),
    st.fixed_dictionaries({"inputs": st.dictionaries(NAMES, st.lists(JSON, max_size=2))}),
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("instances", "inputs", "signature_name", "\ud800"), JSON)
    ),
    st.binary(max_size=50),
    st.sampled_from([b"[" * 100_000, b'{"instances": [{"mins": ' + b"9" * 5_000 + b"}]}", b"\xff"]),
)


@settings(max_examples=400)
@given(body=BODIES)
def test_whatever_is_sent_gets_json_and_never_a_500(running: LocalServer, body: Any) -> None:
    status, answer = ask(running, body)
    if status == 200:
        assert all(0 <= p <= 1 for p in (answer.get("predictions") or answer["outputs"]))
    else:
        assert status == 400, answer
        assert list(answer) == ["error"]
        assert isinstance(answer["error"], str)


def test_other_paths_and_methods_get_json_too(running: LocalServer) -> None:
    assert look(running, "/v1/models/other") == (404, '{"error": "Not Found"}')
    assert look(running, "/v1/models/flights:predict")[0] == 405
    assert look(running, "/v1/models/flights/versions/x")[0] == 400


# What it tells.


def test_requests_are_counted_by_their_status(running: LocalServer) -> None:
    def counts() -> dict[str, float]:
        page = text_string_to_metric_families(look(running, "/metrics")[1])
        samples = [sample for family in page for sample in family.samples]
        return {f"{s.name}{s.labels.get('status', '')}": s.value for s in samples}

    before = counts()
    ask(running, {"instances": [FLIGHT] * 3})
    ask(running, {"instances": []})
    after = counts()

    assert after["model_version"] == 1
    for name, by in (("requests_total200", 1), ("requests_total400", 1), ("rows_total", 3)):
        assert after[f"model_{name}"] - before.get(f"model_{name}", 0) == by


def test_it_is_alive_before_it_is_ready(tmp_path: Path, flight_models: Path) -> None:
    (tmp_path / "flights").mkdir()
    with LocalServer(tmp_path / "flights", tmp_path, program=PROGRAM) as server:
        assert look(server, "/healthz") == (200, '{"alive":true}')
        wait_until(lambda: "there is no version" in look(server, "/readyz")[1], "the reason")
        assert look(server, "/readyz")[0] == 503
        assert ask(server, {"instances": [FLIGHT]})[0] == 503

        copy_version(flight_models / "1", tmp_path / "flights" / "1")
        server.wait_until_served(1)
        assert look(server, "/readyz") == (200, '{"version":1}')

        os.kill(server.process.pid, signal.SIGTERM)
        with pytest.raises(UnavailableError, match="exited 0"):
            server.process.check_alive(grace_s=60)


# Which version, and which not.


def test_the_highest_version_is_loaded_or_the_one_that_is_named(models: Path) -> None:
    copy_version(models / "1", models / "10")
    copy_version(models / "1", models / "9")
    (models / ".11.unfinished").mkdir()

    assert service.Model(models).version == 10
    assert service.Model(models, 9).version == 9
    with pytest.raises(FileNotFoundError, match="no version 7"):
        service.Model(models, 7)


def test_another_librarys_model_is_not_loaded(models: Path) -> None:
    file = models / "1" / service.MODEL_FILE
    file.write_bytes(file.read_bytes().replace(b"1.9.1", b"1.9.0"))
    with pytest.raises(InconsistentVersionWarning, match=r"from version 1\.9\.0 when using"):
        service.Model(models)


def test_a_model_of_other_inputs_is_not_loaded(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(service.Flight.model_fields, "dow")
    with pytest.raises(ValueError, match=r"'dow', .*which no Flight is"):
        service.Model(models)


def test_two_processes_behind_envoy_swap_under_load_without_a_failed_request(
    models: Path, tmp_path: Path
) -> None:
    copy_version(models / "1", models / "2")
    with ExitStack() as stack:
        servers, backends = [], []
        for number in (1, 2):
            flags = [f"--version={number}"]
            folder = tmp_path / f"v{number}"
            server = LocalServer(models, folder, flags=flags, program=PROGRAM)
            servers.append(stack.enter_context(server))
            # Envoy only looks whether somebody listens for gRPC; nobody asks for it.
            at = server.address("rest")
            backends.append(Backend(name=f"v{number}", rest=at, grpc=at))
        for number, server in enumerate(servers, 1):
            server.wait_until_served(number)
        envoy = stack.enter_context(Envoy(tmp_path / "envoy", policy(backends[0])))
        router = envoy.router
        load = stack.enter_context(Load(router.address, n_clients=2, body={"instances": [FLIGHT]}))
        client = stack.enter_context(RestClient(router.address, model="flights"))

        def answered(n: int) -> None:
            asked = load.counts.total()
            wait_until(lambda: load.counts.total() > asked + n, "answers")

        answered(100)
        assert client.versions() == {1: "AVAILABLE"}
        router.apply(policy(backends[1]))
        answered(20)  # some are still at the old one
        servers[0].close()
        answered(100)
        assert client.versions() == {2: "AVAILABLE"}

    assert set(load.counts) == {200}, load.counts
