"""The connection that all tables share: kept while the server keeps it, and opened again."""

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.conformance.protos import Protos
from tests.conformance.served import Served

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Impatient:
    """A server that answers some requests on each connection, then closes it without a word."""

    def __init__(self, *n_answers: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.n_asked = 0
        self.closed = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve, args=n_answers)
        self._thread.start()

    def _serve(self, *n_answers: int) -> None:
        for n in n_answers:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # nobody came, and it is closed
                return
            with connection, connection.makefile("rb") as lines:
                for _ in range(n):
                    while lines.readline().strip():
                        pass
                    self.n_asked += 1
                    connection.sendall(ANSWER)
            self.closed.release()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._listener.close()
        self._thread.join()


@contextlib.contextmanager
def asking(serving_protos: Protos, *n_answers: int) -> Iterator[tuple[Impatient, Served]]:
    server = Impatient(*n_answers)
    with closing(server), closing(Served(server.address, server.address, serving_protos)) as served:
        yield server, served


def test_a_connection_that_was_idle_too_long_is_opened_again(serving_protos: Protos) -> None:
    with asking(serving_protos, 2, 1) as (server, served):
        for _ in range(2):
            assert served.ask("GET", "/").json == {}
        assert server.closed.acquire(timeout=60)

        assert served.ask("GET", "/").json == {}
        assert server.n_asked == 3


def test_a_server_that_does_not_answer_on_a_new_connection_is_no_idle_one(
    serving_protos: Protos,
) -> None:
    with asking(serving_protos, 0, 1) as (server, served):
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            served.ask("GET", "/")

        assert served.ask("GET", "/").json == {}  # the failure is that of one request alone
        assert server.n_asked == 1
