"""What the four inference methods ask of a model: checks, run and results, in TensorFlow's words.

Predict names its tensors; Classify, Regress and MultiInference send `tf.Example`s, serialized, to
the one input of a signature. Here is what comes between a parsed request and its answer; formats
are the caller's business.

Source: tensorflow_serving/apis/{predict,classification,regression,inference}.proto
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import (
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    UnimplementedError,
)
from mlops_mini.serving.servables import Servable, Signature, TensorSpec
from mlops_mini.wire import DTYPES, PredictRequest

Array = npt.NDArray[Any]

DEFAULT_SIGNATURE = "serving_default"
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
PREDICT = "tensorflow/serving/predict"
_TYPE_NAMES = {dtype.numpy: f"DT_{dtype.name.upper()}" for dtype in DTYPES}


@dataclass(frozen=True, slots=True)
class Call:
    """A run that may be made: what to feed and what to fetch.

    Attributes:
        signature: Whose run it is.
        arrays: One array per input of the signature.
        outputs: The outputs wanted.
    """

    signature: Signature
    arrays: Sequence[Array]
    outputs: Sequence[TensorSpec]


@dataclass(frozen=True, slots=True)
class Result:
    """What Classify or Regress found; one row per example.

    Attributes:
        method: `CLASSIFY` or `REGRESS`.
        signature_name: The signature that was asked.
        scores: float32, shape [n, n_classes], 0 where the model gives none; [n] for Regress.
        labels: Object array of `bytes`, shape [n, n_classes], empty where the model gives none.
    """

    method: str
    signature_name: str
    scores: Array
    labels: Array


def predict_call(
    servable: Servable, request: PredictRequest, *, signature_name: str, check_method: bool = False
) -> Call:
    """Check a Predict request against its signature; the model's name is not looked at.

    Args:
        servable: Whom to ask.
        request: What came over gRPC, or was written down to warm up.
        signature_name: The signature asked for; empty for the default.
        check_method: Refuse signatures that were exported for another method.

    Raises:
        FailedPreconditionError: There is no such signature.
        InvalidArgumentError: Inputs or outputs do not fit it.
    """
    key = signature_name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(key)
    if signature is None:
        raise FailedPreconditionError(f'Serving signature key "{key}" not found.')
    signature.check_servable()
    method = servable.signature_defs[key].method_name
    if check_method and method not in (PREDICT, CLASSIFY, REGRESS):
        raise InternalError(
            "Expected prediction signature method_name to be one of"
            f" {{{PREDICT}, {CLASSIFY}, {REGRESS}}}. Was: {method}"
        )
    inputs = {**signature.defaults, **request.inputs}
    _check_inputs(signature, {*request.inputs, *request.unreadable}, {*request.unreadable})
    _check_filter(signature, request.output_filter)
    outputs = {spec.alias: spec for spec in signature.outputs}
    return Call(
        signature,
        [inputs[spec.alias] for spec in signature.inputs],
        [outputs[alias] for alias in request.output_filter or outputs],
    )


def infer(
    servable: Servable,
    tasks: Sequence[tuple[str, str]],
    examples: Sequence[bytes],
    *,
    timeout_ms: int,
    check_method: bool = False,
) -> list[Result]:
    """Classify and regress examples, all in one run of the graph.

    Args:
        servable: Whom to ask.
        tasks: Method and signature of each result wanted.
        examples: Serialized `tf.Example`s.
        timeout_ms: Longest run, milliseconds; 0 for no limit.
        check_method: Refuse signatures that were exported for another method.

    Raises:
        InvalidArgumentError: A signature, or what it answers, is not of that method's kind.
        UnimplementedError: A method that is neither.
    """
    inputs: dict[str, TensorSpec] = {}
    outputs: dict[str, TensorSpec] = {}
    wanted = []
    for method, key in tasks:
        source, found = _check_signature(servable, method, key, check_method=check_method)
        inputs[source.tensor] = source
        outputs.update({spec.tensor: spec for spec in found.values()})
        wanted.append((method, key, found))
    if not examples:
        raise InvalidArgumentError("Input is empty.")
    feed = np.empty(len(examples), object)
    feed[:] = examples
    arrays = servable.run(
        [*inputs.values()], [*outputs.values()], [feed] * len(inputs), timeout_ms=timeout_ms
    )
    by_tensor = dict(zip(outputs, arrays, strict=True))
    results = []
    for method, key, found in wanted:
        answer = {alias: by_tensor[spec.tensor] for alias, spec in found.items()}
        if method == REGRESS:
            scores = _regression(answer["outputs"], len(examples))
            results.append(Result(method, key, scores, np.full(scores.shape, b"", object)))
        else:
            results.append(Result(method, key, *_classes(answer, len(examples))))
    return results


def classify_or_regress(
    servable: Servable,
    method: str,
    signature_name: str,
    examples: Sequence[bytes],
    *,
    timeout_ms: int,
    check_method: bool = False,
) -> Result:
    """Answer Classify or Regress; what is asked and raised is as in `infer`."""
    key = signature_name or DEFAULT_SIGNATURE
    if key not in servable.signatures:
        raise InvalidArgumentError(f"No signature was found with the name: {key}")
    return infer(
        servable, [(method, key)], examples, timeout_ms=timeout_ms, check_method=check_method
    )[0]


def multi_inference(
    servable: Servable, request: Any, *, timeout_ms: int, check_method: bool = False
) -> list[Result]:
    """Answer a `tensorflow.serving.MultiInferenceRequest`; errors are as in `infer`."""
    tasks: list[tuple[str, str]] = []
    for task in request.tasks:
        if not task.model_spec.name:
            raise InvalidArgumentError("Found ModelSpec with an empty model name.")
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise InvalidArgumentError(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        key = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if key in [seen for _, seen in tasks]:
            raise InvalidArgumentError(f"Duplicate evaluation of signature: {key}")
        if key not in servable.signatures:
            raise InvalidArgumentError(f"Requested signature not found in model graph: {key}")
        # A task's errors come before the next one is looked at.
        _check_signature(servable, task.method_name, key, check_method=check_method)
        tasks.append((task.method_name, key))
    examples = serialized_examples(request.input)
    return infer(servable, tasks, examples, timeout_ms=timeout_ms, check_method=check_method)


def serialized_examples(sent: Any) -> list[bytes]:
    """Serialize the examples of a `tensorflow.serving.Input`, each behind the common context."""
    kind = sent.WhichOneof("kind")
    if kind is None:
        return []
    listed = getattr(sent, kind)
    context = listed.context.SerializeToString() if kind == "example_list_with_context" else b""
    return [context + example.SerializeToString() for example in listed.examples]


def _check_inputs(signature: Signature, given: set[str], unreadable: set[str]) -> None:
    needed = {spec.alias for spec in signature.inputs}
    if len(given) > len(needed) or (len(given) < len(needed) and not signature.defaults):
        raise InvalidArgumentError(
            f"input size does not match signature: {len(given)}!={len(needed)}"
            f" len({_braced(given)}) != len({_braced(needed)})."
            f" Sent extra: {_braced(given - needed)}."
            f" Missing but required: {_braced(needed - given)}."
        )
    for spec in signature.inputs:
        if spec.alias not in given and spec.alias not in signature.defaults:
            raise InvalidArgumentError(
                f"Signature input alias: {spec.alias}(feed name: {spec.tensor}) not found in"
                " request and no default value provided. Inputs expected to be in the request"
                f" {_braced(given)}, or default input alias set:"
                f" {','.join(sorted(signature.defaults))}"
            )
        if spec.alias in unreadable:
            raise InvalidArgumentError(f"tensor parsing error: {spec.alias}")
    if given - needed:
        raise InvalidArgumentError(
            "Inputs contains invalid name. Used request inputs:"
            f" {','.join(sorted(given & needed))}, request input: {','.join(sorted(given))}"
        )


def _check_filter(signature: Signature, output_filter: Sequence[str]) -> None:
    known = {spec.alias for spec in signature.outputs}
    seen: set[str] = set()
    for alias in output_filter:
        if alias not in known:
            raise InvalidArgumentError(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the"
                f" set {_braced(known)}."
            )
        if alias in seen:
            raise InvalidArgumentError(f"duplicate output tensor alias: {alias}")
        seen.add(alias)


def _braced(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"


def _check_signature(
    servable: Servable, method: str, key: str, *, check_method: bool
) -> tuple[TensorSpec, dict[str, TensorSpec]]:
    """Find the input of a signature for examples, and its outputs for that method, by alias."""
    if method not in (CLASSIFY, REGRESS):
        raise UnimplementedError(f"Unsupported signature method_name: {method}")
    signature, definition = servable.signatures[key], servable.signature_defs[key]
    signature.check_servable()
    kind = "classification" if method == CLASSIFY else "regression"
    aliases = ("classes", "scores") if method == CLASSIFY else ("outputs",)
    found = {spec.alias: spec for spec in signature.outputs if spec.alias in aliases}
    problem = ""
    if check_method and definition.method_name != method:
        problem = (
            f"Expected {kind} signature method_name to be {method}. Was: {definition.method_name}"
        )
    elif len(signature.inputs) != 1:
        problem = "Expected one input Tensor."
    elif method == CLASSIFY and len(signature.outputs) not in (1, 2):
        problem = f"Expected one or two output Tensors, found {len(signature.outputs)}"
    elif method == REGRESS and len(signature.outputs) != 1:
        problem = "Expected one output Tensor."
    elif signature.inputs[0].alias != "inputs":
        problem = f"No {kind} inputs found in SignatureDef: {definition}"
    elif not found and method == CLASSIFY:
        problem = (
            "Expected classification signature outputs to contain at least one of"
            f' "classes" or "scores". Signature was: {definition}'
        )
    elif not found:
        problem = f"No regression outputs found in SignatureDef: {definition}"
    if problem:
        raise InvalidArgumentError(problem)
    return signature.inputs[0], found


def _classes(answer: dict[str, Array], n_examples: int) -> tuple[Array, Array]:
    """Return scores and labels, where one of them may be missing."""
    for alias, dtype in (("classes", np.dtype(object)), ("scores", np.dtype(np.float32))):
        array = answer.get(alias)
        if array is None:
            continue
        problem = ""
        if array.ndim != 2:
            problem = (
                f"Expected Tensor shape: [batch_size num_classes] but got {_shown(array.shape)}"
            )
        elif array.dtype != dtype:
            problem = (
                f"Expected {alias} Tensor of {_TYPE_NAMES[dtype]}."
                f" Got: {_TYPE_NAMES.get(array.dtype, array.dtype.name)}"
            )
        elif len(array) != n_examples:
            problem = f"Expected {alias} output batch size of {n_examples}. Got: {len(array)}"
        if problem:
            raise InvalidArgumentError(problem)
    n_classes = [array.shape[1] for array in answer.values()]
    if len({*n_classes}) > 1:
        raise InvalidArgumentError(
            "Tensors class and score should match in dim_size(1)."
            f" Got {answer['classes'].shape[1]} vs. {answer['scores'].shape[1]}"
        )
    shape = next(iter(answer.values())).shape
    scores, labels = answer.get("scores"), answer.get("classes")
    return (
        np.zeros(shape, np.float32) if scores is None else scores,
        np.full(shape, b"", object) if labels is None else labels,
    )


def _regression(values: Array, n_examples: int) -> Array:
    problem = ""
    if values.ndim not in (1, 2) or values.shape[1:] not in ((), (1,)):
        problem = (
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got"
            f" {_shown(values.shape)}"
        )
    elif len(values) != n_examples:
        problem = (
            f"Input batch size did not match output batch size: {n_examples} vs. {len(values)}"
        )
    elif values.dtype != np.float32:
        problem = (
            "Expected output Tensor of DT_FLOAT.  Got:"
            f" {_TYPE_NAMES.get(values.dtype, values.dtype.name)}"
        )
    if problem:
        raise InvalidArgumentError(problem)
    return values.reshape(-1)


def _shown(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
