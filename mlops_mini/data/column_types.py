"""What `checks.types_are` expects of a column: a word about its values, or a dtype."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from mlops_mini.data import columns
from mlops_mini.errors import InvalidArgumentError

KINDS: dict[str, tuple[columns.Kind, ...]] = {
    "integer": ("number",),
    "number": ("number",),
    "string": ("text", "empty"),
    "boolean": ("boolean",),
    "instant": ("instant",),
}


def is_whole(column: pd.Series) -> "pd.Series[bool]":
    """Tell which values of a column are whole numbers, as integers or as floats.

    >>> is_whole(pd.Series([2, 0.5, None, "2"])).tolist()
    [True, False, False, False]
    """
    numbers, _ = columns.as_numbers(column)
    return pd.Series(np.isfinite(numbers) & (numbers == np.trunc(numbers)), index=column.index)


def is_of_type(column: pd.Series, kind: str) -> bool:
    """Tell whether a column is of a type.

    Args:
        column: Of any dtype.
        kind: A word of `KINDS`, which is about the values, or exactly a dtype.

    Raises:
        InvalidArgumentError: It is neither.
    """
    if kind in KINDS:
        values = columns.plain(column)
        if columns.kind(values) not in KINDS[kind]:
            return False
        return kind != "integer" or bool(is_whole(values.dropna()).all())
    try:
        return bool(column.dtype == types.pandas_dtype(kind))
    except TypeError as exc:
        raise InvalidArgumentError(
            f"{kind!r} is no type of a column: use one of {sorted(KINDS)} or a dtype"
        ) from exc


def is_not_of_type(column: pd.Series, kind: str) -> NDArray[np.bool_]:
    """Tell which values of a plain column are at fault, if single ones are.

    Returns:
        Shape [n_rows]; all False where the column is of another type as a whole.
    """
    if kind == "integer" and columns.kind(column) == "number":
        return np.array(column.notna() & ~is_whole(column), bool)
    if columns.kind(column) != "other" or kind not in KINDS:
        return np.zeros(len(column), dtype=bool)
    is_of_kind = [is_of_type(pd.Series([value], dtype=object), kind) for value in column]
    return np.array(column.notna() & ~np.array(is_of_kind), bool)
