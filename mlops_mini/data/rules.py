"""Rules that rows keep, and a partition split into rows to use and rows to set aside.

A table says which rules its rows and its partitions must keep. A partition passes through `split`
in one of three ways: all is well; single rows are set aside; or the whole is refused, by one error
that tells everything that is wrong with it. What is odd but usable is a finding, for the caller to
report.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from mlops_mini.data import column_types, columns, completeness, tensors
from mlops_mini.data import table as tables
from mlops_mini.data.findings import Finding
from mlops_mini.data.periods import Period
from mlops_mini.data.table import MIN_ROWS, RowRule, Table
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError

if TYPE_CHECKING:  # importing pandera takes over a second
    from pandera.pandas import DataFrameSchema


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSplit:
    """A partition, split by the row rules: every row that arrived is in one of the two parts.

    Attributes:
        table: Name of the table.
        period: Which period it is the partition of.
        kept: Rows that keep all rules, as they arrived, with their index.
        quarantined: The others, with a further column `reason`: for each broken rule the column,
            the rule and the value, such as `distance: in_range(50, 5000), found 17`.
        failures: The same reasons as a table, one line for each broken rule: `row`, the position in
            the partition, from 0; `column`, `rule` and `value`, strings.
        findings: What is odd but no reason to set a row aside.
    """

    table: str
    period: Period
    kept: pd.DataFrame
    quarantined: pd.DataFrame
    failures: pd.DataFrame
    findings: tuple[Finding, ...] = ()


def row_rule(
    name: str,
    columns: Sequence[str],
    keeps: Callable[[pd.DataFrame], "pd.Series[bool]"],
    *,
    words: str = "",
) -> RowRule:
    """Make a rule of your own.

    Args:
        name: What it demands, in a few words.
        columns: The columns it is about.
        keeps: Tells which rows keep it; see `RowRule`.
        words: What to say in place of the name where the rule is described.

    >>> calm = row_rule("is calm", ["temp_c", "limit_c"], lambda rows: rows.temp_c < rows.limit_c)
    >>> calm.keeps(pd.DataFrame({"temp_c": [20, 90], "limit_c": 60})).tolist()
    [True, False]
    """
    return RowRule(columns=tuple(columns), name=name, keeps=keeps, words=words)


def in_range(column: str, low: float, high: float) -> RowRule:
    """Demand numbers in a range, both ends included.

    Raises:
        InvalidArgumentError: `low` is above `high`.
    """
    if not low <= high:
        raise InvalidArgumentError(
            f"in_range of {column}: the lower limit {low} is above the upper, {high}: swap them"
        )
    name = f"in_range({low}, {high})"
    words = f"is between {low:,} and {high:,}"
    return row_rule(name, [column], lambda rows: rows[column].between(low, high), words=words)


def is_in(column: str, values: Sequence[str] | Sequence[int]) -> RowRule:
    """Demand one of some values."""
    name = f"isin({tuple(values)})"
    *most, last = map(str, values)
    words = f"is {', '.join(most)} or {last}" if most else f"is {last}"
    return row_rule(name, [column], lambda rows: rows[column].isin(values), words=words)


def is_whole(*columns: str) -> tuple[RowRule, ...]:
    """Demand whole numbers, as integers or as floats: one rule for each column.

    >>> [rule.columns for rule in is_whole("n_calls", "age")]
    [('n_calls',), ('age',)]
    """

    def rule(column: str) -> RowRule:
        return row_rule(
            "is a whole number", [column], lambda rows: column_types.is_whole(rows[column])
        )

    return tuple(rule(column) for column in columns)


def has_length(column: str, n: int) -> RowRule:
    """Demand texts of so many characters."""
    name, words = f"str_length({n}, {n})", f"has {n} characters"
    return row_rule(name, [column], lambda rows: rows[column].str.len() == n, words=words)


def unique(*columns: str) -> RowRule:
    """Demand that no two rows agree in all of these columns; of those that do, the first keeps it.

    >>> once = unique("machine", "time")
    >>> once.keeps(pd.DataFrame({"machine": ["a", "a", "b"], "time": 1})).tolist()
    [True, False, True]
    """
    words = "no two rows have the same; of those that do, the first is kept"
    return row_rule(
        "comes only once", columns, lambda rows: ~rows.duplicated(list(columns)), words=words
    )


def split(
    table: Table, rows: pd.DataFrame, period: Period, *, max_quarantined_share: float = 0.01
) -> RowSplit:
    """Split a partition into rows to use and rows to set aside.

    A row must keep the table's own rules, lie in the period and have a key that no row before it
    has. A missing time breaks a rule only where nothing else is wrong with the row.

    Args:
        table: What the rows must keep.
        rows: The partition, its columns of any dtype.
        period: The month or week that they are the partition of.
        max_quarantined_share: Largest share of rows to set aside, 0 to 1, before the partition as a
            whole is refused.

    Returns:
        Both parts, together exactly the rows given; and findings: `extra column`, `many missing`,
        and of a table with a series `incomplete`, `stale` and `empty observation`.

    Raises:
        DataIntegrityError: The partition is refused: no rows, a column missing, empty or of the
            wrong kind, instants in another zone than UTC, a unit that must be another, or too many
            rows that break a rule. The one message tells all of it.
        InvalidArgumentError: The share is out of its range, or a rule or `prepare` fails itself.

    >>> from mlops_mini.data.periods import Calendar
    >>> machines = Table(
    ...     name="machines",
    ...     key=["machine"],
    ...     time="built",
    ...     columns={"machine": "text", "built": "instant", "temp_c": "number?"},
    ...     rules=[in_range("temp_c", -40, 120)],
    ... )
    >>> rows = pd.DataFrame({"machine": ["press", "saw"], "temp_c": [21.0, 2100.0]})
    >>> rows = rows.assign(built=pd.Timestamp("2026-03-07", tz="UTC"))
    >>> march = split(machines, rows, Calendar().period("2026-03"), max_quarantined_share=0.5)
    >>> march.kept["machine"].tolist(), march.quarantined["reason"].tolist()
    (['press'], ['temp_c: in_range(-40, 120), found 2100.0'])
    """
    if not 0 <= max_quarantined_share <= 1:
        raise InvalidArgumentError(
            f"max_quarantined_share is {max_quarantined_share}, expected 0 to 1"
        )
    plain = columns.plain_frame(rows)
    _refuse_if(_column_problems(table, plain), table, period)
    prepared = prepare(table, _typed(table, plain.reset_index(drop=True)))
    failures = _failures(table, prepared, period)
    problems = [problem for rule in table.whole_rules for problem in rule.problems(prepared)]
    bad = sorted(set(failures["row"]))
    if len(bad) > max_quarantined_share * len(rows):
        broken = Counter(zip(failures["column"], failures["rule"], strict=True))
        (column, rule), n_rows = broken.most_common(1)[0]
        example = failures.loc[(failures["column"] == column) & (failures["rule"] == rule), "value"]
        doubt = ", which no row keeps: correct it if it's wrong" if n_rows == len(rows) else ""
        problems.append(
            f"{len(bad)} of {len(rows)} rows break a rule, at most {max_quarantined_share:.1%}"
            f" may; most often {column}: {rule}, found {example.iloc[0]} ({n_rows} rows){doubt}"
        )
    _refuse_if(problems, table, period)
    by_row = reasons(failures).groupby(failures["row"]).agg("; ".join)
    is_bad = prepared.index.isin(bad)
    findings = _column_findings(table, plain)
    if table.series:
        findings += completeness.findings(table.series, table.time, prepared, period)
    return RowSplit(
        table=table.name,
        period=period,
        kept=rows[~is_bad],
        quarantined=rows[is_bad].assign(reason=by_row.to_numpy()),
        failures=failures,
        findings=findings,
    )


def prepare(table: Table, rows: pd.DataFrame) -> pd.DataFrame:
    """Add the columns that a table's `prepare` adds, and make sure that the time is among them.

    Args:
        table: The table.
        rows: Its stored columns.

    Returns:
        The same rows, prepared; those given if the table has no `prepare`.

    Raises:
        InvalidArgumentError: `prepare` fails, or gives other rows; or the time isn't an instant.
    """
    prepared = tables.prepared(table.prepare, rows, table.name) if table.prepare else rows
    if table.time not in prepared or not isinstance(prepared[table.time].dtype, pd.DatetimeTZDtype):
        kind = prepared[table.time].dtype if table.time in prepared else "not there"
        raise InvalidArgumentError(
            f"{table.name}: its time {table.time!r} is {kind} once prepared, expected instants in"
            " UTC: let prepare add them"
        )
    return prepared


def reasons(failures: pd.DataFrame) -> "pd.Series[str]":
    """Put each broken rule of `RowSplit.failures` into words: column, rule and value."""
    return failures["column"] + ": " + failures["rule"] + ", found " + failures["value"]


def _refuse_if(problems: Sequence[str], table: Table, period: Period) -> None:
    if problems:
        raise DataIntegrityError(
            f"{table.name} of {period} refused: {'; '.join(problems)}:"
            " have the partition sent again"
        )


def _typed(table: Table, rows: pd.DataFrame) -> pd.DataFrame:
    """Give columns without any value, which carry no type, the type that they would have."""
    types: dict[str, Any] = {}
    for field in table.arrow:
        if rows[field.name].isna().all():
            is_instant = pa.types.is_timestamp(field.type)
            is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
            other = "float64" if is_number else "object"
            types[field.name] = "datetime64[ns, UTC]" if is_instant else other
            if (tensor := tensors.mapper(field.type)) is not None:
                types[field.name] = tensor
    return rows.astype(types)


def _column_problems(table: Table, rows: pd.DataFrame) -> list[str]:
    problems = []
    missing = [name for name in table.columns if name not in rows.columns]
    if missing:
        extra = [name for name in rows.columns if name not in table.columns]
        renamed = f" (is one of {extra} a new name?)" if extra else ""
        problems.append(f"columns {missing} are missing, there are {list(rows.columns)}{renamed}")
    if rows.empty:
        problems.append("no rows, expected at least one")
        return problems
    twice = [name for name in table.columns if list(rows.columns).count(name) > 1]
    if twice:
        problems.append(f"columns {twice} are there more than once")
    for field in table.arrow:
        if field.name not in (*missing, *twice):
            problems += _kind_problems(rows[field.name], field.type)
    return problems


def _kind_problems(column: pd.Series, kind: pa.DataType) -> list[str]:
    """Say what is wrong with a plain column as such, whatever its single values are."""
    name, dtype = column.name, column.dtype
    if column.isna().all():
        return [f"column {name!r} is wholly empty"] if len(column) >= MIN_ROWS else []
    if pa.types.is_fixed_size_list(kind):
        actual, expected = tensors.kind_of(column), tensors.kind(kind)
        return [] if actual == expected else [f"column {name!r} is {actual}, expected {expected}"]
    if pa.types.is_timestamp(kind):
        if isinstance(dtype, pd.DatetimeTZDtype) and str(dtype.tz) == "UTC":
            return []
        if columns.kind(column) == "local time":
            return [f"column {name!r} is {dtype} without a time zone, expected instants in UTC"]
        return [f"column {name!r} is {dtype}, expected instants in UTC"]
    expected = "text" if pa.types.is_string(kind) else "number"
    expected = "boolean" if pa.types.is_boolean(kind) else expected
    actual = columns.kind(column)
    if actual in {expected, "empty"}:
        return []
    example = f" with {columns.odd_one(column)}" if actual == "other" else ""
    return [f"column {name!r} is {dtype}{example}, expected {kind}"]


def _column_findings(table: Table, rows: pd.DataFrame) -> tuple[Finding, ...]:
    extra = [str(name) for name in rows.columns if name not in table.columns]
    findings = [
        Finding(name="extra column", column=name, text=f"{name!r} is in no rule, nothing uses it")
        for name in extra
    ]
    if len(rows) >= MIN_ROWS:
        for name, limit in table.max_missing.items():
            share = float(rows[name].isna().mean())
            if share > limit:
                text = f"{share:.1%} of {name} are missing, expected at most {limit:.1%}"
                findings.append(Finding(name="many missing", column=name, text=text))
    return tuple(findings)


def _failures(table: Table, rows: pd.DataFrame, period: Period) -> pd.DataFrame:
    """List broken rules, one line each: position of the row, column, rule, value."""
    from pandera.errors import SchemaErrors

    def is_in_period(rows: pd.DataFrame) -> "pd.Series[bool]":
        return (rows[table.time] >= period.start) & (rows[table.time] < period.end)

    in_period = row_rule(f"is in {period}", [table.time], is_in_period)
    rules = (*table.row_rules, in_period, unique(*table.key))
    lines: dict[tuple[int, str, str], str] = {}
    try:
        _schema(table, rules).validate(rows, lazy=True)
    except SchemaErrors as exc:
        for case in exc.failure_cases.itertuples():
            if case.check == "not_nullable":
                names, demanded = [case.column], case.check
            else:
                rule = rules[int(case.check)]
                names, demanded = list(rule.columns), rule.name
            if pd.isna(case.index):
                raise InvalidArgumentError(
                    f"{table.name}: the rule {demanded!r} on {names} fails itself with"
                    f" {case.failure_case}: it must give one truth value for each row"
                ) from exc
            value = ", ".join(str(rows[name].iloc[case.index]) for name in names)
            lines.setdefault((int(case.index), ", ".join(names), demanded), value)
    broken = {row for row, _, _ in lines}
    for row in rows.index[rows[table.time].isna()].difference(list(broken)):
        lines[row, table.time, in_period.name] = str(rows.loc[row, table.time])
    failures = [(*where, value) for where, value in lines.items()]
    listed = pd.DataFrame(failures, columns=["row", "column", "rule", "value"])
    return listed.astype({"row": "int64"})


def _schema(table: Table, rules: Sequence[RowRule]) -> "DataFrameSchema":
    """Say it in pandera's words; a check bears the number of its rule."""
    from pandera.pandas import Check, Column, DataFrameSchema

    alone: dict[str, list[Check]] = {name: [] for name in table.columns}
    together = []
    for number, rule in enumerate(rules):
        if len(rule.columns) > 1:
            together.append(Check(rule.keeps, name=str(number)))
            continue

        def keeps(column: pd.Series, rule: RowRule = rule) -> Any:
            return rule.keeps(column.to_frame())

        alone.setdefault(rule.columns[0], []).append(Check(keeps, name=str(number)))
    required = {field.name for field in table.arrow if not field.nullable}
    return DataFrameSchema(
        {
            name: Column(checks=checks, nullable=name not in required)
            for name, checks in alone.items()
        },
        checks=together,
    )
