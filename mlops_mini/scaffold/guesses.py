"""What the columns of an unknown table are likely to be: kinds, key, time, label, limits."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from mlops_mini.data import leakage, local_times
from mlops_mini.errors import DataIntegrityError, NotFoundError

_LEAKING_AUC = 0.99
_MOST_CATEGORIES = 200  # of a text that is worth a feature
_MOST_VALUES, _LONGEST_VALUE = 20, 40  # of a text that is one of a few
_YES, _NO = {"yes", "y", "true", "t"}, {"no", "n", "false", "f"}
_KEY_WORDS = {"id", "key", "uuid", "nr", "number", "code"}
_LABEL_WORDS = {"label", "target", "outcome", "y", "churn", "churned", "left", "fraud", "default"}
_FORMATS = (
    "ISO8601", "%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%d.%m.%Y", "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S", "%m/%d/%Y", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%d/%m/%Y",
    "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%b %d %Y",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a file.

    Attributes:
        data: Its values, as a table that describes it so reads them.
        kind: As a `Table` names it, without a `?`; empty if it has no value, or is of a kind that
            tables don't have.
        written_as: How dates and times are written, if it holds texts of these: `ISO8601`, or a
            format of `strptime`.
    """

    data: "pd.Series[Any]"
    kind: str
    written_as: str = ""

    @property
    def has_missing(self) -> bool:
        """Whether some value is missing."""
        return bool(self.data.isna().any())


@dataclass(frozen=True, kw_only=True)
class Guess:
    """The column that is likely to play a part.

    Attributes:
        column: Its name.
        why: Half a sentence.
        others: Other columns that could play it.
    """

    column: str
    why: str
    others: Sequence[str] = ()


def read(path: Path) -> dict[str, Column]:
    """Read a file and tell the kind of each column.

    Raises:
        NotFoundError: There's no such file.
        DataIntegrityError: It can't be read, or has no rows.
    """
    if not path.is_file():
        raise NotFoundError(f"no file {path}: correct the name")
    is_csv = path.suffix == ".csv"
    try:
        if is_csv:
            # One block, for a column's type is guessed from the first.
            block = csv.ReadOptions(block_size=min(path.stat().st_size + 1, 2**31 - 1))
            table = csv.read_csv(path, read_options=block)
        else:
            table = pq.read_table(path)
    except (pa.ArrowException, OSError) as exc:
        reason = str(exc).partition("\n")[0]
        raise DataIntegrityError(
            f"{path} can't be read as {'CSV' if is_csv else 'parquet'} ({reason}): write it again,"
            " and name it .csv or .parquet by what it is"
        ) from exc
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if table.num_rows == 0 or twice:
        problem = f"has the columns {twice} more than once" if twice else "holds no rows"
        raise DataIntegrityError(f"{path} {problem}: nothing can be guessed from it")
    return {name: _column(table.column(name)) for name in table.column_names}


def _column(stored: pa.ChunkedArray) -> Column:
    if pa.types.is_dictionary(stored.type):
        stored = stored.cast(stored.type.value_type)
    kind, column = "", stored
    if pa.types.is_timestamp(stored.type) and stored.type.tz:
        kind, column = "instant", stored.cast(pa.timestamp("us", tz="UTC"))
    elif pa.types.is_boolean(stored.type):
        kind = "boolean"
    elif pa.types.is_integer(stored.type):
        kind = "integer"
    elif pa.types.is_floating(stored.type):
        kind = "number"
    elif pa.types.is_string(stored.type) or pa.types.is_large_string(stored.type):
        kind = "text"
    elif pa.types.is_temporal(stored.type) and not pa.types.is_duration(stored.type):
        kind, column = "text", stored.cast(pa.string())  # local times, see `Table.columns`
    values = column.to_pandas()
    if kind == "text":
        values = values.astype(object).mask(values.isna() | (values == ""), None)
    if values.isna().all():
        return Column(data=values, kind="")
    written_as = next(iter(formats(values)), "") if kind == "text" else ""
    return Column(data=values, kind=kind, written_as=written_as)


def formats(column: "pd.Series[Any]") -> list[str]:
    """List the formats in which all texts of a column can be read as dates; mostly none."""
    texts = column.dropna().astype(str)
    if not texts.str.contains(r"\d{4}").all() or texts.str.len().min() < 8:
        return []
    return [
        form
        for form in _FORMATS
        if pd.to_datetime(texts, format=form, errors="coerce").notna().all()
    ]


def time(columns: Mapping[str, Column]) -> Guess | None:
    """Guess the column that says when a row is from; None if there is none."""
    complete = {name: column for name, column in columns.items() if not column.has_missing}
    instants = [name for name, column in complete.items() if column.kind == "instant"]
    clocks = [name for name, column in complete.items() if column.written_as]
    if not instants and not clocks:
        return None
    first, *others = [*instants, *clocks]
    what = "has instants" if instants else "has dates or times"
    return Guess(column=first, why=f"the first column that {what} in all rows", others=others)


