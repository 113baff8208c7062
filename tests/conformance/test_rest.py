"""What a client sees over REST. The models are ours, the answers are TensorFlow Serving's."""

import gzip
import json
from typing import Any

import numpy as np
import pytest

from tests.serving.servers import Server

LATEST_MISSING = "Servable not found for request: Latest(zz)"
PREDICT = "/v1/models/m:predict"


def _error(server: Server, body: Any, target: str = "") -> tuple[int, str]:
    answer = server.predict(body, target)
    return answer.status, answer.json["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/m:PREDICT"),
        ("POST", "/v1/models/m:predict?x=1"),
        ("POST", "/v1/models/m:predict/"),
        ("POST", "/v1/models/m"),
        ("POST", "/v1/models/m:explain"),
        ("POST", "/v1/models/m/versions/x:predict"),
        ("GET", "/v1/"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/m/"),
        ("GET", "/v1/models/m:predict"),
        ("GET", "/v1/models/m/versions/"),
        ("GET", "/v1/models/m/versions/-1"),
        ("PUT", "/v1/models/m"),
        ("DELETE", "/v1/models/m"),
        ("PATCH", PREDICT),
    ],
)
def test_a_route_that_does_not_exist_is_malformed(
    toy_server: Server, method: str, path: str
) -> None:
    answer = toy_server.ask(method, path, "{}" if method == "POST" else None)

    assert answer.status == 400
    assert answer.body == f'{{\n    "error": "Malformed request: {method} {path}"\n}}'.encode()
    assert answer.headers["content-type"] == "application/json"


def test_head_is_malformed_and_has_no_body(toy_server: Server) -> None:
    answer = toy_server.ask("HEAD", "/v1/models/m")

    assert (answer.status, answer.body) == (400, b"")


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/models/m", "/metrics"])
def test_outside_of_v1_there_is_an_html_page(toy_server: Server, path: str) -> None:
    answer = toy_server.ask("GET", path)

    assert answer.status == 404
    assert answer.body == (
        b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD>"
        b"<BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
    )
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/models/m?x=1", 404, "Could not find any versions of model m?x=1"),
        ("/v1/models/a%20b", 404, "Could not find any versions of model a b"),
        ("/v1/models/zz", 404, "Could not find any versions of model zz"),
        ("/v1/models/m/versions/9", 404, "Could not find version 9 of model m"),
        ("/v1/models/zz/metadata", 404, LATEST_MISSING),
        ("/v1/models/m/versions/9/metadata", 404, "Servable not found for request: Specific(m, 9)"),
        ("/v1/models/m/labels/x/metadata", 400, "Unrecognized servable version label: x"),
        ("/v1/models/m/labels/a%20b/metadata", 400, "Unrecognized servable version label: a b"),
    ],
)
def test_get_names_what_is_missing(toy_server: Server, path: str, status: int, text: str) -> None:
    answer = toy_server.ask("GET", path)

    assert (answer.status, answer.json) == (status, {"error": text})


@pytest.mark.parametrize(
    "path",
    ["/v1/MODELS/m:predict", "/V1/models/m:predict", "/v1/models/m/versions/1:predict",
     "/v1/models/m/versions/0001:predict", "/v1/models/%6d:predict"],
)  # fmt: skip
def test_all_spellings_of_the_route_are_answered(toy_server: Server, path: str) -> None:
    answer = toy_server.ask("POST", path, '{"instances": [1.0]}')

    assert (answer.status, answer.json) == (200, {"predictions": [2.5]})


@pytest.mark.parametrize("digits", [str(2**63), "9" * 5000])
@pytest.mark.parametrize("ending", ["", "/metadata", ":predict"])
def test_a_version_over_64_bits_gets_an_empty_400(
    toy_server: Server, digits: str, ending: str
) -> None:
    method = "POST" if ending == ":predict" else "GET"

    answer = toy_server.ask(method, f"/v1/models/m/versions/{digits}{ending}", "{}")

    assert (answer.status, answer.body) == (400, b"")


