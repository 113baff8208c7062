"""The gate: what each rule sees, what the three verdicts follow from, and how sure it is."""

import dataclasses
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import DataIntegrityError, InvalidArgumentError
from mlops_mini.evidence import intervals
from mlops_mini.model import gate, thresholds
from mlops_mini.model.gate import Verdict
from mlops_mini.model.gate_rules import Evidence, Recomputed, Span
from mlops_mini.model.serving_check import ServingCheck
from mlops_mini.model.thresholds import GateRules, SliceMargin, Thresholds

OURS = thresholds.read()
N_DAYS, N_ROWS = 14, 4_200
BEFORE, LATER, LAST = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))


def sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


@dataclasses.dataclass(frozen=True)
class Shop:
    """Customers of two weeks: what's known of each, which plan they have, who leaves."""

    logit: np.ndarray
    labels: np.ndarray
    days: np.ndarray
    plan: np.ndarray


@pytest.fixture(scope="module")
def shop() -> Shop:
    rng = np.random.default_rng(0)
    days = np.sort(rng.integers(0, N_DAYS, N_ROWS))
    logit = rng.normal(-1, 1.2, N_ROWS) + rng.normal(0, 0.4, N_DAYS)[days]
    labels = (rng.random(N_ROWS) < sigmoid(logit)).astype(float)
    plan = rng.choice(["basic", "family", "pro", "trial"], N_ROWS, p=[0.5, 0.3, 0.197, 0.003])
    return Shop(logit, labels, days, plan)


def evidence(shop: Shop, candidate: np.ndarray, **changes: Any) -> Evidence:
    """Evidence of a candidate beside a baseline that knows a little less than the truth."""
    fields = {
        "labels": shop.labels,
        "days": shop.days,
        "candidate": candidate,
        "baseline": sigmoid(0.8 * shop.logit - 0.2),
        "slices": {"plan": pd.Series(shop.plan)},
        "candidate_span": Span(start=BEFORE, end=LAST),
        "baseline_span": Span(start=BEFORE, end=LATER),
        "arrived": {"plan": {"basic": 900, "family": 600, "pro": 500}},
        "learned": {"plan": {"basic": 890, "family": 600, "pro": 480}},
        "n_arrived": N_ROWS,
        "recomputed": Recomputed(n_rows=200, n_different=0, finding=""),
        "serving": ServingCheck(is_servable=True, finding="", latency_ms=2.0),
    }
    return Evidence(**fields | changes)


def failed(verdict: Verdict) -> list[str]:
    """The rules that failed, each once."""
    return sorted({rule.rule for rule in verdict.rules if rule.verdict == "fail"})


def undecided(verdict: Verdict) -> list[str]:
    return sorted({rule.rule for rule in verdict.rules if rule.verdict == "undecided"})


def few(shop: Shop, rows: np.ndarray, candidate: np.ndarray, **changes: Any) -> Evidence:
    """Evidence of some of the rows."""
    whole = evidence(shop, candidate, n_arrived=int(rows.sum()), **changes)
    arrays = {name: getattr(whole, name) for name in ("labels", "days", "candidate", "baseline")}
    return dataclasses.replace(
        whole,
        slices={"plan": whole.slices["plan"][rows]},
        **{name: None if array is None else array[rows] for name, array in arrays.items()},
    )


def test_a_better_candidate_is_blessed_and_all_rules_are_listed(shop) -> None:
    verdict = gate.judge(evidence(shop, sigmoid(shop.logit)), OURS)

    assert (verdict.decision, verdict.is_blessed, failed(verdict)) == ("blessed", True, [])
    assert verdict.reason == "its log loss is better than the baseline's by less than 0.01"
    assert verdict.thresholds_digest == OURS.digest
    table = verdict.table()
    assert list(table) == [
        "rule", "slice", "value", "limit", "lower", "upper", "n", "verdict", "reason",
    ]  # fmt: skip
    assert list(dict.fromkeys(table["rule"])) == [
        "another model", "unseen rows", "enough rows", "enough days", "both classes", "labels",
        "answers", "excess log loss", "AUC", "calibration", "log loss", "slice", "slice AUC",
        "coverage", "point in time", "signature", "serving", "latency",
    ]  # fmt: skip


def worse(shop: Shop, by: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, by, N_ROWS)
    return sigmoid(0.8 * shop.logit - 0.2 + noise)


