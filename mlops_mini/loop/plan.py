"""What a loop is to play: whose data, how long, how it learns, and what goes wrong on the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

from mlops_mini.data import table_files
from mlops_mini.data.periods import Calendar, Period
from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.rollout import guardrails
from mlops_mini.rollout.controller import Strategy
from mlops_mini.rollout.guardrails import Guardrail
from mlops_mini.use_case import UseCase, load, naming
from mlops_mini.workspace import existing_data_folder

USER_HEADER = "x-user"
Incident = Literal["other units", "bad version", "lost canary"]

# A year is long enough for all of them, a few weeks show one.
_MIN_PERIODS_FOR_ALL = 13
_LOOKS_PER_PERIOD = 56  # every three hours of a week
_MAX_OTHER_CLASSES = 0.25
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is played.

    Attributes:
        use_case: Dotted name of the use case, such as churn:CHURN.
        data_folder: Holds its tables, in months, weeks or one file.
        first: The first month or week, whichever its calendar is cut into.
        last: The last one.
        n_first: So many periods are there at the beginning; the first model learns from them.
        seed: Of all trainings.
        epochs: Passes of each training over its rows.
        holdout_days: Days at the end that judge a candidate before it's trained on them too.
        incidents: What goes wrong, by period; a `lost canary` happens in the first release from
            that period on.
    """

    use_case: str
    data_folder: str
    first: str
    last: str
    n_first: int = 5
    seed: int = 0
    epochs: int = 2
    holdout_days: int = 14
    incidents: dict[str, Incident] | None = None

    def periods(self, calendar: Calendar) -> list[Period]:
        """List all periods, in order; those from `n_first` on are played.

        Raises:
            InvalidArgumentError: There are too few of them, or they are of another kind.
        """
        period, last = calendar.period(self.first), calendar.period(self.last)
        if period.kind != calendar.unit or last.kind != calendar.unit:
            raise InvalidArgumentError(
                f"the loop plays {calendar.unit}s of this use case, got {period} to {last}"
            )
        periods = [period]
        while periods[-1] < last:
            periods.append(periods[-1].next())
        if len(periods) <= self.n_first or self.n_first < 2:
            raise InvalidArgumentError(
                f"{self.first} to {self.last} are {len(periods)} {calendar.unit}s: the first"
                f" {self.n_first} train the first model, which takes at least 2, and at least one"
                " more is played"
            )
        return periods

    def with_incidents(self, calendar: Calendar) -> Plan:
        """Place what goes wrong: at a third, and of a long loop at a fifth and halfway too."""
        played = self.periods(calendar)[self.n_first :]
        placed: dict[str, Incident] = {str(played[len(played) // 3]): "other units"}
        if len(played) >= _MIN_PERIODS_FOR_ALL:
            placed[str(played[len(played) // 2])] = "bad version"
            placed[str(played[len(played) // 5])] = "lost canary"
        return replace(self, incidents=placed)


def of_data(
    name: str,
    data_folder: Path | None = None,
    *,
    n_first: int = 5,
    n_played: int | None = None,
    seed: int = 0,
) -> Plan:
    """Plan to play what a data folder has, from its first period on.

    Args:
        name: Dotted name of the use case.
        data_folder: Holds its tables; without it `workspace.data_folder()`.
        n_first: So many periods train the first model.
        n_played: So many are played after them; all if None, but for a last one that's cut off.
        seed: Of all trainings.

    Raises:
        NotFoundError: The use case or the data isn't there.
        InvalidArgumentError: There are too few periods.
    """
    case = load(name)
    folder = existing_data_folder(data_folder)
    with naming(case):
        first, last = span(case, folder)
    plan = Plan(
        use_case=name, data_folder=str(folder.resolve()), first=str(first), last=str(last),
        n_first=n_first, seed=seed,
    )  # fmt: skip
    periods = plan.periods(case.calendar)
    if n_played is not None:
        if not 1 <= n_played <= len(periods) - n_first:
            raise InvalidArgumentError(
                f"there are {len(periods) - n_first} {case.calendar.unit}s to play after the first"
                f" {n_first}, got {n_played}"
            )
        plan = replace(plan, last=str(periods[n_first + n_played - 1]))
    return plan.with_incidents(case.calendar)


def span(case: UseCase, folder: Path) -> tuple[Period, Period]:
    """Find the first and the last whole period of a data folder."""
    stored = table_files.partitions(
        case.examples, calendar=stored_calendar(case, folder), folder=folder
    )
    first = case.calendar.partition(stored[0].start)
    last = case.calendar.partition(stored[-1].end - _INSTANT)
    if last.end - last.start < (first.end - first.start) / 2:
        last = last.previous()
    return first, last


def stored_calendar(case: UseCase, folder: Path) -> Calendar:
    """Find out whether the files of a data folder hold months or weeks.

    Raises:
        NotFoundError: There are none.
    """
    for unit in (case.calendar.unit, "month", "week"):
        calendar = replace(case.calendar, unit=unit)
        if table_files.partitions(case.examples, calendar=calendar, folder=folder):
            return calendar
    raise NotFoundError(f"no {case.examples.name} in {folder}: name another folder by --data")


def strategy(n_requests: int) -> Strategy:
    """Make a strategy that fits the traffic: a release takes less than half a period.

    The canary is mirrored first, so that one that answers something else reaches nobody. Then it
    gets 10, 50 and 100 % of the requests as long as it doesn't fail, and labels may take it back.

    Args:
        n_requests: In a period.

    >>> strategy(6_500).shadow_requests, strategy(600).shadow_requests
    (300, 30)
    """
    return Strategy(
        steps_pct=(10, 50, 100),
        mirror_pct=100,
        shadow_requests=min(max(n_requests // 20, 20), 300),
        step_requests=min(max(n_requests // 160, 5), 40),
        guardrails=(
            guardrails.ERRORS,
            Guardrail(
                name="other answers",
                metrics=("differs",),
                test="disagreement",
                max_rate=_MAX_OTHER_CLASSES,
            ),
            Guardrail(name="wrong answers", metrics=("wrong",), is_late=True),
        ),
        watch_looks=_LOOKS_PER_PERIOD // 3,
        sticky_header=USER_HEADER,
    )


def n_per_look(n_requests: int) -> int:
    """Tell how many requests there are between two looks of a release."""
    return max(n_requests // _LOOKS_PER_PERIOD, 10)
