"""Intervals over days hold what they promise; those over rows don't."""

import math

import numpy as np
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.evidence import intervals

N_DRAWS, N_DAYS, N_ROWS_A_DAY = 1_000, 14, 200
NOMINAL = 0.05
# What 1,000 draws may be above the nominal rate by chance.
ALLOWED = NOMINAL + 3 * math.sqrt(NOMINAL * (1 - NOMINAL) / N_DRAWS)


def drawn_sums(mean: float, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw differences of rows that share their day's: sums, sums of squares, rows, by day."""
    rng = np.random.default_rng(seed)
    n_rows = rng.integers(N_ROWS_A_DAY // 2, 3 * N_ROWS_A_DAY // 2, (N_DRAWS, N_DAYS))
    of_day = rng.normal(mean, 0.01, (N_DRAWS, N_DAYS))
    noise = 0.05
    sums = n_rows * of_day + rng.normal(0, noise * np.sqrt(n_rows))
    squares = n_rows * (of_day**2 + noise**2)
    return sums, squares, n_rows


def row_wise(sums: np.ndarray, squares: np.ndarray, n_rows: np.ndarray) -> tuple:
    """Limits as if each row were independent."""
    n = n_rows.sum(-1)
    mean = sums.sum(-1) / n
    error = np.sqrt((squares.sum(-1) / n - mean**2) / n)
    return mean - 1.645 * error, mean + 1.645 * error


@pytest.mark.parametrize("better_by", [0.0, 0.001], ids=["equal", "slightly better"])
def test_a_candidate_that_is_no_worse_is_rarely_refused(better_by: float) -> None:
    sums, squares, n_rows = drawn_sums(-better_by, seed=1)

    _, lower, _ = intervals.limits(sums, n_rows)

    assert (lower > 0).mean() <= ALLOWED
    row_lower, _ = row_wise(sums, squares, n_rows)
    assert (row_lower > 0).mean() > 2 * ALLOWED


def test_a_candidate_that_is_worse_by_the_margin_is_rarely_blessed() -> None:
    margin = 0.002
    sums, squares, n_rows = drawn_sums(margin, seed=2)

    _, _, upper = intervals.limits(sums, n_rows)

    assert (upper < margin).mean() <= ALLOWED
    _, row_upper = row_wise(sums, squares, n_rows)
    assert (row_upper < margin).mean() > 2 * ALLOWED


def test_few_days_are_not_too_sure_either() -> None:
    """Six days with a bent distribution: what the bootstrap is for."""
    rng = np.random.default_rng(3)
    n_refused = 0
    for _ in range(300):
        of_day = rng.exponential(0.01, 6) - 0.01
        interval = intervals.of_mean(np.repeat(of_day, 5), np.repeat(np.arange(6), 5))
        n_refused += interval.upper < 0

    assert n_refused / 300 <= NOMINAL + 3 * math.sqrt(NOMINAL * (1 - NOMINAL) / 300)


def test_many_rows_of_one_day_are_one_observation() -> None:
    day = np.repeat(np.arange(20), 1_000)
    values = np.random.default_rng(4).normal(size=20)[day]

    by_day, by_row = intervals.of_mean(values, day), intervals.of_mean(values)

    assert by_day.value == pytest.approx(by_row.value)
    assert (by_day.n_rows, by_day.n_clusters, by_row.n_clusters) == (20_000, 20, 20_000)
    assert by_day.standard_error > 20 * by_row.standard_error


def test_sums_and_rows_give_the_same_interval() -> None:
    rng = np.random.default_rng(5)
    day, values = rng.integers(0, 15, 900), rng.normal(size=900)

    one = intervals.of_mean(values, day)

    sums, totals = np.bincount(day, values), np.bincount(day)
    assert np.allclose(intervals.limits(sums, totals), (one.value, one.lower, one.upper))


def test_a_ratio_has_other_weights() -> None:
    predicted, labels = [0.2, 0.4, 0.6, 0.8], [0, 0, 1, 1]

    interval = intervals.of_mean(predicted, [1, 1, 2, 2], weights=labels)

    assert interval.value == pytest.approx(1.0)


def test_one_day_says_nothing() -> None:
    interval = intervals.of_mean([1.0, 2.0], [7, 7])

    assert interval.value == 1.5
    assert math.isnan(interval.lower)
    assert math.isnan(interval.upper)


def test_leaving_out_days_is_right_for_a_mean_too() -> None:
    rng = np.random.default_rng(6)
    day, values = np.repeat(np.arange(12), 30), rng.normal(size=360)

    left_out = intervals.jackknife(lambda rows: float(values[rows].mean()), day)

    summed = intervals.of_mean(values, day)
    assert left_out.value == pytest.approx(summed.value)
    assert left_out.lower == pytest.approx(summed.lower)
    assert left_out.standard_error == pytest.approx(summed.standard_error)


@pytest.mark.parametrize(
    ("values", "clusters", "confidence"),
    [([], [], 0.95), ([1.0, 2.0], [1], 0.95), ([[1.0]], [[1]], 0.95), ([1.0, 2.0], [1, 2], 0.5)],
)
def test_refuses_what_has_no_interval(values, clusters, confidence) -> None:
    with pytest.raises(InvalidArgumentError):
        intervals.of_mean(values, clusters, confidence=confidence)
