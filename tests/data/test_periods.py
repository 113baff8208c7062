from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_mini.data.periods import Period, iterate
from mlops_mini.errors import InvalidArgumentError

months = st.builds(
    lambda year, number: Period(kind="month", year=year, number=number),
    st.integers(1971, 2098),
    st.integers(1, 12),
)
weeks = st.builds(
    lambda year, number: Period(kind="week", year=year, number=number),
    st.integers(1971, 2098),
    st.integers(0, 52),
)


@given(months | weeks)
def test_is_written_and_read_back_the_same(period):
    assert Period.parse(str(period)) == period


@given(months | weeks)
def test_touches_the_next_without_gap_or_overlap(period):
    assert period.start < period.end == period.next().start
    assert period.next().previous() == period
    assert period.previous() < period < period.next()


@given(weeks)
def test_a_week_has_seven_days_unless_the_year_ends(week):
    length = week.end - week.start

    if week.number < 52:
        assert length == timedelta(days=7)
    else:
        assert length in (timedelta(days=1), timedelta(days=2))
        assert week.end == Period.parse(f"{week.year + 1}-W00").start


@given(weeks)
def test_a_week_lies_within_the_months_it_touches(week):
    touched = week.months()

    assert touched[0].start <= week.start
    assert week.end <= touched[-1].end
    assert all(month.start < week.end and week.start < month.end for month in touched)


@given(months)
def test_a_month_starts_at_midnight_in_new_york(month):
    local = month.start.astimezone(ZoneInfo("America/New_York"))

    assert (local.year, local.month, local.day) == (month.year, month.number, 1)
    assert (local.hour, local.minute, local.second) == (0, 0, 0)
    assert month.months() == (month,)


@given(st.datetimes(datetime(2013, 1, 1, 5), datetime(2014, 1, 1, 4, 59)))  # noqa: DTZ001
def test_weeks_of_2013_are_whole_sevens_of_days_since_new_year(naive):
    instant = naive.replace(tzinfo=UTC)
    number = (instant - datetime(2013, 1, 1, 5, tzinfo=UTC)) // timedelta(days=7)

    week = Period.parse(f"2013-W{number:02}")

    assert week.start <= instant < week.end


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2013",
        "2013-3",
        "2013-003",
        "13-03",
        "2013-w10",
        "2013-W1",
        " 2013-03",
        "2013-03\n",
        "٢٠١٣-03",
    ],
)
def test_refuses_other_texts_with_examples(text):
    with pytest.raises(
        InvalidArgumentError, match="month as 2013-03 or a week as 2013-W10"
    ) as error:
        Period.parse(text)

    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["2013-00", "2013-13", "2013-W53", "1969-12", "2100-01"])
def test_refuses_what_does_not_exist(text):
    with pytest.raises(InvalidArgumentError, match=r"a month is 1 to 12|a week is 0 to 52"):
        Period.parse(text)


def test_sorts_a_month_after_a_week_that_starts_with_it():
    texts = ["2013-W01", "2013-01", "2013-W00", "2012-12"]

    in_order = sorted(Period.parse(text) for text in texts)

    assert [str(period) for period in in_order] == ["2012-12", "2013-W00", "2013-01", "2013-W01"]


def test_walks_over_the_end_of_the_year_and_not_backwards():
    assert [str(week) for week in iterate("2013-W51", "2014-W00")] == [
        "2013-W51",
        "2013-W52",
        "2014-W00",
    ]
    assert list(iterate("2013-02", "2013-01")) == []
    assert [str(month) for month in iterate("2099-12", "2099-12")] == ["2099-12"]


def test_does_not_walk_from_a_month_to_a_week():
    with pytest.raises(InvalidArgumentError, match="2013-01 is a month, 2013-W05 a week"):
        list(iterate("2013-01", "2013-W05"))
