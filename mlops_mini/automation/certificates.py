"""Certificates: from which score on the model may decide alone, with a promise that is kept.

The promise is that among the automated items at most `max_error` are wrong, and it holds with the
given confidence. The obvious way, to take the loosest threshold whose error on labeled items is low
enough, breaks this promise in a sixth to half of all draws, since the threshold is chosen by luck.
Here thresholds are tried in an order that is fixed beforehand, strict to loose, each by an exact
binomial test, until one fails.

Source:
    Angelopoulos, Bates, Candès, Jordan, Lei: Learn then test, 2021, https://arxiv.org/abs/2110.01052
    (fixed sequence testing); Clopper, Pearson, Biometrika 26, 1934 (the bound).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import InvalidArgumentError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Items above the strictest threshold that is tried: so many, or that share if it's fewer.
_START, _START_SHARE = 300, 0.3
_MOST = 1_000_000  # no advice to label more than this


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What a certificate was made for; beyond that it says nothing.

    Attributes:
        model_version: The version whose scores were judged.
        data_from: When the first of the labeled items came in.
        data_until: When the last one did.
        expires_at: When the certificate ends, since the items that come in change.
    """

    model_version: int
    data_from: datetime
    data_until: datetime
    expires_at: datetime

    def __post_init__(self) -> None:
        if not self.data_from <= self.data_until < self.expires_at:
            raise InvalidArgumentError(
                f"a certificate on data from {self.data_from} until {self.data_until} can't expire"
                f" at {self.expires_at}: give three instants in this order"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """From which score on items may be automated, or why none may.

    Attributes:
        scope: The model version and the days that it holds for.
        threshold: Items with this score or more may be automated; None if none may.
        max_error: The promise: largest share of wrong answers among automated items, 0 to 1.
        confidence: Chance that the promise is kept, 0 to 1.
        n: Number of labeled items.
        n_auto: How many of them reach the threshold; without one, the strictest that was tried.
        errors: How many of these the model got wrong.
        upper_bound: Their true share is at most this, with the same confidence.
        reason: Why this threshold, or why none.
        n_more: How many more items to label if none may be automated: 0 if some may, and None if
            labels won't help, since the model is wrong too often where it's surest.
    """

    scope: Scope
    threshold: float | None
    max_error: float
    confidence: float
    n: int
    n_auto: int
    errors: int
    upper_bound: float
    reason: str
    n_more: int | None

    @property
    def coverage(self) -> float:
        """Share of the labeled items that would have been automated, 0 to 1."""
        return self.n_auto / self.n if self.threshold is not None else 0.0

    def automates(self, scores: npt.ArrayLike) -> Bools:
        """Tell for each score whether its item may be automated; NaN never may."""
        values = np.asarray(scores, np.float64)
        if self.threshold is None:
            return np.zeros(values.shape, np.bool_)
        return np.asarray(values >= self.threshold)

    def why_void(self, *, model_version: int | None, at: datetime) -> str:
        """Say why the certificate doesn't hold for a version at some time; empty if it does."""
        scope = self.scope
        if model_version != scope.model_version:
            return f"it's for model version {scope.model_version}, not {model_version}"
        if at >= scope.expires_at:
            return f"it expired at {scope.expires_at:%Y-%m-%d %H:%M}"
        if at < scope.data_from:
            return f"its data begin only at {scope.data_from:%Y-%m-%d %H:%M}"
        return ""


def certify_threshold(
    scores: npt.ArrayLike,
    correct: npt.ArrayLike,
    *,
    other_scores: npt.ArrayLike,
    scope: Scope,
    max_error: float = 0.02,
    confidence: float = 0.95,
    min_auto: int | None = None,
    step: float = 0.01,
) -> Certificate:
    """Find the loosest threshold that surely keeps a promise.

    Args:
        scores: The model's confidence in its answer to each labeled item, 0 to 1, shape [n]. An
            item whose score is NaN is never automated.
        correct: Whether the answer was right, shape [n].
        other_scores: Scores of *other* items, which need no labels, such as last week's. The
            thresholds to try are cut from them, each `step` further down, and then 0. So they can't
            depend on the labels.
        scope: What the labeled items stand for.
        max_error: Largest share of errors among automated items, between 0 and 1.
        confidence: Chance that this is kept, between 0 and 1.
        min_auto: Labeled items that the first threshold must let through; by default 300, or 30 %
            of them if that is less.
        step: Share of the other items between two thresholds, above 0, up to 1.

    Raises:
        InvalidArgumentError: Scores aren't between 0 and 1, an array has another shape, `correct`
            holds something else than yes and no, or a limit has no meaning.

    >>> day = datetime(2026, 5, 1)
    >>> scope = Scope(
    ...     model_version=1, data_from=day, data_until=day, expires_at=datetime(2026, 6, 1)
    ... )
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.random(2000)
    >>> correct = rng.random(2000) < 0.6 + 0.4 * np.sqrt(scores)
    >>> made = certify_threshold(scores, correct, other_scores=rng.random(4000), scope=scope)
    >>> made.threshold, made.reason.partition(": ")[2]
    (None, 'label 3,988 more')
    """
    values, is_correct = _checked(scores, correct)
    others = np.asarray(other_scores, np.float64)
    _check_limits(others, max_error, confidence, step)
    n_clean = math.ceil(math.log(1 - confidence) / math.log(1 - max_error))  # without an error
    least = min(_START, math.ceil(_START_SHARE * values.size)) if min_auto is None else min_auto
    thresholds = _grid(others, step)
    ranked = np.sort(values[~np.isnan(values)])
    n_auto = ranked.size - np.searchsorted(ranked, thresholds)
    wrong = np.sort(values[~np.isnan(values) & ~is_correct])
    errors = wrong.size - np.searchsorted(wrong, thresholds)
    is_tried = n_auto >= max(least, n_clean)
    if not is_tried.any():  # then the advice is about the surest 30 %
        is_tried = np.mean(others >= thresholds[:, None], axis=1) >= _START_SHARE
    first = int(is_tried.argmax())
    passed = _p_value(errors[first:], n_auto[first:], max_error) <= 1 - confidence
    n_passed = int(np.logical_and.accumulate(passed).sum())
    at = first + max(n_passed - 1, 0)
    n, k = int(n_auto[at]), int(errors[at])
    n_more: int | None = 0
    if not n_passed:
        share = n / values.size if n else float(np.mean(others >= thresholds[at]))
        n_more = _n_more(n, k, share, n_clean, max_error, 1 - confidence)
    bound = _upper_bound(k, n, confidence)
    words = (
        f"{k:,} errors among the {n:,} surest items, up to {bound:.1%} with confidence".replace(
            "%", " %"
        )
        + f" {100 * confidence:.4g} %"
    )
    advice = "" if n_passed else ": " + _advice(n_more)
    return Certificate(
        scope=scope,
        threshold=float(thresholds[at]) if n_passed else None,
        max_error=max_error,
        confidence=confidence,
        n=int(values.size),
        n_auto=n,
        errors=k,
        upper_bound=bound,
        reason=words + advice,
        n_more=n_more,
    )


def certify_categories(
    scores: npt.ArrayLike,
    correct: npt.ArrayLike,
    predicted: npt.ArrayLike,
    *,
    categories: Sequence[str],
    other_scores: npt.ArrayLike,
    other_predicted: npt.ArrayLike,
    scope: Scope,
    max_error: float = 0.02,
    confidence: float = 0.95,
) -> dict[str, Certificate]:
    """Find a threshold for each predicted category, so that all promises are kept together.

    A promise over all items may hide a category in which most answers are wrong. It's the predicted
    category that counts, since the true one isn't known when an item comes in.

    Args:
        scores: As for `certify_threshold`, shape [n].
        correct: Whether the answer was right, shape [n].
        predicted: The model's answer, shape [n].
        categories: All that the model may answer, each once.
        other_scores: Scores of other items.
        other_predicted: The model's answers to these.
        scope: What the labeled items stand for.
        max_error: Largest share of errors among a category's automated items.
        confidence: Chance that all promises are kept; each alone is held to more (Bonferroni).

    Returns:
        A certificate for each category.

    Raises:
        InvalidArgumentError: As `certify_threshold`; or an answer isn't among the categories.
    """
    answers, other_answers = np.asarray(predicted), np.asarray(other_predicted)
    values, is_correct = _checked(scores, correct)
    others = np.asarray(other_scores, np.float64)
    if answers.shape != values.shape or other_answers.shape != others.shape:
        raise InvalidArgumentError(
            f"need one answer per score, got {answers.shape} answers and {values.shape} scores,"
            f" and of other items {other_answers.shape} and {others.shape}"
        )
    unknown = sorted({str(a) for a in np.unique(answers)} - set(categories))
    if unknown or len(set(categories)) != len(categories):
        raise InvalidArgumentError(
            f"categories must hold every answer once; got {list(categories)}, without {unknown}"
        )
    return {
        category: certify_threshold(
            values[answers == category],
            is_correct[answers == category],
            other_scores=others[other_answers == category],
            scope=scope,
            max_error=max_error,
            confidence=1 - (1 - confidence) / len(categories),
        )
        for category in categories
    }


def naive_threshold(
    scores: npt.ArrayLike,
    correct: npt.ArrayLike,
    *,
    other_scores: npt.ArrayLike,
    max_error: float = 0.02,
    step: float = 0.01,
) -> float:
    """Find the loosest threshold whose error on labeled items is low enough: the obvious way.

    It's here to be compared with `certify_threshold`, whose arguments it takes. Its promise is
    broken far more often than in one case of 20.

    Returns:
        The threshold; infinity if there's none.
    """
    values, is_correct = _checked(scores, correct)
    thresholds = _grid(np.asarray(other_scores, np.float64), step)
    is_auto = values >= thresholds[:, None]
    n_auto, errors = is_auto.sum(1), (is_auto & ~is_correct).sum(1)
    is_low = (n_auto > 0) & (errors <= max_error * n_auto)
    return float(thresholds[is_low].min(initial=np.inf))


def _checked(scores: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[Floats, Bools]:
    values, answers = np.asarray(scores, np.float64), np.asarray(correct)
    if values.ndim != 1 or answers.shape != values.shape:
        raise InvalidArgumentError(
            f"need one score and one yes or no per item, got {values.shape} and {answers.shape}"
        )
    _check_range(values)
    if not np.isin(answers, (0, 1)).all():
        raise InvalidArgumentError(
            "`correct` holds something else than yes and no: leave items without a label out"
        )
    return values, answers.astype(np.bool_)


def _check_range(values: Floats) -> None:
    if ((values < 0) | (values > 1)).any():
        raise InvalidArgumentError(
            f"scores are {np.nanmin(values):.3g} to {np.nanmax(values):.3g}, expected 0 to 1: give"
            " the probability of the model's answer, not its logit"
        )


def _check_limits(others: Floats, max_error: float, confidence: float, step: float) -> None:
    if not 0 < max_error < 1 or not 0 < confidence < 1 or not 0 < step <= 1:
        raise InvalidArgumentError(
            f"max_error is {max_error}, confidence {confidence} and step {step}: expected all"
            " between 0 and 1"
        )
    _check_range(others)
    if others.ndim != 1 or not np.isfinite(others).any():
        raise InvalidArgumentError("`other_scores` holds no score, so there's no threshold to try")


def _grid(others: Floats, step: float) -> Floats:
    """Cut thresholds from scores, strict to loose; the last one lets everything through."""
    finite = others[np.isfinite(others)]
    shares = np.arange(1, round(1 / step)) * step
    cuts = np.quantile(finite, 1 - shares, method="higher")
    return np.unique(np.append(cuts, 0.0))[::-1]


def _p_value(errors: npt.ArrayLike, n: npt.ArrayLike, max_error: float) -> Floats:
    """How likely so few errors are if more than allowed are to be expected."""
    import scipy.stats

    return np.asarray(scipy.stats.binom.cdf(errors, n, max_error))


def _upper_bound(errors: int, n: int, confidence: float) -> float:
    import scipy.stats

    return 1.0 if errors == n else float(scipy.stats.beta.ppf(confidence, errors + 1, n - errors))


def _n_more(
    n: int, errors: int, share: float, n_clean: int, max_error: float, alpha: float
) -> int | None:
    """Tell how many items to label so that the same share of errors would pass."""
    rate = errors / n if n else 0.0
    if rate >= max_error or not share:
        return None
    sizes = np.unique(np.geomspace(max(n, n_clean, 1), _MOST, 2_000).astype(np.int64))
    enough = sizes[_p_value(np.ceil(rate * sizes), sizes, max_error) <= alpha]
    return math.ceil((int(enough[0]) - n) / share) if enough.size else None


def _advice(n_more: int | None) -> str:
    if n_more is None:
        return "that's too many to be helped by more labels"
    return f"label {n_more:,} more"
