"""What a client sees over REST. The models are ours, the answers are TensorFlow Serving's."""

import gzip
import http.client
import json
import re
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from tests.conformance import (
    body_cases,
    example_cases,
    form_cases,
    http_cases,
    order_cases,
    rest_cases,
    value_cases,
)
from tests.conformance.rest_cases import RestCase
from tests.conformance.served import Served
from tests.serving.servers import Answer

# Strings, which are kept, and blanks between them.
_BLANKS = re.compile(rb'("(?:[^"\\]|\\.)*")|\s+')


_TABLES = (rest_cases, http_cases, body_cases, form_cases, value_cases, example_cases)


# Reason phrases are libevent's.
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    501: "Not Implemented",
    504: "Gateway Time-out",
}


@pytest.mark.parametrize(
    "case", [case for table in _TABLES for case in table.ALL] + order_cases.REST, ids=str
)
def test_the_tables_hold(tables: Served, case: RestCase) -> None:
    _check(tables, case)


@pytest.mark.parametrize("case", http_cases.WITH_FLAGS, ids=str)
def test_the_tables_of_other_flags_hold(tables_cors: Served, case: RestCase) -> None:
    _check(tables_cors, case)


def _check(served: Served, case: RestCase) -> None:
    reply = served.ask(case.method, case.path, case.body, case.request_headers)

    assert (reply.status, reply.reason) == (case.status, _REASONS[case.status]), reply.body
    assert {name: reply.headers.get(name) for name in case.headers} == case.headers
    if case.headers.get("connection") is None:  # what libevent writes itself has no more
        assert reply.headers.keys() >= {"date", "content-length"}
    if isinstance(case.answer, bytes):
        assert _BLANKS.sub(rb"\1", reply.body) == _BLANKS.sub(rb"\1", case.answer)
    elif isinstance(case.answer, str):
        _check_error(reply, case.answer)
    else:  # as text: NaN is no equal of itself
        assert _ordered(reply.json) == _ordered(case.answer)


def _check_error(reply: Answer, expected: str) -> None:
    """An error's text stands first; only our own hint may follow."""
    error = reply.json
    assert next(iter(error)) == "error"
    assert error.keys() <= {"error", "hint"}
    assert reply.body.startswith(b'{\n    "error": "')
    begin, dots, end = expected.rpartition("...")
    if dots:
        assert error["error"].startswith(begin)
        assert error["error"].endswith(end)
    else:
        assert error["error"] == expected


def _ordered(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def test_float32_has_digits_that_read_back(tables: Served) -> None:
    values = np.float32([0.1, 1 / 3, 1e-7, 3.4e38, 16777217, 123456.7, 1e6, -0.0, 2**64, 5e-45])
    body = json.dumps({"signature_name": "flt", "inputs": values.tolist()})

    reply = tables.ask("POST", "/v1/models/m:predict", body)

    assert np.float32(reply.json["outputs"]).tobytes() == values.tobytes()


def test_a_large_body_is_read_whole(tables: Served) -> None:
    body = json.dumps({"signature_name": "flt", "inputs": [[1.0] * 1000] * 1000})

    reply = tables.ask("POST", "/v1/models/m:predict", body)

    assert np.shape(reply.json["outputs"]) == (1000, 1000)


def test_the_metadata_prints_all_signatures_with_their_defaults(tables: Served) -> None:
    for target in ("", "/versions/123"):
        reply = tables.ask("GET", f"/v1/models/half_plus_two{target}/metadata")

        answer = reply.json
        assert answer["model_spec"] == {
            "name": "half_plus_two",
            "version": "123",
            "signature_name": "",
        }
        signatures = answer["metadata"]["signature_def"]["signature_def"]
        assert len(signatures) == 5
        assert signatures["regress_x2_to_y3"] == {
            "inputs": {"inputs": _info("x2:0")},
            "outputs": {"outputs": _info("y3:0")},
            "method_name": "tensorflow/serving/regress",
            "defaults": {},
        }


def _info(name: str) -> dict[str, Any]:
    dims = [{"size": "-1", "name": ""}, {"size": "1", "name": ""}]
    shape = {"dim": dims, "unknown_rank": False}
    return {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": name}


def test_words_that_quote_bytes_are_passed_on(tables: Served) -> None:
    body = json.dumps({"signature_name": "to_number", "inputs": [{"b64": "/w=="}]})

    reply = tables.ask("POST", "/v1/models/toy:predict", body)

    assert reply.status == 400
    assert b"could not correctly convert string: \xff" in reply.body


def test_a_gzip_body_may_inflate_to_100_mib(tables: Served) -> None:
    packed = gzip.compress(b" " * (99 * 2**20) + rest_cases.TOY, 1)

    reply = tables.ask("POST", "/v1/models/toy:predict", packed, {"Content-Encoding": "gzip"})

    assert reply.json == {"predictions": [2.5]}


def test_a_large_answer_is_not_compressed(tables: Served) -> None:
    body = json.dumps({"inputs": [0.0] * 100_000})

    reply = tables.ask("POST", "/v1/models/toy:predict", body, {"Accept-Encoding": "gzip"})

    assert "content-encoding" not in reply.headers
    assert len(reply.json["outputs"]) == 100_000


def test_a_connection_is_kept_through_errors(tables: Served) -> None:
    with closing(http.client.HTTPConnection(tables.rest, timeout=60)) as connection:
        connection.connect()
        kept = connection.sock
        for path, body in (
            ("/v1/models/toy:predict", rest_cases.TOY),
            ("/v1/models/toy:predict", b"x"),
            ("/v1/models/zz:predict", b"{}"),
            ("/v1/x", b""),
            ("/v1/models/toy:predict", rest_cases.TOY),
        ):
            connection.request("POST", path, body)
            reply = connection.getresponse()
            reply.read()
            assert reply.version == 11
            assert connection.sock is kept


def test_what_protobuf_prints_ends_with_a_newline(tables: Served) -> None:
    for path in ("/v1/models/numbered", "/v1/models/half_plus_two/metadata"):
        assert tables.ask("GET", path).body.endswith(b"\n}\n")


def test_the_metadata_of_a_version_is_found_by_label_and_number(tables: Served) -> None:
    for target, version in (("", 3), ("/labels/stable", 2), ("/labels/%73table", 2)):
        answer = tables.ask("GET", f"/v1/models/numbered{target}/metadata").json
        assert answer["model_spec"]["version"] == str(version)
        signatures = answer["metadata"]["signature_def"]["signature_def"]
        assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"
        # What TensorFlow's exporter adds is printed like the rest, with all defaults.
        init = signatures["__saved_model_init_op"]["outputs"]["__saved_model_init_op"]
        assert init["tensor_shape"] == {"dim": [], "unknown_rank": True}


def test_a_large_answer_comes_whole_and_in_order_on_one_connection(tables: Served) -> None:
    for n in (1, 50_000, 2):
        body = json.dumps({"inputs": [float(i) for i in range(n)]})
        reply = tables.ask("POST", "/v1/models/toy:predict", body)
        assert reply.json["outputs"][-1] == 0.5 * (n - 1) + 2
