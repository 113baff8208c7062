"""Reads the files of a table: one for each stored partition, or one for the whole table.

A data folder holds `TABLE/PARTITION.parquet`, such as `readings/2026-03.parquet`, or
`TABLE.parquet`. Either may be a `.csv` instead.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from csv import reader
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from mlops_mini import files
from mlops_mini.data import rules, tensors
from mlops_mini.data.periods import FIRST_YEAR, LAST_YEAR, Calendar, Period, iterate
from mlops_mini.data.table import Table
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError, NotFoundError

_SUFFIXES = ("parquet", "csv")
_LARGEST_BLOCK = 2**31 - 1


def load(
    table: Table,
    period: Period,
    *,
    calendar: Calendar,
    folder: Path,
    may_be_empty: bool = False,
) -> pd.DataFrame:
    """Load the rows of a period.

    Args:
        table: What the files must hold.
        period: A month or a week of the calendar's zone.
        calendar: What one stored partition holds.
        folder: The data folder. If it has a `checksums.txt`, each file must be the one listed.
        may_be_empty: Whether a period without any row is fine, as it is of events that are rare.

    Returns:
        The stored columns in the table's order, whatever their order in the file, with dtypes as
        `read` gives them; rows in stored order. A stored partition is given whole, for the row
        rules to judge. A period that is cut out of others, or out of the file of the whole table,
        has the rows whose time lies in it, and those without a time, so that none is lost.

    Raises:
        NotFoundError: A file that is needed is not there.
        DataIntegrityError: A file is not what its checksum or its columns say, or there is no row.
        InvalidArgumentError: The period is of another zone.
    """
    (rows,) = load_each(
        table, [period], calendar=calendar, folder=folder, may_be_empty=may_be_empty
    )
    return rows


def load_each(
    table: Table,
    periods: Iterable[Period],
    *,
    calendar: Calendar,
    folder: Path,
    may_be_empty: bool = False,
) -> list[pd.DataFrame]:
    """Load the rows of several periods, each as `load` does, but read each file only once.

    Raises:
        NotFoundError: As `load` does, like the others.
        DataIntegrityError: A file or a period is not in order.
        InvalidArgumentError: A period is of another zone.
    """

    @functools.cache
    def rows_of(name: str) -> pd.DataFrame:
        return read(files.checked_path(folder, name), table.arrow, may_be_empty=may_be_empty)

    @functools.cache
    def rows_and_times_of(needed: tuple[str, ...]) -> tuple[pd.DataFrame, pd.Series]:
        rows = pd.concat([rows_of(name) for name in needed], ignore_index=True)
        return rows, rules.prepare(table, rows)[table.time]

    in_one = whole_file(table, folder)
    loaded = []
    for period in periods:
        needed = names(table, [period], calendar=calendar, folder=folder)
        if calendar.partitions(period) == (period,) and needed != [in_one]:
            loaded.append(rows_of(*needed))
            continue
        rows, time = rows_and_times_of(tuple(needed))
        rows = rows[((time >= period.start) & (time < period.end)) | time.isna()]
        if rows.empty and not may_be_empty:
            raise DataIntegrityError(
                f"no {table.name} of {period} in {', '.join(needed)} of {folder}; expected at least"
                " one row: are these files complete?"
            )
        loaded.append(rows.reset_index(drop=True))
    return loaded


def partitions(table: Table, *, calendar: Calendar, folder: Path) -> list[Period]:
    """List the stored partitions of a table.

    Args:
        table: The table.
        calendar: What one stored partition holds.
        folder: The data folder.

    Returns:
        In order; none if there are none. Of a table in one file, those in which it has a row.

    Raises:
        DataIntegrityError: There are both one file and partitions, or the one file isn't what its
            checksum or its columns say.
    """
    in_one = whole_file(table, folder)
    if in_one is None:
        return sorted(partition_files(table, calendar=calendar, folder=folder))
    rows = read(files.checked_path(folder, in_one), table.arrow)
    time = rules.prepare(table, rows)[table.time].dropna().sort_values()
    years = time.dt.tz_convert(calendar.zone).dt.year
    time = time[years.between(FIRST_YEAR, LAST_YEAR)]  # others are for the row rules to set aside
    if time.empty:
        return []
    first, last = (calendar.partition(time.iloc[at].to_pydatetime()) for at in (0, -1))
    return [
        period
        for period in iterate(first, last)
        if time.searchsorted(period.start) < time.searchsorted(period.end)
    ]


def names(
    table: Table, periods: Sequence[Period], *, calendar: Calendar, folder: Path
) -> list[str]:
    """Name the files that some periods need.

    Args:
        table: The table.
        periods: Months or weeks of the calendar's zone.
        calendar: What one stored partition holds.
        folder: The data folder.

    Returns:
        Paths inside the folder, with slashes, sorted, each once.

    Raises:
        NotFoundError: A file that is needed is not there.
        DataIntegrityError: A partition is there twice, or beside the file of the whole table.
        InvalidArgumentError: A period is of another zone.
    """
    needed = {partition for period in periods for partition in calendar.partitions(period)}
    in_one = whole_file(table, folder)
    if in_one is not None:
        return [in_one]
    stored = partition_files(table, calendar=calendar, folder=folder)
    for partition in sorted(needed - stored.keys()):
        there = sorted(stored)
        span = (
            f"{there[0]} to {there[-1]} ({len(there)} {calendar.unit}s)"
            if there
            else f"no {calendar.unit} at all"
        )
        raise NotFoundError(
            f"no {table.name} of {partition} in {folder}; there is {span}: ask for one of these, or"
            f" add {table.name}/{partition}.parquet or .csv"
        )
    return sorted(stored[partition] for partition in needed)


def whole_file(table: Table, folder: Path) -> str | None:
    """Name the one file of a whole table inside the folder, if there is one.

    Raises:
        DataIntegrityError: It's there twice, or beside partitions.
    """
    possible = (f"{table.name}.{suffix}" for suffix in _SUFFIXES)
    stored = [name for name in possible if (folder / name).is_file()]
    if stored and (folder / table.name).is_dir():
        stored.append(f"{table.name}/")
    if len(stored) > 1:
        raise DataIntegrityError(
            f"{folder} has both {stored[0]} and {stored[1]}: remove the one that isn't up to date"
        )
    return stored[0] if stored else None


def partition_files(table: Table, *, calendar: Calendar, folder: Path) -> dict[Period, str]:
    """Name the file of each stored partition, inside the folder; files of other names are none.

    Raises:
        DataIntegrityError: A partition is there twice.
    """
    stored: dict[Period, str] = {}
    for suffix in _SUFFIXES:
        for path in (folder / table.name).glob(f"*.{suffix}"):
            try:
                period = calendar.period(path.stem)
            except InvalidArgumentError:
                continue
            if period.kind != calendar.unit:
                continue
            if period in stored:
                raise DataIntegrityError(
                    f"{folder} has both {stored[period]} and {table.name}/{path.name}: remove one"
                )
            stored[period] = f"{table.name}/{path.name}"
    return stored


def read(path: Path, schema: pa.Schema, *, may_be_empty: bool = False) -> pd.DataFrame:
    """Read a parquet or CSV file in the columns and types that are wanted.

    Args:
        path: The file; by its name's end it is parquet or CSV. Other columns than the schema's are
            left out; wider types of the same kind are narrowed, so that files of other makers give
            the same dtypes.
        schema: Columns and types wanted.
        may_be_empty: Whether a file without any row is fine.

    Returns:
        The schema's columns in its order: instants as `datetime64[ns, UTC]`, strings as objects
        with None for missing, and integers that may be missing always as float64, so that a dtype
        does not depend on the rows. A missing value elsewhere is let through, for the row rules to
        find.

    Raises:
        DataIntegrityError: The file is not readable, lacks a column, has a column of another kind
            or out of the type's range, instants of a CSV without an offset, or no rows.
        NotFoundError: There's no such file.
    """
    if not path.is_file():
        raise NotFoundError(f"no file {path}: correct the name, or write it first")
    table = _read_csv(path, schema) if path.suffix == ".csv" else _read_parquet(path, schema)
    if table.num_rows == 0 and not may_be_empty:
        raise DataIntegrityError(f"{path} holds no rows, expected at least one; write it again")
    table = table.select(schema.names)
    try:
        frame: pd.DataFrame = _cast(path, table, schema).to_pandas(
            coerce_temporal_nanoseconds=True, types_mapper=tensors.mapper
        )
    except pa.ArrowInvalid as exc:
        raise DataIntegrityError(
            f"{path} has an instant before 1678 or after 2261 ({_first_line(exc)}): correct it"
        ) from exc
    counts = [field.name for field in schema if field.nullable and pa.types.is_integer(field.type)]
    return frame.astype(dict.fromkeys(counts, "float64"))


def _read_parquet(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            stored = file.schema_arrow
            _check_columns(path, stored, schema)
            return file.read(columns=schema.names)
    except (pa.ArrowException, OSError) as exc:
        raise DataIntegrityError(
            f"{path} is not a readable parquet file ({_first_line(exc)}): write it again, or, if it"
            " is a CSV file, name it so"
        ) from exc


def _read_csv(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a CSV file; texts and instants as such, numbers as what they look like."""
    wanted = {field.name: field.type for field in schema}
    told = {
        name: kind
        for name, kind in wanted.items()
        if pa.types.is_string(kind) or pa.types.is_timestamp(kind) or pa.types.is_boolean(kind)
    }
    try:
        table = csv.read_csv(
            path,
            # One block, for a column's type is guessed from the first.
            read_options=csv.ReadOptions(
                block_size=min(path.stat().st_size + 1, _LARGEST_BLOCK), use_threads=False
            ),
            convert_options=csv.ConvertOptions(column_types=told),
        )
    except (pa.ArrowException, OSError) as exc:
        text = _first_line(exc)
        if "zone offset" in text:
            raise DataIntegrityError(
                f"{path} has an instant without an offset{_column_in(text, path)}: write instants"
                " in UTC, such as 2026-03-01T05:00:00Z, or with their offset, such as"
                " 2026-03-01T06:00:00+01:00; or describe the column as text, and let `prepare` make"
                " instants of it with local_times.to_utc"
            ) from exc
        raise DataIntegrityError(
            f"{path} is not a readable CSV file of this table ({text}); correct it or write it"
            " again, with commas, UTF-8 and a line of column names"
        ) from exc
    _check_columns(path, table.schema, schema)
    for name, kind in wanted.items():
        if pa.types.is_string(kind):
            column = table.column(name)
            present = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
            table = table.set_column(table.schema.get_field_index(name), name, present)
    return table


