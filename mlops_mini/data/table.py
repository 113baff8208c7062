"""Describes a table: its columns, its key, its time, and the rules that its rows keep."""

import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa

from mlops_mini.data import tensors
from mlops_mini.errors import InvalidArgumentError, MlopsMiniError

Prepare = Callable[[pd.DataFrame], pd.DataFrame]

# Fewer rows than these say nothing about a whole partition.
MIN_ROWS = 100

_KINDS = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "instant": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RowRule:
    """A rule that every row must keep.

    Attributes:
        columns: The columns it is about. A rule of one column is not asked about missing values;
            whether they may be missing is the column's own business.
        name: What the rule demands, in a few words, for messages and the record of rows set aside.
        keeps: Tells which rows keep it, given the rows prepared; one truth value for each row.
        words: The same as `name` in plain words, for `mlops-mini describe`; without them, the name.
    """

    columns: Sequence[str]
    name: str
    keeps: Callable[[pd.DataFrame], "pd.Series[bool]"]
    words: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeRule:
    """A limit on a statistic of a whole partition, which moves when somebody changes a unit.

    Single values may look right in another unit: 21 degrees are a temperature in Celsius as in
    Fahrenheit. Their median, or what they say together with another column, does not.

    Attributes:
        columns: The columns it is about.
        quantity: What is measured, in words.
        values: One value for each row, NaN for rows that say nothing.
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
        statistics = groups.agg(self.summary)[groups.size() >= self.min_rows]
        return [
            f"{self.summary} {self.quantity} ({', '.join(self.columns)}) is {value:.4g}"
            f" {self.unit} in {group}, expected {self.low:g} to {self.high:g}: another unit?"
            for group, value in statistics.items()
            if not self.low <= value <= self.high
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Rows that come at regular times, and what makes them complete.

    Attributes:
        every: Time from one row to the next, such as `1h`.
        of: The column whose every value has a series of its own.
        values: The values that must be there; without any, those that are seen.
        max_age: How old the last row may be at the end of a period, such as `6h`.
        together: Columns that must not all be missing in a row.
    """

    every: str
    of: str
    values: Sequence[str] = ()
    max_age: str
    together: Sequence[str] = ()

    def __post_init__(self) -> None:
        if duration(self.every, "every") <= pd.Timedelta(0):
            raise InvalidArgumentError(f"every is {self.every!r}, expected a time above 0: use 1h")
        duration(self.max_age, "max_age")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that arrives in partitions, one period after the other.

    Attributes:
        name: Its name, also that of its folder or file.
        key: Columns that tell its rows apart. Of two rows with the same key the first is kept.
        time: Column with instants in UTC, stored or added by `prepare`; it says which period a row
            belongs to.
        columns: Kind of each stored column: `text`, `integer`, `number`, `boolean`, `instant`, the
            name of an Arrow type such as `int16`, or an array in each row such as `uint8[28,28]`,
            which can't be missing. Dates and times without a zone are `text`,
            of which `prepare` makes instants with `local_times.to_utc`. A `?` behind it means that
            values may be missing.
        rules: What rows and whole partitions must keep, besides their key and their period.
        prepare: Adds columns that follow from the stored ones, and must not raise for bad values;
            rules see what it returns.
        series: What makes the table complete, if its rows come at regular times.
        max_missing: Share of missing values above which a column is a finding, 0 to 1.
        schema: File with the reviewed statistical schema of the rows kept, a `.pbtxt`.

    >>> readings = Table(
    ...     name="readings",
    ...     key=("machine", "time"),
    ...     time="time",
    ...     columns={"machine": "text", "time": "instant", "temp_c": "number?"},
    ... )
    >>> readings.arrow.field("temp_c")
    pyarrow.Field<temp_c: double>
    """

    name: str
    key: Sequence[str]
    time: str
    columns: Mapping[str, str]
    rules: Sequence[RowRule | WholeRule] = ()
    prepare: Prepare | None = None
    series: Series | None = None
    max_missing: Mapping[str, float] = field(default_factory=dict)
    schema: Path | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w-]*", self.name, re.ASCII):
            raise InvalidArgumentError(
                f"{self.name!r} can't name a table: use letters, digits, _ and -, such as readings"
            )
        self._check_columns()
        self._check_rules()
        for column, share in self.max_missing.items():
            self._require(column, "max_missing", is_stored=True)
            if not 0 <= share <= 1:
                raise InvalidArgumentError(
                    f"{self.name}: max_missing of {column!r} is {share}, expected 0 to 1"
                )

    @property
    def arrow(self) -> pa.Schema:
        """The stored columns as an Arrow schema."""
        return pa.schema(
            [
                pa.field(column, self._type(column), nullable=kind.endswith("?"))
                for column, kind in self.columns.items()
            ]
        )

    @property
    def row_rules(self) -> tuple[RowRule, ...]:
        """The rules on rows among `rules`."""
        return tuple(rule for rule in self.rules if isinstance(rule, RowRule))

    @property
    def whole_rules(self) -> tuple[WholeRule, ...]:
        """The rules on whole partitions among `rules`."""
        return tuple(rule for rule in self.rules if isinstance(rule, WholeRule))

    def _check_columns(self) -> None:
        for column in self.columns:
            self._type(column)
        if isinstance(self.key, str) or not self.key or len(set(self.key)) != len(self.key):
            raise InvalidArgumentError(
                f"{self.name}: key is {self.key!r}, expected the columns that tell rows apart,"
                ' such as ("machine", "time")'
            )
        if "" in (*self.key, self.time):
            what = "time" if not self.time else "key"
            raise InvalidArgumentError(
                f"{self.name}: its {what} names no column: name one of {list(self.columns)}, or add"
                " one to the file"
            )
        for column in (*self.key, self.time):
            self._require(column, "time" if column == self.time else "key")
            if self.columns.get(column, "").endswith("?"):
                raise InvalidArgumentError(
                    f"{self.name}: column {column!r} tells rows apart or says when they are from,"
                    f" so its values can't be missing: take the ? off {self.columns[column]!r}"
                )
        if self.time in self.columns and not pa.types.is_timestamp(self._type(self.time)):
            raise InvalidArgumentError(
                f"{self.name}: time {self.time!r} is of kind {self.columns[self.time]!r}, expected"
                " instant: store instants, or name a column that prepare adds"
            )
        if self.series:
            self._require(self.series.of, "series", is_stored=True)
        for column in self.series.together if self.series else ():
            self._require(column, "together", is_stored=True)

    def _check_rules(self) -> None:
        for rule in self.rules:
            if not isinstance(rule, RowRule | WholeRule):
                raise InvalidArgumentError(
                    f"{self.name}: rules hold a {type(rule).__name__}, expected a RowRule or a"
                    " WholeRule; where a maker gives several, write a star before it"
                )
            for column in rule.columns:
                name = rule.name if isinstance(rule, RowRule) else rule.quantity
                self._require(column, f"rule {name!r}")

    def _type(self, column: str) -> pa.DataType:
        kind = self.columns[column]
        name = kind.removesuffix("?")
        try:
            stored = _KINDS.get(name) or tensors.arrow_type(name) or pa.type_for_alias(name)
        except ValueError as exc:
            raise InvalidArgumentError(
                f"{self.name}: column {column!r} is of no kind {kind!r}: use one of {list(_KINDS)}"
                " or an Arrow type such as int16, with a ? behind it if values may be missing, or"
                " an array such as uint8[28,28]"
            ) from exc
        if pa.types.is_fixed_size_list(stored) and name != kind:
            raise InvalidArgumentError(
                f"{self.name}: column {column!r} holds an array in each row, which can't be"
                f" missing: take the ? off {kind!r}"
            )
        if pa.types.is_timestamp(stored) and stored.tz is None:
            raise InvalidArgumentError(
                f"{self.name}: column {column!r} is a time without a zone, {kind!r}: use instant"
            )
        return stored

    def _require(self, column: str, whose: str, *, is_stored: bool = False) -> None:
        """Refuse a column that is neither stored nor, unless it must be, added by `prepare`."""
        if column in self.columns or (self.prepare and not is_stored):
            return
        by_prepare = "" if is_stored else ", or add it by prepare"
        raise InvalidArgumentError(
            f"{self.name}: {whose} names column {column!r}, which is not among its columns"
            f" {list(self.columns)}: correct the name{by_prepare}"
        )


def prepared(prepare: Prepare, rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Let a table's `prepare` add its columns.

    Args:
        prepare: The function.
        rows: What it gets.
        name: Of the table, for the message.

    Raises:
        InvalidArgumentError: It fails, such as for a column that isn't there when a prediction is
            asked for; or it gives other rows than it got. The message has its file and line.
    """
    try:
        added: Any = prepare(rows)  # of whatever type it really is
    except MlopsMiniError:
        raise
    except Exception as exc:
        frames = traceback.extract_tb(exc.__traceback__)
        own = [each for each in frames[1:] if "site-packages" not in each.filename] or frames
        reason = " ".join(str(exc).split())
        raise InvalidArgumentError(
            f"{name}: prepare fails in {own[-1].filename}, line {own[-1].lineno}:"
            f" {type(exc).__name__}: {reason}; it got the columns {sorted(map(str, rows.columns))},"
            " and outcomes aren't among them when a prediction is due"
        ) from exc
    if not isinstance(added, pd.DataFrame) or not added.index.equals(rows.index):
        n_rows = f"{len(added)} rows" if isinstance(added, pd.DataFrame) else type(added).__name__
        raise InvalidArgumentError(
            f"{name}: prepare gave {n_rows} for {len(rows)} rows, or another index: it must return"
            " the rows it got, with more columns"
        )
    return added


def duration(text: str, what: str) -> pd.Timedelta:
    """Read a duration such as `1h` or `-60min`.

    Args:
        text: As `pandas.Timedelta` reads it.
        what: What it is, the start of the message.

    Raises:
        InvalidArgumentError: It isn't one.
    """
    try:
        read = pd.Timedelta(text)
    except (ValueError, TypeError) as exc:
        raise InvalidArgumentError(
            f"{what} is {text!r}, expected a duration such as 1h, 30min or 2d"
        ) from exc
    if pd.isna(read):
        raise InvalidArgumentError(f"{what} is {text!r}, expected a duration such as 1h or 2d")
    return read
