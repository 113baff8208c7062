"""Versions that come and go under a running server."""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest

from mlops_mini.serving import server as server_process
from mlops_mini.wire import PREDICT_METHOD, PredictResponse
from tests.serving.servers import Server, predict_request, publish_numbered, wait_until

StartServer = Callable[..., Server]


@pytest.mark.parametrize("is_missing", [True, False])
def test_both_ports_answer_before_there_is_a_model_and_find_it_when_it_appears(
    start_server: StartServer, toy_models: Path, base: Path, is_missing: bool
) -> None:
    if is_missing:
        base.rmdir()
    server = start_server(base)

    answer = server.predict({"instances": [0]})
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(PREDICT_METHOD)(predict_request("x", np.float32([0])), timeout=10)
    assert (answer.status, answer.json) == (
        404,
        {"error": "Servable not found for request: Latest(m)"},
    )
    assert raised.value.details() == "Servable not found for request: Latest(m)"

    base.mkdir(exist_ok=True)
    publish_numbered(toy_models, base, 1)
    server.wait_for(1)
    assert server.predict({"instances": [0]}).json == {"predictions": [1.0]}


def test_a_half_written_version_waits_until_it_is_complete(
    start_server: StartServer, toy_models: Path, base: Path
) -> None:
    publish_numbered(toy_models, base, 1)
    server = start_server(base)
    server.wait_for(1)

    (base / "2").mkdir()
    shutil.copytree(toy_models / "numbered/2/variables", base / "2/variables")
    server.wait_for(2, "END")
    failed = server.ask("GET", "/v1/models/m/versions/2").json["model_version_status"][0]["status"]
    assert failed["error_code"] == "NOT_FOUND"
    assert "does not appear to contain a SavedModel bundle" in failed["error_message"]
    assert server.predict({"instances": [0]}).json == {"predictions": [1.0]}

    shutil.copy(toy_models / "numbered/2/saved_model.pb", base / "2/saved_model.pb")
    server.wait_for(2)
    assert server.predict({"instances": [0]}).json == {"predictions": [2.0]}


@pytest.mark.parametrize("content", [b"", b"no protobuf \xff\xff", b"\x08\x01"])
def test_a_graph_that_cannot_be_read_takes_nobody_down(
    start_server: StartServer, toy_models: Path, base: Path, content: bytes
) -> None:
    publish_numbered(toy_models, base, 1)
    publish_numbered(toy_models, base, 2)
    (base / "2/saved_model.pb").write_bytes(content)
    server = start_server(base)
    server.wait_for(1)

    assert server.states() == {2: "END", 1: "AVAILABLE"}
    assert server.predict({"instances": [0]}).json == {"predictions": [1.0]}


def test_cut_variables_end_the_version_with_tensorflows_own_code(
    start_server: StartServer, toy_models: Path, base: Path
) -> None:
    publish_numbered(toy_models, base, 1)
    (base / "1/variables/variables.data-00000-of-00001").write_bytes(b"")
    server = start_server(base)
    server.wait_for(1, "END")

    status = server.ask("GET", "/v1/models/m").json["model_version_status"][0]["status"]
    assert status["error_code"] in {"DATA_LOSS", "OUT_OF_RANGE"}


class CountingModel:
    """Is waiting for a version until the third look."""

    def __init__(self) -> None:
        self.n_looks = 0

    @property
    def is_waiting(self) -> bool:
        return self.n_looks < 3

    def tick(self) -> None:
        self.n_looks += 1


@pytest.mark.parametrize(("poll_wait_s", "n_looks"), [(0, 3), (-1, 0)])
def test_a_poller_that_is_not_to_poll_ends_with_the_first_version_or_at_once(
    poll_wait_s: int, n_looks: int
) -> None:
    model = CountingModel()

    server_process._Poller(cast("Any", model), poll_wait_s).run()

    assert model.n_looks == n_looks


def test_a_poller_goes_on_until_it_is_stopped() -> None:
    model = CountingModel()
    poller = server_process._Poller(cast("Any", model), 1)
    poller.start()
    wait_until(lambda: model.n_looks > 3, "a look after the version was found")
    poller.stop()
    poller.join(10)

    assert not poller.is_alive()


def test_no_request_fails_while_the_version_changes(
    start_server: StartServer, toy_models: Path, base: Path
) -> None:
    publish_numbered(toy_models, base, 1)
    server = start_server(base)
    server.wait_for(1)
    done = threading.Event()
    request = predict_request("x", np.float32([0, 0]))

    def over_rest() -> list[float]:
        seen = []
        while not done.is_set():
            answer = server.predict({"instances": [0, 0]})
            assert answer.status == 200, answer.body
            seen.append(answer.json["predictions"][0])
        return seen

    def over_grpc() -> list[float]:
        seen = []
        with grpc.insecure_channel(server.grpc) as channel:
            call = channel.unary_unary(PREDICT_METHOD)
            while not done.is_set():
                answer = PredictResponse.from_bytes(call(request, timeout=30))
                assert answer.outputs["version"][0] == answer.model_spec.version
                seen.append(float(answer.outputs["version"][0]))
        return seen

    with ThreadPoolExecutor(2) as pool:
        askers = [pool.submit(over_rest), pool.submit(over_grpc)]
        try:
            for version in (2, 3, 4):
                publish_numbered(toy_models, base, version)
                server.wait_for(version)
                server.wait_for(version - 1, "END")
            shutil.rmtree(base / "4")  # back to 3
            server.wait_for(4, "END")
        finally:
            done.set()
        seen = [asker.result() for asker in askers]

    assert [set(answers) for answers in seen] == [{1.0, 2.0, 3.0, 4.0}] * 2
    assert min(map(len, seen)) > 100
    assert server.states() == {4: "END", 3: "AVAILABLE", 2: "END", 1: "END"}
