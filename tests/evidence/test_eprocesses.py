from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.evidence import eprocesses
from mlops_mini.evidence.eprocesses import Looks

_NAMES = ("n_treatment", "n_control", "bad_treatment", "bad_control")
# Five looks and what each test says after them, computed by another program.
FIVE_LOOKS = Looks(
    n_treatment=np.array([50, 52, 47, 51, 50]),
    n_control=np.array([450, 448, 453, 449, 450]),
    bad_treatment=np.array([1, 3, 2, 4, 5]),
    bad_control=np.array([5, 4, 6, 3, 5]),
)


def _simulated(
    rng: np.random.Generator, n_runs: int, treatment: np.ndarray, control: np.ndarray
) -> Looks:
    """Draw looks of 500 trials, a tenth of them the treatment's, with a rate for each look."""
    n_treatment = rng.binomial(500, 0.1, size=(n_runs, len(control)))
    return Looks(
        n_treatment=n_treatment,
        n_control=500 - n_treatment,
        bad_treatment=rng.binomial(n_treatment, treatment),
        bad_control=rng.binomial(500 - n_treatment, control),
    )


def _alarms(log_e: np.ndarray, alpha: float = 0.05) -> float:
    """Share of experiments in which a test is alarmed after at least one look."""
    return float((log_e >= np.log(1 / alpha)).any(axis=-1).mean())


def test_five_looks_give_the_worked_numbers() -> None:
    expected = {
        eprocesses.two_by_two: [0.000000, 1.128530, 1.949217, 5.476235, 10.259814],
        eprocesses.rate_ratio: [-0.426306, 1.353044, 1.948260, 5.567296, 10.192635],
    }
    for test, log_e in expected.items():
        np.testing.assert_allclose(test(FIVE_LOOKS), log_e, atol=1e-6)
    np.testing.assert_allclose(
        eprocesses.not_worse(FIVE_LOOKS, margin=1.5),
        [-0.337752, -1.511448, -1.878605, -2.579307, -3.153226],
        atol=1e-6,
    )


def test_pairs_and_disagreements_give_the_worked_numbers() -> None:
    np.testing.assert_allclose(
        eprocesses.mcnemar([5, 4, 7], [2, 3, 1]), [0.374197, -0.067413, 1.679950], atol=1e-6
    )
    np.testing.assert_allclose(
        eprocesses.above_rate([8, 11, 14], [50, 50, 50], max_rate=0.12),
        [-1.204310, 0.392969, 4.150661],
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("x", "n", "log_e"),
    [
        (125, 500, -0.898889),
        (100, 500, 2.057075),
        (200, 1000, 5.203277),
        (300, 1500, 8.497471),
        (0, 20, 0.551218),
        (0, 500, 96.028594),
    ],
)
def test_the_sample_ratio_gives_the_worked_numbers(x: int, n: int, log_e: float) -> None:
    assert eprocesses.sample_ratio([x], [n - x], [0.25]) == pytest.approx(log_e, abs=1e-6)


def test_a_new_share_starts_a_new_segment() -> None:
    one = eprocesses.sample_ratio([100, 110], [400, 390], [0.25, 0.25])
    other = eprocesses.sample_ratio([300], [200], [0.5])

    both = eprocesses.sample_ratio([100, 110, 300], [400, 390, 200], [0.25, 0.25, 0.5])

    np.testing.assert_allclose(both, [*one, one[-1] + other[0]])


def test_looks_without_a_random_split_say_nothing_about_it() -> None:
    log_e = eprocesses.sample_ratio([0, 100, 500], [500, 400, 0], [0.0, 0.25, 1.0])

    np.testing.assert_allclose(log_e, [0, 2.057075, 2.057075], atol=1e-6)


