"""What a client sees over REST. The models are ours, the answers are TensorFlow Serving's."""

import json
import re
from typing import Any

import numpy as np
import pytest

from tests.conformance import body_cases, example_cases, rest_cases
from tests.conformance.rest_cases import RestCase
from tests.conformance.served import Reply, Served

# Strings, which are kept, and blanks between them.
_BLANKS = re.compile(rb'("(?:[^"\\]|\\.)*")|\s+')


@pytest.mark.parametrize("case", rest_cases.ALL + body_cases.ALL + example_cases.ALL, ids=str)
def test_the_tables_hold(tables: Served, case: RestCase) -> None:
    reply = tables.ask(case.method, case.path, case.body, case.request_headers)

    assert reply.status == case.status, reply.body
    assert case.reason in (None, reply.reason)
    assert {name: reply.headers.get(name) for name in case.headers} == case.headers
    if isinstance(case.answer, bytes):
        assert _BLANKS.sub(rb"\1", reply.body) == _BLANKS.sub(rb"\1", case.answer)
    elif isinstance(case.answer, str):
        _check_error(reply, case.answer)
    else:  # as text: NaN is no equal of itself
        assert _ordered(reply.json) == _ordered(case.answer)


def _check_error(reply: Reply, expected: str) -> None:
    """An error's text stands first; only our own hint may follow."""
    error = reply.json
    assert next(iter(error)) == "error"
    assert error.keys() <= {"error", "hint"}
    assert reply.body.startswith(b'{\n    "error": "')
    if expected.endswith("..."):
        assert error["error"].startswith(expected.removesuffix("..."))
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


def test_a_large_answer_comes_whole_and_in_order_on_one_connection(tables: Served) -> None:
    for n in (1, 50_000, 2):
        body = json.dumps({"inputs": [float(i) for i in range(n)]})
        reply = tables.ask("POST", "/v1/models/toy:predict", body)
        assert reply.json["outputs"][-1] == 0.5 * (n - 1) + 2
