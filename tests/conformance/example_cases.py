"""What Classify and Regress over REST are answered: sections 3.8 and 4.3, as in `rest_cases`."""

from collections.abc import Iterator

from tests.conformance.rest_cases import RestCase, post, value_text


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


ALL = list(examples())
