"""Answers a request, whatever it came by: knows models, signatures and formats, no HTTP, no gRPC.

Both edges call `ModelServer` and turn the errors it raises into a status of their own protocol. A
prediction that is known to be short happens right here on the event loop; any other, and whatever
is rare, goes to a worker thread, so that one slow request never stops the rest. What is rare is
also what needs TensorFlow's own messages, whose import takes seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy.typing as npt

from mlops_mini import wire
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.serving import (
    examples,
    json_hint,
    json_request,
    json_response,
    messages,
    model_config,
    servables,
)
from mlops_mini.serving.examples import DEFAULT_SIGNATURE
from mlops_mini.serving.models import CODE_NAMES, Models
from mlops_mini.serving.servables import Servable, Signature
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse

Array = npt.NDArray[Any]
T = TypeVar("T")

_MAX_INLINE_ROWS = 64
_MAX_INLINE_BYTES = 2**18  # of a message: some milliseconds
_N_RARE_THREADS = 32


class ModelServer:
    """What the server can be asked, in bytes; `models` is whom it asks.

    Every method raises an `MlopsMiniError` whose code and text are what TensorFlow Serving answers.
    An `InvalidArgumentError` over REST may have an attribute `hint`: what the model takes.
    """

    def __init__(
        self,
        models: Models,
        *,
        n_threads: int = 0,
        check_method: bool = False,
        as_content: bool = False,
    ) -> None:
        """Answer for these models.

        Args:
            models: Whom to ask.
            n_threads: Slow runs at the same time; 0 is four for each CPU.
            check_method: Refuse signatures that were exported for another method.
            as_content: Write Predict's outputs as `tensor_content` instead of typed fields.
        """
        self.models = models
        self._check_method = check_method
        self._as_content = as_content
        # All of TensorFlow first: to import a part while another thread imports all fails both.
        first = servables.tensorflow
        n_runs = n_threads or 4 * (os.cpu_count() or 1)
        self._runs = ThreadPoolExecutor(n_runs, "run", initializer=first)
        self._rare = ThreadPoolExecutor(_N_RARE_THREADS, "rare", initializer=first)

    async def predict_json(
        self, body: bytes, *, name: str, version: int | None, version_label: str | None
    ) -> bytes:
        """Answer the body of a REST predict request with the body of its answer."""
        document = await self._read(len(body), json_request.parse_object, body)
        key = json_request.signature_name(document)
        with self.models.acquire(name, version=version, label=version_label) as servable:
            try:
                dtypes = _signature(servable, key).dtypes
                request = await self._read(len(body), json_request.decode_predict, document, dtypes)
                sent = PredictRequest(model_spec=None, inputs=request.inputs)
                outputs = await self._predict(servable, sent, key, servable.timeout_ms)
                encode = functools.partial(json_response.encode_predict, is_rows=request.is_rows)
                n_bytes = json_response.answer_bytes(outputs)
                return await self._write(n_bytes, functools.partial(encode, outputs))
            except InvalidArgumentError as exc:
                exc.hint = _hint(servable, key)
                raise

    async def infer_json(
        self,
        method: str,
        body: bytes,
        *,
        name: str,
        version: int | None,
        version_label: str | None,
    ) -> bytes:
        """Answer the body of a REST request of a method, `examples.CLASSIFY` or `REGRESS`."""

        def ask() -> bytes:
            document = json_request.parse_object(body)
            key = json_request.signature_name(document)
            sent = json_request.decode_examples(document)
            with self.models.acquire(name, version=version, label=version_label) as servable:
                try:
                    result = examples.classify_or_regress(
                        servable,
                        method,
                        key,
                        sent,
                        timeout_ms=servable.timeout_ms,
                        check_method=self._check_method,
                    )
                except InvalidArgumentError as exc:
                    exc.hint = _examples_hint(servable, method)
                    raise
            if method == examples.REGRESS:
                return json_response.encode_regressions(result.scores)
            return json_response.encode_classifications(result.labels, result.scores)

        return await self._in_thread(self._runs, ask)

    async def predict_proto(self, request_bytes: bytes, *, timeout_s: float | None = None) -> bytes:
        """Answer a serialized PredictRequest with a serialized PredictResponse.

        Args:
            request_bytes: The message.
            timeout_s: Longest run, seconds; None for no limit. So for the methods below.
        """
        request = await self._read(len(request_bytes), PredictRequest.from_bytes, request_bytes)
        with self._acquire(request.model_spec) as (servable, spec):
            outputs = await self._predict(
                servable, request, spec.signature_name, _limit_ms(timeout_s)
            )
            echo = _echo(spec, servable, spec.signature_name or DEFAULT_SIGNATURE)
            answer = PredictResponse(model_spec=echo, outputs=outputs)
            write = functools.partial(answer.to_bytes, as_content=self._as_content)
            return await self._write(wire.n_bytes(outputs), write)

    async def infer_proto(
        self, method: str, request_bytes: bytes, *, timeout_s: float | None = None
    ) -> bytes:
        """Answer a serialized request of a method, `examples.CLASSIFY` or `REGRESS`."""

        def ask() -> bytes:
            request, response = messages.inference_messages(method, request_bytes)
            with self._acquire(wire.read_spec(request)) as (servable, spec):
                result = examples.classify_or_regress(
                    servable,
                    method,
                    spec.signature_name,
                    examples.serialized_examples(request.input),
                    timeout_ms=_limit_ms(timeout_s),
                    check_method=self._check_method,
                )
                wire.fill_spec(response.model_spec, _echo(spec, servable, result.signature_name))
                messages.fill_result(response.result, result)
            return bytes(response.SerializeToString())

        return await self._in_thread(self._runs, ask)

    async def multi_inference_proto(
        self, request_bytes: bytes, *, timeout_s: float | None = None
    ) -> bytes:
        """Answer a serialized MultiInferenceRequest with a serialized MultiInferenceResponse."""

        def ask() -> bytes:
            from tensorflow_serving.apis import inference_pb2 as pb2

            request = wire.parse(pb2.MultiInferenceRequest, request_bytes)
            first = wire.read_spec(request.tasks[0]) if request.tasks else None
            with self._acquire(first or ModelSpec(name="")) as (servable, spec):
                results = examples.multi_inference(
                    servable,
                    request,
                    timeout_ms=_limit_ms(timeout_s),
                    check_method=self._check_method,
                )
                response = pb2.MultiInferenceResponse()
                for result in results:
                    answer = response.results.add()
                    wire.fill_spec(answer.model_spec, _echo(spec, servable, result.signature_name))
                    is_classify = result.method == examples.CLASSIFY
                    kind = "classification_result" if is_classify else "regression_result"
                    messages.fill_result(getattr(answer, kind), result)
            return bytes(response.SerializeToString())

        return await self._in_thread(self._runs, ask)

    async def metadata_proto(
        self,
        request_bytes: bytes,
        *,
        timeout_s: float | None = None,  # noqa: ARG002 - asked as the others are
    ) -> bytes:
        """Answer a serialized GetModelMetadataRequest with a GetModelMetadataResponse."""

        def ask() -> bytes:
            from tensorflow_serving.apis import get_model_metadata_pb2 as pb2

            request = wire.parse(pb2.GetModelMetadataRequest, request_bytes)
            if not request.HasField("model_spec"):
                raise InvalidArgumentError("Missing ModelSpec")
            if not request.metadata_field:
                raise InvalidArgumentError(
                    "GetModelMetadataRequest must specify at least one metadata_field"
                )
            for field in request.metadata_field:
                if field != "signature_def":
                    raise InvalidArgumentError(f"Metadata field {field} is not supported")
            response = pb2.GetModelMetadataResponse()
            with self._acquire(wire.read_spec(request)) as (servable, spec):
                wire.fill_spec(response.model_spec, _echo(spec, servable, ""))
                signatures = pb2.SignatureDefMap(signature_def=servable.signature_defs)
                response.metadata["signature_def"].Pack(signatures)
            return bytes(response.SerializeToString())

        return await self._in_thread(self._rare, ask)

    async def status_proto(
        self,
        request_bytes: bytes,
        *,
        timeout_s: float | None = None,  # noqa: ARG002 - asked as the others are
    ) -> bytes:
        """Answer a serialized GetModelStatusRequest with a serialized GetModelStatusResponse."""

        def ask() -> bytes:
            from tensorflow_serving.apis import get_model_status_pb2 as pb2

            request = wire.parse(pb2.GetModelStatusRequest, request_bytes)
            spec = wire.read_spec(request)
            if spec is None:
                raise InvalidArgumentError("Missing ModelSpec")
            response = pb2.GetModelStatusResponse()
            for status in self.models.statuses(spec.name, version=spec.version):
                entry = response.model_version_status.add()
                entry.version, entry.state = status.version, status.state
                entry.status.error_code = status.error_code
                entry.status.error_message = status.error_message
            return bytes(response.SerializeToString())

        return await self._in_thread(self._rare, ask)

    async def reload_proto(self, request_bytes: bytes, *, timeout_s: float | None = None) -> bytes:
        """Answer a serialized ReloadConfigRequest, once its models are there or have failed."""

        def ask() -> bytes:
            from tensorflow_serving.apis import model_management_pb2 as pb2

            request = wire.parse(pb2.ReloadConfigRequest, request_bytes)
            if request.config.WhichOneof("config") != "model_config_list":
                raise InvalidArgumentError(
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. Only"
                    " ModelConfigList is currently supported"
                )
            self.models.replace(model_config.from_message(request.config), timeout_s=timeout_s)
            response = pb2.ReloadConfigResponse()
            response.status.SetInParent()
            for metric in request.metric_names:  # of the counters there is none, so none rises
                response.metric.add(name=metric, int64_value_increase=0)
            return bytes(response.SerializeToString())

        return await self._in_thread(self._rare, ask)

    def status_json(self, *, name: str, version: int | None) -> bytes:
        """Describe the state of a model's versions, highest first."""
        listed = [
            {
                "version": str(status.version),
                "state": status.state.name,
                "status": {
                    "error_code": CODE_NAMES[status.error_code],
                    "error_message": status.error_message,
                },
            }
            for status in self.models.statuses(name, version=version)
        ]
        return (json.dumps({"model_version_status": listed}, indent=1) + "\n").encode()

    def metadata_json(self, *, name: str, version: int | None, version_label: str | None) -> bytes:
        """Describe the signatures of a version."""
        from google.protobuf import json_format

        with self.models.acquire(name, version=version, label=version_label) as servable:
            signature_defs = {
                key: json_format.MessageToDict(
                    definition,
                    always_print_fields_with_no_presence=True,
                    preserving_proto_field_name=True,
                )
                for key, definition in sorted(servable.signature_defs.items())
            }
            spec = {"name": name, "version": str(servable.version), "signature_name": ""}
        metadata = {"signature_def": {"signature_def": signature_defs}}
        return (json.dumps({"model_spec": spec, "metadata": metadata}, indent=1) + "\n").encode()

    async def _predict(
        self, servable: Servable, request: PredictRequest, key: str, timeout_ms: int
    ) -> dict[str, Array]:
        call = examples.predict_call(
            servable, request, signature_name=key, check_method=self._check_method
        )
        signature, arrays = call.signature, call.arrays
        n_rows = max((len(array) for array in arrays if array.ndim), default=1)
        run = functools.partial(servable.run, signature.inputs, call.outputs, arrays)
        if signature.is_inline and n_rows <= _MAX_INLINE_ROWS and not request.output_filter:
            results = run(timeout_ms=None)
        else:
            results = await self._in_thread(
                self._runs, functools.partial(run, timeout_ms=timeout_ms)
            )
        return {spec.alias: array for spec, array in zip(call.outputs, results, strict=True)}

    @contextlib.contextmanager
    def _acquire(self, spec: ModelSpec | None) -> Iterator[tuple[Servable, ModelSpec]]:
        if spec is None:
            raise InvalidArgumentError("Missing ModelSpec")
        if not spec.name:
            raise InvalidArgumentError("ModelSpec has no name specified.")
        label = spec.version_label or None
        with self.models.acquire(spec.name, version=spec.version, label=label) as servable:
            yield servable, spec

    async def _read(self, n_bytes: int, work: Callable[..., T], *arguments: Any) -> T:
        """Read a message: here if that is quick, else where it stops nobody."""
        if n_bytes <= _MAX_INLINE_BYTES:
            with contextlib.suppress(wire.NotQuickError):
                return work(*arguments, quick=True)
        return await self._in_thread(self._rare, functools.partial(work, *arguments))

    async def _write(self, n_bytes: int, work: Callable[[], T]) -> T:
        """Write a message: here, or where a large one stops nobody."""
        return work() if n_bytes <= _MAX_INLINE_BYTES else await self._in_thread(self._rare, work)

    async def _in_thread(self, pool: ThreadPoolExecutor, ask: Callable[[], T]) -> T:
        """Wait for a worker thread, to its end also when nobody waits for the answer any more.

        The thread cannot be stopped, and a version that is let go may be unloaded under its feet.
        """
        run = asyncio.get_running_loop().run_in_executor(pool, ask)
        try:
            return await asyncio.shield(run)
        except asyncio.CancelledError:
            while not run.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({run})
            run.exception()  # has been looked at, so asyncio does not complain
            raise


