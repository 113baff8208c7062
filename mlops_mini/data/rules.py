"""What the rules of every table share: rows set aside with a reason, limits of a whole partition.

`schema` says which rules flights and weather must keep. A partition passes through here in one of
three ways: all is well; single rows are set aside; or the whole is refused, by one error that tells
everything that is wrong with it. What is odd but usable is a finding, for the caller to report.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from mlops_mini.data import columns
from mlops_mini.data.periods import Period
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError

if TYPE_CHECKING:  # importing pandera takes over a second
    from pandera.pandas import DataFrameSchema

# Fewer rows than these say nothing about a whole partition.
MIN_ROWS = 100

RowRules = Mapping[str, tuple[tuple[str, ...], Callable[[pd.DataFrame], "pd.Series[bool]"]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something odd in a partition that can be used nevertheless.

    Attributes:
        name: What it is, such as `stale` or `new carrier`; the same words each time.
        column: The column it is about.
        text: One line with the numbers.
    """

    name: str
    column: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSplit:
    """A partition, parted by the row rules: every row that arrived is in one of the two.

    Attributes:
        kept: Rows that keep all rules, as they arrived, with their index.
        quarantined: The others, with a further column `reason`: for each broken rule the column,
            the rule and the value, such as `distance: in_range(50, 5000), found 17`.
        failures: The same reasons as a table, one line a broken rule: `row`, the position in the
            partition, from 0; `column`, `rule` and `value`, strings.
        findings: What is odd but no reason to set a row aside.
    """

    kept: pd.DataFrame
    quarantined: pd.DataFrame
    failures: pd.DataFrame
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeRule:
    """A limit on a statistic of a whole partition, which moves when somebody changes a unit.

    Single values may look right in another unit: 21 degrees are a temperature in Celsius as in
    Fahrenheit. Their median, or what they say together with another column, does not.

    Attributes:
        columns: The columns it is about.
        quantity: What is measured, in words.
        values: A value a row, NaN for rows that say nothing.
        summary: Which statistic of the values.
        low: Smallest that the statistic may be.
        high: Largest.
        unit: Unit of all three.
        by: Column whose every value is judged by itself; None for all rows together.
        min_rows: Fewer values than these are not judged.
    """

    columns: tuple[str, ...]
    quantity: str
    values: Callable[[pd.DataFrame], pd.Series]
    summary: Literal["median", "min"] = "median"
    low: float
    high: float
    unit: str
    by: str | None = None
    min_rows: int = MIN_ROWS

    def problems(self, rows: pd.DataFrame) -> list[str]:
        """Say in one line each what is out of the limits; nothing if all is well."""
        values = self.values(rows).dropna()
        groups = values.groupby(
            rows[self.by].loc[values.index] if self.by else lambda _: "all rows"
        )
        found = groups.agg(self.summary)[groups.size() >= self.min_rows]
        return [
            f"{self.summary} {self.quantity} ({', '.join(self.columns)}) is {value:.4g}"
            f" {self.unit} in {group}, expected {self.low:g} to {self.high:g}: another unit?"
            for group, value in found.items()
            if not self.low <= value <= self.high
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRules:
    """All rules of one table and one partition of it.

    Attributes:
        table: Its name, for messages.
        period: The partition's month or week.
        columns: Columns and kinds that must be there; a nullable one may miss values.
        rows: Rules on single rows, for pandera.
        across: The rules among these that look at several columns: by name, these columns, and
            what tells which rows keep it.
        whole: Limits on statistics of the whole partition.
        max_missing_share: Share of missing values above which a column is a finding, 0 to 1.
    """

    table: str
    period: Period
    columns: pa.Schema
    rows: "DataFrameSchema"
    across: RowRules
    whole: Sequence[WholeRule]
    max_missing_share: Mapping[str, float]

    def split(self, rows: pd.DataFrame, *, max_quarantined_share: float) -> RowSplit:
        """Part a partition into rows to use and rows to set aside.

        Args:
            rows: The partition, its columns of any dtype.
            max_quarantined_share: Largest share of rows to set aside, 0 to 1.

        Returns:
            Both parts, and findings about columns.

        Raises:
            DataIntegrityError: The partition is refused as a whole; the message tells every reason.
            InvalidArgumentError: The share is out of its range.
        """
        if not 0 <= max_quarantined_share <= 1:
            raise InvalidArgumentError(
                f"max_quarantined_share is {max_quarantined_share}, expected 0 to 1"
            )
        plain = columns.plain_frame(rows)
        self._refuse_if(self._column_problems(plain))
        numbered = self._typed(plain.reset_index(drop=True))
        failures = self._failures(numbered)
        bad = sorted(set(failures["row"]))
        problems = [problem for rule in self.whole for problem in rule.problems(numbered)]
        if len(bad) > max_quarantined_share * len(rows):
            most_common, n_rows = Counter(reasons(failures)).most_common(1)[0]
            problems.append(
                f"{len(bad)} of {len(rows)} rows break a rule, at most {max_quarantined_share:.1%}"
                f" may; most often {most_common} ({n_rows} rows)"
            )
        self._refuse_if(problems)
        by_row = reasons(failures).groupby(failures["row"]).agg("; ".join)
        is_bad = numbered.index.isin(bad)
        return RowSplit(
            kept=rows[~is_bad],
            quarantined=rows[is_bad].assign(reason=by_row.to_numpy()),
            failures=failures,
            findings=self._column_findings(plain),
        )

    def _refuse_if(self, problems: Sequence[str]) -> None:
        if problems:
            raise DataIntegrityError(
                f"{self.table} of {self.period} refused: {'; '.join(problems)}:"
                " have the partition sent again"
            )

    def _typed(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Give columns without any value, which carry no type, the type that they would have."""
        kinds = {}
        for field in self.columns:
            if rows[field.name].isna().all():
                is_instant = pa.types.is_timestamp(field.type)
                other = "object" if pa.types.is_string(field.type) else "float64"
                kinds[field.name] = "datetime64[ns, UTC]" if is_instant else other
        return rows.astype(kinds)

    def _column_problems(self, rows: pd.DataFrame) -> list[str]:
        problems = []
        missing = [name for name in self.columns.names if name not in rows.columns]
        if missing:
            extra = [name for name in rows.columns if name not in self.columns.names]
            renamed = f" (is one of {extra} a new name?)" if extra else ""
            problems.append(
                f"columns {missing} are missing, there are {list(rows.columns)}{renamed}"
            )
        if rows.empty:
            problems.append("no rows, expected at least one")
            return problems
        twice = [name for name in self.columns.names if list(rows.columns).count(name) > 1]
        if twice:
            problems.append(f"columns {twice} are there more than once")
        for field in self.columns:
            if field.name not in (*missing, *twice):
                problems += _kind_problems(rows[field.name], field.type)
        return problems

    def _column_findings(self, rows: pd.DataFrame) -> tuple[Finding, ...]:
        extra = [str(name) for name in rows.columns if name not in self.columns.names]
        found = [
            Finding(
                name="extra column", column=name, text=f"{name!r} is in no rule, nothing uses it"
            )
            for name in extra
        ]
        if len(rows) >= MIN_ROWS:
            for name, limit in self.max_missing_share.items():
                share = float(rows[name].isna().mean())
                if share > limit:
                    text = f"{share:.1%} of {name} are missing, expected at most {limit:.1%}"
                    found.append(Finding(name="many missing", column=name, text=text))
        return tuple(found)

    def _failures(self, rows: pd.DataFrame) -> pd.DataFrame:
        """List broken rules, one line each: position of the row, column, rule, value."""
        from pandera.errors import SchemaErrors

        lines: dict[tuple[int, str, str], str] = {}
        try:
            self.rows.validate(rows, lazy=True)
        except SchemaErrors as exc:
            for case in exc.failure_cases.itertuples():
                row, column, found = int(case.index), str(case.column), str(case.failure_case)
                if case.check in self.across:
                    columns, _ = self.across[case.check]
                    column = ", ".join(columns)
                    found = ", ".join(str(rows[name].iloc[row]) for name in columns)
                lines.setdefault((row, column, str(case.check)), found)
        table = [(*where, found) for where, found in lines.items()]
        failures = pd.DataFrame(table, columns=["row", "column", "rule", "value"])
        return failures.astype({"row": "int64"})


def is_text(column: pd.Series) -> bool:
    """Tell whether all that is there is strings."""
    return columns.kind(columns.plain(column)) in {"text", "empty"}


def is_whole(column: pd.Series) -> "pd.Series[bool]":
    """Tell which values of a column are whole numbers, as integers or as floats.

    >>> is_whole(pd.Series([2, 0.5, None, "2"])).tolist()
    [True, False, False, False]
    """
    numbers, _ = columns.as_numbers(column)
    return pd.Series(np.isfinite(numbers) & (numbers == np.trunc(numbers)), index=column.index)


def reasons(failures: pd.DataFrame) -> "pd.Series[str]":
    """Put each broken rule of `RowSplit.failures` into words: column, rule and value."""
    return failures["column"] + ": " + failures["rule"] + ", found " + failures["value"]


def _kind_problems(column: pd.Series, kind: pa.DataType) -> list[str]:
    """Say what is wrong with a plain column as such, whatever its single values are."""
    name, dtype = column.name, column.dtype
    if column.isna().all():
        return [f"column {name!r} is wholly empty"] if len(column) >= MIN_ROWS else []
    if pa.types.is_timestamp(kind):
        if isinstance(dtype, pd.DatetimeTZDtype) and str(dtype.tz) == "UTC":
            return []
        if columns.kind(column) == "local time":
            return [f"column {name!r} is {dtype} without a time zone, expected instants in UTC"]
        return [f"column {name!r} is {dtype}, expected instants in UTC"]
    expected = "text" if pa.types.is_string(kind) else "number"
    found = columns.kind(column)
    if found in {expected, "empty"}:
        return []
    example = f" with {columns.odd_one(column)}" if found == "other" else ""
    return [f"column {name!r} is {dtype}{example}, expected {kind}"]
