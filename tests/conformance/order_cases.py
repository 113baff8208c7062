"""What is told when two things are wrong at once: the one that is checked first.

Each method's checks stand here in their order, as faults that a request can have; every two of
them that fit into one request make a case. Order and words are those of the wire reference
(tf-serving.md, 3.4 to 3.8, 4.1 to 4.6) and, where that is silent, of TensorFlow Serving's source.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from tests.conformance.grpc_cases import ONE, GrpcCase, X, floats, listed, tensor
from tests.conformance.rest_cases import RestCase, failed, post, value_text

# A fault: what it sets in a request, and its answer: status or code, and text.
Fault = tuple[Mapping[str, Any], Any, str]

_BOTH = " Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
_REQUIRED = "as multiple input tensors required as per tensorinfo_map"
_MISSING = "Name: <unknown>, Feature: x (data type: float) is required but could not be found.{}"


def _pairs(faults: list[Fault]) -> Iterator[tuple[dict[str, Any], Any, str]]:
    """Give each fault alone, and before each later one that sets something else."""
    for parts, code, text in faults:
        yield dict(parts), code, text
    for (early, code, text), (late, _, _) in combinations(faults, 2):
        if early.keys().isdisjoint(late):
            yield {**late, **early}, code, text


def _shown(after: str) -> str:
    return "JSON Value: {..." + after


def _rest(method: str, good: dict[str, Any], faults: list[Fault]) -> Iterator[RestCase]:
    for parts, status, text in _pairs(faults):
        body = {**good, **parts}
        target, is_cut = body.pop("target"), body.pop("cut", False)
        written = json.dumps(body)
        yield post(
            "3.5" if method == "predict" else "3.8",
            f"{target}:{method}",
            written[:-1] if is_cut else written,
            status,
            text,
        )


_NOT_THERE: list[Fault] = [
    ({"target": "toy/labels/x"}, 400, "Unrecognized servable version label: x"),
    ({"target": "zz"}, 404, "Servable not found for request: Latest(zz)"),
    ({"target": "toy/versions/9"}, 404, "Servable not found for request: Specific(toy, 9)"),
]
_CUT: Fault = (
    {"cut": True},
    400,
    "JSON Parse error: Missing a comma or '}' after an object member. at offset: ...",
)
_NO_TEXT: Fault = (
    {"signature_name": 5},
    400,
    _shown(" not formatted correctly. 'signature_name' key must be a string value."),
)


def predict() -> Iterator[RestCase]:
    """3.5: one input, in rows and in columns."""
    before: list[Fault] = [
        _CUT,
        _NO_TEXT,
        *_NOT_THERE,
        (
            {"signature_name": "zz"},
            400,
            'Serving signature name: "zz" not found in signature def',
        ),
        (
            {"signature_name": "constant"},
            400,
            "Failed to get input map for signature: constant",
        ),
    ]
    size = "Encountered list at unexpected size: 1 at level: 1 expected size: 2"
    no_input = "JSON object: does not have named input: q"
    unwritable: list[Fault] = [
        # What the graph says, then the rows of the answer, then its types.
        ({"signature_name": "checked", "instances": [10]}, 400, "assertion failed: [too big]..."),
        ({"signature_name": "scalar"}, 400, "Tensor name: y has no shape information "),
    ]
    yield from _rest(
        "predict",
        {"target": "toy", "instances": [1, 2]},
        [
            *before,
            ({"inputs": 1}, 400, _shown(_BOTH)),
            ({"instances": 5}, 400, _shown(" Expecting 'instances' to be an list/array")),
            ({"instances": []}, 400, _shown(" No values in 'instances' array")),
            (
                {"instances": [{"x": 1}, 2]},
                400,
                "Expecting object but got list at item 1 of input list",
            ),
            (
                {"instances": [1, {"x": 1}]},
                400,
                "Expecting value/list but got object at item 1 of input list",
            ),
            ({"instances": [{"q": 1}, 2]}, 400, failed(0, no_input, key="q")),
            ({"instances": [1, [[1, 2], [3]]]}, 400, failed(1, size)),
            *unwritable,
        ],
    )
    yield from _rest(
        "predict",
        {"target": "toy", "inputs": [1, 2]},
        [
            *before,
            ({"inputs": {"y": 1}}, 400, "Missing named input: x in 'inputs' object."),
            ({"inputs": [[1, 2], [3]]}, 400, size),
            (
                {"inputs": ["a"]},
                400,
                'JSON Value: "a" Type: String is not of expected type: float',
            ),
        ],
    )
    yield from _rest(
        "predict",
        {"target": "toy", "other": 1},
        [*before, ({}, 400, "Missing 'inputs' or 'instances' key")],
    )


def several() -> Iterator[RestCase]:
    """3.5: several inputs, which a plain list cannot feed."""
    good = {"a": [1, 2], "b": 3, "s": "q"}
    b64 = {"b64": "YQ=="}
    shown = value_text(b64)
    rows = f"instances is a plain list, but expecting list of objects {_REQUIRED}"
    columns = f"inputs is a plain value/list, but expecting an object {_REQUIRED}"
    no_float = f"{shown} Type: Object is not of expected type: float"
    size = "Expecting tensor size: 1 but got: 2"
    odd = 'JSON Value: "x" Type: String is not of expected type: int64'
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"instances": []}, value_text({"instances": []}) + " No values in 'instances' array"),
        # The first row decides; what the others are is not looked at.
        ({"instances": [1, {"q": 1}]}, rows),
        ({"instances": [[], {"b": "x"}]}, rows),
        ({"instances": ["a", b64]}, rows),
        # A base64 object is an object to the check of plain lists, and then a value: that of the
        # first input, which is a float here.
        ({"instances": [b64]}, failed(0, no_float)),
        ({"instances": [b64, good]}, failed(0, no_float)),
        ({"instances": [good, b64]}, "Expecting object but got list at item 1 of input list"),
        # A row is looked at name by name, as sent; whether all are there comes last.
        ({"instances": [{"b": "x", "q": 1}, 5]}, failed(0, odd, key="b")),
        (
            {"instances": [{"q": 1, "b": "x"}, 5]},
            failed(0, "JSON object: does not have named input: q", key="q"),
        ),
        ({"instances": [good, {"b": "x"}, 5]}, failed(1, odd, key="b")),
        (
            {"instances": [{"b": 3}, {"b": "x"}]},
            (
                "Failed to process element: 0 of 'instances' list. JSON object:"
                f" {value_text({'b': 3}).removeprefix('JSON Value: ')} keys must be equal to: a,b,s"
            ),
        ),
        ({"instances": [good, {**good, "b": ["x"]}]}, failed(1, odd, key="b")),
        ({"instances": [good, {**good, "b": [1, 2]}]}, failed(1, size, key="b")),
        ({"inputs": b64}, columns),
        ({"inputs": ["x", [1]]}, columns),
        ({"inputs": {"b": "x"}}, "Missing named input: a in 'inputs' object."),
        ({"inputs": {"a": [[1, 2]], "b": "x"}}, odd),
    )
    for body, text in cases:
        yield post("3.5", "m:predict", body, 400, text)
    # All inputs are text: the first one is fed, and the others are missed as over gRPC.
    yield post(
        "3.5",
        "edges:predict",
        {"signature_name": "two_texts", "instances": [b64]},
        400,
        "input size does not match signature: 1!=2 len({v}) != len({v,w})."
        " Sent extra: {}. Missing but required: {w}.",
    )
    # Rows that do not fit together come before types that JSON has no form for.
    for signature, text in (
        ("half_scalar", "Tensor name: y has no shape information "),
        ("half_uneven", "Tensor name: z has inconsistent batch size: 4 expecting: 2"),
    ):
        body = {"signature_name": signature, "instances": [1, 2]}
        yield post("3.7", "edges:predict", body, 400, text)


def examples() -> Iterator[RestCase]:
    """3.8: classify and regress, on signatures made for them and for predict."""
    for method, kind in (("classify", "classification"), ("regress", "regression")):
        other = "regress" if method == "classify" else "scores"
        outputs = (
            "Expected classification signature outputs to contain at least one of..."
            if method == "classify"
            else "No regression outputs found in SignatureDef: ..."
        )
        shape = (
            ("flat_scores", "Expected Tensor shape: [batch_size num_classes] but got [1]")
            if method == "classify"
            else ("double_regress", "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE")
        )
        yield from _rest(
            method,
            {
                "target": "examples",
                "examples": [{"x": 1.5}],
                "signature_name": "scores" if method == "classify" else "regress",
            },
            [
                _CUT,
                _NO_TEXT,
                ({"context": 5}, 400, "Example must be JSON object but got JSON Number"),
                (
                    {"context": {"x": None}},
                    400,
                    "Feature: x has element with unexpected JSON type: Null",
                ),
                ({"examples": 5}, 400, _shown(" Expecting 'examples' value to be an list/array")),
                ({"examples": []}, 400, _shown(" 'examples' value is an empty array")),
                (
                    {"examples": [{"x": [1, 1.5]}, 5]},
                    400,
                    "Unexpected element type in feature: x expecting type: int64",
                ),
                *_NOT_THERE,
                ({"signature_name": "zz"}, 400, "No signature was found with the name: zz"),
                (
                    {"target": "toy", "signature_name": "several"},
                    400,
                    "Expected one input Tensor.",
                ),
                (
                    {"target": "toy", "signature_name": "serving_default"},
                    400,
                    f"No {kind} inputs found in SignatureDef: ...",
                ),
                (
                    {"target": "half_plus_two", "signature_name": "serving_default"},
                    400,
                    f"No {kind} inputs found in SignatureDef: ...",
                ),
                ({"signature_name": other}, 400, outputs),
                # Here the graph is asked: what it says of the examples, then what it answers.
                ({"examples": [{}]}, 400, _MISSING.format("...")),
                ({"signature_name": shape[0]}, 400, shape[1]),
            ],
        )


def _grpc(
    method: str, good: dict[str, Any], faults: list[Fault], section: str
) -> Iterator[GrpcCase]:
    """Put requests together; what begins with `spec_` is a part of the model_spec."""
    for parts, code, text in _pairs(faults):
        if "no_spec" in parts and any(key.startswith("spec_") for key in parts):
            continue
        request = {**good, **parts}
        model_spec = {
            key.removeprefix("spec_"): request.pop(key)
            for key in list(request)
            if key.startswith("spec_")
        }
        if not request.pop("no_spec", False):
            request["model_spec"] = {key: value for key, value in model_spec.items() if value}
        if "tasks" in good:
            request["tasks"] = [{**request.pop("task"), "model_spec": request.pop("model_spec")}]
            request["tasks"] += request.pop("more_tasks", [])
        yield GrpcCase(section=section, method=method, request=request, code=code, answer=text)


_WRONG = "INVALID_ARGUMENT"
_NO_SPEC: Fault = ({"no_spec": True}, _WRONG, "Missing ModelSpec")
_SPECS: list[Fault] = [
    ({"spec_name": ""}, _WRONG, "ModelSpec has no name specified."),
    ({"spec_version_label": "x"}, _WRONG, "Unrecognized servable version label: x"),
    ({"spec_name": "zz"}, "NOT_FOUND", "Servable not found for request: Latest(zz)"),
]


def calls() -> Iterator[GrpcCase]:
    """4.1 to 4.5, method by method."""
    size = (
        "input size does not match signature: 2!=1 len({w,x}) != len({x}). Sent extra: {w}."
        " Missing but required: {}."
    )
    yield from _grpc(
        "Predict",
        {"spec_name": "toy", "inputs": X},
        [
            _NO_SPEC,
            *_SPECS,
            (
                {"spec_signature_name": "zz"},
                "FAILED_PRECONDITION",
                'Serving signature key "zz" not found.',
            ),
            ({"inputs": {"x": {}, "w": {}}}, _WRONG, size),
            ({"inputs": {"w": {}}}, _WRONG, "Signature input alias: x(feed name: ..."),
            ({"inputs": {"x": {}}}, _WRONG, "tensor parsing error: x"),
            (
                {"output_filter": ["q", "y", "y"]},
                _WRONG,
                (
                    "output tensor alias not found in signature: q Outputs expected to be in the"
                    " set {y}."
                ),
            ),
            ({"output_filter": ["y", "y", "q"]}, _WRONG, "duplicate output tensor alias: y"),
            (
                {"inputs": {"x": tensor("DOUBLE", ("double_val", [10]))}},
                _WRONG,
                "Expects arg[0] to be float but double is provided",
            ),
            (
                {"spec_signature_name": "checked", "inputs": {"x": floats(10)}},
                _WRONG,
                "assertion failed: [too big]...",
            ),
        ],
        "4.2",
    )
    # Of an input that the signature does not have the tensor is not looked at; with as many names
    # as needed, for there are defaults, one too many is told last.
    extra = "Inputs contains invalid name. Used request inputs: x, request input: w,x"
    for inputs, code, answer in (
        ({**X, "w": floats(5)}, _WRONG, extra),
        ({**X, "w": {}}, _WRONG, extra),
        ({"x": {}, "w": {}}, _WRONG, "tensor parsing error: x"),
        ({"w": {}, "step": floats(1, shape=[])}, _WRONG, "Signature input alias: x(feed name: ..."),
    ):
        yield GrpcCase(
            section="4.2",
            method="Predict",
            request={"model_spec": {"name": "kinds"}, "inputs": inputs},
            code=code,
            answer=answer,
        )
    for method, kind, signature, other, odd, what in (
        (
            "Classify",
            "classification",
            "scores",
            ("three", "Expected one or two output Tensors, found 3"),
            "flat_scores",
            "Expected Tensor shape: [batch_size num_classes] but got [1]",
        ),
        (
            "Regress",
            "regression",
            "regress",
            ("serving_default", "Expected one output Tensor."),
            "double_regress",
            "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE",
        ),
    ):
        yield from _grpc(
            method,
            {"spec_name": "examples", "spec_signature_name": signature, "input": ONE},
            [
                _NO_SPEC,
                *_SPECS,
                (
                    {"spec_signature_name": "zz"},
                    _WRONG,
                    "No signature was found with the name: zz",
                ),
                ({"spec_signature_name": other[0]}, _WRONG, other[1]),
                (
                    {"spec_name": "toy", "spec_signature_name": "serving_default"},
                    _WRONG,
                    f"No {kind} inputs found in SignatureDef: ...",
                ),
                ({"input": {}}, _WRONG, "Input is empty."),
                ({"input": listed({})}, _WRONG, _MISSING.format("...")),
                ({"spec_signature_name": odd}, _WRONG, what),
            ],
            "4.3",
        )
    yield from _grpc(
        "GetModelMetadata",
        {"spec_name": "toy", "metadata_field": ["signature_def"]},
        [
            _NO_SPEC,
            (
                {"metadata_field": []},
                _WRONG,
                "GetModelMetadataRequest must specify at least one metadata_field",
            ),
            (
                {"metadata_field": ["signature_def", "zz"]},
                _WRONG,
                "Metadata field zz is not supported",
            ),
            *_SPECS,
        ],
        "4.5",
    )


def multi_inference() -> Iterator[GrpcCase]:
    """4.4: the first task's model, then task by task, then the examples."""

    def task(signature: str, name: str = "examples", method: str = "regress") -> dict[str, Any]:
        return {
            "model_spec": {"name": name, "signature_name": signature},
            "method_name": f"tensorflow/serving/{method}",
        }

    yield from _grpc(
        "MultiInference",
        {
            "tasks": [],
            "task": {"method_name": "tensorflow/serving/regress"},
            "spec_name": "examples",
            "spec_signature_name": "regress",
            "input": ONE,
        },
        [
            *_SPECS,
            (
                {"spec_signature_name": "zz"},
                _WRONG,
                "Requested signature not found in model graph: zz",
            ),
            (
                {"task": {"method_name": "other"}},
                "UNIMPLEMENTED",
                "Unsupported signature method_name: other",
            ),
            ({"spec_signature_name": "serving_default"}, _WRONG, "Expected one output Tensor."),
            (
                {"more_tasks": [task("zz", ""), task("regress")]},
                _WRONG,
                "Found ModelSpec with an empty model name.",
            ),
            (
                {"more_tasks": [task("zz", "toy", "other")]},
                _WRONG,
                "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
            ),
            (
                {"more_tasks": [task("zz", method="other"), task("zz", "")]},
                _WRONG,
                "Requested signature not found in model graph: zz",
            ),
            ({"input": {}}, _WRONG, "Input is empty."),
            ({"input": listed({})}, _WRONG, _MISSING.format("...")),
            (
                {"spec_signature_name": "double_regress"},
                _WRONG,
                "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE",
            ),
        ],
        "4.4",
    )


REST = [case for table in (predict, several, examples) for case in table()]
GRPC = [*calls(), *multi_inference()]
