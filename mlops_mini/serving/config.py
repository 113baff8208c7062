"""The model server's flags: TensorFlow Serving's, letter for letter, and our own few.

Only `--name=value` is TensorFlow Serving's syntax; `--name value` is accepted as well. A value that
does not read is refused with the usage; an unknown argument is named and the server starts all the
same, as `tensorflow_model_server` does.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_mini.errors import InvalidArgumentError

_INT32_MAX = 2**31 - 1
_BOOLEANS = dict.fromkeys(("true", "True", "TRUE", "1"), True) | dict.fromkeys(
    ("false", "False", "FALSE", "0"), False
)


def _flag(default: Any, help_text: str, *, ours: bool = False) -> Any:
    return field(default=default, metadata={"help": help_text, "ours": ours})


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """What a model server is told at its start; each attribute is the flag of the same name.

    Attributes:
        port: gRPC port; 0 means none, or any free one when `address_file` is given.
        rest_api_port: REST port; 0 means none, or any free one when `address_file` is given.
        rest_api_timeout_in_ms: Longest run of one REST inference, milliseconds.
        model_name: Name under which the model is served.
        model_base_path: Folder whose numbered subfolders are the versions.
        file_system_poll_wait_seconds: Seconds between looks at that folder; 0 is once, below 0 is
            never.
        bind_address: Ours. Address both ports listen on; TensorFlow Serving listens on 0.0.0.0.
        address_file: Ours. Receives the bound addresses, as JSON with the keys `rest` and `grpc`,
            by rename, once both listen.
        drain_timeout_s: Ours. Seconds that requests in flight get to finish after SIGTERM.
    """

    port: int = _flag(8500, "port of the gRPC API; 0: off")
    rest_api_port: int = _flag(0, "port of the REST API; 0: off")
    rest_api_timeout_in_ms: int = _flag(30_000, "longest run of one REST inference, ms")
    model_name: str = _flag("default", "name of the model")
    model_base_path: str = _flag("", "folder with the model's numbered versions")
    file_system_poll_wait_seconds: int = _flag(
        1, "seconds between looks for new versions; 0: one look, below 0: none"
    )
    bind_address: str = _flag(
        "127.0.0.1", "address to listen on; TensorFlow Serving's is 0.0.0.0", ours=True
    )
    address_file: str = _flag(
        "", "write the bound addresses here; makes port 0 mean any free port", ours=True
    )
    drain_timeout_s: int = _flag(10, "seconds to finish requests after SIGTERM", ours=True)

    def __post_init__(self) -> None:
        for name in ("port", "rest_api_port"):
            number = getattr(self, name)
            if not 0 <= number <= 65535:
                raise InvalidArgumentError(f"--{name}={number} is no port: use 0 to 65535")
        if not self.model_base_path:
            raise InvalidArgumentError(
                "Both server_options.model_base_path and server_options.model_config_file are"
                " empty!"
            )
        if not (self.port or self.address_file):
            raise InvalidArgumentError(
                "At least one of server_options.grpc_port or server_options.grpc_socket_path must"
                " be set."
            )


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
    types = {f.name: type(f.default) for f in dataclasses.fields(ServerConfig)}
    values: dict[str, Any] = {}
    unknown: list[str] = []
    waiting = list(argv)
    while waiting:
        argument = waiting.pop(0)
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in types:
            unknown.append(argument)
            continue
        if not equals and types[name] is not bool and waiting and waiting[0][:2] != "--":
            equals, text = "=", waiting.pop(0)
        values[name] = _read(name, types[name], text if equals else None)
    return ServerConfig(**values), unknown


def _read(name: str, kind: type, text: str | None) -> Any:
    value: Any
    if kind is bool:
        value = True if text is None else _BOOLEANS.get(text)
    elif text is None:
        value = None
    elif kind is int:
        is_whole = re.fullmatch(r"-?[0-9]{1,10}", text) is not None
        value = int(text) if is_whole and abs(int(text)) <= _INT32_MAX else None
    else:
        value = text
    if value is None:
        shown = "no value" if text is None else repr(text)
        raise UsageError(f"--{name} takes a value of type {kind.__name__}, got {shown}")
    return value


def usage() -> str:
    """List all flags, one a line, with default and meaning."""
    return "\n".join(
        [
            "usage: mini-model-server --model_base_path=FOLDER [--flag=value ...]",
            "Flags:",
            *(
                f"\t--{f.name}={f.default!r:<12}\t{type(f.default).__name__}\t{f.metadata['help']}"
                for f in dataclasses.fields(ServerConfig)
            ),
        ]
    )