def test_a_worse_candidate_is_refused(shop) -> None:
    verdict = gate.judge(evidence(shop, worse(shop, 1.0)), OURS)

    assert (verdict.decision, verdict.is_blessed) == ("refused", False)
    assert "log loss" in failed(verdict)
    assert verdict.reason.startswith("log loss: it's surely worse than the baseline")


@pytest.mark.parametrize(("undecided_does", "is_blessed"), [("keep", False), ("promote", True)])
def test_what_undecided_does_is_up_to_the_thresholds(shop, undecided_does, is_blessed) -> None:
    asked = dataclasses.replace(OURS, gate=GateRules(undecided=undecided_does))

    by_day = np.where(shop.days % 2, 0.2, -0.2)  # better on one day, worse on the next

    verdict = gate.judge(evidence(shop, sigmoid(0.8 * shop.logit - 0.2 + by_day)), asked)

    assert (verdict.decision, verdict.is_blessed) == ("undecided", is_blessed)
    assert undecided(verdict) == ["log loss"]


def test_a_model_is_never_better_than_itself(shop) -> None:
    """An earlier gate said `not worse` to a model beside itself, 46 times of 46."""
    baseline = sigmoid(0.8 * shop.logit - 0.2)

    verdict = gate.judge(evidence(shop, baseline), OURS)

    assert (verdict.decision, verdict.is_blessed) == ("undecided", False)
    assert undecided(verdict) == ["another model"]
    assert "both answer the same on every row" in verdict.reason


def test_models_of_the_same_days_are_not_compared(shop) -> None:
    same = Span(start=BEFORE, end=LATER)

    verdict = gate.judge(evidence(shop, sigmoid(shop.logit), candidate_span=same), OURS)

    assert verdict.decision == "undecided"
    assert "both were trained on the same days" in verdict.reason


@pytest.mark.parametrize(
    ("logit", "reason"),
    [
        (0.9, "better than the baseline's by less than 0.01"),
        (0.79, "worse than the baseline's by less than 0.01, surely by less than the margin of"),
    ],
)
def test_models_of_the_same_days_but_other_data_are_compared(shop, logit, reason) -> None:
    """Labels were corrected, or the policy of augmentation is another one; no day has passed."""
    shown = evidence(
        shop,
        sigmoid(logit * shop.logit - 0.2),
        candidate_span=Span(start=BEFORE, end=LATER),
        is_other_data=True,
    )

    verdict = gate.judge(shown, OURS)

    assert verdict.decision == "blessed"
    assert reason in verdict.reason
    assert "same days, with other rows, labels or settings" in verdict.rules[0].reason
    same = dataclasses.replace(shown, candidate=np.asarray(shown.baseline))
    assert undecided(gate.judge(same, OURS)) == ["another model"]


def test_a_ruined_slice_is_seen_behind_a_better_average(shop) -> None:
    is_pro = shop.plan == "pro"
    blind = np.where(is_pro, np.median(shop.logit[is_pro]), 1.02 * shop.logit)

    verdict = gate.judge(evidence(shop, sigmoid(blind)), OURS)

    assert verdict.decision == "refused"
    assert {"slice", "slice AUC"} <= set(failed(verdict))
    assert {rule.slice for rule in verdict.rules if rule.verdict == "fail"} - {""} == {"plan=pro"}


def test_a_tiny_slice_neither_passes_nor_fails(shop) -> None:
    is_trial = shop.plan == "trial"
    wrong = np.where(is_trial, -shop.logit, shop.logit)

    verdict = gate.judge(evidence(shop, sigmoid(wrong)), OURS)

    (trial,) = (rule for rule in verdict.rules if rule.slice == "plan=trial")
    assert trial.verdict == "too small"
    assert math.isnan(trial.value)
    assert failed(verdict) == []


def test_a_single_class_is_no_window_to_judge_on(shop) -> None:
    verdict = gate.judge(few(shop, shop.labels == 0, sigmoid(shop.logit)), OURS)

    assert verdict.decision == "undecided"
    assert "both classes" in undecided(verdict)
    assert "AUC" not in {rule.rule for rule in verdict.rules}


def test_too_few_days_are_undecided_and_a_single_one_too(shop) -> None:
    week = gate.judge(few(shop, shop.days < 7, sigmoid(shop.logit)), OURS)
    day = gate.judge(few(shop, shop.days < 1, sigmoid(shop.logit)), OURS)

    assert (week.decision, day.decision) == ("undecided", "undecided")
    assert "enough days" in undecided(week)
    assert {"enough days", "enough rows", "log loss"} <= set(undecided(day))


