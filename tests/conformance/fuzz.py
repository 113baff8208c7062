"""Requests that nobody would write by hand, for both edges, and what must hold for each answer.

`test_fuzz.py` sends some of them; `python -m tests.conformance.fuzz 10000` as many as asked for, to
a server of its own.
"""

import gzip
import json
import socket
import string
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.conformance import models, protos
from tests.conformance.grpc_cases import X, spec
from tests.conformance.served import Served, serve_tables
from tests.serving.servers import run_in_child

STATUSES = {200, 400, 404, 409, 429, 499, 500, 501, 503, 504}
CODES = {
    "OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "RESOURCE_EXHAUSTED", "INTERNAL",
}  # fmt: skip
MAX_GROWTH_BYTES = 400 << 20

_WORDS = st.sampled_from(
    ["instances", "inputs", "signature_name", "examples", "context", "b64", "x", "n", "text",
     "total", "", "serving_default", "several", "string", "matrix", "int64", "uint8", "bool",
     "half", "zz"]
)  # fmt: skip
_TEXT = st.one_of(_WORDS, st.text(max_size=8))
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    _TEXT,
    st.fixed_dictionaries({"b64": st.one_of(_TEXT, st.just("YWI="))}),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=12,
)
_NUMBERS = st.recursive(
    st.one_of(st.floats(-9, 9), st.integers(-9, 9)), lambda inner: st.lists(inner, max_size=4)
)
_BODIES = st.one_of(  # the first three are mostly right
    st.fixed_dictionaries({"instances": st.lists(_NUMBERS, min_size=1, max_size=4)}),
    st.fixed_dictionaries({"inputs": _NUMBERS}, optional={"signature_name": _WORDS}),
    st.fixed_dictionaries(
        {
            "examples": st.lists(st.fixed_dictionaries({"x": st.floats(-9, 9)}), max_size=3),
            "signature_name": st.sampled_from(["", "regress", "scores"]),
        }
    ),
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("instances", "inputs", "examples", "context"), _VALUES)
    ),
    st.fixed_dictionaries(
        {"signature_name": _TEXT, "instances": st.lists(_VALUES, min_size=1, max_size=3)}
    ),
    st.fixed_dictionaries(
        {"examples": st.lists(st.dictionaries(_TEXT, _VALUES, max_size=3), max_size=3)}
    ),
    _VALUES,
)


def _cut(data: tuple[bytes, int, bytes, int]) -> bytes:
    """Replace a piece of a body."""
    body, at, new, n = data
    at %= len(body) + 1
    return body[:at] + new + body[at + n :]


