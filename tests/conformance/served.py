"""A server under test, asked in TensorFlow Serving's own terms."""

import http.client
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc

from tests.conformance import models, protos
from tests.conformance.protos import Protos
from tests.serving.servers import Answer, Server, exchange, wait_until

_NO_LIMIT = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Served:
    """A server with both its edges, asked in TensorFlow Serving's own terms."""

    def __init__(self, rest: str, grpc_address: str, known: Protos) -> None:
        self.rest, self.grpc, self.protos = rest, grpc_address, known
        self._connection = http.client.HTTPConnection(rest, timeout=60)
        self.channel = grpc.insecure_channel(grpc_address, options=_NO_LIMIT)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask over HTTP, on one connection as long as the server keeps it.

        It keeps an idle one for a limited time, so a test that waits long may find it closed. Then
        the request goes over a new one; only there is a missing answer a fault of the server.
        """
        was_kept = self._connection.sock is not None
        try:
            return self._exchange(method, path, body, headers)
        except ConnectionError:
            if not was_kept:
                raise
        return self._exchange(method, path, body, headers)

    def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | str | None,
        headers: Mapping[str, str] | None,
    ) -> Answer:
        try:
            return exchange(self._connection, method, path, body, headers)
        except (OSError, http.client.HTTPException):
            self._connection.close()  # so that one failure is not also that of the next request
            raise

    def close(self) -> None:
        self._connection.close()
        self.channel.close()

    def call(self, method: str, fields: Any) -> tuple[str, str, Any]:
        """Ask over gRPC: code, message, and the response as protobuf JSON."""
        return self.call_bytes(method, self.protos.request(method, fields))

    def call_bytes(self, method: str, data: bytes) -> tuple[str, str, Any]:
        try:
            answer = self.channel.unary_unary(protos.path(method))(data, timeout=60)
        except grpc.RpcError as exc:
            return exc.code().name, exc.details(), None
        return "OK", "", self.protos.response(method, answer)


@contextmanager
def serve_tables(
    base: Path, folder: Path, known: Protos, *flags: str
) -> Iterator[tuple[Server, Served]]:
    """Start our server with the models that `models.write_all` wrote, all loaded."""
    server = Server.start(
        base / "unused",
        folder,
        f"--model_config_file={base}/models.config",
        "--allow_version_labels_for_unavailable_models",
        *flags,
    )
    with closing(server), closing(Served(server.rest, server.grpc, known)) as served:
        wait_until(lambda: _is_loaded(served), f"all models, see {server.log_file}")
        yield server, served


def _is_loaded(served: Served) -> bool:
    """True once all versions that ever will be are available."""
    states: list[str] = []
    for name in models.CONFIGS:
        answer = served.ask("GET", f"/v1/models/{name}").json
        states += [v["state"] for v in answer.get("model_version_status", [{"state": "START"}])]
    return set(states) == {"AVAILABLE"}
