"""Statistics of tables, that merge: those of parts give those of the whole.

`create`, `add` and `merge` make a monoid, as a `CombineFn` of Apache Beam asks for: merging is
associative and commutative, and a table without rows changes nothing. So a year can be counted
month by month, on many machines, or from statistics kept in files.

Each column keeps how often each of its values occurs. From that follow quantiles, histograms,
vocabularies, and every distance in `drift`. Memory stays bounded: as soon as a column has more than
`MAX_DISTINCT` different values, its numbers are rounded towards zero to fewer binary digits, and of
its texts only those stay whose hash ends in enough zeros. How much is lost depends on the values
alone, never on the order or the parts in which they came: all counts of parts add up *exactly* to
those of the whole. No edges have to be chosen before the first row is seen, as fixed bins would ask
for, and no random choice is made, as most sketches of quantiles do.

Means and variances are merged by Chan's formula and agree to about 1e-12.

Source:
    Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979. Rounding all values alike: Epicoco et al., "UDDSketch", 2020. Sampling texts
    by their hash: Flajolet, "On adaptive sampling", 1990.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data import columns, tensors
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError

MAX_DISTINCT = 16_384
_FRACTION_BITS = 52  # of a float64
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ColumnStatistics:
    """What is known of a column.

    Attributes:
        kind: `number` (truth values count as 0 and 1, instants as seconds since 1970 UTC), or
            `text`. Without a value it is a guess, and gives way to whatever comes.
        n_missing: Rows without a value.
        n_present: Rows with a value; an infinite number is one, an empty text too.
        counts: Rows by value, int64, index sorted. Read with `level`.
        level: 0 when `counts` holds every value as it is. For numbers the count of binary digits
            that were dropped; for texts, one of 2**level different texts is here, with all its
            rows.
        n_fractional: Numbers that are not whole, infinite ones included.
        mean: Of the finite numbers; 0.0 if there are none.
        squares: Sum of the squared distances of the finite numbers from their mean.
        minimum: Smallest number; inf if there is none.
        maximum: Largest number; -inf if there is none.
        n_characters: In all texts together.
    """

    kind: Literal["number", "text"] = "number"
    n_missing: int = 0
    n_present: int = 0
    counts: "pd.Series[Any]" = field(default_factory=lambda: value_counts([], []))
    level: int = 0
    n_fractional: int = 0
    mean: float = 0.0
    squares: float = 0.0
    minimum: float = float("inf")
    maximum: float = float("-inf")
    n_characters: int = 0

    @property
    def n_distinct(self) -> int:
        """Number of different values; above level 0, texts are estimated to about 1 %.

        Of rounded numbers it is the number of different ones left.
        """
        return len(self.counts) << (self.level if self.kind == "text" else 0)

    @property
    def n_finite(self) -> int:
        """Number of finite numbers."""
        if self.kind == "text":
            return 0
        return self.n_present - int(self.counts[np.isinf(self.counts.index)].sum())

    @property
    def std(self) -> float:
        """Standard deviation of the finite numbers as a population; 0.0 if there are none."""
        return float(np.sqrt(self.squares / max(self.n_finite, 1)))

    @property
    def relative_error(self) -> float:
        """How far below its true size a number in `counts` or a quantile may be, 0 to 1."""
        return 2.0 ** (self.level - _FRACTION_BITS) if self.kind == "number" and self.level else 0.0

    def at_level(self, level: int) -> "ColumnStatistics":
        """Lose as much of `counts` as another column has, to compare the two.

        Args:
            level: Its own, or a higher one.

        Returns:
            The same column at that level.
        """
        if level == self.level:
            return self
        reduce = _sampled if self.kind == "text" else _rounded
        return replace(self, counts=reduce(self.counts, level), level=level)

    def quantiles(self, shares: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Find the numbers below which given shares of the numbers lie.

        Args:
            shares: Each 0 to 1, any shape.

        Returns:
            Same shape; between two values interpolated as `numpy.quantile` does, exact but for
            `relative_error`; NaN if there is no number.

        >>> table = add(create(), pd.DataFrame({"delay_min": [0, 10, 20, 90]}))
        >>> table.columns["delay_min"].quantiles([0.5, 1.0]).tolist()
        [15.0, 90.0]
        """
        shares = np.asarray(shares, np.float64)
        if not self.n_present or self.kind == "text":
            return np.full(shares.shape, np.nan)
        position = shares * (self.n_present - 1)
        whole = np.floor(position)
        last = self.counts.to_numpy().cumsum()
        values = self.counts.index.to_numpy()
        low = values[np.searchsorted(last, whole, side="right")]
        high = values[np.searchsorted(last, np.ceil(position), side="right")]
        step = np.where(low == high, 0.0, position - whole)
        # Between two infinite numbers lies none, and a gap may be too large for a number.
        with np.errstate(invalid="ignore", over="ignore"):
            gap = high - low
            numbers: npt.NDArray[np.float64] = np.where(
                step < 0.5, low + np.where(step > 0, gap * step, 0.0), high - gap * (1 - step)
            )
        return numbers

    def equal_width_edges(self, n_bins: int) -> npt.NDArray[np.float64]:
        """Cut the range of the finite numbers into bins of equal width.

        Args:
            n_bins: How many, at least 1.

        Returns:
            Edges from the smallest number to the largest, shape [n_bins + 1]; of shape [0] if there
            is no finite number.
        """
        values = self.counts.index[np.isfinite(self.counts.index)]
        if not len(values):
            return np.empty(0)
        # Halved, for the whole width may be too large for a number.
        return 2 * np.linspace(values[0] / 2, values[-1] / 2, n_bins + 1)

    def counts_between(self, edges: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Count the numbers in bins.

        Args:
            edges: Ascending, shape [n_edges]; a number that equals an edge is in the bin above it.

        Returns:
            Rows, shape [n_edges + 1]: below the first edge, between each two, from the last on.
        """
        bins = np.searchsorted(np.asarray(edges), self.counts.index.to_numpy(), side="right")
        n_rows = np.bincount(bins, weights=self.counts.to_numpy(), minlength=np.size(edges) + 1)
        return n_rows.astype(np.int64)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TableStatistics:
    """What is known of a table.

    Attributes:
        n_rows: Rows counted.
        columns: Statistics by name of the column, in the order in which they were first seen.
    """

    n_rows: int = 0
    columns: Mapping[str, ColumnStatistics] = field(default_factory=dict)


def create() -> TableStatistics:
    """Make the statistics of no rows.

    >>> create().n_rows
    0
    """
    return TableStatistics()


def add(statistics: TableStatistics, batch: pd.DataFrame) -> TableStatistics:
    """Count further rows.

    Numbers are counted as float64, so of whole ones beyond 2**53 some become the same.

    Args:
        statistics: Those of the rows so far; stays as it is.
        batch: Further rows. Best some thousand or more at once, for a batch costs about a
            millisecond per column however short it is. A column that only some batches have is
            missing in the rows of the others.

    Returns:
        Those of all rows.

    Raises:
        InvalidArgumentError: Two columns share a name, as text, or one holds neither numbers nor
            texts nor instants with a time zone, or several of these; the message tells the row. A
            text is no Unicode.
        DataIntegrityError: A column holds text here and numbers in the rows so far.

    >>> january = pd.DataFrame({"plan": ["basic", "gold", "basic"], "n_calls": [7, None, 2]})
    >>> counted = add(create(), january)
    >>> n_calls = counted.columns["n_calls"]
    >>> n_calls.n_missing, n_calls.maximum, n_calls.mean
    (1, 7.0, 4.5)
    >>> counted.columns["plan"].counts.nlargest(2).to_dict()
    {'basic': 2, 'gold': 1}
    """
    names = batch.columns.map(str)
    if not names.is_unique:
        twice = sorted(set(names[names.duplicated()]))
        raise InvalidArgumentError(f"columns {twice} are there more than once; rename or drop them")
    for name in names:
        _require_unicode(name, "the name of a column")
    counted = {str(name): _of_column(column) for name, column in batch.items()}
    return merge(statistics, TableStatistics(n_rows=len(batch), columns=counted))


def merge(a: TableStatistics, b: TableStatistics) -> TableStatistics:
    """Put the statistics of two parts of a table together.

    Args:
        a: Of some rows.
        b: Of other rows.

    Returns:
        Of all rows. All counts are those that the rows would have given at once.

    Raises:
        DataIntegrityError: A column holds text in one part and numbers in the other.

    >>> january, february = (pd.DataFrame({"plan": plans}) for plans in (["a", "b"], ["b", "c"]))
    >>> merge(add(create(), january), add(create(), february)).columns["plan"].n_distinct
    3
    """
    merged = {}
    for name in dict.fromkeys([*a.columns, *b.columns]):
        parts = [
            part.columns.get(name, ColumnStatistics(kind="text", n_missing=part.n_rows))
            for part in (a, b)
        ]
        merged[name] = _merge_columns(name, *parts)
    return TableStatistics(n_rows=a.n_rows + b.n_rows, columns=merged)


def value_counts(values: npt.ArrayLike, n_each: npt.ArrayLike) -> "pd.Series[Any]":
    """Make the `counts` of a column.

    Args:
        values: Different numbers or texts, ascending.
        n_each: Rows with each.

    Returns:
        Rows, int64, index the values.
    """
    return pd.Series(np.asarray(n_each, np.int64), index=pd.Index(np.asarray(values)))


def _of_column(column: "pd.Series[Any]") -> ColumnStatistics:
    column = columns.plain(column)
    kind = _kind(column)
    present = column.dropna()
    if kind == "text":
        texts = present.astype(object).value_counts(sort=False).sort_index()
        for text in texts.index:
            _require_unicode(text, f"column {column.name!a}")
        lengths = texts.index.str.len().to_numpy(np.int64)
        return _bounded(
            kind="text",
            n_missing=len(column) - len(present),
            n_present=len(present),
            counts=value_counts(texts.index, texts),
            n_characters=int(lengths @ texts.to_numpy()),
        )
    if kind == "instant":
        # Not by subtracting an instant, which would need nanoseconds: these end in 2262.
        present = present.astype(np.int64) / _PER_SECOND[present.dt.unit]
    numbers = columns.numbers(present) + 0.0  # -0.0 becomes 0.0
    values, n_each = np.unique(numbers, return_counts=True)
    finite = numbers[np.isfinite(numbers)]
    mean = float(finite.mean()) if len(finite) else 0.0
    whole = np.floor(values) == np.where(np.isfinite(values), values, np.nan)
    return _bounded(
        n_missing=len(column) - len(present),
        n_present=len(present),
        counts=value_counts(values, n_each),
        n_fractional=int(n_each[~whole].sum()),
        mean=mean,
        squares=_squares(finite - mean),
        minimum=float(values.min(initial=np.inf)),
        maximum=float(values.max(initial=-np.inf)),
    )


def _require_unicode(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidArgumentError(
            f"{what} holds {text!a}, which is no Unicode text, and no schema can name it: read it"
            " by its real encoding"
        ) from exc


def _squares(distances: npt.NDArray[np.float64]) -> float:
    with np.errstate(over="ignore"):  # infinite says enough
        return float(np.square(distances).sum())


def _kind(column: "pd.Series[Any]") -> Literal["number", "text", "instant"]:
    """Tell as what a plain column is counted."""
    kinds: dict[str, Literal["number", "text", "instant"]] = {
        "number": "number",
        "boolean": "number",
        "text": "text",
        "empty": "text",
        "instant": "instant",
    }
    kind = kinds.get(columns.kind(column))
    if kind is None and column.isna().all():
        return "text"  # as an empty column of objects: nothing tells what would be in it
    if kind is None:
        raise InvalidArgumentError(
            f"column {column.name!r} is {tensors.kind_of(column)}, with"
            f" {columns.odd_one(column)}; statistics"
            " are of numbers, texts, or instants with a time zone, one of these in a column:"
            " convert or drop it"
        )
    return kind


def _merge_columns(name: str, a: ColumnStatistics, b: ColumnStatistics) -> ColumnStatistics:
    if a.n_present and b.n_present and a.kind != b.kind:
        raise DataIntegrityError(
            f"column {name!r} holds {a.kind} in one part ({a.n_present} rows) and {b.kind} in the"
            f" other ({b.n_present} rows); make them alike before counting"
        )
    if not (a.n_present and b.n_present):
        full, empty = (a, b) if a.n_present else (b, a)
        if not full.n_present and a.kind != b.kind:
            full = replace(full, kind="number")  # whichever comes first
        return replace(full, n_missing=full.n_missing + empty.n_missing)
    n_a, n_b = a.n_finite, b.n_finite
    share = n_b / max(n_a + n_b, 1)
    distance = b.mean - a.mean
    return _bounded(
        kind=a.kind,
        n_missing=a.n_missing + b.n_missing,
        n_present=a.n_present + b.n_present,
        # A group-by would take texts for the same that differ after a NUL only.
        counts=a.counts.add(b.counts, fill_value=0).astype(np.int64),
        level=max(a.level, b.level),
        n_fractional=a.n_fractional + b.n_fractional,
        mean=a.mean + distance * share,
        squares=a.squares + b.squares + distance * distance * n_a * share,
        minimum=min(a.minimum, b.minimum),
        maximum=max(a.maximum, b.maximum),
        n_characters=a.n_characters + b.n_characters,
    )


def _bounded(
    *,
    counts: "pd.Series[Any]",
    kind: Literal["number", "text"] = "number",
    level: int = 0,
    **rest: Any,
) -> ColumnStatistics:
    """Make a column's statistics at the lowest level that keeps its counts few enough."""
    at_level = _sampled if kind == "text" else _rounded
    fewer = at_level(counts, level) if level else counts
    while len(fewer) > MAX_DISTINCT:
        level += 1
        fewer = at_level(counts, level)
    return ColumnStatistics(kind=kind, counts=fewer, level=level, **rest)


def _rounded(counts: "pd.Series[Any]", level: int) -> "pd.Series[Any]":
    """Set the last binary digits of each number to zero, which leaves the order as it is."""
    bits = counts.index.to_numpy(np.float64).view(np.int64) & -(1 << level)
    values = bits.view(np.float64) + 0.0
    first = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    return value_counts(values[first], np.add.reduceat(counts.to_numpy(), first))


def _sampled(counts: "pd.Series[Any]", level: int) -> "pd.Series[Any]":
    """Keep the texts whose hash ends in enough zeros."""
    hashes = pd.util.hash_array(counts.index.to_numpy(object), categorize=False)
    kept: pd.Series[Any] = counts[hashes & np.uint64((1 << level) - 1) == 0]
    return kept
