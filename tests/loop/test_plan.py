"""What is planned to be played."""

from dataclasses import replace

import pytest

from mlops_mini.data.periods import Calendar
from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.loop import plan
from mlops_mini.loop.plan import Plan
from tests.tenants import made
from tests.tenants.weekly import WEEKLY

WEEKS = Calendar("week")
YEAR = Plan(use_case="churn:CHURN", data_folder="data", first="2026-W00", last="2026-W51")
NAME = "tests.tenants.weekly:WEEKLY"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sensors")
    made.write_sensors(folder, months=("2026-01", "2026-02"))
    return folder


def test_a_year_has_all_incidents_each_in_a_week_that_is_played():
    placed = YEAR.with_incidents(WEEKS).incidents

    assert sorted(placed.values()) == ["bad version", "lost canary", "other units"]
    played = {str(period) for period in YEAR.periods(WEEKS)[5:]}
    assert set(placed) <= played


def test_a_few_weeks_have_one():
    short = replace(YEAR, last="2026-W12")

    assert list(short.with_incidents(WEEKS).incidents.values()) == ["other units"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"last": "2026-W04"}, "are 5 weeks: the first 5 train the first model"),
        ({"n_first": 1}, "takes at least 2"),
        ({"first": "2026-01"}, "plays weeks of this use case, got 2026-01"),
        ({"first": "spring"}, "'spring' is not a period"),
    ],
)
def test_what_cannot_be_played_is_told(changes, words):
    with pytest.raises(InvalidArgumentError, match=words):
        replace(YEAR, **changes).periods(WEEKS)


def test_weeks_are_found_in_files_of_months_and_the_cut_off_one_is_left_out(data):
    first, last = plan.span(WEEKLY, data)

    assert str(plan.stored_calendar(WEEKLY, data).unit) == "month"
    assert (str(first), str(last)) == ("2026-W00", "2026-W08")  # a third of it is in March


def test_it_may_be_shorter_than_the_data_but_not_longer(data):
    short = plan.of_data(NAME, data, n_first=4, n_played=2)

    assert (short.first, short.last) == ("2026-W00", "2026-W05")
    with pytest.raises(InvalidArgumentError, match="there are 5 weeks to play after the first 4"):
        plan.of_data(NAME, data, n_first=4, n_played=6)


def test_a_folder_without_the_table_is_told(tmp_path):
    with pytest.raises(NotFoundError, match="no readings in "):
        plan.of_data(NAME, tmp_path)


def test_a_release_fits_into_half_a_period_whatever_the_traffic():
    for n_requests in (300, 670, 6_500, 100_000):
        strategy = plan.strategy(n_requests)
        in_steps = sum(
            strategy.step_requests * (1 + i) / (share / 100)
            for i, share in enumerate(strategy.steps_pct)
        )
        assert strategy.shadow_requests + in_steps < n_requests / 2
