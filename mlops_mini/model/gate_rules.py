"""The rules of the gate, each by itself: what was measured, against which limit, and what follows.

A rule passes, fails, or stays undecided; a slice may be too small, which is neither a pass nor a
fail. Every rule sees something that the others don't: a model that never saw one group may score
better than before, a leak scores better for sure, and neither can be told by scores.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.evidence import intervals
from mlops_mini.evidence.intervals import Interval
from mlops_mini.model import evaluation
from mlops_mini.model.serving_check import ServingCheck
from mlops_mini.model.thresholds import AUC, CALIBRATION, LOG_LOSS, Bounds, Thresholds

RuleVerdict = Literal["pass", "fail", "undecided", "too small"]
Counts = Mapping[str, Mapping[str, int]]  # rows by column and value


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """What a model has learned from: the rows from `start` up to before `end`."""

    start: datetime
    end: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Recomputed:
    """How features of judged rows compare with those that serving would have computed.

    Attributes:
        n_rows: Rows that were computed again.
        n_different: Those of them with another value of some feature.
        finding: One sentence.
    """

    n_rows: int
    n_different: int
    finding: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the gate is shown.

    Attributes:
        labels: 0 or 1, or the number of a class, shape [n_rows], of the judged rows; neither model
            has seen them.
        days: Local day of each judged row, shape [n_rows].
        candidate: Probabilities of the candidate, shape [n_rows], or [n_rows, n_classes].
        baseline: Those of the baseline, or None if there's no baseline yet.
        slices: The columns to slice by, one value per judged row, by position.
        candidate_span: What the candidate has learned from.
        baseline_span: What the baseline has learned from.
        is_other_data: Whether the two have learned from other rows, labels or settings, if the days
            are the same, as after labels were corrected; False if that isn't known.
        n_seen: Judged rows that are among the candidate's training rows all the same.
        n_arrived: Rows that arrived on the days judged on, with and without a label.
        arrived: Rows that arrived in the candidate's span, by slice.
        learned: Rows that the candidate was trained on, by slice.
        recomputed: Whether features are what serving would have computed; None if not asked.
        serving: Whether the candidate can be served; None if not asked.
    """

    labels: npt.NDArray[np.float64]
    days: npt.NDArray[Any]
    candidate: npt.NDArray[Any]
    baseline: npt.NDArray[Any] | None = None
    slices: Mapping[str, pd.Series[Any]] = field(default_factory=dict)
    candidate_span: Span | None = None
    baseline_span: Span | None = None
    is_other_data: bool = False
    n_seen: int = 0
    n_arrived: int | None = None
    arrived: Counts = field(default_factory=dict)
    learned: Counts = field(default_factory=dict)
    recomputed: Recomputed | None = None
    serving: ServingCheck | None = None

    @property
    def n_classes(self) -> int:
        """How many classes the models tell apart."""
        return evaluation.n_classes_of(self.candidate)


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleResult:
    """A row of the gate's table.

    Attributes:
        rule: Its name.
        slice: Such as `plan=pro`; empty if it's about all rows.
        value: What was measured; NaN if nothing was.
        limit: What it's compared with, in words.
        lower: Lower limit of the value, one-sided; NaN if it has none.
        upper: Upper limit.
        n: Rows it's made of, or days.
        verdict: What follows.
        reason: One sentence.
    """

    rule: str
    slice: str = ""
    value: float = math.nan
    limit: str = ""
    lower: float = math.nan
    upper: float = math.nan
    n: int = 0
    verdict: RuleVerdict
    reason: str = ""


def another_model(evidence: Evidence) -> list[RuleResult]:
    """Two models of the same days and data are one model: they can't be compared, only be equal."""
    if evidence.baseline is None or not evidence.labels.size:
        return []
    spans = (evidence.candidate_span, evidence.baseline_span)
    is_same_span = spans[0] is not None and spans[0] == spans[1]
    is_other = evidence.candidate != evidence.baseline
    n_different = int(is_other.reshape(len(is_other), -1).any(axis=1).sum())
    is_news = n_different > 0 and (evidence.is_other_data or not is_same_span)
    if is_news:
        reason = "the two were trained on different days"
        if is_same_span:
            reason = "the two were trained on the same days, with other rows, labels or settings"
    elif is_same_span:
        reason = "both were trained on the same days, so that the candidate is no news"
    else:
        reason = "both answer the same on every row"
    return [
        RuleResult(
            rule="another model",
            value=n_different,
            limit="> 0",
            n=len(evidence.candidate),
            verdict="pass" if is_news else "undecided",
            reason=reason,
        )
    ]


