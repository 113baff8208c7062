"""The result of a check of input data, and the wording of its reason."""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_mini.data.columns import plain_frame, shown
from mlops_mini.errors import InvalidArgumentError

Values = pd.DataFrame | pd.Series | NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class CheckResult:
    """The result of a check; true if it passed.

    Attributes:
        passed: Whether all is as it should be.
        reason: One sentence with the numbers, also if it passed.
        rows: Labels of the offending rows, positions for arrays; none if a column is at fault as a
            whole.
        columns: Names of the offending columns.
    """

    passed: bool
    reason: str
    rows: tuple[Hashable, ...] = ()
    columns: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return f"{'passed' if self.passed else 'FAILED'}: {self.reason}"


def as_frame(values: Values) -> pd.DataFrame:
    """Make a frame of plain columns from columns in any form, with positions as index for arrays.

    Raises:
        InvalidArgumentError: It is no frame, series or array with an axis of rows.
    """
    if isinstance(values, pd.DataFrame):
        return plain_frame(values)
    if isinstance(values, pd.Series):
        return plain_frame(values.to_frame("values" if values.name is None else values.name))
    given: Any = values  # of whatever type it really is
    if not isinstance(given, np.ndarray) or not given.ndim or given.dtype.names:
        raise InvalidArgumentError(
            f"expected a frame, a series or an array with an axis of rows, got {type(values)}:"
            " make one of it, such as with pd.Series or np.asarray"
        )
    if isinstance(values, np.ma.MaskedArray):
        given = np.ma.getdata(values).astype(object)
        given[np.ma.getmaskarray(values)] = None
    if given.ndim == 1:
        return plain_frame(pd.DataFrame({"values": given}))
    return plain_frame(pd.DataFrame(given.reshape(len(given), math.prod(given.shape[1:]))))


def has_rows(frame: pd.DataFrame) -> CheckResult:
    """Check that there are rows and columns: of nothing, everything holds."""
    if frame.shape[0] and frame.shape[1]:
        return CheckResult(passed=True, reason=f"there are {len(frame)} rows")
    what = "columns" if frame.shape[0] else "rows"
    return CheckResult(passed=False, reason=f"there are no {what}", columns=names(frame))


def has_values(frame: pd.DataFrame) -> CheckResult:
    """Check that there are rows and columns, and that no column is missing in all rows."""
    gone = [name for name, lacks in zip(names(frame), frame.isna().all(), strict=True) if lacks]
    if len(frame) and gone:
        reason = f"{gone[0]}: there is no value in {len(frame)} rows{also(gone)}"
        return CheckResult(passed=False, reason=reason, columns=tuple(gone))
    return has_rows(frame)


def names(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the names of the columns as texts."""
    return tuple(str(name) for name in frame.columns)


def by_column(
    frame: pd.DataFrame, is_bad: Callable[[pd.Series], NDArray[np.bool_]]
) -> pd.DataFrame:
    """Make a frame of the same shape that is true where a value is wrong."""
    bad = {at: is_bad(frame.iloc[:, at]) for at in range(frame.shape[1])}
    return pd.DataFrame(bad, index=frame.index)


def failed(faults: Mapping[str, str], rows: Iterable[Hashable] = ()) -> CheckResult:
    """Make a result from what is wrong with columns, by their names; there is some fault."""
    reason = f"{next(iter(faults.values()))}{also(faults)}"
    return CheckResult(passed=False, reason=reason, rows=tuple(rows), columns=tuple(faults))


def judge_rows(
    frame: pd.DataFrame, is_bad: NDArray[np.bool_], fault: str, fine: str
) -> CheckResult:
    """Make a result from which rows are wrong as a whole."""
    if not is_bad.any():
        return CheckResult(passed=True, reason=f"all {len(frame)} rows {fine}")
    first = int(np.argmax(is_bad))
    reason = (
        f"{int(is_bad.sum())} of {len(frame)} rows {fault}, such as"
        f" [{', '.join(map(shown, frame.iloc[first]))}] in row {frame.index[first]}"
    )
    return CheckResult(passed=False, reason=reason, rows=tuple(frame.index[is_bad]))


def judge(frame: pd.DataFrame, bad: pd.DataFrame, fault: str, fine: str) -> CheckResult:
    """Make a result from a frame of the same shape that is true where a value is wrong."""
    is_bad = bad.to_numpy(dtype=bool)
    n_bad = is_bad.sum(axis=0)
    columns = tuple(name for name, n in zip(names(frame), n_bad, strict=True) if n)
    if not columns:
        return CheckResult(passed=True, reason=f"the values of all {len(frame)} rows {fine}")
    at = int(np.flatnonzero(n_bad)[0])
    first = int(np.argmax(is_bad[:, at]))
    value = frame.iloc[first, at]
    reason = (
        f"{columns[0]}: {n_bad[at]} of {len(frame)} values {fault}, such as {shown(value)} in row"
        f" {frame.index[first]}{also(columns)}"
    )
    rows = tuple(frame.index[np.flatnonzero(is_bad.any(axis=1))])
    return CheckResult(passed=False, reason=reason, rows=rows, columns=columns)


def also(columns: Sequence[str] | Mapping[str, str]) -> str:
    """End a sentence about the first column by naming some of the others."""
    others = list(columns)[1:]
    return f"; also {', '.join(others[:4])}{', ...' if len(others) > 4 else ''}" if others else ""
