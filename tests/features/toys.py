"""Small histories of made-up flights, and the plain way to compute a window of them."""

import math

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from mlops_mini.features import events, prefix_sums
from mlops_mini.features.events import FlightEvent, WeatherEvent
from mlops_mini.features.windows import RunningWindows
from mlops_mini.flights.definitions import RECENT, WEATHER

NOW_S = 1_362_700_800  # 8 March 2013
HOUR_S = 3600
RECENT_NAMES = [feature.name for feature in RECENT]
PLACES = {"origin": ("EWR", "LGA"), "carrier": ("UA", "AA"), "dest": ("IAH", "DEN")}


def flight_event(kind="departure", flight_id=1, event_s=NOW_S, delay_min=10, **changed):
    """An event of a flight UA EWR IAH, known when it happens."""
    fields = {"available_s": event_s, "origin": "EWR", "carrier": "UA", "dest": "IAH"} | changed
    delay = None if kind == "scheduled" else delay_min
    return FlightEvent(kind=kind, flight_id=flight_id, event_s=event_s, delay_min=delay, **fields)


def weather_event(event_s, temp=40.0, origin="EWR"):
    """An observation, published an hour later, in which all is missing but the temperature."""
    values = {feature.name: math.nan for feature in WEATHER} | {"temp": temp}
    return WeatherEvent(origin, event_s, event_s + HOUR_S, values)


# Instants on a coarse grid around the ends of all windows, so that ties and edges are common.
instants_s = st.builds(
    lambda hours, off: NOW_S - hours * HOUR_S + off,
    st.sampled_from([0, 1, 2, 3, 6, 24]),
    st.sampled_from([-1, 0, 1, 600]),
)

flight_events = st.builds(
    lambda event_s, known_after_s, **fields: flight_event(
        event_s=event_s, available_s=event_s + known_after_s, **fields
    ),
    event_s=instants_s,
    known_after_s=st.sampled_from([0, 0, 0, 1, HOUR_S, 30 * HOUR_S]),
    kind=st.sampled_from(["scheduled", "departure", "arrival"]),
    flight_id=st.integers(0, 30),
    delay_min=st.integers(-80, 1300),
    origin=st.sampled_from(PLACES["origin"]),
    carrier=st.sampled_from(PLACES["carrier"]),
    dest=st.sampled_from(PLACES["dest"]),
)

entities = st.fixed_dictionaries(
    {name: st.sampled_from([*values, "XXX"]) for name, values in PLACES.items()}
)

histories = st.lists(flight_events, max_size=25, unique_by=lambda event: event[:2])


def as_history(some_events):
    """The table that `events.from_flights` would make of events."""
    frame = pd.DataFrame(some_events, columns=FlightEvent._fields)
    instant = {"event_utc": "event_s", "available_at": "available_s"}
    for name, seconds in instant.items():
        frame[name] = pd.to_datetime(frame[seconds].astype("int64"), unit="s", utc=True)
    return frame[list(events.COLUMNS)].astype({"delay_min": "float64"})


def offline_values(some_events, entity, at_s, *, without=None):
    """All recent features as the offline side computes them."""
    history = events.checked_history(as_history(some_events))
    asked = prefix_sums.Questions(
        entities=pd.DataFrame([entity]),
        at_s=np.array([at_s]),
        without=None if without is None else np.array([without]),
    )
    by_kind = dict(iter(history.groupby("kind")))
    return {
        feature.name: float(prefix_sums.window_values(feature.source, by_kind, asked)[0])
        for feature in RECENT
    }


def online_values(some_events, entity, at_s, *, without=None):
    """The same as the online side computes them, events arriving in the order given."""
    windows = RunningWindows()
    for event in some_events:
        if event not in windows:
            windows.add(event)
    values = windows.read(entity, at_s, without=without)
    return {name: values[name] for name in RECENT_NAMES}


def plain_values(some_events, entity, at_s, *, without=None):
    """The definition, said once more and as plainly as possible."""

    def delays(kind, name, hours):
        return [
            event.delay_min
            for event in some_events
            if event.kind == kind
            and getattr(event, name) == entity[name]
            and at_s - hours * HOUR_S < event.event_s <= at_s
            and event.available_s <= at_s
            and event.flight_id != without
        ]

    def mean(values):
        return sum(values) / len(values) if values else math.nan

    overdue = len(delays("scheduled", "origin", 3)) - len(delays("departure", "origin", 3))
    return {
        "org_dep_n_1h": len(delays("departure", "origin", 1)),
        "org_dep_mean_1h": mean(delays("departure", "origin", 1)),
        "org_dep_n_3h": len(delays("departure", "origin", 3)),
        "org_dep_mean_3h": mean(delays("departure", "origin", 3)),
        "car_dep_mean_3h": mean(delays("departure", "carrier", 3)),
        "car_dep_mean_24h": mean(delays("departure", "carrier", 24)),
        "car_late_n_6h": len(delays("arrival", "carrier", 6)),
        "car_late_mean_6h": mean([delay > 15 for delay in delays("arrival", "carrier", 6)]),
        "dst_arr_mean_24h": mean(delays("arrival", "dest", 24)),
        "org_overdue": overdue,
    }


def same(left, right):
    """Tell whether values are equal, missing ones too."""
    assert list(left) == list(right)
    return all(
        a == b or (math.isnan(a) and math.isnan(b))
        for a, b in zip(left.values(), right.values(), strict=True)
    )
