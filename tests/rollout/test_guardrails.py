import math

import numpy as np
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.rollout import guardrails
from mlops_mini.rollout.guardrails import ERRORS, LATENCY, Counts, Guardrail, Look


def _looks(metric: str, n: int, **counts: int) -> list[Look]:
    return [Look(seconds=1, weight_pct=10, counts={metric: Counts(**counts)})] * n


def test_each_guardrail_is_held_to_its_share_of_the_errors_that_are_allowed() -> None:
    one = guardrails.judge([], [ERRORS])
    four = guardrails.judge([], [ERRORS, LATENCY, *[Guardrail(name="w", metrics=("w",))] * 2])

    assert math.exp(one[0].limit) == pytest.approx(20)
    assert [math.exp(evidence.limit) for evidence in four] == pytest.approx([80] * 4)
    assert not any(evidence.is_alarm for evidence in [*one, *four])


def test_a_broken_class_behind_a_good_average_is_found() -> None:
    """One class of ten goes from 10 to 40 % wrong, so that the whole goes to 13 %."""
    rng = np.random.default_rng(3)
    wrong = Guardrail(name="wrong", metrics=("wrong", *(f"wrong_{k}" for k in range(10))))
    only_overall = Guardrail(name="wrong", metrics=("wrong",))
    n_looks_needed: dict[str, list[int]] = {"classes": [], "overall": []}
    for _ in range(20):
        looks = []
        for _ in range(60):
            by_class = {}
            for k in range(10):
                n_canary, n_stable = rng.binomial(50, 0.1), rng.binomial(450, 0.1)
                by_class[f"wrong_{k}"] = Counts(
                    n_canary=n_canary,
                    n_stable=n_stable,
                    bad_canary=rng.binomial(n_canary, 0.4 if k == 3 else 0.1),
                    bad_stable=rng.binomial(n_stable, 0.1),
                )
            total = Counts(
                n_canary=sum(c.n_canary for c in by_class.values()),
                n_stable=sum(c.n_stable for c in by_class.values()),
                bad_canary=sum(c.bad_canary for c in by_class.values()),
                bad_stable=sum(c.bad_stable for c in by_class.values()),
            )
            looks.append(Look(seconds=1, weight_pct=10, counts={"wrong": total, **by_class}))
        for name, guardrail in (("classes", wrong), ("overall", only_overall)):
            alarmed = guardrails.log_e_by_look(looks, guardrail) >= math.log(20)
            n_looks_needed[name].append(int(alarmed.argmax()) if alarmed.any() else 60)

    assert np.median(n_looks_needed["classes"]) < 0.6 * np.median(n_looks_needed["overall"])


def test_labels_that_come_sooner_for_one_side_are_counted_with_their_requests() -> None:
    """Equally wrong; the canary's labels come at once, the stable's later: no alarm."""
    rng = np.random.default_rng(3)
    wrong = Guardrail(name="wrong", metrics=("wrong",))
    looks = []
    for i in range(100):
        n_canary, n_stable = 50, (450 if i >= 20 else 20)
        counts = Counts(
            n_canary=n_canary,
            n_stable=n_stable,
            bad_canary=rng.binomial(n_canary, 0.1),
            bad_stable=rng.binomial(n_stable, 0.1),
        )
        looks.append(Look(seconds=1, weight_pct=10, counts={"wrong": counts}))

    assert guardrails.log_e_by_look(looks, wrong).max() < math.log(20)


def test_slower_answers_are_found_though_the_limits_were_fixed_before() -> None:
    looks = [
        Look(
            seconds=1,
            weight_pct=10,
            counts={
                "slow_p50": Counts(n_canary=50, n_stable=450, bad_canary=30, bad_stable=225),
                "slow_p95": Counts(n_canary=50, n_stable=450, bad_canary=6, bad_stable=22),
            },
        )
    ] * 20

    (evidence,) = guardrails.judge(looks, [LATENCY])

    assert evidence.is_alarm


def test_disagreement_needs_no_label_and_no_exposed_request() -> None:
    disagree = Guardrail(
        name="disagreement", metrics=("differs",), test="disagreement", max_rate=0.12
    )

    (broken,) = guardrails.judge(_looks("differs", 2, n_canary=50, bad_canary=13), [disagree])
    (usual,) = guardrails.judge(_looks("differs", 20, n_canary=50, bad_canary=4), [disagree])

    assert broken.is_alarm
    assert broken.sentence().startswith(
        "disagreement: 26 of 100 differ from what the stable answered, and at most 12 % may; "
    )
    assert not usual.is_alarm


def test_pairs_count_only_where_the_two_differ() -> None:
    paired = Guardrail(name="pairs", metrics=("pairs",), test="paired")

    (evidence,) = guardrails.judge(
        _looks("pairs", 10, n_canary=50, n_stable=50, bad_canary=4, bad_stable=1), [paired]
    )

    assert evidence.is_alarm
    assert evidence.counts.bad_canary == 40


def test_a_split_that_is_off_is_seen() -> None:
    assert guardrails.split_is_off(_looks("error", 10, n_canary=20, n_stable=480))
    assert not guardrails.split_is_off(_looks("error", 10, n_canary=50, n_stable=450))
    assert not guardrails.split_is_off([])


def test_the_sentence_has_the_counts_and_what_would_be_an_alarm() -> None:
    (evidence,) = guardrails.judge(
        _looks("error", 1, n_canary=1000, n_stable=9000, bad_canary=11, bad_stable=90), [ERRORS]
    )

    assert evidence.sentence() == (
        "errors: 11 of 1,000 on the canary, 90 of 9,000 on the stable; evidence e = 1, alarm at 20"
    )


def test_the_interval_of_a_clear_difference_leaves_out_one() -> None:
    looks = _looks("error", 10, n_canary=500, n_stable=500, bad_canary=50, bad_stable=10)

    low, high = guardrails.ratio_interval(looks, "error")

    assert 1 < low < 5 < high < 15


@pytest.mark.parametrize(
    "guardrail",
    [
        {"metrics": ()},
        {"metrics": ("slow_p50",), "test": "latency"},
        {"metrics": ("a",), "test": "disagreement"},
        {"metrics": ("a",), "max_rate": 0.1},
    ],
)
def test_a_guardrail_that_cannot_work_is_refused(guardrail: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError, match="guardrail broken"):
        Guardrail(name="broken", **guardrail)  # type: ignore[arg-type]


def test_alpha_is_a_probability() -> None:
    with pytest.raises(InvalidArgumentError, match="alpha"):
        guardrails.judge([], [ERRORS], alpha=1.5)