def test_no_row_at_all_is_undecided(shop) -> None:
    verdict = gate.judge(few(shop, shop.days < 0, sigmoid(shop.logit)), OURS)

    assert verdict.decision == "undecided"


@pytest.mark.parametrize("answer", [math.nan, -0.1, 1.1])
def test_an_answer_that_is_no_probability_is_refused(shop, answer) -> None:
    candidate = sigmoid(shop.logit)
    candidate[5] = answer

    verdict = gate.judge(evidence(shop, candidate), OURS)

    assert failed(verdict) == ["answers"]
    assert verdict.reason == "answers: 1 answers are NaN or outside 0 to 1"


def test_a_missing_label_is_an_error_and_missing_ones_among_arrivals_undecided(shop) -> None:
    labels = shop.labels.copy()
    labels[3] = math.nan
    with pytest.raises(InvalidArgumentError, match="1 of 4200 labels are missing"):
        gate.judge(evidence(shop, sigmoid(shop.logit), labels=labels), OURS)

    verdict = gate.judge(evidence(shop, sigmoid(shop.logit), n_arrived=2 * N_ROWS), OURS)
    assert undecided(verdict) == ["labels"]


def test_a_first_version_must_beat_the_base_rate(shop) -> None:
    first = {"baseline": None, "baseline_span": None}
    shuffled = np.random.default_rng(2).permutation(sigmoid(shop.logit))

    good = gate.judge(evidence(shop, sigmoid(shop.logit), **first), OURS)
    bad = gate.judge(evidence(shop, shuffled, **first), OURS)
    constant = gate.judge(evidence(shop, np.full(N_ROWS, 0.5), **first), OURS)

    assert (good.decision, good.is_blessed) == ("first", True)
    assert good.reason.startswith("it's the first; its log loss is better than that of always")
    assert (bad.is_blessed, constant.is_blessed) == (False, False)
    assert "excess log loss" in failed(bad)
    assert "excess log loss" in failed(constant)


def test_a_shift_of_the_base_rate_alone_refuses_nobody(shop) -> None:
    """More customers leave now: both models lose, and the candidate no more than the baseline."""
    labels = np.where(np.random.default_rng(3).random(N_ROWS) < 0.15, 1.0, shop.labels)
    shifted = dataclasses.replace(shop, labels=labels)

    verdict = gate.judge(evidence(shifted, sigmoid(shop.logit)), OURS)

    values = {rule.rule: rule.value for rule in verdict.rules}
    assert values["calibration"] < 0.9
    assert values["excess log loss"] < 0
    assert failed(verdict) == []


def test_rows_seen_in_training_are_refused(shop) -> None:
    verdict = gate.judge(evidence(shop, sigmoid(shop.logit), n_seen=12), OURS)

    assert failed(verdict) == ["unseen rows"]


def test_a_slice_that_training_has_lost_is_refused_though_it_scores_well(shop) -> None:
    learned = {"plan": {"basic": 900, "family": 600}}

    verdict = gate.judge(evidence(shop, sigmoid(shop.logit), learned=learned), OURS)

    assert failed(verdict) == ["coverage"]
    assert verdict.reason == "coverage plan=pro: 500 rows arrived, 0 were learned from"


def test_a_leak_is_refused_however_much_better_it_scores(shop) -> None:
    leaking = sigmoid(shop.logit + 2 * (shop.labels - 0.5))
    found = Recomputed(n_rows=200, n_different=150, finding="150 of 200 rows have other features")

    verdict = gate.judge(evidence(shop, leaking, recomputed=found), OURS)

    assert failed(verdict) == ["point in time"]
    nothing = Recomputed(n_rows=0, n_different=0, finding="nothing computed")
    assert failed(gate.judge(evidence(shop, leaking, recomputed=nothing), OURS)) == [
        "point in time"
    ]


@pytest.mark.parametrize(
    ("served", "rules"),
    [
        ({"is_servable": False, "finding": "no answer"}, ["serving"]),
        ({"is_servable": True, "finding": "", "latency_ms": 400.0}, ["latency"]),
        ({"is_servable": False, "finding": "", "latency_ms": 10_000.0}, ["latency", "serving"]),
        ({"is_servable": True, "finding": "", "latency_ms": math.nan}, ["latency"]),
        ({"is_servable": True, "finding": "", "latency_ms": 2.0, "misfit": "x"}, ["signature"]),
    ],
)
def test_what_cannot_be_served_is_refused_however_good_it_is(shop, served, rules) -> None:
    verdict = gate.judge(evidence(shop, sigmoid(shop.logit), serving=ServingCheck(**served)), OURS)

    assert failed(verdict) == rules


