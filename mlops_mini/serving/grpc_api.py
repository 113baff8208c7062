"""The gRPC edge: TensorFlow Serving's services on `grpc.aio`, bytes in and bytes out.

Beside them server reflection, always, and `grpc.health.v1.Health` if it is asked for.

Source: tensorflow_serving/apis/{prediction,model}_service.proto
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError, UnavailableError
from mlops_mini.serving.batching import Patience
from mlops_mini.serving.example_methods import ExampleMethods
from mlops_mini.serving.grpc_crowd import Crowd
from mlops_mini.serving.grpc_fast import FastReader
from mlops_mini.serving.joined import Joined, within
from mlops_mini.serving.json_fast import fits
from mlops_mini.serving.model_config import SslConfig
from mlops_mini.serving.model_service import ModelService
from mlops_mini.serving.models import Models
from mlops_mini.serving.plain_messages import write_response
from mlops_mini.serving.predict import Predictor
from mlops_mini.serving.profiler import Profiler
from mlops_mini.serving.request_log import RequestLog
from mlops_mini.serving.servables import CLASSIFY, REGRESS
from mlops_mini.serving.workers import MAX_INLINE_BYTES, Workers
from mlops_mini.wire import (
    PREDICT_METHOD,
    ModelSpec,
    NotQuickError,
    PredictRequest,
    PredictResponse,
    n_bytes,
)

_PREDICTION, _MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
_COUNTED = {"Predict", "Classify", "Regress"}
_PROFILER = "tensorflow.ProfilerService"
_HEALTH_NAMES = ("", "ModelService", "PredictionService")
_WATCH_S = 0.2
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MAX_MESSAGE_BYTES = 1024
_INT32_MAX = 2**31 - 1
_REQUEST_ID = "x-request-id"
_Method = Callable[[bytes, float | None, bytes], Awaitable[bytes]]


def listen(
    api: GrpcApi,
    models: Models,
    address: str | None,
    *,
    socket_path: str = "",
    ssl: SslConfig | None = None,
    channel_arguments: str = "",
    has_health: bool = False,
) -> GrpcListener:
    """Bind the gRPC port and the socket, without answering yet.

    Args:
        api: Answers the calls.
        models: What health is asked about.
        address: `host:port`, where port 0 takes any free one; None for no TCP.
        socket_path: Listen on this unix socket as well.
        ssl: Keys for both; None speaks plain text.
        channel_arguments: gRPC's own, as `key=value,key=value`.
        has_health: Offer `grpc.health.v1.Health`.

    Raises:
        InvalidArgumentError: A channel argument that is none, or keys that cannot be used.
        UnavailableError: The unix socket cannot be bound.
        RuntimeError: The address cannot be bound.
    """
    no_limit = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    # Of an option that is given twice the first one counts: the user's.
    options = [*_options(channel_arguments), *no_limit, ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((api,))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(_Reflection(has_health), server)
    health = _Health(models)
    if has_health:
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
    ports = [0]
    credentials = None if ssl is None else _credentials(ssl)
    socket_address = f"unix:{socket_path}" if socket_path else None
    for where in filter(None, (socket_address, address)):
        try:
            if credentials is None:
                ports.append(server.add_insecure_port(where))
            else:
                ports.append(server.add_secure_port(where, credentials))
        except RuntimeError as exc:  # a bad address and unusable keys alike; a free port tells
            if credentials is not None:
                _try_keys(credentials)
            if where == address:
                raise
            raise UnavailableError(
                f"cannot listen on {where}: choose a --grpc_socket_path in a folder that is there"
            ) from exc
    return GrpcListener(server, health, ports[-1] if address else 0)


class GrpcListener:
    """A bound gRPC server: `start` it, and `drain` it once.

    Attributes:
        port: The TCP port; 0 for none.
    """

    def __init__(self, server: Any, health: _Health, port: int) -> None:
        self.port = port
        self._server = server
        self._health = health

    async def start(self) -> None:
        """Answer from now on."""
        await self._server.start()

    async def drain(self, timeout_s: float) -> None:
        """Take no new calls, tell health watchers, and give calls under way that long to end."""
        self._health.is_stopping = True
        await self._server.stop(timeout_s)


def _options(channel_arguments: str) -> list[tuple[str, int | str]]:
    """Read channel arguments; a value that reads as an int32 becomes an int.

    >>> _options("grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb")
    [('grpc.max_connection_age_ms', 2000), ('grpc.lb_policy_name', 'grpclb')]
    """
    options: list[tuple[str, int | str]] = []
    for argument in filter(None, channel_arguments.split(",")):
        key, equals, value = argument.partition("=")
        if not equals:
            raise InvalidArgumentError(f"--grpc_channel_arguments: {argument} is no key=value")
        try:
            number = int(value)
        except ValueError:
            options.append((key, value))
        else:
            options.append((key, number if abs(number) <= _INT32_MAX else value))
    return options


def _credentials(ssl: SslConfig) -> Any:
    if ssl.client_verify and not ssl.custom_ca:
        raise InvalidArgumentError("--ssl_config_file: client_verify needs a custom_ca")
    return grpc.ssl_server_credentials(
        [(ssl.server_key.encode(), ssl.server_cert.encode())],
        root_certificates=ssl.custom_ca.encode() or None,
        require_client_auth=ssl.client_verify,
    )


def _try_keys(credentials: Any) -> None:
    try:
        grpc.aio.server().add_secure_port("127.0.0.1:0", credentials)
    except RuntimeError as exc:
        raise InvalidArgumentError(
            "--ssl_config_file: server_key and server_cert must be a pair of PEM texts, custom_ca"
            " empty or PEM text"
        ) from exc


@dataclass(eq=False, kw_only=True)
class GrpcApi(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc is untyped
    """Answers the methods of both services: reads a request, asks, writes the answer.

    Attributes:
        workers: Where slow work is done.
        predictor: Answers Predict.
        examples: Answers Classify, Regress and MultiInference.
        model_service: Answers questions about models.
        as_content: Write Predict's outputs as `tensor_content` instead of typed fields.
        ended: Told, of each request that TensorFlow Serving counts, the method, the message, the
            code of its status, and the seconds that it took.
        profiler: Answers TensorFlow's ProfilerService; None leaves it out.
        request_log: Where requests of models with a log go. While there is one, the trailing
            metadata of each answer have an `x-request-id`.
    """

    workers: Workers
    predictor: Predictor
    examples: ExampleMethods
    model_service: ModelService
    as_content: bool = False
    ended: Callable[[str, bytes, int, float], None] | None = None
    profiler: Profiler | None = None
    request_log: RequestLog = field(default_factory=RequestLog)

    def __post_init__(self) -> None:
        self._crowd = Crowd()
        self._reader = FastReader()
        methods: dict[str, _Method] = {
            f"/{_PREDICTION}/Predict": self.predict,
            f"/{_PREDICTION}/Classify": self.classify,
            f"/{_PREDICTION}/Regress": self.regress,
            f"/{_PREDICTION}/MultiInference": self.multi_inference,
            f"/{_PREDICTION}/GetModelMetadata": self.metadata,
            f"/{_MODEL}/GetModelStatus": self.status,
            f"/{_MODEL}/HandleReloadConfigRequest": self.reload,
        }
        if self.ended is not None:
            for name in _COUNTED:
                count = functools.partial(self._count, name, methods[f"/{_PREDICTION}/{name}"])
                methods[f"/{_PREDICTION}/{name}"] = count
        if self.profiler is not None:
            methods[f"/{_PROFILER}/Profile"] = self.profiler.profile
            methods[f"/{_PROFILER}/Terminate"] = self.profiler.terminate
            methods[f"/{_PROFILER}/Monitor"] = self.profiler.monitor
        self._handlers = {
            name: grpc.unary_unary_rpc_method_handler(functools.partial(self._answer, method))
            for name, method in methods.items()
        }

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a method by its full name; None if there is none."""
        if handler_call_details.method == PREDICT_METHOD:
            self._crowd.begins(time.monotonic())
        return self._handlers.get(handler_call_details.method)

    async def _answer(self, method: _Method, request_bytes: bytes, context: Any) -> bytes:
        """Call a method; what it raises becomes a status."""
        request_id = b""
        if self.request_log.logs:
            given = dict(context.invocation_metadata() or ()).get(_REQUEST_ID, "")
            request_id = self.request_log.identify(given.encode())
            context.set_trailing_metadata(((_REQUEST_ID, request_id.decode()),))
        try:
            return await method(request_bytes, context.time_remaining(), request_id)
        except MlopsMiniError as exc:
            await _abort(context, exc)
            raise  # abort has raised already

    async def _count(
        self,
        name: str,
        method: _Method,
        request_bytes: bytes,
        timeout_s: float | None,
        request_id: bytes,
    ) -> bytes:
        """Call a method, and tell `ended` how that went."""
        began_s, code = time.perf_counter(), MlopsMiniError.code
        try:
            answer = await method(request_bytes, timeout_s, request_id)
        except MlopsMiniError as exc:
            code = exc.code
            raise
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED.value[0]
            raise
        else:
            code = 0
            return answer
        finally:
            if self.ended is not None:
                self.ended(name, request_bytes, code, time.perf_counter() - began_s)

    async def predict(
        self, request_bytes: bytes, timeout_s: float | None, request_id: bytes = b""
    ) -> bytes:
        """Answer a serialized PredictRequest with a serialized PredictResponse.

        Args:
            request_bytes: The message.
            timeout_s: Longest run, seconds; None for no limit. So for the methods below.
            request_id: For the request log.
        """
        patience = self._crowd.enters(time.monotonic())
        try:
            soon = self._predict_soon(request_bytes, timeout_s, patience)
            if soon is not None:
                answered, future = soon
                response_bytes = await within(future, timeout_s)
                self._log(answered, request_id, request_bytes, response_bytes)
                return response_bytes
            request = await self._read(request_bytes)
            response = await self.predictor.predict(request, timeout_s=timeout_s, patience=patience)
        finally:
            self._crowd.leaves(time.monotonic())
        if len(request_bytes) <= MAX_INLINE_BYTES:
            self._reader.learn(request_bytes, request)
        response_bytes = await self._write(response)
        self._log(response.model_spec, request_id, request_bytes, response_bytes)
        return response_bytes

    def _log(
        self, answered: ModelSpec, request_id: bytes, request_bytes: bytes, response_bytes: bytes
    ) -> None:
        """Log a Predict, if its model has a log and it's one of the sampled."""
        log = self.request_log.sampled(answered.name) if self.request_log.logs else None
        if log is not None:
            messages = request_bytes, response_bytes
            self.request_log.add(log, "predict", answered, request_id, *messages)

    def _predict_soon(
        self, request_bytes: bytes, timeout_s: float | None, patience: Patience
    ) -> tuple[ModelSpec, asyncio.Future[bytes]] | None:
        """Let a plain request join the others; None leaves it to the exact way."""
        read = self._reader.read(request_bytes)
        if read is None or self.as_content:
            return None
        spec, alias, array = read
        found = self.predictor.find(spec)
        if found is None:
            return None
        model, servable, signature = found
        layout = signature.layout
        if layout is None or not fits(array.shape, layout.shape):
            return None
        has_floats = all(output.dtype in ("float", "double") for output in signature.outputs)
        if not has_floats or (array.dtype, (alias,)) != layout.groups[0]:
            return None
        answered = ModelSpec(
            name=spec.name, version=servable.version, signature_name=signature.name
        )
        task = Joined(
            [array], 0, len(array), n_elements=array.size, timeout_s=timeout_s,
            answer=functools.partial(write_response, answered, signature.output_aliases),
        )  # fmt: skip
        is_joined = self.predictor.submit(model, servable, signature, task, patience=patience)
        return (answered, task.future) if is_joined else None

    async def _read(self, request_bytes: bytes) -> PredictRequest:
        """Read a message: here if that is quick, else where it stops nobody."""
        if len(request_bytes) <= MAX_INLINE_BYTES:
            with contextlib.suppress(NotQuickError):
                return PredictRequest.from_bytes(request_bytes, quick=True)
        return await self.workers.do(PredictRequest.from_bytes, request_bytes)

    async def _write(self, response: PredictResponse) -> bytes:
        """Write a message: here, or where a large one stops nobody."""
        write = functools.partial(response.to_bytes, as_content=self.as_content)
        if n_bytes(response.outputs) <= MAX_INLINE_BYTES:
            return write()
        return await self.workers.do(write)

    async def classify(
        self, request_bytes: bytes, timeout_s: float | None, request_id: bytes = b""
    ) -> bytes:
        """Answer a serialized ClassificationRequest."""
        run = (self.examples.infer, CLASSIFY, request_bytes, timeout_s, request_id)
        return await self.workers.run(*run, timeout_s=timeout_s)

    async def regress(
        self, request_bytes: bytes, timeout_s: float | None, request_id: bytes = b""
    ) -> bytes:
        """Answer a serialized RegressionRequest."""
        run = (self.examples.infer, REGRESS, request_bytes, timeout_s, request_id)
        return await self.workers.run(*run, timeout_s=timeout_s)

    async def multi_inference(
        self, request_bytes: bytes, timeout_s: float | None, request_id: bytes = b""
    ) -> bytes:
        """Answer a serialized MultiInferenceRequest."""
        run = (self.examples.multi_inference, request_bytes, timeout_s, request_id)
        return await self.workers.run(*run, timeout_s=timeout_s)

    async def metadata(self, request_bytes: bytes, *_: Any) -> bytes:
        """Answer a serialized GetModelMetadataRequest."""
        return await self.workers.do(self.model_service.metadata, request_bytes)

    async def status(self, request_bytes: bytes, *_: Any) -> bytes:
        """Answer a serialized GetModelStatusRequest."""
        return await self.workers.do(self.model_service.status, request_bytes)

    async def reload(self, request_bytes: bytes, timeout_s: float | None, *_: Any) -> bytes:
        """Answer a serialized ReloadConfigRequest."""
        return await self.workers.do(self.model_service.reload, request_bytes, timeout_s)


