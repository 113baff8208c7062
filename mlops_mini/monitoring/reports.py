"""What monitoring has to say of each window, and when it should raise the alarm."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Literal

from mlops_mini.monitoring import quality
from mlops_mini.monitoring.journal import Journal
from mlops_mini.monitoring.quality import Cohort, Maturity
from mlops_mini.monitoring.row_skew import RowSkew
from mlops_mini.monitoring.scrapes import Traffic
from mlops_mini.statistics import drift, mergeable
from mlops_mini.statistics.drift import DriftReport
from mlops_mini.statistics.mergeable import TableStatistics

Rule = Literal[
    "quality", "labels", "no labels", "drift", "skew", "row skew", "errors", "latency", "doubled",
    "silence",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When an alarm is raised.

    Attributes:
        max_excess_rise: Rise of the excess log loss above the first two windows' mean, nats.
        max_unknown: So many mature windows in a row that lack too many labels.
        thresholds: PSI by feature, see `drift.calibrate`; those left out have `max_psi`.
        max_psi: PSI above which a feature has moved.
        relevant: Features that count for drift and skew; those with an importance if None.
        max_row_skew: Share of rows in which a relevant feature had another value when it was sent
            than when it was computed again, 0 to 1.
        max_error_rate: Of requests, 0 to 1.
        max_p99_ms: 99 of 100 answers within so many milliseconds.
        max_doubled: Share of rows under a request id that was known, 0 to 1.
    """

    max_excess_rise: float = 0.02
    max_unknown: int = 3
    thresholds: Mapping[str, float] = field(default_factory=dict)
    max_psi: float = 0.25
    relevant: Collection[str] | None = None
    max_row_skew: float = 0.01
    max_error_rate: float = 0.01
    max_p99_ms: float = 500.0
    max_doubled: float = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """An alarm.

    Attributes:
        rule: What was broken.
        window: Where.
        text: One sentence for people.
    """

    rule: Rule
    window: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowReport:
    """What is known of a window now.

    Attributes:
        window: Its name.
        cohort: Quality of all predictions.
        by_version: The same by version.
        drift: Inputs against the window before; None if either has no rows.
        skew: Inputs against what the model has learned from; None if that or they aren't there.
        row_skew: Inputs against the same features computed again; None if nobody has.
        traffic: Requests, errors and latency; None if no server was scraped.
        n_doubled: Rows that came again under their request id.
    """

    window: str
    cohort: Cohort
    by_version: tuple[Cohort, ...]
    drift: DriftReport | None
    skew: DriftReport | None
    row_skew: RowSkew | None
    traffic: Traffic | None
    n_doubled: int


def report(
    journal: Journal,
    *,
    now: datetime,
    maturity: Maturity,
    reference: TableStatistics | None = None,
    row_skews: Mapping[str, RowSkew] | None = None,
    importances: Mapping[str, float] | None = None,
    limits: Limits | None = None,
) -> list[WindowReport]:
    """Report on all windows, in order.

    The same journal at the same time gives the same reports, whatever has happened in between.

    Args:
        journal: What was asked, answered and learned.
        now: The time, with a time zone.
        maturity: When labels can be trusted.
        reference: What the inputs were like that the model has learned from.
        row_skews: By name of a window, what `row_skew.compare` has found.
        importances: How much the model needs each input; reports are ranked by PSI times this.
        limits: For the thresholds of drift.
    """
    limits = limits or Limits()
    reports = []
    before = mergeable.create()
    for window in journal.windows():
        rows, inputs = journal.rows(window), journal.statistics(window)
        measured = partial(quality.measure, rows, window, now=now, maturity=maturity)
        reports.append(
            WindowReport(
                window=str(window),
                cohort=measured(),
                by_version=tuple(measured(version=each) for each in sorted(set(rows["version"]))),
                drift=_compare(before, inputs, importances, limits),
                skew=_compare(reference, inputs, importances, limits) if reference else None,
                row_skew=(row_skews or {}).get(str(window)),
                traffic=journal.traffic(window),
                n_doubled=journal.counts(window).get("doubled", 0),
            )
        )
        before = inputs
    return reports


