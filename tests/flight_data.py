"""Fixtures of flights: months, the year, and a replayed day."""

import pandas as pd
import pytest

from mlops_mini.features import events
from mlops_mini.flights import datasets


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
    return events.from_flights(march)


@pytest.fixture(scope="session")
def march_stream(march_history, weather):
    """The same as the store receives it, with the weather."""
    is_near = weather["time_hour"].between(
        pd.Timestamp("2013-02-28", tz="UTC"), pd.Timestamp("2013-04-02", tz="UTC")
    )
    return events.stream(march_history, weather[is_near])


@pytest.fixture(scope="session")
def year():
    return pd.concat([datasets.flights(month) for month in datasets.flight_months()])
