"""What Classify, Regress and MultiInference are answered: 4.3 and 4.4, as in `grpc_cases`."""

from collections.abc import Iterator
from typing import Any

from tests.conformance.grpc_cases import ONE, GrpcCase, example, listed, spec


def examples() -> Iterator[GrpcCase]:
    """4.3 and 4.4: classify, regress and both at once."""
    low_high = [{"label": "low", "score": -0.5}, {"label": "high", "score": 1.5}]
    for given in (
        listed(example(x=1.5)),
        {"example_list_with_context": {"examples": [{}], "context": example(x=1.5)}},
        {"example_list_with_context": {"examples": [example(x=1.5)], "context": example(x=7.0)}},
    ):
        yield GrpcCase(
            section="4.3",
            method="Classify",
            request={"model_spec": spec("examples"), "input": given},
            answer={
                "result": {"classifications": [{"classes": low_high}]},
                "model_spec": spec("examples", "serving_default", version="1"),
            },
        )
    for method, kind, signature, result in (
        (
            "Classify",
            "classifications",
            "classes",
            {"classes": [{"label": "low"}, {"label": "high"}]},
        ),
        ("Classify", "classifications", "scores", {"classes": [{"score": -1.0}, {"score": 2.0}]}),
        ("Regress", "regressions", "regress", {"value": 2.0}),
    ):
        yield GrpcCase(
            section="4.3",
            method=method,
            request={"model_spec": spec("examples", signature), "input": ONE},
            answer={
                "result": {kind: [result]},
                "model_spec": spec("examples", signature, version="1"),
            },
        )
    for signature, value in (("regress_x_to_y", 3.0), ("regress_x_to_y2", 4.0)):
        yield GrpcCase(
            section="4.3",
            method="Regress",
            request={"model_spec": spec("half_plus_two", signature), "input": ONE},
            answer={
                "result": {"regressions": [{"value": value}]},
                "model_spec": spec("half_plus_two", signature, version="123"),
            },
        )
    for method, name, signature, given, text in (
        ("Classify", "examples", "zz", ONE, "No signature was found with the name: zz"),
        ("Regress", "examples", "zz", ONE, "No signature was found with the name: zz"),
        ("Classify", "examples", "", {}, "Input is empty."),
        ("Regress", "examples", "regress", {}, "Input is empty."),
        ("Classify", "examples", "", listed(), "Input is empty."),
        ("Classify", "m", "", ONE, "Expected one input Tensor."),
        ("Regress", "m", "", ONE, "Expected one input Tensor."),
        ("Classify", "examples", "three", ONE, "Expected one or two output Tensors, found 3"),
        ("Regress", "examples", "", ONE, "Expected one output Tensor."),
        ("Classify", "toy", "", ONE, "No classification inputs found in SignatureDef: ..."),
        ("Regress", "toy", "", ONE, "No regression inputs found in SignatureDef: ..."),
        (
            "Classify",
            "examples",
            "regress",
            ONE,
            (
                'Expected classification signature outputs to contain at least one of "classes" or'
                ' "scores". Signature was: ...'
            ),
        ),
        ("Regress", "examples", "scores", ONE, "No regression outputs found in SignatureDef: ..."),
        (
            "Classify",
            "examples",
            "",
            listed({}),
            "Name: <unknown>, Feature: x (data type: float) is required but could not be found....",
        ),
    ):
        yield GrpcCase(
            section="4.3",
            method=method,
            code="INVALID_ARGUMENT",
            answer=text,
            request={"model_spec": spec(name, signature), "input": given},
        )

    def task(kind: str, signature: str, name: str = "half_plus_two", **more: Any) -> dict[str, Any]:
        return {
            "model_spec": spec(name, signature, **more),
            "method_name": f"tensorflow/serving/{kind}",
        }

    regress, classify = task("regress", "regress_x_to_y"), task("classify", "classify_x_to_y")
    for tasks, given, code, answer in (
        ([], ONE, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ([task("regress", "a", "")], ONE, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (
            [regress, task("classify", "a", "")],
            ONE,
            "INVALID_ARGUMENT",
            "Found ModelSpec with an empty model name.",
        ),
        (
            [regress, task("classify", "a", "n")],
            ONE,
            "INVALID_ARGUMENT",
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [regress, regress],
            ONE,
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: regress_x_to_y",
        ),
        (
            [task("regress", "zz")],
            ONE,
            "INVALID_ARGUMENT",
            "Requested signature not found in model graph: zz",
        ),
        ([regress], listed(), "INVALID_ARGUMENT", "Input is empty."),
        (
            [task("predict", "regress_x_to_y")],
            ONE,
            "UNIMPLEMENTED",
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            [task("classify", "regress_x_to_y")],
            ONE,
            "INVALID_ARGUMENT",
            "Expected classification signature outputs to contain at least one of...",
        ),
        (
            [task("regress", "classify_x_to_y")],
            ONE,
            "INVALID_ARGUMENT",
            "No regression outputs found in SignatureDef: ...",
        ),
        (
            [task("regress", "a", "zz")],
            ONE,
            "NOT_FOUND",
            "Servable not found for request: Latest(zz)",
        ),
        (
            [task("regress", "regress_x_to_y", version="7")],
            ONE,
            "NOT_FOUND",
            "Servable not found for request: Specific(half_plus_two, 7)",
        ),
        (
            [regress, task("classify", "classify_x_to_y", version="77")],
            ONE,
            "OK",
            {
                "results": [
                    {
                        "model_spec": spec("half_plus_two", "regress_x_to_y", version="123"),
                        "regression_result": {"regressions": [{"value": 3.0}]},
                    },
                    {
                        "model_spec": spec("half_plus_two", "classify_x_to_y", version="123"),
                        "classification_result": {
                            "classifications": [{"classes": [{"score": 3.0}]}]
                        },
                    },
                ]
            },
        ),
        (
            [classify],
            listed(example(x=2.0), example(x=4.0)),
            "OK",
            {
                "results": [
                    {
                        "model_spec": spec("half_plus_two", "classify_x_to_y", version="123"),
                        "classification_result": {
                            "classifications": [
                                {"classes": [{"score": 3.0}]},
                                {"classes": [{"score": 4.0}]},
                            ]
                        },
                    },
                ]
            },
        ),
    ):
        yield GrpcCase(
            section="4.4",
            method="MultiInference",
            code=code,
            answer=answer,
            request={"tasks": tasks, "input": given},
        )


ALL = list(examples())
