"""The year week by week, as lessons and replays look at it."""

import numpy as np
import pytest

from mlops_mini.flights.weeks import Year


@pytest.fixture(scope="module")
def year() -> Year:
    return Year(every=20)


def test_features_stand_in_the_order_of_their_flights(year: Year) -> None:
    assert len(year.flights) == len(year.features) == len(year.week) == 336_776
    assert year.features.index.tolist() == year.flights["flight_id"].tolist()
    assert (np.diff(year.day) >= 0).all()
    assert len(year.chosen) == 16_839
    assert len(year.numeric) == 22


def test_inputs_of_several_weeks_are_those_of_each(year: Year) -> None:
    n_rows = [year.inputs(week, week + 1).n_rows for week in (3, 4, 5)]

    assert year.inputs(3, 6).n_rows == sum(n_rows)
    assert sum(n_rows) == np.isin(year.week, (3, 4, 5)).sum()


def test_a_model_is_judged_on_weeks_that_it_has_not_seen(year: Year) -> None:
    losses = year.losses_of(0, 35)
    is_week = year.week[year.known] == 8

    assert losses.shape == year.known.shape
    assert year.mean_loss(5, 8) == pytest.approx(losses[is_week].mean())
    assert year.train(5) is year.train(5)
    importances = year.importances(5)
    assert max(importances, key=importances.get) in year.numeric
    assert min(importances.values()) >= 0


def test_a_week_is_usable_once_it_is_mature_and_the_blizzard_s_never(year: Year) -> None:
    assert year.cohort(5, 9, hours=-3).state == "open"
    assert year.cohort(5, 9).state == "usable"
    assert year.cohort(5, 5).state == "few labels"
