"""Digests of contents, which tell whether data is what it was, however it is stored."""

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_mini.data import tensors
from mlops_mini.errors import InvalidArgumentError


def contents_digest(columns: pd.DataFrame | Mapping[str, NDArray[np.generic]]) -> str:
    """Digest the contents of a table or a set of arrays, however they are stored.

    Column names, their order, dtypes, shapes and every value count, and so does the order of rows.
    File format, compression, library versions and a frame's index do not. Missing is one thing: NaN
    and None are equal, and so are NaNs of different bits; -0.0 and 0.0 differ.

    Args:
        columns: A frame, or named arrays of numbers, strings or instants.

    Returns:
        SHA-256, 64 hex digits.

    Raises:
        InvalidArgumentError: A column holds other things than numbers, strings or instants, or its
            name is nothing that JSON has.

    >>> table = pd.DataFrame({"machine": ["press", None], "temp_c": [21.0, float("nan")]})
    >>> contents_digest(table)[:12]
    '2fd5848a2128'
    >>> contents_digest(table) == contents_digest(table.set_index(pd.Index(["a", "b"])))
    True
    >>> contents_digest(table) == contents_digest(table[::-1])
    False
    """
    digest = hashlib.sha256()
    for name, values in columns.items():
        dtype, shape, data = _encode(str(name), values)
        try:
            digest.update(json.dumps([name, dtype, shape, len(data)]).encode())
        except TypeError as exc:
            raise InvalidArgumentError(
                f"a column is named {name!r} ({type(name).__name__}); name it by a string for a"
                " digest"
            ) from exc
        digest.update(data)
    return digest.hexdigest()


def _encode(name: str, values: pd.Series | NDArray[np.generic]) -> tuple[str, list[int], bytes]:
    """Tell dtype, shape and little-endian bytes of a column."""
    if isinstance(values, pd.Series) and isinstance(values.dtype, pd.DatetimeTZDtype):
        values = values.dt.tz_convert(None)
    array = tensors.to_numpy(values) if isinstance(values, pd.Series) else np.asarray(values)
    shape = list(array.shape)
    if array.dtype.kind in "OUT":
        missing = pd.isna(array)
        texts = [None if gone else text for text, gone in zip(array, missing, strict=True)]
        if not all(text is None or isinstance(text, str) for text in texts):
            raise InvalidArgumentError(
                f"column {name!r} holds other objects than strings; convert it to numbers, strings"
                " or instants for a digest"
            )
        return "str", shape, json.dumps(texts).encode()
    if array.dtype.kind == "M":
        return "instant", shape, array.astype("datetime64[us]").astype("<i8").tobytes()
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), np.asarray(np.nan, array.dtype), array)
    return array.dtype.name, shape, array.astype(array.dtype.newbyteorder("<")).tobytes()
