"""Both clients against a real server."""

import gzip
import json
import math
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

import grpc
import ml_dtypes
import numpy as np
import pandas as pd
import pytest

from mlops_mini import client_arguments
from mlops_mini.client import Client, GrpcClient, RestClient
from mlops_mini.client_answers import TensorInfo
from mlops_mini.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    HandshakeError,
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
    with pytest.raises(InvalidArgumentError, match=r"input 'x' is no array: .* rows of equal"):
        client.predict({"x": [[1.0], [2.0, 3.0]]})


def test_none_among_texts_is_refused_in_the_same_words(client: Client) -> None:
    values = {"text": ["a", None], "n": [1, 2], "total": [[1.0, 2.0]] * 2}
    with pytest.raises(InvalidArgumentError) as raised:
        client.predict(values, signature="several")

    assert str(raised.value) == (
        "input 'text' holds None at [1], but an array is sent as numbers of at most 64 bits or as"
        " texts (str, bytes): fill what is missing, with NaN or '' for example, and keep the two"
        " apart"
    )


@pytest.mark.parametrize("value", [np.complex64([1]), np.array([1], ml_dtypes.bfloat16)])
def test_rest_refuses_what_json_has_no_form_for(toy_server: Server, value: Any) -> None:
    words = f"input 'x' has dtype {value.dtype}, and JSON has no form for it: ask over gRPC"
    with (
        RestClient(toy_server.rest, model="m") as client,
        pytest.raises(InvalidArgumentError, match=words),
    ):
        client.predict({"x": value})


@pytest.mark.parametrize(
    ("signature", "value", "answer"),
    [
        ("float", np.array([1.5], ">f4"), [1.5]),
        ("float", np.array([np.float32(1.5)], object), [1.5]),
        ("float", np.ma.array(np.float32([1.5]), mask=[False]), [1.5]),
        ("double", np.array([1.5, 2], object), [1.5, 2.0]),
        ("double", pd.Series([[1.0, 2.0], [3.0, 4.0]]), [[1.0, 2.0], [3.0, 4.0]]),
        ("int64", pd.Series([1, 2], dtype="Int64"), [1, 2]),
        ("int64", range(3), [0, 1, 2]),
        ("uint64", [2**63], [2**63]),
        ("uint8", memoryview(b"ab"), [97, 98]),
        ("uint8", bytearray(b"ab"), [97, 98]),
        ("string", pd.Categorical(["a", "b"]), [b"a", b"b"]),
        ("string", pd.Series(["a", "b"], dtype="string"), [b"a", b"b"]),
        ("string", np.array(["a", "b"], np.dtypes.StringDType()), [b"a", b"b"]),
        ("string", np.array([np.str_("a"), np.bytes_(b"b")], object), [b"a", b"b"]),
        ("string", np.array([["a"], ["b"]]).tolist(), [[b"a"], [b"b"]]),
        ("string", pd.Series([["a"], ["b"]]), [[b"a"], [b"b"]]),
        ("string", np.array([], object), []),
        ("string", np.array("a", object), b"a"),
        ("string", b"a\0", b"a\0"),
    ],
)
def test_what_numpy_and_pandas_hold_can_be_sent(
    client: Client, signature: str, value: Any, answer: Any
) -> None:
    assert client.predict({"x": value}, signature=signature)["y"].tolist() == answer


@pytest.mark.parametrize(
    ("signature", "value"),
    [
        ("float", [1, 2.5]),
        ("float", [0.1]),
        ("half", [1.5]),
        ("int8", [-128, 127]),
        ("int32", [3.0]),
        ("uint64", [5]),
        ("double", [1]),
        ("float", 7),
        ("float", []),
        ("uint16", (1, 2)),
    ],
)
def test_numbers_in_lists_become_the_signatures_type(
    toy_server: Server, signature: str, value: Any
) -> None:
    with GrpcClient(toy_server.grpc, model="m") as client:
        answer = client.predict({"x": value}, signature=signature)["y"]

    dtype = {"float": "float32", "half": "float16", "double": "float64"}.get(signature, signature)
    assert answer.dtype == dtype
    assert answer.tolist() == np.array(value, dtype).tolist()


