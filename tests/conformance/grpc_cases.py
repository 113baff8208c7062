"""What a call over gRPC is answered, rule by rule of the wire reference (tf-serving.md).

Requests and responses are protobuf JSON, as in the recorded exchanges; the models are those of
`models.py`. An error is its whole text, or with `...` in it how it begins and ends.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class GrpcCase:
    """One call and its answer; `section` is that of the reference."""

    section: str
    method: str
    request: dict[str, Any]
    code: str = "OK"
    answer: Any

    def __str__(self) -> str:
        answer = self.answer if isinstance(self.answer, str) else self.code
        return f"{self.section} {self.method} {answer[:50]}"


def tensor(dtype: str, values: Any, shape: list[int] | None = None, **fields: Any) -> Any:
    """Write a TensorProto; `values` is a pair of a typed field's name and its list."""
    sizes = [len(values[1])] if shape is None else shape
    dims = {"dim": [{"size": str(size)} if size else {} for size in sizes]} if sizes else {}
    return {
        "dtype": f"DT_{dtype}",
        "tensor_shape": dims,
        **({values[0]: values[1]} if values[1] else {}),
        **fields,
    }


def floats(*values: float, shape: list[int] | None = None) -> Any:
    return tensor("FLOAT", ("float_val", list(values)), shape)


def spec(name: str = "toy", signature: str = "", **more: Any) -> dict[str, Any]:
    given = {"signature_name": signature} if signature else {}
    return {"name": name, **given, **more}


def example(**features: Any) -> dict[str, Any]:
    """Write a tf.Example of float features."""
    return {
        "features": {
            "feature": {
                name: {"float_list": {"value": [value]}} for name, value in features.items()
            }
        }
    }


def listed(*examples: dict[str, Any]) -> dict[str, Any]:
    return {"example_list": {"examples": list(examples)}}


X = {"x": floats(1, 2)}
Y = {"y": floats(2.5, 3.0)}
ONE = listed(example(x=2.0))
_TEN = tensor("DOUBLE", ("double_val", [10]))


def _predict(request: dict[str, Any], code: str, answer: Any, section: str = "4.2") -> GrpcCase:
    return GrpcCase(section=section, method="Predict", request=request, code=code, answer=answer)


