"""What Classify and Regress over REST are answered: sections 3.8 and 4.3, as in `rest_cases`."""

from collections.abc import Iterator
from typing import Any

from tests.conformance.rest_cases import RestCase, post, value_text

_NAN, _INF = float("nan"), float("inf")
_X = [{"x": 1.5}]


def examples() -> Iterator[RestCase]:
    """3.8 and 4.3 over REST: classify and regress."""
    low_high = [[["low", -0.5], ["high", 1.5]]]
    for method, body, answer in (
        ("classify", {"examples": [{"x": 1.5}]}, low_high),
        ("classify", {"examples": [{"x": [1.5], "text": "a"}]}, low_high),
        ("classify", {"examples": [{"x": 0.5, "n": 1}]}, low_high),
        ("classify", {"context": {"x": 1.5}, "examples": [{"n": 0}]}, low_high),
        ("classify", {"context": {"x": 0.5}, "examples": [{"x": 1.5}, {"n": 1}]}, low_high * 2),
        ("classify", {"examples": [{"x": 1.5, "text": {"b64": "/w=="}}]}, low_high),
        ("classify", {"examples": [{"x": 1.5, "n": []}]}, low_high),
        ("classify", {"examples": [{"x": 0.5, "n": True}]}, low_high),
        ("classify", {"signature_name": "", "context": {}, "examples": _X, "q": [{}]}, low_high),
        ("classify", {"signature_name": "serving_default", "examples": _X}, low_high),
        ("classify", {"examples": [{"x": 1.5, "q": ["a", {"b64": "/w=="}, "é"]}]}, low_high),
        (
            "classify",
            {"signature_name": "classes", "examples": [{"x": 1.5}]},
            [[["low", 0.0], ["high", 0.0]]],
        ),
        (
            "classify",
            {"signature_name": "scores", "examples": [{"x": 1.5}]},
            [[["", -0.5], ["", 1.5]]],
        ),
        (
            "regress",
            {"signature_name": "regress", "examples": [{"x": 1.5}, {"x": 0.5}]},
            [1.5, 0.5],
        ),
    ):
        yield post("3.8", f"examples:{method}", body, 200, {"results": answer})
    # Which list a value goes to, and what is read from it.
    for features, answer in (
        ({"x": 1e0}, 1.0),
        ({"x": -0.5, "n": -1}, -1.5),
        ({"x": 0.5, "n": [True]}, 1.5),
        ({"x": 0.5, "n": False}, 0.5),
        ({"x": 0.0, "n": 2**53}, 9.00719925e15),
        ({"x": 0.0, "n": -(2**63)}, -9.22337204e18),
        ({"x": 0.0, "n": 2**63 - 1}, 9.22337204e18),
        ({"x": 2.0**64}, 1.84467441e19),
        ({"x": 1e39}, _INF),
        ({"x": -_INF}, -_INF),
        ({"x": _NAN}, _NAN),
        ({"x": 0.5, "text": ["a"]}, 0.5),
        ({"x": 0.5, "text": {"b64": "YQ"}}, 0.5),
        ({"x": 0.5, "text": []}, 0.5),
    ):
        for context, own in (({}, features), (features, {}), ({"x": 7.0, "n": 7}, features)):
            if context.get("x") == 7.0 and not {"x", "n"} <= features.keys():
                continue  # what an example does not say, the context does
            body = {"signature_name": "regress", "context": context, "examples": [own]}
            yield post("3.8", "examples:regress", body, 200, {"results": [answer]})
        body = {"signature_name": "scores", "examples": [features, {"x": 0.0}]}
        low = 1.0 - answer if abs(answer) < 2**24 else -answer  # float32 knows no difference
        scores = [[["", low], ["", answer]], [["", 1.0], ["", 0.0]]]
        yield post("3.8", "examples:classify", body, 200, {"results": scores})
    body = b'{"signature_name":"regress","examples":[{"x":18446744073709551616}]} and more'
    yield post("3.8", "examples:regress", body, 200, {"results": [1.84467441e19]})
    twice = b'{"signature_name":"regress","examples":[{"x":1.5}],"examples":[]}'
    yield post("3.8", "examples:regress", twice, 200, {"results": [1.5]})
    half = {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}, {"x": 3.0}]}
    yield post(
        "3.8",
        "half_plus_two:classify",
        half,
        200,
        b'{\n    "results": [[["", 3.0]], [["", 3.5]]\n    ]\n}',
    )
    half = {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}]}
    yield post("3.8", "half_plus_two:regress", half, 200, b'{\n    "results": [3.0\n    ]\n}')
    for body, text in (
        (
            {"signature_name": 5},
            value_text({"signature_name": 5}) + " not formatted correctly."
            " 'signature_name' key must be a string value.",
        ),
        (
            {"examples": 5},
            value_text({"examples": 5}) + " Expecting 'examples' value to be an list/array",
        ),
        ({"examples": []}, value_text({"examples": []}) + " 'examples' value is an empty array"),
        ({"examples": [5]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [["a"]]}, "Example must be JSON object but got JSON Array"),
        (
            {"context": 5, "examples": [{"x": 1.5}]},
            "Example must be JSON object but got JSON Number",
        ),
        (
            {"signature_name": "zz", "examples": [{"x": 1.5}]},
            "No signature was found with the name: zz",
        ),
        ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
        (
            {"examples": [{"x": {"a": 1}}]},
            "Feature: x has element with unexpected JSON type: Object",
        ),
        ({"examples": [{"x": [[1.5]]}]}, "Feature: x has element with unexpected JSON type: Array"),
        (
            {"examples": [{"x": [1.5, 1]}]},
            "Unexpected element type in feature: x expecting type: float",
        ),
        (
            {"examples": [{"x": [1, 1.5]}]},
            "Unexpected element type in feature: x expecting type: int64",
        ),
        (
            {"examples": [{"x": 2**63}]},
            "Feature: x has uint64_t element. Only int64_t is supported.",
        ),
        *_refused(),
        (
            {"examples": [{"x": 80}]},
            (
                "Name: <unknown>, Key: x, Index: 0.  Data types don't match. Data type: int64"
                " but expected type: float..."
            ),
        ),
        (
            {"examples": [{"n": 1}]},
            "Name: <unknown>, Feature: x (data type: float) is required but could not be found....",
        ),
        (
            {"examples": [{"x": []}]},
            "Name: <unknown>, Feature: x (data type: float) is required but could not be found....",
        ),
        (
            {"context": {"n": 1}, "examples": [{"x": 1.5}, {}]},
            "Name: <unknown>, Feature: x (data type: float) is required but could not be found....",
        ),
        (
            {"examples": [{"x": True}]},
            (
                "Name: <unknown>, Key: x, Index: 0.  Data types don't match. Data type: int64"
                " but expected type: float..."
            ),
        ),
        (
            {"examples": [{"x": 1.5}, {"x": "1.5"}]},
            (
                "Name: <unknown>, Key: x, Index: 1.  Data types don't match. Data type: string"
                " but expected type: float..."
            ),
        ),
    ):
        yield post("3.8", "examples:classify", body, 400, text)
        runs = {"signature_name": "regress"} if text.startswith("Name:") else {}
        yield post("3.8", "examples:regress", {**runs, **body}, 400, text)
    for method in ("classify", "regress"):
        yield post(
            "3.8",
            f"examples:{method}",
            {},
            400,
            "JSON Value: {} When method is classify, key 'examples' is expected and was not found",
        )
        # In their order: the name's type, the context, the list, its examples, the model, the rest.
        unknown = {"signature_name": "zz"}
        name = "No signature was found with the name: zz"
        missing = "Servable not found for request: Latest(zz)"
        number = "Example must be JSON object but got JSON Number"
        listed = "When method is classify, key 'examples' is expected and was not found"
        for target, body, status, text in (
            ("zz", {"signature_name": 5, "context": 5}, 400, "JSON Value: {..."),
            ("zz", {"context": 5}, 400, number),
            ("zz", {**unknown, "examples": [5]}, 400, number),
            ("zz", {"q": 1}, 400, f"{value_text({'q': 1})} {listed}"),
            ("zz", {**unknown, "examples": _X}, 404, missing),
            ("examples", {**unknown, "examples": _X}, 400, name),
            ("m", {**unknown, "examples": _X}, 400, name),
            ("toy", {"signature_name": "zz", "examples": [{}]}, 400, name),
        ):
            yield post("3.8", f"{target}:{method}", body, status, text)
        yield post(
            "4.3",
            f"toy:{method}",
            {"examples": [{"x": 1.5}]},
            400,
            f"No {'classification' if method == 'classify' else 'regression'} inputs found"
            " in SignatureDef: ...",
        )
        yield post(
            "4.3",
            f"toy:{method}",
            {"signature_name": "several", "examples": [{"x": 1.5}]},
            400,
            "Expected one input Tensor.",
        )
    for method, signature, text in (
        (
            "classify",
            "regress",
            (
                "Expected classification signature outputs to contain at least one of"
                ' "classes" or "scores". Signature was: ...'
            ),
        ),
        ("classify", "three", "Expected one or two output Tensors, found 3"),
        ("classify", "flat_classes", "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        ("classify", "flat_scores", "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        ("classify", "number_classes", "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"),
        ("classify", "double_scores", "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
        ("classify", "short_scores", "Expected scores output batch size of 2. Got: 1"),
        ("classify", "uneven", "Tensors class and score should match in dim_size(1). Got 2 vs. 1"),
        ("regress", "scores", "No regression outputs found in SignatureDef: ..."),
        ("regress", "serving_default", "Expected one output Tensor."),
        (
            "regress",
            "wide_regress",
            (
                "Expected output Tensor shape to be either [batch_size] or"
                " [batch_size, 1] but got [2,2]"
            ),
        ),
        ("regress", "short_regress", "Input batch size did not match output batch size: 2 vs. 1"),
        ("regress", "double_regress", "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE"),
    ):
        yield post(
            "4.3",
            f"examples:{method}",
            {"signature_name": signature, "examples": [{"x": 1.5}, {"x": 0.5}]},
            400,
            text,
        )


def _refused() -> Iterator[tuple[dict[str, Any], str]]:
    """What is no list of examples, no example, no feature; for classify and regress alike."""
    for value in (5, 1.5, "a", None, True, {}, {"x": 1.5}):
        body = {"examples": value}
        yield body, f"{value_text(body)} Expecting 'examples' value to be an list/array"
    kinds: tuple[tuple[Any, str], ...] = (
        (5, "Number"),
        (1.5, "Number"),
        ("a", "String"),
        (None, "Null"),
        (True, "True"),
        (False, "False"),
        ([], "Array"),
    )
    for value, kind in kinds:
        text = f"Example must be JSON object but got JSON {kind}"
        yield {"examples": [value]}, text
        yield {"examples": [*_X, value]}, text
        yield {"context": value, "examples": _X}, text
    for value, kind in (
        (None, "Null"),
        ({}, "Object"),
        ({"b64": 5}, "Object"),
        ({"b64": "YQ==", "x": 1}, "Object"),
        ([None], "Null"),
        ([[]], "Array"),
        ([1.5, None], "Null"),
        (["a", {"a": 1}], "Object"),
        ([1, [1]], "Array"),
    ):
        yield from _in_a_feature(value, f"Feature: x has element with unexpected JSON type: {kind}")
    for value, kind in (
        ([1, 1.5], "int64"),
        ([True, 1.5], "int64"),
        ([1, "a"], "int64"),
        ([1, {"b64": "YQ=="}], "int64"),
        ([1.5, 1], "float"),
        ([1.5, True], "float"),
        ([1.5, "a"], "float"),
        ([1.5, 2.5, 2**63], "float"),
        (["a", 1], "bytes"),
        (["a", 1.5], "bytes"),
        (["a", False], "bytes"),
        ([{"b64": "YQ=="}, 1], "bytes"),
    ):
        text = f"Unexpected element type in feature: x expecting type: {kind}"
        yield from _in_a_feature(value, text)
    for value in (2**63, 2**64 - 1, [1, 2**63], [True, 2**63]):
        text = "Feature: x has uint64_t element. Only int64_t is supported."
        yield from _in_a_feature(value, text)
    for value in ({"b64": "*"}, ["a", {"b64": "YQ="}], {"b64": "a-=="}):
        yield from _in_a_feature(value, "Unable to base64 decode")


def _in_a_feature(value: Any, text: str) -> Iterator[tuple[dict[str, Any], str]]:
    yield {"examples": [{"x": value}]}, text
    yield {"examples": [*_X, {"n": 1, "x": value}]}, text
    yield {"context": {"x": value}, "examples": _X}, text


ALL = list(examples())
