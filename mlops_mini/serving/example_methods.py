"""Classify, Regress and MultiInference: the methods that take `tf.Example`s, over REST and gRPC.

A signature for them has one input, to which the examples go serialized. All functions here expect
to be called on a worker thread: the messages of these methods come from TensorFlow's own package,
whose import takes seconds, and their runs are never made on the event loop.

Source: tensorflow_serving/apis/{classification,regression,inference}.proto and TensorFlow Serving's
RESTful API, https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_mini import wire
from mlops_mini.errors import InvalidArgumentError, UnimplementedError
from mlops_mini.serving import (
    json_examples,
    json_hint,
    json_request,
    json_response,
    lifecycle,
    servables,
)
from mlops_mini.serving.json_text import show_shape
from mlops_mini.serving.lifecycle import ModelLifecycle
from mlops_mini.serving.request_log import RequestLog
from mlops_mini.serving.servables import (
    CLASSIFY,
    DEFAULT_SIGNATURE,
    REGRESS,
    Servable,
    TensorSpec,
)
from mlops_mini.serving.server_metrics import ServerMetrics
from mlops_mini.wire import DTYPES, ModelSpec
from mlops_mini.wire_messages import EXACT, parse

Array = npt.NDArray[Any]

_LOGGED = {CLASSIFY: "classify", REGRESS: "regress"}
_TYPE_NAMES = {dtype.numpy: f"DT_{dtype.name.upper()}" for dtype in DTYPES}


@dataclass(frozen=True, slots=True)
class Result:
    """What Classify or Regress answers; one row per example.

    Attributes:
        method: `CLASSIFY` or `REGRESS`.
        signature_name: The signature that was run.
        scores: float32, shape [n, n_classes], 0 where the model gives none; [n] for Regress.
        labels: Object array of `bytes`, shape [n, n_classes], empty where the model gives none.
    """

    method: str
    signature_name: str
    scores: Array
    labels: Array


class ExampleMethods:
    """Answers Classify, Regress and MultiInference in bytes.

    Every method raises an `MlopsMiniError` whose code and text are what TensorFlow Serving answers.
    """

    def __init__(
        self,
        models: Mapping[str, ModelLifecycle],
        *,
        check_method: bool = False,
        metrics: ServerMetrics | None = None,
        request_log: RequestLog | None = None,
    ) -> None:
        """Answer for these models.

        Args:
            models: The models by name; others may change it at any time.
            check_method: Refuse signatures that were exported for another method.
            metrics: What counts the runs; None counts none.
            request_log: Where requests of models with a log go.
        """
        self._models = models
        self._check_method = check_method
        self._metrics = metrics
        self._request_log = request_log or RequestLog()

    def infer_json(
        self,
        method: str,
        spec: ModelSpec,
        body: bytes,
        timeout_s: float | None,
        request_id: bytes = b"",
    ) -> bytes:
        """Answer the body of a REST request with the body of its answer.

        Args:
            method: `CLASSIFY` or `REGRESS`.
            spec: The model; the body names the signature.
            body: What was sent.
            timeout_s: Longest run, seconds; None for no limit.
            request_id: For the request log.
        """
        document = json_request.parse_object(body)
        key = json_request.signature_name(document)
        context, examples = json_examples.decode_examples(document)
        with lifecycle.acquire(self._models, spec) as servable:
            began_s = time.perf_counter()
            try:
                result = classify_or_regress(
                    servable,
                    method,
                    key,
                    [(context or b"") + example for example in examples],
                    timeout_ms=servables.limit_ms(timeout_s),
                    check_method=self._check_method,
                )
            except InvalidArgumentError as exc:
                exc.hint = json_hint.examples_hint(servable, method)
                raise
            self._ran(servable, result, began_s)
        log = self._request_log.sampled(spec.name)
        if log is not None:
            request = _request(replace(spec, signature_name=key), context, examples)
            response = _response(servable, result)
            answered = _answered(servable, result)
            self._request_log.add(log, _LOGGED[method], answered, request_id, request, response)
        return encode_result(result)

    def infer(
        self, method: str, request_bytes: bytes, timeout_s: float | None, request_id: bytes = b""
    ) -> bytes:
        """Answer a serialized ClassificationRequest or RegressionRequest; see `infer_json`."""
        from tensorflow_serving.apis import classification_pb2, regression_pb2

        is_classify = method == CLASSIFY
        request = parse(
            classification_pb2.ClassificationRequest
            if is_classify
            else regression_pb2.RegressionRequest,
            request_bytes,
        )
        spec = wire.read_spec(request)
        with lifecycle.acquire(self._models, spec) as servable:
            began_s = time.perf_counter()
            result = classify_or_regress(
                servable,
                method,
                request.model_spec.signature_name,
                serialized_examples(request.input),
                timeout_ms=servables.limit_ms(timeout_s),
                check_method=self._check_method,
            )
            self._ran(servable, result, began_s)
        response_bytes, answered = _response(servable, result), _answered(servable, result)
        log = self._request_log.sampled(servable.name)
        if log is not None:
            self._request_log.add(
                log, _LOGGED[method], answered, request_id, request_bytes, response_bytes
            )
        return response_bytes

    def multi_inference(
        self, request_bytes: bytes, timeout_s: float | None, request_id: bytes = b""
    ) -> bytes:
        """Answer a serialized MultiInferenceRequest with a MultiInferenceResponse."""
        from tensorflow_serving.apis import inference_pb2

        request = parse(inference_pb2.MultiInferenceRequest, request_bytes)
        response = inference_pb2.MultiInferenceResponse()
        first_spec = wire.read_spec(request.tasks[0]) if request.tasks else None
        with lifecycle.acquire(self._models, first_spec or ModelSpec(name="")) as servable:
            began_s = time.perf_counter()
            results = multi_inference(
                servable,
                request,
                timeout_ms=servables.limit_ms(timeout_s),
                check_method=self._check_method,
            )
            self._ran(servable, results[0], began_s, "MultiInference")
            for result in results:
                answer = response.results.add()
                wire.fill_spec(answer.model_spec, _answered(servable, result))
                is_classify = result.method == CLASSIFY
                kind = "classification_result" if is_classify else "regression_result"
                _fill_result(getattr(answer, kind), result)
        response_bytes = bytes(response.SerializeToString())
        log = self._request_log.sampled(servable.name)
        if log is not None:
            answered = _answered(servable, results[0])
            messages = request_bytes, response_bytes
            self._request_log.add(log, "multi_inference", answered, request_id, *messages)
        return response_bytes

    def _ran(self, servable: Servable, result: Result, began_s: float, api: str = "") -> None:
        """Count a run; `api` is what asked for it, unless the result's method says so."""
        if self._metrics is not None:
            api = api or result.method.rpartition("/")[2].capitalize()
            seconds = time.perf_counter() - began_s
            self._metrics.examples_ran(servable.name, api, len(result.scores), seconds)


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
        servable: The version that was asked for.
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
    outputs_of_tasks = []
    for method, key in tasks:
        task_input, task_outputs = _check_signature(
            servable, method, key, check_method=check_method
        )
        inputs[task_input.tensor] = task_input
        outputs.update({spec.tensor: spec for spec in task_outputs.values()})
        outputs_of_tasks.append(task_outputs)
    if not examples:
        raise InvalidArgumentError("Input is empty.")
    feed = np.empty(len(examples), object)
    feed[:] = examples
    arrays = servable.run(
        [*inputs.values()], [*outputs.values()], [feed] * len(inputs), timeout_ms=timeout_ms
    )
    by_tensor = dict(zip(outputs, arrays, strict=True))
    results = []
    for (method, key), task_outputs in zip(tasks, outputs_of_tasks, strict=True):
        answer = {alias: by_tensor[spec.tensor] for alias, spec in task_outputs.items()}
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
        if key in [earlier_key for _, earlier_key in tasks]:
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


