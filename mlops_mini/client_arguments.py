"""What callers give to a client, checked before anything is sent, the same for REST and gRPC."""

from __future__ import annotations

import base64
import math
import re
import reprlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.wire import DTYPES

Array = npt.NDArray[Any]

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_GRPC_SCHEME = re.compile(r"(unix|unix-abstract|vsock|dns|ipv4|ipv6|xds):.")
_NUMPY = {dtype.name: dtype.numpy for dtype in DTYPES}
_SENDABLE = {dtype.numpy for dtype in DTYPES}
# Longer limits overflow the milliseconds of a socket; nobody waits longer than these 11 days.
_LONGEST_S = 1e6
_DEEPEST = 64  # dimensions of a numpy array


def arrays(inputs: Any) -> dict[str, Array]:
    """Make the arrays of a request.

    Args:
        inputs: By input alias one array, or what numpy makes one of: a number, a text, nested
            lists of them, a pandas Series.

    Returns:
        By alias an array of a type that tensors have. One of dtype object holds only `str` that
        UTF-8 can encode, and `bytes`.

    Raises:
        InvalidArgumentError: There is no such array; the message names the alias and the item.

    >>> arrays({"monthly_usd": [40.0], "plan": ["pro"]})
    {'monthly_usd': array([40.]), 'plan': array(['pro'], dtype=object)}
    >>> arrays({"plan": ["pro", None]})
    Traceback (most recent call last):
    mlops_mini.errors.InvalidArgumentError: input 'plan' holds None at [1], but an array is sent
    as numbers of at most 64 bits or as texts (str, bytes): fill what is missing, with NaN or '' for
    example, and keep the two apart
    """
    if not hasattr(inputs, "keys"):
        raise InvalidArgumentError(
            f"inputs are one array per input alias, such as {{'x': [1.0]}};"
            f" got {_shown(inputs)}, a {type(inputs).__name__}"
        )
    return {text("an input alias", key): _array(key, value) for key, value in dict(inputs).items()}