def _compare(
    reference: TableStatistics,
    inputs: TableStatistics,
    importances: Mapping[str, float] | None,
    limits: Limits,
) -> DriftReport | None:
    shared = set(reference.columns) & set(inputs.columns)
    if not (shared and reference.n_rows and inputs.n_rows):
        return None
    weights = {name: (importances or {}).get(name, 0.0) for name in shared}
    return drift.compare(
        reference,
        inputs,
        importances=weights if importances else None,
        thresholds={name: limits.thresholds.get(name, limits.max_psi) for name in shared},
    )


def alerts(reports: Sequence[WindowReport], limits: Limits | None = None) -> list[Alert]:
    """Raise the alarm where a limit is broken.

    Args:
        reports: Of all windows, oldest first.
        limits: The defaults if None.

    Returns:
        In order of windows.
    """
    limits = limits or Limits()
    raised: list[Alert] = []
    for i, each in enumerate(reports):
        found = {
            **_of_quality(reports[: i + 1], limits),
            **_of_inputs(each, limits),
            **_of_traffic(each, limits),
        }
        raised += [Alert(rule=rule, window=each.window, text=text) for rule, text in found.items()]
    return raised


def _of_quality(until_now: Sequence[WindowReport], limits: Limits) -> dict[Rule, str]:
    cohorts = [each.cohort for each in until_now]
    now = cohorts[-1]
    found: dict[Rule, str] = {}
    if now.state == "empty":
        found["silence"] = "nothing was asked in this window"
    if now.state == "few labels":
        found["labels"] = (
            f"only {now.labeled:.1%} of the predictions have got a label in time, so that their"
            " quality proves nothing"
        )
    unknown = quality.n_unknown(cohorts)
    if unknown >= limits.max_unknown:
        found["no labels"] = f"nothing is known of the quality of the last {unknown} windows"
    compared = quality.rise(cohorts)
    if compared and (rise := compared[1] - compared[0]) > limits.max_excess_rise:
        found["quality"] = f"the excess log loss is {rise:.3f} above that of the first windows"
    return found


def _of_inputs(each: WindowReport, limits: Limits) -> dict[Rule, str]:
    found: dict[Rule, str] = {}
    both: dict[Rule, DriftReport | None] = {"drift": each.drift, "skew": each.skew}
    for rule, compared in both.items():
        moved = compared.moved_among(limits.relevant) if compared else ()
        if moved:
            against = "the window before" if rule == "drift" else "the training data"
            names = ", ".join(column.column for column in moved)
            found[rule] = f"{names} moved against {against}"
    if each.row_skew:
        others = [
            f"{column.column} in {column.share:.1%}"
            for column in each.row_skew.columns
            if column.share > limits.max_row_skew
            and (limits.relevant is None or column.column in limits.relevant)
        ]
        if others:
            found["row skew"] = (
                f"sent with another value than the one computed again: {', '.join(others)} of the"
                " rows"
            )
    n = each.cohort.n + each.n_doubled
    if n and each.n_doubled / n > limits.max_doubled:
        found["doubled"] = f"{each.n_doubled} of {n} rows came under a known request id"
    return found


def _of_traffic(each: WindowReport, limits: Limits) -> dict[Rule, str]:
    found: dict[Rule, str] = {}
    if each.traffic is None:
        return found
    if each.traffic.error_rate > limits.max_error_rate:
        found["errors"] = f"{each.traffic.error_rate:.2%} of the requests have failed"
    p99_ms = each.traffic.latency_ms(0.99)
    if p99_ms > limits.max_p99_ms:
        found["latency"] = f"one answer in a hundred took more than {limits.max_p99_ms:g} ms"
    return found
