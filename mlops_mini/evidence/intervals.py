"""Intervals of a mean whose rows come in clusters, such as the days on which they were observed.

What happens on one day moves together: a storm delays all that day's rows, and they're one
observation of a storm, not thousands. An interval that takes rows as independent is then far too
narrow, however many rows there are. Here the clusters are what is independent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import InvalidArgumentError

# With fewer clusters than this, one odd day bends the t interval: then the bootstrap's is used.
FEW_CLUSTERS = 10
_N_RESAMPLES = 4_000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean, and how sure it is.

    Attributes:
        value: The mean over all rows.
        lower: Below the true mean with probability `confidence`, in the long run.
        upper: Above it with the same probability. Both are NaN with fewer than two clusters, which
            tell nothing.
        standard_error: Of the mean, NaN likewise.
        n_rows: Number of rows.
        n_clusters: Number of clusters with a row.
    """

    value: float
    lower: float
    upper: float
    standard_error: float
    n_rows: int
    n_clusters: int


def of_mean(
    values: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    weights: npt.ArrayLike | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Estimate a mean, with one-sided limits on either side.

    The values are summed by cluster, and the sums give the interval: Student's t with the
    linearized variance of a ratio, or a studentized bootstrap over the clusters if there are fewer
    than `FEW_CLUSTERS`.

    Args:
        values: One number per row, shape [n_rows].
        clusters: What each row belongs to, such as its day, shape [n_rows]; without it each row
            counts as independent.
        weights: What each row weighs, shape [n_rows], 1 if left out. The estimate is the sum of the
            values over the sum of the weights, so other denominators make ratios.
        confidence: Of each limit alone, above .5 and below 1.
        seed: Of the bootstrap.

    Raises:
        InvalidArgumentError: There's no row, or the shapes or the confidence don't fit.

    Source:
        Cochran, Sampling Techniques, 3rd ed., 6.3 and 9A.1 (ratio estimate of cluster sums); Efron
        and Tibshirani, An Introduction to the Bootstrap, 12.5 (bootstrap-t).

    >>> day = np.repeat(np.arange(20), 500)
    >>> shared = np.random.default_rng(0).normal(size=20)[day]
    >>> round(of_mean(shared, day).standard_error / of_mean(shared).standard_error)
    23
    """
    rows = np.asarray(values, np.float64)
    shares = np.ones_like(rows) if weights is None else np.asarray(weights, np.float64)
    groups = np.arange(rows.size) if clusters is None else np.asarray(clusters)
    if rows.ndim != 1 or not rows.size or not rows.shape == shares.shape == groups.shape:
        raise InvalidArgumentError(
            "need some rows, and one value, weight and cluster for each; got shapes"
            f" {list(rows.shape)}, {list(shares.shape)} and {list(groups.shape)}"
        )
    _, index = np.unique(groups, return_inverse=True)
    sums: Floats = np.bincount(index, rows).astype(np.float64)
    totals: Floats = np.bincount(index, shares).astype(np.float64)
    if sums.size < FEW_CLUSTERS:
        value, lower, upper = _bootstrap_limits(sums, totals, confidence, seed)
    else:
        value, lower, upper = (float(part) for part in limits(sums, totals, confidence=confidence))
    return Interval(
        value=value,
        lower=lower,
        upper=upper,
        standard_error=float(_mean_and_error(sums, totals)[1]),
        n_rows=rows.size,
        n_clusters=int(sums.size),
    )


def jackknife(
    statistic: Callable[[npt.NDArray[np.bool_]], float],
    clusters: npt.ArrayLike,
    *,
    confidence: float = 0.95,
) -> Interval:
    """Estimate what is no mean, such as an area under a curve, with one-sided limits.

    Args:
        statistic: Computes it from some of the rows, given as a mask of shape [n_rows]; NaN where
            it has no meaning.
        clusters: What each row belongs to, such as its day, shape [n_rows].
        confidence: Of each limit alone, above .5 and below 1.

    Returns:
        The statistic of all rows. Its limits come from leaving out one cluster at a time, by
        Student's t; they're NaN with one cluster, or if the statistic is NaN without some cluster.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap, 11 (the delete-a-group jackknife).

    >>> values = np.arange(40.0)
    >>> interval = jackknife(lambda rows: float(np.median(values[rows])), np.arange(40) // 4)
    >>> interval.value, interval.lower < 19.5 < interval.upper
    (19.5, True)
    """
    groups = np.asarray(clusters)
    distinct = np.unique(groups)
    value = statistic(np.ones(groups.shape, bool))
    without = np.array([statistic(groups != each) for each in distinct])
    pseudo_values = distinct.size * value - (distinct.size - 1) * without
    _, lower, upper = (float(part) for part in limits(pseudo_values, 1, confidence=confidence))
    error = float(_mean_and_error(pseudo_values, np.ones(distinct.size))[1])
    mean = float(pseudo_values.mean())
    return Interval(
        value=value,
        lower=value + lower - mean,
        upper=value + upper - mean,
        standard_error=error,
        n_rows=groups.size,
        n_clusters=int(distinct.size),
    )


def limits(
    sums: npt.ArrayLike, totals: npt.ArrayLike, *, confidence: float = 0.95
) -> tuple[Floats, Floats, Floats]:
    """Estimate many means at once from sums by cluster, by Student's t.

    Args:
        sums: Sum of the values of each cluster, shape [..., n_clusters].
        totals: Sum of the weights of each cluster, such as its number of rows; the same shape or
            one that broadcasts to it.
        confidence: Of each limit alone, above .5 and below 1.

    Returns:
        Mean, lower and upper limit, each of shape [...]; the limits are NaN with one cluster.

    Raises:
        InvalidArgumentError: The confidence isn't between .5 and 1.

    >>> value, lower, upper = limits([[1.0, 2, 3], [2, 2, 2]], [1, 1, 1])
    >>> value, lower.round(2)
    (array([2., 2.]), array([0.31, 2.  ]))
    """
    import scipy.stats

    if not 0.5 < confidence < 1:
        raise InvalidArgumentError(f"confidence is {confidence}, expected above .5 and below 1")
    by_cluster, weights = np.broadcast_arrays(np.asarray(sums, np.float64), totals)
    value, error = _mean_and_error(by_cluster, weights.astype(np.float64))
    n_clusters = by_cluster.shape[-1]
    if n_clusters < 2:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    reach = scipy.stats.t.ppf(confidence, n_clusters - 1) * error
    return value, value - reach, value + reach


def _mean_and_error(sums: Floats, totals: Floats) -> tuple[Any, Any]:
    """Estimate means, shape [...], and their standard errors, NaN with one cluster."""
    n_clusters = sums.shape[-1]
    with np.errstate(divide="ignore", invalid="ignore"):  # weights may be 0 in all
        value = sums.sum(-1) / totals.sum(-1)
        residuals = sums - np.expand_dims(value, -1) * totals
        correction = np.float64(n_clusters) / (n_clusters - 1)
        error = np.sqrt(correction * (residuals**2).sum(-1)) / totals.sum(-1)
    return value, error


def _bootstrap_limits(
    sums: Floats, totals: Floats, confidence: float, seed: int
) -> tuple[float, float, float]:
    """Estimate a mean by the bootstrap-t, never narrower than by Student's t."""
    value, t_lower, t_upper = (float(part) for part in limits(sums, totals, confidence=confidence))
    _, error = _mean_and_error(sums, totals)
    if not error > 0:  # all clusters are alike, or there's but one
        return value, t_lower, t_upper
    drawn = np.random.default_rng(seed).integers(sums.size, size=(_N_RESAMPLES, sums.size))
    means, errors = _mean_and_error(sums[drawn], totals[drawn])
    # The same cluster drawn each time has no error of its own, and says nothing.
    has_error = errors > 1e-9 * error
    pivots = (means[has_error] - value) / errors[has_error]
    low, high = np.quantile(pivots, [1 - confidence, confidence])
    return value, min(t_lower, value - high * error), max(t_upper, value - low * error)
