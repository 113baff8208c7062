"""The gRPC edge: TensorFlow Serving's services on `grpc.aio`, bytes in and bytes out.

Beside them server reflection, always, and `grpc.health.v1.Health` if it is asked for.

Source: tensorflow_serving/apis/{prediction,model}_service.proto
"""

from __future__ import annotations

import asyncio
import functools
import importlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError, UnavailableError
from mlops_mini.serving import examples
from mlops_mini.serving.inference import ModelServer
from mlops_mini.serving.model_config import SslConfig
from mlops_mini.serving.models import Models

_PREDICTION, _MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
_HEALTH_NAMES = ("", "ModelService", "PredictionService")
_WATCH_S = 0.2
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MAX_MESSAGE_BYTES = 1024
_INT32_MAX = 2**31 - 1
_Method = Callable[..., Awaitable[bytes]]


def grpc_server(
    server: ModelServer,
    address: str | None,
    *,
    socket_path: str = "",
    ssl: SslConfig | None = None,
    channel_arguments: str = "",
    has_health: bool = False,
) -> tuple[GrpcServer, int]:
    """Make the gRPC server, bound and not yet started.

    Args:
        server: What to ask.
        address: `host:port`, where port 0 takes any free one; None for no TCP.
        socket_path: Listen on this unix socket as well.
        ssl: Keys for both; None speaks plain text.
        channel_arguments: gRPC's own, as `key=value,key=value`.
        has_health: Offer `grpc.health.v1.Health`.

    Returns:
        The server, and the port it is bound to; 0 for no TCP.

    Raises:
        InvalidArgumentError: A channel argument that is none, or keys that cannot be used.
        UnavailableError: The unix socket cannot be bound.
        RuntimeError: The address cannot be bound.
    """
    no_limit = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    # Of an option that is given twice the first one counts: the user's.
    options = [*_options(channel_arguments), *no_limit, ("grpc.so_reuseport", 0)]
    api = grpc.aio.server(options=options)
    api.add_generic_rpc_handlers((_Services(server),))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(_Reflection(has_health), api)
    health = _Health(server.models)
    if has_health:
        health_pb2_grpc.add_HealthServicer_to_server(health, api)
    ports = [0]
    credentials = None if ssl is None else _credentials(ssl)
    for where in [f"unix:{socket_path}"] * bool(socket_path) + [address] * bool(address):
        try:
            if credentials is None:
                ports.append(api.add_insecure_port(where))
            else:
                ports.append(api.add_secure_port(where, credentials))
        except RuntimeError as exc:  # a bad address and unusable keys alike; a free port tells
            if credentials is not None:
                _try_keys(credentials)
            if where == address:
                raise
            raise UnavailableError(
                f"cannot listen on {where}: choose a --grpc_socket_path in a folder that is there"
            ) from exc
    return GrpcServer(api, health), ports[-1] if address else 0


class GrpcServer:
    """A bound server: `start` it, and `stop` it once."""

    def __init__(self, api: Any, health: _Health) -> None:
        self._api = api
        self._health = health

    async def start(self) -> None:
        """Answer from now on."""
        await self._api.start()

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, tell health watchers, and give those under way that long to end."""
        self._health.is_stopping = True
        await self._api.stop(grace_s)


def _options(channel_arguments: str) -> list[tuple[str, int | str]]:
    """Read channel arguments; what reads as an int32 is one.

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


class _Services(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc is untyped
    """Finds the handler of a method by its full name."""

    def __init__(self, server: ModelServer) -> None:
        methods: dict[str, _Method] = {
            f"/{_PREDICTION}/Predict": server.predict_proto,
            f"/{_PREDICTION}/Classify": functools.partial(server.infer_proto, examples.CLASSIFY),
            f"/{_PREDICTION}/Regress": functools.partial(server.infer_proto, examples.REGRESS),
            f"/{_PREDICTION}/MultiInference": server.multi_inference_proto,
            f"/{_PREDICTION}/GetModelMetadata": server.metadata_proto,
            f"/{_MODEL}/GetModelStatus": server.status_proto,
            f"/{_MODEL}/HandleReloadConfigRequest": server.reload_proto,
        }
        self._handlers = {
            name: grpc.unary_unary_rpc_method_handler(_handler(method))
            for name, method in methods.items()
        }

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)


def _handler(method: _Method) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def answer(request: bytes, context: Any) -> bytes:
        try:
            return await method(request, timeout_s=context.time_remaining())
        except MlopsMiniError as exc:
            await _abort(context, exc)
            raise  # abort has raised already

    return answer


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