@pytest.mark.parametrize(
    ("signature", "value", "given"),
    [("int32", [1.5], "double"), ("uint8", [256], "int64"), ("float", np.array([1.0]), "double")],
)
def test_numbers_that_do_not_fit_are_refused_by_the_server(
    toy_server: Server, signature: str, value: Any, given: str
) -> None:
    words = rf"^Expects arg\[0\] to be {signature} but {given} is provided$"
    with (
        GrpcClient(toy_server.grpc, model="m") as client,
        pytest.raises(InvalidArgumentError, match=words),
    ):
        client.predict({"x": value}, signature=signature)


def test_a_text_takes_no_more_than_itself_in_memory() -> None:
    """Each of a million empty texts would take as much as the longest in numpy's own type."""
    texts = [b"a" * 2**20, *[b""] * 10**6]

    sent = client_arguments.arrays({"x": texts})["x"]

    assert (sent.dtype, sent.size, sent[0]) == (object, len(texts), texts[0])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"version": -1}, "version must be a whole number from 0 .*, got -1"),
        ({"version": True}, "version must be a whole number from 0 .*, got True"),
        ({"version": "1"}, "version must be a whole number from 0 .*, got '1'"),
        ({"version": 1.0}, r"version must be a whole number from 0 .*, got 1\.0"),
        ({"version": 2**63}, r"version must be a whole number from 0 to 2\*\*63 - 1, got 92"),
        ({"version": 10**5000}, "version must be .*, got a whole number of 16610 bits"),
        ({"label": 3}, "a label must be text .*; got 3"),
        ({"label": b"a"}, "a label must be text .*; got b'a'"),
        ({"label": "\ud800"}, r"a label must be text that UTF-8 can .*; got '\\ud800'"),
        ({"label": "a/b"}, "Unrecognized servable version label: a/b$"),
        ({"label": ".."}, r"Unrecognized servable version label: \.\.$"),
        ({"signature": 3}, "a signature's name must be text .*; got 3"),
        ({"signature": "\ud800"}, "a signature's name must be text "),
        ({"timeout_s": float("nan")}, "timeout_s must be a number of seconds, got nan"),
        ({"timeout_s": None}, "timeout_s must be a number of seconds, got None"),
        ({"timeout_s": "1"}, "timeout_s must be a number of seconds, got '1'"),
    ],
)
def test_an_argument_without_meaning_is_refused(
    client: Client, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        client.predict({"x": np.float32([1])}, **given)


@pytest.mark.parametrize(
    "given",
    [
        {"version": np.int64(1)},
        {"timeout_s": np.float32(30)},
        {"timeout_s": math.inf},
        {"timeout_s": 10**400},
    ],
)
def test_an_argument_may_be_of_any_type_that_fits(client: Client, given: dict[str, Any]) -> None:
    assert client.predict({"x": np.float32([1])}, **given).version == 1


@pytest.mark.parametrize("timeout_s", [0, -1, -math.inf, -(10**400)], ids=str)
def test_without_time_nothing_is_asked(client: Client, timeout_s: float) -> None:
    for ask in (client.versions, client.metadata):
        with pytest.raises(DeadlineExceededError, match="no time is left to ask 127"):
            ask(timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"retry_s": math.nan}, "retry_s must be a number of seconds, got nan"),
        ({"retry_s": None}, "retry_s must be a number of seconds, got None"),
        ({"model": None}, "the model's name must be text .*; got None"),
        ({"model": "\ud800"}, "the model's name must be text "),
    ],
)
@pytest.mark.parametrize("cls", [RestClient, GrpcClient])
def test_a_client_is_not_made_of_what_has_no_meaning(
    cls: Callable[..., Client], given: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        cls("127.0.0.1:1", **{"model": "m", **given})


@pytest.mark.parametrize("number", [0, "a", 1.5])
def test_a_number_of_connections_is_whole(number: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="max_connections must be a whole number from 1"):
        RestClient("127.0.0.1:1", model="m", max_connections=number)


def test_a_closed_client_says_so(client: Client) -> None:
    client.close()
    client.close()

    with pytest.raises(FailedPreconditionError, match="this client is closed: make a new one"):
        client.versions()


def test_waiting_ends_in_time_though_nobody_answers(silent_address: str) -> None:
    with RestClient(silent_address, model="m") as client:
        with pytest.raises(DeadlineExceededError, match=r"GET .*: no answer in 1 s"):
            client.wait_until_available(1, timeout_s=0.1)
        with pytest.raises(InvalidArgumentError, match="timeout_s must be a number"):
            client.wait_until_available(1, timeout_s=math.nan)
        with pytest.raises(InvalidArgumentError, match="version must be a whole number"):
            client.wait_until_available(-1, timeout_s=1)


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
    "address",
    [
        "", "8501", "localhost:", ":8501", "localhost:http", "http://localhost:8501",
        "https://localhost:8501", "localhost:8501/", "localhost:8501/v1", "::1:8501", "[::1",
        "[zz]:8501", "localhost:0", "localhost:65536", "localhost:-1", "localhost:\u0663",
        " localhost:8501", "a b:8501", "localhost\n:8501", "user@localhost:8501", "\ud800:8501",
        "é:8501", "a?b:8501", "a:1,b:2", 8501, None, b"localhost:8501",
    ],
    ids=ascii,
)  # fmt: skip
@pytest.mark.parametrize("cls", [RestClient, GrpcClient])
def test_an_address_without_host_or_port_is_refused(
    cls: Callable[..., Client], address: Any
) -> None:
    with pytest.raises(InvalidArgumentError, match=r"is no address: use host:port|must be text"):
        cls(address, model="m")


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_an_ipv6_address_stands_in_brackets(
    transport: str, toy_models: Path, start_server: StartServer
) -> None:
    server = start_server(toy_models / "toy", "--bind_address=::1")
    with _client(transport, server) as client:
        client.wait_until_available(1, timeout_s=60)
        assert client.address.startswith("[::1]:")


