"""Unit tests of input data, to call from your own pytest: `assert checks.in_range(...)`.

Each check answers with a result that is true only if it passed, and that shows its reason when the
assertion fails::

    def test_features_are_standardized() -> None:
        assert checks.is_scaled(features[["temp", "dewp"]], to="standard")

Columns come as a frame, a series or an array whose first axis is the rows. Missing values are
`no_empty`'s to find; the other checks look at what is there, except where it says otherwise.
Columns may have any dtype, nullable and Arrow included: equal values give equal results.

A check passes only if it has looked: without rows, columns or, in a column, any value, it fails,
and what it cannot judge, such as a label of three classes, is an `InvalidArgumentError`.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from numbers import Real
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_mini.data import column_types, columns, leakage
from mlops_mini.data.check_results import (
    CheckResult,
    Values,
    as_frame,
    by_column,
    failed,
    has_rows,
    has_values,
    judge,
    judge_rows,
    names,
)
from mlops_mini.errors import InvalidArgumentError


def in_range(values: Values, *, low: float, high: float) -> CheckResult:
    """Check that numbers or instants lie in a range, both ends included.

    Args:
        values: One column or several with the same range.
        low: Smallest allowed, in the columns' unit.
        high: Largest.

    Returns:
        The result; infinity is out of any finite range, and so is whatever is no number, or for
        instants no instant.

    Raises:
        InvalidArgumentError: `low` is above `high`, or instants have a time zone and the limits
            none, or the other way round.

    >>> in_range(pd.Series([1400, 17], name="distance"), low=50, high=5000)
    FAILED: distance: 1 of 2 values are not in 50 to 5000, such as 17 in row 1
    """
    if not low <= high:
        raise InvalidArgumentError(f"no value is in {low} to {high}: swap or correct the limits")
    frame = as_frame(values)
    bad = by_column(frame, partial(_is_outside, low=low, high=high))
    return has_values(frame) and judge(
        frame, bad, f"are not in {low} to {high}", f"are in {low} to {high}"
    )


def _is_outside(column: pd.Series, *, low: Any, high: Any) -> NDArray[np.bool_]:
    if isinstance(low, Real | Decimal):
        numbers, is_other = columns.as_numbers(column)
        return is_other | (numbers < float(low)) | (numbers > float(high))
    if columns.kind(column) not in {"instant", "local time", "duration"}:
        is_between = [_is_between(value, low, high) for value in column]
        is_bad: NDArray[np.bool_] = column.notna().to_numpy() & ~np.array(is_between, bool)
        return is_bad
    try:
        return np.array((column < low) | (column > high), bool)
    except TypeError as exc:
        raise InvalidArgumentError(
            f"column {column.name!r} is {column.dtype}, which cannot be compared with {low!r} and"
            f" {high!r}: give limits of its kind, with a time zone if and only if it has one"
        ) from exc


def _is_between(value: Any, low: Any, high: Any) -> bool:
    try:
        return bool(low <= value <= high)
    except TypeError:  # such as a text among dates
        return False


def no_empty(values: Values) -> CheckResult:
    """Check that nothing is missing: no NaN, None or NaT, no blank string, and some rows at all.

    Args:
        values: One column or several.

    Returns:
        The result.

    >>> no_empty(pd.DataFrame({"plan": ["basic", " "], "n_calls": [14, 2]}))
    FAILED: plan: 1 of 2 values are empty, such as ' ' in row 1
    """
    frame = as_frame(values)
    blank = frame.map(lambda value: isinstance(value, str) and not value.strip())
    return has_rows(frame) and judge(frame, frame.isna() | blank, "are empty", "are there")


def types_are(frame: pd.DataFrame, expected: Mapping[str, str]) -> CheckResult:
    """Check that columns are there and of the right type.

    Args:
        frame: The columns; others may be there too.
        expected: By column what it must be: `integer` (whole numbers, also as floats, since a
            missing value makes floats of them), `number`, `string`, `boolean`, `instant` (with a
            time zone), or exactly a dtype such as `float32`. The words are about the values: they
            hold of nullable, Arrow and object columns too.

    Returns:
        The result, with the rows whose values are at fault if it is not the column as a whole.

    Raises:
        InvalidArgumentError: A type is none of these, nothing is expected, or a column is there
            twice.

    >>> customers = pd.DataFrame({"plan": ["basic", 9], "n_calls": [11.0, float("nan")]})
    >>> types_are(customers, {"plan": "string", "n_calls": "integer"})
    FAILED: plan: 1 of 2 values are not of type string, such as 9 in row 1
    """
    if not expected:
        raise InvalidArgumentError("no column is expected: say which type each must be of")
    columns.require(frame, [name for name in expected if name in frame.columns], "types")
    faults: dict[str, str] = {}
    rows: dict[Hashable, None] = {}
    for name, kind in expected.items():
        if name not in frame:
            faults[name] = f"{name}: there is no such column, only {names(frame)}"
            continue
        column = as_frame(frame[name])
        if not column_types.is_of_type(frame[name], kind):
            bad = by_column(column, partial(column_types.is_not_of_type, kind=kind))
            values = judge(column, bad, f"are not of type {kind}", "are")
            whole = f"{name}: the type is {frame[name].dtype}, expected {kind}"
            faults[name] = whole if values else values.reason
            rows |= dict.fromkeys(values.rows)
        elif kind in column_types.KINDS and not (result := has_values(column)):
            faults[name] = result.reason
    if faults:
        return failed(faults, rows)
    return has_rows(frame) and CheckResult(passed=True, reason="each column has its type")


def is_scaled(
    values: Values, *, to: Literal["standard", "unit"], tolerance: float = 0.01
) -> CheckResult:
    """Check that features are scaled as a model expects them.

    Args:
        values: One column or several.
        to: `standard` for mean 0 and standard deviation 1 (of the population, as scikit-learn's
            StandardScaler and Keras' Normalization make it), `unit` for 0 to 1. How much of 0 to 1
            a column fills is not looked at: dark images are scaled too.
        tolerance: How far mean and deviation, or the ends, may be off. Small for the data that the
            scaling was learned from; other months differ by more.

    Returns:
        The result, with the columns that are not.

    Raises:
        InvalidArgumentError: There is no such scale, or the tolerance is out of 0 to 1.

    >>> is_scaled(pd.Series([-1.0, 1.0], name="temp"), to="standard")
    passed: each column has mean 0 and standard deviation 1
    >>> is_scaled(pd.Series([30.0, 70.0], name="temp"), to="standard")
    FAILED: temp: mean 50, standard deviation 20, expected 0 and 1 within 0.01
    """
    if to not in ("standard", "unit"):
        raise InvalidArgumentError(f"no scale {to!r}: use standard or unit")
    if not 0 <= tolerance < 1:
        raise InvalidArgumentError(f"tolerance is {tolerance}, expected 0 or more and below 1")
    frame = as_frame(values)
    faults = {}
    for name, (_, column) in zip(names(frame), frame.items(), strict=True):
        if fault := _scale_fault(column, to=to, tolerance=tolerance):
            faults[name] = f"{name}: {fault}"
    if faults:
        return failed(faults)
    how = "has mean 0 and standard deviation 1" if to == "standard" else "lies in 0 to 1"
    passed = CheckResult(passed=True, reason=f"each column {how}")
    return has_rows(frame) and passed


def _scale_fault(column: pd.Series, *, to: str, tolerance: float) -> str:
    """Describe how a column is not scaled; empty if it is."""
    numbers, is_other = columns.as_numbers(column)
    if is_other.any():
        return f"{int(is_other.sum())} values are no numbers, such as {columns.odd_one(column)}"
    present = numbers[~np.isnan(numbers)]
    if not len(present):
        return f"there is no value in {len(column)} rows"
    if n_infinite := int(np.isinf(present).sum()):
        return f"{n_infinite} of {len(column)} values are infinite"
    if to == "standard":
        with np.errstate(over="ignore", invalid="ignore"):  # infinite says enough
            words, measured = ("mean", "standard deviation"), (present.mean(), present.std())
        is_right = np.allclose(measured, (0.0, 1.0), rtol=0, atol=tolerance)
    else:
        words, measured = ("minimum", "maximum"), (present.min(), present.max())
        is_right = measured[0] >= -tolerance and measured[1] <= 1 + tolerance
    is_now = f"{words[0]} {measured[0]:.4g}, {words[1]} {measured[1]:.4g}"
    return "" if is_right else f"{is_now}, expected 0 and 1 within {tolerance:g}"


def one_hot_is_valid(one_hot: Values) -> CheckResult:
    """Check that every row is one-hot: 0 and 1 only, and exactly one 1.

    Args:
        one_hot: Shape (n rows, n categories).

    Returns:
        The result; a missing value is at fault.

    Raises:
        InvalidArgumentError: There is only one column, of which every 1 would do.

    >>> one_hot_is_valid(np.array([[0, 1, 0], [0, 0, 0]]))
    FAILED: 1 of 2 rows do not have exactly one 1, such as [0, 0, 0] in row 1
    """
    frame = as_frame(one_hot)
    if not (result := has_rows(frame)):
        return result
    if frame.shape[1] == 1:
        raise InvalidArgumentError(
            f"one column, {names(frame)[0]!r}, is no one-hot: give a column for each category, as"
            " pd.get_dummies does, or check indices with embedding_index_in_range"
        )
    values = np.column_stack([columns.as_numbers(column)[0] for _, column in frame.items()])
    is_binary = np.isin(values, [0, 1]).all(axis=1)
    is_one = is_binary & (values.sum(axis=1) == 1)
    fault = "do not have exactly one 1" if is_binary.all() else "are not one-hot"
    return judge_rows(frame, ~is_one, fault, "have exactly one 1")


def embedding_index_in_range(index: Values, *, n_rows: int) -> CheckResult:
    """Check that indices point into an embedding's table.

    Args:
        index: Whole numbers, one column or several; a missing value is at fault.
        n_rows: Rows of the table; an index is 0 to `n_rows - 1`.

    Returns:
        The result.

    Raises:
        InvalidArgumentError: The table has no rows.

    >>> embedding_index_in_range(np.array([0, 104, 105]), n_rows=105)
    FAILED: values: 1 of 3 values are no row of a table of 105 rows, such as 105 in row 2
    """
    _require_rows(n_rows)
    frame = as_frame(index)
    bad = by_column(frame, lambda column: ~_is_table_row(columns.as_numbers(column)[0], n_rows))
    fault, fine = (f"{are} of a table of {n_rows} rows" for are in ("are no row", "are rows"))
    return has_rows(frame) and judge(frame, bad, fault, fine)


def _is_table_row(index: NDArray[np.float64], n_rows: int) -> NDArray[np.bool_]:
    is_row: NDArray[np.bool_] = (index >= 0) & (index < n_rows) & (index == np.floor(index))
    return is_row


def _require_rows(n_rows: int) -> None:
    if n_rows < 1:
        raise InvalidArgumentError(
            f"n_rows is {n_rows}, but an embedding's table has at least one row: give its length"
        )


def embedding_index_used(index: Values, *, n_rows: int, min_share: float = 0.9) -> CheckResult:
    """Check that most of an embedding's table is ever hit; what is not has learned nothing.

    Args:
        index: Whole numbers; those out of the table do not count.
        n_rows: Rows of the table.
        min_share: Smallest share of the table's rows to be hit, above 0 to 1.

    Returns:
        The result; `rows` are the rows of the *table* that no index hits.

    Raises:
        InvalidArgumentError: The table has no rows, or the share is out of its range.

    >>> embedding_index_used(np.array([0, 1, 1]), n_rows=4)
    FAILED: 2 of 4 rows of the table are used, 50.0%, expected at least 90.0%
    """
    _require_rows(n_rows)
    if not 0 < min_share <= 1:
        raise InvalidArgumentError(f"min_share is {min_share}, expected above 0, and 1 at most")
    used: set[float] = set()
    frame = as_frame(index)
    for at in range(frame.shape[1]):
        used.update(np.unique(columns.as_numbers(frame.iloc[:, at])[0]))
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

    Raises:
        InvalidArgumentError: The key has no columns, the table lacks one, or values such as lists
            cannot be compared.

    >>> instants = pd.to_datetime(["2026-10-25T00:30Z", "2026-10-25T01:30Z"])  # clocks go back
    >>> readings = pd.DataFrame({"machine": "press", "time": instants})
    >>> is_join_key(readings, ["machine", "time"])
    passed: all 2 rows have a key of their own
    >>> readings["hour"] = readings["time"].dt.tz_convert("Europe/Berlin").dt.hour
    >>> is_join_key(readings, ["machine", "hour"]).passed
    False
    """
    if isinstance(on, str) or not on:
        raise InvalidArgumentError(f"on is {on!r}: give a list of the columns of the key")
    columns.require(table, on, "keys")
    key = table[list(on)]
    is_incomplete = as_frame(key).isna().any(axis=1).to_numpy()
    bad = is_incomplete.copy()
    try:  # without gaps whole numbers stay what they are, also beyond 2**53
        bad[~is_incomplete] = columns.plain_frame(key[~is_incomplete]).duplicated(keep=False)
    except TypeError as exc:
        raise InvalidArgumentError(
            f"values of {list(on)} cannot be compared ({exc}): keys are of texts, numbers and times"
        ) from exc
    if not (result := has_rows(key)):
        return result
    result = judge_rows(key, bad, "share a key or lack a part of it", "have a key of their own")
    return result or replace(result, columns=tuple(on))


def no_leakage_column(
    inputs: pd.DataFrame,
    label: "pd.Series[Any]",
    *,
    predicted_at: pd.Series | None = None,
    max_auc: float = 0.85,
    max_presence_gain: float = 0.95,
    max_foresight: float = 0.75,
) -> CheckResult:
    """Check that no column knows the label by itself, as only a look into the future can.

    Args:
        inputs: Inputs of a model, or columns that may become some.
        label: Two classes, such as 0 and 1, truth values, "yes" and "no"; same index, missing where
            nobody knows, at least two rows of each.
        predicted_at: When each row is predicted, same index, in the time zone whose days are meant.
            With it a column of numbers is also asked at dawn about the rest of the day, the only
            way to find a mean over the whole day: it sorts single rows hardly better than an
            honest mean over the hours before. Give two months or more.
        max_auc: Largest AUC of a column's values alone, in their order or as groups, .5 to 1.
        max_presence_gain: Largest share of the uncertainty, 0 to 1, that may go when a value is
            missing, or is there.
        max_foresight: Largest rank correlation over days of dawn's values with the rest's labels,
            0 to 1.

    Returns:
        The result, with the columns that leak, and those without any value where the label is
        known, which cannot be judged.

    Raises:
        InvalidArgumentError: The indexes differ; the label has more than two classes, or fewer than
            two rows of one; `predicted_at` spans fewer than 21 days; or a limit is out of its
            range.

    >>> has_left = pd.Series([False, False, False, True] * 50)
    >>> customers = pd.DataFrame({"n_calls": range(200), "next_bill": range(200)})
    >>> customers["next_bill"] = customers["next_bill"].where(~has_left)
    >>> no_leakage_column(customers, has_left)
    FAILED: next_bill: that it is missing tells the label, gain 1.00, at most 0.95
    """
    _require_limits(max_auc, max_presence_gain, max_foresight)
    frame, classes = as_frame(inputs), leakage.two_classes(label)
    for rows in (label, predicted_at):
        if rows is not None and not rows.index.equals(inputs.index):
            raise InvalidArgumentError(
                f"columns have {len(inputs)} rows and {rows.name!r} {len(rows)}, of other indexes:"
                " give the same rows in the same order"
            )
    if not (result := has_rows(frame)):
        return result
    n_rows = {value: int((classes == value).sum()) for value in (0, 1)}
    if min(n_rows.values()) < 2:
        raise InvalidArgumentError(
            f"label {label.name!r} has {n_rows[1]} rows of one class and {n_rows[0]} of the other,"
            " expected at least 2 of each, or every column looks innocent: give more rows"
        )
    if predicted_at is not None and leakage.n_days(classes, predicted_at) < leakage.MIN_DAYS:
        raise InvalidArgumentError(
            f"{predicted_at.name!r} spans {leakage.n_days(classes, predicted_at)} days with labels,"
            f" expected at least {leakage.MIN_DAYS}: give more rows, or leave predicted_at out"
        )
    faults = {}
    for name, (_, column) in zip(names(frame), frame.items(), strict=True):
        auc = _auc(column, classes)
        gain, group = leakage.presence_gain(column, classes)
        if column[classes.notna().to_numpy()].isna().all():
            faults[name] = "it has no value where the label is known, so it cannot be judged"
        elif auc > max_auc:
            faults[name] = f"its values tell the label, AUC {auc:.3f}, at most {max_auc}"
        elif gain > max_presence_gain:
            faults[name] = (
                f"that it is {group} tells the label, gain {gain:.2f}, at most {max_presence_gain}"
            )
        elif (foresight := _foresight(column, classes, predicted_at)) > max_foresight:
            faults[name] = (
                f"at dawn it knows the day's labels, rank correlation {foresight:.2f}, at most"
                f" {max_foresight}"
            )
    if faults:
        return failed({name: f"{name}: {fault}" for name, fault in faults.items()})
    return CheckResult(passed=True, reason="no column tells the label")


def _require_limits(max_auc: float, max_presence_gain: float, max_foresight: float) -> None:
    if not (0.5 <= max_auc <= 1 and 0 <= max_presence_gain <= 1 and 0 <= max_foresight <= 1):
        raise InvalidArgumentError(
            f"max_auc is {max_auc}, max_presence_gain {max_presence_gain}, max_foresight"
            f" {max_foresight}; expected .5 to 1, and 0 to 1 for the others"
        )


def _auc(column: pd.Series, classes: "pd.Series[float]") -> float:
    """Sort by the values as groups, and if they are numbers in their order too."""
    auc = leakage.auc_of_groups(column, classes)
    is_number = columns.kind(column) in {"number", "boolean"}
    return max(auc, leakage.auc_alone(column, classes)) if is_number else auc


def _foresight(
    column: pd.Series, classes: "pd.Series[float]", predicted_at: pd.Series | None
) -> float:
    """Measure the foresight of a column of numbers if the time is given, else return 0."""
    if predicted_at is None or columns.kind(column) not in {"number", "boolean"}:
        return 0.0
    return leakage.foresight(column, classes, predicted_at)