def _array(alias: str, value: Any) -> Array:
    if hasattr(value, "filled") and np.ma.getmaskarray(value).any():
        raise InvalidArgumentError(
            f"input {alias!r} has masked values, which cannot be sent: fill them first, for"
            " example with .filled(0)"
        )
    try:
        array = _as_array(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as exc:
        raise InvalidArgumentError(
            f"input {alias!r} is no array: {exc}; nested lists must have rows of equal length"
        ) from exc
    if array.dtype == object:
        for position, item in np.ndenumerate(array):
            _check_text(alias, list(position), item)
    elif array.dtype not in _SENDABLE:
        known = sorted(str(dtype) for dtype in _SENDABLE if dtype.kind != "O")
        raise InvalidArgumentError(
            f"input {alias!r} has dtype {array.dtype}, which cannot be sent: convert it to text"
            f" or to one of {', '.join(known)}"
        )
    return array


def _as_array(value: Any) -> Array:
    """Make an array; texts become objects, since numpy's own types of text drop NUL bytes."""
    if isinstance(_first(value), str | bytes):
        # At once: on the way over numpy's own types, each text would take as much as the longest.
        return np.array(value, dtype=object)
    array = np.asarray(value)
    if array.dtype == object and array.size and not isinstance(_first(array), str | bytes):
        value = array.tolist()  # numbers, or rows of them, may be among Python's objects
        array = np.asarray(value)
    if array.dtype.kind in "SUT":
        return np.array(value, dtype=object)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _first(value: Any) -> Any:
    """Find the first item of nested lists, or of an array of objects."""
    for _ in range(_DEEPEST):
        if not isinstance(value, list | tuple) or not value:
            break
        value = value[0]
    is_objects = isinstance(value, np.ndarray) and value.dtype == object and value.size
    return value.flat[0] if is_objects else value


def _check_text(alias: str, position: list[int], item: Any) -> None:
    where = f"input {alias!r} holds {_shown(item)}" + (f" at {position}" if position else "")
    if not isinstance(item, str | bytes):
        raise InvalidArgumentError(
            f"{where}, but an array is sent as numbers of at most 64 bits or as texts (str, bytes):"
            " fill what is missing, with NaN or '' for example, and keep the two apart"
        )
    if isinstance(item, str) and not _is_encodable(item):
        raise InvalidArgumentError(
            f"{where}, which UTF-8 cannot encode: send bytes, for example"
            " text.encode(errors='surrogateescape')"
        )


def _is_encodable(item: str) -> bool:
    """Tell whether UTF-8 can encode a text, which it can't if that has lone surrogates."""
    try:
        return item.isascii() or bool(item.encode())
    except UnicodeEncodeError:
        return False


def to_json(alias: str, array: Array) -> Any:
    """Turn an array into JSON's terms; `bytes` become base64 objects, NaN stays bare.

    Raises:
        InvalidArgumentError: JSON has no form for its type.

    >>> to_json("x", arrays({"x": [b"a", "b"]})["x"])
    [{'b64': 'YQ=='}, 'b']
    """
    if array.dtype.kind not in "fiubO":
        raise InvalidArgumentError(
            f"input {alias!r} has dtype {array.dtype}, and JSON has no form for it: ask over gRPC"
        )

    def encode(item: Any) -> Any:
        if isinstance(item, list):
            return [encode(part) for part in item]
        return {"b64": base64.b64encode(item).decode()} if isinstance(item, bytes) else item

    return encode(array.tolist()) if array.dtype == object else array.tolist()


def fitting(
    given: Mapping[str, Array], lists: Collection[str], dtypes: Mapping[str, str]
) -> dict[str, Array]:
    """Give numbers the types of a signature's inputs, where that changes no whole number.

    Args:
        given: By input alias.
        lists: Aliases of those that came as Python's own numbers; the others stay as they are.
        dtypes: TensorFlow's names of the inputs' types, by alias.

    >>> given = arrays({"x": [1, 2], "n": [1.0], "m": [1.5], "small": [256]})
    >>> dtypes = {"x": "float", "n": "int64", "m": "int64", "small": "uint8"}
    >>> [str(array.dtype) for array in fitting(given, list(given), dtypes).values()]
    ['float32', 'int64', 'float64', 'int64']
    """
    fitted = dict(given)
    for alias in lists:
        dtype, array = _NUMPY.get(dtypes.get(alias, "")), given[alias]
        if dtype is None or array.dtype.kind not in "fiu" or dtype.kind not in "fiuV":
            continue
        with np.errstate(all="ignore"):
            cast = array.astype(dtype)
        if dtype.kind in "fV" or np.array_equal(cast, array):
            fitted[alias] = cast
    return fitted


def text(what: str, value: Any) -> str:
    """Check a name, such as a model's or a label.

    Raises:
        InvalidArgumentError: No text, or none that UTF-8 can encode.
    """
    if not isinstance(value, str) or not _is_encodable(value):
        raise InvalidArgumentError(
            f"{what} must be text that UTF-8 can encode, such as 'x'; got {_shown(value)}"
        )
    return value


def whole_number(what: str, value: Any, *, least: int = 0) -> int:
    """Check a number, such as a version's.

    Raises:
        InvalidArgumentError: Not whole, less than `least`, or more than 63 bits.

    >>> whole_number("version", np.int64(3))
    3
    """
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or not least <= value < 2**63:
        raise InvalidArgumentError(
            f"{what} must be a whole number from {least} to 2**63 - 1, got {_shown(value)}"
        )
    return int(value)


def seconds(what: str, value: Any) -> float:
    """Check a time limit; what is longer than 11 days, also infinity, becomes that.

    Raises:
        InvalidArgumentError: Not a number.

    >>> seconds("timeout_s", np.float32(0.5)), seconds("timeout_s", math.inf)
    (0.5, 1000000.0)
    """
    is_number = isinstance(value, int | float | np.integer | np.floating)
    limit = float(max(min(value, _LONGEST_S), -_LONGEST_S)) if is_number else math.nan
    if math.isnan(limit):
        raise InvalidArgumentError(f"{what} must be a number of seconds, got {_shown(value)}")
    return limit


def host_and_port(address: Any) -> tuple[str, int]:
    """Split an address; an IPv6 one stands in brackets.

    Raises:
        InvalidArgumentError: It has another form.

    >>> host_and_port("[::1]:8501")
    ('::1', 8501)
    """
    match = _HOST_PORT.fullmatch(address) if isinstance(address, str) else None
    if not match or not 0 < int(match[2]) < 65536:
        raise InvalidArgumentError(
            f"{_shown(address)} is no address: use host:port, such as 127.0.0.1:8501 or"
            " [::1]:8501, without http:// and path; for TLS, give tls="
        )
    return match[1].strip("[]"), int(match[2])


def grpc_target(address: Any) -> str:
    """Check an address for gRPC: as above, or with one of its schemes, such as `unix:path`.

    Raises:
        InvalidArgumentError: It has another form.
    """
    if not isinstance(address, str) or not _GRPC_SCHEME.match(text("the address", address)):
        host_and_port(address)
    return str(address)


def _shown(item: Any) -> str:
    if isinstance(item, int) and item.bit_length() > 64:  # printing one may be refused
        return f"a whole number of {item.bit_length()} bits"
    return reprlib.repr(item)
