"""What a year would have been like under another policy of retraining, and another gate.

A replay needs no model, only the loss of each row under the model that was trained on some span of
days. It walks through the weeks, retrains when the policy says so, judges as the gate says, and
adds up what the model in use at the time would have lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from mlops_mini.evidence import intervals
from mlops_mini.evidence.intervals import Interval
from mlops_mini.model import evaluation

Decision = Literal["blessed", "refused", "undecided"]
Decide = Callable[[Interval], Decision]
# The loss of every row under the model trained on the rows from one day up to before another.
LossesOf = Callable[[int, int], npt.NDArray[np.float64]]
Span = tuple[int, int]
_WEEK = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """When to retrain, on what, and what it takes to replace the model in use.

    Attributes:
        every_weeks: Retrain after so many weeks; 0 if only `every_rows` counts.
        every_rows: Retrain when so many rows have come since the model in use was trained.
        fires: Any other reason: tells whether to retrain at the end of a week, by its number and
            the days on which the model in use was trained. The two above don't count then.
        window_days: Train on so many last days; None for all there are.
        holdout_days: Keep so many of them out of the candidate's training, to judge both models on
            those days that neither has seen. A candidate that passes is trained again on all.
        is_by_day: Whether days are independent, or each row is.
        decide: The gate: decides by the interval of candidate minus baseline. Without one, every
            candidate is promoted.
    """

    every_weeks: int = 1
    every_rows: int = 0
    fires: Callable[[int, Span], bool] | None = None
    window_days: int | None = None
    holdout_days: int = 14
    is_by_day: bool = True
    decide: Decide | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgment:
    """What came of one retraining.

    Attributes:
        week: The last one whose rows were known.
        decision: The gate's.
        difference: Loss of the candidate minus that of the baseline; None without a gate.
    """

    week: int
    decision: Decision
    difference: Interval | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """How a policy did.

    Attributes:
        judgments: One for each retraining, in order.
        mean_loss: Of all rows after the first training, each under the model then in use.
        in_use: By week, the days on which the model in use was trained.
    """

    judgments: tuple[Judgment, ...]
    mean_loss: float
    in_use: Mapping[int, Span]

    def count(self, decision: Decision) -> int:
        """Count the retrainings that ended with a decision."""
        return sum(judgment.decision == decision for judgment in self.judgments)


def not_worse(interval: Interval) -> Decision:
    """Bless a candidate whose mean loss is no higher: a coin is tossed if models are equal."""
    return "blessed" if interval.value <= 0 else "refused"


def not_significantly_worse(interval: Interval) -> Decision:
    """Bless a candidate unless it's surely worse."""
    return "refused" if interval.lower > 0 else "blessed"


def significantly_better(interval: Interval) -> Decision:
    """Bless a candidate only if it's surely better."""
    if interval.lower > 0:
        return "refused"
    return "blessed" if interval.upper < 0 else "undecided"


def not_inferior(margin: float) -> Decide:
    """Bless a candidate that is surely not worse by the margin; refuse one that's surely worse.

    >>> decide = not_inferior(0.002)
    >>> decide(intervals.of_mean([-0.01, 0.0, 0.01]))
    'undecided'
    """

    def decide(interval: Interval) -> Decision:
        if interval.upper < margin:
            return "blessed"
        return "refused" if interval.lower > 0 else "undecided"

    return decide


