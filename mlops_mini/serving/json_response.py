"""Arrays to the JSON bodies of predict answers.

TensorFlow Serving writes a float32 with 6 digits if they read back to it, else with 9: 0.333333343.
A client that reads doubles gets the same ones here, in the shortest text for them. NaN and Infinity
stand bare, as TensorFlow Serving writes them, though strict JSON has no such words.

Source: TensorFlow Serving's RESTful API, https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.wire import text_bytes

Array = npt.NDArray[Any]

_OUTPUT_KINDS = "fiubO"
_UNWRITABLE = (np.float16, np.uint16)
_NUMBER_BYTES = 16
_FEW = 16  # below it a loop is faster than numpy
_FLOAT = struct.Struct("<f")
_FLOAT32 = np.dtype(np.float32)
_LEAST_NORMAL = 1.2e-38
_FARTHEST = 11
# What leaves nine digits before the point, by the exponent and 3: 10 to the 11th for 0.00123.
_POWERS = np.roll(10.0 ** (_FARTHEST - np.arange(-_FARTHEST, _FARTHEST + 1)), -_FARTHEST)


def encode_predict(outputs: Mapping[str, Array], is_rows: bool) -> bytes:
    r"""Write the body of an answer.

    Args:
        outputs: One array per output alias. Strings are object arrays of `bytes`; those whose alias
            ends in `_bytes` are written as base64 objects.
        is_rows: Answer with `predictions`, one element for each example, instead of `outputs`.

    Raises:
        InvalidArgumentError: JSON has no form for an output's type, or rows are asked for and the
            outputs' first dimensions differ or are missing.

    >>> encode_predict({"y": np.float32([2.5, np.nan])}, is_rows=True)
    b'{\n    "predictions": [2.5,NaN]\n}'
    """
    if is_rows:
        _check_rows(outputs)
    plain = {alias: json_value(alias, array) for alias, array in sorted(outputs.items())}
    values = {alias: value for alias, (value, _) in plain.items()}
    is_strict = all(strict for _, strict in plain.values())
    if not is_rows:
        body: Any = values if len(values) > 1 else next(iter(values.values()))
        return write_object("outputs", body, is_strict=is_strict)
    if len(values) == 1:
        return write_object("predictions", next(iter(values.values())), is_strict=is_strict)
    columns = [v.tolist() if isinstance(v, np.ndarray) else v for v in values.values()]
    rows = [dict(zip(values, row, strict=True)) for row in zip(*columns, strict=True)]
    return write_object("predictions", rows, is_strict=is_strict)


def encode_few(aliases: Sequence[str], arrays: Sequence[Array], is_rows: bool) -> bytes | None:
    r"""Write what `encode_predict` writes if it's a few float32; None if it's anything else.

    Args:
        aliases: Of the outputs, sorted.
        arrays: One for each.
        is_rows: As there.

    >>> encode_few(["y"], [np.float32([[2.5, 1 / 3]])], is_rows=True)
    b'{\n    "predictions": [[2.5,0.333333343]]\n}'
    """
    columns = [*map(_few, arrays)]
    n_rows = {0 if column is None else len(column) for column in columns}
    if 0 in n_rows or (is_rows and len(n_rows) > 1):
        return None
    value: Any = columns[0]
    if len(columns) > 1 and is_rows:
        value = [dict(zip(aliases, row, strict=True)) for row in zip(*columns, strict=True)]
    elif len(columns) > 1:
        value = dict(zip(aliases, columns, strict=True))
    text = orjson.dumps(value)
    if b"null" in text:  # NaN or Infinity
        return None
    return (b'{\n    "predictions": ' if is_rows else b'{\n    "outputs": ') + text + b"\n}"


def _few(array: Array) -> list[Any] | None:
    """List a few float32 as doubles that are printed as `as_printed` does; None for others."""
    if array.dtype is not _FLOAT32 or not 0 < array.size <= _FEW or not 0 < array.ndim <= 2:
        return None
    if array.ndim == 1:
        return [*map(_print_one, array.tolist())]
    return [[*map(_print_one, row)] for row in array.tolist()]


class PreparedOutputs:
    """The outputs of a batch, ready to be written for each of its requests.

    Attributes:
        outputs: One array per output alias.
    """

    __slots__ = ("_columns", "outputs")

    def __init__(self, outputs: Mapping[str, Array]) -> None:
        """Write the numbers, all at once.

        Raises:
            InvalidArgumentError: JSON has no form for an output's type.
        """
        self.outputs = outputs
        # By alias as JSON: what its rows begin and end with, and what is between, a text for each.
        # None if there are texts or no values, or if they aren't rows.
        self._columns: list[tuple[bytes, bytes, bytes, list[bytes]]] | None = None
        columns, n_rows = [], -1
        for alias, array in outputs.items():
            if not array.size or not array.ndim or array.dtype == object:
                return
            if n_rows not in (-1, len(array)):
                return
            n_rows = len(array)
            begin, end = b"[" * (array.ndim - 1), b"]" * (array.ndim - 1)
            few = _few(array)
            text = b"null" if few is None else orjson.dumps(few)
            if b"null" in text:  # also for NaN and Infinity
                value, is_strict = json_value(alias, array)
                text = _write(value, is_strict=is_strict)
            rows = text[array.ndim : -array.ndim].split(end + b"," + begin)
            columns.append((_write(alias, is_strict=True), begin, end, rows))
        self._columns = columns

    def encode(self, start: int, stop: int | None, is_rows: bool) -> bytes:
        r"""Write the body of the answer to the request that these rows belong to.

        >>> PreparedOutputs({"y": np.float32([2.5, 3, 4])}).encode(1, 3, is_rows=False)
        b'{\n    "outputs": [3.0,4.0]\n}'
        """
        if self._columns is None:
            own = {alias: array[start:stop] for alias, array in self.outputs.items()}
            return encode_predict(own, is_rows)
        head = b'{\n    "predictions": ' if is_rows else b'{\n    "outputs": '
        if len(self._columns) == 1:
            _, begin, end, rows = self._columns[0]
            own_rows = (end + b"," + begin).join(rows[start:stop])
            return b"%b[%b%b%b]\n}" % (head, begin, own_rows, end)
        texts = []
        for name, begin, end, rows in self._columns:
            if is_rows:
                texts.append([name + b":" + begin + row + end for row in rows[start:stop]])
            else:
                own_rows = (end + b"," + begin).join(rows[start:stop])
                texts.append([name + b":[" + begin + own_rows + end + b"]"])
        objects = b",".join([b"{" + b",".join(row) + b"}" for row in zip(*texts, strict=True)])
        return head + (b"[" + objects + b"]" if is_rows else objects) + b"\n}"


def _check_rows(outputs: Mapping[str, Array]) -> None:
    n_rows: int | None = None
    for alias, array in sorted(outputs.items()):
        if array.ndim == 0:
            raise InvalidArgumentError(f"Tensor name: {alias} has no shape information ")
        if n_rows is not None and len(array) != n_rows:
            raise InvalidArgumentError(
                f"Tensor name: {alias} has inconsistent batch size: {len(array)}"
                f" expecting: {n_rows}"
            )
        n_rows = len(array)


def answer_bytes(outputs: Mapping[str, Array]) -> int:
    """Estimate how long the body of an answer is; how long it takes to write goes with that.

    >>> answer_bytes({"y": np.float32([2.5, 3]), "s": np.array([b"some text"], object)})
    57
    """
    n_numbers = sum([array.size for array in outputs.values()])
    texts = [array for array in outputs.values() if array.dtype == object]
    return _NUMBER_BYTES * n_numbers + sum(map(text_bytes, texts))


def as_printed(array: Array) -> Array:
    """Return the doubles that a client reads from TensorFlow Serving's text for these float32.

    >>> as_printed(np.float32([0.1, 1 / 3])).tolist()
    [0.1, 0.333333343]
    """
    if array.size <= _FEW:
        return np.array([*map(_print_one, array.ravel().tolist())]).reshape(array.shape)
    with np.errstate(all="ignore"):  # also of a signaling NaN
        exact = array.astype(np.float64).reshape(-1)
        centered = np.floor(np.log10(np.abs(exact))) + 3
        # Outside of this range powers of ten are no exact doubles; 0, NaN and Infinity are neither.
        is_usual = np.abs(centered) <= _FARTHEST
        has_others = np.count_nonzero(is_usual) < exact.size
        if has_others:
            others, exact = exact[~is_usual], np.where(is_usual, exact, 1.0)
            centered[~is_usual] = 3
        power = _POWERS[centered.astype(np.int64)]
        scaled = exact * power
        nine_digits = np.rint(scaled)
        six = np.rint(scaled * 1e-3) * 1e3 / power
        # Tested as TensorFlow Serving tests it: does the short text read back to the same float32?
        printed = np.where(six.astype(np.float32) == exact, six, nine_digits / power)
        is_tie = np.abs(scaled - nine_digits) > 0.5 - 1e-5
    if np.count_nonzero(is_tie):
        printed[is_tie] = [*map(_print_one, exact[is_tie].tolist())]
    if has_others:
        printed[~is_usual] = [value and _print_one(value) for value in others.tolist()]
    return printed.reshape(array.shape)


def _print_one(value: float) -> float:
    """Round one float32 as `as_printed` does."""
    nine = f"{value:.8e}"
    # A float32 is within 60 of the ninth digit of what reads back to it, unless it is subnormal.
    if "061" <= nine[-7:-4] <= "939" and abs(value) > _LEAST_NORMAL:
        return float(nine)
    six = float(f"{value:.6g}")
    if six == value:
        return six
    try:
        is_same = _FLOAT.unpack(_FLOAT.pack(six))[0] == value
    except OverflowError:
        is_same = False
    return six if is_same or math.isnan(value) else float(nine)


def json_value(alias: str, array: Array) -> tuple[Any, bool]:
    """Turn an array into a value for `write_object`.

    Args:
        alias: Name of the output; texts of one that ends in `_bytes` become base64 objects.
        array: Numbers, or `bytes` for texts.

    Returns:
        An array of numbers, or nested lists; and whether strict JSON can hold it: no NaN, no
        Infinity, no bytes that are not UTF-8.

    Raises:
        InvalidArgumentError: JSON has no form for the type.
    """
    if not array.size:  # of whatever type
        return array.tolist(), True
    if array.dtype.kind not in _OUTPUT_KINDS or array.dtype in _UNWRITABLE:
        name = {"float16": "half"}.get(array.dtype.name, array.dtype.name)
        raise InvalidArgumentError(f"Failed to write JSON value for tensor type: {name}")
    if array.dtype == np.float32:
        array = as_printed(array)
    if array.dtype.kind != "O":
        is_finite = array.dtype.kind != "f" or np.count_nonzero(np.isfinite(array)) == array.size
        return np.ascontiguousarray(array) if array.ndim else array.item(), is_finite
    if alias.endswith("_bytes"):
        texts: list[Any] = [{"b64": base64.b64encode(item).decode()} for item in array.flat]
        is_ascii = True
    else:
        texts = [item.decode("utf-8", "surrogateescape") for item in array.flat]
        is_ascii = all(map(str.isascii, texts))
    flat = np.empty(array.size, object)
    flat[:] = texts
    return flat.reshape(array.shape).tolist(), is_ascii


def write_object(key: str, value: Any, *, is_strict: bool) -> bytes:
    """Write an object with a single key, in TensorFlow Serving's layout; see `json_value`."""
    return b'{\n    "%b": %b\n}' % (key.encode(), _write(value, is_strict=is_strict))


def _write(value: Any, *, is_strict: bool) -> bytes:
    if is_strict:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    text = json.dumps(
        value, ensure_ascii=False, default=lambda item: item.tolist(), separators=(",", ":")
    )
    return text.encode("utf-8", "surrogateescape")
