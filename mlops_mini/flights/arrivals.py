"""Months of flights and weather as they arrive: bad rows set aside, features, labels.

`read` does all of it at once. A pipeline does it in three tasks, between which only files pass:
`copy` takes the files that some periods need, `clean` parts good rows from bad ones, and
`write_examples` makes rows to train and to judge a model with. What the first two write is a data
folder like the one it was made from, so every function here reads any of the three.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data import integrity, rules
from mlops_mini.data.periods import Period
from mlops_mini.data.rules import RowSplit
from mlops_mini.errors import DataIntegrityError
from mlops_mini.features import events, offline
from mlops_mini.features.events import StreamEvent
from mlops_mini.flights import datasets, preparation, row_rules, tables
from mlops_mini.statistics import anomalies, mergeable

LABEL = "late"
QUARANTINE_COLUMNS = ("period", "table", "row", "column", "rule", "value")


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """One period of flights, sorted into what it is good for.

    Attributes:
        period: Which one.
        n_arrived: Flights in the file.
        n_quarantined: Flights set aside.
        refused: Number of rows set aside, flights and weather, by the rule that they break.
        findings: What is odd but no reason to set a row aside, a sentence each.
        flights: The flights kept.
        features: Their features, one row each, as of an hour before departure.
        labels: 1 late, 0 not, NaN unknown because the flight was canceled or diverted.
    """

    period: Period
    n_arrived: int
    n_quarantined: int
    refused: dict[str, int]
    findings: tuple[str, ...]
    flights: pd.DataFrame
    features: pd.DataFrame
    labels: pd.Series[float]

    @property
    def n_without_label(self) -> int:
        """Flights kept that neither train nor judge a model."""
        return int(self.labels.isna().sum())

    def labeled(self) -> tuple[pd.DataFrame, npt.NDArray[Any]]:
        """Features and labels, shape [n] of 0 and 1, of the flights that have a label."""
        known = self.labels.notna()
        return self.features[known], self.labels[known].to_numpy(np.float64)


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """What has arrived.

    Attributes:
        partitions: The periods asked for, in order.
        quarantined: One line for each rule that a row of them breaks: `period`, `table` (flights or
            weather), `row` (position in the partition, from 0), `column`, `rule`, `value`.
        zones: IANA time zone by airport.
        history: Events of the flights kept, as `events.from_flights` gives them.
        weather: The hours of weather kept.
    """

    partitions: Sequence[Partition]
    quarantined: pd.DataFrame
    zones: Mapping[str, str]
    history: pd.DataFrame
    weather: pd.DataFrame

    @cached_property
    def stream(self) -> Sequence[StreamEvent]:
        """Everything that has happened, in the order in which it became known."""
        return events.stream(self.history, self.weather)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Checked:
    """One period, parted by the row rules."""

    period: Period
    n_arrived: int
    tables: Mapping[str, RowSplit]

    @property
    def failures(self) -> pd.DataFrame:
        lines = [
            split.failures.assign(period=str(self.period), table=table)
            for table, split in self.tables.items()
        ]
        return pd.concat(lines, ignore_index=True)[list(QUARANTINE_COLUMNS)]

    @property
    def findings(self) -> tuple[str, ...]:
        return tuple(found.text for split in self.tables.values() for found in split.findings)


def read(periods: Sequence[Period], *, data_folder: Path | None = None) -> Arrivals:
    """Read periods that follow each other.

    Events of the period before them count too, where there is one: features of the first hours
    reach back into it.

    Args:
        periods: Months or weeks in order.
        data_folder: See `datasets.data_folder`.

    Raises:
        NotFoundError: A period, or the weather, is not there.
        DataIntegrityError: A file is damaged, or too many of its rows are refused.
    """
    zones = datasets.airport_zones(folder=data_folder)
    checked = _check(periods, data_folder)
    history = events.from_flights(_kept(checked, "flights"), zones=zones)
    weather = _kept(checked, "weather")
    asked = checked[-len(periods) :]
    flights = [each.tables["flights"].kept for each in asked]
    features = offline.compute(
        pd.concat(flights, ignore_index=True), history=history, weather=weather, zones=zones
    )
    ends = np.cumsum([len(rows) for rows in flights])
    partitions = [
        Partition(
            period=each.period,
            n_arrived=each.n_arrived,
            n_quarantined=len(each.tables["flights"].quarantined),
            refused=dict(Counter(rules.reasons(each.failures))),
            findings=each.findings,
            flights=rows,
            features=features.iloc[end - len(rows) : end],
            labels=offline.labels(rows),
        )
        for each, rows, end in zip(asked, flights, ends, strict=True)
    ]
    return Arrivals(
        partitions=partitions,
        quarantined=pd.concat([each.failures for each in asked], ignore_index=True),
        zones=zones,
        history=history,
        weather=weather,
    )


def digest(periods: Sequence[Period | str], *, data_folder: Path | None = None) -> str:
    """Digest the files that some periods need, those of the period before them included.

    Args:
        periods: Months or weeks in order.
        data_folder: See `datasets.data_folder`.

    Returns:
        SHA-256, 64 hex digits, of the list of checksums that `copy` would write.

    Raises:
        NotFoundError: The folder or a file is not there.
        DataIntegrityError: A file is not what the folder's checksums say.

    >>> digest(["2013-02"]) == digest(["2013-01", "2013-02"]) != digest(["2013-03"])
    True
    """
    root = datasets.data_folder(data_folder)
    lines = [
        f"{integrity.file_sha256(integrity.checked_path(root, name))}  {name}\n"
        for name in _names(periods, root)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def copy(
    periods: Sequence[Period | str],
    folder: Path,
    *,
    data_digest: str,
    data_folder: Path | None = None,
) -> None:
    """Copy the files that some periods need.

    Args:
        periods: Months or weeks in order.
        folder: Becomes a data folder with just these files and their checksums.
        data_digest: What `digest` said of them.
        data_folder: See `datasets.data_folder`.

    Raises:
        NotFoundError: The folder or a file is not there.
        DataIntegrityError: A file is damaged, or they have another digest: they have changed.
    """
    root = datasets.data_folder(data_folder)
    names = _names(periods, root)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(integrity.checked_path(root, name), folder / name)
    integrity.write_checksums(folder, names)
    found = integrity.file_sha256(folder / integrity.CHECKSUMS)
    if found != data_digest:
        raise DataIntegrityError(
            f"{', '.join(names)} in {root} have the digest {found}, {data_digest or 'none'} was"
            " asked for: the files have changed; ask with arrivals.digest anew"
        )


def clean(
    periods: Sequence[Period | str],
    folder: Path,
    *,
    quarantine_file: Path,
    data_folder: Path | None = None,
) -> tuple[str, ...]:
    """Set bad rows aside and check what is left against the reviewed schemas.

    Single rows that break a rule are set aside, and what is odd but usable is told. An error by the
    statistics of the rows kept ends it, such as a carrier's code of another kind or a column that
    is mostly missing: then something is wrong that no row shows.

    Args:
        periods: Months or weeks in order; the one before them is cleaned too, where there is one.
        folder: Becomes a data folder of the rows kept.
        quarantine_file: Gets a CSV file with `QUARANTINE_COLUMNS`, one line for each broken rule.
        data_folder: See `datasets.data_folder`.

    Returns:
        What is odd, a sentence each.

    Raises:
        NotFoundError: A period, or the weather, is not there.
        DataIntegrityError: A file is damaged, a partition is refused as a whole, or its statistics
            break the schema.
    """
    root = datasets.data_folder(data_folder)
    checked = _check([Period.parse(period) for period in periods], root)
    findings: list[str] = []
    errors: list[str] = []
    for each in checked:
        findings += each.findings
        for table, split in each.tables.items():
            counted = mergeable.add(mergeable.create(), split.kept)
            found = anomalies.table(anomalies.validate(counted, tables.reviewed(table)))
            for column, row in found.iterrows():
                text = f"{table} of {each.period}: {column}: {row['description']}"
                (errors if row["severity"] == "ERROR" else findings).append(text)
    if errors:
        raise DataIntegrityError(
            f"{'; '.join(errors)}: have the partitions sent again, or review the schema"
        )
    (folder / "flights").mkdir(parents=True)
    shutil.copyfile(root / datasets.ZONES_FILE, folder / datasets.ZONES_FILE)
    _kept(checked, "weather").to_parquet(folder / "weather.parquet", index=False)
    flights = _kept(checked, "flights")
    for name in _names(periods, root):
        if name.startswith("flights/"):
            month = Period.parse(Path(name).stem)
            rows = flights[(flights["year"] == month.year) & (flights["month"] == month.number)]
            rows.to_parquet(folder / name, index=False)
    integrity.write_checksums(folder, _names(periods, root))
    pd.concat([each.failures for each in checked]).to_csv(quarantine_file, index=False)
    return tuple(findings)


def write_examples(
    train_periods: Sequence[Period | str],
    test_period: Period | str,
    *,
    train_file: Path,
    test_file: Path,
    data_folder: Path | None = None,
) -> None:
    """Write the flights that have a label, with their features as of an hour before departure.

    Args:
        train_periods: Months or weeks in order.
        test_period: The one after them.
        train_file: Gets a parquet file of the flights of `train_periods`: `flight_id`, the columns
            of `definitions.FEATURES`, `late`, 1 or 0, and `hours`, the quarter of the day.
        test_file: Gets the same of `test_period`.
        data_folder: See `datasets.data_folder`.

    Raises:
        NotFoundError: A period, or the weather, is not there.
        DataIntegrityError: A file is damaged, or too many of its rows are refused.
    """
    periods = [Period.parse(period) for period in (*train_periods, test_period)]
    partitions = read(periods, data_folder=data_folder).partitions
    for file, part in ((train_file, partitions[:-1]), (test_file, partitions[-1:])):
        rows = []
        for partition in part:
            features, labels = partition.labeled()
            # As `preparation.prepare` has them; it can't find the zones in a task's folder.
            hours = pd.cut(
                features["mins"] / 60, [0, 6, 12, 18, 24.01], right=False, labels=preparation.HOURS
            )
            rows.append(features.assign(**{LABEL: labels}, hours=hours))
        pd.concat(rows).reset_index().to_parquet(file, index=False)


def _before(periods: Sequence[Period], root: Path | None) -> list[Period]:
    """The period before them, where there is one."""
    before = periods[0].previous()
    return [before] if set(before.months()) <= set(datasets.flight_months(root)) else []


def _names(periods: Sequence[Period | str], root: Path) -> list[str]:
    """The files that some periods need, sorted."""
    parsed = [Period.parse(period) for period in periods]
    months = {month for period in (*_before(parsed, root), *parsed) for month in period.months()}
    flights = (f"flights/{month}.parquet" for month in months)
    return sorted([datasets.ZONES_FILE, "weather.parquet", *flights])


def _check(periods: Sequence[Period], data_folder: Path | None) -> list[_Checked]:
    """Part the rows of some periods and of the one before them, where there is one."""
    hours = datasets.weather(folder=data_folder)
    checked = []
    for period in (*_before(periods, data_folder), *periods):
        arrived = datasets.flights(period, folder=data_folder)
        observed = hours[(hours["time_hour"] >= period.start) & (hours["time_hour"] < period.end)]
        split = {
            "flights": row_rules.split_rows(arrived, period),
            "weather": row_rules.split_weather_rows(observed, period),
        }
        checked.append(_Checked(period=period, n_arrived=len(arrived), tables=split))
    return checked


def _kept(checked: Sequence[_Checked], table: str) -> pd.DataFrame:
    return pd.concat([each.tables[table].kept for each in checked], ignore_index=True)
