"""What a call over gRPC is answered, rule by rule of the wire reference (tf-serving.md).

Requests and responses are protobuf JSON, as in the recorded exchanges; the models are those of
`models.py`. An error is its whole text, or with `...` at its end how it begins.
"""

import base64
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
            "assertion failed: [too big]...",
        ),
        (
            {"model_spec": spec(signature="matrix"), "inputs": X},
            "INVALID_ARGUMENT",
            "In[0] ndims must be >= 2...",
        ),
        # Names before tensors, tensors before the filter, the filter before dtypes.
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
    for broken in (
        {},
        {"dtype": "DT_INVALID", "float_val": [1]},
        {"dtype": 99, "tensor_shape": {"dim": [{"size": 1}]}},
        floats(1, shape=[-1]),
        floats(shape=[2**62, 2**62]),
        floats(shape=[1] * 300),
        {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": 1}]}, "tensor_content": "AAA="},
        {"dtype": "DT_FLOAT", "tensor_shape": {"unknown_rank": True}},
    ):
        yield _predict(
            {**asked, "inputs": {"x": broken}}, "INVALID_ARGUMENT", "tensor parsing error: x"
        )
    for sent, answered in (
        (floats(2, 4, shape=[3]), floats(3, 4, 4)),
        (floats(shape=[2]), floats(2, 2)),
        (floats(1, 2, 3, shape=[1]), floats(2.5)),
        (floats(1, shape=[2, 2]), floats(*[2.5] * 4, shape=[2, 2])),
        (floats(shape=[0]), floats(shape=[0])),
        (floats(2, shape=[]), floats(3, shape=[])),
        (
            {
                "dtype": "DT_FLOAT",
                "tensor_shape": {"dim": [{"size": 1}]},
                "tensor_content": base64.b64encode(b"\0\0\0\x40").decode(),
                "float_val": [7],
            },
            floats(3),
        ),
    ):
        echo = spec(version="1", signature="serving_default")
        yield _predict(
            {**asked, "inputs": {"x": sent}}, "OK", {"outputs": {"y": answered}, "model_spec": echo}
        )
    for signature, field, values in (
        ("float", "float_val", [1.5, "NaN", "-Infinity"]),
        ("double", "double_val", [0.1, "Infinity"]),
        ("int32", "int_val", [-1, 2147483647]),
        ("int16", "int_val", [-32768]),
        ("int8", "int_val", [-128]),
        ("uint8", "int_val", [255]),
        ("uint16", "int_val", [65535]),
        ("int64", "int64_val", ["9007199254740993"]),
        ("uint32", "uint32_val", [4294967295]),
        ("uint64", "uint64_val", ["18446744073709551615"]),
        ("bool", "bool_val", [True, False]),
        ("string", "string_val", ["YQA=", "/w=="]),
        ("half", "half_val", [15360, 16384]),
        ("complex64", "scomplex_val", [1.0, -2.0]),
        ("complex128", "dcomplex_val", [0.5, 2.0]),
    ):
        shape = [1] if "complex" in signature else None
        same = tensor(signature.upper(), (field, values), shape)
        yield _predict(
            {"model_spec": spec(signature=signature), "inputs": {"x": same}},
            "OK",
            {"outputs": {"y": same}, "model_spec": spec(signature=signature, version="1")},
        )
    string = tensor("STRING", ("string_val", []), [2], tensor_content="AQFh/w==")
    yield _predict(
        {"model_spec": spec(signature="string"), "inputs": {"x": string}},
        "OK",
        {
            "outputs": {"y": tensor("STRING", ("string_val", ["YQ==", "/w=="]))},
            "model_spec": spec(signature="string", version="1"),
        },
    )
    for signature, inputs, chosen, outputs in (
        ("scalar", X, [], {"y": floats(3, shape=[])}),
        ("constant", {}, [], {"y": floats(1)}),
        ("mixed", X, ["z"], {"z": floats(1, 2, 1, 2)}),
        ("mixed", X, ["z", "y"], {"y": floats(1, 2), "z": floats(1, 2, 1, 2)}),
    ):
        yield _predict(
            {"model_spec": spec(signature=signature), "inputs": inputs, "output_filter": chosen},
            "OK",
            {"outputs": outputs, "model_spec": spec(signature=signature, version="1")},
        )


def about() -> Iterator[GrpcCase]:
    """4.5 and 4.6: metadata and status."""
    for request, text in (
        (
            {"model_spec": {"name": "m"}},
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            {"model_spec": {"name": "m"}, "metadata_field": ["zz"]},
            "Metadata field zz is not supported",
        ),
        (
            {"model_spec": {"name": "m"}, "metadata_field": ["signature_def", "zz"]},
            "Metadata field zz is not supported",
        ),
    ):
        yield GrpcCase(
            section="4.5",
            method="GetModelMetadata",
            code="INVALID_ARGUMENT",
            request=request,
            answer=text,
        )

    def states(*versions: int) -> dict[str, Any]:
        return {
            "model_version_status": [
                {"version": str(version), "state": "AVAILABLE", "status": {}}
                for version in versions
            ]
        }

    for request, code, answer in (
        ({}, "INVALID_ARGUMENT", "Missing ModelSpec"),
        ({"model_spec": {}}, "NOT_FOUND", "Could not find any versions of model "),
        ({"model_spec": {"name": "zz"}}, "NOT_FOUND", "Could not find any versions of model zz"),
        (
            {"model_spec": {"name": "m", "version": 5}},
            "NOT_FOUND",
            "Could not find version 5 of model m",
        ),
        ({"model_spec": {"name": "numbered"}}, "OK", states(3, 2, 1)),
        ({"model_spec": {"name": "numbered", "version": 2}}, "OK", states(2)),
        ({"model_spec": {"name": "numbered", "version_label": "zz"}}, "OK", states(3, 2, 1)),
    ):
        yield GrpcCase(
            section="4.6", method="GetModelStatus", code=code, request=request, answer=answer
        )
    yield GrpcCase(
        section="4.7",
        method="HandleReloadConfigRequest",
        request={},
        code="INVALID_ARGUMENT",
        answer="ServerModelConfig type not supported by HandleReloadConfigRequest. Only"
        " ModelConfigList is currently supported",
    )


ALL = [case for table in (finding, predict, about) for case in table()]
