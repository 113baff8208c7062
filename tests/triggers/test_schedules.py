from datetime import UTC, datetime, timedelta
from itertools import takewhile

import pytest
from cronsim import CronSim

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.triggers.schedules import Schedule

NEW_YORK, LONDON = "America/New_York", "Europe/London"
LORD_HOWE = (
    "Australia/Lord_Howe"  # whose summer is half an hour; there the other reading skips hours
)
CRONS = [
    "30 2 * * *",
    "30 1 * * *",
    "0 0 * * *",
    "5,50 1-3 * * *",
    "0 2 * * sun",
    "0 3 1 * *",
    "15 2 10-16 3,11 *",
    "0 12 13 * 5",
    "0 12 1-7 * 7",
    "30 */2 * * mon-fri",
    "0 2 29 2 *",
    "45 1/3 * mar-nov *",
    "@weekly",
    "0 */3 * * *",
    "15 * * 3,10,11 *",
]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fired(cron: str, zone: str, after: str, until: str, **options: bool) -> list[str]:
    schedule = Schedule(cron, zone=zone, **options)
    return [f"{each:%m-%d %H:%M}" for each in schedule.between(utc(after), utc(until))]


@pytest.mark.parametrize("zone", [NEW_YORK, LONDON])
@pytest.mark.parametrize("cron", CRONS)
def test_three_years_are_those_of_another_reading_of_cron(cron: str, zone: str) -> None:
    schedule = Schedule(cron, zone=zone)
    start, end = utc("2012-01-01"), utc("2015-01-01")
    expression = "0 0 * * 0" if cron == "@weekly" else cron
    theirs = CronSim(expression, start.astimezone(schedule.zone_info))
    expected = list(takewhile(lambda instant: instant <= end, (t.astimezone(UTC) for t in theirs)))

    assert list(schedule.between(start, end)) == expected
    assert schedule.next(start) == expected[0]


def test_in_spring_the_skipped_time_fires_once_at_the_first_instant_after_it() -> None:
    around = ("2013-03-09", "2013-03-12")

    assert fired("30 2 * * *", NEW_YORK, *around) == ["03-09 07:30", "03-10 07:00", "03-11 06:30"]
    # Both are skipped, and the hour has one end.
    assert fired("10,40 2 10 3 *", NEW_YORK, *around) == ["03-10 07:00"]
    assert fired("* 2 10 3 *", NEW_YORK, *around) == ["03-10 07:00"]


def test_in_autumn_the_repeated_time_fires_once_the_first() -> None:
    around = ("2013-11-02", "2013-11-05")

    assert fired("30 1 * * *", NEW_YORK, *around) == ["11-02 05:30", "11-03 05:30", "11-04 06:30"]


def test_every_hour_is_every_hour_whatever_clocks_do() -> None:
    for around in (
        ("2013-03-10T05:00", "2013-03-10T09:00"),
        ("2013-11-03T04:00", "2013-11-03T08:00"),
    ):
        assert [t[-5:-3] for t in fired("0 * * * *", NEW_YORK, *around)] == [
            f"{utc(around[0]).hour + i:02}" for i in range(1, 5)
        ]


def test_half_an_hour_less_repeats_half_an_hour() -> None:
    """By brute force: each minute at which clocks there show half past."""
    start = utc("2013-04-06T12:00")
    minutes = [start + timedelta(minutes=i) for i in range(1, 301)]
    there = Schedule("30 * * * *", zone=LORD_HOWE)

    expected = [each for each in minutes if each.astimezone(there.zone_info).minute == 30]

    assert list(there.between(start, minutes[-1])) == expected
    assert len(expected) == 6


def test_a_day_that_a_country_has_skipped() -> None:
    """Samoa had no 30 December 2011."""
    around = ("2011-12-29T12:00", "2012-01-01")

    assert fired("0 6 * * *", "Pacific/Apia", *around) == [
        "12-29 16:00",
        "12-30 10:00",
        "12-30 16:00",
        "12-31 16:00",
    ]


def test_missed_times_come_all_or_the_latest_alone() -> None:
    since, now = utc("2013-05-01T07:00"), utc("2013-05-04T06:00")

    latest = Schedule("0 6 * * *").due(since, now)
    each = Schedule("0 6 * * *", catches_up=True).due(since, now)

    assert latest == [utc("2013-05-04T06:00")]
    assert each == [utc("2013-05-02T06:00"), utc("2013-05-03T06:00"), utc("2013-05-04T06:00")]


def test_clocks_that_go_back_make_nothing_due() -> None:
    schedule = Schedule("0 * * * *", catches_up=True)

    assert schedule.due(utc("2013-05-01T07:00"), utc("2013-05-01T03:00")) == []


def test_the_next_one_may_be_years_away() -> None:
    assert Schedule("0 0 29 2 *").next(utc("1896-03-01")) == utc("1904-02-29")


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("0 6 * *", "4 fields"),
        ("0 0 6 * * *", "6 fields"),
        ("60 * * * *", "'60' is no minute"),
        ("0 6-2 * * *", "'6-2' is no hour"),
        ("*/0 * * * *", r"'\*/0' is no minute"),
        ("0 0 * * someday", "'someday' is no day of the week"),
        ("0 0 31 2 *", "never fires"),
        ("", "0 fields"),
    ],
)
def test_what_is_no_cron_expression_is_refused(cron: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Schedule(cron)


def test_a_time_without_a_zone_and_a_zone_that_is_none_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no time zone 'Mars/Olympus'"):
        Schedule("@daily", zone="Mars/Olympus")
    with pytest.raises(InvalidArgumentError, match="has no time zone"):
        Schedule("@daily").next(datetime(2013, 1, 1))  # noqa: DTZ001
    assert Schedule("@daily").next(utc("2013-01-01")) - utc("2013-01-01") == timedelta(days=1)