_JSON = st.builds(lambda body: json.dumps(body).encode("utf-8", "surrogatepass"), _BODIES)
_RAW = st.one_of(
    _JSON,
    st.builds(
        _cut, st.tuples(_JSON, st.integers(0, 400), st.binary(max_size=4), st.integers(0, 4))
    ),
    st.builds(
        lambda n, end: b'{"instances":' + b"[" * n + end,
        st.integers(0, 3000),
        st.binary(max_size=5),
    ),
    st.binary(max_size=200),
    _JSON.map(gzip.compress),
)
_PATH_TEXT = st.text(string.ascii_letters + string.digits + "/:?#%.-_~", max_size=12)
_MODEL_PATHS = st.builds(
    lambda model, target, verb: f"/v1/models/{model}{target}{verb}",
    st.sampled_from(["toy", "toy", "examples", "m", "numbered", "zz", "%74oy"]),
    st.sampled_from(["", "", "/versions/1", "/versions/99999999999999999999", "/labels/stable"]),
    st.sampled_from([":predict", ":predict", ":classify", ":regress", "/metadata", "", ":x"]),
)
_PATHS = st.one_of(
    st.sampled_from(["/v1/models/toy:predict", "/v1/models/examples:regress"]),
    _MODEL_PATHS,
    _MODEL_PATHS,
    _PATH_TEXT.map(lambda text: f"/v1/{text}"),
    _PATH_TEXT.map(lambda text: f"/{text}"),
)
_USUAL = st.tuples(
    st.just("POST"),
    st.sampled_from(["/v1/models/toy:predict", "/v1/models/examples:classify"]),
    _JSON,
    st.just({}),
)
REST_REQUESTS = st.one_of(
    _USUAL,
    st.tuples(
        st.sampled_from(["POST", "POST", "POST", "GET", "OPTIONS", "PUT", "DELETE", "HEAD"]),
        _PATHS,
        _RAW,
        st.sampled_from([{}, {}, {"Content-Encoding": "gzip"}, {"Origin": "http://x"}]),
    ),
)
_HTTP = st.builds(
    lambda start, headers, body: "\r\n".join([start, *headers, "", ""]).encode() + body,
    st.sampled_from(
        [
            "POST /v1/models/toy:predict HTTP/1.1", "GET /v1/models/toy HTTP/1.0", "GET / HTTP/9.9",
            "GET http://a/v1/models/toy HTTP/1.1", "", "GET", "\0 / HTTP/1.1", "PRI * HTTP/2.0",
        ]
    ),
    st.lists(
        st.sampled_from(
            [
                "Host: a", "Content-Length: 17", "Content-Length: -1", "Content-Length: 3",
                "Content-Length: 99999999999", "Transfer-Encoding: chunked", "Transfer-Encoding: x",
                "Connection: close", "Connection: Upgrade", "Upgrade: h2c", "Expect: 100-continue",
                "Content-Encoding: gzip", "a" * 70_000, ": x", "A:" + "b" * 200, "Range: bytes=0-1",
            ]
        ),
        max_size=4,
    ),
    st.sampled_from(
        [b"", b'{"instances":[1]}', b'11\r\n{"instances":[1]}\r\n0\r\n\r\n', b"zz\r\n", b"\xff"]
    ),
)  # fmt: skip
RAW_REQUESTS = st.one_of(
    st.binary(max_size=200),
    _HTTP,
    st.builds(
        _cut, st.tuples(_HTTP, st.integers(0, 300), st.binary(max_size=3), st.integers(0, 9))
    ),
    st.builds(lambda one, other: one + other, _HTTP, _HTTP),
)

_TENSORS = st.fixed_dictionaries(
    {"dtype": st.one_of(st.sampled_from(["DT_FLOAT", "DT_STRING"]), st.integers(0, 130))},
    optional={
        "tensor_shape": st.fixed_dictionaries(
            {}, optional={"dim": st.lists(st.fixed_dictionaries(
                {"size": st.sampled_from([-1, 0, 1, 2, 3, 2**31, 2**62])}), max_size=4),
                "unknown_rank": st.booleans()}
        ),
        "float_val": st.lists(st.floats(-9, 9, width=32), max_size=4),
        "int64_val": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
        "string_val": st.lists(st.sampled_from(["", "YQ==", "/w=="]), max_size=4),
        "tensor_content": st.sampled_from(["", "AAAA", "AAAAAA==", "AQFh/w=="]),
    },
)  # fmt: skip
_SPECS = st.fixed_dictionaries(
    {"name": st.sampled_from(["toy", "toy", "m", "examples", "numbered", "", "zz"])},
    optional={
        "version": st.sampled_from([0, 1, -1, 2**63 - 1]),
        "signature_name": st.one_of(st.sampled_from(["", "regress", "scores"]), _WORDS),
    },
)
_EXAMPLES = st.fixed_dictionaries(
    {"example_list": st.fixed_dictionaries({"examples": st.lists(
        st.sampled_from([{}, {"features": {"feature": {"x": {"float_list": {"value": [1.5]}}}}},
                         {"features": {"feature": {"x": {"int64_list": {"value": [1]}}}}}]),
        max_size=3)})}
)  # fmt: skip
_TASKS = st.fixed_dictionaries(
    {
        "model_spec": _SPECS,
        "method_name": st.sampled_from(
            ["tensorflow/serving/regress", "tensorflow/serving/classify", "x"]
        ),
    }
)
_CALLS: list[tuple[str, st.SearchStrategy[Any]]] = [
    (
        "Predict",
        st.fixed_dictionaries(
            {
                "inputs": st.one_of(
                    st.just(X),
                    st.fixed_dictionaries({"x": _TENSORS}),
                    st.dictionaries(st.sampled_from(["x", "n", "w"]), _TENSORS, max_size=2),
                )
            },
            optional={
                "model_spec": _SPECS,
                "output_filter": st.lists(st.sampled_from("yzq"), max_size=2),
            },
        ),
    ),
    ("Classify", st.fixed_dictionaries({"model_spec": _SPECS, "input": _EXAMPLES})),
    ("Regress", st.fixed_dictionaries({"model_spec": _SPECS, "input": _EXAMPLES})),
    (
        "MultiInference",
        st.fixed_dictionaries({"tasks": st.lists(_TASKS, max_size=3), "input": _EXAMPLES}),
    ),
    (
        "GetModelMetadata",
        st.fixed_dictionaries(
            {"model_spec": _SPECS},
            optional={
                "metadata_field": st.lists(st.sampled_from(["signature_def", "q"]), max_size=2)
            },
        ),
    ),
    ("GetModelStatus", st.fixed_dictionaries({}, optional={"model_spec": _SPECS})),
]
GRPC_CALLS = st.one_of(
    *(st.tuples(st.just(method), fields, st.none()) for method, fields in _CALLS),
    st.tuples(st.sampled_from([m for m, _ in _CALLS]), st.none(), st.binary(max_size=60)),
)


