"""What happens outside of the loop: rows that will be delivered, asked about and labeled.

It's read from a data folder that has everything already, and gives away only what the loop's clock
allows: whole partitions, requests with the features known when each is due, and labels once they
have matured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data import rules, table_files
from mlops_mini.data.periods import Calendar, Period
from mlops_mini.data.table import Table, duration
from mlops_mini.features.feature_set import offset
from mlops_mini.loop.plan import stored_calendar
from mlops_mini.model import training
from mlops_mini.pipeline import examples
from mlops_mini.use_case import UseCase

_KM_PER_MILE = 1.609344
_THOUSANDTHS = 1000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A question to the model.

    Attributes:
        id: Names it for ever: when it's due, in seconds since 1970 UTC, a hyphen, and its key.
        due_s: When it's due.
        body: JSON that the REST API takes.
    """

    id: str
    due_s: int
    body: bytes


class World:
    """The rows of some periods.

    Attributes:
        use_case: Whose rows these are.
        features: Of all rows, by key, as of the instant when each prediction is due.
        labels: By key; NaN where there's never one.
    """

    def __init__(self, use_case: UseCase, folder: Path, periods: list[Period]) -> None:
        """Read the rows and compute their features.

        Args:
            use_case: Its calendar says what is delivered at a time, months or weeks.
            folder: Holds its tables, in partitions of either kind or as one file.
            periods: In order, without a gap.

        Raises:
            NotFoundError: The folder or a period isn't there.
            DataIntegrityError: A file is damaged.
        """
        self.use_case = use_case
        start, end = periods[0].start, periods[-1].end
        stored = stored_calendar(use_case, folder)
        source = replace(use_case, calendar=stored)
        first, last = (stored.partition(at) for at in (start, end - pd.Timedelta("1us")))
        needed = [first]
        while needed[-1] < last:
            needed.append(needed[-1].next())
        known = examples.read(source, needed, data_folder=folder)
        columns = use_case.feature_set
        rows = pd.concat([part.rows for part in known.periods], ignore_index=True)
        features = pd.concat([part.features for part in known.periods])
        labels = pd.concat([part.labels for part in known.periods])
        time = rows[columns.time]
        is_in = ((time >= start) & (time < end)).to_numpy()
        order = np.flatnonzero(is_in)[np.argsort(time[is_in].to_numpy(), kind="stable")]
        self.features, self.labels = features.iloc[order], labels.iloc[order]
        self._time_s = _seconds(time.iloc[order])
        self._due_s = self._time_s + int(offset(columns.due).total_seconds())
        self._matures_s = int(
            duration(use_case.label.matures_after, "matures_after").total_seconds()
        )
        self._made: tuple[Period, list[Request]] | None = None
        self._rows = {table.name: _rows(table, needed, stored, folder) for table in use_case.tables}

    def requests(self, period: Period) -> list[Request]:
        """Make the requests about the rows of a period, in the order in which they're due."""
        if self._made is None or self._made[0] != period:
            self._made = period, self._requests(period)
        return self._made[1]

    def _requests(self, period: Period) -> list[Request]:
        chosen = self._of(period)
        chosen = chosen[np.argsort(self._due_s[chosen], kind="stable")]
        features = self.features.iloc[chosen]
        values = {name: array.tolist() for name, array in training.as_inputs(features).items()}
        ids = self._ids(chosen)
        return [
            Request(
                id=ids[row],
                due_s=int(self._due_s[place]),
                body=json.dumps(
                    {"inputs": {name: [column[row]] for name, column in values.items()}}
                ).encode(),
            )
            for row, place in enumerate(chosen)
        ]

    def outcomes(self, period: Period) -> pd.DataFrame:
        """List the labels of a period: `request_id`, `label` and `known_s`, when it's known."""
        chosen = self._of(period)
        return pd.DataFrame(
            {
                "request_id": self._ids(chosen),
                "label": self.labels.to_numpy()[chosen],
                "known_s": self._time_s[chosen] + self._matures_s,
            }
        )

    def examples_of(self, period: Period) -> tuple[pd.DataFrame, npt.NDArray[np.float64]]:
        """Give features and labels of the rows of a period that have a label."""
        chosen = self._of(period)
        labels = self.labels.to_numpy()[chosen].astype(np.float64)
        return self.features.iloc[chosen[~np.isnan(labels)]], labels[~np.isnan(labels)]

    def partition(self, table: Table, period: Period) -> pd.DataFrame:
        """Give the stored rows of a table whose time lies in a period."""
        rows, time = self._rows[table.name]
        return rows[((time >= period.start) & (time < period.end)).to_numpy()]

    def matured_at(self, period: Period) -> datetime:
        """Tell when the last label of a period is known."""
        return period.end + pd.Timedelta(seconds=self._matures_s).to_pytimedelta()

    def _of(self, period: Period) -> npt.NDArray[np.int64]:
        ends = np.searchsorted(self._time_s, [period.start.timestamp(), period.end.timestamp()])
        return np.arange(*ends)

    def _ids(self, chosen: npt.NDArray[np.int64]) -> list[str]:
        keys = self.features.index[chosen]
        return [
            f"{due_s}-{quote(str(key), safe='')}"
            for due_s, key in zip(self._due_s[chosen].tolist(), keys, strict=True)
        ]


def due_s(request_id: str) -> float:
    """Read from a request's id when it was due, seconds since 1970 UTC."""
    return float(request_id.partition("-")[0])


def in_other_units(table: Table, rows: pd.DataFrame) -> pd.DataFrame:
    """Write a column in another unit, as a sender does whose software has changed.

    Args:
        table: It's the first column whose unit a rule of this table judges.
        rows: Of the table.

    Returns:
        The rows; unchanged if no rule would notice.
    """
    numbers = rows.select_dtypes("number")
    whole = [
        rule.columns[0]
        for rule in table.whole_rules
        if len(rule.columns) == 1 and rule.columns[0] in numbers
    ]
    ranged = [
        rule.columns[0]
        for rule in table.row_rules
        if rule.name.startswith("in_range")
        and numbers.get(rule.columns[0], pd.Series()).dtype == "float64"
    ]
    column = next(iter([*whole, *ranged]), "")
    if not column:
        return rows
    changed = rows[column] * (_KM_PER_MILE if whole else _THOUSANDTHS)
    is_whole = pd.api.types.is_integer_dtype(rows[column])
    return rows.assign(**{column: changed.round().astype("int64") if is_whole else changed})


def _rows(
    table: Table, periods: list[Period], calendar: Calendar, folder: Path
) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Read the rows of a table of some stored periods, and the time of each."""
    names = table_files.names(table, periods, calendar=calendar, folder=folder)
    parts = [table_files.read(folder / name, table.arrow, may_be_empty=True) for name in names]
    rows = pd.concat(parts, ignore_index=True)
    return rows, rules.prepare(table, rows)[table.time]


def _seconds(times: pd.Series[Any]) -> npt.NDArray[np.int64]:
    return times.astype("int64").to_numpy().astype(np.int64) // 1_000_000_000
