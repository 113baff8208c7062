"""A server's health, asked for every 10 ms, beside whatever else happens."""

import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.serving.servers import Server, wait_until

PACE_S = 0.01


class Pulse:
    """Asks for `/healthz` again and again, and keeps how long each answer took."""

    def __init__(self, server: Server) -> None:
        self._server, self._seconds = server, list[float]()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat)

    def _beat(self) -> None:
        connection = http.client.HTTPConnection(self._server.rest, timeout=120)
        while not self._is_over.wait(PACE_S):
            began = time.perf_counter()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            self._seconds.append(time.perf_counter() - began)
        connection.close()

    def during(self, work: Callable[[], Any]) -> list[float]:
        """Work, and return the seconds of all answers from its beginning to its end."""
        first = len(self._seconds)
        work()
        last = len(self._seconds)
        wait_until(lambda: len(self._seconds) > last, "an answer after it")
        return self._seconds[first : last + 1]

    def __enter__(self) -> "Pulse":
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._is_over.set()
        self._thread.join()


@contextmanager
def others_at_work() -> Iterator[None]:
    """Keep every core busy with programs that have nothing to do with the server."""
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            program = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while 1: pass"]))
            stack.callback(program.kill)
        yield


_SPINNING = """
import threading, time
threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
longest, end = 0.0, time.perf_counter() + 2
while time.perf_counter() < end:
    began = time.perf_counter()
    time.sleep(0.01)
    longest = max(longest, time.perf_counter() - began - 0.01)
print(longest)
"""


def noise_s() -> float:
    """Measure how late a thread wakes up on this machine now, beside a busy one in its process.

    In a server that is the thread that answers, beside one that loads a model, and has nothing to
    do with how the load is written.
    """
    with others_at_work():
        said = subprocess.check_output([sys.executable, "-c", _SPINNING], text=True)
    return float(said)
