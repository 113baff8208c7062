from mlops_mini.features import events
from mlops_mini.features.events import Happening, Observed
from mlops_mini.flights.features import FEATURES
from tests.flight_data import happened


def test_a_canceled_flight_never_departs_and_a_diverted_one_never_arrives(january):
    history = happened(january)

    kinds = history.groupby("id")["kind"].agg(set)
    canceled = january["dep_delay"].isna().to_numpy()
    diverted = january["arr_delay"].isna().to_numpy() & ~canceled
    by_flight = kinds.reindex(january["flight_id"])
    assert (by_flight[canceled].map(len) == 1).all()
    assert all(kinds == {"scheduled", "departure"} for kinds in by_flight[diverted])
    assert all(len(kinds) == 3 for kinds in by_flight[~canceled & ~diverted])


def test_events_are_known_when_they_happen_and_in_that_order(january):
    history = happened(january)

    assert history["available_at"].is_monotonic_increasing
    assert (history["available_at"] == history["event_utc"]).all()
    assert history["available_at"].dtype == "datetime64[ns, UTC]"
    flight = history[history["id"] == 3].set_index("kind")["event_utc"].astype(str)
    assert flight.to_dict() == {
        "departure": "2013-01-01 10:44:00+00:00",
        "scheduled": "2013-01-01 10:45:00+00:00",
        "arrival": "2013-01-01 14:04:00+00:00",
    }


def test_an_airport_without_a_zone_has_departures_but_no_arrivals(january):
    history = happened(january.replace({"dest": {"IAH": "XXX"}}))

    kinds = set(history.loc[history["dest"] == "XXX", "kind"])
    assert kinds == {"scheduled", "departure"}


def test_a_stream_mixes_events_and_observations_by_the_time_they_are_known(january, weather):
    history = happened(january)

    stream = events.stream(FEATURES, history, {"weather": weather.head(100)})

    known_s = [event.available_s for event in stream]
    assert known_s == sorted(known_s)
    observed = [event for event in stream if isinstance(event, Observed)]
    assert len(observed) == 100
    assert len(stream) == len(history) + 100
    assert {event.available_s - event.event_s for event in observed} == {3600}
    assert {type(value) for event in observed for value in event.numbers.values()} == {float}
    delays = {type(event.value) for event in stream if isinstance(event, Happening)}
    assert delays == {int, type(None)}
