import numpy as np
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.evidence import eprocesses
from mlops_mini.evidence.eprocesses import Looks
from mlops_mini.rollout import planner


@pytest.mark.parametrize(
    ("bad_rate", "ratio", "bad_events", "requests", "canary_requests"),
    [
        (0.01, 1.5, 437.48, 41665, 4166.5),
        (0.01, 2, 130.08, 11826, 1182.6),
        (0.01, 5, 16.766, 1197.6, 119.8),
        (0.1, 1.5, 437.48, 4166.5, 416.7),
    ],
)
def test_the_plan_has_the_worked_numbers(
    bad_rate: float, ratio: float, bad_events: float, requests: float, canary_requests: float
) -> None:
    plan = planner.plan(bad_rate=bad_rate, ratio=ratio, weight_pct=10, requests_per_s=100)

    assert plan.bad_events == pytest.approx(bad_events, rel=1e-4)
    assert plan.requests == pytest.approx(requests, rel=1e-4)
    assert plan.canary_requests == pytest.approx(canary_requests, rel=1e-3)


def test_traffic_that_cannot_prove_it_is_told_so() -> None:
    with pytest.raises(InvalidArgumentError, match=r"can't prove this within 48 h.*larger share"):
        planner.plan(bad_rate=0.001, ratio=1.2, weight_pct=1, requests_per_s=1, max_hours=48)


@pytest.mark.parametrize(
    "change",
    [
        {"bad_rate": 0},
        {"bad_rate": 1},
        {"ratio": 1},
        {"ratio": 200},
        {"weight_pct": 0},
        {"weight_pct": 100},
        {"requests_per_s": 0},
        {"alpha": 0},
    ],
)
def test_arguments_out_of_range_are_named(change: dict[str, float]) -> None:
    possible = {"bad_rate": 0.01, "ratio": 2, "weight_pct": 10, "requests_per_s": 10}

    with pytest.raises(InvalidArgumentError, match=next(iter(change))):
        planner.plan(**{**possible, **change})


@pytest.mark.parametrize(
    ("only_canary", "only_stable", "looks_of_50"), [(0.05, 0.03, 31.6), (0.075, 0.025, 6.1)]
)
def test_pairs_have_the_worked_numbers(
    only_canary: float, only_stable: float, looks_of_50: float
) -> None:
    plan = planner.plan_paired(
        only_canary_bad=only_canary, only_stable_bad=only_stable, mirror_pct=50, requests_per_s=10
    )

    assert plan.canary_requests / 50 == pytest.approx(looks_of_50, abs=0.05)
    assert plan.requests == pytest.approx(2 * plan.canary_requests)


def _median_look(log_e: np.ndarray) -> float:
    """Median, over the runs, of the first look with an alarm at 5 %, counted from 1."""
    is_alarmed = log_e >= np.log(1 / 0.05)
    first = np.where(is_alarmed.any(axis=-1), is_alarmed.argmax(axis=-1) + 1, np.inf)
    return float(np.median(first))


@pytest.mark.parametrize(
    ("bad_rate", "ratio"), [(0.01, 1.5), (0.01, 2), (0.001, 5), (0.1, 1.5), (0.1, 1.2)]
)
def test_simulated_releases_need_what_is_planned(bad_rate: float, ratio: float) -> None:
    plan = planner.plan(bad_rate=bad_rate, ratio=ratio, weight_pct=10, requests_per_s=100)
    planned_looks = plan.requests / 500
    rng = np.random.default_rng(20)
    n_canary = rng.binomial(500, 0.1, size=(600, int(4 * planned_looks)))
    looks = Looks(
        n_treatment=n_canary,
        n_control=500 - n_canary,
        bad_treatment=rng.binomial(n_canary, ratio * bad_rate),
        bad_control=rng.binomial(500 - n_canary, bad_rate),
    )

    assert _median_look(eprocesses.two_by_two(looks)) == pytest.approx(planned_looks, rel=0.3)


@pytest.mark.parametrize(("only_canary", "only_stable"), [(0.05, 0.03), (0.075, 0.025)])
def test_simulated_pairs_need_what_is_planned(only_canary: float, only_stable: float) -> None:
    plan = planner.plan_paired(
        only_canary_bad=only_canary, only_stable_bad=only_stable, mirror_pct=100, requests_per_s=1
    )
    planned_looks = plan.canary_requests / 50
    rng = np.random.default_rng(21)
    neither = 1 - only_canary - only_stable
    pairs = rng.multinomial(50, [only_canary, only_stable, neither], size=(600, 200))

    log_e = eprocesses.mcnemar(pairs[..., 0], pairs[..., 1])

    assert _median_look(log_e) == pytest.approx(planned_looks, rel=0.3)
