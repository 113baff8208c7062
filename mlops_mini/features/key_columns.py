"""Keys of rows and of entities: texts or whole numbers, such as `EWR` or 142789."""

from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from mlops_mini.data import columns
from mlops_mini.errors import InvalidArgumentError

Key: TypeAlias = str | int


def read(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Read a column of keys, some of which may be missing.

    Args:
        column: Texts or whole numbers, of any dtype.

    Returns:
        int64 if all are numbers and none is missing, else objects, None for missing.

    Raises:
        InvalidArgumentError: A value is neither text nor whole number, or some are texts and others
            numbers; the message names the column and the row.

    >>> read(pd.Series([7.0, None])).tolist(), read(pd.Series(["A", None])).tolist()
    ([7, None], ['A', None])
    """
    plain = columns.plain(column)
    if pd.api.types.is_integer_dtype(plain.dtype):
        return plain.astype(np.int64)
    is_missing = plain.isna()
    if is_missing.all():
        return pd.Series([None] * len(plain), index=plain.index, name=plain.name, dtype=object)
    if columns.kind(plain) == "text":
        return plain
    numbers, is_other = columns.as_numbers(plain)
    is_other |= ~is_missing.to_numpy() & ~(np.isfinite(numbers) & (numbers == np.floor(numbers)))
    if is_other.any():
        row = int(np.argmax(is_other))
        raise InvalidArgumentError(
            f"{int(is_other.sum())} of {len(plain)} values of {column.name} are no whole numbers,"
            f" such as {columns.shown(plain.iloc[row])} in row {plain.index[row]}: number them, or"
            " make texts of all with .astype(str)"
        )
    whole = pd.Series(numbers, index=plain.index, name=column.name)
    if not is_missing.any():
        return whole.astype(np.int64)
    return whole.astype("Int64").astype(object).mask(is_missing, other=None)


def read_complete(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Read a column of keys that tell rows apart, so that none may be missing.

    Raises:
        InvalidArgumentError: As `read`, or one is missing.
    """
    found = read(column)
    is_missing = found.isna()
    if is_missing.any():
        raise InvalidArgumentError(
            f"{int(is_missing.sum())} of {len(found)} values of {column.name} are missing, such as"
            f" in row {found.index[int(np.argmax(is_missing))]}: number the rows, or name them"
        )
    return found
