"""Shadow mode: who is better, from the items on which they differ."""

import numpy as np
import pytest
from scipy import stats

from mlops_mini.automation.shadow import power, shadow_report
from mlops_mini.errors import InvalidArgumentError


def _answers(rng, n, model_accuracy, human_accuracy):
    truth = rng.integers(10, size=n)
    wrong = (truth + rng.integers(1, 10, size=n)) % 10
    model = np.where(rng.random(n) < model_accuracy, truth, wrong)
    other_wrong = (truth + rng.integers(1, 10, size=n)) % 10
    human = np.where(rng.random(n) < human_accuracy, truth, other_wrong)
    return model, human, np.where(model == human, None, truth.astype(object))


def test_the_truth_is_needed_only_where_they_differ() -> None:
    model, human, known = _answers(np.random.default_rng(1), 4000, 0.90, 0.85)

    report = shadow_report(model, human, known)

    assert report.n_adjudicated == report.n_disagreements == (model != human).sum()
    assert report.agreement == pytest.approx(0.77, abs=0.02)
    assert report.lead == pytest.approx(0.05, abs=0.02)
    assert report.p_better < 1e-6
    assert report.is_not_worse(0.0)
    assert 0.10 < report.repaired_lower < 0.14


def test_the_limit_holds_in_19_of_20_draws() -> None:
    rng = np.random.default_rng(2)

    misses = [shadow_report(*_answers(rng, 300, 0.87, 0.83)).lead_lower > 0.04 for _ in range(400)]

    assert np.mean(misses) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_kappa_and_p_value_are_those_of_the_textbook() -> None:
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: Cohen's kappa is .4.
    model = np.repeat(["yes", "yes", "no", "no"], [20, 5, 10, 15])
    human = np.repeat(["yes", "no", "yes", "no"], [20, 5, 10, 15])

    report = shadow_report(model, human, np.full(50, "yes"))

    assert report.kappa == pytest.approx(0.4)
    assert (report.only_model_right, report.only_human_right) == (5, 10)
    expected = stats.binomtest(5, 15, alternative="greater").pvalue
    assert report.p_better == pytest.approx(expected)


def test_with_half_of_the_truth_the_lead_is_the_same_and_surely_less() -> None:
    model, human, known = _answers(np.random.default_rng(3), 3000, 0.90, 0.85)
    half = np.where(np.arange(3000) % 2, known, None)

    whole_report, half_report = (
        shadow_report(model, human, known),
        shadow_report(model, human, half),
    )

    assert half_report.lead == pytest.approx(whole_report.lead, abs=0.02)
    assert half_report.lead_lower < whole_report.lead_lower


def test_those_who_always_agree_leave_a_doubt() -> None:
    few, many = (shadow_report(["a"] * n, ["a"] * n, [None] * n) for n in (50, 2000))

    assert few.kappa == 1
    assert few.p_better == 1
    assert not few.is_not_worse(0.01)
    assert many.is_not_worse(0.01)


def test_without_any_truth_nothing_is_known() -> None:
    report = shadow_report(["a", "b"], ["b", "b"], [None, ""])

    assert report.n_adjudicated == 0
    assert not report.is_not_worse(0.5)


def test_power_is_the_share_of_tests_that_find_the_lead() -> None:
    rng = np.random.default_rng(6)

    found = [shadow_report(*_answers(rng, 500, 0.868, 0.831)).p_better <= 0.05 for _ in range(400)]

    apart = 0.868 * (1 - 0.831), 0.831 * (1 - 0.868)
    expected = power(500, only_model_right=apart[0], only_human_right=apart[1])
    assert np.mean(found) == pytest.approx(expected, abs=0.08)
    assert power(2000, only_model_right=apart[0], only_human_right=apart[1]) > expected


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="need some items"):
        shadow_report([], [], [])
    with pytest.raises(InvalidArgumentError, match="got shapes"):
        shadow_report(["a"], ["a", "b"], [None])
    with pytest.raises(InvalidArgumentError, match="a sum above 0"):
        power(10, only_model_right=0, only_human_right=0)
