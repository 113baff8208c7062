"""A/B tests by a hash: stable, even, independent, and large enough."""

import math

import numpy as np
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.evidence import ab_split

USERS = [f"user {n}" for n in range(20_000)]


def groups(experiment: str, share: float = 0.5) -> np.ndarray:
    return np.array([ab_split.gets_b(user, experiment=experiment, share=share) for user in USERS])


def test_a_user_stays_in_a_group_and_groups_have_the_share_asked_for():
    assert (groups("first") == groups("first")).all()
    for share in (0.0, 0.05, 0.5, 1.0):
        margin = 5 * math.sqrt(share * (1 - share) / len(USERS))
        assert abs(groups("first", share).mean() - share) <= margin


def test_two_experiments_split_independently_and_a_ramp_only_adds_users():
    both = np.corrcoef(groups("first"), groups("second"))[0, 1]

    assert abs(both) < 5 / math.sqrt(len(USERS))
    assert (groups("first", 0.05) <= groups("first", 0.25)).all()


def test_the_rule_of_thumb_finds_a_lead_in_about_four_of_five_tests():
    n = ab_split.n_per_version(0.85, 0.02)
    random = np.random.default_rng(0)
    a, b = (random.binomial(n, rate, 4_000) / n for rate in (0.84, 0.86))
    error = np.sqrt((a * (1 - a) + b * (1 - b)) / n)

    assert 0.75 < (np.abs(b - a) > 1.96 * error).mean() < 0.85


@pytest.mark.parametrize(("rate", "lead"), [(1.2, 0.1), (0.5, 0.0), (0.5, -0.1)])
def test_impossible_rates_and_leads_are_refused(rate, lead):
    with pytest.raises(InvalidArgumentError, match="expected a rate from 0 to 1"):
        ab_split.n_per_version(rate, lead)


def test_an_impossible_share_is_refused():
    with pytest.raises(InvalidArgumentError, match="share is 2, expected 0 to 1"):
        ab_split.gets_b("me", experiment="first", share=2)
