"""The model server's process: flags, ports, the configuration file, a graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import ipaddress
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import uvloop

from mlops_mini.errors import (
    CODE_NAMES,
    FailedPreconditionError,
    MlopsMiniError,
    UnavailableError,
)
from mlops_mini.serving import (
    batching_options,
    config,
    grpc_api,
    http_protocol,
    model_config,
    servables,
    warmup,
)
from mlops_mini.serving.batching_options import Batching, BatchingOptions
from mlops_mini.serving.config import ServerConfig
from mlops_mini.serving.example_methods import ExampleMethods
from mlops_mini.serving.grpc_api import GrpcApi, GrpcListener
from mlops_mini.serving.http_protocol import HttpListener
from mlops_mini.serving.http_requests import Limits
from mlops_mini.serving.lifecycle import Retries
from mlops_mini.serving.model_config import LogConfig, ModelConfig, SslConfig
from mlops_mini.serving.model_service import ModelService
from mlops_mini.serving.models import Models
from mlops_mini.serving.monitoring import DEFAULT_PATH, Monitoring
from mlops_mini.serving.predict import Predictor
from mlops_mini.serving.profiler import Profiler
from mlops_mini.serving.request_log import RequestLog
from mlops_mini.serving.rest_api import RestApi
from mlops_mini.serving.sagemaker_routes import SageMakerRoutes
from mlops_mini.serving.servables import Servable
from mlops_mini.serving.server_metrics import ServerMetrics
from mlops_mini.serving.workers import Workers

logger = logging.getLogger(__name__)

_BACKLOG = 2048
_EXIT_FAILED = 255
_IMPORTING = threading.Lock()


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mini-model-server` with the flags of `tensorflow_model_server`; return its status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    out = sys.stdout
    if "--version" in arguments:
        out.write(f"TensorFlow ModelServer: mlops_mini {installed_version('mlops_mini')}\n")
        out.write(f"TensorFlow Library: {installed_version('tensorflow')}\n")
        return 0
    if {"--help", "-h"} & {*arguments}:
        out.write(config.usage() + "\n")
        return _EXIT_FAILED
    try:
        server_config, unknown = config.parse_flags(arguments)
        if unknown:
            out.write(f"unknown argument: {unknown[0]}\n{config.usage()}\n")
            out.writelines(filter(None, map(config.suggestion, unknown)))
            out.flush()
        run(server_config)
    except config.UsageError as exc:
        out.write(f"{exc}\n{config.usage()}\n")
    except MlopsMiniError as exc:
        out.write(f"Failed to start server. Error: {CODE_NAMES[exc.code]}: {exc}\n")
        out.write(f"{exc.hint}\n" if exc.hint else "")
    else:
        return 0
    return _EXIT_FAILED


def run(server_config: ServerConfig) -> None:
    """Serve until SIGTERM or SIGINT, then let the requests in flight end.

    Raises:
        MlopsMiniError: The server cannot start: a port is taken, a file cannot be read or written,
            the models cannot be served as configured.
    """
    # Not stderr itself, which is nowhere while TensorFlow is imported.
    own_stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    logging.basicConfig(
        stream=own_stderr, level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s"
    )
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # its advice is not the user's
    for name in server_config.inert:
        logger.warning("--%s is accepted, and does nothing here", name)
    uvloop.run(_serve(server_config, _configs(server_config)))


def _configs(server_config: ServerConfig) -> list[ModelConfig]:
    if server_config.model_config_file:
        return model_config.read(Path(server_config.model_config_file), is_first=True)
    name, base_path = server_config.model_name, server_config.model_base_path
    logger.info(
        "Building single TensorFlow model file config:  model_name: %s model_base_path: %s",
        name,
        base_path,
    )
    absolute = base_path if "://" in base_path else str(Path(base_path).absolute())
    prefix, rate = server_config.request_log_prefix, server_config.request_log_sampling_rate
    log = LogConfig(prefix=Path(prefix).absolute(), sampling_rate=rate) if prefix else None
    return [ModelConfig(name=name, base_path=absolute, request_log=log)]


async def _serve(server_config: ServerConfig, configs: list[ModelConfig]) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    common_batching = batching_options.common(server_config)
    metrics = ServerMetrics(functools.partial(_tell, loop))
    models = _models(server_config, common_batching, metrics)
    metrics.models = models.by_name
    listeners: list[GrpcListener | HttpListener] = []
    _check_ports(server_config)  # before minutes may go into loading models
    ssl_file = server_config.ssl_config_file
    ssl = model_config.read_ssl(Path(ssl_file)) if ssl_file else None
    monitoring_file = server_config.monitoring_config_file
    metrics_path = ""
    if monitoring_file:
        metrics_path = model_config.read_monitoring(Path(monitoring_file), DEFAULT_PATH)
    if server_config.strict_start:
        await _until(stop, asyncio.to_thread(models.replace, configs))
    elif not server_config.open_ports_early:
        models.configure(configs)
        await _until(stop, asyncio.to_thread(models.wait_for_first_tries))
        # Also without a model: a later one must not stop the answers with an import of seconds.
        await _until(stop, asyncio.to_thread(_import_tensorflow))
    if not stop.is_set():
        listeners = await _open(server_config, common_batching, models, ssl, metrics, metrics_path)
        try:
            if server_config.open_ports_early:
                models.configure(configs)
        except MlopsMiniError:
            await _close(listeners, models, 0)
            raise
        await _until(stop, _follow(models, server_config, configs))
    await _close(listeners, models, max(server_config.drain_timeout_s, 0))


def _models(
    server_config: ServerConfig, common_batching: Batching, metrics: ServerMetrics
) -> Models:
    return Models(
        functools.partial(_load, server_config, common_batching, metrics),
        poll_wait_s=server_config.file_system_poll_wait_seconds,
        retries=Retries(
            most=server_config.max_num_load_retries,
            interval_s=max(server_config.load_retry_interval_micros, 0) / 1e6,
        ),
        n_load_threads=server_config.num_load_threads,
        strict_labels=server_config.strict_version_labels,
        allow_unavailable_labels=server_config.allow_version_labels_for_unavailable_models,
        request_log=RequestLog(
            leave_out_features=server_config.request_log_leave_out_features,
            rotate_bytes=server_config.request_log_rotate_bytes,
            rotate_s=server_config.request_log_rotate_s,
            saved_model_tags=_tags(server_config),
        ),
    )


def _load(
    server_config: ServerConfig,
    common_batching: Batching,
    metrics: ServerMetrics,
    name: str,
    folder: Path,
    version: int,
) -> Servable:
    """Load a version and warm it up."""
    with metrics.loading(name):
        is_per_model = server_config.enable_per_model_batching_parameters
        batching = batching_options.of_version(common_batching, folder, is_per_model=is_per_model)
        _import_tensorflow()
        both = server_config.tensorflow_session_parallelism
        with metrics.restoring(str(folder)):
            servable = servables.load(
                folder,
                name=name,
                version=version,
                tags=_tags(server_config),
                intra_op_threads=server_config.tensorflow_intra_op_parallelism or both,
                inter_op_threads=server_config.tensorflow_inter_op_parallelism or both,
                session_config_file=server_config.tensorflow_session_config_file,
                batching=batching,
                prefer_tflite=server_config.prefer_tflite_model,
            )
        if server_config.enable_model_warmup and warmup.has_requests(folder):
            _warm_up(server_config, metrics, servable, folder)
        return servable


def _warm_up(
    server_config: ServerConfig, metrics: ServerMetrics, servable: Servable, folder: Path
) -> None:
    iterations = server_config.num_request_iterations_for_warmup
    timeout_s = _rest_timeout_s(server_config)
    try:
        with metrics.warming_up(str(folder)):
            n_records = warmup.run(servable, folder, n_iterations=iterations, timeout_s=timeout_s)
    except MlopsMiniError:
        logger.warning("warm-up in %s fails; --enable_model_warmup=false skips it", folder)
        servable.close()
        raise
    metrics.warmed_up(str(folder), n_records)


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function on the event loop, unless that has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)


def _rest_timeout_s(server_config: ServerConfig) -> float | None:
    timeout_ms = server_config.rest_api_timeout_in_ms
    return timeout_ms / 1000 if timeout_ms > 0 else None


def _tags(server_config: ServerConfig) -> list[str]:
    return (server_config.saved_model_tags or "serve").split(",")


def _import_tensorflow() -> None:
    """Import TensorFlow, and take it out of the garbage collector's sight before a model is there.

    A walk over its 400,000 objects takes 0.2 s in which nothing is answered, at each unload.
    """
    with _IMPORTING:
        if "tensorflow" not in sys.modules or not gc.get_freeze_count():
            servables.tensorflow()
            gc.collect()
            gc.freeze()


async def _open(
    server_config: ServerConfig,
    common_batching: Batching,
    models: Models,
    ssl: SslConfig | None,
    metrics: ServerMetrics,
    metrics_path: str = "",
) -> list[GrpcListener | HttpListener]:
    """Open the ports and tell where they are; return what is to be drained at the end."""
    host = server_config.bind_address
    check_method = server_config.enable_signature_method_name_check
    workers = Workers(max(server_config.rest_api_num_threads, server_config.grpc_max_threads))
    counted, log = metrics if metrics_path else None, models.request_log
    options = common_batching if isinstance(common_batching, BatchingOptions) else BatchingOptions()
    predictor = Predictor(
        models.by_name,
        workers,
        check_method=check_method,
        n_batch_threads=options.num_batch_threads,
        metrics=counted,
    )
    examples = ExampleMethods(
        models.by_name, check_method=check_method, metrics=counted, request_log=log
    )
    may_manage = (
        server_config.enable_model_management
        or _is_loopback(host)
        or (ssl is not None and ssl.client_verify)
    )
    model_service = ModelService(models, may_manage=may_manage)
    profiler = Profiler(workers, may_write=may_manage) if server_config.enable_profiler else None
    grpc = GrpcApi(
        workers=workers,
        predictor=predictor,
        examples=examples,
        model_service=model_service,
        as_content=server_config.enable_serialization_as_tensor_content,
        ended=counted.grpc_ended if counted else None,
        profiler=profiler,
        request_log=log,
    )
    rest = RestApi(
        models=models,
        workers=workers,
        predictor=predictor,
        examples=examples,
        model_service=model_service,
        timeout_s=_rest_timeout_s(server_config),
        cors=server_config.rest_api_enable_cors_support,
        monitoring=Monitoring(metrics_path, metrics, models, predictor) if counted else None,
        request_log=log,
    )
    addresses = dict[str, str]()
    shown_host = f"[{host}]" if ":" in host else host
    rest_socket = _rest_socket(server_config)  # first: it fails before anything runs
    has_tcp = server_config.port or server_config.address_file
    try:
        grpc_listener = grpc_api.listen(
            grpc,
            models,
            f"{shown_host}:{server_config.port}" if has_tcp else None,
            socket_path=server_config.grpc_socket_path,
            ssl=ssl,
            channel_arguments=server_config.grpc_channel_arguments,
            has_health=server_config.enable_grpc_healthcheck_service,
        )
    except RuntimeError as exc:
        raise _taken("port", server_config.port, host, "address in use") from exc
    await grpc_listener.start()
    listeners: list[GrpcListener | HttpListener] = [grpc_listener]
    if has_tcp:
        addresses["grpc"] = f"{shown_host}:{grpc_listener.port}"
        logger.info("Running gRPC ModelServer at %s ...", addresses["grpc"])
    if rest_socket is not None:
        port = rest_socket.getsockname()[1]
        handler = rest.respond
        if server_config.sagemaker_model:
            handler = SageMakerRoutes(
                model=server_config.sagemaker_model,
                models=models,
                workers=workers,
                inner=rest.respond,
                ended=counted.rest_ended if counted else None,
            ).respond
        limits = Limits(body_bytes=server_config.rest_max_body_bytes or None)
        listeners.append(
            await http_protocol.serve(
                handler,
                rest_socket,
                limits,
                find_taker=rest.find_taker,
                ended=counted.rest_ended if counted else None,
            )
        )
        addresses["rest"] = f"{shown_host}:{port}"
        logger.info("Exporting HTTP/REST API at:localhost:%d ...", port)
    if server_config.address_file:
        _write_addresses(Path(server_config.address_file), addresses)
    logger.info("NET_LOG: Entering the event loop ...")
    return listeners


def _is_loopback(host: str) -> bool:
    """Say whether only this machine reaches an address.

    >>> [_is_loopback(host) for host in ("127.0.0.2", "::1", "localhost", "0.0.0.0", "::")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_ports(server_config: ServerConfig) -> None:
    """Find out whether the ports are free, and leave them closed."""
    for flag, port in (
        ("port", server_config.port),
        ("rest_api_port", server_config.rest_api_port),
    ):
        if port:
            _bind(server_config.bind_address, port, flag).close()


def _rest_socket(server_config: ServerConfig) -> socket.socket | None:
    """Bind the REST port, or return None where the flags ask for none."""
    host, port = server_config.bind_address, server_config.rest_api_port
    if not port and not server_config.address_file:
        return None
    if port and port == server_config.port:
        logger.error("--rest_api_port and --port are both %d: serving gRPC only", port)
        return None
    bound = _bind(host, port, "rest_api_port")
    bound.listen(_BACKLOG)
    return bound


def _bind(host: str, port: int, flag: str) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in host:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        bound.bind((host, port))
    except OSError as exc:
        bound.close()
        raise _taken(flag, port, host, exc.strerror) from exc
    return bound


def _taken(flag: str, port: int, host: str, reason: str | None) -> UnavailableError:
    return UnavailableError(
        f"cannot listen on {host}:{port} ({reason}): stop what listens there or choose another"
        f" --{flag}"
    )


def _write_addresses(file: Path, addresses: dict[str, str]) -> None:
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        unfinished.write_text(json.dumps(addresses))
        unfinished.rename(file)
    except OSError as exc:
        raise FailedPreconditionError(
            f"--address_file={file} cannot be written: {exc.strerror}"
        ) from exc


async def _follow(models: Models, server_config: ServerConfig, applied: list[ModelConfig]) -> None:
    """Apply the configuration file again whenever it says something new."""
    wait_s, problem = server_config.model_config_file_poll_wait_seconds, ""
    while server_config.model_config_file and wait_s > 0:
        await asyncio.sleep(wait_s)
        file = Path(server_config.model_config_file)
        applied, problem = await _apply_again(models, file, applied, problem)
    await asyncio.Event().wait()


async def _apply_again(
    models: Models, file: Path, applied: list[ModelConfig], last_problem: str
) -> tuple[list[ModelConfig], str]:
    """Look at the configuration file once; return what is applied now, and what is wrong."""
    problem = ""
    try:
        configs = await asyncio.to_thread(model_config.read, file)
        if configs != applied:
            models.configure(configs)
            applied = configs
    except MlopsMiniError as exc:
        problem = f"{exc} ({exc.hint})" if exc.hint else str(exc)
    except Exception as exc:  # noqa: BLE001 - whatever it is, later files must be looked at
        problem = repr(exc)
    if problem and problem != last_problem:
        logger.error("the configuration file is not applied, the old one stays: %s", problem)
    return applied, problem


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Work until it is done, has failed, or the server is to stop."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    if tasks[0] in done:
        tasks[0].result()


async def _close(
    listeners: Sequence[GrpcListener | HttpListener], models: Models, grace_s: int
) -> None:
    logger.info("stopping: no new requests, up to %d s for those under way", grace_s)
    deadline = time.monotonic() + grace_s
    await asyncio.gather(*(listener.drain(grace_s) for listener in listeners))
    await asyncio.to_thread(models.close, max(deadline - time.monotonic(), 0))
    if models.n_running or models.is_busy:
        logger.warning("stopped, leaving what did not end in %d s", grace_s)
        logging.shutdown()
        os._exit(0)  # TensorFlow's runs cannot be stopped, and Python would wait for their threads
    logger.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