def logistic_losses(
    days: npt.ArrayLike,
    rows: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    ruined: Collection[tuple[int, int]] = (),
) -> LossesOf:
    """Make the losses of logistic regressions, which are quickly trained.

    Args:
        days: Day of each row, counted from 0, shape [n_rows].
        rows: Scaled features, shape [n_rows, n_features].
        labels: 0 or 1, shape [n_rows].
        ruined: Spans whose labels are shuffled before the training.

    Returns:
        What `replay` asks; NaN for the rows before a span's end. It remembers each span.

    >>> rng = np.random.default_rng(0)
    >>> days, rows = np.repeat(np.arange(20), 50), rng.normal(size=(1000, 1))
    >>> losses_of = logistic_losses(days, rows, rows[:, 0] > 0, ruined={(0, 10)})
    >>> [round(float(np.nanmean(losses_of(0, end))), 1) for end in (9, 10)]
    [0.1, 0.7]
    """
    from sklearn.linear_model import LogisticRegression

    day, matrix, label = np.asarray(days), np.asarray(rows), np.asarray(labels, np.float64)

    @cache
    def losses_of(start: int, end: int) -> npt.NDArray[np.float64]:
        learned, after = (day >= start) & (day < end), day >= end
        learned_labels = label[learned]
        if (start, end) in ruined:
            learned_labels = np.random.default_rng(end).permutation(learned_labels)
        model = LogisticRegression(solver="newton-cholesky").fit(matrix[learned], learned_labels)
        losses = np.full(day.shape, np.nan)
        predicted = model.predict_proba(matrix[after])[:, 1]
        losses[after] = evaluation.log_loss_per_row(predicted, label[after])
        return losses

    return losses_of


def replay(
    days: npt.ArrayLike, losses_of: LossesOf, policy: Policy, *, weeks: Sequence[int]
) -> Replayed:
    """Play weeks under a policy.

    The first model is trained on all days before the first of the weeks. At the end of each week
    but the last one the policy may retrain; the rows of the next week are lost under whatever model
    is in use then.

    Args:
        days: Day of each row, counted from 0, shape [n_rows].
        losses_of: The losses of all rows under the model of a span; asked again for spans that come
            again, so remember them.
        policy: When to retrain, and the gate.
        weeks: Numbers of the weeks, seven days each, without a gap.

    Returns:
        The decisions and the mean loss of the rows of these weeks.

    >>> days = np.repeat(np.arange(70), 10)
    >>> def losses_of(start, end):  # the more days a model has seen, the better
    ...     return np.full(days.size, 1 / (end - start)) + 0.01 * np.sin(days)
    >>> played = replay(days, losses_of, Policy(decide=not_inferior(0.0)), weeks=range(4, 10))
    >>> [judgment.decision for judgment in played.judgments]
    ['refused', 'undecided', 'blessed', 'refused', 'undecided']
    """
    day = np.asarray(days)
    judgments: list[Judgment] = []
    losses: list[npt.NDArray[np.float64]] = []
    span = (0, weeks[0] * _WEEK)  # the days on which the model in use was trained
    trained_at = weeks[0] * _WEEK
    in_use: dict[int, Span] = {}
    for week in weeks:
        in_use[week] = span
        losses.append(losses_of(*span)[day // _WEEK == week])
        end = (week + 1) * _WEEK
        n_new_rows = int(((day >= span[1]) & (day < end)).sum())
        is_due = policy.every_weeks and end - trained_at >= policy.every_weeks * _WEEK
        if policy.every_rows:
            is_due = n_new_rows >= policy.every_rows
        if week == weeks[-1] or not (policy.fires(week, span) if policy.fires else is_due):
            continue
        trained_at = end
        judgment = _judge(day, losses_of, policy, span=span, week=week)
        judgments.append(judgment)
        if judgment.decision == "blessed":
            span = _span(policy, end)
    mean_loss = float(np.concatenate(losses).mean())
    return Replayed(judgments=tuple(judgments), mean_loss=mean_loss, in_use=in_use)


def _judge(
    day: npt.NDArray[np.int64],
    losses_of: LossesOf,
    policy: Policy,
    *,
    span: Span,
    week: int,
) -> Judgment:
    if policy.decide is None:
        return Judgment(week=week, decision="blessed", difference=None)
    end = (week + 1) * _WEEK
    candidate = (_span(policy, end)[0], end - policy.holdout_days)
    is_judged = (day >= max(candidate[1], span[1])) & (day < end)
    difference = (losses_of(*candidate) - losses_of(*span))[is_judged]
    interval = intervals.of_mean(difference, day[is_judged] if policy.is_by_day else None)
    return Judgment(week=week, decision=policy.decide(interval), difference=interval)


def _span(policy: Policy, end: int) -> Span:
    return (0 if policy.window_days is None else max(end - policy.window_days, 0), end)
