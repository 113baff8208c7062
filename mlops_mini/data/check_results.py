"""What a unit test of input data answers, and how its reason is put."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Values = pd.DataFrame | pd.Series | NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class CheckResult:
    """What a check found; true if it passed.

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
    """Make a frame of columns given in any form, with positions as index for arrays."""
    if isinstance(values, pd.DataFrame):
        return values
    if isinstance(values, pd.Series):
        return values.to_frame("values" if values.name is None else values.name)
    if values.ndim == 1:
        return pd.DataFrame({"values": values})
    return pd.DataFrame(values.reshape(len(values), -1))


def names(frame: pd.DataFrame) -> tuple[str, ...]:
    """Name the columns in words."""
    return tuple(str(name) for name in frame.columns)


def judge(frame: pd.DataFrame, bad: pd.DataFrame, fault: str, fine: str) -> CheckResult:
    """Make a result from what is wrong, true in a frame of the same shape."""
    is_bad = bad.to_numpy(dtype=bool)
    n_bad = is_bad.sum(axis=0)
    columns = tuple(name for name, n in zip(names(frame), n_bad, strict=True) if n)
    if not columns:
        return CheckResult(passed=True, reason=f"the values of all {len(frame)} rows {fine}")
    at = int(np.flatnonzero(n_bad)[0])
    first = int(np.argmax(is_bad[:, at]))
    value = frame.iloc[first, at]
    shown = repr(value) if isinstance(value, str) else str(value)
    reason = (
        f"{columns[0]}: {n_bad[at]} of {len(frame)} values {fault}, such as {shown} in row"
        f" {frame.index[first]}{also(columns)}"
    )
    rows = tuple(frame.index[np.flatnonzero(is_bad.any(axis=1))])
    return CheckResult(passed=False, reason=reason, rows=rows, columns=columns)


def also(columns: Sequence[str] | Mapping[str, str]) -> str:
    """End a sentence about the first column by naming some of the others."""
    others = list(columns)[1:]
    return f"; also {', '.join(others[:4])}{', ...' if len(others) > 4 else ''}" if others else ""