@pytest.mark.parametrize("test", [eprocesses.two_by_two, eprocesses.rate_ratio])
def test_the_expected_e_value_is_at_most_one_while_nothing_is_worse(test: object) -> None:
    """All outcomes of two looks at small counts, weighted by their probability: no simulation."""
    trials = [(3, 2), (2, 3)]
    for rate_treatment, rate_control in [(0.1, 0.1), (0.5, 0.5), (0.2, 0.4)]:
        outcomes = list(product(range(4), range(3), range(3), range(4)))
        looks = Looks(
            n_treatment=np.array([[3, 2]] * len(outcomes)),
            n_control=np.array([[2, 3]] * len(outcomes)),
            bad_treatment=np.array([(a, c) for a, _, c, _ in outcomes]),
            bad_control=np.array([(b, d) for _, b, _, d in outcomes]),
        )
        chance = np.prod(
            [
                stats.binom.pmf(looks.bad_treatment[:, i], trials[i][0], rate_treatment)
                * stats.binom.pmf(looks.bad_control[:, i], trials[i][1], rate_control)
                for i in range(2)
            ],
            axis=0,
        )
        assert chance.sum() == pytest.approx(1)

        expected = (chance[:, None] * np.exp(test(looks))).sum(axis=0)  # type: ignore[operator]

        assert (expected <= 1 + 1e-9).all(), (rate_treatment, rate_control, expected)


@pytest.mark.parametrize("test", [eprocesses.two_by_two, eprocesses.rate_ratio])
def test_a_healthy_treatment_seldom_alarms_though_each_look_is_judged(test: object) -> None:
    n_runs = 2000
    limit = 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_runs)
    steady = np.full(200, 0.01)
    drifting = np.geomspace(0.005, 0.02, 200)
    incident = np.where((np.arange(200) >= 90) & (np.arange(200) < 98), 0.08, 0.01)
    for rates in (steady, drifting, incident):
        rng = np.random.default_rng(5)
        assert _alarms(test(_simulated(rng, n_runs, rates, rates))) <= limit  # type: ignore[operator]


def test_a_z_test_that_is_looked_at_each_time_alarms_for_every_third_healthy_one() -> None:
    rng = np.random.default_rng(5)
    looks = _simulated(rng, 2000, np.full(200, 0.01), np.full(200, 0.01))
    n_t, n_c, x_t, x_c = (
        np.cumsum(counts, axis=-1)
        for counts in (looks.n_treatment, looks.n_control, looks.bad_treatment, looks.bad_control)
    )
    pooled = np.clip((x_t + x_c) / (n_t + n_c), 1e-9, None)
    z = (x_t / n_t - x_c / n_c) / np.sqrt(pooled * (1 - pooled) * (1 / n_t + 1 / n_c))

    assert 0.3 < (z[:, 1:] > 1.645).any(axis=-1).mean() < 0.42


def test_doubled_errors_are_found_within_a_third_more_than_the_planned_requests() -> None:
    rng = np.random.default_rng(5)
    looks = _simulated(rng, 500, np.full(200, 0.02), np.full(200, 0.01))

    log_e = eprocesses.two_by_two(looks)

    alarmed = log_e >= np.log(20)
    assert alarmed.any(axis=-1).mean() > 0.99
    n_seen = np.take_along_axis(
        np.cumsum(looks.n_treatment, axis=-1), alarmed.argmax(axis=-1)[:, None], axis=-1
    )
    assert np.median(n_seen) <= 1.3 * 1325


def test_a_better_treatment_is_promoted_and_one_at_the_margin_is_not() -> None:
    rng = np.random.default_rng(5)
    control = np.full(60, 0.1)
    equal = eprocesses.not_worse(_simulated(rng, 500, control, control), margin=1.5)
    at_margin = eprocesses.not_worse(_simulated(rng, 2000, 1.5 * control, control), margin=1.5)

    assert _alarms(equal) > 0.99
    assert _alarms(at_margin) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_a_change_after_a_hundred_looks_is_found_sooner_by_copies_that_start_later() -> None:
    rng = np.random.default_rng(5)
    rates = np.where(np.arange(200) < 100, 0.01, 0.02)
    looks = _simulated(rng, 200, rates, np.full(200, 0.01))

    def median_look(log_e: np.ndarray) -> float:
        alarmed = log_e >= np.log(20)
        return float(np.median(np.where(alarmed.any(axis=-1), alarmed.argmax(axis=-1), 200)))

    late = median_look(eprocesses.late_changes(eprocesses.two_by_two, looks))

    assert late < median_look(eprocesses.two_by_two(looks)) - 10


