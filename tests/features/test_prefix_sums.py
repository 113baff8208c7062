import math
import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_mini.features import events, prefix_sums
from mlops_mini.flights.definitions import RECENT, WEATHER_OBSERVATION
from tests.features.toys import (
    HOUR_S,
    NOW_S,
    as_history,
    entities,
    flight_event,
    flight_events,
    histories,
    instants_s,
    offline_values,
    plain_values,
    same,
)

HERE = {"origin": "EWR", "carrier": "UA", "dest": "IAH"}


@settings(max_examples=60)
@given(histories, entities, instants_s, st.none() | st.integers(0, 30))
def test_windows_are_what_their_definition_says(history, entity, at_s, without):
    found = offline_values(history, entity, at_s, without=without)

    assert same(found, plain_values(history, entity, at_s, without=without))
    assert (found["org_dep_n_1h"] == 0) == math.isnan(found["org_dep_mean_1h"])
    assert (found["org_dep_n_3h"] == 0) == math.isnan(found["org_dep_mean_3h"])
    assert (found["car_late_n_6h"] == 0) == math.isnan(found["car_late_mean_6h"])


@settings(max_examples=60)
@given(histories, flight_events, entities, instants_s)
def test_what_is_not_yet_known_changes_nothing(history, event, entity, at_s):
    event = event._replace(flight_id=99, available_s=max(event.available_s, at_s + 1))
    future = event._replace(flight_id=98, event_s=at_s + 1, available_s=at_s + 1)

    before = offline_values(history, entity, at_s)

    assert same(before, offline_values([*history, event, future], entity, at_s))


@settings(max_examples=60)
@given(histories, entities, instants_s, st.randoms())
def test_the_order_of_events_changes_nothing(history, entity, at_s, rng):
    shuffled = rng.sample(history, len(history))

    assert same(offline_values(history, entity, at_s), offline_values(shuffled, entity, at_s))


@pytest.mark.parametrize("feature", RECENT, ids=lambda feature: feature.name)
def test_an_event_counts_from_its_second_until_it_is_as_old_as_the_window(feature):
    window = feature.source
    event = [flight_event(window.event.kind, event_s=NOW_S, delay_min=40)]

    def value(at_s):
        return offline_values(event, HERE, at_s)[feature.name]

    empty = offline_values([], HERE, NOW_S)[feature.name]
    assert value(NOW_S - 1) == pytest.approx(empty, nan_ok=True)
    assert value(NOW_S) == value(NOW_S + window.window_s - 1) != pytest.approx(empty, nan_ok=True)
    assert value(NOW_S + window.window_s) == pytest.approx(empty, nan_ok=True)


def test_an_event_known_late_counts_from_then_on():
    late = [flight_event(event_s=NOW_S, available_s=NOW_S + 1800)]
    too_late = [flight_event(event_s=NOW_S, available_s=NOW_S + 30 * HOUR_S)]

    def count(some_events, at_s):
        return offline_values(some_events, HERE, at_s)["org_dep_n_1h"]

    assert [count(late, NOW_S + after_s) for after_s in (0, 1799, 1800, 3599, 3600)] == [
        0, 0, 1, 1, 0,
    ]  # fmt: skip
    assert [count(too_late, NOW_S + hours * HOUR_S) for hours in (0, 29, 30, 31)] == [0, 0, 0, 0]


def test_an_unknown_entity_is_empty():
    history = [flight_event(kind, flight_id=i) for i, kind in enumerate(("departure", "arrival"))]

    values = offline_values(history, dict.fromkeys(HERE, "XXX"), NOW_S)

    assert same(values, offline_values([], HERE, NOW_S))
    assert not same(values, offline_values(history, HERE, NOW_S))


def test_a_missing_entity_is_empty_even_when_events_lack_theirs():
    history = [flight_event(carrier=None), flight_event(flight_id=2, carrier="UA")]

    values = offline_values(history, HERE | {"carrier": None}, NOW_S)

    assert math.isnan(values["car_dep_mean_3h"])
    assert values["org_dep_n_1h"] == 2


def test_the_first_delivery_of_an_event_stands():
    twice = [flight_event(delay_min=10), flight_event(delay_min=90, available_s=NOW_S + 1)]
    twice_at_once = [flight_event(delay_min=10), flight_event(delay_min=90)]

    for history in (twice, twice[::-1], twice_at_once):
        values = offline_values(history, HERE, NOW_S + 1)
        assert (values["org_dep_n_1h"], values["org_dep_mean_1h"]) == (1, 10)


def test_questions_that_are_equal_get_equal_answers_each():
    history = events.checked_history(as_history([flight_event()]))
    asked = prefix_sums.Questions(
        entities=pd.DataFrame([HERE] * 3), at_s=np.array([NOW_S] * 3), without=None
    )

    counts = prefix_sums.window_values(RECENT[0].source, {"departure": history}, asked)

    assert counts.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("after_publication_s", "row"), [(-1, 0), (0, 1), (6 * HOUR_S, 1), (6 * HOUR_S + 1, -1)]
)
def test_weather_counts_from_its_publication_for_6_hours_closed(after_publication_s, row):
    observed = pd.DataFrame(
        {
            "origin": ["EWR", "EWR", "LGA"],
            "available_s": [NOW_S - HOUR_S, NOW_S, NOW_S + 10 * HOUR_S],
        }
    )
    asked = prefix_sums.Questions(
        entities=pd.DataFrame({"origin": ["EWR", "JFK"]}),
        at_s=np.array([NOW_S + after_publication_s] * 2),
        without=None,
    )

    rows = prefix_sums.latest_rows(WEATHER_OBSERVATION, observed, asked)

    assert rows.tolist() == [row, -1]


def test_without_any_observation_all_is_missing():
    observed = pd.DataFrame({"origin": [], "available_s": np.array([], "int64")})
    asked = prefix_sums.Questions(
        entities=pd.DataFrame([HERE]), at_s=np.array([NOW_S]), without=None
    )

    assert prefix_sums.latest_rows(WEATHER_OBSERVATION, observed, asked).tolist() == [-1]


def test_sums_of_many_delays_stay_exact():
    rng = random.Random(0)
    history = [
        flight_event(flight_id=i, event_s=NOW_S - i, delay_min=rng.randint(-80, 1300))
        for i in range(3000)
    ]

    found = offline_values(history, HERE, NOW_S)

    assert same(found, plain_values(history, HERE, NOW_S))


@pytest.mark.parametrize("age_s", [0, 1, HOUR_S - 1, HOUR_S, HOUR_S + 1, -1])
def test_the_flights_own_event_is_taken_out_only_while_it_would_count(age_s):
    own = flight_event(flight_id=1, event_s=NOW_S - age_s, delay_min=500)
    other = flight_event(flight_id=2, event_s=NOW_S - 60, delay_min=20)

    with_own = offline_values([own, other], HERE, NOW_S, without=1)

    assert same(with_own, offline_values([other], HERE, NOW_S))
