import math
from itertools import chain

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.statistics import distances
from tests.statistics.test_mergeable import of

NUMBERS = st.lists(st.one_of(st.just(math.nan), st.integers(-9, 9).map(float)), max_size=30)


def column(values, dtype):
    return of(pd.DataFrame({"a": pd.Series(list(values), dtype=dtype)})).columns["a"]


def numbers(values):
    return column(values, "float64")


def texts(values):
    return column(values, object)


def psi_by_hand(reference, current):
    """The definition, on raw values and in other words."""
    cuts = np.unique(np.quantile(reference.dropna(), np.arange(1, 10) / 10))
    if cuts[-1] == reference.max():
        cuts = np.append(cuts, np.nextafter(cuts[-1], np.inf))
    p, q = (
        [
            max(np.mean((values >= low) & (values < high)), 1e-4)
            for low, high in zip([-np.inf, *cuts], [*cuts, np.inf], strict=True)
        ]
        + [max(values.isna().mean(), 1e-4)]
        for values in (reference, current)
    )
    return sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))


@given(reference=NUMBERS.filter(lambda v: not np.isnan(v).all()), current=NUMBERS.filter(bool))
def test_psi_is_as_defined(reference, current):
    assert distances.psi(numbers(reference), numbers(current)) == pytest.approx(
        psi_by_hand(pd.Series(reference), pd.Series(current)), abs=1e-12
    )


@given(a=NUMBERS, b=NUMBERS)
def test_ks_is_the_largest_gap_between_the_distributions(a, b):
    found = distances.ks(numbers(a), numbers(b))

    present = [[value for value in side if not math.isnan(value)] for side in (a, b)]
    if all(present):
        gaps = [
            abs(np.mean(np.array(present[0]) <= value) - np.mean(np.array(present[1]) <= value))
            for value in chain(*present)
        ]
        assert found == pytest.approx(max(gaps))
    else:
        assert math.isnan(found)


@given(
    p=st.lists(st.sampled_from("abcd"), min_size=1), q=st.lists(st.sampled_from("cdef"), min_size=1)
)
def test_jensen_shannon_is_that_of_scipy_and_l_infinity_the_largest_difference(p, q):
    shares = [[side.count(letter) / len(side) for letter in "abcdef"] for side in (p, q)]
    pair = texts(p), texts(q)

    assert distances.jensen_shannon(*pair) == pytest.approx(
        jensenshannon(*shares, base=2) ** 2, abs=1e-9
    )
    assert distances.l_infinity(*pair) == pytest.approx(np.abs(np.subtract(*shares)).max())


def test_jensen_shannon_of_numbers_uses_the_bins_of_both_sides():
    low, high = numbers([0, 1, 2, 10]), numbers([20, 30])

    assert distances.jensen_shannon(low, high) == pytest.approx(1.0)
    assert distances.jensen_shannon(low, low) == 0.0
    # Edges at 0, 1, 2 ... 10 and at 0, 2 ... 20: only the zeros share a bin.
    assert distances.jensen_shannon(
        numbers([0, 1, 2, 10]), numbers([0, 12, 14, 20])
    ) == pytest.approx(distances.jensen_shannon(texts("abcd"), texts("aefg")))


def test_a_column_that_vanishes_moves_into_the_bin_of_missing_ones():
    there, gone = numbers(range(100)), numbers([math.nan] * 100)

    assert distances.psi(there, gone) == pytest.approx(
        10 * (0.1 - 1e-4) * math.log(0.1 / 1e-4) + (1 - 1e-4) * math.log(1e4)
    )
    assert distances.psi(texts("ab"), texts([None, None])) > 5
    assert distances.psi(gone, gone) == 0.0
    assert math.isnan(distances.jensen_shannon(there, gone))
    assert math.isnan(distances.l_infinity(texts("ab"), gone))


def test_rounded_columns_are_compared_at_the_level_of_the_coarser():
    rng = np.random.default_rng(0)
    many, few = rng.normal(size=100_000), rng.normal(0.5, size=5_000)
    coarse, exact = numbers(many), numbers(few)
    assert (coarse.level > 0, exact.level) == (True, 0)

    assert distances.psi(coarse, exact) == pytest.approx(
        psi_by_hand(pd.Series(many), pd.Series(few)), rel=0.01
    )
    assert distances.ks(coarse, exact) == pytest.approx(0.197, abs=0.015)


@pytest.mark.parametrize(
    ("distance", "sides", "message"),
    [
        (distances.psi, (numbers([1.0]), texts("a")), "kind number and one of kind text"),
        (distances.l_infinity, (numbers([1.0]), numbers([1.0])), "between columns of texts"),
        (distances.ks, (texts("a"), texts("a")), "between columns of numbers"),
    ],
)
def test_a_distance_that_makes_no_sense_is_refused(distance, sides, message):
    with pytest.raises(InvalidArgumentError, match=message):
        distance(*sides)


@pytest.mark.parametrize("now", [9.0, 1.0, math.inf, -math.inf])
def test_a_constant_that_becomes_another_has_moved(now):
    before, after = numbers([5.0] * 20), numbers([now] * 20)

    assert distances.psi(before, after) > 5
    assert distances.jensen_shannon(before, after) == 1.0
    assert distances.jensen_shannon(after, before) == 1.0
    assert distances.ks(before, after) == 1.0


def test_numbers_that_outgrow_a_frequent_maximum_have_moved():
    before, after = numbers([0, 1] * 20), numbers([0, 7] * 20)

    assert distances.psi(before, after) > 1


def test_infinite_numbers_have_bins_of_their_own():
    before, after = numbers(range(10)), numbers([*range(9), math.inf])

    assert distances.jensen_shannon(before, after) > 0.04
    assert distances.jensen_shannon(after, after) == 0.0


def test_the_bins_of_a_psi_sum_up_to_it() -> None:
    rng = np.random.default_rng(0)
    then = pd.DataFrame({"delay": rng.normal(size=900), "plan": ["a", "b", "b"] * 300})
    now = pd.DataFrame(
        {"delay": [*rng.normal(0.5, size=500), np.nan], "plan": ["c", "b", "a"] * 167}
    )
    a, b = (of(table).columns for table in (then, now))

    delay, plan = (distances.psi_bins(a[name], b[name]) for name in ("delay", "plan"))

    assert delay["psi"].sum() == pytest.approx(distances.psi(a["delay"], b["delay"]))
    assert len(delay) == 11
    assert delay["bin"].isna().tolist() == [False] * 10 + [True]
    assert delay["current"].iloc[-1] == pytest.approx(1 / 501)
    plan = plan.set_index("bin")
    assert plan.loc["b"].round(2).tolist()[:2] == [0.67, 0.33]
    assert plan.loc["c", "reference"] == distances.MIN_SHARE
