"""Arrays to the JSON bodies of predict answers.

TensorFlow Serving writes a float32 with 6 digits if they read back to it, else with 9: 0.333333343.
A client that reads doubles gets the same ones here, in the shortest text for them. NaN and Infinity
stand bare, as TensorFlow Serving writes them, though strict JSON has no such words.

Source: TensorFlow Serving's RESTful API, https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from mlops_mini.errors import InvalidArgumentError

Array = npt.NDArray[Any]

_OUTPUT_KINDS = "fiubO"
_UNWRITABLE = (np.float16, np.uint16)
_FEW = 24  # below it a loop is faster than numpy
_POWERS = 10.0 ** np.arange(23)  # these are exact


def encode_predict(outputs: Mapping[str, Array], is_rows: bool) -> bytes:
    r"""Write the body of an answer.

    Args:
        outputs: One array per output alias. Strings are object arrays of `bytes`; those whose alias
            ends in `_bytes` are written as base64 objects.
        is_rows: Answer with `predictions`, one element an example, instead of `outputs`.

    Raises:
        InvalidArgumentError: JSON has no form for an output's type, or rows are asked for and the
            outputs' first dimensions differ or are missing.

    >>> encode_predict({"y": np.float32([2.5, np.nan])}, is_rows=True)
    b'{\n    "predictions": [2.5,NaN]\n}'
    """
    plain = {alias: _plain(alias, array) for alias, array in sorted(outputs.items())}
    if not is_rows:
        body: Any = plain if len(plain) > 1 else next(iter(plain.values()))
        return _write("outputs", body)
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
    if len(plain) == 1:
        return _write("predictions", next(iter(plain.values())))
    rows = [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]
    return _write("predictions", rows)


def encode_classifications(labels: Array, scores: Array) -> bytes:
    r"""Write the answer of classify: for each example a list of [label, score].

    >>> encode_classifications(np.array([[b"cat", b"dog"]], object), np.float32([[0.25, 0.75]]))
    b'{\n    "results": [[["cat",0.25],["dog",0.75]]]\n}'
    """
    texts, numbers = _plain("", labels), as_printed(scores).tolist()
    pairs = [list(map(list, zip(*row, strict=True))) for row in zip(texts, numbers, strict=True)]
    return _write("results", pairs)


def encode_regressions(values: Array) -> bytes:
    r"""Write the answer of regress: for each example a number.

    >>> encode_regressions(np.float32([3]))
    b'{\n    "results": [3.0]\n}'
    """
    return _write("results", _plain("", values))


def as_printed(array: Array) -> Array:
    """Return the doubles that a client reads from TensorFlow Serving's text for these float32.

    >>> as_printed(np.float32([0.1, 1 / 3])).tolist()
    [0.1, 0.333333343]
    """
    with np.errstate(invalid="ignore"):  # a NaN that signals
        exact = array.astype(np.float64).reshape(-1)
    if exact.size <= _FEW:
        return np.array([_printed(value) for value in exact.tolist()]).reshape(array.shape)
    with np.errstate(all="ignore"):
        exponent = np.floor(np.log10(np.abs(exact)))
        # Outside of this range powers of ten are no exact doubles; 0, NaN and Infinity are neither.
        is_usual = (exponent >= -13) & (exponent <= 22)
        shift = np.where(is_usual, 8 - exponent, 0).astype(np.int64)
        nine, is_tie = _rounded(exact, shift)
        six, _ = _rounded(exact, shift - 3)
        # Tested as TensorFlow Serving tests it: does the short text read back to the same float32?
        printed = np.where(six.astype(np.float32) == exact, six, nine)
    for index in np.flatnonzero((~is_usual | is_tie) & np.isfinite(exact) & (exact != 0)):
        printed[index] = _printed(float(exact[index]))
    return np.where(np.isfinite(exact) & (exact != 0), printed, exact).reshape(array.shape)


def _printed(value: float) -> float:
    """Say for one float32 what `as_printed` says for many."""
    short = float(f"{value:.6g}")
    return short if np.float32(short) == value else float(f"{value:.9g}")


def _rounded(exact: Array, shift: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Round to `shift` decimal places; say where the last digit is too close to call."""
    power = _POWERS[np.abs(shift)]
    scaled = np.where(shift < 0, exact / power, exact * power)
    digits = np.rint(scaled)
    is_tie = np.abs(np.abs(scaled - np.trunc(scaled)) - 0.5) < 1e-5
    return np.where(shift < 0, digits * power, digits / power), is_tie


def _plain(alias: str, array: Array) -> Any:
    """Return something orjson writes as it stands: an array of numbers, or nested lists."""
    if not array.size:  # of whatever type
        return array.tolist()
    if array.dtype.kind not in _OUTPUT_KINDS or array.dtype in _UNWRITABLE:
        name = {"float16": "half"}.get(array.dtype.name, array.dtype.name)
        raise InvalidArgumentError(f"Failed to write JSON value for tensor type: {name}")
    if array.dtype == np.float32:
        array = as_printed(array)
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array) if array.ndim else array.item()
    if alias.endswith("_bytes"):
        texts = [{"b64": base64.b64encode(item).decode()} for item in array.flat]
    else:
        texts = [item.decode("utf-8", "surrogateescape") for item in array.flat]
    flat = np.empty(array.size, object)
    flat[:] = texts
    return flat.reshape(array.shape).tolist()


def _write(key: str, value: Any) -> bytes:
    if _is_strict(value):
        written = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    else:
        text = json.dumps(
            value, ensure_ascii=False, default=lambda item: item.tolist(), separators=(",", ":")
        )
        written = text.encode("utf-8", "surrogateescape")
    return b'{\n    "%s": %b\n}' % (key.encode(), written)


def _is_strict(value: Any) -> bool:
    """True if strict JSON can hold it: no NaN, no Infinity, no invalid UTF-8."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(_is_strict, value.values()))
    if isinstance(value, list):
        return all(map(_is_strict, value))
    if isinstance(value, (float, np.floating)):
        return bool(np.isfinite(value))
    return not isinstance(value, str) or value.isascii()
