"""Features do not depend on who has read the tables: equal values give equal features."""

import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import events
from mlops_mini.flights import airports, times
from mlops_mini.flights.features import FEATURES, WEATHER_OBSERVATION
from mlops_mini.flights.preparation import prepare
from tests.flight_data import compute_offline, compute_online, happened

AS = {
    "nullable": lambda frame: frame.convert_dtypes(),
    "arrow": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
    "objects": lambda frame: frame.astype(object),
    "categories": lambda frame: frame.astype("category"),
    "an index with gaps": lambda frame: frame.set_axis(
        pd.Index([pd.NA] * len(frame), dtype="Int64")
    ),
}


@pytest.fixture(scope="module")
def flights(january):
    return january.iloc[:2000].reset_index(drop=True)


@pytest.fixture(scope="module")
def near(weather):
    return weather[weather["time_hour"] < pd.Timestamp("2013-01-05", tz="UTC")]


@pytest.mark.parametrize("convert", AS.values(), ids=AS)
def test_features_and_labels_do_not_depend_on_dtypes(flights, near, convert):
    expected = compute_offline(flights, history=happened(flights), weather=near)
    other = convert(flights)

    history = convert(happened(other))
    found = compute_offline(other, history=history, weather=convert(near))

    pd.testing.assert_frame_equal(found, expected, check_index_type=False)
    labels, expected_labels = (prepare(rows)["late"] for rows in (other, flights))
    assert labels.array == pytest.approx(expected_labels.array, nan_ok=True)


@pytest.mark.parametrize("convert", AS.values(), ids=AS)
def test_streams_and_instants_do_not_depend_on_dtypes(flights, near, convert):
    first = flights.head(50)
    expected = events.stream(FEATURES, happened(first), {"weather": near})

    found = events.stream(FEATURES, convert(happened(convert(first))), {"weather": convert(near)})

    assert found == expected or repr(found) == repr(expected)  # NaN is in the weather
    zones = airports.zones()
    instants = times.derive_utc(convert(first), zones).set_axis(first.index)
    pd.testing.assert_frame_equal(instants, times.derive_utc(first, zones))


@pytest.mark.parametrize("gone", [None, np.nan, pd.NA, pd.NaT])
def test_online_takes_every_kind_of_missing_value(flights, gone):
    flight = flights.iloc[0].to_dict() | {"distance": gone, "carrier": gone, "flight_id": gone}

    found = compute_online(flight)

    assert np.isnan(found["distance"])
    assert (found["carrier"], found["origin"]) == ("", "EWR")


def put(flights, name, value):
    first, _, last = flights[name].head(3)
    return flights.head(3).assign(**{name: pd.Series([first, value, last], dtype=object)})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("distance", "far", "'distance' holds 'far' in row 1, and 1 of 3 values are no numbers"),
        ("sched_arr_time", "noon", "'sched_arr_time' holds 'noon' in row 1"),
        (
            "sched_dep_time",
            "noon",
            "1 of 3 rows have no sched_dep_utc, such as row 1 with .*'noon'",
        ),
        ("day", None, "1 of 3 rows have no sched_dep_utc, such as row 1"),
        ("day", np.inf, "1 of 3 rows have no sched_dep_utc, such as row 1"),
        ("dest", [1], r"'dest' is object, with \[1\] in row 1, expected texts"),
        ("carrier", 9, "'carrier' is object, with 9 in row 1, expected texts"),
        ("flight_id", None, "1 of 3 values of flight_id are missing, such as in row 1"),
        ("flight_id", 1.5, "no whole numbers, such as 1.5 in row 1"),
    ],
)
def test_what_no_feature_can_be_made_of_is_named_with_its_row(flights, name, value, message):
    with pytest.raises(InvalidArgumentError, match=message):
        compute_offline(put(flights, name, value))


def test_delays_and_observations_that_are_no_numbers_are_named_with_their_row(flights, near):
    with pytest.raises(InvalidArgumentError, match="'dep_delay' holds 'late' in row 1"):
        happened(put(flights, "dep_delay", "late"))
    with pytest.raises(InvalidArgumentError, match="'dep_delay' holds inf in row 1"):
        happened(put(flights, "dep_delay", np.inf))
    with pytest.raises(InvalidArgumentError, match="'temp' holds 'hot' in row 1"):
        events.checked_observations(
            FEATURES, WEATHER_OBSERVATION, put(near.reset_index(drop=True), "temp", "hot")
        )
