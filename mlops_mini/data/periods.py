"""Months and weeks in a time zone: which instants each covers, and what comes next."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import total_ordering
from typing import Literal
from zoneinfo import ZoneInfo

from mlops_mini.errors import InvalidArgumentError

FIRST_YEAR, LAST_YEAR = 1970, 2099
_WEEK = timedelta(days=7)
_INSTANT = timedelta(microseconds=1)


@total_ordering
@dataclass(frozen=True, kw_only=True, slots=True)
class Period:
    """A month or a week in a time zone.

    A month such as `2013-03` runs from local midnight to local midnight. A week such as `2013-W10`
    is seven days of 24 hours, counted from 0 from local midnight on 1 January: 2013-W00 is 1 to 7
    January. Week 52 is cut off by the end of the year: it's the one day that 52 weeks leave over,
    two in a leap year, so that weeks neither overlap nor leave a gap. These are **not** ISO weeks,
    which start on Mondays, count from 1 and may span two years.

    Periods sort by their start, then by their end.

    Attributes:
        kind: `month` or `week`.
        year: Calendar year, 1970 to 2099.
        number: Month 1 to 12, or week 0 to 52.
        zone: IANA time zone whose clocks tell when it starts.

    >>> march = Calendar(zone="Europe/Berlin").period("2026-03")
    >>> str(march.next()), str(march.previous())
    ('2026-04', '2026-02')
    >>> march.start.isoformat(), march.end.isoformat()  # the clocks change in between
    ('2026-02-28T23:00:00+00:00', '2026-03-31T22:00:00+00:00')
    """

    kind: Literal["month", "week"]
    year: int
    number: int
    zone: str = "UTC"

    def __post_init__(self) -> None:
        first, last = (1, 12) if self.kind == "month" else (0, 52)
        if not first <= self.number <= last or not FIRST_YEAR <= self.year <= LAST_YEAR:
            raise InvalidArgumentError(
                f"no {self.kind} {self.number} of {self.year}: a {self.kind} is {first} to {last},"
                f" a year {FIRST_YEAR} to {LAST_YEAR}"
            )

    @property
    def start(self) -> datetime:
        """First instant, UTC."""
        if self.kind == "month":
            return _midnight(self.year, self.number, self.zone)
        return _midnight(self.year, 1, self.zone) + self.number * _WEEK

    @property
    def end(self) -> datetime:
        """First instant after it, UTC."""
        new_year = _midnight(self.year + 1, 1, self.zone)
        if self.kind == "week":
            return min(self.start + _WEEK, new_year)
        return new_year if self.number == 12 else self.next().start

    def next(self) -> "Period":
        """The period of the same kind that starts where this one ends."""
        return self._moved(+1)

    def previous(self) -> "Period":
        """The period of the same kind that ends where this one starts."""
        return self._moved(-1)

    def _moved(self, step: int) -> "Period":
        first, n_in_year = (1, 12) if self.kind == "month" else (0, 53)
        years, number = divmod(self.number - first + step, n_in_year)
        return Period(kind=self.kind, year=self.year + years, number=number + first, zone=self.zone)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Period):
            return NotImplemented
        return (self.start, self.end) < (other.start, other.end)

    def __str__(self) -> str:
        week = "W" if self.kind == "week" else ""
        return f"{self.year:04}-{week}{self.number:02}"


@dataclass(frozen=True)
class Calendar:
    """How time is cut into periods.

    Attributes:
        unit: What one stored partition holds, a month or a week.
        zone: IANA time zone whose clocks tell when a period starts.

    >>> calendar = Calendar("month", zone="Europe/Berlin")
    >>> week = calendar.period("2026-W13")
    >>> week.start.isoformat(), [str(month) for month in calendar.partitions(week)]
    ('2026-04-01T23:00:00+00:00', ['2026-04'])
    """

    unit: Literal["month", "week"] = "month"
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if self.unit not in ("month", "week"):
            raise InvalidArgumentError(f"no unit {self.unit!r}: use month or week")
        try:
            ZoneInfo(self.zone)
        except (ValueError, TypeError, OSError, KeyError) as exc:
            raise InvalidArgumentError(
                f"no time zone {self.zone!r}: use an IANA name such as Europe/Berlin or UTC"
            ) from exc

    def period(self, text: str | Period) -> Period:
        """Read a period as it is written.

        Args:
            text: A month `2026-03` or a week `2026-W10`; a period of this zone is handed back as
                it is.

        Returns:
            The period; `str` of it is the text again.

        Raises:
            InvalidArgumentError: The text is neither, or the month or week doesn't exist, or the
                period is one of another zone.
        """
        if isinstance(text, Period):
            if text.zone != self.zone:
                raise InvalidArgumentError(
                    f"{text} is a {text.kind} in {text.zone}, the calendar's zone is {self.zone}:"
                    " use one zone"
                )
            return text
        match = re.fullmatch(r"([0-9]{4})-(W?)([0-9]{2})", text)
        if match is None:
            raise InvalidArgumentError(
                f"{text!r} is not a period: write a month as 2013-03 or a week as 2013-W10"
            )
        year, week, number = match.groups()
        return self._period("week" if week else "month", int(year), int(number))

    def partition(self, instant: datetime) -> Period:
        """Tell which stored partition an instant belongs to.

        Raises:
            InvalidArgumentError: The year is before 1970 or after 2099.

        >>> str(Calendar("week").partition(datetime(2026, 12, 31, 12, tzinfo=UTC)))
        '2026-W52'
        """
        local = instant.astimezone(ZoneInfo(self.zone))
        if self.unit == "month":
            return self._period("month", local.year, local.month)
        number = (instant - _midnight(local.year, 1, self.zone)) // _WEEK
        return self._period("week", local.year, number)

    def partitions(self, period: Period) -> tuple[Period, ...]:
        """List the stored partitions that a period touches, in order.

        Args:
            period: A month or a week of this calendar's zone.

        Returns:
            Itself if it is one, else one or more.
        """
        if self.period(period).kind == self.unit:
            return (period,)
        first, last = self.partition(period.start), self.partition(period.end - _INSTANT)
        return tuple(iterate(first, last))

    def _period(self, kind: Literal["month", "week"], year: int, number: int) -> Period:
        return Period(kind=kind, year=year, number=number, zone=self.zone)


def iterate(first: Period, last: Period) -> Iterator[Period]:
    """Walk from one period to another of the same kind, both included.

    Args:
        first: Where to start.
        last: Where to stop; before `first` gives nothing.

    Yields:
        Each period in order of time.

    Raises:
        InvalidArgumentError: One is a month and the other a week, or their zones differ.

    >>> calendar = Calendar()
    >>> [str(month) for month in iterate(calendar.period("2025-11"), calendar.period("2026-01"))]
    ['2025-11', '2025-12', '2026-01']
    """
    if first.kind != last.kind:
        raise InvalidArgumentError(f"{first} is a {first.kind}, {last} a {last.kind}: use one kind")
    if first.zone != last.zone:
        raise InvalidArgumentError(
            f"{first} is a {first.kind} in {first.zone}, {last} one in {last.zone}: use one zone"
        )
    period = first
    while period <= last:
        yield period
        if period == last:
            return
        period = period.next()


def _midnight(year: int, month: int, zone: str) -> datetime:
    """Tell when a month begins, in UTC."""
    return datetime(year, month, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)