def unseen_rows(evidence: Evidence) -> list[RuleResult]:
    """Rows that a candidate has learned by heart say nothing about it."""
    n = evidence.n_seen
    return [
        RuleResult(
            rule="unseen rows",
            value=n,
            limit="≤ 0",
            n=evidence.labels.size,
            verdict="fail" if n else "pass",
            reason=f"{n} judged rows were in the candidate's training" if n else "",
        )
    ]


def enough(evidence: Evidence, thresholds: Thresholds) -> list[RuleResult]:
    """Ask for enough rows, days, and rows of either label; a first model needs less."""
    gate, labels = thresholds.gate, evidence.labels
    is_first = evidence.baseline is None
    asked = {
        "enough rows": (labels.size, thresholds.min_slice_size if is_first else gate.min_rows),
        "enough days": (np.unique(evidence.days).size, 1 if is_first else gate.min_days),
        "both classes" if evidence.n_classes == 2 else "each class": (
            int(np.bincount(labels.astype(int), minlength=evidence.n_classes).min()),
            gate.min_per_class,
        ),
    }
    results = [
        RuleResult(
            rule=rule,
            value=value,
            limit=f"≥ {least:,}",
            n=labels.size,
            verdict="pass" if value >= least else "undecided",
            reason="" if value >= least else f"{value} are too few to judge by",
        )
        for rule, (value, least) in asked.items()
    ]
    if evidence.n_arrived:
        share = labels.size / evidence.n_arrived
        is_enough = share >= gate.min_labeled
        results.append(
            RuleResult(
                rule="labels",
                value=share,
                limit=f"≥ {gate.min_labeled:g}",
                n=evidence.n_arrived,
                verdict="pass" if is_enough else "undecided",
                reason="" if is_enough else "early labels aren't like those to come",
            )
        )
    return results


def answers(evidence: Evidence) -> list[RuleResult]:
    """Every answer must be a probability."""
    n = int((~evaluation.are_probabilities(evidence.candidate)).sum())
    sums = "" if evidence.n_classes == 2 else ", or don't sum to 1"
    return [
        RuleResult(
            rule="answers",
            value=n,
            limit="≤ 0",
            n=len(evidence.candidate),
            verdict="fail" if n else "pass",
            reason=f"{n} answers are NaN or outside 0 to 1{sums}" if n else "",
        )
    ]


def floors(evidence: Evidence, thresholds: Thresholds) -> list[RuleResult]:
    """Hold the candidate alone against absolute limits, by value, as TFMA does."""
    labels, predicted = evidence.labels, np.asarray(evidence.candidate, np.float64)
    metrics = evaluation.measure(predicted, labels)
    losses = evaluation.log_loss_per_row(predicted, labels)
    confidence = thresholds.gate.confidence
    loss = intervals.of_mean(losses, evidence.days, confidence=confidence)
    base = metrics.base_rate_log_loss
    excess = dataclasses.replace(
        loss, value=loss.value - base, lower=loss.lower - base, upper=loss.upper - base
    )
    said, came_true = predicted, labels
    if evidence.n_classes > 2:  # of the most probable class
        said, came_true = predicted.max(axis=1), (predicted.argmax(axis=1) == labels).astype(float)
    ratio = intervals.of_mean(said, evidence.days, weights=came_true, confidence=confidence)
    auc = dataclasses.replace(loss, value=metrics.auc, lower=math.nan, upper=math.nan)
    most = Bounds(upper_bound=thresholds.gate.max_excess_log_loss)
    measured = {
        LOG_LOSS: ("log loss", loss),
        AUC: ("AUC", auc),
        CALIBRATION: ("calibration", ratio),
    }
    asked = [("excess log loss", excess, most)]
    asked += [(*measured[name], bounds) for name, bounds in thresholds.floors.items()]
    return [_floor(rule, interval, bounds) for rule, interval, bounds in asked]


