"""Partitions arrive, are checked, and are taken into the data folder or set aside as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pandas as pd

from mlops_mini import files
from mlops_mini.data import partitions, table_files, tensors
from mlops_mini.data.partitions import Partition
from mlops_mini.data.periods import Period
from mlops_mini.data.table import Table
from mlops_mini.errors import AlreadyExistsError, DataIntegrityError
from mlops_mini.pipeline import partition_checks
from mlops_mini.use_case import UseCase

ARRIVALS, DATA = "arrivals", "data"


def send(rows: pd.DataFrame, table: Table, period: Period, workspace: Path) -> None:
    """Deliver a partition as its sender does; again changes nothing.

    Args:
        rows: As they are stored, none included.
        table: Whose rows they are.
        period: Of the rows.
        workspace: The loop's.
    """
    folder = workspace / ARRIVALS / table.name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f".sent-{period}.parquet"
    tensors.write_parquet(rows.reset_index(drop=True), file)
    with suppress(AlreadyExistsError):  # it waits already
        partitions.send(file, folder, name=f"{table.name}-{period}.parquet", period=str(period))
    file.unlink()


def receive(use_case: UseCase, workspace: Path, *, now: datetime) -> list[tuple[str, str]]:
    """Receive what is complete.

    Returns:
        What waits, and why: by table, one line each.
    """
    return [
        (table.name, f"{name}: {why}")
        for table in use_case.tables
        for name, why in partitions.receive(workspace / ARRIVALS / table.name, now=now).waiting
    ]


def newest(use_case: UseCase, workspace: Path) -> dict[str, dict[Period, Partition]]:
    """List what has arrived, by table and period; of a changed partition the last state."""
    return {
        table.name: {
            use_case.calendar.period(each.period): each
            for each in partitions.arrived(workspace / ARRIVALS / table.name)
        }
        for table in use_case.tables
    }


def check(use_case: UseCase, table: Table, partition: Partition) -> str:
    """Say why a partition can't be used; nothing if it can.

    Single rows that break a rule are left to the pipeline, which sets them aside.
    """
    period = use_case.calendar.period(partition.period)
    try:
        rows = table_files.read(partition.path, table.arrow, may_be_empty=True)
        partition_checks.check(use_case, table, period, rows)
    except DataIntegrityError as exc:
        return str(exc)
    return ""


def take(partition: Partition, table: Table, workspace: Path) -> None:
    """Put a partition into the data folder, in the place of an earlier state of it."""
    file = workspace / DATA / table.name / f"{partition.period}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.whole_file(file) as unfinished:
        unfinished.hardlink_to(partition.path)


def usable(
    arrived: Mapping[str, Mapping[Period, Partition]],
    checked: Mapping[str, str],
    periods: Sequence[Period],
) -> list[Period]:
    """List the periods from the first on of which everything is there and was taken, up to a gap.

    Args:
        arrived: As `newest` lists it.
        checked: By key of a partition, why it was refused; empty if it was taken.
        periods: All, in order.
    """
    there: list[Period] = []
    for period in periods:
        of_period = [by_period.get(period) for by_period in arrived.values()]
        if not all(each and checked.get(each.key) == "" for each in of_period):
            break
        there.append(period)
    return there
