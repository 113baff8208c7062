"""Servers that a test starts itself: ours, or any program with TensorFlow Serving's flags.

Such a program: `pytest tests/conformance -m real --server-binary=/usr/bin/tensorflow_model_server`.
"""

import json
import secrets
import socket
import subprocess
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.protos import Protos
from tests.serving.servers import start_main, wait_until


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
class Launched:
    """A process that may serve, or wait, or have ended; `folder` holds its stdout and stderr."""

    process: Any
    folder: Path
    ports: tuple[int, int] | None = None  # REST and gRPC; None: ours writes where it listens

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text(errors="replace")

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text(errors="replace")

    @property
    def addresses(self) -> tuple[str, str] | None:
        """Where it serves REST and gRPC; None as long as it does not."""
        if self.ports is None:
            file = self.folder / "addresses.json"
            written = json.loads(file.read_text()) if file.exists() else {}
            return (written["rest"], written["grpc"]) if "rest" in written else None
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.ports[0]), 1):
            rest, grpc = self.ports
            return f"127.0.0.1:{rest}", f"127.0.0.1:{grpc}"
        return None

    def opened(self) -> tuple[str, str]:
        """Wait until it serves."""

        def look() -> tuple[str, str] | None:
            assert self.process.is_alive(), f"it has ended: {self.out}{self.err}"
            return self.addresses

        return wait_until(look, f"the ports, see {self.folder}", timeout_s=60)

    def ended(self) -> int:
        """Wait for its end and return its status."""
        self.process.join(60)
        status = self.process.exitcode
        assert isinstance(status, int), f"still running, see {self.folder}"
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.join()


@dataclass(frozen=True)
class Launcher:
    """Starts servers: our own from the fork server, or another program."""

    binary: str = ""

    @property
    def is_ours(self) -> bool:
        return not self.binary

    def start(self, folder: Path, *flags: str) -> Launched:
        """Start one with these flags and no others."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.is_ours:
            out, err = folder / "out", folder / "err"
            out.touch()
            err.touch()
            return Launched(start_main(list(flags), err, out), folder)
        with (folder / "out").open("wb") as out_file, (folder / "err").open("wb") as err_file:
            process = Program([self.binary, *flags], stdout=out_file, stderr=err_file)
        return Launched(process, folder)

    def serve(self, folder: Path, *flags: str) -> Launched:
        """Start one on free ports, for both APIs."""
        if self.is_ours:
            file = f"--address_file={folder}/addresses.json"
            return self.start(folder, "--port=0", "--rest_api_port=0", file, *flags)
        rest, grpc = free_ports(2)
        launched = self.start(folder, f"--port={grpc}", f"--rest_api_port={rest}", *flags)
        launched.ports = rest, grpc
        return launched


class Stage:
    """A server, its configuration file, and the folder in which the models of its plays are."""

    def __init__(
        self, launcher: Launcher, numbered: Path, known: Protos, folder: Path, *flags: str
    ) -> None:
        self.numbered, self.protos, self.folder = numbered, known, folder
        self.file = folder / "models.config"
        self.flags = (f"--model_config_file={self.file}", *flags)
        self.server: Launched
        self._launcher = launcher
        self._entries: dict[str, str] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        self.server = self._launcher.serve(self.folder / "server", *self.flags)

    def configure(self, name: str, words: list[str]) -> str:
        """Set the model's entry and return the text of all of them.

        The words are a policy, versions, `label=version`; or `gone`.
        """
        policy, numbers, more = "latest", list[str](), ""
        for word in words:
            key, equals, value = word.partition("=")
            if equals:
                more += f' version_labels {{ key: "{key}" value: {value} }}'
            elif word.isdigit():
                numbers.append(word)
            else:
                policy = word
        field = {"latest": "num_versions", "specific": "versions"}.get(policy)
        values = " ".join(f"{field}: {number}" for number in numbers)
        with self._lock:
            self._entries[name] = "" if policy == "gone" else (
                f'config {{ name: "{name}" base_path: "{self.folder}/{name}"'
                ' model_platform: "tensorflow"'
                f" model_version_policy {{ {policy} {{ {values} }} }}{more} }}"
            )  # fmt: skip
            return f"model_config_list {{ {' '.join(self._entries.values())} }}"

    def write(self, text: str) -> None:
        with self._lock:
            self.file.with_suffix(".new").write_text(text)
            self.file.with_suffix(".new").rename(self.file)

    def close(self) -> None:
        if hasattr(self, "server"):
            self.server.close()


def free_ports(n: int) -> list[int]:
    """Find ports that nothing listens on now.

    They lie below those that systems give to whoever asks for any, so that no other test that runs
    at the same time gets one of them before the server does.
    """
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < n:
            port = 10_000 + secrets.randbelow(22_000)
            with suppress(OSError):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                found.append(port)
    return found
