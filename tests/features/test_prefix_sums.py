import math
import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_mini.features import events, prefix_sums
from tests.features.toys import (
    CLIMATE,
    HERE,
    HOUR_S,
    JOBS,
    NOW_S,
    as_history,
    entities,
    happening,
    happenings,
    histories,
    instants_s,
    offline_values,
    plain_values,
    queries,
    same,
)


@settings(max_examples=60)
@given(histories, entities, instants_s, st.none() | st.integers(0, 30))
def test_windows_are_what_their_definition_says(history, entity, at_s, without):
    found = offline_values(history, entity, at_s, without=without)

    assert same(found, plain_values(history, entity, at_s, without=without))
    assert (found["line_n_1h"] == 0) == math.isnan(found["line_wait_1h"])
    assert (found["line_n_3h"] == 0) == math.isnan(found["line_wait_3h"])
    assert (found["team_n_6h"] == 0) == math.isnan(found["team_long_6h"])


@settings(max_examples=60)
@given(histories, happenings, entities, instants_s)
def test_what_is_not_yet_known_changes_nothing(history, event, entity, at_s):
    event = event._replace(id=99, available_s=max(event.available_s, at_s + 1))
    future = event._replace(id=98, event_s=at_s + 1, available_s=at_s + 1)

    before = offline_values(history, entity, at_s)

    assert same(before, offline_values([*history, event, future], entity, at_s))


@settings(max_examples=60)
@given(histories, entities, instants_s, st.randoms())
def test_the_order_of_events_changes_nothing(history, entity, at_s, rng):
    shuffled = rng.sample(history, len(history))

    assert same(offline_values(history, entity, at_s), offline_values(shuffled, entity, at_s))


@pytest.mark.parametrize("feature", JOBS.windows, ids=lambda feature: feature.name)
def test_an_event_counts_from_its_second_until_it_is_as_old_as_the_window(feature):
    window = feature.source
    event = [happening(window.event.kind, event_s=NOW_S, value=40)]

    def value(at_s):
        return offline_values(event, HERE, at_s)[feature.name]

    empty = offline_values([], HERE, NOW_S)[feature.name]
    assert value(NOW_S - 1) == pytest.approx(empty, nan_ok=True)
    assert value(NOW_S) == value(NOW_S + window.window_s - 1) != pytest.approx(empty, nan_ok=True)
    assert value(NOW_S + window.window_s) == pytest.approx(empty, nan_ok=True)


def test_an_event_known_late_counts_from_then_on():
    late = [happening(event_s=NOW_S, available_s=NOW_S + 1800)]
    too_late = [happening(event_s=NOW_S, available_s=NOW_S + 30 * HOUR_S)]

    def count(some_events, at_s):
        return offline_values(some_events, HERE, at_s)["line_n_1h"]

    assert [count(late, NOW_S + after_s) for after_s in (0, 1799, 1800, 3599, 3600)] == [
        0, 0, 1, 1, 0,
    ]  # fmt: skip
    assert [count(too_late, NOW_S + hours * HOUR_S) for hours in (0, 29, 30, 31)] == [0, 0, 0, 0]


def test_an_unknown_entity_is_empty():
    history = [happening(kind, job_id=i) for i, kind in enumerate(("started", "finished"))]

    values = offline_values(history, dict.fromkeys(HERE, "unknown"), NOW_S)

    assert same(values, offline_values([], HERE, NOW_S))
    assert not same(values, offline_values(history, HERE, NOW_S))


def test_a_missing_entity_is_empty_even_when_events_lack_theirs():
    history = [happening(team=None), happening(job_id=2, team="red")]

    values = offline_values(history, HERE | {"team": None}, NOW_S)

    assert math.isnan(values["team_wait_3h"])
    assert values["line_n_1h"] == 2


def test_entities_that_are_all_missing_have_no_events_in_common():
    history = [happening(line=None, team=None, product=None, event_s=NOW_S)]
    nowhere = dict.fromkeys(HERE)

    assert same(offline_values(history, nowhere, NOW_S), offline_values([], nowhere, NOW_S))


def test_the_first_delivery_of_an_event_stands():
    twice = [happening(value=10), happening(value=90, available_s=NOW_S + 1)]
    twice_at_once = [happening(value=10), happening(value=90)]

    for history in (twice, twice[::-1], twice_at_once):
        values = offline_values(history, HERE, NOW_S + 1)
        assert (values["line_n_1h"], values["line_wait_1h"]) == (1, 10)


def test_queries_that_are_equal_get_equal_answers_each():
    history = events.checked_history(JOBS, as_history([happening()]))
    windows = prefix_sums.Windows(history, queries(HERE, NOW_S, n=3))

    counts = windows.values(JOBS.windows[0].source)

    assert counts.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("after_publication_s", "row"), [(-1, 0), (0, 1), (6 * HOUR_S, 1), (6 * HOUR_S + 1, -1)]
)
def test_an_observation_counts_from_its_publication_for_6_hours_closed(after_publication_s, row):
    observed = pd.DataFrame(
        {
            "line": ["A", "A", "B"],
            "available_s": [NOW_S - HOUR_S, NOW_S, NOW_S + 10 * HOUR_S],
        }
    )
    at_s = NOW_S + after_publication_s

    rows = [
        prefix_sums.latest_rows(CLIMATE, observed, queries(HERE | {"line": line}, at_s))
        for line in ("A", "C")
    ]

    assert np.concatenate(rows).tolist() == [row, -1]


def test_without_any_observation_all_is_missing():
    observed = pd.DataFrame({"line": [], "available_s": np.array([], "int64")})

    assert prefix_sums.latest_rows(CLIMATE, observed, queries(HERE, NOW_S)).tolist() == [-1]


def test_sums_of_many_values_stay_exact():
    rng = random.Random(0)
    history = [
        happening(job_id=i, event_s=NOW_S - i, value=rng.randint(-80, 1300)) for i in range(3000)
    ]

    found = offline_values(history, HERE, NOW_S)

    assert same(found, plain_values(history, HERE, NOW_S))


@pytest.mark.parametrize("age_s", [0, 1, HOUR_S - 1, HOUR_S, HOUR_S + 1, -1])
def test_an_examples_own_event_is_taken_out_only_while_it_would_count(age_s):
    own = happening(job_id=1, event_s=NOW_S - age_s, value=500)
    other = happening(job_id=2, event_s=NOW_S - 60, value=20)

    with_own = offline_values([own, other], HERE, NOW_S, without=1)

    assert same(with_own, offline_values([other], HERE, NOW_S))