def label(columns: Mapping[str, Column]) -> Guess | None:
    """Guess the column to predict; None if no column has just two values, such as 0 and 1."""
    candidates = [name for name, column in columns.items() if _is_binary(column)]
    if not candidates:
        return None
    named = [name for name in candidates if _words(name) & _LABEL_WORDS]
    best = named[-1] if named else candidates[-1]
    why = "its name says so, and it has two values" if named else "the last column of two values"
    return Guess(column=best, why=why, others=[name for name in candidates if name != best])


def key(columns: Mapping[str, Column], instants: "pd.Series[Any] | None") -> Guess | None:
    """Guess the column that tells rows apart, in the whole file or at least in each month.

    Args:
        columns: All that could be it.
        instants: When each row is from, if that's known.
    """
    usable = {
        name: column.data
        for name, column in columns.items()
        if column.kind in {"text", "integer"} and not column.has_missing
    }
    unique = [name for name, values in usable.items() if values.is_unique]
    where = "no value comes twice"
    if not unique and instants is not None:
        month = instants.dt.strftime("%Y-%m")
        unique = [
            name
            for name, values in usable.items()
            if not pd.DataFrame({"value": values, "month": month}).duplicated().any()
        ]
        where = "no value comes twice in a month"
    if not unique:
        return None
    best = min(unique, key=lambda name: (not _words(name) & _KEY_WORDS, columns[name].written_as))
    return Guess(column=best, why=where, others=[name for name in unique if name != best])


def instants(column: Column, zone: str) -> "pd.Series[Any]":
    """Read the instants of a column that `time` has guessed."""
    if column.kind == "instant":
        return column.data
    form = column.written_as
    return local_times.to_utc(column.data, zone, written_as=None if form == "ISO8601" else form)


def positive(column: Column) -> str:
    """Tell which text of a label's two means yes; empty if the label is no text."""
    if column.kind != "text":
        return ""
    return next((str(text) for text in column.data.dropna().unique() if text.lower() in _YES), "")


def unfit(column: Column, label: Column | None) -> str:
    """Say why a column isn't worth a feature, half a sentence; empty if it is."""
    present = column.data.dropna()
    if not column.kind:
        return "has no value, or is of a kind that tables don't have"
    if column.kind == "instant" or column.written_as:
        return "is a time: make a number of it with a formula"
    if len(present.unique()) == 1:
        return "has the same value in all rows"
    if column.kind == "text" and present.nunique() > min(_MOST_CATEGORIES, len(present) / 2):
        return f"has {present.nunique():,} different texts"
    if label is not None and (auc := _auc(column, label)) > _LEAKING_AUC:
        return f"tells the label almost by itself (AUC {auc:.3f}): is it known only afterwards?"
    return ""


def limits(column: Column) -> tuple[float, float] | None:
    """Round the range of a column outward, to one digit of its width; None without a range."""
    if column.kind not in {"integer", "number"} or not np.isfinite(column.data.dropna()).all():
        return None
    low, high = float(column.data.min()), float(column.data.max())
    if low == high:
        return None
    digits = math.floor(math.log10(high - low))
    step = 10.0**digits
    ends = (math.floor(low / step) * step, math.ceil(high / step) * step)
    low, high = (round(end, max(0, -digits)) for end in ends)
    return (int(low), int(high)) if column.kind == "integer" or step >= 1 else (low, high)


def texts(column: Column) -> list[str]:
    """List the values of a text that is one of a few; empty for others."""
    found = sorted(column.data.dropna().unique()) if column.kind == "text" else []
    is_short = len(found) <= min(_MOST_VALUES, len(column.data) / 5)
    return found if is_short and all(len(text) <= _LONGEST_VALUE for text in found) else []


def _is_binary(column: Column) -> bool:
    found = set(column.data.dropna().unique())
    if column.kind == "text":
        lower = {str(value).lower() for value in found}
        return len(lower) == len(found) == 2 and bool(lower & _YES) and bool(lower & _NO)
    return found == {0, 1}  # and so are True and False


def _auc(column: Column, label: Column) -> float:
    """Tell how well a column alone orders the label: 0.5 not at all, 1 perfectly."""
    answer = positive(label)
    known = label.data.notna()
    is_one = label.data[known] == answer if answer else label.data[known].astype(bool)
    alone = leakage.auc_of_groups if column.kind == "text" else leakage.auc_alone
    return alone(column.data[known], is_one.astype(int))


def _words(name: str) -> set[str]:
    """Split a name such as customerID or is_left into its words, in lower case."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return set(re.split(r"[\W_]+", apart.lower()))
