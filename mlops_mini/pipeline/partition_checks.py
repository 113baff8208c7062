"""Whether a partition can be used: single rows that break rules, and what its statistics say."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mlops_mini.data import rules
from mlops_mini.data.periods import Period
from mlops_mini.data.rules import RowSplit
from mlops_mini.data.table import MIN_ROWS, Table
from mlops_mini.errors import DataIntegrityError
from mlops_mini.pipeline import labels
from mlops_mini.statistics import anomalies, mergeable, schemas
from mlops_mini.use_case import UseCase


def check(use_case: UseCase, table: Table, period: Period, rows: pd.DataFrame) -> None:
    """Check a partition as the pipeline will, before it's put into a data folder.

    Args:
        use_case: Whose table it is.
        table: The table.
        period: The partition's.
        rows: As they are stored; of events there may be none.

    Raises:
        DataIntegrityError: It's refused as a whole, or its statistics break the schema.
    """
    if rows.empty and table.series is None and table.name != use_case.examples.name:
        return
    kept = split(use_case, table, period, rows).kept
    refuse([text for text, is_error in broken(table, period, kept) if is_error])


def split(use_case: UseCase, table: Table, period: Period, arrived: pd.DataFrame) -> RowSplit:
    """Part good rows from bad ones, as `rules.split` does, once the labels are in order."""
    label = use_case.label.name
    if table.name == use_case.examples.name and label in arrived and len(arrived) >= MIN_ROWS:
        labels.check(use_case, arrived[label].dropna(), [period])
    return rules.split(table, arrived, period)


def broken(table: Table, period: Period, kept: pd.DataFrame) -> list[tuple[str, bool]]:
    """Tell where the rows kept break the schema: a sentence each, and whether it is an error."""
    if table.schema is None:
        return []
    counted = mergeable.add(mergeable.create(), kept)
    found = anomalies.table(anomalies.validate(counted, schemas.read(table.schema)))
    return [
        (f"{table.name} of {period}: {column}: {row['description']}", row["severity"] == "ERROR")
        for column, row in found.iterrows()
    ]


def refuse(errors: Sequence[str]) -> None:
    """Refuse partitions whose statistics break the schema.

    Raises:
        DataIntegrityError: There are errors.
    """
    if errors:
        raise DataIntegrityError(
            f"{'; '.join(errors)}: have the partitions sent again, or review the schema"
        )
