"""Both clients against a real server."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_mini.client import Client, GrpcClient, RestClient, TensorInfo
from mlops_mini.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    MlopsMiniError,
    NotFoundError,
    UnavailableError,
)
from tests.conformance.models import write_retyped
from tests.serving.servers import Server, copy_version, run_in_child

StartServer = Callable[..., Server]
PNG = b"\x89PNG\r\n\x1a\n\0\0"  # ends in NUL bytes, as binary data may


def _client(transport: str, server: Server, model: str = "m") -> Client:
    if transport == "rest":
        return RestClient(server.rest, model=model)
    return GrpcClient(server.grpc, model=model)


@pytest.fixture(params=["rest", "grpc"])
def client(request: pytest.FixtureRequest, toy_server: Server) -> Iterator[Client]:
    with _client(request.param, toy_server) as opened:
        yield opened


@pytest.fixture
def silent_address() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"127.0.0.1:{silent.getsockname()[1]}"


@pytest.fixture
def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


def test_numbers_come_back_in_the_signatures_type(client: Client) -> None:
    answer = client.predict({"x": np.float32([1, np.nan, np.inf, -np.inf, 0.1])})

    assert list(answer) == ["y"]
    assert answer["y"].dtype == np.float32
    expected = np.float32([2.5, np.nan, np.inf, -np.inf, 2.05])
    np.testing.assert_array_equal(answer["y"], expected)


@pytest.mark.parametrize(
    ("signature", "values"),
    [
        ("double", np.float64([0.1, 1e300])),
        ("int32", np.int32([[1, 2], [3, 4]])),
        ("uint8", np.uint8([0, 255])),
        ("int64", np.int64([2**62 + 1])),
        ("uint64", np.uint64([2**64 - 1])),
        ("bool", np.bool_([True, False])),
        ("float", np.zeros((0, 2), np.float32)),
    ],
)
def test_every_type_is_exact(client: Client, signature: str, values: Any) -> None:
    answer = client.predict({"x": values}, signature=signature)["y"]

    assert answer.dtype == values.dtype
    assert answer.tolist() == values.tolist()


@pytest.mark.parametrize(
    "texts",
    [
        [PNG, b"b"],
        ["é", "b\0"],
        np.array([PNG], object),
        np.array([["a"], ["b"]]),
        np.array([b"a", b"bc"]),
    ],
)
def test_text_and_bytes_arrive_whole(client: Client, texts: Any) -> None:
    sent = [
        item.encode() if isinstance(item, str) else item
        for item in np.ravel(np.array(texts, object))
    ]

    answer = client.predict(
        {
            "text": np.array(texts, object).ravel() if isinstance(texts, np.ndarray) else texts,
            "n": np.ones(len(sent), np.int64),
            "total": np.ones((len(sent), 2), np.float32),
        },
        signature="several",
    )

    assert answer["text_bytes"].tolist() == sent
    assert answer["text"].tolist() == [item * 2 for item in sent]
    assert answer["n"].dtype == np.int64
    assert answer["total"].tolist() == [3.0] * len(sent)


def test_bytes_that_are_no_utf_8_come_back_also_under_a_plain_name(client: Client) -> None:
    answer = client.predict({"x": np.array([b"\xff\xfe", b""], object)}, signature="string")

    assert answer["y"].tolist() == [b"\xff\xfe", b""]


def test_scalars_are_arrays_too(client: Client) -> None:
    number = client.predict({"x": np.float32([0.1])}, signature="scalar")["y"]
    text = client.predict({"x": ["a", "b"]}, signature="scalar_bytes")["y_bytes"]

    assert (number.shape, number.dtype, number.item()) == ((), np.float32, np.float32(0.1))
    assert (text.shape, text.item()) == ((), b"ab")


def test_a_version_may_be_named(client: Client) -> None:
    assert client.predict({"x": np.float32([1])}, version=1)["y"].tolist() == [2.5]
    with pytest.raises(NotFoundError, match=r"^Servable not found for request: Specific\(m, 9\)$"):
        client.predict({"x": np.float32([1])}, version=9)
    with pytest.raises(InvalidArgumentError, match="Unrecognized servable version label: canary"):
        client.predict({"x": np.float32([1])}, label="canary")
    with pytest.raises(InvalidArgumentError, match="version 1 or label 'canary', not both"):
        client.predict({"x": np.float32([1])}, version=1, label="canary")


def test_the_version_that_answered_is_told(client: Client) -> None:
    assert client.predict({"x": np.float32([1])}).version == 1
    assert client.predict({"x": np.float32([1])}, version=1).version == 1


def test_what_the_graph_refuses_is_told(client: Client) -> None:
    with pytest.raises(InvalidArgumentError, match="too big"):
        client.predict({"x": np.float32([10])}, signature="checked")


def test_an_input_that_is_no_array_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(InvalidArgumentError, match="an input is no array"):
        client.predict({"x": [[1.0], [2.0, 3.0]]})


@pytest.mark.parametrize("value", [np.complex64([1]), [None], np.array([{}], object)])
def test_rest_refuses_what_json_has_no_form_for(toy_server: Server, value: Any) -> None:
    with (
        RestClient(toy_server.rest, model="m") as client,
        pytest.raises(InvalidArgumentError, match="JSON has no form for"),
    ):
        client.predict({"x": value})


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_another_model_is_not_found(toy_server: Server, transport: str) -> None:
    with _client(transport, toy_server, model="a b") as client, pytest.raises(NotFoundError) as got:
        client.predict({"x": np.float32([1])})

    assert str(got.value) == "Servable not found for request: Latest(a b)"


@pytest.mark.parametrize("cls", [RestClient, GrpcClient])
def test_no_answer_in_time_is_a_deadline(
    cls: Callable[..., Client], toy_models: Path, start_server: StartServer
) -> None:
    server = start_server(toy_models / "slow")
    server.wait_for(1)
    with _client("rest" if cls is RestClient else "grpc", server) as client:
        with pytest.raises(DeadlineExceededError):
            client.predict({"n": np.int32([5_000_000])}, timeout_s=0.2)
        answer = client.predict({"n": np.int32([1])})  # the client is as good as before

    assert answer["y"].tolist() == [1]


def test_a_server_that_stays_silent_is_a_deadline(silent_address: str) -> None:
    with (
        RestClient(silent_address, model="m") as client,
        pytest.raises(DeadlineExceededError, match=r"GET .*: no answer in 0.1 s"),
    ):
        client.predict({"x": [1.0]}, timeout_s=0.1)


@pytest.mark.parametrize("cls", [RestClient, GrpcClient])
def test_nobody_listening_is_unavailable(cls: Callable[..., Client], free_address: str) -> None:
    with cls(free_address, model="m") as client, pytest.raises(UnavailableError):
        client.predict({"x": np.float32([1])}, timeout_s=5)


@pytest.mark.parametrize(
    "address", ["8501", "localhost:", ":8501", "localhost:http", "http://localhost:8501"]
)
def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is no address: use host:port"):
        RestClient(address, model="m")


def test_an_answer_that_is_no_json_is_told(free_address: str) -> None:
    host, port = free_address.split(":")
    with socket.create_server((host, int(port))) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            RestClient(free_address, model="m") as client,
            pytest.raises(InternalError, match=r"answered 200 with no JSON: b'hello'"),
        ):
            client.predict({"x": [1.0]})
        thread.join(10)


def test_threads_share_a_client(client: Client) -> None:
    def ask(number: int) -> float:
        return float(client.predict({"x": np.float32([number])})["y"][0])

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(100))) == [0.5 * number + 2 for number in range(100)]


def test_states_are_told_and_waited_for(toy_server: Server) -> None:
    with RestClient(toy_server.rest, model="m") as client:
        client.wait_until_available(1, timeout_s=60)
        assert client.versions() == {1: "AVAILABLE"}
        with pytest.raises(DeadlineExceededError, match=r"version 2 is not .*\{1: 'AVAILABLE'\}"):
            client.wait_until_available(2, timeout_s=0.1)
    with RestClient(toy_server.rest, model="zz") as client:
        with pytest.raises(NotFoundError, match="Could not find any versions of model zz"):
            client.versions()
        with pytest.raises(DeadlineExceededError, match="the server has no versions"):
            client.wait_until_available(1, timeout_s=0.1)


def test_a_new_version_with_other_outputs_is_understood(
    toy_models: Path, start_server: StartServer, tmp_path: Path
) -> None:
    base = tmp_path / "model"
    base.mkdir()
    copy_version(toy_models / "numbered/1", base / "1")
    server = start_server(base)
    server.wait_for(1)
    x = {"x": np.float32([1])}
    with RestClient(server.rest, model="m") as client:
        assert list(client.predict(x)) == ["version"]
        copy_version(toy_models / "two_outputs/2", base / "2")
        server.wait_for(2)
        assert sorted(client.predict(x)) == ["double", "half"]
        copy_version(toy_models / "numbered/3", base / "3")
        server.wait_for(3)
        assert client.predict(x)["version"].tolist() == [3.0]


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_a_new_version_that_changes_only_the_type_is_noticed(
    transport: str, start_server: StartServer, tmp_path: Path
) -> None:
    written, base = tmp_path / "written", tmp_path / "model"
    run_in_child(write_retyped, str(written), log_file=tmp_path / "write.log")
    base.mkdir()
    copy_version(written / "1", base / "1")
    server = start_server(base)
    server.wait_for(1)
    with _client(transport, server) as client:
        for version, dtype in ((1, np.float32), (2, np.float64), (3, np.int64)):
            if version > 1:
                copy_version(written / str(version), base / str(version))
            server.wait_for(version)
            answer = client.predict({"x": np.float32([0.1, 2])})
            assert (answer.version, answer["y"].dtype) == (version, dtype)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_the_metadata_says_what_a_model_takes_and_gives(toy_server: Server, transport: str) -> None:
    with _client(transport, toy_server) as client:
        metadata = client.metadata()

    assert metadata.version == 1
    assert metadata.signatures["several"].inputs == {
        "n": TensorInfo("int64", (-1,)),
        "text": TensorInfo("string", (-1,)),
        "total": TensorInfo("float", (-1, 2)),
    }
    assert metadata.signatures["scalar"].outputs == {"y": TensorInfo("float", ())}
    assert metadata.signatures["constant"].inputs == {}


@pytest.mark.parametrize(("transport", "flag"), [("rest", "rest_api_port"), ("grpc", "port")])
def test_a_server_that_comes_back_is_asked_again(
    transport: str, flag: str, toy_models: Path, start_server: StartServer, free_address: str
) -> None:
    make = {"rest": RestClient, "grpc": GrpcClient}[transport]
    with make(free_address, model="m", retry_s=60) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait_until_available, 1, timeout_s=60)
        port = free_address.split(":")[1]
        start_server(toy_models / "toy", f"--{flag}={port}")

        waiting.result(60)
        assert client.predict({"x": np.float32([1])})["y"].tolist() == [2.5]


class _Fixed(BaseHTTPRequestHandler):
    """Answers each request with the next of its server's statuses, the last one for ever."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        statuses = self.server.statuses
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        self.server.asked += 1
        body = b'{"error": "so"}' if status != 200 else b'{"model_version_status": []}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Keep silent."""


