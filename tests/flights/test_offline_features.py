import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.flights import datasets
from mlops_mini.flights.features import FEATURES, RECENT, SCHEDULE, WEATHER
from tests.flight_data import compute_offline, happened


@pytest.fixture(scope="module")
def march_features(march, march_history, weather):
    return compute_offline(march, history=march_history, weather=weather)


def test_columns_index_and_types_are_those_of_the_definitions(march, march_features):
    assert march_features.columns.tolist() == list(FEATURES.names)
    assert march_features.index.tolist() == march["flight_id"].tolist()
    assert [march_features[feature.name].dtype for feature in FEATURES.features] == [
        np.dtype("float32" if feature.dtype == "float32" else object)
        for feature in FEATURES.features
    ]


def test_a_group_comes_with_its_source(march, march_history, weather, march_features):
    some = march.head(100)

    def columns(**sources):
        features = compute_offline(some, **sources)
        pd.testing.assert_frame_equal(features, march_features.head(100)[features.columns])
        return features.columns.tolist()

    schedule, air, recent = ([f.name for f in group] for group in (SCHEDULE, WEATHER, RECENT))
    assert columns() == schedule
    assert columns(weather=weather) == schedule + air
    assert columns(history=march_history) == schedule + recent


@pytest.mark.parametrize(
    ("flight_id", "expected"),
    [
        (142789, [7, 132.7143, 44, 135.3182, np.nan, -6.0, 1, 0, 23.1053, 16, 37.94]),
        (143142, [9, 103.2222, 21, 81.6190, 93.9167, 25.1429, 15, 0.6667, 11.3636, 39, 33.98]),
        (143490, [22, 116.4091, 52, 130.6731, 55.6154, 38.4615, 12, 0.9167, 112.6333, 8, 42.08]),
    ],
)
def test_recent_delays_of_flights_known_by_heart(march_features, flight_id, expected):
    names = [*(feature.name for feature in RECENT), "temp"]

    found = march_features.loc[flight_id, names].astype(float).round(4).tolist()

    assert found == pytest.approx(expected, abs=1e-4, nan_ok=True)


def test_a_flight_known_by_heart():
    flights = datasets.flights("2013-03").set_index("flight_id", drop=False)

    features = compute_offline(flights).loc[142789]

    assert features.to_dict() == {
        "carrier": "F9",
        "origin": "LGA",
        "dest": "DEN",
        "mins": 17 * 60 + 30,
        "dow": 4,  # 8 March 2013 was a Friday
        "distance": 1620,
        "block": 120 + 147,  # 17:30 to 19:57, two hours west
    }


def test_outcomes_change_nothing(january):
    outcomes = dict.fromkeys(("dep_delay", "arr_delay", "air_time", "tailnum"), np.nan)

    features = compute_offline(january.assign(**outcomes))

    pd.testing.assert_frame_equal(features, compute_offline(january))
    pd.testing.assert_frame_equal(features, compute_offline(january.drop(columns=list(outcomes))))


def test_what_happens_after_a_prediction_changes_nothing(march, march_history, weather):
    asked = march[march["day"] == 8]
    features = compute_offline(asked, history=march_history, weather=weather)
    last_utc = pd.Timestamp("2013-03-09T04:59", tz="UTC") - pd.Timedelta(minutes=60)

    known = march_history[march_history["available_at"] <= last_utc]
    published = weather[weather["time_hour"] + pd.Timedelta(hours=1) <= last_utc]

    assert len(known) < len(march_history)
    pd.testing.assert_frame_equal(
        compute_offline(asked, history=known, weather=published), features
    )


def test_order_of_events_and_weather_changes_no_value(march, march_history, weather):
    some = march.sample(2000, random_state=0)

    def shuffled(frame):
        return frame.sample(frac=1.0, random_state=1)

    pd.testing.assert_frame_equal(
        compute_offline(some, history=shuffled(march_history), weather=shuffled(weather)),
        compute_offline(some, history=march_history, weather=weather),
    )


def test_flights_of_one_origin_and_minute_all_come_back(march, march_features):
    again = pd.concat([march.head(3), march.head(3)])

    features = compute_offline(again, history=happened(march.head(300)))

    assert features.index.tolist() == again["flight_id"].tolist()
    pd.testing.assert_frame_equal(features.head(3), features.tail(3))
    minute = ["year", "month", "day", "sched_dep_time", "origin"]
    assert march.duplicated(minute, keep=False).mean() > 0.5
    assert len(march_features) == len(march)


def test_a_flight_is_in_its_own_windows_at_its_scheduled_minute_only_if_that_is_asked_for(january):
    history = happened(january)

    def n_departures(horizon_min, *, counts_own):
        features = compute_offline(
            january,
            history=history,
            due=f"-{horizon_min}min",
            counts_own=counts_own,
        )
        return features["org_dep_n_3h"].to_numpy()

    honest = n_departures(0, counts_own=False)
    leaky = n_departures(0, counts_own=True)

    has_left = (january["dep_delay"] <= 0).to_numpy()
    assert (leaky - honest == has_left).all()
    assert 0.5 < has_left.mean() < 0.7
    # Nobody leaves an hour early: there is nothing to take out.
    assert (n_departures(60, counts_own=True) == n_departures(60, counts_own=False)).all()


def test_sources_without_a_time_zone_are_refused(january, march_history, weather):
    naive = march_history.assign(available_at=march_history["available_at"].dt.tz_localize(None))
    naive_weather = weather.assign(time_hour=weather["time_hour"].dt.tz_localize(None))

    with pytest.raises(InvalidArgumentError, match="available_at is datetime64"):
        compute_offline(january, history=naive)
    with pytest.raises(InvalidArgumentError, match="time_hour is datetime64"):
        compute_offline(january, weather=naive_weather)


def test_without_any_event_counts_are_0_and_means_missing(january):
    nothing = happened(january).head(0)

    features = compute_offline(january.head(5), history=nothing)

    assert (features[["org_dep_n_1h", "org_dep_n_3h", "car_late_n_6h", "org_overdue"]] == 0).all(
        axis=None
    )
    assert features.filter(like="mean").isna().all(axis=None)


def test_missing_is_nan_or_empty(january):
    flights = january.head(3).assign(carrier=["UA", None, "AA"], distance=[np.nan, 5.0, 6.0])
    flights["dest"] = ["XXX", "IAH", None]

    features = compute_offline(flights)

    assert features["carrier"].tolist() == ["UA", "", "AA"]
    assert features["dest"].tolist() == ["XXX", "IAH", ""]
    assert features["distance"].isna().tolist() == [True, False, False]
    assert features["block"].isna().tolist() == [True, False, True]


def test_order_of_rows_changes_no_value(january):
    shuffled = january.sample(frac=1.0, random_state=0)

    pd.testing.assert_frame_equal(compute_offline(shuffled).sort_index(), compute_offline(january))


def test_a_missing_column_is_named(january):
    with pytest.raises(InvalidArgumentError, match=r"need the columns \['dest'\] too"):
        compute_offline(january.drop(columns="dest"))
