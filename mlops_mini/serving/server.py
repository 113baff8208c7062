"""The model server's process: ports, the thread that looks for versions, a graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import uvicorn

from mlops_mini.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    MlopsMiniError,
    UnavailableError,
)
from mlops_mini.serving import config, servables
from mlops_mini.serving.config import ServerConfig
from mlops_mini.serving.grpc_api import grpc_server
from mlops_mini.serving.inference import ModelServer
from mlops_mini.serving.lifecycle import ModelLifecycle
from mlops_mini.serving.rest_api import application

logger = logging.getLogger(__name__)

_FIRST_LOOKS_S = 0.1
_BACKLOG = 2048
_EXIT_FAILED = 255


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mini-model-server` with the flags of `tensorflow_model_server`; return its status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    out = sys.stdout
    if "--version" in arguments:
        out.write(f"TensorFlow ModelServer: mlops_mini {installed_version('mlops_mini')}\n")
        out.write(f"TensorFlow Library: {installed_version('tensorflow')}\n")
        return 0
    if "--help" in arguments:
        out.write(config.usage() + "\n")
        return _EXIT_FAILED
    try:
        server_config, unknown = config.parse_flags(arguments)
    except config.UsageError as exc:
        out.write(f"{exc}\n{config.usage()}\n")
        return _EXIT_FAILED
    except InvalidArgumentError as exc:
        out.write(f"Failed to start server. Error: INVALID_ARGUMENT: {exc}\n")
        return _EXIT_FAILED
    if unknown:
        out.write(f"unknown argument: {unknown[0]}\n{config.usage()}\n")
        out.flush()
    try:
        run(server_config)
    except (UnavailableError, FailedPreconditionError) as exc:
        code = "UNAVAILABLE" if isinstance(exc, UnavailableError) else "FAILED_PRECONDITION"
        out.write(f"Failed to start server. Error: {code}: {exc}\n")
        return _EXIT_FAILED
    return 0


def run(server_config: ServerConfig) -> None:
    """Serve until SIGTERM or SIGINT, then let the requests in flight end.

    Raises:
        UnavailableError: A port is taken.
        FailedPreconditionError: The address file cannot be written.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # its advice is not the user's
    with contextlib.ExitStack() as stack:
        rest_socket = _listen(server_config)
        if rest_socket is not None:
            stack.enter_context(rest_socket)
        uvloop_run(_serve(server_config, rest_socket))


def uvloop_run(main_task: Any) -> None:
    """Run on uvloop where there is one, else on asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main_task)
    else:
        uvloop.run(main_task)


def _listen(server_config: ServerConfig) -> socket.socket | None:
    """Bind the REST port, or return None where the flags ask for none."""
    port = server_config.rest_api_port
    if not port and not server_config.address_file:
        return None
    if port and port == server_config.port:
        logger.error("--rest_api_port and --port are both %d: serving gRPC only", port)
        return None
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((server_config.bind_address, port))
        bound.listen(_BACKLOG)
    except OSError as exc:
        bound.close()
        raise _taken("rest_api_port", port, server_config.bind_address, exc.strerror) from exc
    return bound


def _taken(flag: str, port: int, host: str, reason: str | None) -> UnavailableError:
    return UnavailableError(
        f"cannot listen on {host}:{port} ({reason}): stop what listens there or choose another"
        f" --{flag}"
    )


async def _serve(server_config: ServerConfig, rest_socket: socket.socket | None) -> None:
    name, base_path = server_config.model_name, Path(server_config.model_base_path)
    logger.info(
        "Building single TensorFlow model file config:  model_name: %s model_base_path: %s",
        name,
        base_path,
    )
    load = functools.partial(_load, name=name, timeout_ms=server_config.rest_api_timeout_in_ms)
    model = ModelLifecycle(name=name, base_path=base_path, load=load)
    models = ModelServer({name: model})
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    addresses: dict[str, str] = {}
    host = server_config.bind_address
    grpc_api: Any = None
    if server_config.port or server_config.address_file:
        try:
            grpc_api, grpc_port = grpc_server(models, f"{host}:{server_config.port}")
        except RuntimeError as exc:
            raise _taken("port", server_config.port, host, "address in use") from exc
        await grpc_api.start()
        addresses["grpc"] = f"{host}:{grpc_port}"
        logger.info("Running gRPC ModelServer at %s ...", addresses["grpc"])
    rest_api = _RestServer(models, server_config) if rest_socket is not None else None
    rest_task = None
    if rest_api is not None and rest_socket is not None:
        rest_task = asyncio.create_task(rest_api.serve(sockets=[rest_socket]))
        await rest_api.listening.wait()
        addresses["rest"] = f"{host}:{rest_socket.getsockname()[1]}"
        logger.info("Exporting HTTP/REST API at:%s ...", addresses["rest"])
    if server_config.address_file:
        _write_addresses(Path(server_config.address_file), addresses)
    logger.info("NET_LOG: Entering the event loop ...")

    poller = _Poller(model, server_config.file_system_poll_wait_seconds)
    poller.start()
    await stop.wait()

    grace_s = _grace(server_config)
    logger.info("stopping: no new requests, up to %d s for those under way", grace_s)
    deadline = time.monotonic() + grace_s
    poller.stop()
    edges: list[Any] = []
    if rest_api is not None and rest_task is not None:
        rest_api.should_exit = True
        edges.append(rest_task)
    if grpc_api is not None:
        edges.append(grpc_api.stop(grace_s))
    await asyncio.gather(*edges)
    await asyncio.to_thread(poller.join, max(deadline - time.monotonic(), 0))
    if model.n_running or poller.is_alive():
        logger.warning("stopped, leaving what did not end in %d s", grace_s)
        logging.shutdown()
        os._exit(0)  # TensorFlow's runs cannot be stopped, and Python would wait for their threads
    logger.info("stopped")


def _grace(server_config: ServerConfig) -> int:
    return max(server_config.drain_timeout_s, 0)


def _load(path: Path, version: int, *, name: str, timeout_ms: int) -> servables.Servable:
    return servables.load(path, name=name, version=version, timeout_ms=timeout_ms)


def _write_addresses(file: Path, addresses: dict[str, str]) -> None:
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        unfinished.write_text(json.dumps(addresses))
        unfinished.rename(file)
    except OSError as exc:
        raise FailedPreconditionError(
            f"--address_file={file} cannot be written: {exc.strerror}"
        ) from exc


class _RestServer(uvicorn.Server):
    """uvicorn without its signal handlers, which would end the process with the signal's status."""

    def __init__(self, models: ModelServer, server_config: ServerConfig) -> None:
        super().__init__(
            uvicorn.Config(
                application(models),
                http="httptools",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=_grace(server_config),
            )
        )
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Poller(threading.Thread):
    """Looks for versions until it is told to stop; a failing look is logged, never the last one."""

    def __init__(self, model: ModelLifecycle, poll_wait_s: int) -> None:
        super().__init__(name="version-poller", daemon=True)
        self._model = model
        self._poll_wait_s = poll_wait_s
        self._stopped = threading.Event()

    def run(self) -> None:
        while self._poll_wait_s >= 0 and not self._stopped.is_set():
            try:
                self._model.tick()
            except (MlopsMiniError, OSError):
                logger.exception("a look for versions failed; the next one follows")
            if self._poll_wait_s == 0 and not self._model.is_waiting:
                return
            wait_s = _FIRST_LOOKS_S if self._model.is_waiting else self._poll_wait_s
            self._stopped.wait(wait_s)

    def stop(self) -> None:
        self._stopped.set()


if __name__ == "__main__":
    sys.exit(main())
