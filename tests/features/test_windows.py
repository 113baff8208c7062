import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_mini.features.windows import RunningWindows
from mlops_mini.flights.definitions import RECENT, WEATHER
from tests.features.toys import (
    HOUR_S,
    NOW_S,
    RECENT_NAMES,
    entities,
    flight_event,
    flight_events,
    histories,
    instants_s,
    offline_values,
    online_values,
    same,
    weather_event,
)

HERE = {"origin": "EWR", "carrier": "UA", "dest": "IAH"}


@settings(max_examples=60)
@given(histories, entities, instants_s, st.none() | st.integers(0, 30))
def test_online_equals_offline_whatever_the_order_of_arrival(history, entity, at_s, without):
    online = online_values(history, entity, at_s, without=without)

    assert same(online, offline_values(history, entity, at_s, without=without))


@settings(max_examples=60)
@given(histories, entities, st.lists(instants_s, min_size=2))
def test_a_read_changes_no_later_or_earlier_read(history, entity, reads_s):
    windows = RunningWindows()
    for event in history:
        windows.add(event)
    answers = [windows.read(entity, at_s) for at_s in reads_s]

    again = [windows.read(entity, at_s) for at_s in reversed(reads_s)]

    assert all(same(*pair) for pair in zip(answers, reversed(again), strict=True))


@settings(max_examples=60)
@given(histories, flight_events, entities, instants_s)
def test_what_is_not_yet_known_is_not_seen(history, event, entity, at_s):
    hidden = event._replace(flight_id=99, available_s=max(event.available_s, at_s + 1))
    future = event._replace(flight_id=98, event_s=at_s + 1, available_s=at_s + 1)

    before = online_values(history, entity, at_s)

    assert same(before, online_values([*history, hidden, future], entity, at_s))


def test_a_silent_entity_empties_itself_without_a_write():
    windows = RunningWindows()
    windows.add(flight_event(event_s=NOW_S))

    values = [windows.read(HERE, NOW_S + h * HOUR_S)["car_dep_mean_24h"] for h in (0, 23, 24)]

    assert values == [10.0, 10.0, pytest.approx(math.nan, nan_ok=True)]


@settings(max_examples=60)
@given(histories, entities, st.integers(0, 24))
def test_what_is_forgotten_is_not_missed_by_later_reads(history, entity, hours):
    windows = RunningWindows()
    for event in history:
        windows.add(event)
    longest_s = max(feature.source.window_s for feature in RECENT)
    before_s = NOW_S - hours * HOUR_S
    expected = windows.read(entity, before_s + longest_s)

    windows.forget(before_s)

    assert same(windows.read(entity, before_s + longest_s), expected)
    assert len(windows) == sum(event.event_s > before_s for event in history)


@pytest.mark.parametrize(
    ("after_publication_s", "temp"),
    [(-1, 30.0), (0, 40.0), (6 * HOUR_S, 40.0), (6 * HOUR_S + 1, math.nan)],
)
def test_weather_counts_from_its_publication_for_6_hours_closed(after_publication_s, temp):
    windows = RunningWindows()
    for event in (
        weather_event(NOW_S - HOUR_S, temp=40.0),
        weather_event(NOW_S - 2 * HOUR_S, temp=30.0),  # arrives late
        weather_event(NOW_S + 9 * HOUR_S, temp=50.0),  # arrives early
    ):
        windows.add(event)

    values = windows.read(HERE, NOW_S + after_publication_s)

    assert values["temp"] == pytest.approx(temp, nan_ok=True)
    assert math.isnan(windows.read(HERE | {"origin": "JFK"}, NOW_S)["temp"])


def test_values_come_in_the_order_of_the_definitions():
    names = list(RunningWindows().read(HERE, NOW_S))

    assert names == [*(feature.name for feature in WEATHER), *RECENT_NAMES]
