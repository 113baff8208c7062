"""The obvious features, as plain loops compute them."""

import numpy as np
import pandas as pd
import pytest

from mlops_mini.flights import day_means, times
from mlops_mini.flights.preparation import prepare


@pytest.fixture(scope="module")
def days(march) -> pd.DataFrame:
    some = march[march["day"].isin([7, 8])].sample(400, random_state=0)
    return prepare(some).set_index("flight_id", drop=False)


@pytest.fixture(scope="module")
def due(days) -> "pd.Series[pd.Timestamp]":
    return days["sched_dep_utc"] - times.HORIZON


def test_the_mean_of_a_day_takes_in_what_nobody_knows_yet(days):
    means = day_means.whole_day(days)

    for flight_id, flight in days.sample(50, random_state=1).iterrows():
        same_day = days[days["day"] == flight["day"]]
        found = means.loc[flight_id]
        assert_mean(found["origin_mean"], same_day[same_day["origin"] == flight["origin"]])
        assert_mean(found["carrier_mean"], same_day[same_day["carrier"] == flight["carrier"]])


def assert_mean(found: float, others: pd.DataFrame) -> None:
    np.testing.assert_allclose(found, others["dep_delay"].mean())


def test_the_day_before_the_first_one_is_missing(days):
    means = day_means.whole_day(days, days_back=1)

    assert means[days["day"] == 7].isna().all(axis=None)
    expected = day_means.whole_day(days).loc[days["day"] == 7, "origin_mean"]
    of_jfk = expected[days["origin"] == "JFK"].iloc[0]
    is_next = (days["day"] == 8) & (days["origin"] == "JFK")
    assert (means.loc[is_next, "origin_mean"] == of_jfk).all()


def test_the_mean_so_far_holds_what_is_known_when_the_prediction_is_due(days, due):
    means = day_means.so_far(days, due)

    assert means.index.equals(days.index)
    for flight_id, flight in days.iterrows():
        same_day = days[days["day"] == flight["day"]]
        departed = same_day[same_day["dep_utc"] <= due[flight_id]]
        arrived = same_day[same_day["arr_utc"] <= due[flight_id]]
        expected = [
            departed.loc[departed["origin"] == flight["origin"], "dep_delay"].mean(),
            departed.loc[departed["carrier"] == flight["carrier"], "dep_delay"].mean(),
            arrived.loc[arrived["dest"] == flight["dest"], "arr_delay"].mean(),
        ]
        np.testing.assert_allclose(means.loc[flight_id].to_numpy(), expected)
    assert means.isna().any().all()
    assert means.notna().any().all()