def _check_columns(path: Path, stored: pa.Schema, wanted: pa.Schema) -> None:
    missing = [name for name in wanted.names if name not in stored.names]
    twice = [name for name in wanted.names if stored.names.count(name) > 1]
    if twice:
        raise DataIntegrityError(
            f"{path} has the columns {twice} more than once: remove or rename the others"
        )
    if missing:
        raise DataIntegrityError(
            f"{path} lacks the columns {missing}; it has {stored.names}: rename or add them"
        )
    for field in wanted:
        kind = stored.field(field.name).type
        if not _is_narrowable(kind, field.type):
            raise DataIntegrityError(
                f"{path} has column {field.name!r} of type {tensors.kind(kind)}, expected"
                f" {tensors.kind(field.type)}: {_way_out(kind)}"
            )


def _way_out(stored: pa.DataType) -> str:
    if pa.types.is_timestamp(stored) or pa.types.is_date(stored):
        return (
            "give it a time zone before writing the file, or describe the column as text, and let"
            " `prepare` make instants of it with local_times.to_utc"
        )
    return "convert it before writing the file, or describe the column as what it is"


def _column_in(text: str, path: Path) -> str:
    """Name the column of a CSV file that Arrow's message numbers, and the value that it shows."""
    found = re.search(r"column #(\d+).*?('.*?')", text)
    if not found:
        return f" ({text})"
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(reader(file))
    return f" in column {header[int(found[1])]!r}: {found[2]}"


