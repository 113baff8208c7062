"""What the methods beside Predict, Classify and Regress are answered: 4.4 to 4.6."""

from collections.abc import Iterator
from typing import Any

from tests.conformance.grpc_cases import ONE, GrpcCase, example, listed, spec
from tests.conformance.grpc_example_cases import MISSING


def multi_inference() -> Iterator[GrpcCase]:
    """4.4: classify and regress at once."""

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
        ([{}], ONE, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (
            [regress, task("classify", "regress_x_to_y")],
            ONE,
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: regress_x_to_y",
        ),
        (
            [task("regress", "")],
            ONE,
            "INVALID_ARGUMENT",
            "No regression inputs found in SignatureDef: ...",
        ),
        (
            [task("classify", "")],
            ONE,
            "INVALID_ARGUMENT",
            "No classification inputs found in SignatureDef: ...",
        ),
        ([regress], listed(), "INVALID_ARGUMENT", "Input is empty."),
        ([regress], {}, "INVALID_ARGUMENT", "Input is empty."),
        # Tasks are looked at one after another, and all before the examples.
        (
            [task("regress", "zz"), task("classify", "a", "")],
            {},
            "INVALID_ARGUMENT",
            "Requested signature not found in model graph: zz",
        ),
        (
            [regress, task("regress", "zz"), task("regress", "zz")],
            {},
            "INVALID_ARGUMENT",
            "Requested signature not found in model graph: zz",
        ),
        (
            [regress, task("predict", "classify_x_to_y"), regress],
            {},
            "UNIMPLEMENTED",
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            [task("regress", "zz", "gone"), task("classify", "a", "")],
            ONE,
            "NOT_FOUND",
            "Servable not found for request: Latest(gone)",
        ),
        (
            [{"model_spec": spec("half_plus_two", "regress_x_to_y")}],
            ONE,
            "UNIMPLEMENTED",
            "Unsupported signature method_name: ",
        ),
        (
            [regress, task("classify", "classify_x_to_y")],
            listed({}),
            "INVALID_ARGUMENT",
            MISSING,
        ),
        (
            [task("regress", "regress_x2_to_y3")],
            ONE,
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but string is provided",
        ),
        (
            [
                task("regress", "regress_x_to_y2", version_label="stable"),
                task("classify", "classify_x_to_y", version_label="zz"),
            ],
            {"example_list_with_context": {"examples": [{}], "context": example(x=2.0)}},
            "OK",
            {
                "results": [
                    {
                        "model_spec": spec("half_plus_two", "regress_x_to_y2", version="123"),
                        "regression_result": {"regressions": [{"value": 4.0}]},
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
        # Of two faults the earlier one is told: no model_spec, the fields, the model.
        ({"metadata_field": ["zz"]}, "Missing ModelSpec"),
        (
            {"model_spec": {"name": "zz"}},
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            {"model_spec": {}, "metadata_field": ["zz"]},
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
        (
            {"model_spec": {"name": "zz", "version": 0}},
            "NOT_FOUND",
            "Could not find version 0 of model zz",
        ),
        (
            {"model_spec": {"name": "numbered", "version": 4}},
            "NOT_FOUND",
            "Could not find version 4 of model numbered",
        ),
        (
            {"model_spec": {"name": "numbered", "version_label": "stable", "signature_name": "q"}},
            "OK",
            states(3, 2, 1),
        ),
        ({"model_spec": {"name": "numbered"}}, "OK", states(3, 2, 1)),
        ({"model_spec": {"name": "numbered", "version": 2}}, "OK", states(2)),
        ({"model_spec": {"name": "numbered", "version_label": "zz"}}, "OK", states(3, 2, 1)),
    ):
        yield GrpcCase(
            section="4.6", method="GetModelStatus", code=code, request=request, answer=answer
        )


ALL = [*multi_inference(), *about()]