def not_inferior(evidence: Evidence, thresholds: Thresholds) -> list[RuleResult]:
    """Surely not worse than the baseline by the margin, or at least not surely worse."""
    if evidence.baseline is None:
        return []
    margin, confidence = thresholds.margin, thresholds.gate.confidence
    difference = intervals.of_mean(_difference(evidence), evidence.days, confidence=confidence)
    verdict: RuleVerdict = "undecided"
    reason = f"neither surely worse nor surely below the margin of {margin:g}"
    if difference.upper < margin:
        verdict, reason = "pass", ""
    elif difference.lower > 0:
        verdict, reason = "fail", "it's surely worse than the baseline"
    return [_compared("log loss", "", difference, f"upper < {margin:g}", verdict, reason)]


def slices(evidence: Evidence, thresholds: Thresholds) -> list[RuleResult]:
    """No slice may surely be worse by more than its margin, in log loss or in AUC.

    The error that may be made by chance is shared among all that is judged here (Bonferroni). AUC
    sees what log loss can't: a slice's losses are those of its few worst days, so that the interval
    over days is wide even if the model has lost all that it knew of the slice. Of several classes a
    slice may be one, which has no AUC.
    """
    if evidence.baseline is None:
        return []
    too_small: list[RuleResult] = []
    judged: list[tuple[str, str, float, npt.NDArray[np.bool_]]] = []
    for column, values in evidence.slices.items():
        texts = values.to_numpy(str)
        for value in np.unique(texts):
            is_in, name = texts == value, f"{column}={value}"
            n, by_class = int(is_in.sum()), _rows_by_class(evidence, is_in)
            is_small = (
                n < thresholds.min_slice_size or min(by_class) < thresholds.gate.min_per_class
            )
            if is_small or np.unique(evidence.days[is_in]).size < 2:
                rarest = "rarer" if evidence.n_classes == 2 else "rarest"
                reason = f"{n} rows, {min(by_class)} of the {rarest} class"
                too_small.append(
                    RuleResult(rule="slice", slice=name, n=n, verdict="too small", reason=reason)
                )
                continue
            for metric in (LOG_LOSS, AUC):
                margin = thresholds.slice_margin(metric, column, str(value))
                if margin is not None and (metric == LOG_LOSS or len(by_class) > 1):
                    judged.append((metric, name, margin, is_in))
    confidence = 1 - (1 - thresholds.gate.confidence) / max(len(judged), 1)
    by_metric = {LOG_LOSS: _slice_log_loss, AUC: _slice_auc}
    results = [
        by_metric[metric](evidence, name, is_in, margin, confidence)
        for metric, name, margin, is_in in judged
    ]
    return [*sorted(results, key=lambda result: result.rule), *too_small]


def _slice_log_loss(
    evidence: Evidence, name: str, is_in: npt.NDArray[np.bool_], margin: float, confidence: float
) -> RuleResult:
    difference = intervals.of_mean(
        _difference(evidence)[is_in], evidence.days[is_in], confidence=confidence
    )
    is_bad = difference.lower > margin
    reason = f"its log loss is surely worse by more than {margin:g}" if is_bad else ""
    verdict: RuleVerdict = "fail" if is_bad else "pass"
    return _compared("slice", name, difference, f"lower ≤ {margin:g}", verdict, reason)


def _slice_auc(
    evidence: Evidence, name: str, is_in: npt.NDArray[np.bool_], margin: float, confidence: float
) -> RuleResult:
    labels, days = evidence.labels[is_in], evidence.days[is_in]
    own = evidence.candidate[is_in]
    others = np.asarray(evidence.baseline)[is_in]

    def gained(rows: npt.NDArray[np.bool_]) -> float:
        return evaluation.auc(own[rows], labels[rows]) - evaluation.auc(others[rows], labels[rows])

    difference = intervals.jackknife(gained, days, confidence=confidence)
    is_bad = difference.upper < -margin
    reason = f"its AUC is surely lower by more than {margin:g}" if is_bad else ""
    verdict: RuleVerdict = "fail" if is_bad else "pass"
    return _compared("slice AUC", name, difference, f"upper ≥ -{margin:g}", verdict, reason)


