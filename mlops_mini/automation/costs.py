"""What each degree of automation costs, and which one is worth it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mlops_mini.automation.certificates import Certificate
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.evidence import intervals

if TYPE_CHECKING:
    import pandas as pd

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """Items that both the model and a person have answered, and of which the truth is known.

    Attributes:
        scores: The model's confidence in its answer, 0 to 1, shape [n].
        model_correct: Whether its answer was right, shape [n].
        human_correct: Whether the person's was, shape [n].
        human_cost: What it costs to ask a person about an item, in any unit.
        error_cost: What a wrong answer costs, in the same unit.
    """

    scores: npt.NDArray[np.float64]
    model_correct: Bools
    human_correct: Bools
    human_cost: float = 1.0
    error_cost: float = 20.0

    def __post_init__(self) -> None:
        shapes = {np.shape(a) for a in (self.scores, self.model_correct, self.human_correct)}
        if len(shapes) > 1 or len(next(iter(shapes))) != 1 or not np.size(self.scores):
            raise InvalidArgumentError(f"need some items, with a value of each kind, got {shapes}")
        if self.human_cost < 0 or self.error_cost < 0:
            raise InvalidArgumentError(
                f"costs are {self.human_cost} and {self.error_cost}, expected 0 or more"
            )

    def costs(self, is_auto: Bools) -> npt.NDArray[np.float64]:
        """Tell what each item costs if those are automated, shape [n]."""
        return ~is_auto * self.human_cost + self._is_wrong(is_auto) * self.error_cost

    def outcome(self, is_auto: Bools) -> tuple[float, float]:
        """Tell the share of wrong answers, 0 to 1, and the cost per item if those are automated."""
        return float(self._is_wrong(is_auto).mean()), float(self.costs(is_auto).mean())

    def _is_wrong(self, is_auto: Bools) -> Bools:
        return ~np.where(is_auto, self.model_correct, self.human_correct)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """The degree of automation that is worth its cost, and why.

    Attributes:
        level: `human`, `partial` or `full`.
        reasons: A sentence about each of the three.
    """

    level: str
    reasons: tuple[str, ...]


def cost_curve(trial: Trial, *, n_points: int = 41) -> pd.DataFrame:
    """Tell what it costs to automate the surest share of the items, for shares from 0 to 1.

    Returns:
        One row per share: `coverage`, `threshold`, `error_rate` (0 to 1) and `cost` per item.

    >>> trial = Trial(
    ...     scores=np.array([0.9, 0.8, 0.7, 0.6]),
    ...     model_correct=np.array([True, True, True, False]),
    ...     human_correct=np.array([True, True, False, True]),
    ... )
    >>> cost_curve(trial, n_points=5)
       coverage  threshold  error_rate   cost
    0      0.00        inf        0.25   6.00
    1      0.25        0.9        0.25   5.75
    2      0.50        0.8        0.25   5.50
    3      0.75        0.7        0.00   0.25
    4      1.00        0.6        0.25   5.00
    """
    import pandas as pd

    n = trial.scores.size
    counts = np.unique(np.round(np.linspace(0, n, n_points)).astype(int))
    scores = np.nan_to_num(trial.scores, nan=-np.inf)
    thresholds = np.append(np.inf, np.sort(scores)[::-1])[counts]
    rows = []
    for threshold in np.unique(thresholds)[::-1]:  # ties go together
        is_auto = scores >= threshold
        rows.append((is_auto.mean(), threshold, *trial.outcome(is_auto)))
    return pd.DataFrame(rows, columns=["coverage", "threshold", "error_rate", "cost"])


def recommend(trial: Trial, certificate: Certificate) -> Recommendation:
    """Recommend people alone, part or all of the items automated: the cheapest that's allowed.

    Part means what the certificate lets through, and all is allowed only if that's everything. The
    threshold isn't chosen for its cost: that would be luck again. What's automated must be cheaper
    than people alone beyond doubt (confidence 95 %).

    Args:
        trial: Items other than those of the certificate.
        certificate: What may be automated.
    """
    is_none = np.zeros(trial.scores.size, np.bool_)
    human = trial.costs(is_none)
    reasons = [f"people alone cost {human.mean():.2f} per item"]
    level, best = "human", human.mean()
    parts = {"partial": certificate.automates(trial.scores), "full": ~np.isnan(trial.scores)}
    for name, is_auto in parts.items():
        cost = trial.costs(is_auto)
        saved = intervals.of_mean(human - cost)
        words = f"{name} automation costs {cost.mean():.2f} and saves {saved.value:.2f}"
        words += f" (at least {saved.lower:.2f})"
        if certificate.threshold is None:
            words += ", but no threshold is certified: " + certificate.reason
        elif name == "full" and certificate.threshold > 0:
            words += f", but the promise of {certificate.max_error:.3g} isn't certified for all"
        elif not saved.lower > 0:
            words += ", which isn't surely anything"
        elif cost.mean() < best:
            level, best = name, cost.mean()
        reasons.append(words)
    return Recommendation(level=level, reasons=tuple(reasons))