@pytest.mark.parametrize("address", ["dns:///{}", "ipv4:{}"])
def test_grpc_takes_its_own_schemes(toy_server: Server, address: str) -> None:
    with GrpcClient(address.format(toy_server.grpc), model="m") as client:
        assert client.versions() == {1: "AVAILABLE"}


@pytest.mark.parametrize(("cls", "port"), [(RestClient, "grpc"), (GrpcClient, "rest")])
def test_the_other_protocols_port_is_told(
    toy_server: Server, cls: Callable[..., Client], port: str
) -> None:
    with (
        cls(getattr(toy_server, port), model="m", retry_s=60) as client,
        pytest.raises(HandshakeError, match=r"it speaks no HTTP/.*has a port of its own"),
    ):
        client.versions(timeout_s=60)


PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")


@pytest.mark.parametrize("variable", [*PROXIES, *(name.upper() for name in PROXIES)])
@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_no_proxy_of_the_environment_is_used(
    transport: str, variable: str, toy_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)  # so that accept() says that nobody has come
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        cls = {"rest": RestClient, "grpc": GrpcClient}[transport]
        port = getattr(toy_server, transport).split(":")[1]
        for host in ("127.0.0.1", "localhost"):
            with cls(f"{host}:{port}", model="m", retry_s=0) as client:
                assert client.predict({"x": np.float32([1])}, timeout_s=60)["y"].tolist() == [2.5]
        with (
            cls("models.invalid:80", model="m", retry_s=0) as client,
            pytest.raises((UnavailableError, DeadlineExceededError)),
        ):
            client.versions(timeout_s=5)
        with pytest.raises(BlockingIOError):
            proxy.accept()


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


