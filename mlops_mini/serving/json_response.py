"""Arrays to the JSON bodies of predict answers.

The numbers are the shortest that read back to the same float32 or float64. NaN and Infinity stand
bare, as TensorFlow Serving writes them, though strict JSON has no such words.

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


def encode_predict(outputs: Mapping[str, Array], *, is_rows: bool) -> bytes:
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


def _plain(alias: str, array: Array) -> Any:
    """Return something orjson writes as it stands: an array of numbers, or nested lists."""
    if array.dtype.kind not in _OUTPUT_KINDS or array.dtype == np.float16:
        name = {"float16": "half"}.get(array.dtype.name, array.dtype.name)
        raise InvalidArgumentError(f"Failed to write JSON value for tensor type: {name}")
    if array.dtype.kind != "O":
        # A scalar stays numpy's: as Python's number, 0.1 of 32 bits would get 17 digits.
        return np.ascontiguousarray(array) if array.ndim else array[()]
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
        text = json.dumps(value, ensure_ascii=False, default=_numbers, separators=(",", ":"))
        written = text.encode("utf-8", "surrogateescape")
    return b'{\n    "%s": %b\n}' % (key.encode(), written)


def _numbers(item: Any) -> Any:
    """Turn numpy numbers into Python's, each float32 into the double with its shortest text."""
    if item.dtype == np.float32:
        item = item.astype(str).astype(np.float64)
    return item.tolist()


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