def _echo(asked: ModelSpec, servable: Servable, signature_name: str) -> ModelSpec:
    """Say who answers: the model's name, its version and the signature; never the label."""
    return ModelSpec(name=asked.name, version=servable.version, signature_name=signature_name)


def _limit_ms(timeout_s: float | None) -> int:
    """Round a client's deadline up to a power of two: each limit has a callable of its own."""
    return 0 if timeout_s is None else 1 << max(int(timeout_s * 1000), 0).bit_length()


def _signature(servable: Servable, key: str) -> Signature:
    signature = servable.signatures.get(key or DEFAULT_SIGNATURE)
    if signature is None:
        raise InvalidArgumentError(
            f'Serving signature name: "{key or DEFAULT_SIGNATURE}" not found in signature def'
        )
    if not signature.inputs:
        raise InvalidArgumentError(f"Failed to get input map for signature: {key or 'DEFAULT'}")
    return signature


def _hint(servable: Servable, key: str) -> str:
    signature = servable.signatures.get(key or DEFAULT_SIGNATURE)
    if signature is None:
        return f"signatures of this model: {', '.join(sorted(servable.signatures))}"
    method = servable.signature_defs[signature.name].method_name
    if method in (examples.CLASSIFY, examples.REGRESS):
        verb = method.rpartition("/")[2]
        return f'{signature.name} takes serialized tf.Examples: use :{verb} with "examples"'
    inputs = {spec.alias: (spec.dtype, spec.shape) for spec in signature.inputs}
    return json_hint.hint(inputs, signature.name)


def _examples_hint(servable: Servable, method: str) -> str:
    verb = method.rpartition("/")[2]
    names = [
        n for n, known in sorted(servable.signature_defs.items()) if known.method_name == method
    ]
    if not names:
        return f"no signature of this model is made for {verb}: use :predict"
    return f"made for {verb}: {', '.join(names)}; numbers of a float feature need a point: 2.0"
