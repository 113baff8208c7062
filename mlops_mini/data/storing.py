"""Cuts a file of a table into partitions, and puts these into a data folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_mini import files
from mlops_mini.data import integrity, rules, table_files, tensors
from mlops_mini.data.periods import FIRST_YEAR, LAST_YEAR, Calendar, Period, iterate
from mlops_mini.data.table import Table
from mlops_mini.errors import AlreadyExistsError, DataIntegrityError


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPartition:
    """What has become of the rows of one period.

    Attributes:
        period: Which period.
        n_rows: How many rows it has.
        outcome: Whether it's new, replaces another, or was there already with the same rows.
    """

    period: Period
    n_rows: int
    outcome: Literal["new", "replaced", "the same"]


def store(
    file: Path, table: Table, *, calendar: Calendar, folder: Path, is_replacing: bool = False
) -> tuple[StoredPartition, ...]:
    """Store the rows of a file as `TABLE/PERIOD.parquet`, each partition whole or not at all.

    Nothing is written before the whole file is found to be in order. No row rule is applied: that's
    done when the data is used, so that what was set aside can be looked up.

    Args:
        file: Parquet or CSV with at least the table's columns, in any order; others are left out.
        table: What it must hold.
        calendar: What one partition holds.
        folder: The data folder; made if it isn't there. Its `checksums.txt`, if it has one, gets
            the new files too.
        is_replacing: Whether partitions that hold other rows are replaced.

    Returns:
        One for each period with rows, in order.

    Raises:
        DataIntegrityError: The file isn't readable, lacks a column, has times without a zone, or
            rows without a time.
        AlreadyExistsError: A partition is there with other rows, or the whole table in one file.
        NotFoundError: There's no such file.
    """
    whole = table_files.whole_file(table, folder)
    if whole is not None:
        raise AlreadyExistsError(
            f"{folder} holds all of {table.name} in one file, {whole}: add the rows to it, or move"
            " it away and send it too"
        )
    rows = table_files.read(file, table.arrow)
    by_period = _cut(file, table, rows, calendar)
    stored = table_files.partition_files(table, calendar=calendar, folder=folder)
    outcomes = {
        period: _outcome(part, table, folder / stored[period]) if period in stored else "new"
        for period, part in by_period.items()
    }
    others = [period for period, outcome in outcomes.items() if outcome == "replaced"]
    if others and not is_replacing:
        names = ", ".join(stored[period] for period in others)
        raise AlreadyExistsError(
            f"{names} in {folder} hold other rows than {file} has of"
            f" {'that ' + calendar.unit if len(others) == 1 else 'these ' + calendar.unit + 's'}:"
            " nothing was stored; give --replace to put the file's rows in their place"
        )
    (folder / table.name).mkdir(parents=True, exist_ok=True)
    for period, part in by_period.items():
        if outcomes[period] != "the same":
            _write(part, table, period, folder, stored.get(period))
    return tuple(
        StoredPartition(
            period=period,
            n_rows=len(part),
            outcome=cast("Literal['new', 'replaced', 'the same']", outcomes[period]),
        )
        for period, part in by_period.items()
    )


def _cut(
    file: Path, table: Table, rows: pd.DataFrame, calendar: Calendar
) -> dict[Period, pd.DataFrame]:
    """Part rows by period, in order of time; rows of one period stay in their order."""
    time = rules.prepare(table, rows)[table.time]
    is_placed = time.notna() & time.dt.year.between(FIRST_YEAR + 1, LAST_YEAR - 1)
    if not is_placed.all():
        row = int((~is_placed).to_numpy().argmax())
        raise DataIntegrityError(
            f"{file}: {int((~is_placed).sum())} of {len(rows)} rows have no {table.time} from"
            f" {FIRST_YEAR + 1} to {LAST_YEAR - 1}, such as row {row} (from 0), so that they belong"
            f" to no {calendar.unit}: correct or remove them"
        )
    first, last = (calendar.partition(at.to_pydatetime()) for at in (time.min(), time.max()))
    parts = {
        period: rows[((time >= period.start) & (time < period.end)).to_numpy()]
        for period in iterate(first, last)
    }
    return {period: part.reset_index(drop=True) for period, part in parts.items() if len(part)}


def _outcome(rows: pd.DataFrame, table: Table, stored: Path) -> str:
    before = table_files.read(stored, table.arrow)
    is_same = integrity.contents_digest(before) == integrity.contents_digest(rows)
    return "the same" if is_same else "replaced"


def _write(
    rows: pd.DataFrame, table: Table, period: Period, folder: Path, replaced: str | None
) -> None:
    name = f"{table.name}/{period}.parquet"
    with files.whole_file(folder / name) as unfinished:
        stored = pa.Table.from_pandas(rows, _nullable(table.arrow))
        has_tensors = any(map(tensors.is_tensor, rows.dtypes))
        pq.write_table(stored.replace_schema_metadata() if has_tensors else stored, unfinished)
    if replaced and replaced != name:  # a CSV file of the same period
        (folder / replaced).unlink()
    _update_checksums(folder, [name], gone=replaced if replaced != name else None)


def _nullable(schema: pa.Schema) -> pa.Schema:
    """Let values be missing: finding those that may not be is the row rules' business."""
    return pa.schema([field.with_nullable(True) for field in schema])


def _update_checksums(folder: Path, names: Sequence[str], *, gone: str | None) -> None:
    listing = folder / files.CHECKSUMS
    if listing.is_file():
        listed = {*files.read_checksums(listing), *names} - {gone}
        files.write_checksums(folder, sorted(name for name in listed if name))
