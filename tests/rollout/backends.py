"""Servers that stand for a model's versions and fail as told, each in a process of its own.

Run as `python -m tests.rollout.backends NAME STATUS SHARE DELAY_S`: a share of the predictions is
answered with the status, all after a delay; the port is printed.
"""

from __future__ import annotations

import http.server
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import urllib3

from mlops_mini.rollout.envoy import Router
from mlops_mini.rollout.policy import Backend, TrafficPolicy

MODEL = "flights"


class FakeVersion:
    """A running backend."""

    def __init__(
        self, name: str, *, status: int = 503, share: float = 0.0, delay_s: float = 0.0
    ) -> None:
        arguments = [name, str(status), str(share), str(delay_s)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.rollout.backends", *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        address = f"127.0.0.1:{int(self.process.stdout.readline())}"
        self.backend = Backend(name=name, rest=address, grpc=address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Load:
    """Clients that ask without a pause until the `with` ends, and count what they get."""

    def __init__(self, address: str, *, n_clients: int = 4, body: Any = None) -> None:
        self._url = f"http://{address}/v1/models/{MODEL}:predict"
        self._body = json.dumps({} if body is None else body)
        self._is_over = threading.Event()
        self._counts: list[Counter[int | str]] = [Counter() for _ in range(n_clients)]
        self._threads = [threading.Thread(target=self._ask, args=(c,)) for c in self._counts]

    def _ask(self, counts: Counter[int | str]) -> None:
        with urllib3.PoolManager(retries=False, timeout=30) as http_pool:
            while not self._is_over.is_set():
                try:
                    counts[http_pool.request("POST", self._url, body=self._body).status] += 1
                except urllib3.exceptions.HTTPError as exc:
                    counts[type(exc).__name__] += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    @property
    def counts(self) -> Counter[int | str]:
        """Answers by status, failures by their kind."""
        return sum(self._counts, Counter())


@contextmanager
def versions(*fakes: FakeVersion) -> Iterator[list[Backend]]:
    """Keep backends running."""
    try:
        yield [fake.backend for fake in fakes]
    finally:
        for fake in fakes:
            fake.__exit__()


def ask(router: Router, n: int, **headers: str) -> Counter[str]:
    """Ask for predictions, and count who answered, or the status of what failed."""
    url = f"http://{router.address}/v1/models/{MODEL}:predict"
    answers: Counter[str] = Counter()
    with urllib3.PoolManager(retries=False, timeout=30) as http_pool:
        for _ in range(n):
            answer = http_pool.request("POST", url, body=b"{}", headers=headers)
            answers[answer.data.decode() if answer.status == 200 else str(answer.status)] += 1
    return answers


def policy(stable: Backend, canary: Backend | None = None, **changes: object) -> TrafficPolicy:
    """Make a policy for the fake versions."""
    return TrafficPolicy(
        model=MODEL,
        stable=stable,
        canary=canary,
        per_try_timeout_s=0.5,
        **changes,  # type: ignore[arg-type]
    )


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer: the kernel waits 40 ms before it sends a second one

    def do_GET(self) -> None:
        self._answer(200)

    def do_POST(self) -> None:
        _, _, status, share, delay_s = sys.argv
        self.rfile.read(int(self.headers.get("content-length", 0)))
        time.sleep(float(delay_s))
        self._answer(int(status) if random.random() < float(share) else 200)

    def _answer(self, status: int) -> None:
        body = sys.argv[1].encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_arguments: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024

    def handle_error(self, *_arguments: object) -> None:
        pass  # Envoy closes connections to who is leaving


if __name__ == "__main__":
    random.seed(7)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()
