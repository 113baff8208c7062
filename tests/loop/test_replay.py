"""A year under other policies: what a gate lets through, and what that costs."""

import dataclasses

import numpy as np
import pytest

from mlops_mini.evidence import intervals
from mlops_mini.loop import replay
from mlops_mini.loop.replay import Policy

DAYS = np.repeat(np.arange(52 * 7), 40)
WEEKS = range(5, 52)


@pytest.fixture(scope="module")
def losses_of():
    """The more days a model has learned from the better; days share what happens on them."""
    rng = np.random.default_rng(0)
    weather = rng.normal(0, 0.05, DAYS.max() + 1)

    def losses(start: int, end: int) -> np.ndarray:
        seeded = np.random.default_rng(1000 * start + end)
        own = seeded.normal(0, 0.01, DAYS.max() + 1)
        return (0.4 + 1 / (end - start) + weather + own)[DAYS]

    return losses


def play(losses_of, **policy) -> replay.Replayed:
    return replay.replay(DAYS, losses_of, Policy(**policy), weeks=WEEKS)


def test_a_model_compared_with_itself_passes_46_of_46(losses_of) -> None:
    """The newest week is held out, and the baseline has learned from all days before it."""
    played = play(losses_of, holdout_days=7, decide=replay.not_worse)

    assert (played.count("blessed"), len(played.judgments)) == (46, 46)
    assert {judgment.difference.value for judgment in played.judgments} == {0.0}


@pytest.mark.parametrize(
    ("policy", "n"),
    [({}, 46), ({"every_weeks": 4}, 11), ({"every_weeks": 13}, 3), ({"every_rows": 2800}, 4)],
)
def test_a_policy_fires_when_it_says(losses_of, policy, n) -> None:
    assert len(play(losses_of, **policy).judgments) == n


def test_without_a_gate_all_are_promoted_and_with_one_fewer(losses_of) -> None:
    never = play(losses_of, every_weeks=47)
    ungated = play(losses_of, every_weeks=4)
    gated = play(losses_of, every_weeks=4, decide=replay.not_inferior(0.002))
    strict = play(losses_of, every_weeks=4, decide=replay.significantly_better)

    assert never.count("blessed") == 0
    assert ungated.count("blessed") == 11
    assert strict.count("blessed") <= gated.count("blessed") <= 11
    assert ungated.mean_loss <= gated.mean_loss < never.mean_loss


def test_a_bad_candidate_is_kept_out(losses_of) -> None:
    def sometimes_bad(start: int, end: int) -> np.ndarray:
        return losses_of(start, end) + (0.1 if end in {119, 105} else 0.0)

    ungated = play(sometimes_bad, every_weeks=4)
    gated = play(sometimes_bad, every_weeks=4, decide=replay.not_inferior(0.002))

    (judged,) = (each for each in gated.judgments if each.week == 16)
    assert judged.decision == "refused"
    assert gated.mean_loss < ungated.mean_loss


def test_only_days_that_neither_has_seen_judge(losses_of) -> None:
    """Retrained weekly on everything, only 7 of the 14 days held out are new to both."""
    weekly = play(losses_of, decide=lambda _: "blessed")
    monthly = play(losses_of, every_weeks=4, decide=lambda _: "blessed")

    assert [each.difference.n_clusters for each in weekly.judgments[1:3]] == [7, 7]
    assert {each.difference.n_clusters for each in monthly.judgments} == {14}
    by_row = play(losses_of, every_weeks=4, is_by_day=False, decide=lambda _: "blessed")
    assert {each.difference.n_clusters for each in by_row.judgments} == {14 * 40}


@pytest.mark.parametrize(
    ("lower", "value", "upper", "decisions"),
    [
        (-0.02, -0.01, -0.001, ("blessed", "blessed", "blessed", "blessed")),
        (-0.01, -0.001, 0.01, ("blessed", "blessed", "undecided", "undecided")),
        (-0.01, 0.001, 0.01, ("refused", "blessed", "undecided", "undecided")),
        (0.0001, 0.0005, 0.001, ("refused", "refused", "refused", "blessed")),
        (0.001, 0.01, 0.02, ("refused", "refused", "refused", "refused")),
    ],
)
def test_gates_differ_in_what_they_want_to_be_sure_of(lower, value, upper, decisions) -> None:
    interval = intervals.of_mean([0.0, 1.0, 2.0])
    interval = dataclasses.replace(interval, lower=lower, value=value, upper=upper)
    gates = (
        replay.not_worse,
        replay.not_significantly_worse,
        replay.significantly_better,
        replay.not_inferior(0.002),
    )

    assert tuple(decide(interval) for decide in gates) == decisions
