from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_mini.errors import InvalidArgumentError, UnavailableError
from mlops_mini.features import events, online
from mlops_mini.features.store import Store
from mlops_mini.flights import airports, datasets, times
from mlops_mini.flights.features import FEATURES
from mlops_mini.flights.preparation import prepare
from tests.flight_data import compute_offline, compute_online, happened

TEXTS = [feature.name for feature in FEATURES.features if feature.dtype == "string"]

flight_strategy = st.fixed_dictionaries(
    {
        "year": st.just(2013),
        "month": st.integers(1, 12),
        "day": st.integers(1, 28),
        "sched_dep_time": st.builds(
            lambda h, m: h * 100 + m, st.integers(0, 23), st.integers(0, 59)
        ),
        "sched_arr_time": st.builds(
            lambda h, m: h * 100 + m, st.integers(0, 23), st.integers(0, 59)
        ),
        "carrier": st.sampled_from(["UA", "AA", None]),
        "origin": st.sampled_from(["EWR", "JFK", "LGA", None]),
        "dest": st.sampled_from([*airports.zones(), "XXX", None]),
        "distance": st.integers(50, 5000) | st.none(),
    }
)


def bits(features):
    """Numbers as their bits, all NaN alike."""
    numbers = features.drop(columns=TEXTS).to_numpy(dtype="float32", na_value=np.nan)
    return np.where(np.isnan(numbers), np.float32(np.nan), numbers).view("uint32")


def assert_equal_bit_for_bit(flights):
    batch = compute_offline(flights)
    # Values as Python objects, as a request brings them, and without any outcome.
    requests = flights[list(FEATURES.inputs)].to_dict("records")
    single = pd.DataFrame([compute_online(request) for request in requests], index=batch.index)

    assert single.columns.tolist() == batch.columns.tolist()
    assert single[TEXTS].equals(batch[TEXTS])
    np.testing.assert_array_equal(bits(single), bits(batch))


def test_online_equals_offline_on_flights_of_all_months():
    months = [datasets.flights(month) for month in datasets.flight_months()]

    assert_equal_bit_for_bit(pd.concat([flights.sample(20, random_state=0) for flights in months]))


@settings(max_examples=30)
@given(st.lists(flight_strategy, min_size=1, max_size=20))
def test_online_equals_offline_on_any_schedule(flights):
    assert_equal_bit_for_bit(pd.DataFrame(flights).assign(flight_id=range(len(flights))))


@pytest.mark.parametrize(("month", "day"), [(3, 10), (11, 3)])
@pytest.mark.parametrize("dest", ["ORD", "PHX", "HNL", "SJU", "BOS"])
def test_online_equals_offline_while_clocks_change(month, day, dest):
    flights = pd.DataFrame({"sched_dep_time": range(0, 2400, 50)})
    flights = flights[flights["sched_dep_time"] % 100 < 60].assign(
        flight_id=lambda frame: frame.index, year=2013, month=month, day=day,
        sched_arr_time=2359, carrier="UA", origin="EWR", dest=dest, distance=500,
    )  # fmt: skip

    assert_equal_bit_for_bit(flights)


def test_a_replayed_day_online_equals_offline(
    tmp_path, march, march_history, march_stream, weather
):
    flights = march[march["day"] == 8]
    with Store(tmp_path / "store.sqlite", FEATURES) as store:
        single = online.replay(flights, FEATURES, march_stream, store=store, prepare=prepare)

    batch = compute_offline(flights, history=march_history, weather=weather)

    assert len(batch) == 979
    assert single.columns.tolist() == batch.columns.tolist()
    assert (single[TEXTS].to_numpy() == batch[TEXTS].to_numpy()).all()
    np.testing.assert_array_equal(bits(single), bits(batch))
    assert batch.isna().any().sum() > 3  # missing values were compared too


def test_the_store_is_asked_as_of_the_instant_given(tmp_path, march, march_stream):
    flight = march.iloc[5000].to_dict()
    due = datetime(2013, 3, 6, 15, tzinfo=UTC)
    with Store(tmp_path / "store.sqlite", FEATURES) as store:
        store.apply(events.between(march_stream, None, due), up_to=due)

        later = compute_online(flight, store=store, at=due)
        earlier = compute_online(flight, store=store, at=due - timedelta(hours=2))

        known = store.read({name: flight[name] for name in FEATURES.entities}, at=due).features
    assert list(later) == [feature.name for feature in FEATURES.features]
    assert later["org_dep_mean_3h"] == np.float32(known["org_dep_mean_3h"])
    assert later["org_dep_mean_3h"] != earlier["org_dep_mean_3h"]
    assert later["temp"] != earlier["temp"]


def test_at_its_scheduled_minute_a_flight_is_not_among_those_that_left(tmp_path, march):
    flights = march[march["dep_delay"] == 0].head(1)
    request = flights.to_dict("records")[0]
    at = times.scheduled_departure(flights).iloc[0]
    with Store(tmp_path / "store.sqlite", FEATURES) as store:
        store.apply(events.stream(FEATURES, happened(flights)), up_to=at)

        own_known = compute_online(request, store=store, at=at)
        own_unknown = compute_online(request | {"flight_id": None}, store=store, at=at)

    assert (own_known["org_dep_n_1h"], own_unknown["org_dep_n_1h"]) == (0, 1)


def test_when_the_store_is_down_the_caller_is_told(tmp_path, flight):
    store = Store(tmp_path / "store.sqlite", FEATURES)
    store.close()

    with pytest.raises(UnavailableError, match="fallback model"):
        compute_online(flight, store=store)


@pytest.fixture
def flight():
    return {
        "year": 2013, "month": 1, "day": 1, "sched_dep_time": 515, "sched_arr_time": 819,
        "carrier": "UA", "origin": "EWR", "dest": "IAH", "distance": 1400,
    }  # fmt: skip


def test_outcomes_and_numpy_numbers_change_nothing(flight):
    numpy_numbers = {
        name: np.int16(value) if isinstance(value, int) else value for name, value in flight.items()
    }

    features = compute_online(numpy_numbers | {"dep_delay": 900.0, "arr_delay": 900.0})

    assert features == compute_online(flight)
    assert [type(value) for value in features.values()] == [
        str,
        str,
        str,
        float,
        float,
        float,
        float,
    ]


def test_a_missing_value_is_named(flight):
    del flight["dest"], flight["day"]

    with pytest.raises(InvalidArgumentError, match=r"need \['day', 'dest'\] too"):
        compute_online(flight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"day": 31, "month": 2}, "have no sched_dep_utc"),
        ({"month": None}, "have no sched_dep_utc"),
        ({"sched_dep_time": "noon"}, "have no sched_dep_utc.*noon"),
        ({"year": 10**30}, "have no sched_dep_utc"),
        ({"sched_arr_time": "noon"}, "'sched_arr_time' holds 'noon'"),
        ({"distance": "far"}, "'distance' holds 'far'"),
        ({"carrier": 9}, "'carrier' is int64"),
    ],
)
def test_values_that_make_no_sense_are_refused(flight, change, message):
    with pytest.raises(InvalidArgumentError, match=message):
        compute_online(flight | change)


def test_without_a_time_of_arrival_the_block_is_missing_as_in_training(flight):
    request = flight | {"sched_arr_time": float("nan")}

    assert np.isnan(compute_online(request)["block"])
    assert_equal_bit_for_bit(pd.DataFrame([request | {"flight_id": 1}] * 2))
