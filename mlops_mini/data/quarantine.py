"""The record of rows set aside: nothing that arrived is dropped without a line here."""

from datetime import datetime
from pathlib import Path

import pandas as pd

from mlops_mini.data.partitions import Partition, utc_text
from mlops_mini.data.rules import RowSplit
from mlops_mini.errors import DataIntegrityError
from mlops_mini.files import whole_file


def write(split: RowSplit, partition: Partition, folder: Path, *, now: datetime) -> Path:
    """Put the rows of a partition that were set aside on record, and make sure that none is lost.

    Args:
        split: What became of all rows of the partition's file.
        partition: The partition.
        folder: The folder that it arrived in.
        now: The time to write down, with a time zone.

    Returns:
        A CSV file with one line for each broken rule, none if all is well: `partition`, its key;
        `row`, the position in the file, from 0; `column`, `rule`, `value`, and `time`. Doing it
        again replaces the file.

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
    table = split.failures.sort_values("row", kind="stable")
    table.insert(0, "partition", partition.key)
    path = folder / "quarantine" / partition.path.parent.name / f"{partition.sha256}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        table.assign(time=utc_text(now)).to_csv(unfinished, index=False)
    return path


def read(folder: Path) -> pd.DataFrame:
    """Read the record of all rows that were ever set aside.

    Args:
        folder: The folder that was received into.

    Returns:
        The columns of `write`: `row` integer, all others strings.
    """
    columns = ("partition", "row", "column", "rule", "value", "time")
    paths = sorted((folder / "quarantine").glob("*/*.csv"))
    parts = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths]
    none = pd.DataFrame({name: [] for name in columns}, dtype=object)
    return pd.concat([none, *parts], ignore_index=True).astype({"row": "int64"})
