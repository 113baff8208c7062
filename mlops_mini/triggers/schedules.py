"""When a cron expression fires in a time zone, clock changes included.

The rules are those of Debian's cron. A job at fixed hours that falls into the hour that clocks skip
in spring fires once, at the first instant after it; one in the hour that they show twice in autumn
fires once, the first time. A job whose hour is `*` runs by elapsed time: it skips what clocks skip,
and runs in both of the hours that look alike.

Source: crontab(5) of Debian's cron, "Daylight Saving Time and other time changes".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from mlops_mini.errors import InvalidArgumentError

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of the week", 0, 7, {name: number for number, name in enumerate(_DAYS)}),
)
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_PART = re.compile(r"(\*|\w+)(?:(?<!\*)-(\w+))?(?:/0*([1-9]\d*))?", re.ASCII)
_DAY = timedelta(days=1)
_LONGEST_GAP = 366 * 41 * _DAY  # 29 February on a Monday, across a century without a leap day


@dataclass(frozen=True)
class Schedule:
    """A cron expression in a time zone.

    Attributes:
        cron: Minute, hour, day of the month, month, day of the week; with `*`, lists, ranges, steps
            and English names, or one of `@hourly @daily @weekly @monthly @yearly`. If both days are
            restricted, either may fit.
        zone: IANA name, such as `Europe/Berlin`.
        catches_up: Whether each missed time fires later, in order, or the latest alone.
        texts: The five fields, in lower case.
        numbers: What they mean; Sunday is 0.
        zone_info: The zone.

    >>> nightly = Schedule("30 2 * * *", zone="Europe/Berlin")
    >>> start = datetime(2026, 3, 28, tzinfo=UTC)
    >>> for instant in nightly.between(start, start + timedelta(days=3)):
    ...     print(instant, instant.astimezone(nightly.zone_info).time())
    2026-03-28 01:30:00+00:00 02:30:00
    2026-03-29 01:00:00+00:00 03:00:00
    2026-03-30 00:30:00+00:00 02:30:00
    """

    cron: str
    _: KW_ONLY
    zone: str = "UTC"
    catches_up: bool = False
    texts: tuple[str, ...] = field(init=False, repr=False, compare=False)
    numbers: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    zone_info: ZoneInfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        texts = _NICKNAMES.get(self.cron.lower(), self.cron).lower().split()
        if len(texts) != len(_FIELDS):
            raise InvalidArgumentError(
                f"cron {self.cron!r} has {len(texts)} fields; write minute, hour, day of the month,"
                " month and day of the week, such as '30 6 * * mon' for half past six on Mondays"
            )
        try:
            zone_info = ZoneInfo(self.zone)
        except (KeyError, ValueError, OSError) as exc:
            raise InvalidArgumentError(
                f"there's no time zone {self.zone!r}: give an IANA name such as Europe/Berlin"
            ) from exc
        object.__setattr__(self, "zone_info", zone_info)
        parsed = tuple(
            _parse(text, self.cron, *what) for text, what in zip(texts, _FIELDS, strict=True)
        )
        # Sunday is 0 and 7.
        week = tuple(sorted({number % 7 for number in parsed[4]}))
        object.__setattr__(self, "numbers", (*parsed[:4], week))
        object.__setattr__(self, "texts", tuple(texts))
        if next(self._days(date(2000, 1, 1)), None) is None:
            raise InvalidArgumentError(f"cron {self.cron!r} never fires: there's no such date")

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Iterate over the instants at which it fires.

        Args:
            after: Later than this, with a time zone.
            until: Not later than this, with a time zone.

        Yields:
            Ascending, in UTC, each once.
        """
        for instant in self._after(after):
            if instant > until:
                return
            yield instant

    def next(self, after: datetime) -> datetime:
        """Find the first instant after another at which it fires, in UTC.

        >>> Schedule("0 6 * * mon").next(datetime(2013, 1, 1, tzinfo=UTC))
        datetime.datetime(2013, 1, 7, 6, 0, tzinfo=datetime.timezone.utc)
        """
        return next(self._after(after))

    def due(self, since: datetime, now: datetime) -> list[datetime]:
        """List what is to be fired now, after a while in which nobody looked.

        Args:
            since: The last instant that was looked at, with a time zone.
            now: The time now. If clocks went back, it may be before `since`.

        Returns:
            All missed instants in order, or only the latest if the schedule doesn't catch up.
        """
        missed = list(self.between(since, now))
        return missed if self.catches_up else missed[-1:]

    def _after(self, after: datetime) -> Iterator[datetime]:
        if after.tzinfo is None:
            raise InvalidArgumentError(f"{after} has no time zone: give it one, such as UTC")
        # The day before, for a clock change may have moved its last hour past midnight.
        for day in self._days(after.astimezone(self.zone_info).date() - _DAY):
            for instant in sorted(set(self._instants(day))):
                if instant > after:
                    after = instant
                    yield instant

    def _days(self, first: date) -> Iterator[date]:
        """Iterate over the local dates that fit, until there hasn't been one for too long."""
        _, _, in_month, months, in_week = self.numbers
        is_either = not any(self.texts[i].startswith("*") for i in (2, 4))
        day, last = first, first
        while day - last <= _LONGEST_GAP and day < date.max:
            fits = (day.day in in_month, day.isoweekday() % 7 in in_week)
            if day.month in months and (any(fits) if is_either else all(fits)):
                last = day
                yield day
            day += _DAY

    def _instants(self, day: date) -> Iterator[datetime]:
        minutes, hours, *_ = self.numbers
        is_elapsed = self.texts[1].startswith("*")
        for hour in hours:
            for minute in minutes:
                local = datetime.combine(day, time(hour, minute), self.zone_info)
                first, second = (local.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
                is_skipped = second < first
                if not is_skipped:
                    yield first
                    if is_elapsed:
                        yield second
                elif not is_elapsed:
                    yield self._change(second, first)

    def _change(self, before: datetime, after: datetime) -> datetime:
        """Find the second at which clocks change between two instants."""
        old = before.astimezone(self.zone_info).utcoffset()
        while after - before > timedelta(seconds=1):
            middle = (before + (after - before) / 2).replace(microsecond=0)
            if middle.astimezone(self.zone_info).utcoffset() == old:
                before = middle
            else:
                after = middle
        return after


def _parse(
    text: str, cron: str, name: str, low: int, high: int, names: dict[str, int]
) -> tuple[int, ...]:
    """Parse a field of a cron expression."""
    numbers: set[int] = set()
    for part in text.split(","):
        fitting = _numbers(part, low, high, names)
        if not fitting or fitting[0] < low or fitting[-1] > high:
            raise InvalidArgumentError(
                f"cron {cron!r}: {part!r} is no {name}; write {low} to {high}, *, a range such as"
                f" {low}-{high}, a list with commas, or steps such as */2"
            )
        numbers.update(fitting)
    return tuple(sorted(numbers))


def _numbers(part: str, low: int, high: int, names: dict[str, int]) -> range:
    """List the numbers that a part of a field means; none if it means nothing."""
    match = _PART.fullmatch(part)
    if match is None:
        return range(0)
    start, end, step = match.groups()
    if start == "*":
        return range(low, high + 1, int(step or 1))
    first, last = (
        int(each) if each.isdigit() else names.get(each, -1) for each in (start, end or start)
    )
    if step and not end:
        last = high
    return range(first, last + 1, int(step or 1))
