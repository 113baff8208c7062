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
from collections.abc import Mapping
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
_FEW = 24  # below it a loop is faster than numpy
_FLOAT = struct.Struct("<f")
_POWERS = 10.0 ** np.arange(23)  # these are exact


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


class PreparedOutputs:
    """The outputs of a batch, ready to be written for each of its requests.

    Attributes:
        outputs: One array per output alias.
        columns: By alias, in order, an array of numbers and whether strict JSON can hold all of it;
            None if there are texts or no values, or if they aren't rows.
    """

    __slots__ = ("columns", "outputs")

    def __init__(self, outputs: Mapping[str, Array]) -> None:
        """Round the numbers, all at once.

        Raises:
            InvalidArgumentError: JSON has no form for an output's type.
        """
        self.outputs = outputs
        self.columns: list[tuple[str, Any, bool]] | None = None
        columns, n_rows = [], -1
        for alias, array in outputs.items():
            if not array.size or not array.ndim or array.dtype == object:
                return
            if n_rows not in (-1, len(array)):
                return
            n_rows = len(array)
            if array.size <= _FEW and array.dtype == np.float32:
                few = [*map(_print_one, array.ravel().tolist())]
                value = few if array.ndim == 1 else np.array(few).reshape(array.shape)
                columns.append((alias, value, all(map(math.isfinite, few))))
            else:
                columns.append((alias, *json_value(alias, array)))
        self.columns = columns

    def encode(self, start: int, stop: int | None, is_rows: bool) -> bytes:
        r"""Write the body of the answer to the request that these rows belong to.

        >>> PreparedOutputs({"y": np.float32([2.5, 3, 4])}).encode(1, 3, is_rows=False)
        b'{\n    "outputs": [3.0,4.0]\n}'
        """
        columns, key = self.columns, "predictions" if is_rows else "outputs"
        if columns is None:
            own = {alias: array[start:stop] for alias, array in self.outputs.items()}
            return encode_predict(own, is_rows)
        values: dict[str, Any] = {}
        is_all_strict = True
        for alias, value, is_strict in columns:
            values[alias] = own_rows = value[start:stop]
            if not is_strict:
                is_all_strict &= bool(np.isfinite(own_rows).all())
        if len(values) == 1:
            return write_object(key, own_rows, is_strict=is_all_strict)
        if is_rows:
            lists = [
                [*value] if type(value) is list else value.tolist() for value in values.values()
            ]
            listed = [dict(zip(values, row, strict=True)) for row in zip(*lists, strict=True)]
            return write_object(key, listed, is_strict=is_all_strict)
        return write_object(key, values, is_strict=is_all_strict)


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
    with np.errstate(invalid="ignore"):  # a signaling NaN
        exact = array.astype(np.float64).reshape(-1)
    with np.errstate(all="ignore"):
        exponent = np.floor(np.log10(np.abs(exact)))
        # Outside of this range powers of ten are no exact doubles; 0, NaN and Infinity are neither.
        is_usual = (exponent >= -13) & (exponent <= 22)
        shift = np.where(is_usual, 8 - exponent, 0).astype(np.int64)
        nine, is_tie = _rounded(exact, shift)
        six, _ = _rounded(exact, shift - 3)
        # Tested as TensorFlow Serving tests it: does the short text read back to the same float32?
        printed = np.where(six.astype(np.float32) == exact, six, nine)
    is_unusual = (~is_usual | is_tie) & np.isfinite(exact) & (exact != 0)
    if is_unusual.any():
        printed[is_unusual] = _printed(exact[is_unusual])
    return np.where(np.isfinite(exact) & (exact != 0), printed, exact).reshape(array.shape)


def _print_one(value: float) -> float:
    """Round one float32 as `as_printed` does."""
    six = float(f"{value:.6g}")
    if six == value:
        return six
    try:
        is_same = _FLOAT.unpack(_FLOAT.pack(six))[0] == value
    except OverflowError:
        is_same = False
    return six if is_same or math.isnan(value) else float(f"{value:.9g}")


def _printed(exact: Array) -> Array:
    """Round numbers as `as_printed` does, by printing and reading them, shape [n]."""
    printed = np.array([float(f"{value:.6g}") for value in exact.tolist()], np.float64)
    with np.errstate(all="ignore"):
        is_other = (printed.astype(np.float32) != exact) & ~np.isnan(exact)
    printed[is_other] = [float(f"{value:.9g}") for value in exact[is_other].tolist()]
    return printed


def _rounded(exact: Array, shift: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Round to `shift` decimal places; say where the last digit is too close to call."""
    power = _POWERS[np.abs(shift)]
    scaled = np.where(shift < 0, exact / power, exact * power)
    digits = np.rint(scaled)
    is_tie = np.abs(np.abs(scaled - np.trunc(scaled)) - 0.5) < 1e-5
    return np.where(shift < 0, digits * power, digits / power), is_tie


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
        is_finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
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
    if is_strict:
        written = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    else:
        text = json.dumps(
            value, ensure_ascii=False, default=lambda item: item.tolist(), separators=(",", ":")
        )
        written = text.encode("utf-8", "surrogateescape")
    return b'{\n    "%b": %b\n}' % (key.encode(), written)
