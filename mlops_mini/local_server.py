"""A model server as a child process on free ports, ready to be asked; ours, unless told otherwise.

Loops, tests and notebooks start servers through this module, so that none outlives them and no port
has to be chosen or known.
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, Self, TypeVar
from urllib.parse import quote

from mlops_mini.client import Client, GrpcClient, RestClient
from mlops_mini.errors import UnavailableError
from mlops_mini.processes import ChildProcess, may_fork

_START_TIMEOUT_S = 300.0  # the ports open after the first load
_LOAD_TIMEOUT_S = 180.0  # on a busy machine TensorFlow alone may take a minute
_DIED_S = 2.0

OURS = (sys.executable, "-m", "mlops_mini.serving.server", "--port=0")
Transport = Literal["rest", "grpc"]
C = TypeVar("C", bound=Client)


class LocalServer:
    """A model server as a child process, on free ports; it ends with the `with`, or with us.

    If this process has imported TensorFlow and has done nothing else yet, the server is a fork of
    it: that saves the seconds that the import takes.
    """

    def __init__(
        self,
        model_folder: Path,
        folder: Path,
        *,
        flags: Sequence[str] = (),
        program: Sequence[str] = OURS,
        is_awaited: bool = True,
    ) -> None:
        """Start it.

        Args:
            model_folder: The model's folder of versions; its name is the model's.
            folder: Receives the server's log, `server.log`, appended.
            flags: More of the server's flags, such as `--model_config_file=/models/models.config`.
            program: Starts the server, ours by default. Any program will do that understands
                `--model_name`, `--model_base_path`, `--rest_api_port` and `--address_file`.
            is_awaited: Whether to wait until it listens. Else whoever asks for it waits.

        Raises:
            UnavailableError: It has ended.
            DeadlineExceededError: It doesn't listen in time.
        """
        folder.mkdir(parents=True, exist_ok=True)
        # A name that nothing else has: whose it is need not be asked when it goes.
        self._address_file = folder / f".addresses-{secrets.token_hex(8)}.json"
        arguments = [
            *program,
            f"--model_name={model_folder.name}",
            f"--model_base_path={model_folder}",
            "--rest_api_port=0",
            f"--address_file={self._address_file}",
            *flags,
        ]
        is_forked = program == OURS and "tensorflow" in sys.modules and may_fork()
        self.process = ChildProcess(
            partial(_serve, arguments[len(OURS) - 1 :]) if is_forked else arguments,
            name="the model server",
            log_file=folder / "server.log",
        )
        self._model = model_folder.name
        if is_awaited:
            self.address("rest")

    @cached_property
    def _addresses(self) -> dict[str, str]:
        """Where it listens, by transport, once it does."""
        try:
            self.process.wait_for(
                lambda: self._address_file.exists() or None,
                what="the model server to listen",
                timeout_s=_START_TIMEOUT_S,
            )
            return dict(json.loads(self._address_file.read_text()))
        except BaseException:
            self.process.close()
            raise
        finally:
            self._address_file.unlink(missing_ok=True)

    @property
    def rest_url(self) -> str:
        """Where the model's REST API is, without a slash at the end; add `:predict` to ask."""
        return f"http://{self._addresses['rest']}/v1/models/{quote(self._model, safe='')}"

    def address(self, transport: Transport) -> str:
        """Tell where it listens, `IP:PORT`."""
        return self._addresses[transport]

    def client(self, transport: Transport) -> AbstractContextManager[Client]:
        """Make a client of the server; when the server is gone, its end is the error raised."""
        make = {"rest": RestClient, "grpc": GrpcClient}[transport]
        return self._watched(make(self._addresses[transport], model=self._model))

    def wait_until_served(self, version: int) -> None:
        """Return once a version answers.

        Raises:
            UnavailableError: The server is gone.
            DeadlineExceededError: The version was not loaded in time.
        """
        with self._watched(RestClient(self._addresses["rest"], model=self._model)) as client:
            client.wait_until_available(version, timeout_s=_LOAD_TIMEOUT_S)

    @contextmanager
    def _watched(self, client: C) -> Iterator[C]:
        with client:
            try:
                yield client
            except UnavailableError:
                self.process.check_alive(grace_s=_DIED_S)
                raise

    def close(self) -> None:
        """Stop it: no new requests, those under way end."""
        self.process.close()
        self._address_file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _serve(arguments: Sequence[str]) -> int:
    from mlops_mini.serving import server

    return server.main(arguments)


def run_script(file: Path, *arguments: str, timeout_s: float = 120.0) -> tuple[ChildProcess, str]:
    """Run a script that serves HTTP at a port which it's given as its last argument.

    Args:
        file: A Python file; its log is written beside it.
        arguments: What it's given before the port.
        timeout_s: Seconds to wait until it listens.

    Returns:
        Its process, to be closed, and where it listens, such as `http://127.0.0.1:8501`.

    Raises:
        UnavailableError: It ended.
        DeadlineExceededError: It doesn't listen in time.
    """
    with socket.create_server(("127.0.0.1", 0)) as anybody:
        port = int(anybody.getsockname()[1])
    command = [sys.executable, str(file), *arguments, str(port)]
    process = ChildProcess(command, name=file.stem, log_file=file.with_suffix(".log"))

    def look() -> bool | None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return None

    try:
        process.wait_for(look, what=f"{file.name} to listen", timeout_s=timeout_s)
    except BaseException:
        process.close()
        raise
    return process, f"http://127.0.0.1:{port}"