NO_VERSIONS = b'{"model_version_status": []}'


class _Fixed(BaseHTTPRequestHandler):
    """Answers each request with the next of its server's answers, the last one for ever."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        answers = self.server.answers
        status, body, headers = answers.pop(0) if len(answers) > 1 else answers[0]
        self.server.asked += 1
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_arguments: object) -> None:
        """Keep silent."""


@contextmanager
def _answering(*answers: tuple[int, bytes, dict[str, str]]) -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Fixed) as server:
        server.answers, server.asked = list(answers), 0
        server.address = f"127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield server
        finally:
            server.shutdown()


def _fixed(*statuses: int) -> Any:
    bodies = {200: NO_VERSIONS}
    return _answering(*((code, bodies.get(code, b'{"error": "so"}'), {}) for code in statuses))


def _metadata_of(version: int) -> tuple[int, bytes, dict[str, str]]:
    shape = {"dim": [{"size": "-1"}], "unknown_rank": False}
    tensor = {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": "x:0"}
    signature = {"inputs": {"x": tensor}, "outputs": {"y": tensor}, "method_name": ""}
    described = {
        "model_spec": {"name": "m", "version": str(version), "signature_name": ""},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    }
    return 200, json.dumps(described).encode(), {}


def test_an_answer_that_another_version_may_have_given_is_asked_for_again() -> None:
    first, second = ((200, b'{"outputs": [%d.0]}' % n, {}) for n in (1, 2))
    answers = [_metadata_of(1), first, _metadata_of(2), second, _metadata_of(2)]
    with _answering(*answers) as server, RestClient(server.address, model="m") as client:
        answer = client.predict({"x": np.float32([0])})
        n_asked = server.asked

    assert (answer["y"].tolist(), answer.version, n_asked) == ([2.0], 2, 5)


HTML = b"<!doctype html><title>nginx</title>"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("status", "body", "headers", "error", "words"),
    [
        (200, b"hello", {}, InternalError, "answered 200 with no JSON: b'hello'; is it a model"),
        (200, HTML, {}, InternalError, "answered 200 with no JSON: b'<!doctype html>"),
        (200, b"", {}, InternalError, "answered 200 with no JSON: b''"),
        (200, b"\xff", {}, InternalError, "answered 200 with no JSON"),
        (200, b"[" * 100_000, {}, InternalError, "answered 200 with no JSON"),
        (200, b"null", {}, InternalError, "answered None, which is no model server's answer"),
        (200, b"[]", {}, InternalError, r"answered \[\], which is no model server's answer"),
        (200, b"1", {}, InternalError, "answered 1, which is no model server's answer"),
        (200, b"{}", {}, InternalError, "answered {}, which is no model server's answer"),
        (200, b"zz", {"Content-Encoding": "gzip"}, InternalError, "cannot be unpacked"),
        (204, b"", {}, MlopsMiniError, "answered 204 with no JSON"),
        (302, b"", {"Location": "/login"}, FailedPreconditionError, "points to /login: ask there"),
        (400, b"", {}, InvalidArgumentError, "answered 400 with no JSON: b''"),
        (404, HTML, {}, NotFoundError, "answered 404 with no JSON: b'<!doctype html>"),
        (404, b'{"detail": "no"}', {}, NotFoundError, "answered 404: {'detail': 'no'}"),
        (404, b'{"error": ""}', {}, NotFoundError, "answered 404: {'error': ''}"),
        (404, b'{"error": ["no"]}', {}, NotFoundError, r"answered 404: {'error': \['no'\]}"),
        (404, b"null", {}, NotFoundError, "answered 404: None"),
        (500, b"[1]", {}, InternalError, r"answered 500: \[1\]"),
        (502, HTML, {}, UnavailableError, "answered 502 with no JSON"),
        (503, b"no healthy upstream", {}, UnavailableError, "answered 503 with no .* upstream"),
    ],
    ids=str,
)
def test_an_answer_that_is_no_model_servers_is_told(
    status: int, body: bytes, headers: dict[str, str], error: type[Exception], words: str
) -> None:
    with (
        _answering((status, body, headers)) as server,
        RestClient(server.address, model="m", retry_s=0) as client,
    ):
        for ask in (client.versions, client.metadata, lambda: client.predict({"x": [1.0]})):
            with pytest.raises(error, match=words) as raised:
                ask()
            assert server.address in str(raised.value)


METADATA = (
    b'{"model_spec": {"version": "1"}, "metadata": {"signature_def": {"signature_def":'
    b' {"serving_default": {"inputs": {}, "outputs": {"y": {"dtype": "DT_FLOAT"},'
    b' "s": {"dtype": "DT_STRING"}, "i": {"dtype": "DT_INT8"}}}}}}}'
)


@pytest.mark.parametrize(
    "outputs",
    [
        "null", "[]", "{}", '{"y": [1], "s": ["a"]}', '{"y": [null], "s": ["a"], "i": [1]}',
        '{"y": null, "s": ["a"], "i": [1]}', '{"y": ["a"], "s": ["a"], "i": [1]}',
        '{"y": [1], "s": [1], "i": [1]}', '{"y": [1], "s": [{"b64": "?"}], "i": [1]}',
        '{"y": [1], "s": [{}], "i": [1]}', '{"y": [1], "s": ["a"], "i": [300]}',
        '{"y": [[1], [1, 2]], "s": ["a"], "i": [1]}', '{"y": [{}], "s": ["a"], "i": [1]}',
    ],
)  # fmt: skip
def test_outputs_that_are_not_the_signatures_are_told(outputs: str) -> None:
    body = b'{"outputs": %s}' % outputs.encode()
    with (
        _answering((200, METADATA, JSON), (200, body, JSON)) as server,
        RestClient(server.address, model="m") as client,
        pytest.raises(InternalError, match=r"POST .* answered .*, which is no model server's"),
    ):
        client.predict({}, version=1)


def test_a_compressed_answer_is_read() -> None:
    answer = (200, gzip.compress(NO_VERSIONS), {"Content-Encoding": "gzip"})
    with _answering(answer) as server, RestClient(server.address, model="m") as client:
        assert client.versions() == {}


class _Undecodable(grpc.GenericRpcHandler):
    """Answers each call with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def service(self, _details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: self.answer)


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        (b"\xff\xff", ("versions", "metadata", "predict")),
        (b"<!doctype html>", ("versions", "metadata", "predict")),
        (b"", ("metadata", "predict")),  # of no versions, this is the right answer
        (b"\x0a\x06\x0a\x01y\x12\x01\xff", ("predict",)),
        (b"\x0a\x0b\x0a\x01y\x12\x06\x08\x01\x22\x02ab", ("predict",)),
    ],
)
def test_grpc_answers_that_cannot_be_read_are_told(answer: bytes, calls: tuple[str, ...]) -> None:
    server = grpc.server(ThreadPoolExecutor(1), handlers=[_Undecodable(answer)])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with GrpcClient(address, model="m") as client:
            for call in calls:
                arguments = [{"x": np.float32([1])}] if call == "predict" else []
                with pytest.raises(InternalError, match="is no model server's answer") as raised:
                    getattr(client, call)(*arguments)
                assert address in str(raised.value)
    finally:
        server.stop(None)


def test_only_what_is_unavailable_is_asked_for_again() -> None:
    with _fixed(503, 503, 200) as server, RestClient(server.address, model="m") as client:
        assert client.versions() == {}
        assert server.asked == 3
    with _fixed(502, 502, 200) as server, RestClient(server.address, model="m") as client:
        assert client.versions() == {}
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