def test_the_status_lists_versions_and_ignores_the_label(toy_server: Server) -> None:
    expected = {
        "model_version_status": [
            {
                "version": "1",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }

    for path in ("/v1/models/m", "/v1/models/m/versions/1", "/v1/models/m/labels/zz"):
        answer = toy_server.ask("GET", path)
        assert (answer.status, answer.json) == (200, expected)
        assert answer.body.startswith(b'{\n "model_version_status": [\n  {\n   "version": "1"')
        assert answer.body.endswith(b"}\n")


@pytest.mark.parametrize("target", ["", "/versions/1"])
def test_the_metadata_prints_all_signatures_with_their_defaults(
    toy_server: Server, target: str
) -> None:
    answer = toy_server.ask("GET", f"/v1/models/m{target}/metadata").json

    assert answer["model_spec"] == {"name": "m", "version": "1", "signature_name": ""}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert "__saved_model_init_op" in signatures
    default = signatures["serving_default"]
    assert default["inputs"] == {
        "x": {
            "dtype": "DT_FLOAT",
            "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
            "name": default["inputs"]["x"]["name"],
        }
    }
    assert default["method_name"] == "tensorflow/serving/predict"
    assert default["defaults"] == {}


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"instances": [1, 2]}, {"predictions": [2.5, 3.0]}),
        ({"signature_name": "", "inputs": [1]}, {"outputs": [2.5]}),
        ({"inputs": {"x": [1], "ignored": 2}}, {"outputs": [2.5]}),
        ({"instances": [{"x": 1}]}, {"predictions": [2.5]}),
        ({"inputs": []}, {"outputs": []}),
        ({"inputs": 1}, {"outputs": 2.5}),
        ({"instances": [[]]}, {"predictions": [[]]}),
        ({"instances": [[[1], [2]]]}, {"predictions": [[[2.5], [3.0]]]}),
        ({"signature_name": "scalar", "inputs": [1, 2]}, {"outputs": 3.0}),
        ({"signature_name": "scalar", "inputs": [0.1]}, {"outputs": 0.1}),
        (
            {"signature_name": "scalar_bytes", "inputs": ["a", "b"]},
            {"outputs": {"b64": "YWI="}},
        ),
        ({"signature_name": "mixed", "inputs": [1]}, {"outputs": {"y": [1.0], "z": [1.0, 1.0]}}),
        (
            {
                "signature_name": "several",
                "instances": [{"total": [1, 2], "n": 3, "text": "é"}],
            },
            {
                "predictions": [
                    {"total": 6.0, "n": 6, "text": "éé", "text_bytes": {"b64": "w6k="}}
                ]
            },
        ),
        (
            {
                "signature_name": "several",
                "inputs": {"total": [[1, 2]], "n": [3], "text": [{"b64": "w6k="}]},
            },
            {
                "outputs": {
                    "total": [6.0], "n": [6], "text": ["éé"], "text_bytes": [{"b64": "w6k="}]
                }
            },
        ),
        ({"signature_name": "checked", "instances": [9]}, {"predictions": [9.0]}),
    ],
)  # fmt: skip
def test_rows_and_columns_are_answered(toy_server: Server, body: Any, answer: Any) -> None:
    got = toy_server.predict(body)

    assert (got.status, got.json) == (200, answer)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ("", 400, "JSON Parse error: The document is empty"),
        ('{"instances":[1,}', 400, "JSON Parse error: Invalid value. at offset: 16"),
        ("[1]", 400, "JSON Value: [1] Is not object"),
        (
            {"signature_name": 5},
            400,
            (
                'JSON Value: {\n    "signature_name": 5\n} not formatted correctly.'
                " 'signature_name' key must be a string value."
            ),
        ),
        (
            {"signature_name": "zz", "instances": 1},
            400,
            'Serving signature name: "zz" not found in signature def',
        ),
        (
            {"signature_name": "constant", "instances": [1]},
            400,
            "Failed to get input map for signature: constant",
        ),
        ({}, 400, "Missing 'inputs' or 'instances' key"),
        (
            {"signature_name": "uint16", "inputs": [1]},
            501,
            "Conversion of JSON Value: 1 to type: uint16",
        ),
        (
            {"signature_name": "half", "instances": [1]},
            400,
            (
                "Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED:"
                " Conversion of JSON Value: 1 to type: half"
            ),
        ),
        (
            {"signature_name": "to_half", "instances": [1]},
            400,
            "Failed to write JSON value for tensor type: half",
        ),
        (
            {"signature_name": "mixed", "instances": [1, 2]},
            400,
            "Tensor name: z has inconsistent batch size: 4 expecting: 2",
        ),
        (
            {"signature_name": "scalar", "instances": [1]},
            400,
            "Tensor name: y has no shape information ",
        ),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    toy_server: Server, body: Any, status: int, text: str
) -> None:
    assert _error(toy_server, body) == (status, text)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"signature_name": "checked", "instances": [10]}, "too big"),
        ({"signature_name": "matrix", "instances": [[1, 2]]}, "Matrix size-incompatible"),
        ({"signature_name": "matrix", "instances": [1]}, "In[0] ndims must be >= 2"),
        ({"signature_name": "to_number", "inputs": ["a"]}, "could not correctly convert string: a"),
    ],
)
def test_what_fails_in_the_graph_is_told_in_its_words(
    toy_server: Server, body: Any, words: str
) -> None:
    status, text = _error(toy_server, body)

    assert status == 400
    assert words in text
    assert "{{node" in text