def test_a_rule_for_a_slice_that_is_not_there_is_an_error(shop) -> None:
    asked = Thresholds(slice_margins=(SliceMargin(column="plan", value="gold", margin=0.01),))

    with pytest.raises(InvalidArgumentError, match=r"the slice plan=gold; there are \['"):
        gate.judge(evidence(shop, sigmoid(shop.logit)), asked)


def test_a_storm_is_one_observation_not_thousands(shop) -> None:
    """On one of 14 days the candidate is far better: by row that's sure, by day it's nothing."""
    baseline = sigmoid(shop.logit)
    candidate = np.where(shop.days == 3, np.clip(shop.labels, 0.2, 0.8), baseline)
    shown = evidence(shop, candidate, baseline=baseline)
    losses = [-np.log(np.where(shop.labels == 1, p, 1 - p)) for p in (candidate, baseline)]

    by_row = intervals.of_mean(losses[0] - losses[1])
    verdict = gate.judge(shown, dataclasses.replace(OURS, margin=0.0))

    (by_day,) = (rule for rule in verdict.rules if rule.rule == "log loss")
    assert by_row.upper < 0
    assert by_day.upper > 0
    assert verdict.decision == "undecided"


def test_the_whole_gate_is_rarely_wrong_about_an_equal_candidate() -> None:
    """All rows, and 20 slices that share their error: 1,000 draws of 14 days."""
    rng = np.random.default_rng(7)
    n_draws, n_slices, n_rows = 1_000, 20, 50
    of_day = rng.normal(0, 0.01, (n_draws, 1, N_DAYS))
    of_slice = rng.normal(0, 0.02, (n_draws, n_slices, N_DAYS))
    noise = rng.normal(0, 0.3 / math.sqrt(n_rows), (n_draws, n_slices, N_DAYS))
    sums = n_rows * (of_day + of_slice + noise)
    share = 1 - (1 - OURS.gate.confidence) / n_slices

    _, overall, _ = intervals.limits(sums.sum(1), n_rows * n_slices)
    _, lower, _ = intervals.limits(sums, n_rows, confidence=share)
    _, uncorrected, _ = intervals.limits(sums, n_rows)
    is_refused = (overall > 0) | (lower > 0.01).any(axis=1)

    level = 1 - OURS.gate.confidence
    assert is_refused.mean() <= level + 3 * math.sqrt(level * (1 - level) / n_draws)
    assert (uncorrected > 0).any(axis=1).mean() > 0.4


def test_a_verdict_is_written_and_read_again(shop, tmp_path: Path) -> None:
    verdict = gate.judge(evidence(shop, sigmoid(shop.logit)), OURS)

    gate.write(verdict, tmp_path / "verdict.json")

    text = (tmp_path / "verdict.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["thresholds_digest"] == OURS.digest
    again = gate.read(tmp_path / "verdict.json")
    assert again.table().equals(verdict.table())
    (tmp_path / "verdict.json").write_text('{"decision": "blessed"}')
    with pytest.raises(DataIntegrityError, match="holds no verdict"):
        gate.read(tmp_path / "verdict.json")


def test_a_summary_has_one_row_for_each_rule(shop) -> None:
    blind = np.where(shop.plan == "pro", -1.0, shop.logit)

    rows = gate.summarize(gate.judge(evidence(shop, sigmoid(blind)), OURS))

    names = [row[0] for row in rows]
    assert "slice plan=pro, 1 of 3" in names
    assert "coverage plan=pro, 1 of 3" in names
    assert len(names) == 18
    assert next(row for row in rows if row[0] == "enough days")[1:] == ("14", "≥ 14", "pass")


def test_differences_are_drawn_with_their_intervals(shop) -> None:
    from matplotlib.figure import Figure

    verdict = gate.judge(evidence(shop, sigmoid(shop.logit)), OURS)
    ax = Figure().subplots()

    assert gate.plot(verdict, ax, margin=0.002) is ax
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["all rows", "plan=basic", "plan=family", "plan=pro"]
    assert ax.get_xlabel() == "log loss, candidate minus baseline (nats)"
    first = gate.judge(evidence(shop, sigmoid(shop.logit), baseline=None), OURS)
    with pytest.raises(InvalidArgumentError, match="compares no models"):
        gate.plot(first, Figure().subplots())