def coverage(evidence: Evidence, thresholds: Thresholds) -> list[RuleResult]:
    """What arrived must have been learned from, in each slice.

    A model that has never seen a group of rows may do as well on it for a while, by what it knows
    of the others: scores can't see that something was lost between arrival and training.
    """
    results = []
    for column, arrived in evidence.arrived.items():
        learned = evidence.learned.get(column, {})
        n_arrived, n_learned = sum(arrived.values()), sum(learned.values())
        for value, n in sorted(arrived.items()):
            if n < thresholds.min_slice_size:
                continue
            share = learned.get(value, 0) / max(n_learned, 1) / (n / n_arrived)
            is_covered = share >= thresholds.gate.min_coverage
            results.append(
                RuleResult(
                    rule="coverage",
                    slice=f"{column}={value}",
                    value=share,
                    limit=f"≥ {thresholds.gate.min_coverage:g}",
                    n=learned.get(value, 0),
                    verdict="pass" if is_covered else "fail",
                    reason=""
                    if is_covered
                    else f"{n:,} rows arrived, {learned.get(value, 0):,} were learned from",
                )
            )
    return results


def point_in_time(evidence: Evidence, thresholds: Thresholds) -> list[RuleResult]:
    """Features must be what serving could have known: computed online, they're the same."""
    recomputed = evidence.recomputed
    if recomputed is None:
        return []
    most = thresholds.gate.max_different_features
    is_same = recomputed.n_rows > 0 and recomputed.n_different <= most
    return [
        RuleResult(
            rule="point in time",
            value=recomputed.n_different,
            limit=f"≤ {most}",
            n=recomputed.n_rows,
            verdict="pass" if is_same else "fail",
            reason="" if is_same else recomputed.finding,
        )
    ]


def serving(evidence: Evidence, thresholds: Thresholds) -> list[RuleResult]:
    """A candidate must take what the baseline takes, answer from a server, and in time."""
    checked = evidence.serving
    if checked is None:
        return []
    most = thresholds.gate.max_latency_ms
    results = [
        RuleResult(
            rule="signature",
            verdict="fail" if checked.misfit else "pass",
            reason=checked.misfit,
        ),
        RuleResult(
            rule="serving",
            verdict="pass" if checked.is_servable else "fail",
            reason="" if checked.is_servable else checked.finding,
        ),
    ]
    # A model that answers otherwise, or too late for the rest of the check, has a latency as well.
    if checked.is_servable or checked.latency_ms > 0:
        is_fast = checked.latency_ms <= most
        results.append(
            RuleResult(
                rule="latency",
                value=checked.latency_ms,
                limit=f"≤ {most:g} ms",
                verdict="pass" if is_fast else "fail",
                reason="" if is_fast else "it's too slow to serve",
            )
        )
    return results


def _difference(evidence: Evidence) -> npt.NDArray[np.float64]:
    """Log loss of the candidate minus that of the baseline, row by row."""
    losses = evaluation.log_loss_per_row(evidence.candidate, evidence.labels)
    baseline = np.asarray(evidence.baseline, np.float64)
    return losses - evaluation.log_loss_per_row(baseline, evidence.labels)


def _rows_by_class(evidence: Evidence, is_in: npt.NDArray[np.bool_]) -> list[int]:
    """Count the rows of either class; of more than two, of those that are there."""
    counts = np.bincount(evidence.labels[is_in].astype(int), minlength=2)
    return [int(n) for n in counts if n or evidence.n_classes == 2]


def _floor(rule: str, interval: Interval, bounds: Bounds) -> RuleResult:
    limit = f"{bounds.lower_bound:g} to {bounds.upper_bound:g}"
    if math.isinf(bounds.lower_bound):
        limit = f"≤ {bounds.upper_bound:g}"
    elif math.isinf(bounds.upper_bound):
        limit = f"≥ {bounds.lower_bound:g}"
    is_within = bounds.lower_bound <= interval.value <= bounds.upper_bound
    return RuleResult(
        rule=rule,
        value=interval.value,
        limit=limit,
        lower=interval.lower,
        upper=interval.upper,
        n=interval.n_rows,
        verdict="pass" if is_within else "fail",
        reason="" if is_within else f"{interval.value:.2f} is outside of its limits",
    )


def _compared(
    rule: str, of: str, difference: Interval, limit: str, verdict: RuleVerdict, reason: str
) -> RuleResult:
    return RuleResult(
        rule=rule,
        slice=of,
        value=difference.value,
        limit=limit,
        lower=difference.lower,
        upper=difference.upper,
        n=difference.n_rows,
        verdict=verdict,
        reason=reason,
    )
