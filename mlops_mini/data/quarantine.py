"""The record of rows set aside: nothing that arrived is dropped without a line here."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from mlops_mini import files
from mlops_mini.data.partitions import Partition
from mlops_mini.data.rules import RowSplit
from mlops_mini.errors import DataIntegrityError

COLUMNS = ("period", "table", "row", "column", "rule", "value")


def record(splits: Iterable[RowSplit]) -> pd.DataFrame:
    """List the rows of some partitions that were set aside.

    Args:
        splits: What became of the rows of each partition.

    Returns:
        One line for each broken rule, in order of the splits, then of the rows: `period` and
        `table` of the partition; `row`, the position in it, from 0; `column`, `rule` and `value`.
        `row` is an integer, all others are strings.
    """
    parts = [
        split.failures.sort_values("row", kind="stable").assign(
            period=str(split.period), table=split.table
        )
        for split in splits
    ]
    lines = pd.concat([_empty(COLUMNS), *parts], ignore_index=True)
    return lines[list(COLUMNS)].astype({"row": "int64"})


def write(split: RowSplit, partition: Partition, folder: Path) -> Path:
    """Put the rows of a partition that were set aside on record, and make sure that none is lost.

    Args:
        split: What became of all rows of the partition's file.
        partition: The partition.
        folder: The folder that it arrived in.

    Returns:
        A CSV file with the lines of `record`, none if all is well. Doing it again replaces the
        file.

    Raises:
        DataIntegrityError: Kept and quarantined rows are not as many as arrived, or a quarantined
            row has no reason.
    """
    n_kept, n_quarantined = len(split.kept), len(split.quarantined)
    n_with_reason = split.failures["row"].nunique()
    if n_kept + n_quarantined != partition.n_rows or n_with_reason != n_quarantined:
        raise DataIntegrityError(
            f"{n_kept} rows kept and {n_quarantined} quarantined, {n_with_reason} with a reason, of"
            f" {partition.name}, where {partition.n_rows} arrived: split all rows of the file"
        )
    path = folder / "quarantine" / partition.path.parent.name / f"{partition.sha256}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.whole_file(path) as unfinished:
        record([split]).to_csv(unfinished, index=False)
    return path


def read(folder: Path) -> pd.DataFrame:
    """Read the record of all rows that were ever set aside.

    Args:
        folder: The folder that was received into.

    Returns:
        The columns of `record`, with the partition's `Manifest.key` as `partition` before them.
    """
    paths = sorted((folder / "quarantine").glob("*/*.csv"))
    parts = [
        pd.read_csv(path, dtype=str, keep_default_na=False).assign(
            partition=f"{path.parent.name}.parquet@{path.stem}"
        )
        for path in paths
    ]
    lines = pd.concat([_empty(("partition", *COLUMNS)), *parts], ignore_index=True)
    return lines.astype({"row": "int64"})


def _empty(columns: Iterable[str]) -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in columns}, dtype=object)
