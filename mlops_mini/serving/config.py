"""The model server's flags: TensorFlow Serving's, letter for letter, and our own few.

Only `--name=value` is TensorFlow Serving's syntax; `--name value` is accepted as well. A value that
does not read is refused with the usage; an unknown argument is named and the server starts all the
same, as `tensorflow_model_server` does. What each flag means is its help text, and
docs/model-server.md is made from them.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_mini.errors import InvalidArgumentError

_INT32_MAX = 2**31 - 1
_BOOLEANS = dict.fromkeys(("true", "True", "TRUE", "1"), True) | dict.fromkeys(
    ("false", "False", "FALSE", "0"), False
)


_N_CPUS = os.cpu_count() or 1


def _flag(default: Any, help_text: str, *, kind: str = "served", **more: Any) -> Any:
    """Make a field.

    Args:
        default: Its value if the flag isn't given.
        help_text: What it means.
        kind: In which list it is shown.
        **more: `most`, a larger limit; `shown`, words for the default; `type`, unless the default
            has it.
    """
    return field(default=default, metadata={"help": help_text, "kind": kind, **more})


def _ours(default: Any, help_text: str, **more: Any) -> Any:
    return _flag(default, help_text, kind="ours", **more)


def _inert(default: Any, help_text: str = "accepted", **more: Any) -> Any:
    return _flag(default, help_text, kind="inert", **more)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """What a model server is told at its start; each attribute is the flag of the same name."""

    port: int = _flag(8500, "port of the gRPC API; 0: off")
    grpc_socket_path: str = _flag("", "unix socket to serve the gRPC API on as well")
    rest_api_port: int = _flag(0, "port of the REST API; 0: off")
    rest_api_num_threads: int = _flag(
        4 * _N_CPUS, "threads for runs too long for the event loop", shown="4 x CPUs"
    )
    rest_api_timeout_in_ms: int = _flag(30_000, "longest run of one REST inference, ms")
    rest_api_enable_cors_support: bool = _flag(False, "answer with CORS headers")
    grpc_channel_arguments: str = _flag("", "k=v,k=v: options of the gRPC server")
    grpc_max_threads: int = _flag(4 * _N_CPUS, "threads of the gRPC server", shown="4 x CPUs")
    enable_grpc_healthcheck_service: bool = _flag(False, "serve grpc.health.v1.Health")
    ssl_config_file: str = _flag("", "SSLConfig text: keys of the gRPC port, as PEM text")
    model_name: str = _flag("default", "name of the model")
    model_base_path: str = _flag("", "folder with the model's numbered versions")
    model_config_file: str = _flag("", "ModelServerConfig text; replaces the two flags above")
    model_config_file_poll_wait_seconds: int = _flag(
        0, "seconds between looks at that file; 0: never again"
    )
    file_system_poll_wait_seconds: int = _flag(
        1, "seconds between looks for new versions; 0: one look, below 0: none"
    )
    max_num_load_retries: int = _flag(5, "tries to load a version after the first has failed")
    load_retry_interval_micros: int = _flag(
        60_000_000, "microseconds between those tries; below 0: none", most=2**63 - 1
    )
    num_load_threads: int = _flag(0, "models that may load at the same time; 0: 4 x CPUs")
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "with --strict_version_labels, new labels may name a version that is not loaded"
    )
    saved_model_tags: str = _flag("serve", "tags of the graph to load, with commas between")
    enable_model_warmup: bool = _flag(True, "replay the requests of assets.extra before serving")
    num_request_iterations_for_warmup: int = _flag(0, "how often, if above 0; else once")
    enable_signature_method_name_check: bool = _flag(
        False, "classify and regress only signatures that are made for it"
    )
    enable_serialization_as_tensor_content: bool = _flag(
        False, "answer gRPC with tensor_content instead of typed values"
    )
    tensorflow_session_parallelism: int = _flag(0, "threads of both kinds below; 0: chosen for you")
    tensorflow_intra_op_parallelism: int = _flag(0, "threads inside one operation")
    tensorflow_inter_op_parallelism: int = _flag(0, "operations at the same time")
    tensorflow_session_config_file: str = _flag("", "ConfigProto text for the models' sessions")
    enable_batching: bool | None = _flag(
        None,
        "run requests together within the limits of the next flag; if false, each on its own;"
        " if not given, together where that can't change an answer",
        type=bool,
        shown="not given",
    )
    batching_parameters_file: str = _flag("", "BatchingParameters text: these limits")
    enable_per_model_batching_parameters: bool = _flag(
        False, "take them from batching_params.pbtxt in each version's folder instead"
    )
    monitoring_config_file: str = _flag(
        "", "MonitoringConfig text: Prometheus' metrics, on the REST port; without it none"
    )
    enable_profiler: bool = _flag(True, "serve tensorflow.ProfilerService on the gRPC port")
    prefer_tflite_model: bool = _flag(False, "serve a version's model.tflite, if it has one")

    num_tflite_pools: int = _inert(_N_CPUS, shown="CPUs")
    num_tflite_interpreters_per_pool: int = _inert(1)
    num_unload_threads: int = _inert(0)
    flush_filesystem_caches: bool = _inert(True)
    platform_config_file: str = _inert("")
    remove_unused_fields_from_bundle_metagraph: bool = _inert(True)
    per_process_gpu_memory_fraction: float = _inert(0.0)
    use_alts_credentials: bool = _inert(False)
    thread_pool_factory_config_file: str = _inert("")
    mixed_precision: str = _inert("")
    xla_cpu_compilation_enabled: bool = _inert(False)
    xla_gpu_compilation_enabled: bool = _inert(False)
    skip_initialize_tpu: bool = _inert(False)

    bind_address: str = _ours("127.0.0.1", "address that both ports listen on")
    address_file: str = _ours(
        "", "write the bound addresses here as JSON, by rename; makes port 0 mean any free port"
    )
    drain_timeout_s: int = _ours(10, "seconds that requests in flight get to finish after SIGTERM")
    enable_model_management: bool = _ours(
        False,
        "let gRPC reload requests change the models although other machines reach the port; on"
        " loopback, or with the client_verify of --ssl_config_file, they may in any case",
    )
    open_ports_early: bool = _ours(
        False, "open the ports before the first load of each model has ended: probe /readyz then"
    )
    strict_start: bool = _ours(False, "end if the first load of a model fails")
    rest_max_body_bytes: int = _ours(
        256 * 2**20, "largest body of a REST request, bytes; a larger one gets 413; 0: no limit"
    )
    request_log_prefix: str = _ours(
        "",
        "log requests and answers of the model as PredictionLog records, in files of names that"
        " begin so, such as /logs/m; with --model_config_file the models' logging_config says this",
    )
    request_log_sampling_rate: float = _ours(1.0, "share of requests in that log, 0 to 1")
    request_log_leave_out_features: bool = _ours(
        False, "leave the inputs out of the records of all models"
    )
    request_log_rotate_bytes: int = _ours(
        2**28, "size at which the next file of a log is begun, bytes", most=2**63 - 1
    )
    request_log_rotate_s: int = _ours(3600, "age at which it is, seconds")
    sagemaker_model: str = _ours(
        "", "answer SageMaker's GET /ping and POST /invocations for this model, on the REST port"
    )
    strict_version_labels: bool = _ours(
        False, "refuse a label of a version that is not available, instead of waiting for it"
    )

    def __post_init__(self) -> None:
        for name in ("port", "rest_api_port"):
            number = getattr(self, name)
            if not 0 <= number <= 65535:
                raise InvalidArgumentError(f"--{name}={number} is no port: use 0 to 65535")
        if not (self.model_base_path or self.model_config_file):
            raise InvalidArgumentError(
                "Both server_options.model_base_path and server_options.model_config_file are"
                " empty!"
            )
        if not (self.port or self.grpc_socket_path or self.address_file):
            raise InvalidArgumentError(
                "At least one of server_options.grpc_port or server_options.grpc_socket_path must"
                " be set."
            )
        if self.rest_max_body_bytes < 0:
            raise InvalidArgumentError(
                f"--rest_max_body_bytes={self.rest_max_body_bytes} is no size: 0 is no limit"
            )
        if self.request_log_prefix and self.model_config_file:
            raise InvalidArgumentError(
                "--request_log_prefix is for the one model of --model_base_path; in"
                f" {self.model_config_file} say logging_config {{ log_collector_config {{"
                f' filename_prefix: "{self.request_log_prefix}" }} sampling_config {{'
                f" sampling_rate: {self.request_log_sampling_rate} }} }}"
            )
        if self.request_log_rotate_bytes <= 0 or self.request_log_rotate_s <= 0:
            raise InvalidArgumentError(
                "--request_log_rotate_bytes and --request_log_rotate_s must be positive"
            )
        if self.strict_start and self.open_ports_early:
            raise InvalidArgumentError(
                "--strict_start waits for the models before the ports open, --open_ports_early does"
                " not: choose one"
            )
        if self.batching_parameters_file and not self.enable_batching:
            raise InvalidArgumentError(
                "server_options.batching_parameters_file is set without setting"
                " server_options.enable_batching to true."
            )
        parts = (self.tensorflow_intra_op_parallelism, self.tensorflow_inter_op_parallelism)
        if min(self.tensorflow_session_parallelism, *parts) > 0:
            raise InvalidArgumentError(
                "Either configure server_options.tensorflow_session_parallelism or"
                " (server_options.tensorflow_intra_op_parallelism,"
                " server_options.tensorflow_inter_op_parallelism) separately. You cannot configure"
                " all."
            )

    @property
    def inert(self) -> list[str]:
        """Name the flags that were given a value of their own and do nothing.

        >>> ServerConfig(model_base_path="/m", num_unload_threads=2).inert
        ['num_unload_threads']
        """
        return [
            f.name
            for f in dataclasses.fields(self)
            if f.metadata["kind"] == "inert" and getattr(self, f.name) != f.default
        ]


class UsageError(InvalidArgumentError):
    """A flag's value does not read; the usage should be shown."""


