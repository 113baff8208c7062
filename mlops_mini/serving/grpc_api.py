"""The gRPC edge: PredictionService on `grpc.aio`, bytes in and bytes out.

Source: tensorflow_serving/apis/prediction_service.proto
"""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from mlops_mini.errors import MlopsMiniError
from mlops_mini.serving.inference import ModelServer
from mlops_mini.wire import PREDICT_METHOD

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MAX_MESSAGE_BYTES = 1024


def grpc_server(server: ModelServer, address: str) -> tuple[Any, int]:
    """Make the gRPC server, bound and not yet started.

    Args:
        server: What to ask.
        address: `host:port`; port 0 takes any free one.

    Returns:
        The server, and the port it is bound to.

    Raises:
        RuntimeError: The address cannot be bound.
    """
    no_limit = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    api = grpc.aio.server(options=[*no_limit, ("grpc.so_reuseport", 0)])
    api.add_generic_rpc_handlers((_PredictionService(server),))
    return api, api.add_insecure_port(address)


class _PredictionService(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc is untyped
    """Finds the handler of a method by its full name."""

    def __init__(self, server: ModelServer) -> None:
        async def predict(request: bytes, context: Any) -> bytes:
            try:
                return await server.predict_proto(request)
            except MlopsMiniError as exc:
                await _abort(context, exc)
                raise  # abort has raised already

        self._handlers = {PREDICT_METHOD: grpc.unary_unary_rpc_method_handler(predict)}

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)


async def _abort(context: Any, error: MlopsMiniError) -> None:
    text = str(error).encode("utf-8", "replace")
    if len(text) > _MAX_MESSAGE_BYTES:
        text = text[:_MAX_MESSAGE_BYTES] + b"...TRUNCATED"
    await context.abort(
        _CODES.get(error.code, grpc.StatusCode.UNKNOWN), text.decode("utf-8", "ignore")
    )
