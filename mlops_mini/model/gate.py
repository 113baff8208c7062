"""The gate: may a candidate take the baseline's place?

It's refused if one rule fails, whatever the others say. It's undecided if none fails, and one can't
tell: then the baseline stays, unless the thresholds say otherwise. Otherwise it's blessed; without
a baseline yet it's the first, which the absolute rules alone have judged.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from mlops_mini.errors import DataIntegrityError, InvalidArgumentError
from mlops_mini.model import gate_rules, training
from mlops_mini.model.gate_rules import Evidence, RuleResult
from mlops_mini.model.thresholds import Thresholds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Decision = Literal["blessed", "first", "undecided", "refused"]
_NUMBERS = ("value", "lower", "upper")
_INTERVAL_RULES = ("log loss", "slice")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The gate's decision about a candidate.

    Attributes:
        decision: `blessed`, `first`, `undecided` or `refused`.
        is_blessed: Whether the candidate may be published.
        reason: One sentence. Its numbers are rounded to two decimals, since the third one depends
            on the processor that trained the model; the rules have the full numbers.
        rules: All that was asked, in order.
        thresholds_digest: Of the file of thresholds that it was judged by.
    """

    decision: Decision
    is_blessed: bool
    reason: str
    rules: tuple[RuleResult, ...] = ()
    thresholds_digest: str = ""

    def table(self) -> pd.DataFrame:
        """Show the rules as a table, a row for each, with the attributes of `RuleResult`."""
        return pd.DataFrame([asdict(rule) for rule in self.rules])


def judge(evidence: Evidence, thresholds: Thresholds) -> Verdict:
    """Decide whether a candidate may be published.

    Args:
        evidence: What was measured. What's None there isn't asked.
        thresholds: What the candidate must keep.

    Returns:
        The verdict, with the table of all rules.

    Raises:
        InvalidArgumentError: A rule names a slice that doesn't exist, a label is missing, or the
            baseline's answers are no probabilities.

    >>> days = np.repeat(np.arange(20), 200)
    >>> labels = np.tile([0.0, 0.0, 0.0, 1.0], 1000)
    >>> sure = np.where(labels == 1, 0.6, 0.1)
    >>> evidence = Evidence(labels=labels, days=days, candidate=sure, baseline=sure * 0.9)
    >>> verdict = judge(evidence, Thresholds())
    >>> verdict.decision, verdict.reason
    ('blessed', "its log loss is better than the baseline's by 0.02")
    """
    rules = gate_rules
    if evidence.labels.size:
        labels = evidence.labels
        training.as_labels(labels, labels.size, n_classes=evidence.n_classes)
    thresholds.check_slices(_values_of_slices(evidence))
    results = [
        *rules.another_model(evidence),
        *rules.unseen_rows(evidence),
        *rules.enough(evidence, thresholds),
    ]
    of_answers = rules.answers(evidence)
    results += of_answers
    has_several_classes = np.unique(evidence.labels).size > 1
    if has_several_classes and all(each.verdict == "pass" for each in of_answers):
        results += rules.floors(evidence, thresholds)
        results += rules.not_inferior(evidence, thresholds)
        results += rules.slices(evidence, thresholds)
    results += rules.coverage(evidence, thresholds)
    results += rules.point_in_time(evidence, thresholds)
    results += rules.serving(evidence, thresholds)
    return _decide(tuple(results), thresholds, is_first=evidence.baseline is None)


def _decide(rules: tuple[RuleResult, ...], thresholds: Thresholds, *, is_first: bool) -> Verdict:
    verdicts = {rule.verdict for rule in rules}
    decision: Decision = "first" if is_first else "blessed"
    if "fail" in verdicts:
        decision = "refused"
    elif "undecided" in verdicts:
        decision = "undecided"
    is_undecided_enough = decision == "undecided" and thresholds.gate.undecided == "promote"
    return Verdict(
        decision=decision,
        is_blessed=decision in ("blessed", "first") or is_undecided_enough,
        reason=_reason(decision, rules, thresholds.margin),
        rules=rules,
        thresholds_digest=thresholds.digest,
    )


def _reason(decision: Decision, rules: tuple[RuleResult, ...], margin: float) -> str:
    """Say in a sentence, to two decimals, what has led to a decision."""
    values = {rule.rule: rule.value for rule in rules if not rule.slice}
    if decision == "first":
        how = _compared(values["excess log loss"], "that of always predicting the base rate")
        return f"it's the first; {how}"
    if decision == "blessed":
        how = _compared(values["log loss"], "the baseline's")
        is_worse = values["log loss"] > 0
        return f"{how}, surely by less than the margin of {margin:g}" if is_worse else how
    causes = [
        f"{f'{rule.rule} {rule.slice}'.strip()}: {rule.reason}"
        for rule in rules
        if rule.verdict == ("fail" if decision == "refused" else "undecided")
    ]
    others = f", and {len(causes) - 1} more" if len(causes) > 1 else ""
    return f"{causes[0]}{others}"