@contextmanager
def _fixed(*statuses: int) -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Fixed) as server:
        server.statuses, server.asked = list(statuses), 0
        server.address = f"127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield server
        finally:
            server.shutdown()


def test_only_what_is_unavailable_is_asked_for_again() -> None:
    with _fixed(503, 503, 200) as server, RestClient(server.address, model="m") as client:
        assert client.versions() == {}
        assert server.asked == 3
    for status in (400, 404, 429, 500, 501, 504):
        with _fixed(status) as server, RestClient(server.address, model="m") as client:
            with pytest.raises(MlopsMiniError, match="so"):
                client.versions()
            assert server.asked == 1


@pytest.mark.parametrize(("retry_s", "timeout_s"), [(0.3, 600.0), (600.0, 0.3), (0.0, 600.0)])
def test_asking_again_ends_with_its_time(retry_s: float, timeout_s: float) -> None:
    with _fixed(503) as server, RestClient(server.address, model="m", retry_s=retry_s) as client:
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="so"):
            client.versions(timeout_s=timeout_s)
        assert time.monotonic() - started < 600
        assert (server.asked == 1) == (retry_s == 0)


def test_the_client_needs_neither_tensorflow_nor_pandas(toy_server: Server) -> None:
    code = """
import sys
from mlops_mini import client
heavy = {"grpc", "tensorflow", "keras", "pandas", "urllib3"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
with client.GrpcClient(sys.argv[1], model="m") as grpc_client:
    import numpy as np
    assert grpc_client.predict({"x": np.float32([1])})["y"].tolist() == [2.5]
with client.RestClient(sys.argv[2], model="m") as rest_client:
    assert rest_client.predict({"x": [1]})["y"].tolist() == [2.5]
heavy -= {"grpc", "urllib3"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    command = [sys.executable, "-c", code, toy_server.grpc, toy_server.rest]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 0, ended.stderr


def test_every_error_of_a_client_is_one_of_ours(client: Client) -> None:
    for inputs in ({}, {"w": [1.0]}, {"x": ["a"]}, {"x": [1.0], "y": [2.0]}):
        if inputs.keys() == {"x", "y"} and isinstance(client, RestClient):
            continue  # REST ignores what it does not know
        with pytest.raises(MlopsMiniError):
            client.predict(inputs)
