"""Real model servers in processes of their own, and plain HTTP to talk to them.

The processes come from a fork server that has imported TensorFlow once, so that each starts in a
tenth of a second; pytest's own process never imports it.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from mlops_mini.wire import ModelSpec, PredictRequest

T = TypeVar("T")

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["__main__", "tensorflow", "mlops_mini.serving.server"])
START_TIMEOUT_S = 120.0


def wait_until(
    look: Callable[[], T | None], what: str, *, timeout_s: float = 120.0, pace_s: float = 0.01
) -> T:
    """Look until there is something true."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(pace_s)
    return found


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
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A server on free ports; `rest` and `grpc` are the addresses it wrote."""

    process: Any
    log_file: Path
    rest: str
    grpc: str

    @classmethod
    def start(cls, base_path: Path, folder: Path, *flags: str, name: str = "m") -> Self:
        """Start one and wait for its address file."""
        folder.mkdir(parents=True, exist_ok=True)
        address_file, log_file = folder / "addresses.json", folder / "server.log"
        argv = [
            f"--model_name={name}",
            f"--model_base_path={base_path}",
            f"--address_file={address_file}",
            "--port=0",
            "--rest_api_port=0",
            *flags,
        ]
        process = start_main(argv, log_file)
        wait_until(
            lambda: address_file.exists() or not process.is_alive(),
            f"the address file, see {log_file}",
            timeout_s=START_TIMEOUT_S,
        )
        assert address_file.exists(), log_file.read_text()
        addresses = json.loads(address_file.read_text())
        return cls(process, log_file, addresses.get("rest", ""), addresses.get("grpc", ""))

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask over a connection of its own."""
        host, port = self.rest.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

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
            lambda: self.states().get(version) == state, f"{version} {state}, see {self.log_file}"
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit status (-9 for SIGKILL)."""
        os.kill(self.process.pid, number)
        self.process.join(120)
        status = self.process.exitcode
        assert status is not None, f"still running, see {self.log_file}"
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.join()


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
