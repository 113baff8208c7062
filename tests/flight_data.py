"""Fixtures of flights: months, the year, and a replayed day."""

import pandas as pd
import pytest

from mlops_mini.data import rules
from mlops_mini.data.periods import Period, iterate
from mlops_mini.data.rules import RowSplit
from mlops_mini.features import events, offline, online
from mlops_mini.flights import datasets
from mlops_mini.flights.features import FEATURES
from mlops_mini.flights.preparation import prepare
from mlops_mini.flights.tables import CALENDAR, FLIGHTS, WEATHER


def happened(flights):
    """What has happened to flights, as the offline side sees it."""
    return events.from_tables(FEATURES, {"flights": prepare(flights)}, {"flights": "flight_id"})


def compute_offline(flights, *, weather=None, **given):
    """The features of flights as training has them."""
    observed = {} if weather is None else {"weather": weather}
    return offline.compute(flights, FEATURES, prepare=prepare, observed=observed, **given)


def compute_online(flight, **given):
    """The features of one flight as a request has them."""
    return online.compute(flight, FEATURES, prepare=prepare, **given)


def periods(first: str, last: str) -> list[Period]:
    """List the months or weeks from one to another, as the flights' calendar has them."""
    return list(iterate(CALENDAR.period(first), CALENDAR.period(last)))


def split_rows(flights: pd.DataFrame, period: str | Period, **limits: float) -> RowSplit:
    """Split a partition of flights by their rules."""
    return rules.split(FLIGHTS, flights, CALENDAR.period(period), **limits)


def split_weather_rows(weather: pd.DataFrame, period: str | Period, **limits: float) -> RowSplit:
    """Split a partition of weather by its rules."""
    return rules.split(WEATHER, weather, CALENDAR.period(period), **limits)


@pytest.fixture(scope="session")
def january():
    return datasets.flights("2013-01")


@pytest.fixture(scope="session")
def march():
    return datasets.flights("2013-03")


@pytest.fixture(scope="session")
def weather():
    return datasets.weather()


@pytest.fixture(scope="session")
def march_history(march):
    """What happened in March, as the offline side sees it."""
    return happened(march)


@pytest.fixture(scope="session")
def march_stream(march_history, weather):
    """The same as the store receives it, with the weather."""
    is_near = weather["time_hour"].between(
        pd.Timestamp("2013-02-28", tz="UTC"), pd.Timestamp("2013-04-02", tz="UTC")
    )
    return events.stream(FEATURES, march_history, {"weather": weather[is_near]})


@pytest.fixture(scope="session")
def year():
    return pd.concat([datasets.flights(month) for month in datasets.flight_months()])
