"""Months and weeks of flights: which instants a partition covers, and what comes next."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import total_ordering
from typing import Literal
from zoneinfo import ZoneInfo

from mlops_mini.errors import InvalidArgumentError

NEW_YORK = "America/New_York"
_FIRST_YEAR, _LAST_YEAR = 1970, 2099
_WEEK = timedelta(days=7)


@total_ordering
@dataclass(frozen=True, kw_only=True, slots=True)
class Period:
    """A month or a week of flights, by the instant of the scheduled departure.

    A month such as `2013-03` runs from local midnight to local midnight in New York. A week such
    as `2013-W10` is seven days, counted from 0 from 05:00Z on 1 January (midnight in New York in
    winter): 2013-W00 is 1 to 7 January. Week 52 is cut off by the end of the year: it is the one
    day that 52 weeks leave over, two in a leap year, so that weeks neither overlap nor leave a gap.
    These are **not** ISO weeks, which start on Mondays, count from 1 and may span two years.

    Periods sort by their start, then by their end.

    Attributes:
        kind: `month` or `week`.
        year: Calendar year, 1970 to 2099.
        number: Month 1 to 12, or week 0 to 52.

    >>> march = Period.parse("2013-03")
    >>> str(march.next()), str(march.previous())
    ('2013-04', '2013-02')
    >>> march.start.isoformat(), march.end.isoformat()  # the clocks change in between
    ('2013-03-01T05:00:00+00:00', '2013-04-01T04:00:00+00:00')
    >>> week = Period.parse("2013-W10")
    >>> week.start.isoformat(), [str(month) for month in Period.parse("2013-W12").months()]
    ('2013-03-12T05:00:00+00:00', ['2013-03', '2013-04'])
    """

    kind: Literal["month", "week"]
    year: int
    number: int

    def __post_init__(self) -> None:
        first, last = (1, 12) if self.kind == "month" else (0, 52)
        if not first <= self.number <= last or not _FIRST_YEAR <= self.year <= _LAST_YEAR:
            raise InvalidArgumentError(
                f"no {self.kind} {self.number} of {self.year}: a {self.kind} is {first} to {last},"
                f" a year {_FIRST_YEAR} to {_LAST_YEAR}"
            )

    @classmethod
    def parse(cls, text: "str | Period") -> "Period":
        """Read a period as it is written.

        Args:
            text: A month `2013-03` or a week `2013-W10`; a period is handed back as it is.

        Returns:
            The period; `str` of it is the text again.

        Raises:
            InvalidArgumentError: The text is neither, or the month or week does not exist.
        """
        if isinstance(text, Period):
            return text
        match = re.fullmatch(r"([0-9]{4})-(W?)([0-9]{2})", text)
        if match is None:
            raise InvalidArgumentError(
                f"{text!r} is not a period: write a month as 2013-03 or a week as 2013-W10"
            )
        year, week, number = match.groups()
        return cls(kind="week" if week else "month", year=int(year), number=int(number))

    @property
    def start(self) -> datetime:
        """First instant, UTC."""
        if self.kind == "month":
            local = datetime(self.year, self.number, 1, tzinfo=ZoneInfo(NEW_YORK))
            return local.astimezone(UTC)
        return datetime(self.year, 1, 1, hour=5, tzinfo=UTC) + self.number * _WEEK

    @property
    def end(self) -> datetime:
        """First instant after it, UTC."""
        new_year = datetime(self.year + 1, 1, 1, hour=5, tzinfo=UTC)
        if self.kind == "week":
            return min(self.start + _WEEK, new_year)
        return new_year if self.number == 12 else self.next().start

    def next(self) -> "Period":
        """The period of the same kind that starts where this one ends."""
        return self._moved(+1)

    def previous(self) -> "Period":
        """The period of the same kind that ends where this one starts."""
        return self._moved(-1)

    def months(self) -> "tuple[Period, ...]":
        """The months it touches, in order: itself if it is one, else one or two."""
        zone = ZoneInfo(NEW_YORK)
        ends = (self.start, self.end - timedelta(microseconds=1))
        numbers = sorted({instant.astimezone(zone).month for instant in ends})
        return tuple(Period(kind="month", year=self.year, number=number) for number in numbers)

    def _moved(self, step: int) -> "Period":
        first, n_in_year = (1, 12) if self.kind == "month" else (0, 53)
        years, number = divmod(self.number - first + step, n_in_year)
        return Period(kind=self.kind, year=self.year + years, number=number + first)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Period):
            return NotImplemented
        return (self.start, self.end) < (other.start, other.end)

    def __str__(self) -> str:
        week = "W" if self.kind == "week" else ""
        return f"{self.year:04}-{week}{self.number:02}"


def iterate(first: Period | str, last: Period | str) -> Iterator[Period]:
    """Walk from one period to another of the same kind, both included.

    Args:
        first: Where to start.
        last: Where to stop; before `first` gives nothing.

    Yields:
        Each period in order of time.

    Raises:
        InvalidArgumentError: One is a month and the other a week.

    >>> [str(month) for month in iterate("2013-11", "2014-01")]
    ['2013-11', '2013-12', '2014-01']
    """
    period, stop = Period.parse(first), Period.parse(last)
    if period.kind != stop.kind:
        raise InvalidArgumentError(
            f"{first} is a {period.kind}, {last} a {stop.kind}: use one kind"
        )
    while period <= stop:
        yield period
        if period == stop:
            return
        period = period.next()
