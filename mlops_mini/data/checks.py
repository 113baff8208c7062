"""Unit tests of input data, to call from your own pytest: `assert checks.in_range(...)`.

Each check answers with a result that is true only if it passed, and that shows its reason when the
assertion fails::

    def test_features_are_standardized() -> None:
        assert checks.is_scaled(features[["temp", "dewp"]], to="standard")

Columns come as a frame, a series or an array whose first axis is the rows. Missing values are
`no_empty`'s to find; the other checks look at what is there, except where it says otherwise.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from pandas.api import types

from mlops_mini.data import leakage
from mlops_mini.data.check_results import CheckResult, Values, also, as_frame, judge, names
from mlops_mini.data.rules import is_text, is_whole
from mlops_mini.errors import InvalidArgumentError


def in_range(values: Values, *, low: float, high: float) -> CheckResult:
    """Check that numbers or instants lie in a range, both ends included.

    Args:
        values: One column or several with the same range.
        low: Smallest allowed, in the columns' unit.
        high: Largest.

    Returns:
        The result; infinity is out of any finite range.

    >>> in_range(pd.Series([1400, 17], name="distance"), low=50, high=5000)
    FAILED: distance: 1 of 2 values are not in 50 to 5000, such as 17 in row 1
    """
    frame = as_frame(values)
    bad = frame.notna() & ~((frame >= low) & (frame <= high))
    return judge(frame, bad, f"are not in {low} to {high}", f"are in {low} to {high}")


def no_empty(values: Values) -> CheckResult:
    """Check that nothing is missing: no NaN, None or NaT, no blank string, and some rows at all.

    Args:
        values: One column or several.

    Returns:
        The result.

    >>> no_empty(pd.DataFrame({"carrier": ["UA", " "], "distance": [1400, 200]}))
    FAILED: carrier: 1 of 2 values are empty, such as ' ' in row 1
    """
    frame = as_frame(values)
    if frame.empty:
        return CheckResult(passed=False, reason="there are no rows", columns=names(frame))
    blank = frame.map(lambda value: isinstance(value, str) and not value.strip())
    return judge(frame, frame.isna() | blank, "are empty", "are there")


def types_are(frame: pd.DataFrame, expected: Mapping[str, str]) -> CheckResult:
    """Check that columns are there and of the right type.

    Args:
        frame: The columns; others may be there too.
        expected: By column what it must be: `integer` (whole numbers, also as floats, since a
            missing value makes floats of them), `number`, `string`, `boolean`, `instant` (with a
            time zone), or exactly a dtype such as `float32`.

    Returns:
        The result, with the rows whose values are at fault if it is not the column as a whole.

    Raises:
        InvalidArgumentError: A type is none of these.

    >>> flights = pd.DataFrame({"carrier": ["UA", 9], "arr_delay": [11.0, float("nan")]})
    >>> types_are(flights, {"carrier": "string", "arr_delay": "integer"})
    FAILED: carrier: 1 of 2 values are not of type string, such as 9 in row 1
    """
    faults: dict[str, str] = {}
    rows: dict[Hashable, None] = {}
    for name, kind in expected.items():
        if name not in frame:
            faults[name] = f"{name}: there is no such column, only {names(frame)}"
        elif not _is_of_type(frame[name], kind):
            bad = _not_of_type(frame[name], kind)
            values = judge(frame[[name]], bad.to_frame(), f"are not of type {kind}", "are")
            whole = f"{name}: the type is {frame[name].dtype}, expected {kind}"
            faults[name] = whole if values else values.reason
            rows |= dict.fromkeys(values.rows)
    if faults:
        reason = f"{next(iter(faults.values()))}{also(faults)}"
        return CheckResult(passed=False, reason=reason, rows=tuple(rows), columns=tuple(faults))
    return CheckResult(passed=True, reason="each column has its type")


def is_scaled(
    values: Values, *, to: Literal["standard", "unit"], tolerance: float = 0.01
) -> CheckResult:
    """Check that features are scaled as a model expects them.

    Args:
        values: One column or several.
        to: `standard` for mean 0 and standard deviation 1 (of the population, as scikit-learn's
            StandardScaler and Keras' Normalization make it), `unit` for 0 to 1.
        tolerance: How far mean and deviation, or the ends, may be off. Small for the data that the
            scaling was learned from; other months differ by more.

    Returns:
        The result, with the columns that are not.

    >>> is_scaled(pd.Series([-1.0, 1.0], name="temp"), to="standard")
    passed: each column has mean 0 and standard deviation 1
    >>> is_scaled(pd.Series([30.0, 70.0], name="temp"), to="standard")
    FAILED: temp: mean 50, standard deviation 20, expected 0 and 1 within 0.01
    """
    frame = as_frame(values)
    wanted = (0.0, 1.0)
    words = ("mean", "standard deviation") if to == "standard" else ("minimum", "maximum")
    faults: dict[str, str] = {}
    for name, column in frame.astype("float64").items():
        if to == "standard":
            found = (column.mean(), column.std(ddof=0))
            is_right = np.allclose(found, wanted, rtol=0, atol=tolerance)
        else:
            found = (column.min(), column.max())
            is_right = found[0] >= -tolerance and found[1] <= 1 + tolerance
        if not is_right:
            faults[str(name)] = f"{words[0]} {found[0]:.4g}, {words[1]} {found[1]:.4g}"
    if faults:
        name, fault = next(iter(faults.items()))
        reason = f"{name}: {fault}, expected 0 and 1 within {tolerance:g}{also(faults)}"
        return CheckResult(passed=False, reason=reason, columns=tuple(faults))
    how = "has mean 0 and standard deviation 1" if to == "standard" else "lies in 0 to 1"
    return CheckResult(passed=True, reason=f"each column {how}")


def one_hot_is_valid(one_hot: Values) -> CheckResult:
    """Check that every row is one-hot: 0 and 1 only, and exactly one 1.

    Args:
        one_hot: Shape (n rows, n categories).

    Returns:
        The result; a missing value is at fault.

    >>> one_hot_is_valid(np.array([[0, 1, 0], [0, 0, 0]]))
    FAILED: 1 of 2 rows do not have exactly one 1, such as [0, 0, 0] in row 1
    """
    frame = as_frame(one_hot)
    is_binary = frame.isin([0, 1]).all(axis=1)
    is_one = is_binary & (frame.where(is_binary, 0).sum(axis=1) == 1)
    if is_one.all():
        return CheckResult(passed=True, reason=f"all {len(frame)} rows have exactly one 1")
    first = int(np.argmin(is_one))
    fault = "do not have exactly one 1" if is_binary.all() else "are not one-hot"
    reason = (
        f"{int((~is_one).sum())} of {len(frame)} rows {fault},"
        f" such as {frame.iloc[first].tolist()} in row {frame.index[first]}"
    )
    return CheckResult(passed=False, reason=reason, rows=tuple(frame.index[~is_one]))


def embedding_index_in_range(index: Values, *, n_rows: int) -> CheckResult:
    """Check that indices point into an embedding's table.

    Args:
        index: Whole numbers, one column or several; a missing value is at fault.
        n_rows: Rows of the table; an index is 0 to `n_rows - 1`.

    Returns:
        The result.

    >>> embedding_index_in_range(np.array([0, 104, 105]), n_rows=105)
    FAILED: values: 1 of 3 values are no row of a table of 105 rows, such as 105 in row 2
    """
    frame = as_frame(index)
    is_row = (frame >= 0) & (frame < n_rows) & frame.apply(is_whole)
    fault, fine = (f"{are} of a table of {n_rows} rows" for are in ("are no row", "are rows"))
    return judge(frame, ~is_row, fault, fine)


def embedding_index_used(index: Values, *, n_rows: int, min_share: float = 0.9) -> CheckResult:
    """Check that most of an embedding's table is ever hit; what is not has learned nothing.

    Args:
        index: Whole numbers; those out of the table do not count.
        n_rows: Rows of the table.
        min_share: Smallest share of the table's rows to be hit, 0 to 1.

    Returns:
        The result; `rows` are the rows of the *table* that no index hits.

    >>> embedding_index_used(np.array([0, 1, 1]), n_rows=4)
    FAILED: 2 of 4 rows of the table are used, 50.0%, expected at least 90.0%
    """
    used = set(np.unique(as_frame(index).to_numpy(dtype="float64")))
    unused = tuple(row for row in range(n_rows) if row not in used)
    share = 1 - len(unused) / n_rows
    reason = f"{n_rows - len(unused)} of {n_rows} rows of the table are used, {share:.1%}"
    if share < min_share:
        expected = f"{reason}, expected at least {min_share:.1%}"
        return CheckResult(passed=False, reason=expected, rows=unused)
    return CheckResult(passed=True, reason=reason)


def is_join_key(table: pd.DataFrame, on: Sequence[str]) -> CheckResult:
    """Check that columns tell the rows of a table apart, before other rows are joined to it.

    A local time does not: when clocks go back, an hour is there twice, and rows joined to it come
    out twice. `DataFrame.merge(..., validate="many_to_one")` refuses the same tables.

    Args:
        table: The table to look rows up in.
        on: Columns of the key.

    Returns:
        The result, with all rows whose key is there more than once or has a missing part.

    >>> from mlops_mini.data import datasets
    >>> weather = datasets.weather()
    >>> is_join_key(weather, ["origin", "time_hour"])
    passed: all 26115 rows have a key of their own
    >>> is_join_key(weather, ["origin", "year", "month", "day", "hour"]).passed
    False
    """
    key = table[list(on)]
    bad: pd.Series[bool] = key.duplicated(keep=False) | key.isna().any(axis=1)
    if not bad.any():
        return CheckResult(passed=True, reason=f"all {len(key)} rows have a key of their own")
    first = int(np.argmax(bad))
    reason = (
        f"{int(bad.sum())} of {len(key)} rows share a key or lack a part of it, such as"
        f" {tuple(key.iloc[first])} in row {key.index[first]}"
    )
    return CheckResult(
        passed=False,
        reason=reason,
        rows=tuple(key.index[bad.to_numpy(dtype=bool)]),
        columns=tuple(on),
    )


def no_leakage_column(
    columns: pd.DataFrame,
    label: "pd.Series[float]",
    *,
    predicted_at: pd.Series | None = None,
    max_auc: float = 0.85,
    max_presence_gain: float = 0.95,
    max_foresight: float = 0.75,
) -> CheckResult:
    """Check that no column knows the label by itself, as only a look into the future can.

    Args:
        columns: Inputs of a model, or columns that may become some.
        label: 0 or 1, same index; NaN where nobody knows.
        predicted_at: When each row is predicted, same index, in the time zone whose days are meant.
            With it a column of numbers is also asked at dawn about the rest of the day, the only
            way to find a mean over the whole day: in 2013 such means sort flights with an AUC of
            .63 to .80, honest recent delays with up to .75. Give two months or more.
        max_auc: Largest AUC of a column's values alone, .5 to 1.
        max_presence_gain: Largest share of the uncertainty, 0 to 1, that may go when a value is
            missing, or is there.
        max_foresight: Largest rank correlation over days of dawn's values with the rest's labels.

    Returns:
        The result, with the columns that leak.

    Raises:
        InvalidArgumentError: The indexes differ.

    >>> from mlops_mini.data import datasets
    >>> flights = datasets.flights("2013-01")
    >>> is_canceled = flights["dep_delay"].isna().astype(float)
    >>> no_leakage_column(flights[["tailnum", "carrier", "distance"]], is_canceled)
    FAILED: tailnum: that it is missing tells the label, gain 1.00, at most 0.95
    """
    for rows in (label, predicted_at):
        if rows is not None and not rows.index.equals(columns.index):
            raise InvalidArgumentError(
                f"columns have {len(columns)} rows and {rows.name!r} {len(rows)}, of other indexes:"
                " give the same rows in the same order"
            )
    faults: dict[str, str] = {}
    for name in columns:
        column = columns[name]
        auc = leakage.auc_alone(column, label)
        gain, group = leakage.presence_gain(column, label)
        foresight = 0.0
        if predicted_at is not None and _is_number(column):
            foresight = leakage.foresight(column, label, predicted_at)
        if auc > max_auc:
            faults[str(name)] = f"its values tell the label, AUC {auc:.3f}, at most {max_auc}"
        elif gain > max_presence_gain:
            faults[str(name)] = (
                f"that it is {group} tells the label, gain {gain:.2f}, at most {max_presence_gain}"
            )
        elif foresight > max_foresight:
            faults[str(name)] = (
                f"at dawn it knows the day's labels, rank correlation {foresight:.2f}, at most"
                f" {max_foresight}"
            )
    if faults:
        name, fault = next(iter(faults.items()))
        reason = f"{name}: {fault}{also(faults)}"
        return CheckResult(passed=False, reason=reason, columns=tuple(faults))
    return CheckResult(passed=True, reason="no column tells the label")


def _is_number(column: pd.Series) -> bool:
    return types.is_numeric_dtype(column) and not types.is_bool_dtype(column)


_KINDS: dict[str, Callable[[pd.Series], bool]] = {
    "integer": lambda column: _is_number(column) and bool(is_whole(column.dropna()).all()),
    "number": _is_number,
    "string": is_text,
    "boolean": types.is_bool_dtype,
    "instant": lambda column: isinstance(column.dtype, pd.DatetimeTZDtype),
}


def _is_of_type(column: pd.Series, kind: str) -> bool:
    if kind in _KINDS:
        return _KINDS[kind](column)
    try:
        return bool(column.dtype == types.pandas_dtype(kind))
    except TypeError as exc:
        raise InvalidArgumentError(
            f"{kind!r} is no type of a column: use one of {sorted(_KINDS)} or a dtype"
        ) from exc


def _not_of_type(column: pd.Series, kind: str) -> "pd.Series[bool]":
    """Tell which values are at fault, if single ones are."""
    if kind == "integer" and _is_number(column):
        return column.notna() & ~is_whole(column)
    if kind == "string" and types.is_object_dtype(column):
        return column.map(lambda value: not isinstance(value, str)) & column.notna()
    return pd.Series(data=False, index=column.index)
