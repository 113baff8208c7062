"""The features of the whole year, against figures and against a plain computation."""

import math

import numpy as np
import pandas as pd
import pytest

from mlops_mini.flights import airports, datasets, times
from mlops_mini.flights.features import WEATHER
from tests.flight_data import compute_offline, happened


@pytest.fixture(scope="module")
def year():
    return pd.concat(
        [datasets.flights(month) for month in datasets.flight_months()], ignore_index=True
    )


@pytest.fixture(scope="module")
def features(year, weather):
    return compute_offline(year, history=happened(year), weather=weather)


def test_every_flight_has_its_row(year, features):
    assert len(features) == 336_776
    assert features.index.equals(pd.Index(year["flight_id"]))


@pytest.mark.parametrize(
    ("name", "share_pct", "digits"),
    [
        ("org_dep_mean_1h", 4.2, 1),
        ("org_dep_mean_3h", 4.0, 1),
        ("car_dep_mean_3h", 7.8, 1),
        ("car_dep_mean_24h", 0.06, 2),
        ("car_late_mean_6h", 5.1, 1),
        ("dst_arr_mean_24h", 0.46, 2),
        ("wind_gust", 76.6, 1),
        ("pressure", 11.2, 1),
        ("wind_speed", 0.26, 2),
        ("temp", 0.23, 2),
        ("dewp", 0.23, 2),
        ("humid", 0.23, 2),
        ("precip", 0.23, 2),
        ("visib", 0.23, 2),
        ("org_dep_n_1h", 0, 2),
        ("org_dep_n_3h", 0, 2),
        ("car_late_n_6h", 0, 2),
        ("org_overdue", 0, 2),
    ],
)
def test_as_much_is_missing_as_is_known(features, name, share_pct, digits):
    assert round(100 * features[name].isna().mean(), digits) == share_pct


def test_a_count_is_0_where_its_mean_is_missing_and_only_there(features):
    for count, mean in (
        ("org_dep_n_1h", "org_dep_mean_1h"),
        ("org_dep_n_3h", "org_dep_mean_3h"),
        ("car_late_n_6h", "car_late_mean_6h"),
    ):
        assert ((features[count] == 0) == features[mean].isna()).all()


def test_weather_ends_a_day_early_and_nowhere_else(year, features):
    lacks_visib = features["visib"].isna().to_numpy()

    assert lacks_visib.sum() == 776
    assert year.loc[lacks_visib, ["month", "day"]].drop_duplicates().to_numpy().tolist() == [
        [12, 31]
    ]


def test_fewer_may_be_overdue_than_none(features):
    overdue = features["org_overdue"]

    assert (overdue.min(), overdue.max()) == (-21, 76)
    assert round((overdue < 0).mean(), 2) == 0.22


def test_the_first_day_has_no_history(year, features):
    lacks_history = features["car_dep_mean_24h"].isna().to_numpy()
    first_day = ((year["month"] == 1) & (year["day"] == 1)).to_numpy()

    assert (lacks_history & first_day).sum() == 53


def test_300_random_flights_equal_a_plain_computation(year, features, weather):
    instants = times.derive_utc(year, airports.zones()).drop(columns="block_min")
    flights = pd.concat([year, instants.apply(lambda column: column.dt.tz_localize(None))], axis=1)
    published = weather["time_hour"].dt.tz_localize(None) + pd.Timedelta(hours=1)

    def inside(entity, time, hours):
        at = flight["pred_utc"]
        is_here = near[entity] == flight[entity]
        return near[is_here & (near[time] > at - pd.Timedelta(hours=hours)) & (near[time] <= at)]

    def mean(values):
        return values.mean() if len(values) else math.nan

    errors = []
    for row in np.random.default_rng(0).choice(len(year), 300, replace=False):
        flight = flights.iloc[row]
        at = flight["pred_utc"]
        # No delay or duration is so long that more could be in a window.
        near = flights[(flights["sched_dep_utc"] - at).abs() < pd.Timedelta(hours=72)]
        left_1h, left_3h = (inside("origin", "dep_utc", hours) for hours in (1, 3))
        arrived = inside("carrier", "arr_utc", 6)
        expected = {
            "org_dep_n_1h": len(left_1h),
            "org_dep_mean_1h": mean(left_1h["dep_delay"]),
            "org_dep_n_3h": len(left_3h),
            "org_dep_mean_3h": mean(left_3h["dep_delay"]),
            "car_dep_mean_3h": mean(inside("carrier", "dep_utc", 3)["dep_delay"]),
            "car_dep_mean_24h": mean(inside("carrier", "dep_utc", 24)["dep_delay"]),
            "car_late_n_6h": len(arrived),
            "car_late_mean_6h": mean(arrived["arr_delay"] > 15),
            "dst_arr_mean_24h": mean(inside("dest", "arr_utc", 24)["arr_delay"]),
            "org_overdue": len(inside("origin", "sched_dep_utc", 3)) - len(left_3h),
        }
        here = weather[(weather["origin"] == flight["origin"]) & (published <= at)]
        last = here.loc[here["time_hour"].idxmax()] if len(here) else None
        is_alive = last is not None and at - published[last.name] <= pd.Timedelta(hours=6)
        for feature in WEATHER:
            expected[feature.name] = last[feature.name] if is_alive else math.nan
        for name, value in expected.items():
            if not np.array_equal(
                np.float32(value), features[name].to_numpy()[row], equal_nan=True
            ):
                errors.append((int(row), name, value))
    assert errors == []
