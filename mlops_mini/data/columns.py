"""Any pandas column as a plain NumPy one: the only module that knows all kinds of dtypes.

Nullable, Arrow, categorical, sparse and object columns of equal values become the same plain
column, so that no rule, check or statistic depends on who has read the file.
"""

from collections.abc import Hashable, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pandas.api import types

from mlops_mini.data import tensors
from mlops_mini.errors import InvalidArgumentError

_NUMBERS = (Real, Decimal)  # Python's truth values are Real too, and NumPy's are not
_LONGEST = 40  # characters shown of what isn't a text
Kind = Literal[
    "number", "boolean", "text", "instant", "local time", "duration", "tensor", "empty", "other"
]


def plain(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Turn a column of any dtype into a plain one of equal values.

    Args:
        column: Of any dtype: NumPy, nullable, Arrow, categorical, sparse, or objects such as
            Decimals, datetimes and NumPy scalars.

    Returns:
        Same index and name. Numbers have a NumPy dtype, NaN for missing, float64 if whole ones have
        gaps; truth values are `bool`, or objects if some are missing; instants are `datetime64`
        with a time zone (UTC if they have several), local times without; durations `timedelta64`.
        Texts, and whatever is left, are objects, with None for missing. Tensors stay as they are.

    >>> plain(pd.Series([1, None], dtype="Int64")).tolist()
    [1.0, nan]
    >>> plain(pd.Series([Decimal("0.5"), np.int8(2)], dtype=object)).tolist()
    [0.5, 2.0]
    """
    dtype = column.dtype
    if isinstance(dtype, pd.ArrowDtype):
        is_plain = tensors.is_tensor(dtype)
        return column if is_plain else plain(_relabeled(pa.array(column.array).to_pandas(), column))
    if isinstance(dtype, pd.CategoricalDtype):
        categories = plain(pd.Series(dtype.categories))
        return plain(_relabeled(categories.reindex(column.cat.codes), column))
    if isinstance(dtype, pd.SparseDtype):
        return plain(_relabeled(pd.Series(np.asarray(column)), column))
    if types.is_extension_array_dtype(dtype) and types.is_numeric_dtype(dtype):
        as_numpy: Any = dtype
        exact = np.dtype(as_numpy.numpy_dtype)
        if not column.isna().any():
            return column.astype(exact)
        if exact.kind == "b":
            return _plain_objects(column.astype(object))
        exact = exact if exact.kind == "f" else np.dtype(np.float64)
        return _relabeled(pd.Series(column.to_numpy(exact, na_value=np.nan)), column)
    if isinstance(dtype, pd.StringDtype) or types.is_object_dtype(dtype):
        return _plain_objects(column.astype(object))
    # pandas has no index of float16, and its sums overflow at 65,504.
    return column.astype(np.float32) if dtype == np.float16 else column


def plain_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn every column into a plain one; index and names stay, also where one is there twice.

    >>> plain_frame(pd.DataFrame({"a": [True]}, dtype="boolean")).dtypes.to_dict()
    {'a': dtype('bool')}
    """
    columns = {at: plain(frame.iloc[:, at]).array for at in range(frame.shape[1])}
    return pd.DataFrame(columns, index=frame.index).set_axis(frame.columns, axis=1)


def kind(column: "pd.Series[Any]") -> Kind:
    """Tell what a plain column holds.

    Returns:
        `empty` for objects that are all missing; other columns without a value have the kind of
        their dtype. `other` for several kinds in one column, and for what none of the words fits.

    >>> kind(plain(pd.Series(["UA", None], dtype="category"))), kind(pd.Series(["UA", 9]))
    ('text', 'other')
    """
    dtype = column.dtype
    if tensors.is_tensor(dtype):
        return "tensor"
    if types.is_bool_dtype(dtype):
        return "boolean"
    if types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype):
        return "number"
    if isinstance(dtype, pd.DatetimeTZDtype):
        return "instant"
    if types.is_datetime64_dtype(dtype):
        return "local time"
    if types.is_timedelta64_dtype(dtype):
        return "duration"
    kinds: dict[str, Kind] = {"string": "text", "boolean": "boolean", "empty": "empty"}
    is_object = types.is_object_dtype(dtype)
    return kinds.get(types.infer_dtype(column, skipna=True), "other") if is_object else "other"


