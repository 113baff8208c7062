"""Answers a request, whatever it came by: knows models, signatures and formats, no HTTP, no gRPC.

Both edges call `ModelServer` and turn the errors it raises into a status of their own protocol. A
prediction that is known to be short happens right here on the event loop; any other, and whatever
is rare, goes to a worker thread, so that one slow request never stops the rest. A request that has
had its time is answered so at once, also while its run cannot be stopped. What is rare is also what
needs TensorFlow's own messages, whose import takes seconds.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy.typing as npt

from mlops_mini import wire
from mlops_mini.errors import (
    InvalidArgumentError,
    MlopsMiniError,
    PermissionDeniedError,
)
from mlops_mini.serving import (
    examples,
    json_hint,
    json_predict,
    json_request,
    json_response,
    messages,
    model_config,
)
from mlops_mini.serving.examples import DEFAULT_SIGNATURE
from mlops_mini.serving.json_request import DecodedRequest
from mlops_mini.serving.models import CODE_NAMES, Models
from mlops_mini.serving.run_costs import INLINE_LIMIT_S
from mlops_mini.serving.servables import Servable
from mlops_mini.serving.workers import Workers
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse
from mlops_mini.wire_messages import parse

Array = npt.NDArray[Any]


class ModelServer:
    """What the server can be asked, in bytes; `models` is whom it asks.

    Every method raises an `MlopsMiniError` whose code and text are what TensorFlow Serving answers.
    An `InvalidArgumentError` over REST may have an attribute `hint`: what the model takes.
    """

    def __init__(
        self,
        models: Models,
        *,
        rest_timeout_ms: int = 30_000,
        n_threads: int = 0,
        check_method: bool = False,
        as_content: bool = False,
        may_manage: bool = False,
    ) -> None:
        """Answer for these models.

        Args:
            models: Whom to ask.
            rest_timeout_ms: Longest run of a REST request, milliseconds; 0 for no limit.
            n_threads: Slow runs at the same time; 0 is four for each CPU.
            check_method: Refuse signatures that were exported for another method.
            as_content: Write Predict's outputs as `tensor_content` instead of typed fields.
            may_manage: Let requests change which models are served. Whoever reaches the port may
                then load any folder of this machine, and a model is a program.
        """
        self.models = models
        self._rest_timeout_ms = max(rest_timeout_ms, 0)
        self._check_method = check_method
        self._as_content = as_content
        self._may_manage = may_manage
        self._workers = Workers(n_threads)

    def close(self) -> None:
        """End what was started beside this process; nothing may be asked any more."""
        self._workers.close()

    async def predict_json(
        self, body: bytes, *, name: str, version: int | None, version_label: str | None
    ) -> bytes:
        """Answer the body of a REST predict request with the body of its answer."""
        with contextlib.ExitStack() as hold:
            servable, missing = None, None
            try:
                servable = hold.enter_context(
                    self.models.acquire(name, version=version, label=version_label)
                )
            except MlopsMiniError as exc:  # a body that is none is told so first
                missing = exc
            known = servable.dtypes if servable else {}
            key, request = await self._workers.read_json(
                len(body), json_predict.read_predict, body, known
            )
            if servable is None:
                raise cast("MlopsMiniError", missing)
            try:
                _check_signature(servable, key)
                if isinstance(request, MlopsMiniError):
                    raise request
                request = cast("DecodedRequest", request)  # None is an unknown signature
                sent = PredictRequest(model_spec=None, inputs=request.inputs)
                outputs = await self._predict(
                    servable, sent, key, timeout_s=self._rest_timeout_s, hold=hold
                )
                n_bytes = json_response.answer_bytes(outputs)
                return await self._workers.write_json(
                    n_bytes, json_response.encode_predict, outputs, request.is_rows
                )
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
                        timeout_ms=self._rest_timeout_ms,
                        check_method=self._check_method,
                    )
                except InvalidArgumentError as exc:
                    exc.hint = _examples_hint(servable, method)
                    raise
            if method == examples.REGRESS:
                return json_response.encode_regressions(result.scores)
            return json_response.encode_classifications(result.labels, result.scores)

        return await self._workers.run(ask, timeout_s=self._rest_timeout_s)

    async def predict_proto(self, request_bytes: bytes, *, timeout_s: float | None = None) -> bytes:
        """Answer a serialized PredictRequest with a serialized PredictResponse.

        Args:
            request_bytes: The message.
            timeout_s: Longest run, seconds; None for no limit. So for the methods below.
        """
        request = await self._workers.read(
            len(request_bytes), PredictRequest.from_bytes, request_bytes
        )
        with contextlib.ExitStack() as hold:
            servable, spec = hold.enter_context(self._acquire(request.model_spec))
            outputs = await self._predict(
                servable, request, spec.signature_name, timeout_s=timeout_s, hold=hold
            )
            echo = _echo(spec, servable, spec.signature_name or DEFAULT_SIGNATURE)
            answer = PredictResponse(model_spec=echo, outputs=outputs)
            write = functools.partial(answer.to_bytes, as_content=self._as_content)
            return await self._workers.write(wire.n_bytes(outputs), write)

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

        return await self._workers.run(ask, timeout_s=timeout_s)

    async def multi_inference_proto(
        self, request_bytes: bytes, *, timeout_s: float | None = None
    ) -> bytes:
        """Answer a serialized MultiInferenceRequest with a serialized MultiInferenceResponse."""

        def ask() -> bytes:
            from tensorflow_serving.apis import inference_pb2 as pb2

            request = parse(pb2.MultiInferenceRequest, request_bytes)
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

        return await self._workers.run(ask, timeout_s=timeout_s)

    async def metadata_proto(
        self,
        request_bytes: bytes,
        *,
        timeout_s: float | None = None,  # noqa: ARG002 - asked as the others are
    ) -> bytes:
        """Answer a serialized GetModelMetadataRequest with a GetModelMetadataResponse."""

        def ask() -> bytes:
            from tensorflow_serving.apis import get_model_metadata_pb2 as pb2

            request = parse(pb2.GetModelMetadataRequest, request_bytes)
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

        return await self._workers.do(ask)

    async def status_proto(
        self,
        request_bytes: bytes,
        *,
        timeout_s: float | None = None,  # noqa: ARG002 - asked as the others are
    ) -> bytes:
        """Answer a serialized GetModelStatusRequest with a serialized GetModelStatusResponse."""

        def ask() -> bytes:
            from tensorflow_serving.apis import get_model_status_pb2 as pb2

            request = parse(pb2.GetModelStatusRequest, request_bytes)
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

        return await self._workers.do(ask)

    async def reload_proto(self, request_bytes: bytes, *, timeout_s: float | None = None) -> bytes:
        """Answer a serialized ReloadConfigRequest, once its models are there or have failed."""
        if not self._may_manage:
            raise PermissionDeniedError(
                "this server does not let requests change its models, because other machines reach"
                " it: edit the file of --model_config_file, or start it with"
                " --enable_model_management, or with an --ssl_config_file that has client_verify"
            )

        def ask() -> bytes:
            from tensorflow_serving.apis import model_management_pb2 as pb2

            request = parse(pb2.ReloadConfigRequest, request_bytes)
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

        return await self._workers.do(ask)

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

    async def metadata_json(
        self, *, name: str, version: int | None, version_label: str | None
    ) -> bytes:
        """Describe the signatures of a version."""

        def describe() -> bytes:
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
            answer = {"model_spec": spec, "metadata": metadata}
            return (json.dumps(answer, indent=1) + "\n").encode()

        return await self._workers.do(describe)

    @property
    def _rest_timeout_s(self) -> float | None:
        return self._rest_timeout_ms / 1000 if self._rest_timeout_ms else None

    async def _predict(
        self,
        servable: Servable,
        request: PredictRequest,
        key: str,
        *,
        timeout_s: float | None,
        hold: contextlib.ExitStack,
    ) -> dict[str, Array]:
        call = examples.predict_call(
            servable, request, signature_name=key, check_method=self._check_method
        )
        costs, n_elements = call.signature.costs, _n_elements(call.arrays)
        # What fetches other outputs is a callable of its own, which takes long to make.
        is_short = n_elements <= costs.inline_elements and not request.output_filter
        timeout_ms = None if is_short else _limit_ms(timeout_s)

        def run() -> list[Array]:
            began = time.perf_counter()
            try:
                return servable.run(
                    call.signature.inputs, call.outputs, call.arrays, timeout_ms=timeout_ms
                )
            finally:
                seconds = time.perf_counter() - began
                if not (is_short and costs.is_warm and seconds < INLINE_LIMIT_S):
                    costs.add(n_elements, seconds)

        if is_short and costs.is_warm:
            results = run()
        else:
            results = await self._workers.run(run, timeout_s=timeout_s, hold=hold)
            costs.is_warm |= is_short
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


def _echo(asked: ModelSpec, servable: Servable, signature_name: str) -> ModelSpec:
    """Say who answers: the model's name, its version and the signature; never the label."""
    return ModelSpec(name=asked.name, version=servable.version, signature_name=signature_name)


def _limit_ms(timeout_s: float | None) -> int:
    """Round a deadline up to a power of two: each limit has a callable of its own."""
    return 0 if timeout_s is None else 1 << max(int(timeout_s * 1000), 0).bit_length()


def _n_elements(arrays: Sequence[Array]) -> int:
    """Count what is fed; a text counts as its bytes and one more."""
    return sum(array.size + wire.text_bytes(array) for array in arrays)


def _check_signature(servable: Servable, key: str) -> None:
    signature = servable.signatures.get(key or DEFAULT_SIGNATURE)
    if signature is None:
        raise InvalidArgumentError(
            f'Serving signature name: "{key or DEFAULT_SIGNATURE}" not found in signature def'
        )
    signature.check_servable()
    if not signature.inputs:
        raise InvalidArgumentError(f"Failed to get input map for signature: {key or 'DEFAULT'}")


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
