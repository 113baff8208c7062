"""Five reasons to retrain, as functions of a state and, where time matters, a clock.

Each returns what is to be fired, and does nothing else. The same state gives the same keys, so it
may be asked as often as one likes: the ledger accepts each key once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from mlops_mini.errors import InvalidArgumentError

if TYPE_CHECKING:
    from mlops_mini.data.partitions import Partition
    from mlops_mini.monitoring.quality import Cohort
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

    >>> on_demand("4711", reason="the new prices are out").key
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
    >>> start = datetime(2026, 3, 29, tzinfo=UTC)
    >>> nightly = Schedule("30 2 * * *", zone="Europe/Berlin")
    >>> [each.key for each in scheduled(nightly, since=start, now=start.replace(hour=9))]
    ['schedule:30 2 * * * Europe/Berlin:2026-03-29T01:00:00+00:00']
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
    cohorts: Sequence[Cohort],
    *,
    version: int,
    margin: float,
    n_windows: int = 2,
    basis: str = "",
) -> list[Firing]:
    """Fire because the model has become worse than it was when it was new.

    It's compared with its own first windows in production, not with a test score, which was
    measured on other days. A window that lacks labels fires nothing. Those whose labels haven't had
    the time to come don't count, so that it also fires where that takes longer than a window.

    Args:
        cohorts: What monitoring has measured of the serving version, oldest first.
        version: The serving version.
        margin: By how much the excess log loss of the newest windows may be above that of the first
            ones, nats.
        n_windows: How many windows make the beginning, and how many the present.
        basis: See `Firing`.

    Returns:
        One firing, whose key is the version and the newest mature window; none while all is well,
        or as long as `monitoring.quality.rise` can't compare.
    """
    from mlops_mini.monitoring import quality

    known = quality.mature(cohorts)
    compared = quality.rise(known, n_windows=n_windows)
    if compared is None or compared[1] - compared[0] <= margin:
        return []
    window = known[-1].window
    reason = {
        "window": window, "version": version, "first": compared[0], "now": compared[1],
        "margin": margin,
    }  # fmt: skip
    key = f"degradation:{version}:{window}"
    return [Firing(kind="degradation", key=key, reason=reason, basis=basis)]


def promise_broken(
    *, version: int, max_error: float, n_audits: int, errors: int, basis: str = ""
) -> Firing:
    """Fire because people have found too many errors among what the model had decided alone.

    It's a degradation that audits see long before labels of all items are there.

    Args:
        version: The version that has decided.
        max_error: The share of errors that was promised, 0 to 1.
        n_audits: Audits until it was sure.
        errors: How many of them found an error.
        basis: See `Firing`.

    >>> promise_broken(version=3, max_error=0.02, n_audits=93, errors=11).key
    'degradation:3:11 of 93 audits'
    """
    return Firing(
        kind="degradation",
        key=f"degradation:{version}:{errors} of {n_audits} audits",
        reason={
            "version": version, "max_error": max_error, "n_audits": n_audits, "errors": errors,
        },
        basis=basis,
    )  # fmt: skip


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
        relevant: Features that count, see `DriftReport.moved_among`.
        basis: See `Firing`.

    Returns:
        One firing, whose key is version and window; none if nothing that counts has moved.
    """
    moved = {column.column: column.psi for column in report.moved_among(relevant)}
    if not moved:
        return []
    reason = {"window": window, "version": version, "psi": moved}
    return [Firing(kind="drift", key=f"drift:{version}:{window}", reason=reason, basis=basis)]