def parse_flags(argv: Sequence[str]) -> tuple[ServerConfig, list[str]]:
    """Read command-line flags.

    Args:
        argv: Arguments without the program's name.

    Returns:
        The configuration, and the arguments that are no flags of ours, in order.

    Raises:
        UsageError: A value does not read as the flag's type.
        InvalidArgumentError: The values read, but make no server.

    >>> parse_flags(["--model_base_path=/models/m", "--rest_api_port=8501", "--color"])[1]
    ['--color']
    """
    flags = {f.name: f for f in dataclasses.fields(ServerConfig)}
    values: dict[str, Any] = {}
    unknown: list[str] = []
    waiting = list(argv)
    while waiting:
        argument = waiting.pop(0)
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in flags:
            unknown.append(argument)
            continue
        kind = flag_type(flags[name])
        if not equals and kind is not bool and waiting and waiting[0][:2] != "--":
            equals, text = "=", waiting.pop(0)
        values[name] = _read(name, kind, text if equals else None, flags[name].metadata)
    return ServerConfig(**values), unknown


def flag_type(flag: dataclasses.Field[Any]) -> type:
    """Return the type of a flag's value."""
    kind: type = flag.metadata.get("type", type(flag.default))
    return kind


def _read(name: str, kind: type, text: str | None, metadata: Mapping[str, Any]) -> Any:
    value: Any = None
    most = metadata.get("most", _INT32_MAX)
    if kind is bool:
        value = True if text is None else _BOOLEANS.get(text)
    elif text is None or kind is str:
        value = text
    elif kind is int and re.fullmatch(r"-?[0-9]{1,19}", text):
        value = int(text) if -most - 1 <= int(text) <= most else None
    elif kind is float and re.fullmatch(r"-?[0-9]+(\.[0-9]*)?(e-?[0-9]+)?", text):
        value = float(text)
    if value is None:
        shown = "no value" if text is None else repr(text)
        raise UsageError(f"--{name} takes a value of type {kind.__name__}, got {shown}")
    return value


def suggestion(argument: str) -> str:
    r"""Write a line with the flag that an unknown argument may stand for; empty if there is none.

    >>> suggestion("--model_basepath=/m"), suggestion("extra")
    ('--model_basepath=/m: did you mean --model_base_path?\n', '')
    """
    name = argument.lstrip("-").partition("=")[0].replace("-", "_")
    flags = [f.name for f in dataclasses.fields(ServerConfig)]
    close = difflib.get_close_matches(name, flags, n=1, cutoff=0.75)
    is_flag = argument.startswith("-")
    return f"{argument}: did you mean --{close[0]}?\n" if close and is_flag else ""


def usage() -> str:
    """List all flags, one a line, with default and meaning."""
    return "\n".join(
        [
            "usage: mini-model-server --model_base_path=FOLDER [--flag=value ...]",
            "Flags:",
            *(
                f"\t--{f.name}={f.default!r:<12}\t{flag_type(f).__name__}\t{f.metadata['help']}"
                for f in dataclasses.fields(ServerConfig)
            ),
        ]
    )