async def _abort(context: Any, error: MlopsMiniError) -> None:
    text = str(error).encode("utf-8", "replace")
    if len(text) > _MAX_MESSAGE_BYTES:
        text = text[:_MAX_MESSAGE_BYTES] + b"...TRUNCATED"
    await context.abort(
        _CODES.get(error.code, grpc.StatusCode.UNKNOWN), text.decode("utf-8", "ignore")
    )


class _Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # grpc is untyped
    """Serving while every model answers; a model's own name asks for that model alone."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self.is_stopping = False

    def _status(self, service: str) -> Any:
        statuses = health_pb2.HealthCheckResponse
        not_ready = self._models.not_ready()
        if service in _HEALTH_NAMES:
            is_serving = not not_ready
        elif service in self._models.names():
            is_serving = service not in not_ready
        else:
            return statuses.SERVICE_UNKNOWN
        is_serving = is_serving and not self.is_stopping
        return statuses.SERVING if is_serving else statuses.NOT_SERVING

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - grpc's name
        status = self._status(request.service)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - grpc's name
        last = None
        while last is None or not self.is_stopping:
            status = self._status(request.service)
            if status != last:
                await context.write(health_pb2.HealthCheckResponse(status=status))
            last = status
            await asyncio.sleep(_WATCH_S)
        await context.write(
            health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
        )


class _Reflection(reflection.aio.ReflectionServicer):  # type: ignore[misc] # grpc is untyped
    """Describes the services; their descriptors come with TensorFlow, at the first question."""

    def __init__(self, has_health: bool) -> None:
        known = ["grpc.health.v1.Health"] if has_health else []
        super().__init__([_PREDICTION, _MODEL, reflection.SERVICE_NAME, *known])

    async def ServerReflectionInfo(  # noqa: N802 - grpc's name
        self, request_iterator: AsyncIterable[Any], unused_context: Any
    ) -> AsyncIterator[Any]:
        for name in ("", "_serving.apis.prediction_service_pb2", "_serving.apis.model_service_pb2"):
            await asyncio.to_thread(importlib.import_module, f"tensorflow{name}")
        async for response in super().ServerReflectionInfo(request_iterator, unused_context):
            yield response