def _check_signature(
    servable: Servable, method: str, key: str, *, check_method: bool
) -> tuple[TensorSpec, dict[str, TensorSpec]]:
    """Return the input of a signature for examples, and its outputs for that method, by alias."""
    if method not in (CLASSIFY, REGRESS):
        raise UnimplementedError(f"Unsupported signature method_name: {method}")
    signature, definition = servable.signatures[key], servable.signature_defs[key]
    signature.check_servable()
    kind = "classification" if method == CLASSIFY else "regression"
    aliases = ("classes", "scores") if method == CLASSIFY else ("outputs",)
    outputs = {spec.alias: spec for spec in signature.outputs if spec.alias in aliases}
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
    elif not outputs and method == CLASSIFY:
        problem = (
            "Expected classification signature outputs to contain at least one of"
            f' "classes" or "scores". Signature was: {definition}'
        )
    elif not outputs:
        problem = f"No regression outputs found in SignatureDef: {definition}"
    if problem:
        raise InvalidArgumentError(problem)
    return signature.inputs[0], outputs


def _classes(answer: dict[str, Array], n_examples: int) -> tuple[Array, Array]:
    """Return scores and labels, where one of them may be missing."""
    for alias, dtype in (("classes", np.dtype(object)), ("scores", np.dtype(np.float32))):
        array = answer.get(alias)
        if array is None:
            continue
        problem = ""
        if array.ndim != 2:
            problem = (
                f"Expected Tensor shape: [batch_size num_classes] but got {show_shape(array.shape)}"
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
            f" {show_shape(values.shape)}"
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


def encode_result(result: Result) -> bytes:
    r"""Write the body of an answer: for each example a list of [label, score], or a number.

    >>> labels = np.array([[b"cat", b"dog"]], object)
    >>> encode_result(Result(CLASSIFY, "s", np.float32([[0.25, 0.75]]), labels))
    b'{\n    "results": [[["cat",0.25],["dog",0.75]]]\n}'
    """
    scores, is_finite = json_response.json_value("", result.scores)
    if result.method == REGRESS:
        return json_response.write_object("results", scores, is_strict=is_finite)
    labels, is_ascii = json_response.json_value("", result.labels)
    rows = zip(labels, np.asarray(scores).tolist(), strict=True)
    pairs = [list(map(list, zip(*row, strict=True))) for row in rows]
    return json_response.write_object("results", pairs, is_strict=is_ascii and is_finite)


def _answered(servable: Servable, result: Result) -> ModelSpec:
    """Say which version and signature answered; the label that was asked for is left out."""
    return ModelSpec(
        name=servable.name, version=servable.version, signature_name=result.signature_name
    )


def _request(spec: ModelSpec, context: bytes | None, examples: Sequence[bytes]) -> bytes:
    """Write what came by REST as gRPC would have had it."""
    request = EXACT["ExamplesRequest"]()
    wire.fill_spec(request.model_spec, spec)
    if context is None:
        request.input.example_list.examples.extend(examples)
    else:
        request.input.example_list_with_context.context = context
        request.input.example_list_with_context.examples.extend(examples)
    return bytes(request.SerializeToString())


def _response(servable: Servable, result: Result) -> bytes:
    """Write a ClassificationResponse or a RegressionResponse."""
    from tensorflow_serving.apis import classification_pb2, regression_pb2

    is_classify = result.method == CLASSIFY
    response: Any = (
        classification_pb2.ClassificationResponse()
        if is_classify
        else regression_pb2.RegressionResponse()
    )
    wire.fill_spec(response.model_spec, _answered(servable, result))
    _fill_result(response.result, result)
    return bytes(response.SerializeToString())


def _fill_result(target: Any, result: Result) -> None:
    """Fill a ClassificationResult or a RegressionResult."""
    if result.method == REGRESS:
        for value in result.scores.tolist():
            target.regressions.add(value=value)
        return
    for labels, scores in zip(result.labels, result.scores.tolist(), strict=True):
        classified = target.classifications.add()
        for label, score in zip(labels, scores, strict=True):
            # A label that is not UTF-8 cannot be a protobuf string in Python.
            classified.classes.add(label=label.decode("utf-8", "replace"), score=score)
