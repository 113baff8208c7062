"""Costs of the degrees of automation, and what they recommend."""

from datetime import UTC, datetime

import numpy as np
import pytest

from mlops_mini.automation.certificates import Certificate, Scope, certify_threshold
from mlops_mini.automation.costs import Trial, cost_curve, recommend
from mlops_mini.errors import InvalidArgumentError

SCOPE = Scope(
    model_version=1,
    data_from=datetime(2026, 5, 1, tzinfo=UTC),
    data_until=datetime(2026, 5, 8, tzinfo=UTC),
    expires_at=datetime(2026, 6, 1, tzinfo=UTC),
)


def _trial(human_accuracy: float, **options: float) -> Trial:
    rng = np.random.default_rng(31)
    scores = rng.random(4000)
    model_correct = rng.random(4000) >= 0.63 * (1 - scores) ** 3.9
    # People err where it's hard, as the model does.
    human_correct = rng.random(4000) >= (1 - human_accuracy) * 2 * (1 - scores)
    return Trial(scores=scores, model_correct=model_correct, human_correct=human_correct, **options)


@pytest.fixture
def certificate() -> Certificate:
    rng = np.random.default_rng(32)
    scores = rng.random(3000)
    correct = rng.random(3000) >= 0.63 * (1 - scores) ** 3.9
    return certify_threshold(scores, correct, other_scores=rng.random(4000), scope=SCOPE)


def test_the_ends_of_the_curve_are_people_alone_and_the_model_alone() -> None:
    trial = _trial(0.93)

    curve = cost_curve(trial)

    assert curve["coverage"].iloc[[0, -1]].tolist() == [0, 1]
    assert curve["error_rate"].iloc[0] == pytest.approx(1 - trial.human_correct.mean())
    assert curve["cost"].iloc[0] == pytest.approx(1 + 20 * (1 - trial.human_correct.mean()))
    assert curve["cost"].iloc[-1] == pytest.approx(20 * (1 - trial.model_correct.mean()))


def test_for_experts_partial_automation_pays(certificate) -> None:
    found = recommend(_trial(0.97), certificate)

    assert found.level == "partial"
    assert "isn't certified for all" in found.reasons[2]


def test_if_asking_people_is_free_they_decide(certificate) -> None:
    found = recommend(_trial(0.999, human_cost=0.0), certificate)

    assert found.level == "human"
    assert "which isn't surely anything" in found.reasons[1]


def test_without_a_certificate_nothing_is_automated(certificate) -> None:
    none = certify_threshold([0.9], [True], other_scores=[0.5], scope=SCOPE)

    found = recommend(_trial(0.97), none)

    assert found.level == "human"
    assert "no threshold is certified" in found.reasons[1]


def test_everything_is_automated_only_if_the_promise_is_certified_for_all() -> None:
    trial = _trial(0.83)
    all_right = certify_threshold(
        trial.scores, np.ones(4000), other_scores=trial.scores, scope=SCOPE
    )

    assert all_right.threshold == 0
    assert recommend(trial, all_right).level in ("partial", "full")  # they are the same then


def test_equal_scores_go_together() -> None:
    trial = Trial(
        scores=np.array([0.9, 0.9, 0.9, np.nan]),
        model_correct=np.array([True, True, False, True]),
        human_correct=np.array([True, True, True, True]),
    )

    assert cost_curve(trial)["coverage"].tolist() == [0, 0.75, 1]


def test_nothing_to_judge_and_negative_costs_are_refused() -> None:
    none = np.zeros(0, bool)
    with pytest.raises(InvalidArgumentError, match="need some items"):
        Trial(scores=np.zeros(0), model_correct=none, human_correct=none)
    with pytest.raises(InvalidArgumentError, match="costs are -1"):
        _trial(0.9, human_cost=-1)
