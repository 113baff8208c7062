"""Which models to serve: TensorFlow Serving's configuration files, read and checked.

Text of the protobuf messages ModelServerConfig (models, policies, labels), SSLConfig (keys of the
gRPC port) and MonitoringConfig. The class of the first comes from `tensorflow-serving-api` and is
one of the few in it that do not import TensorFlow; others are not in that package and are described
where they are read, by `read_text`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError

logger = logging.getLogger(__name__)

PLATFORM = "tensorflow"
_COLLECTORS = ("", "tfrecord")
_PREFIX = "with /logs/m, say, its files are /logs/m-*.tfrecord"


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionPolicy:
    """Which of the versions on the disk are served.

    Attributes:
        n_latest: Serve that many of the highest ones; 0 is all of them.
        specific: Serve these and no others, where any are given.
    """

    n_latest: int = 1
    specific: frozenset[int] = frozenset()

    def candidates(self, present: Iterable[int]) -> list[int]:
        """List the versions that may be served, highest first; `limit` tells how many of them.

        >>> VersionPolicy(specific=frozenset({1, 3, 4})).candidates([1, 2, 3])
        [3, 1]
        """
        return sorted((n for n in present if not self.specific or n in self.specific), reverse=True)

    @property
    def limit(self) -> int | None:
        """How many of the candidates are served; None is all of them."""
        return None if self.specific else self.n_latest or None


@dataclass(frozen=True, kw_only=True, slots=True)
class LogConfig:
    """Which requests of a model are logged, and where.

    Attributes:
        prefix: Absolute path with which the names of all files of the log begin.
        sampling_rate: The share of requests that is logged, chosen at random, 0 to 1.
    """

    prefix: Path
    sampling_rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.sampling_rate <= 1:
            raise InvalidArgumentError(f"sampling_rate is {self.sampling_rate}, not 0 to 1")
        if not self.prefix.name:
            raise InvalidArgumentError(f"a request log cannot begin with {self.prefix}: {_PREFIX}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """One model to serve.

    Attributes:
        name: What requests call it.
        base_path: Folder whose numbered subfolders are the versions: a path, or `file:` and a path.
        platform: Always `tensorflow` in a set of models that is served.
        policy: Which versions are served.
        labels: Version numbers by label.
        request_log: Where requests are logged; None for nowhere.
    """

    name: str
    base_path: str
    platform: str = PLATFORM
    policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = field(default_factory=dict)
    request_log: LogConfig | None = None

    def __post_init__(self) -> None:
        if not (self.base_path.startswith("/") or "://" in self.base_path):
            raise InvalidArgumentError(
                f"Expected model {self.name} to have an absolute path or URI; got"
                f" base_path()={self.base_path}"
            )
        if "://" in self.base_path and not self.base_path.startswith("file:///"):
            raise InvalidArgumentError(
                f"model {self.name} is at {self.base_path}, but only local folders are served:"
                " mount it, or copy it to one"
            )

    @property
    def folder(self) -> Path:
        """The base path on this machine."""
        return Path(self.base_path.removeprefix("file://"))


def read(path: Path, *, is_first: bool = False) -> list[ModelConfig]:
    """Read and check a model configuration file.

    Args:
        path: The file.
        is_first: An empty file is an error for a server that runs, not for one that starts: it may
            be on its way to be written.

    Raises:
        NotFoundError: There is no such file, or it cannot be read.
        InvalidArgumentError: It does not parse, or asks for something that cannot be served.
        FailedPreconditionError: It is empty.
    """
    server_config = _parse(path, model_server_config_pb2.ModelServerConfig(), is_first=is_first)
    if not (is_first or server_config.WhichOneof("config")):
        raise FailedPreconditionError(
            "Cannot transition to requested config. It is only legal to transition from one"
            " ModelConfigList to another."
        )
    return from_message(server_config)


def from_message(server_config: Any) -> list[ModelConfig]:
    """Check a `tensorflow.serving.ModelServerConfig`, as it comes in a file or a reload request.

    Raises:
        InvalidArgumentError: In TensorFlow Serving's words, what is wrong with it.

    >>> message = model_server_config_pb2.ModelServerConfig()
    >>> model = message.model_config_list.config.add(name="m", base_path="/models/m")
    >>> model.model_platform = "tensorflow"
    >>> [model.name for model in from_message(message)]
    ['m']
    """
    if server_config.WhichOneof("config") == "custom_model_config":
        raise InvalidArgumentError("Missing custom_model_config_loader in ServerCore Options")
    messages = server_config.model_config_list.config
    names: set[str] = set()
    for message in messages:
        if message.name in names:
            raise InvalidArgumentError(
                f"Illegal to list model {message.name} multiple times in config list"
            )
        names.add(message.name)
    # One check of all models comes before the next: names, paths, platforms, logging.
    configs = [
        ModelConfig(
            name=message.name,
            base_path=message.base_path,
            policy=_policy(message.model_version_policy),
            labels=dict(message.version_labels),
        )
        for message in messages
    ]
    platforms = list(map(_platform, messages))
    logs = list(map(_request_log, messages))
    return [
        replace(config, platform=platform, request_log=log)
        for config, platform, log in zip(configs, platforms, logs, strict=True)
    ]


def _platform(message: Any) -> str:
    """Name the platform; the field `model_type` is its old spelling."""
    if bool(message.model_type) == bool(message.model_platform):
        which, other = ("both", "and") if message.model_type else ("neither", "nor")
        raise InvalidArgumentError(
            f"Illegal setting {which} ModelServerConfig::model_type (deprecated) {other}"
            f" ModelServerConfig::model_platform, model name is {message.name}"
        )
    if message.model_type > 1:
        raise InvalidArgumentError(
            f"ModelServerConfig::model_type choice {message.model_type} not supported."
        )
    return str(message.model_platform) or PLATFORM


def _request_log(message: Any) -> LogConfig | None:
    """Read a model's LoggingConfig.

    Source: tensorflow_serving/config/logging_config.proto, core/request_logger.cc
    """
    if not message.HasField("logging_config"):
        return None
    logging_config = message.logging_config
    collector, sampling = logging_config.log_collector_config, logging_config.sampling_config
    if collector.type not in _COLLECTORS:
        raise NotFoundError(
            f"Cannot find LogCollector::Factory for type: {collector.type}; there is tfrecord"
        )
    if logging_config.HasField("custom_logging_config"):
        raise InvalidArgumentError(
            f"model {message.name} has a custom_logging_config, which nothing here can read"
        )
    # This server is task 0 of no data center. The first rule that fits it counts.
    rates = [
        rule.sampling_rate
        for rule in sampling.per_task_sampling_configs
        if not rule.dc and not rule.task_index
    ]
    rate = (*rates, sampling.sampling_rate)[0]
    if not rate:
        logger.warning("nothing of model %s is logged: its sampling_rate is 0", message.name)
    if not collector.filename_prefix:
        error = InvalidArgumentError("No request-logger-creator provided.")
        error.hint = (
            f"the logging_config of model {message.name} needs a filename_prefix: {_PREFIX}"
        )
        raise error
    return LogConfig(prefix=Path(collector.filename_prefix).absolute(), sampling_rate=rate)


def _policy(message: Any) -> VersionPolicy:
    match message.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy(n_latest=0)
        case "specific" if message.specific.versions:
            return VersionPolicy(specific=frozenset(message.specific.versions))
        case _:
            return VersionPolicy(n_latest=max(message.latest.num_versions, 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class SslConfig:
    """Keys of the gRPC port, each the text of a PEM file.

    Attributes:
        server_key: The server's private key.
        server_cert: Its certificate, or chain of them.
        custom_ca: Certificates that sign the clients'; empty for none.
        client_verify: True if a client must show a certificate.
    """

    server_key: str
    server_cert: str
    custom_ca: str = ""
    client_verify: bool = False


def read_ssl(path: Path) -> SslConfig:
    """Read the keys of the gRPC port from an SSLConfig text file.

    Raises:
        NotFoundError: There is no such file, or it cannot be read.
        InvalidArgumentError: It does not parse.
    """
    texts = ("server_key", "server_cert", "custom_ca")
    fields = dict.fromkeys(texts, "string") | {"client_verify": "bool"}
    message = read_text(path, "SSLConfig", fields)
    return SslConfig(**{name: getattr(message, name) for name in fields})


def read_monitoring(path: Path, default_path: str) -> str:
    """Read a MonitoringConfig text file: where the metrics are to be, empty for nowhere.

    Args:
        path: The file.
        default_path: Where they are if the file doesn't say.

    Raises:
        NotFoundError: There is no such file, or it cannot be read.
        InvalidArgumentError: It does not parse, or the metrics' path is none.
    """
    fields = {"prometheus_config": {"enable": "bool", "path": "string"}}
    prometheus = read_text(path, "MonitoringConfig", fields).prometheus_config
    if prometheus.path and not re.fullmatch("/[^?#]*", prometheus.path):
        raise InvalidArgumentError(
            f"--monitoring_config_file={path}: path is {prometheus.path!r}, but must begin with /"
            f" and have neither ? nor #, such as {default_path}"
        )
    return (prometheus.path or default_path) if prometheus.enable else ""


def read_text(path: Path, name: str, fields: Mapping[str, str | Mapping[str, str]]) -> Any:
    """Read a text file of a message that `tensorflow-serving-api` lacks.

    Args:
        path: The file.
        name: The message's, in the package `tensorflow.serving`.
        fields: The type of each field, numbered from 1, or the fields of the message in it; `int64`
            is a list of them.

    Raises:
        NotFoundError: There is no such file, or it cannot be read.
        InvalidArgumentError: It does not parse.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{name}.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    _describe(file.message_type.add(name=name), f".tensorflow.serving.{name}", fields)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName(f"tensorflow.serving.{name}")
    return _parse(path, message_factory.GetMessageClass(descriptor)())


