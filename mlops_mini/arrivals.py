"""Months of flights and weather as they arrive: bad rows set aside, features, labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data import datasets, schema
from mlops_mini.data.periods import Period
from mlops_mini.features import events, offline
from mlops_mini.features.events import StreamEvent

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrivals:
    """What has arrived.

    Attributes:
        partitions: The periods asked for, in order.
        quarantined: One line for each rule that a row of them breaks: `period`, `table` (flights or
            weather), `row` (position in the partition, from 0), `column`, `rule`, `value`.
        stream: Everything that has happened in them, in the order in which it became known.
        zones: IANA time zone by airport.
    """

    partitions: Sequence[Partition]
    quarantined: pd.DataFrame
    stream: Sequence[StreamEvent]
    zones: Mapping[str, str]


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
    hours = datasets.weather(folder=data_folder)
    before = periods[0].previous()
    has_before = set(before.months()) <= set(datasets.flight_months(data_folder))
    flights, weather = {}, {}
    for period in [before, *periods] if has_before else periods:
        arrived = datasets.flights(period, folder=data_folder)
        flights[period] = (len(arrived), schema.split_rows(arrived, period))
        observed = hours[(hours["time_hour"] >= period.start) & (hours["time_hour"] < period.end)]
        weather[period] = schema.split_weather_rows(observed, period)
    history = events.from_flights(
        pd.concat([split.kept for _, split in flights.values()], ignore_index=True), zones=zones
    )
    observations = pd.concat([split.kept for split in weather.values()], ignore_index=True)
    partitions, quarantined = [], []
    for period in periods:
        (n_flights, split), observed_split = flights[period], weather[period]
        failures = pd.concat(
            [
                split.failures.assign(period=str(period), table="flights"),
                observed_split.failures.assign(period=str(period), table="weather"),
            ]
        )
        quarantined.append(failures)
        partitions.append(
            Partition(
                period=period,
                n_arrived=n_flights,
                n_quarantined=len(split.quarantined),
                refused=_by_rule(failures),
                findings=tuple(found.text for found in split.findings + observed_split.findings),
                flights=split.kept,
                features=offline.compute(
                    split.kept, history=history, weather=observations, zones=zones
                ),
                labels=offline.labels(split.kept),
            )
        )
    return Arrivals(
        partitions=partitions,
        quarantined=pd.concat(quarantined, ignore_index=True)[list(QUARANTINE_COLUMNS)],
        stream=events.stream(history, observations),
        zones=zones,
    )


def _by_rule(failures: pd.DataFrame) -> dict[str, int]:
    texts = failures["column"] + ": " + failures["rule"] + ", found " + failures["value"]
    return dict(Counter(texts))