def as_numbers(column: "pd.Series[Any]") -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Read the numbers of a column, and tell which of its values are none.

    Args:
        column: Of any dtype. Truth values count as 0 and 1.

    Returns:
        The numbers, NaN where a value is missing or no number; and where it is no number. Both of
        shape [n_rows].

    >>> as_numbers(pd.Series([50, "far", None]))
    (array([50., nan, nan]), array([False,  True, False]))
    """
    column = plain(column)
    if kind(column) in {"number", "boolean", "empty"}:
        return column.to_numpy(np.float64, na_value=np.nan), np.zeros(len(column), dtype=bool)
    is_number = np.array([isinstance(value, (*_NUMBERS, np.bool_)) for value in column], bool)
    numbers = np.full(len(column), np.nan)
    numbers[is_number] = _floats(column.to_numpy(object)[is_number])
    return numbers, column.notna().to_numpy() & ~is_number


def numbers(column: "pd.Series[Any]") -> npt.NDArray[np.float64]:
    """Read a column that must hold numbers alone.

    Args:
        column: Of any dtype. Truth values count as 0 and 1.

    Returns:
        float64, NaN for missing, shape [n_rows].

    Raises:
        InvalidArgumentError: A value is no number; the message names the column and the row.
    """
    values, is_other = as_numbers(column)
    if is_other.any():
        at = int(np.argmax(is_other))
        raise InvalidArgumentError(
            f"column {column.name!r} holds {shown(column.iloc[at])} in row {column.index[at]}, and"
            f" {int(is_other.sum())} of {len(column)} values are no numbers: correct or drop them"
        )
    return values


def texts(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Read a column that must hold texts alone.

    Args:
        column: Of any dtype.

    Returns:
        Objects, None for missing.

    Raises:
        InvalidArgumentError: A value is no text; the message names the column and the row.
    """
    values = plain(column)
    if values.isna().all():
        return pd.Series(None, index=values.index, name=values.name, dtype=object)
    if kind(values) != "text":
        raise InvalidArgumentError(
            f"column {values.name!r} is {values.dtype}, with {odd_one(values)}, expected texts:"
            " convert it with .astype(str)"
        )
    return values


def odd_one(column: "pd.Series[Any]") -> str:
    """Describe a value of a column that is of another kind than the others, and its row.

    >>> odd_one(pd.Series([50, 60, "far"], index=[7, 8, 9]))
    "'far' in row 9"
    """
    present = plain(column).dropna()
    kinds = [_word(value) for value in present]
    usual = max(dict.fromkeys(kinds), key=kinds.count)
    at = next((at for at, word in enumerate(kinds) if word != usual), 0)
    return f"{shown(present.iloc[at])} in row {present.index[at]}"


def shown(value: Any) -> str:
    """Show a value in a message: texts in quotes, and no more than the beginning of an array."""
    text = repr(str(value)) if isinstance(value, str) else str(value)
    return text if isinstance(value, str) or len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def require(frame: pd.DataFrame, names: Sequence[str], what: str) -> None:
    """Raise `InvalidArgumentError` if a frame lacks columns that something needs, or has one twice.

    Args:
        frame: What there is.
        names: The columns needed.
        what: Who needs them, the start of the message, such as `features`.
    """
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise InvalidArgumentError(
            f"{what} need the columns {missing} too; there are {list(frame.columns)}"
        )
    twice: list[Hashable] = [name for name in names if list(frame.columns).count(name) > 1]
    if twice:
        raise InvalidArgumentError(
            f"{what} need each column once, and {twice} are there more than once; rename or drop"
            " the others"
        )


def _relabeled(values: "pd.Series[Any]", like: "pd.Series[Any]") -> "pd.Series[Any]":
    return pd.Series(values.array, index=like.index, name=like.name, dtype=values.dtype)


def _plain_objects(column: "pd.Series[Any]") -> "pd.Series[Any]":
    is_missing = column.isna().to_numpy()
    if is_missing.any():
        column = column.mask(is_missing, other=None)
    values = column.to_numpy(object)[~is_missing]
    inferred = types.infer_dtype(values)
    if inferred in {"string", "empty"}:
        return column
    if inferred == "boolean":
        return column if is_missing.any() else column.astype(bool)
    if inferred in {"datetime", "datetime64"}:
        return _plain_datetimes(column, values)
    if inferred in {"timedelta", "timedelta64"}:
        return pd.to_timedelta(column)
    if inferred in {"integer", "floating", "mixed-integer-float"} or all(map(_is_number, values)):
        numbers = np.full(len(column), np.nan)
        numbers[~is_missing] = _floats(values)
        is_whole = inferred == "integer" and not is_missing.any()
        # Beyond 64 bits only float64 has room.
        fits = is_whole and min(values) >= -(2**63) and max(values) < 2**63
        return column.astype(np.int64) if fits else _relabeled(pd.Series(numbers), column)
    return column


def _plain_datetimes(column: "pd.Series[Any]", values: npt.NDArray[Any]) -> "pd.Series[Any]":
    zones = {str(zone): zone for zone in (getattr(value, "tzinfo", None) for value in values)}
    if "None" in zones and len(zones) > 1:
        return column  # instants and local times have no order
    is_local = "None" in zones
    try:
        utc: pd.Series[Any] = pd.to_datetime(column, utc=not is_local)
    except pd.errors.OutOfBoundsDatetime:  # of nanoseconds, such as the year 9999
        utc = column.astype("datetime64[us]" if is_local else "datetime64[us, UTC]")
    if is_local:
        return utc
    return utc.dt.tz_convert(next(iter(zones.values()))) if len(zones) == 1 else utc


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBERS) and not isinstance(value, (bool, np.bool_))


def _floats(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    try:
        return values.astype(np.float64)
    except OverflowError:
        return np.array([_float(value) for value in values], np.float64)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _word(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    return "number" if _is_number(value) else type(value).__name__