def _describe(
    message_type: Any, full_name: str, fields: Mapping[str, str | Mapping[str, str]]
) -> None:
    field_type = descriptor_pb2.FieldDescriptorProto
    for number, (name, kind) in enumerate(fields.items(), 1):
        label = field_type.LABEL_REPEATED if kind == "int64" else field_type.LABEL_OPTIONAL
        described = message_type.field.add(name=name, number=number, label=label)
        if not isinstance(kind, str):
            described.type, described.type_name = field_type.TYPE_MESSAGE, f"{full_name}._{name}"
            _describe(message_type.nested_type.add(name=f"_{name}"), described.type_name, kind)
        elif "." in kind:
            described.type, described.type_name = field_type.TYPE_MESSAGE, f".{kind}"
        else:
            described.type = field_type.Type.Value(f"TYPE_{kind.upper()}")


def _parse(path: Path, message: Any, *, is_first: bool = True) -> Any:
    try:
        return text_format.Parse(path.read_bytes(), message)
    except OSError as exc:
        raise NotFoundError(f"{path}; {exc.strerror}") from exc
    except (text_format.ParseError, UnicodeDecodeError) as exc:
        words = f"Error parsing text-format {type(message).DESCRIPTOR.full_name}: {exc}"
        problem = InvalidArgumentError(f"Invalid protobuf file: '{path}'")
        if is_first:
            logger.error("%s", words)  # noqa: TRY400 - TensorFlow Serving's line
        else:
            problem.hint = words
        raise problem from exc