def _is_narrowable(stored: pa.DataType, wanted: pa.DataType) -> bool:
    """Tell whether values of one type can stand for another without changing their meaning."""
    if pa.types.is_dictionary(stored):
        stored = stored.value_type
    if pa.types.is_null(stored):  # a column that is wholly empty carries no type
        return True
    if pa.types.is_fixed_size_list(wanted):
        return tensors.kind(stored) == tensors.kind(wanted)
    if pa.types.is_string(wanted):
        # Local clock times are texts until `prepare` says whose clocks they are of.
        is_local = pa.types.is_date(stored) or (pa.types.is_timestamp(stored) and not stored.tz)
        is_text = pa.types.is_string(stored) or pa.types.is_large_string(stored)
        return bool(is_text or is_local)
    if pa.types.is_timestamp(wanted):
        return bool(pa.types.is_timestamp(stored) and stored.tz is not None)
    if pa.types.is_boolean(wanted):
        return bool(pa.types.is_boolean(stored))
    return bool(pa.types.is_integer(stored) or pa.types.is_floating(stored))


def _cast(path: Path, table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        try:
            columns.append(table.column(field.name).cast(field.type))
        except pa.ArrowInvalid as exc:
            raise DataIntegrityError(
                f"{path} has values in column {field.name!r} that do not fit {field.type}"
                f" ({_first_line(exc)}): correct them before writing the file"
            ) from exc
    return pa.Table.from_arrays(columns, schema=schema)


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0].rstrip(".")
