"""What Classify and Regress are answered: 4.3, as in `grpc_cases`."""

from collections.abc import Iterator
from typing import Any

from tests.conformance.grpc_cases import ONE, GrpcCase, example, listed, spec

_CLASSES = "Expected Tensor shape: [batch_size num_classes] but got"
MISSING = (
    "Name: <unknown>, Feature: x (data type: float) is required but could not be found."
    "\n\t [[{{...}}]]"
)
_MISTYPED = (
    "Name: <unknown>, Key: x, Index: 0.  Data types don't match. Data type: {} but expected type:"
    " float\n\t [[{{{{...}}}}]]"
)


def _typed(**lists: list[str]) -> dict[str, Any]:
    """Write a tf.Example whose feature x is of another type."""
    feature = {name: {"value": values} for name, values in lists.items()}
    return {"features": {"feature": {"x": feature}}}


def examples() -> Iterator[GrpcCase]:
    """4.3: answers, echoes, and what each refuses."""
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
    # A label is resolved and not echoed; the signature is filled in.
    for name, signature, asked, kind, result in (
        ("examples", "", {"version_label": "stable"}, "classifications", {"classes": low_high}),
        ("examples", "", {"version": "1"}, "classifications", {"classes": low_high}),
        ("examples", "regress", {"version_label": "stable"}, "regressions", {"value": 1.5}),
    ):
        yield GrpcCase(
            section="4.3",
            method="Classify" if kind == "classifications" else "Regress",
            request={
                "model_spec": spec(name, signature, **asked),
                "input": listed(example(x=1.5)),
            },
            answer={
                "result": {kind: [result]},
                "model_spec": spec(name, signature or "serving_default", version="1"),
            },
        )
    # Examples keep their order; the context fills in what each leaves out, and only that.
    n_is_2 = {"features": {"feature": {"n": {"int64_list": {"value": ["2"]}}}}}
    for given, values in (
        (listed(example(x=1.0), example(x=-1.0), example(x=4.0)), [1.0, -1.0, 4.0]),
        (
            {
                "example_list_with_context": {
                    "examples": [example(x=1.0), n_is_2],
                    "context": example(x=5.0),
                }
            },
            [1.0, 7.0],
        ),
        ({"example_list_with_context": {"examples": [example(x=1.0)]}}, [1.0]),
    ):
        yield GrpcCase(
            section="4.3",
            method="Regress",
            request={"model_spec": spec("examples", "regress"), "input": given},
            answer={
                "result": {"regressions": [{"value": value} for value in values]},
                "model_spec": spec("examples", "regress", version="1"),
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
        ("Classify", "examples", "", listed({}), MISSING),
        ("Regress", "examples", "regress", listed({}), MISSING),
        ("Classify", "examples", "", listed(_typed(int64_list=["1"])), _MISTYPED.format("int64")),
        (
            "Regress",
            "examples",
            "regress",
            listed(_typed(bytes_list=["YQ=="])),
            _MISTYPED.format("string"),
        ),
        # Of two faults the earlier one is told: the signature, its shape, no examples, the answer.
        ("Classify", "examples", "zz", {}, "No signature was found with the name: zz"),
        ("Classify", "examples", "three", {}, "Expected one or two output Tensors, found 3"),
        ("Regress", "examples", "scores", {}, "No regression outputs found in SignatureDef: ..."),
        ("Regress", "examples", "wide_regress", {}, "Input is empty."),
        (
            "Classify",
            "examples",
            "",
            {"example_list_with_context": {"context": example(x=1.0)}},
            "Input is empty.",
        ),
        (
            "Regress",
            "half_plus_two",
            "regress_x2_to_y3",
            ONE,
            "Expects arg[0] to be float but string is provided",
        ),
        ("Classify", "examples", "flat_classes", ONE, f"{_CLASSES} [1]"),
        ("Classify", "examples", "flat_scores", ONE, f"{_CLASSES} [1]"),
        (
            "Classify",
            "examples",
            "double_scores",
            ONE,
            "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE",
        ),
        (
            "Classify",
            "examples",
            "number_classes",
            ONE,
            "Expected classes Tensor of DT_STRING. Got: DT_FLOAT",
        ),
        (
            "Classify",
            "examples",
            "short_scores",
            listed(example(x=1.0), example(x=2.0)),
            "Expected scores output batch size of 2. Got: 1",
        ),
        (
            "Classify",
            "examples",
            "uneven",
            ONE,
            "Tensors class and score should match in dim_size(1). Got 2 vs. 1",
        ),
        (
            "Regress",
            "examples",
            "wide_regress",
            ONE,
            (
                "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got"
                " [1,2]"
            ),
        ),
        (
            "Regress",
            "examples",
            "double_regress",
            ONE,
            "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE",
        ),
        (
            "Regress",
            "examples",
            "short_regress",
            listed(example(x=1.0), example(x=2.0)),
            "Input batch size did not match output batch size: 2 vs. 1",
        ),
    ):
        yield GrpcCase(
            section="4.3",
            method=method,
            code="INVALID_ARGUMENT",
            answer=text,
            request={"model_spec": spec(name, signature), "input": given},
        )


ALL = list(examples())