def check_rest(served: Served, request: tuple[str, str, bytes, dict[str, str]]) -> None:
    """Send a request; its answer must be one that TensorFlow Serving could give."""
    method, path, body, headers = request
    reply = served.ask(method, path, body, headers)
    assert reply.status in STATUSES
    if reply.headers.get("content-type") != "application/json" or not reply.body:
        return
    answer = reply.json
    assert isinstance(answer, dict)
    assert reply.status == 200 or isinstance(answer["error"], str)
    assert reply.status != 500 or "{{node" in answer["error"], answer


def check_grpc(served: Served, request: tuple[str, Any, bytes | None]) -> None:
    """Call a method; its answer must be one that TensorFlow Serving could give."""
    method, fields, data = request
    code, message, _ = (
        served.call(method, fields) if data is None else served.call_bytes(method, data)
    )
    assert code in CODES, (code, message)
    assert code == "OK" or message


def check_raw(served: Served, data: bytes) -> None:
    """Send bytes that may be no HTTP at all: answers, if any, are HTTP's, and then it closes."""
    host, port = served.rest.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        except (ConnectionResetError, BrokenPipeError):
            return  # closed before all was read
    assert not received or received.startswith((b"HTTP/1.0 ", b"HTTP/1.1 ")), received[:80]


def check_alive(served: Served) -> None:
    """A normal request is answered as ever."""
    reply = served.ask("POST", "/v1/models/toy:predict", '{"instances":[1]}')
    assert (reply.status, reply.json) == (200, {"predictions": [2.5]})
    code, message, _ = served.call("Predict", {"model_spec": spec(), "inputs": X})
    assert (code, message) == ("OK", "")


def run(check: Callable[[Any], None], requests: Any, n: int) -> None:
    """Try n examples, without saving or minimizing more than hypothesis needs to report one."""
    limits = settings(
        max_examples=n,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    limits(given(requests)(check))()


def check_both(served: Served, pid: int, n: int) -> int:
    """Send n requests, raw connections and calls; return by how many bytes the server has grown."""
    check_alive(served)
    before = psutil.Process(pid).memory_info().rss
    run(lambda request: check_rest(served, request), REST_REQUESTS, n)
    check_alive(served)
    run(lambda data: check_raw(served, data), RAW_REQUESTS, n)
    check_alive(served)
    run(lambda request: check_grpc(served, request), GRPC_CALLS, n)
    check_alive(served)
    grown = psutil.Process(pid).memory_info().rss - before
    assert grown < MAX_GROWTH_BYTES, f"grown by {grown >> 20} MiB"
    return int(grown)


def main(n: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        run_in_child(models.write_all, base, log_file=base / "models.log")
        run_in_child(protos.write_descriptors, base / "protos", log_file=base / "protos.log")
        known = protos.Protos(base / "protos")
        with serve_tables(base, base / "server", known) as (server, served):
            grown = check_both(served, server.process.pid, n)
            sys.stdout.write(f"{n} of each kind sent; the server has grown by {grown >> 20} MiB\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