def test_the_interval_holds_the_true_ratio_and_narrows() -> None:
    rng = np.random.default_rng(5)
    looks = _simulated(rng, 100, np.full(50, 0.2), np.full(50, 0.1))
    of_run = [
        Looks(
            n_treatment=looks.n_treatment[run],
            n_control=looks.n_control[run],
            bad_treatment=looks.bad_treatment[run],
            bad_control=looks.bad_control[run],
        )
        for run in range(100)
    ]

    intervals = [eprocesses.ratio_interval(one) for one in of_run]

    assert sum(low <= 2.0 <= high for low, high in intervals) >= 90
    assert all(low > 1 and high < 4 for low, high in intervals)
    assert eprocesses.ratio_interval(of_run[0].since(50)) == (0.0, float("inf"))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.integers(0, 5)] * 4).filter(lambda look: look[2] <= look[0]),
        min_size=1,
        max_size=8,
    )
)
def test_looks_without_trials_or_events_change_nothing(
    counts: list[tuple[int, int, int, int]],
) -> None:
    def of(rows: list[tuple[int, int, int, int]]) -> Looks:
        n_treatment, n_control, bad_treatment, bad_control = np.array(rows).T
        return Looks(
            n_treatment=n_treatment,
            n_control=n_control,
            bad_treatment=bad_treatment,
            bad_control=np.minimum(bad_control, n_control),
        )

    with_empty = of([look for count in counts for look in (count, (0, 0, 0, 0))])

    for test in (eprocesses.two_by_two, eprocesses.rate_ratio):
        log_e = test(with_empty)
        assert np.isfinite(log_e).all()
        np.testing.assert_allclose(log_e[::2], test(of(counts)))
        np.testing.assert_allclose(log_e[1::2], log_e[::2])


def test_an_average_of_tests_keeps_the_strong_one_alive() -> None:
    log_e = eprocesses.mean_of([[0.0], [10.0]], weights=[0.9, 0.1])

    assert log_e == pytest.approx(10 + np.log(0.1), abs=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Looks(**dict.fromkeys(_NAMES, np.array([-1]))), "0 or more"),
        (lambda: Looks(**dict.fromkeys(_NAMES, np.array([0.5]))), "whole numbers"),
        (
            lambda: Looks(**{**dict.fromkeys(_NAMES, np.array([1])), "bad_control": np.ones(2)}),
            "one value per look",
        ),
        (
            lambda: eprocesses.two_by_two(
                Looks(**{**dict.fromkeys(_NAMES, np.array([1])), "bad_control": np.array([2])})
            ),
            "more bad events than trials",
        ),
        (lambda: eprocesses.not_worse(FIVE_LOOKS, margin=1.1), "one side"),
        (lambda: eprocesses.above_rate([1], [2], max_rate=1.0), "between 0 and 1"),
        (lambda: eprocesses.above_rate([3], [2], max_rate=0.5), "more events than trials"),
        (lambda: eprocesses.mean_of([[0.0], [1.0]], weights=[1.0, 1.0]), "sum to 1"),
        (
            lambda: eprocesses.ratio_interval(Looks(**dict.fromkeys(_NAMES, np.ones((2, 3), int)))),
            "one experiment",
        ),
    ],
)
def test_counts_that_make_no_sense_are_refused_in_words(make: object, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        make()  # type: ignore[operator]
