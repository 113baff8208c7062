from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_mini.data.periods import Calendar, Period, iterate
from mlops_mini.errors import InvalidArgumentError

NEW_YORK = Calendar(zone="America/New_York")
# Clocks that go forward in either half of the year, by half an hour, and not at all.
zones = st.sampled_from(
    ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]
)
months = st.builds(
    lambda year, number, zone: Period(kind="month", year=year, number=number, zone=zone),
    st.integers(1971, 2098),
    st.integers(1, 12),
    zones,
)
weeks = st.builds(
    lambda year, number, zone: Period(kind="week", year=year, number=number, zone=zone),
    st.integers(1971, 2098),
    st.integers(0, 52),
    zones,
)


def walk(first, last):
    return [str(period) for period in iterate(NEW_YORK.period(first), NEW_YORK.period(last))]


@given(months | weeks)
def test_is_written_and_read_back_the_same(period):
    assert Calendar(zone=period.zone).period(str(period)) == period


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
        # An hour more or less where a zone has changed its standard time within the year.
        assert timedelta(hours=22) < length < timedelta(hours=50)
        assert week.end == Calendar(zone=week.zone).period(f"{week.year + 1}-W00").start


@given(weeks)
def test_a_week_lies_within_the_months_it_touches(week):
    touched = Calendar("month", zone=week.zone).partitions(week)

    assert touched[0].start <= week.start
    assert week.end <= touched[-1].end
    assert all(month.start < week.end and week.start < month.end for month in touched)


@given(months)
def test_a_month_starts_at_local_midnight(month):
    local = month.start.astimezone(ZoneInfo(month.zone))

    assert (local.year, local.month, local.day) == (month.year, month.number, 1)
    assert (local.hour, local.minute, local.second) == (0, 0, 0)
    assert Calendar("month", zone=month.zone).partitions(month) == (month,)


@given(months)
def test_a_month_lies_within_the_weeks_it_touches(month):
    touched = Calendar("week", zone=month.zone).partitions(month)

    assert touched[0].start <= month.start
    assert month.end <= touched[-1].end
    assert all(week.start < month.end and month.start < week.end for week in touched)


@given(months | weeks)
def test_the_partition_of_an_instant_holds_it(period):
    instant = period.start + (period.end - period.start) / 3

    assert Calendar(period.kind, zone=period.zone).partition(instant) == period


def test_a_zone_that_is_none_is_refused_when_the_calendar_is_made():
    for zone in ("Europe/Berln", "", "/etc/localtime", "../UTC", "UTC\0", None):
        with pytest.raises(InvalidArgumentError, match=r"no time zone .* such as Europe/Berlin"):
            Calendar(zone=zone)
    with pytest.raises(InvalidArgumentError, match="no unit 'day': use month or week"):
        Calendar("day")


def test_periods_of_two_zones_do_not_mix():
    berlin, new_york = Calendar(zone="Europe/Berlin").period("2026-03"), NEW_YORK.period("2026-04")

    with pytest.raises(InvalidArgumentError, match="2026-03 is a month in Europe/Berlin, the cal"):
        NEW_YORK.period(berlin)
    with pytest.raises(InvalidArgumentError, match=r"one in America/New_York: use one zone"):
        list(iterate(berlin, new_york))


@given(st.datetimes(datetime(2013, 1, 1, 5), datetime(2014, 1, 1, 4, 59)))  # noqa: DTZ001
def test_weeks_of_2013_are_whole_sevens_of_days_since_new_year(naive):
    instant = naive.replace(tzinfo=UTC)
    number = (instant - datetime(2013, 1, 1, 5, tzinfo=UTC)) // timedelta(days=7)

    week = NEW_YORK.period(f"2013-W{number:02}")

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
        NEW_YORK.period(text)

    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["2013-00", "2013-13", "2013-W53", "1969-12", "2100-01"])
def test_refuses_what_does_not_exist(text):
    with pytest.raises(InvalidArgumentError, match=r"a month is 1 to 12|a week is 0 to 52"):
        NEW_YORK.period(text)


def test_sorts_a_month_after_a_week_that_starts_with_it():
    texts = ["2013-W01", "2013-01", "2013-W00", "2012-12"]

    in_order = sorted(NEW_YORK.period(text) for text in texts)

    assert [str(period) for period in in_order] == ["2012-12", "2013-W00", "2013-01", "2013-W01"]


def test_walks_over_the_end_of_the_year_and_not_backwards():
    assert walk("2013-W51", "2014-W00") == [
        "2013-W51",
        "2013-W52",
        "2014-W00",
    ]
    assert walk("2013-02", "2013-01") == []
    assert walk("2099-12", "2099-12") == ["2099-12"]


def test_does_not_walk_from_a_month_to_a_week():
    with pytest.raises(InvalidArgumentError, match="2013-01 is a month, 2013-W05 a week"):
        walk("2013-01", "2013-W05")
