import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_mini.features.windows import RunningWindows
from tests.features.toys import (
    HERE,
    HOUR_S,
    JOBS,
    NOW_S,
    RECENT_NAMES,
    entities,
    happening,
    happenings,
    histories,
    instants_s,
    observed,
    offline_values,
    online_values,
    same,
)


@settings(max_examples=60)
@given(histories, entities, instants_s, st.none() | st.integers(0, 30))
def test_online_equals_offline_whatever_the_order_of_arrival(history, entity, at_s, without):
    online = online_values(history, entity, at_s, without=without)

    assert same(online, offline_values(history, entity, at_s, without=without))


@settings(max_examples=60)
@given(histories, entities, st.lists(instants_s, min_size=2))
def test_a_read_changes_no_later_or_earlier_read(history, entity, reads_s):
    windows = RunningWindows(JOBS)
    for event in history:
        windows.add(event)
    answers = [windows.read(entity, at_s) for at_s in reads_s]

    again = [windows.read(entity, at_s) for at_s in reversed(reads_s)]

    assert all(same(*pair) for pair in zip(answers, reversed(again), strict=True))


@settings(max_examples=60)
@given(histories, happenings, entities, instants_s)
def test_what_is_not_yet_known_is_not_seen(history, event, entity, at_s):
    hidden = event._replace(id=99, available_s=max(event.available_s, at_s + 1))
    future = event._replace(id=98, event_s=at_s + 1, available_s=at_s + 1)

    before = online_values(history, entity, at_s)

    assert same(before, online_values([*history, hidden, future], entity, at_s))


def test_a_silent_entity_empties_itself_without_a_write():
    windows = RunningWindows(JOBS)
    windows.add(happening(event_s=NOW_S))

    values = [windows.read(HERE, NOW_S + h * HOUR_S)["team_wait_24h"] for h in (0, 23, 24)]

    assert values == [10.0, 10.0, pytest.approx(math.nan, nan_ok=True)]


@settings(max_examples=60)
@given(histories, entities, st.integers(0, 24))
def test_what_is_forgotten_is_not_missed_by_later_reads(history, entity, hours):
    windows = RunningWindows(JOBS)
    for event in history:
        windows.add(event)
    longest_s = max(feature.source.window_s for feature in JOBS.windows)
    before_s = NOW_S - hours * HOUR_S
    expected = windows.read(entity, before_s + longest_s)

    windows.forget(before_s)

    assert same(windows.read(entity, before_s + longest_s), expected)
    assert len(windows) == sum(event.event_s > before_s for event in history)


@pytest.mark.parametrize(
    ("after_publication_s", "expected"),
    [(-1, 30.0), (0, 40.0), (6 * HOUR_S, 40.0), (6 * HOUR_S + 1, math.nan)],
)
def test_an_observation_counts_from_publication_for_6_hours_closed(after_publication_s, expected):
    windows = RunningWindows(JOBS)
    for event in (
        observed(NOW_S - HOUR_S, temp_c=40.0),
        observed(NOW_S - 2 * HOUR_S, temp_c=30.0),  # arrives late
        observed(NOW_S + 9 * HOUR_S, temp_c=50.0),  # arrives early
    ):
        windows.add(event)

    values = windows.read(HERE, NOW_S + after_publication_s)

    assert values["temp_c"] == pytest.approx(expected, nan_ok=True)
    assert math.isnan(windows.read(HERE | {"line": "C"}, NOW_S)["temp_c"])


def test_values_come_in_the_order_of_the_definitions():
    names = list(RunningWindows(JOBS).read(HERE, NOW_S))

    assert names == ["temp_c", "humidity", *RECENT_NAMES]