def _compared(difference: float, whose: str) -> str:
    """Say how a log loss compares with another one, to two decimals."""
    if difference == 0:
        return f"its log loss equals {whose}"
    by = f"{abs(difference):.2f}" if abs(difference) >= 0.01 else "less than 0.01"
    return f"its log loss is {'better' if difference < 0 else 'worse'} than {whose} by {by}"


def _values_of_slices(evidence: Evidence) -> dict[str, set[str]]:
    """List the values that each column has, among judged rows or what arrived."""
    return {
        column: {*np.unique(values.to_numpy(str)).tolist(), *evidence.arrived.get(column, {})}
        for column, values in evidence.slices.items()
    }


def summarize(verdict: Verdict) -> list[tuple[str, ...]]:
    """Lay a verdict out as texts, a row for each rule: that of its worst slice if it has any.

    Returns:
        Rule, what was measured with its interval, limit and verdict.
    """
    worst: dict[str, RuleResult] = {}
    n_slices = Counter(rule.rule for rule in verdict.rules if rule.verdict != "too small")
    badness = {"too small": 0, "pass": 1, "undecided": 2, "fail": 3}
    for rule in verdict.rules:
        other = worst.setdefault(rule.rule, rule)
        larger = rule.value > other.value if rule.rule == "slice" else rule.value < other.value
        if (badness[rule.verdict], larger) > (badness[other.verdict], False):
            worst[rule.rule] = rule
    return [
        (
            f"{name} {rule.slice}, 1 of {n_slices[name]}" if rule.slice else name,
            _measured(rule),
            rule.limit,
            rule.verdict,
        )
        for name, rule in worst.items()
    ]


def _measured(rule: RuleResult) -> str:
    if math.isnan(rule.value):
        return ""
    digits = 0 if rule.value == int(rule.value) else 3
    interval = "" if math.isnan(rule.lower) else f" ({rule.lower:.3f} to {rule.upper:.3f})"
    return f"{rule.value:,.{digits}f}{interval}"


def as_fields(verdict: Verdict) -> dict[str, Any]:
    """Reduce a verdict to what JSON can hold, so with None for NaN."""
    fields = asdict(verdict)
    for rule in fields["rules"]:
        rule |= {name: None for name in _NUMBERS if math.isnan(rule[name])}
    return fields


def write(verdict: Verdict, file: Path) -> None:
    """Write a verdict as JSON."""
    file.write_text(json.dumps(as_fields(verdict), indent=2, allow_nan=False) + "\n")


def read(file: Path) -> Verdict:
    """Read what `write` has written.

    Raises:
        DataIntegrityError: The file holds something else.
    """
    try:
        content = json.loads(file.read_bytes())
        rules = tuple(
            RuleResult(**rule | {name: math.nan for name in _NUMBERS if rule[name] is None})
            for rule in content["rules"]
        )
        return Verdict(**content | {"rules": rules})
    except (ValueError, TypeError, KeyError) as exc:
        raise DataIntegrityError(f"{file} holds no verdict ({exc!r}): run the gate again") from exc


def plot(verdict: Verdict, ax: Axes, *, margin: float | None = None) -> Axes:
    """Draw the differences in log loss with their intervals.

    Args:
        verdict: Of a candidate that was compared with a baseline.
        ax: Where to draw.
        margin: Where to draw a dotted line, such as that of the thresholds.

    Returns:
        The same axes. A row for all rows and one for each slice that was judged: a dot for the
        difference, filled if the rule failed, and a line from its lower to its upper limit.

    Raises:
        InvalidArgumentError: The verdict compares no models.
    """
    rules = [rule for rule in verdict.rules if rule.rule in _INTERVAL_RULES]
    rules = [rule for rule in rules if not math.isnan(rule.value)]
    if not rules:
        raise InvalidArgumentError("no differences to draw: the verdict compares no models")
    for row, rule in enumerate(rules):
        face = "0.1" if rule.verdict == "fail" else "white"
        ax.plot([rule.lower, rule.upper], [row, row], "-", color="0.6", linewidth=1.5)
        ax.plot(rule.value, row, "o", color="0.1", markerfacecolor=face)
    ax.axvline(0, color="0.4", linewidth=1)
    if margin is not None:
        ax.axvline(margin, color="0.6", linestyle=":", linewidth=1)
    ax.set_yticks(range(len(rules)), [rule.slice or "all rows" for rule in rules])
    ax.set_ylim(len(rules) - 0.5, -0.5)
    ax.set(xlabel="log loss, candidate minus baseline (nats)")
    return ax
