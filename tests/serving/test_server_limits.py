"""What a request may cost: limits that hold, side effects that a load has not, who may manage."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlops_mini.wire import PREDICT_METHOD, PredictResponse
from tests.serving.servers import Server, predict_request
from tests.serving.test_server_versions import model_list, reload_request

StartServer = Callable[..., Server]
WIDE = np.full((1, 12_000), 0.7, np.float32)


def test_a_load_runs_no_signature(start_server: StartServer, toy_models: Path) -> None:
    server = start_server(toy_models / "trained")
    train = {"instances": [0], "signature_name": "train"}

    before = server.predict({"instances": [0]}).json
    trained = [server.predict(train).json["predictions"] for _ in range(2)]

    assert before == {"predictions": [0.0]}
    assert trained == [[1.0], [2.0]]


def test_a_limit_holds_while_one_long_operation_runs(
    start_server: StartServer, toy_models: Path
) -> None:
    server = start_server(toy_models / "wide", "--rest_api_timeout_in_ms=200")
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary(PREDICT_METHOD)
        for _ in range(25):  # small inputs must not speak for large ones
            call(predict_request("x", np.ones((1, 2), np.float32)), timeout=120)
        began = time.monotonic()
        PredictResponse.from_bytes(call(predict_request("x", WIDE), timeout=120))
        whole_s = time.monotonic() - began

    began = time.monotonic()
    answer = server.predict({"instances": WIDE.tolist()})
    limited_s = time.monotonic() - began

    assert (answer.status, answer.json) == (504, {"error": "Timed out waiting for notification"})
    assert limited_s < whole_s


def test_a_signature_that_cannot_be_served_says_so_and_the_others_are_served(
    start_server: StartServer, toy_models: Path
) -> None:
    server = start_server(toy_models / "composite")

    good = server.predict({"instances": [2]})
    ragged = server.predict({"instances": [2], "signature_name": "ragged"})
    described = server.ask("GET", "/v1/models/m/metadata")

    assert good.json == {"predictions": [4.0]}
    words = (
        "signature ragged cannot be served: rows is a composite tensor (ragged or alike), which the"
        " protocol cannot carry: export it as plain tensors"
    )
    assert (ragged.status, ragged.json["error"]) == (501, words)
    assert "ragged" in described.json["metadata"]["signature_def"]["signature_def"]
    assert f"signature ragged of {{name: m version: 1}} {words[17:]}" in server.log_file.read_text()


@pytest.mark.parametrize(
    ("flags", "is_allowed"),
    [
        ([], True),
        (["--bind_address=127.0.0.2"], True),
        (["--bind_address=::1"], True),
        (["--bind_address=0.0.0.0"], False),
        (["--bind_address=::"], False),
        (["--bind_address=0.0.0.0", "--enable_model_management"], True),
    ],
    ids=str,
)
def test_who_may_change_the_models(
    start_server: StartServer, toy_models: Path, flags: list[str], is_allowed: bool
) -> None:
    server = start_server(toy_models / "toy", *flags)
    request = reload_request(model_list(m=toy_models / "toy", more=toy_models / "two_outputs"))
    code, words = reload(grpc.insecure_channel(server.grpc), request)

    if is_allowed:
        assert code == grpc.StatusCode.OK
    else:
        assert code == grpc.StatusCode.PERMISSION_DENIED
        assert "--enable_model_management" in words


def reload(channel: grpc.Channel, request: bytes) -> tuple[Any, str]:
    with channel:
        call = channel.unary_unary("/tensorflow.serving.ModelService/HandleReloadConfigRequest")
        try:
            call(request, timeout=60)
        except grpc.RpcError as exc:
            return exc.code(), exc.details()
        return grpc.StatusCode.OK, ""


def test_a_body_over_the_limit_is_refused(start_server: StartServer, toy_models: Path) -> None:
    server = start_server(toy_models / "toy", "--rest_max_body_bytes=1000")
    host, port = server.rest.split(":")

    assert server.predict({"instances": [1.0]}).status == 200
    with socket.create_connection((host, int(port)), 30) as sock:
        sock.sendall(b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: 1001\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 413 Request Entity Too Large\r\n")
    assert server.predict({"instances": [1.0]}).status == 200
