"""Real model servers in processes of their own, and plain HTTP to talk to them.

The processes come from a fork server that has imported TensorFlow once, so that each starts in a
tenth of a second; pytest's own process never imports it.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlops_mini.wire import ModelSpec, PredictRequest

T = TypeVar("T")

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["__main__", "tensorflow", "mlops_mini.serving.server"])
START_TIMEOUT_S = 120.0


def wait_until(
    look: Callable[[], T | None], what: str, *, timeout_s: float = 120.0, pace_s: float = 0.01
) -> T:
    """Look until what is seen is true, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(pace_s)
    return seen


def run_in_child(function: Callable[..., None], *arguments: Any, log_file: Path) -> None:
    """Call a function in a process that may import TensorFlow."""
    process = CONTEXT.Process(target=_redirected, args=(function, arguments, str(log_file)))
    process.start()
    process.join()
    assert process.exitcode == 0, log_file.read_text()


def copy_version(source: Path, target: Path) -> None:
    """Put a version folder in place at once, as a careful publisher does."""
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.copytree(source, unfinished)
    unfinished.rename(target)


def publish_numbered(toy_models: Path, base: Path, version: int) -> None:
    """Put the version that answers its own number under a base path."""
    copy_version(toy_models / "numbered" / str(version), base / str(version))


def predict_request(alias: str, array: Any) -> bytes:
    """Ask model m for a prediction over gRPC."""
    return PredictRequest(model_spec=ModelSpec(name="m"), inputs={alias: array}).to_bytes()


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; names of headers in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The parsed body; bytes that are not UTF-8 become surrogates."""
        return json.loads(self.body.decode("utf-8", "surrogateescape"))


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send a request and read its answer."""
    data = body.encode() if isinstance(body, str) else body
    connection.request(method, path, data, dict(headers or {}))
    response = connection.getresponse()
    names = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, response.reason, names, response.read())


class Program(subprocess.Popen[bytes]):
    """A program, under the names that a `multiprocessing.Process` has for the same."""

    @property
    def exitcode(self) -> int | None:
        return self.poll()

    def is_alive(self) -> bool:
        return self.poll() is None

    def join(self, timeout: float | None = None) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(timeout)


@dataclass
class Server:
    """A process that may serve, or wait, or have ended; `folder` holds its stdout and stderr."""

    process: Any
    folder: Path
    ports: tuple[int, int] | None = None  # REST and gRPC; None: ours writes where it listens

    @classmethod
    def start(cls, base_path: Path, folder: Path, *flags: str, name: str = "m") -> Server:
        """Start our server for a model on free ports, and wait until they are open."""
        model = (f"--model_name={name}", f"--model_base_path={base_path}")
        server = Launcher().serve(folder, *model, *flags)
        server.opened()
        return server

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text(errors="replace")

    @property
    def log_file(self) -> Path:
        """Its stderr."""
        return self.folder / "err"

    @property
    def err(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def addresses(self) -> tuple[str, str] | None:
        """Where it serves REST and gRPC, empty for nowhere; None as long as it does not."""
        if self.ports is None:
            file = self.folder / "addresses.json"
            written = json.loads(file.read_text()) if file.exists() else None
            return None if written is None else (written.get("rest", ""), written.get("grpc", ""))
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.ports[0]), 1):
            rest, grpc = self.ports
            return f"127.0.0.1:{rest}", f"127.0.0.1:{grpc}"
        return None

    @property
    def rest(self) -> str:
        return self.opened()[0]

    @property
    def grpc(self) -> str:
        return self.opened()[1]

    def opened(self) -> tuple[str, str]:
        """Wait until it serves, and return where."""

        def look() -> tuple[str, str] | None:
            addresses = self.addresses
            assert addresses or self.process.is_alive(), f"it has ended: {self.out}{self.err}"
            return addresses

        return wait_until(look, f"the ports, see {self.folder}", timeout_s=START_TIMEOUT_S)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask over a connection of its own."""
        with closing(http.client.HTTPConnection(self.rest, timeout=60)) as connection:
            return exchange(connection, method, path, body, headers)

    def predict(self, body: Any, target: str = "") -> Answer:
        """Send a body to the model's predict route; what is no text or bytes becomes JSON."""
        data = body if isinstance(body, (bytes, str)) else json.dumps(body)
        return self.ask("POST", f"/v1/models/m{target}:predict", data)

    def states(self) -> dict[int, str]:
        """States of all versions, in the order of the answer; empty while there are none."""
        answer = self.ask("GET", "/v1/models/m")
        if answer.status == 404:
            return {}
        return {int(v["version"]): v["state"] for v in answer.json["model_version_status"]}

    def wait_for(self, version: int, state: str = "AVAILABLE") -> None:
        wait_until(
            lambda: self.states().get(version) == state, f"{version} {state}, see {self.folder}"
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit status (-9 for SIGKILL)."""
        os.kill(self.process.pid, number)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end and return its status."""
        self.process.join(120)
        status = self.process.exitcode
        assert isinstance(status, int), f"still running, see {self.folder}"
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.join()


@dataclass(frozen=True)
class Launcher:
    """Starts servers: our own from the fork server, or any program with TensorFlow Serving's flags.

    For such a program: `pytest tests/conformance -m real --server-binary=PROGRAM`.
    """

    binary: str = ""

    @property
    def is_ours(self) -> bool:
        return not self.binary

    def start(self, folder: Path, *flags: str) -> Server:
        """Start one with these flags and no others."""
        folder.mkdir(parents=True, exist_ok=True)
        out, err = folder / "out", folder / "err"
        if self.is_ours:
            out.touch()
            err.touch()
            return Server(start_main(list(flags), err, out), folder)
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = Program([self.binary, *flags], stdout=out_file, stderr=err_file)
        return Server(process, folder)

    def serve(self, folder: Path, *flags: str) -> Server:
        """Start one on free ports, for both APIs."""
        if self.is_ours:
            file = f"--address_file={folder}/addresses.json"
            return self.start(folder, "--port=0", "--rest_api_port=0", file, *flags)
        rest, grpc = free_ports(2)
        server = self.start(folder, f"--port={grpc}", f"--rest_api_port={rest}", *flags)
        server.ports = rest, grpc
        return server


def free_ports(n: int) -> list[int]:
    """List ports that nothing listens on now.

    They lie below those that systems give to whoever asks for any, so that no other test that runs
    at the same time gets one of them before the server does.
    """
    ports: list[int] = []
    with ExitStack() as stack:
        while len(ports) < n:
            port = 10_000 + secrets.randbelow(22_000)
            with suppress(OSError):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                ports.append(port)
    return ports


def start_main(argv: list[str], log_file: Path, out_file: Path | None = None) -> Any:
    """Call the server's `main` in a child; its status becomes the exit code.

    Its stderr goes to the log file, and so does its stdout unless it has a file of its own.
    """
    files = (str(log_file), str(out_file or log_file))
    process = CONTEXT.Process(target=_redirected, args=(_serve, (argv,), *files))
    process.start()
    return process


def _serve(argv: list[str]) -> None:
    from mlops_mini.serving import server

    sys.exit(server.main(argv))


def _redirected(
    function: Callable[..., None], arguments: tuple[Any, ...], log_file: str, out_file: str = ""
) -> None:
    for number, file in ((1, out_file or log_file), (2, log_file)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    function(*arguments)
