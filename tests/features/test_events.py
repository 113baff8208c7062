from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import events
from mlops_mini.features.events import FlightEvent, WeatherEvent
from mlops_mini.flights import datasets


def test_a_canceled_flight_never_departs_and_a_diverted_one_never_arrives(january):
    history = events.from_flights(january)

    kinds = history.groupby("flight_id")["kind"].agg(set)
    canceled = january["dep_delay"].isna().to_numpy()
    diverted = january["arr_delay"].isna().to_numpy() & ~canceled
    by_flight = kinds.reindex(january["flight_id"])
    assert (by_flight[canceled].map(len) == 1).all()
    assert all(kinds == {"scheduled", "departure"} for kinds in by_flight[diverted])
    assert all(len(kinds) == 3 for kinds in by_flight[~canceled & ~diverted])


def test_events_are_known_when_they_happen_and_in_that_order(january):
    history = events.from_flights(january)

    assert history["available_at"].is_monotonic_increasing
    assert (history["available_at"] == history["event_utc"]).all()
    assert history["available_at"].dtype == "datetime64[ns, UTC]"
    flight = history[history["flight_id"] == 3].set_index("kind")["event_utc"].astype(str)
    assert flight.to_dict() == {
        "departure": "2013-01-01 10:44:00+00:00",
        "scheduled": "2013-01-01 10:45:00+00:00",
        "arrival": "2013-01-01 14:04:00+00:00",
    }


def test_an_airport_without_a_zone_has_departures_but_no_arrivals(january):
    zones = {name: zone for name, zone in datasets.airport_zones().items() if name != "IAH"}

    history = events.from_flights(january, zones=zones)

    kinds = set(history.loc[history["dest"] == "IAH", "kind"])
    assert kinds == {"scheduled", "departure"}


def test_a_stream_mixes_events_and_observations_by_the_time_they_are_known(january, weather):
    history = events.from_flights(january)

    stream = events.stream(history, weather.head(100))

    known_s = [event.available_s for event in stream]
    assert known_s == sorted(known_s)
    observed = [event for event in stream if isinstance(event, WeatherEvent)]
    assert len(observed) == 100
    assert len(stream) == len(history) + 100
    assert {event.available_s - event.event_s for event in observed} == {3600}
    assert {type(value) for event in observed for value in event.observed.values()} == {float}
    delays = {type(event.delay_min) for event in stream if isinstance(event, FlightEvent)}
    assert delays == {int, type(None)}


def test_a_stream_is_cut_without_a_gap_or_an_overlap(january):
    stream = events.stream(events.from_flights(january))
    noon, night = (datetime(2013, 1, 5, hour, tzinfo=UTC) for hour in (12, 23))

    parts = [
        events.between(stream, after, up_to)
        for after, up_to in ((None, noon), (noon, night), (night, datetime.max.replace(tzinfo=UTC)))
    ]

    assert [event for part in parts for event in part] == stream
    assert all(noon.timestamp() < event.available_s <= night.timestamp() for event in parts[1])
    assert parts[1][-1].available_s == night.timestamp()  # something left at 6 p.m. sharp


def test_instants_without_a_zone_are_refused(january, weather):
    history = events.from_flights(january)
    naive = history.assign(event_utc=history["event_utc"].dt.tz_localize(None))
    naive_weather = weather.assign(time_hour=weather["time_hour"].dt.tz_localize(None))

    with pytest.raises(InvalidArgumentError, match=r"event_utc is .* without a time zone"):
        events.checked_history(naive)
    with pytest.raises(InvalidArgumentError, match=r"time_hour is .* without a time zone"):
        events.checked_weather(naive_weather)
    with pytest.raises(InvalidArgumentError, match="has no time zone"):
        events.epoch_s(datetime(2013, 1, 1))  # noqa: DTZ001


def test_another_zone_is_the_same_instant(january):
    history = events.from_flights(january)
    in_tokyo = history.assign(event_utc=history["event_utc"].dt.tz_convert("Asia/Tokyo"))

    pd.testing.assert_frame_equal(events.checked_history(in_tokyo), events.checked_history(history))


@pytest.mark.parametrize("delay_min", [0.5, np.inf])
def test_delays_of_a_fraction_of_a_minute_are_refused(january, delay_min):
    history = events.from_flights(january)
    history.loc[5, ["kind", "delay_min"]] = ["departure", delay_min]

    with pytest.raises(InvalidArgumentError, match=f"1 delays .* such as {delay_min}"):
        events.checked_history(history)


def test_an_event_that_lacks_its_time_or_its_delay_is_left_out(january):
    history = events.from_flights(january)
    departures = history[history["kind"] == "departure"].index
    history.loc[departures[0], "delay_min"] = np.nan
    history.loc[departures[1], "event_utc"] = pd.NaT

    known = events.checked_history(history)

    assert len(known) == len(history) - 2
    assert known.loc[known["kind"] == "departure", "delay_min"].notna().all()


def test_a_missing_column_is_named(january, weather):
    history = events.from_flights(january)

    with pytest.raises(InvalidArgumentError, match=r"events need the columns \['kind'\] too"):
        events.checked_history(history.drop(columns="kind"))
    with pytest.raises(InvalidArgumentError, match=r"weather need the columns \['visib'\] too"):
        events.checked_weather(weather.drop(columns="visib"))


def test_of_two_observations_of_an_hour_the_first_stands(weather):
    twice = pd.concat([weather.head(1), weather.head(1).assign(temp=99.0)])

    assert events.checked_weather(twice)["temp"].tolist() == weather["temp"].head(1).tolist()