def test_words_that_quote_bytes_are_passed_on(toy_server: Server) -> None:
    answer = toy_server.predict({"signature_name": "to_number", "inputs": [{"b64": "/w=="}]})

    assert answer.status == 400
    assert b"could not correctly convert string: \xff" in answer.body


@pytest.mark.parametrize(
    ("dtype", "sent", "answered"),
    [
        ("float", "[1, 1e39, NaN, -Inf]", "[1.0, Infinity, NaN, -Infinity]"),
        ("double", "[0.1, 18446744073709551616]", "[0.1, 18446744073709551616.0]"),
        ("int32", "[-2147483648]", "[-2147483648]"),
        ("int16", "[32768]", "[-32768]"),
        ("int8", "[255]", "[-1]"),
        ("uint8", "[256, -1]", "[0, 255]"),
        ("int64", "[9007199254740993]", "[9007199254740993]"),
        ("uint32", "[4294967295]", "[4294967295]"),
        ("uint64", "[18446744073709551615]", "[18446744073709551615]"),
        ("bool", "[true, false]", "[true, false]"),
        ("string", '["a\\u0000é", {"b64": "YQ"}]', '["a\\u0000é", "a"]'),
    ],
)
@pytest.mark.parametrize(
    ("key", "answer_key"), [("instances", "predictions"), ("inputs", "outputs")]
)
def test_every_type_comes_back_as_it_went(
    toy_server: Server, dtype: str, sent: str, answered: str, key: str, answer_key: str
) -> None:
    body = f'{{"signature_name": "{dtype}", "{key}": {sent}}}'.encode()

    answer = toy_server.predict(body)

    assert answer.status == 200, answer.body
    # Compared as text: NaN is no equal of itself.
    assert json.dumps(answer.json[answer_key]) == json.dumps(json.loads(answered))


def test_float32_has_the_digits_that_read_back(toy_server: Server) -> None:
    values = np.float32([0.1, 1 / 3, 1e-7, 3.4e38, 16777217, 123456.7])

    answer = toy_server.predict({"signature_name": "float", "instances": values.tolist()})

    assert np.float32(answer.json["predictions"]).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("encoding", "data", "status"),
    [
        ("gzip", gzip.compress(b'{"instances":[1]}'), 200),
        ("x-gzip", gzip.compress(b'{"instances":[1]}'), 200),
        ("gzip", b'{"instances":[1]}', 400),
        ("gzip", gzip.compress(b'{"instances":[1]}')[:-9], 400),
        ("deflate", b'{"instances":[1]}', 200),
    ],
)
def test_a_gzip_body_is_inflated_and_a_broken_one_is_empty(
    toy_server: Server, encoding: str, data: bytes, status: int
) -> None:
    answer = toy_server.ask("POST", PREDICT, data, {"Content-Encoding": encoding})

    assert answer.status == status
    if status == 400:
        assert answer.json == {"error": "JSON Parse error: The document is empty"}


def test_content_type_and_accept_are_ignored(toy_server: Server) -> None:
    headers = {"Content-Type": "text/plain", "Accept": "text/html", "Accept-Encoding": "gzip"}

    answer = toy_server.ask("POST", PREDICT, '{"instances":[1]}', headers)

    assert answer.json == {"predictions": [2.5]}
    assert answer.headers["content-type"] == "application/json"
    assert "content-encoding" not in answer.headers


def test_a_large_body_is_read_whole(toy_server: Server) -> None:
    answer = toy_server.predict({"inputs": [[1.0] * 1000] * 1000})

    assert answer.status == 200
    assert np.shape(answer.json["outputs"]) == (1000, 1000)


@pytest.mark.parametrize(
    ("target", "status", "text"),
    [
        ("/versions/9", 404, "Servable not found for request: Specific(m, 9)"),
        ("/versions/0", 404, "Servable not found for request: Specific(m, 0)"),
        ("/labels/x", 400, "Unrecognized servable version label: x"),
    ],
)
def test_a_version_or_label_that_is_not_served_is_refused(
    toy_server: Server, target: str, status: int, text: str
) -> None:
    assert _error(toy_server, {"instances": [1]}, target) == (status, text)


def test_the_body_is_parsed_before_the_model_is_looked_up(toy_server: Server) -> None:
    broken = toy_server.ask("POST", "/v1/models/zz:predict", "x")
    fine = toy_server.ask("POST", "/v1/models/zz:predict", "{}")

    assert (broken.status, broken.json["error"][:10]) == (400, "JSON Parse")
    assert (fine.status, fine.json) == (404, {"error": LATEST_MISSING})