def finding() -> Iterator[GrpcCase]:
    """4.1 and 5.6: the model, by all methods that run it, and the echo of 4.2."""
    for model_spec, code, text in (
        (None, "INVALID_ARGUMENT", "Missing ModelSpec"),
        ({}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ({"version": 1}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ({"name": "zz"}, "NOT_FOUND", "Servable not found for request: Latest(zz)"),
        (
            {"name": "zz", "version": 7},
            "NOT_FOUND",
            "Servable not found for request: Specific(zz, 7)",
        ),
        (
            {"name": "examples", "version": 9},
            "NOT_FOUND",
            "Servable not found for request: Specific(examples, 9)",
        ),
        (
            {"name": "examples", "version": 0},
            "NOT_FOUND",
            "Servable not found for request: Specific(examples, 0)",
        ),
        (
            {"name": "examples", "version_label": "x"},
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: x",
        ),
        (
            {"name": "zz", "version_label": "x"},
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: x",
        ),
        ({"version_label": "x"}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        # The model is looked for before its signature.
        (
            {"name": "zz", "signature_name": "zz"},
            "NOT_FOUND",
            "Servable not found for request: Latest(zz)",
        ),
        (
            {"name": "numbered", "version_label": "gone"},
            "NOT_FOUND",
            "Servable not found for request: Specific(numbered, 9)",
        ),
        (
            {"name": "numbered", "version": 4},
            "NOT_FOUND",
            "Servable not found for request: Specific(numbered, 4)",
        ),
    ):
        given = {} if model_spec is None else {"model_spec": model_spec}
        for method, rest in (
            ("Predict", {"inputs": X}),
            ("Classify", {"input": ONE}),
            ("Regress", {"input": ONE}),
            ("GetModelMetadata", {"metadata_field": ["signature_def"]}),
        ):
            yield GrpcCase(
                section="4.1", method=method, request={**given, **rest}, code=code, answer=text
            )
        if model_spec is not None:  # MultiInference has one in each task
            task = {"model_spec": model_spec, "method_name": "tensorflow/serving/regress"}
            request = {"tasks": [task], "input": ONE}
            yield GrpcCase(
                section="4.1", method="MultiInference", request=request, code=code, answer=text
            )
    for model_spec, version in (
        ({}, 3),
        ({"version": "1"}, 1),
        ({"version": "2"}, 2),
        ({"version_label": "stable"}, 2),
        ({"version_label": "canary"}, 3),
        ({"signature_name": "serving_default"}, 3),
    ):
        echo = {"name": "numbered", "version": str(version), "signature_name": "serving_default"}
        yield _predict(
            {"model_spec": {"name": "numbered", **model_spec}, "inputs": X},
            "OK",
            {"outputs": {"version": floats(version, version)}, "model_spec": echo},
            "4.1",
        )


def predict() -> Iterator[GrpcCase]:
    """4.2: the checks in their order, tensors in, tensors out."""
    asked = {"model_spec": spec(), "inputs": X}
    for request, code, text in (
        (
            {**asked, "model_spec": spec(signature="zz"), "inputs": {}},
            "FAILED_PRECONDITION",
            'Serving signature key "zz" not found.',
        ),
        (
            {**asked, "inputs": {**X, "w": floats(1)}},
            "INVALID_ARGUMENT",
            (
                "input size does not match signature: 2!=1 len({w,x}) != len({x}). Sent extra: {w}."
                " Missing but required: {}."
            ),
        ),
        (
            {**asked, "inputs": {"a": floats(1), "b": floats(1), "w": floats(1)}},
            "INVALID_ARGUMENT",
            (
                "input size does not match signature: 3!=1 len({a,b,w}) != len({x}). Sent extra:"
                " {a,b,w}. Missing but required: {x}."
            ),
        ),
        (
            {**asked, "inputs": {}},
            "INVALID_ARGUMENT",
            (
                "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}."
                " Missing but required: {x}."
            ),
        ),
        (
            {"model_spec": spec("m"), "inputs": {"a": floats(1)}},
            "INVALID_ARGUMENT",
            (
                "input size does not match signature: 1!=3 len({a}) != len({a,b,s}). Sent extra:"
                " {}. Missing but required: {b,s}."
            ),
        ),
        (
            {"model_spec": spec("m", "flt"), "inputs": {"w": floats(1)}},
            "INVALID_ARGUMENT",
            (
                "Signature input alias: x(feed name: flt_x:0) not found in request and no default"
                " value provided. Inputs expected to be in the request {w}, or default input"
                " alias set: "
            ),
        ),
        (
            {**asked, "output_filter": ["q"]},
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: q Outputs expected to be in the set {y}.",
        ),
        (
            {**asked, "output_filter": ["y", "y"]},
            "INVALID_ARGUMENT",
            "duplicate output tensor alias: y",
        ),
        (
            {**asked, "inputs": {"x": tensor("DOUBLE", ("double_val", [1]))}},
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but double is provided",
        ),
        (
            {**asked, "inputs": {"x": tensor("STRING", ("string_val", ["YQ=="]))}},
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but string is provided",
        ),
        (
            {"model_spec": spec(signature="checked"), "inputs": {"x": floats(10)}},
            "INVALID_ARGUMENT",
            "assertion failed: [too big]...}}]]",
        ),
        (
            {"model_spec": spec(signature="matrix"), "inputs": X},
            "INVALID_ARGUMENT",
            "In[0] ndims must be >= 2\n\t [[{{node ...}}]]",
        ),
        # Of two faults the earlier one is told: the signature, names, tensors, the filter, dtypes,
        # and then what the graph says.
        (
            {"model_spec": spec(signature="zz"), "inputs": {"w": {}}, "output_filter": ["q"]},
            "FAILED_PRECONDITION",
            'Serving signature key "zz" not found.',
        ),
        ({**asked, "inputs": {"w": {}}}, "INVALID_ARGUMENT", "Signature input alias: x(..."),
        (
            {"model_spec": spec(signature="checked"), "inputs": {"x": _TEN}},
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but double is provided",
        ),
        (
            {**asked, "output_filter": ["y", "y", "q"]},
            "INVALID_ARGUMENT",
            "duplicate output tensor alias: y",
        ),
        (
            {**asked, "output_filter": ["q", "y", "y"]},
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: q Outputs expected to be in the set {y}.",
        ),
        (
            {"model_spec": spec(signature="mixed"), "inputs": X, "output_filter": ["Y"]},
            "INVALID_ARGUMENT",
            (
                "output tensor alias not found in signature: Y Outputs expected to be in the set"
                " {y,z}."
            ),
        ),
        (
            {"model_spec": spec(signature="constant"), "inputs": X},
            "INVALID_ARGUMENT",
            (
                "input size does not match signature: 1!=0 len({x}) != len({}). Sent extra: {x}."
                " Missing but required: {}."
            ),
        ),
        # An input with a default may be left out.
        (
            {"model_spec": spec("kinds"), "inputs": {}},
            "INVALID_ARGUMENT",
            (
                "Signature input alias: x(feed name: x:0) not found in request and no default value"
                " provided. Inputs expected to be in the request {}, or default input alias set:"
                " step"
            ),
        ),
        (
            {"model_spec": spec("kinds"), "inputs": {"w": floats(1), "step": floats(1)}},
            "INVALID_ARGUMENT",
            "Signature input alias: x(feed name: x:0) not found in request and no...",
        ),
        (
            {"model_spec": spec("kinds"), "inputs": {**X, "w": X["x"], "step": X["x"]}},
            "INVALID_ARGUMENT",
            (
                "input size does not match signature: 3!=2 len({step,w,x}) != len({step,x})."
                " Sent extra: {w}. Missing but required: {}."
            ),
        ),
        (
            {"model_spec": spec("kinds"), "inputs": {**X, "step": {}}},
            "INVALID_ARGUMENT",
            "tensor parsing error: step",
        ),
        (
            {**asked, "inputs": {"w": {"dtype": "DT_INVALID"}, "v": {}}},
            "INVALID_ARGUMENT",
            "input size does not match...",
        ),
        (
            {**asked, "inputs": {"x": {}}, "output_filter": ["q"]},
            "INVALID_ARGUMENT",
            "tensor parsing error: x",
        ),
        (
            {
                **asked,
                "inputs": {"x": tensor("DOUBLE", ("double_val", [1]))},
                "output_filter": ["q"],
            },
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: q ...",
        ),
    ):
        yield _predict(request, code, text)
    for name, signature, inputs, chosen, outputs in (
        ("toy", "serving_default", X, [], Y),
        ("toy", "serving_default", X, ["y"], Y),
        ("toy", "scalar", X, [], {"y": floats(3, shape=[])}),
        ("toy", "constant", {}, [], {"y": floats(1)}),
        ("toy", "mixed", X, ["z"], {"z": floats(1, 2, 1, 2)}),
        ("toy", "mixed", X, ["z", "y"], {"y": floats(1, 2), "z": floats(1, 2, 1, 2)}),
        ("kinds", "serving_default", X, [], {"y": floats(2, 3)}),
        ("kinds", "serving_default", {**X, "step": floats(5, shape=[])}, [], {"y": floats(6, 7)}),
    ):
        yield _predict(
            {"model_spec": spec(name, signature), "inputs": inputs, "output_filter": chosen},
            "OK",
            {"outputs": outputs, "model_spec": spec(name, signature, version="1")},
        )


ALL = [case for table in (finding, predict) for case in table()]
