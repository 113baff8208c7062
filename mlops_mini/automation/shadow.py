"""Shadow mode: what the model would have said, beside what people said, before it has any say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import InvalidArgumentError


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowReport:
    """How a model compares with a person on the same items.

    Attributes:
        n: Items that both have answered.
        n_disagreements: How many they answered differently.
        kappa: Cohen's kappa: agreement beyond chance, 1 if they always agree.
        n_adjudicated: Disagreements of which the truth is known.
        only_model_right: Those in which the model was right and the person wrong.
        only_human_right: The other way round. In what's left, both were wrong.
        p_better: McNemar's exact one-sided p-value, for "the model isn't better than the person".
        lead: Accuracy of the model minus that of the person, -1 to 1.
        lead_lower: The true lead is at least this, with confidence 95 %.
        repaired_lower: At least this share of all items is answered wrong by the person and right
            by the model, 0 to 1, with confidence 95 %: what hints might repair.
    """

    n: int
    n_disagreements: int
    kappa: float
    n_adjudicated: int
    only_model_right: int
    only_human_right: int
    p_better: float
    lead: float
    lead_lower: float
    repaired_lower: float

    @property
    def agreement(self) -> float:
        """Share of items that both answered alike, 0 to 1."""
        return 1 - self.n_disagreements / self.n

    def is_not_worse(self, margin: float) -> bool:
        """Tell whether the model is surely at most `margin`, 0 to 1, less accurate."""
        return self.lead_lower > -margin


def shadow_report(model: npt.ArrayLike, human: npt.ArrayLike, truth: npt.ArrayLike) -> ShadowReport:
    """Compare a model in shadow mode with the people who decide.

    The truth is needed only where the two disagree; what they agree on says nothing about which of
    them is better. Disagreements of which it's not known yet are taken to be like the others.

    Args:
        model: The model's answer to each item, shape [n].
        human: The person's, shape [n].
        truth: What an adjudicator says, shape [n]; None, NaN or empty where nobody has.

    Raises:
        InvalidArgumentError: There are no items, or the shapes differ.

    Source:
        McNemar, Psychometrika 12, 1947; Agresti, Min, Statistics in Medicine 24, 2005 (limits for a
        difference of paired shares); Cohen, 1960.

    >>> report = shadow_report(list("aabbab"), list("abbbaa"), [None, "a", None, None, None, "b"])
    >>> report.only_model_right, report.only_human_right, round(report.kappa, 2)
    (2, 0, 0.33)
    """
    import pandas as pd
    import scipy.stats
    from sklearn.metrics import cohen_kappa_score

    by_model, by_human, known = (np.asarray(a, object) for a in (model, human, truth))
    if (
        not by_model.size
        or not by_model.ndim == 1
        or not by_model.shape == by_human.shape == known.shape
    ):
        raise InvalidArgumentError(
            f"need some items with two answers and a truth each, got shapes {by_model.shape},"
            f" {by_human.shape} and {known.shape}"
        )
    n = by_model.size
    is_apart = by_model != by_human
    is_judged = is_apart & ~pd.isna(known) & (known != "")
    only_model = int((by_model == known)[is_judged].sum())
    only_human = int((by_human == known)[is_judged].sum())
    n_judged, n_apart = int(is_judged.sum()), int(is_apart.sum())
    # The share of items that these stand for, if the rest of the disagreements is like them.
    scale = n_apart / n_judged if n_judged else 0.0
    # Items that stand for themselves: with half of the disagreements judged, half of all items.
    n_known = n / scale if n_judged else n
    lead = (only_model - only_human) / n_known
    # Half a pair is added to each cell, or without a disagreement there'd be no doubt at all.
    n_more = n_known + 2
    shares = (only_model + 0.5) / n_more, (only_human + 0.5) / n_more
    error = np.sqrt((sum(shares) - (shares[0] - shares[1]) ** 2) / n_more)
    lower = shares[0] - shares[1] - scipy.stats.norm.ppf(0.95) * error
    repaired = scipy.stats.beta.ppf(0.05, only_model, n_known - only_model + 1) if only_model else 0
    codes = pd.factorize(np.concatenate([by_model, by_human]).astype(str))[0]
    always_alike = n_apart == 0  # of one category alone kappa isn't defined
    return ShadowReport(
        n=n,
        n_disagreements=n_apart,
        kappa=1.0 if always_alike else float(cohen_kappa_score(codes[:n], codes[n:])),
        n_adjudicated=n_judged,
        only_model_right=only_model,
        only_human_right=only_human,
        p_better=_p_better(only_model, only_model + only_human),
        lead=lead,
        lead_lower=float(lower) if n_judged or always_alike else -1.0,
        repaired_lower=float(repaired),
    )


def power(
    n: int, *, only_model_right: float, only_human_right: float, alpha: float = 0.05
) -> float:
    """Tell how likely shadow mode is to show that a better model is better.

    Args:
        n: Items.
        only_model_right: Share of items that the model gets right and the person wrong, 0 to 1.
        only_human_right: The other way round.
        alpha: Level of the exact McNemar test, 0 to 1.

    Raises:
        InvalidArgumentError: The shares aren't between 0 and 1 together.

    >>> round(power(500, only_model_right=0.09, only_human_right=0.05), 2)
    0.74
    """
    import scipy.stats

    apart = only_model_right + only_human_right
    if not 0 < apart <= 1 or min(only_model_right, only_human_right) < 0:
        raise InvalidArgumentError(
            f"shares are {only_model_right} and {only_human_right}: expected at least 0, and a sum"
            " above 0 and up to 1"
        )
    n_apart = np.arange(n + 1)
    # The smallest number of wins among so many that is significant.
    needed = scipy.stats.binom.isf(alpha, n_apart, 0.5) + 1
    wins = scipy.stats.binom.sf(needed - 1, n_apart, only_model_right / apart)
    return float((scipy.stats.binom.pmf(n_apart, n, apart) * wins).sum())


def _p_better(wins: int, n: int) -> float:
    import scipy.stats

    return float(scipy.stats.binomtest(wins, n, alternative="greater").pvalue) if n else 1.0
