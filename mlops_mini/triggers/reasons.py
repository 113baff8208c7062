"""Five reasons to retrain, as functions of a state and, where time matters, a clock.

Each returns what is to be fired, and does nothing else. The same state gives the same keys, so it
may be asked as often as one likes: the ledger accepts each key once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from mlops_mini.errors import InvalidArgumentError

if TYPE_CHECKING:
    from mlops_mini.data.partitions import Partition
    from mlops_mini.statistics.drift import DriftReport
    from mlops_mini.triggers.schedules import Schedule

Kind = Literal["on_demand", "schedule", "new_data", "degradation", "drift"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Firing:
    """A reason to retrain.

    Attributes:
        kind: Which of the five.
        key: What makes it this one and no other: two firings of one key are the same.
        reason: The measurements behind it, as JSON values.
        basis: Digest of the data, the model and the code that a run would start from, so that one
            that was refused again and again isn't tried once more on the same; empty if unknown.
    """

    kind: Kind
    key: str
    reason: Mapping[str, Any] = field(default_factory=dict)
    basis: str = ""


def on_demand(request_id: str, *, reason: str = "", basis: str = "") -> Firing:
    """Fire because somebody asks.

    Args:
        request_id: The same for a request that's sent twice.
        reason: In the words of whoever asks.
        basis: See `Firing`.

    Raises:
        InvalidArgumentError: The id is empty.

    >>> on_demand("4711", reason="the new runway is open").key
    'on_demand:4711'
    """
    if not request_id:
        raise InvalidArgumentError("a request has no id: give one, so that it's not fired twice")
    return Firing(
        kind="on_demand", key=f"on_demand:{request_id}", reason={"asked": reason}, basis=basis
    )


def scheduled(
    schedule: Schedule, *, since: datetime, now: datetime, basis: str = ""
) -> list[Firing]:
    """Fire because it's time.

    Args:
        schedule: When.
        since: The last instant that was looked at; the key's instant of the newest firing will do.
        now: The clock.
        basis: See `Firing`.

    Returns:
        One firing per instant that is due, see `Schedule.due`. Its key is the instant that was
        meant, in UTC, not the one at which somebody looked.

    >>> from datetime import UTC
    >>> from mlops_mini.triggers.schedules import Schedule
    >>> start = datetime(2013, 3, 10, tzinfo=UTC)
    >>> nightly = Schedule("30 2 * * *", zone="America/New_York")
    >>> [each.key for each in scheduled(nightly, since=start, now=start.replace(hour=9))]
    ['schedule:30 2 * * * America/New_York:2013-03-10T07:00:00+00:00']
    """
    return [
        Firing(
            kind="schedule",
            key=f"schedule:{schedule.cron} {schedule.zone}:{instant.isoformat()}",
            reason={"cron": schedule.cron, "zone": schedule.zone, "due": instant.isoformat()},
            basis=basis,
        )
        for instant in schedule.due(since, now)
    ]


def new_data(
    partitions: Sequence[Partition],
    *,
    trained_on: Collection[str],
    min_rows: int = 1,
    basis: str = "",
) -> list[Firing]:
    """Fire because data has arrived that the model hasn't learned from.

    Args:
        partitions: What has arrived, as `partitions.arrived` lists it. Of a changed partition the
            newest state counts.
        trained_on: Keys of the partitions that the serving model has learned from, name and digest.
        min_rows: How many new rows it takes.
        basis: See `Firing`.

    Returns:
        One firing, whose key is the newest partition's name and digest; none if there are too few
        rows.
    """
    newest = {partition.name: partition for partition in partitions}  # of one name the last
    fresh = [each for each in newest.values() if each.key not in trained_on]
    n_rows = sum(partition.n_rows for partition in fresh)
    if not fresh or n_rows < min_rows:
        return []
    last = max(fresh, key=lambda partition: (partition.arrived_at, partition.key))
    reason = {
        "n_rows": n_rows,
        "min_rows": min_rows,
        "partitions": [partition.key for partition in fresh],
    }
    return [Firing(kind="new_data", key=f"new_data:{last.key}", reason=reason, basis=basis)]


def degraded(
    excess: Mapping[str, float],
    *,
    version: int,
    margin: float,
    n_windows: int = 2,
    basis: str = "",
) -> list[Firing]:
    """Fire because the model has become worse than it was when it was new.

    It's compared with its own first windows in production, not with a test score, which was
    measured on other days.

    Args:
        excess: Excess log loss of the serving version by window, oldest first; only windows that
            are mature and have enough labels, see `monitoring.quality.usable`.
        version: The serving version.
        margin: How much worse the mean of the newest windows may be, nats.
        n_windows: How many windows make the beginning, and how many the present.
        basis: See `Firing`.

    Returns:
        One firing, whose key is the version and the newest window; none while all is well, or
        while there are no more windows than those.

    >>> weeks = {"W05": -0.09, "W06": -0.07, "W07": -0.06, "W08": -0.04}
    >>> degraded(weeks, version=3, margin=0.01)[0].key
    'degradation:3:W08'
    """
    if len(excess) <= n_windows:
        return []
    values = list(excess.values())
    first, now = fmean(values[:n_windows]), fmean(values[-n_windows:])
    if now - first <= margin:
        return []
    window = list(excess)[-1]
    reason = {"window": window, "version": version, "first": first, "now": now, "margin": margin}
    key = f"degradation:{version}:{window}"
    return [Firing(kind="degradation", key=key, reason=reason, basis=basis)]


def drifted(
    report: DriftReport,
    *,
    version: int,
    window: str,
    relevant: Collection[str] | None = None,
    basis: str = "",
) -> list[Firing]:
    """Fire because features that the model relies on have moved.

    Args:
        report: The newest window against the data that the model has learned from.
        version: The serving version.
        window: Name of the window.
        relevant: Features that count; without it those with an importance above 0, and all of a
            report without importances.
        basis: See `Firing`.

    Returns:
        One firing, whose key is version and window; none if nothing that counts has moved.
    """
    moved = {
        column.column: column.psi
        for column in report.columns
        if column.has_moved
        and (column.column in relevant if relevant is not None else not column.importance <= 0)
    }
    if not moved:
        return []
    reason = {"window": window, "version": version, "psi": moved}
    return [Firing(kind="drift", key=f"drift:{version}:{window}", reason=reason, basis=basis)]
