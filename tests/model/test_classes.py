"""Several classes instead of two: another loss per row, and everything else as it was."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_mini.data import tensors
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.model import evaluation, gate, serving_check, signatures, thresholds, training
from mlops_mini.model.gate_rules import Evidence
from mlops_mini.model.thresholds import GateRules, SliceMargin, Thresholds

N_ROWS, N_CLASSES = 3_000, 4
RULES = Thresholds(
    margin=0.02,
    slice_margins=(SliceMargin(margin=0.05), SliceMargin(metric="AUC", margin=0.05)),
    floors=thresholds.read().floors,
)


@pytest.fixture(scope="module")
def told():
    """Labels of four classes, by day and shop, and what a fair model answers: [n_rows, 4]."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (N_ROWS, N_CLASSES))
    fair = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random((N_ROWS, 1)) > fair.cumsum(axis=1)).sum(axis=1).astype(float)
    return {
        "labels": labels,
        "fair": fair,
        "days": np.repeat(np.arange(15), N_ROWS // 15),
        "shop": pd.Series(rng.choice(["mall", "station"], N_ROWS)),
        "class": pd.Series(labels).map(dict(enumerate("abcd"))),
    }


def evidence(told, candidate, **changes) -> Evidence:
    blunt = 0.6 * told["fair"] + 0.1
    fields = {
        "labels": told["labels"],
        "days": told["days"],
        "candidate": candidate,
        "baseline": blunt,
        "slices": {name: told[name] for name in ("shop", "class")},
    }
    return Evidence(**fields | changes)


def failed(verdict: gate.Verdict) -> list[str]:
    return [f"{rule.rule} {rule.slice}" for rule in verdict.rules if rule.verdict == "fail"]


def test_the_loss_of_a_row_is_that_of_its_own_class(told) -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    losses = evaluation.log_loss_per_row(told["fair"], told["labels"])
    metrics = evaluation.measure(told["fair"], told["labels"])

    assert losses.shape == (N_ROWS,)
    assert metrics.log_loss == pytest.approx(log_loss(told["labels"], told["fair"]))
    by_class = roc_auc_score(told["labels"], told["fair"], multi_class="ovr")
    assert metrics.auc == pytest.approx(by_class)
    assert metrics.base_rate == np.bincount(told["labels"].astype(int)).max() / N_ROWS
    assert metrics.log_loss < metrics.base_rate_log_loss < np.log(N_CLASSES)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.5, 0.5, 0.5]], [0], "of 1 of 1 rows don't sum to 1"),
        ([[0.5, 0.5]], [0], r"more classes than two, got \[1, 2\]"),
        ([[0.2, 0.3, 0.5]], [3], "labels must be 0 to 2, got also"),
        ([[0.2, 0.3, np.nan]], [1], "1 of 3 predictions are NaN"),
    ],
)
def test_refuses_what_are_no_probabilities_of_classes(probabilities, labels, message) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        evaluation.log_loss_per_row(np.array(probabilities), labels)


def test_the_gate_blesses_what_is_better_by_class_and_by_shop(told) -> None:
    verdict = gate.judge(evidence(told, told["fair"]), RULES)

    assert (verdict.decision, failed(verdict)) == ("blessed", [])
    judged = {(rule.rule, rule.slice) for rule in verdict.rules if rule.verdict == "pass"}
    assert {("slice", "class=a"), ("slice", "shop=mall"), ("slice AUC", "shop=mall")} <= judged
    assert ("slice AUC", "class=a") not in judged  # there's nothing to tell apart
    assert ("each class", "") in judged
    (ratio,) = (rule.value for rule in verdict.rules if rule.rule == "calibration")
    assert ratio == pytest.approx(1, abs=0.05)


def test_the_gate_refuses_what_ruins_one_class(told) -> None:
    ruined = told["fair"].copy()
    ruined[:, 2] *= 0.2
    ruined /= ruined.sum(axis=1, keepdims=True)

    verdict = gate.judge(evidence(told, ruined), RULES)

    assert verdict.decision == "refused"
    assert "slice class=c" in failed(verdict)


def test_the_gate_refuses_answers_that_are_no_distribution(told) -> None:
    broken = told["fair"].copy()
    broken[5] *= 0.5

    verdict = gate.judge(evidence(told, broken), RULES)

    assert failed(verdict) == ["answers "]
    assert verdict.reason == "answers: 1 answers are NaN or outside 0 to 1, or don't sum to 1"


def test_a_class_that_nobody_showed_leaves_the_gate_undecided(told) -> None:
    rows = told["labels"] != 3
    fields = {
        field: getattr(evidence(told, told["fair"]), field)[rows]
        for field in ("labels", "days", "candidate", "baseline")
    }

    verdict = gate.judge(Evidence(**fields), dataclasses.replace(RULES, gate=GateRules(min_rows=9)))

    assert (verdict.decision, verdict.reason) == (
        "undecided",
        "each class: 0 are too few to judge by",
    )


def test_a_file_may_name_the_loss_of_several_classes() -> None:
    change = {"change_threshold": {"absolute": 0.05, "direction": "LOWER_IS_BETTER"}}
    metric = {"class_name": "SparseCategoricalCrossentropy", "threshold": change}

    read = thresholds.from_eval_config({"metrics_specs": [{"metrics": [metric]}]})

    assert read.margin == 0.05


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    """A model of three classes, by the network that everybody gets, and the rows to judge it by."""
    folder = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (1_500, 2))
    plan = rng.choice(["basic", "pro"], 1_500)
    label = np.where(plan == "pro", 2, (x[:, 0] > 0).astype(int))
    rows = pd.DataFrame({"key": range(1_500), "x": x[:, 0], "plan": plan, "goes_to": label})
    rows.to_parquet(folder / "rows.parquet", index=False)
    training.train_from_files(
        [folder / "rows.parquet"], folder / "1", label="goes_to", features=["x", "plan"], epochs=20
    )
    return folder


def test_the_default_network_learns_several_classes_and_is_served(learned) -> None:
    metrics = evaluation.evaluate(
        learned / "1",
        learned / "rows.parquet",
        learned / "metrics.json",
        learned / "predictions.parquet",
        key="key",
        label="goes_to",
        slices=["plan"],
        features=["x", "plan"],
        baseline=None,
    )

    assert metrics.log_loss < 0.5 * metrics.base_rate_log_loss
    answered = training.read_examples(learned / "predictions.parquet", ["candidate"])["candidate"]
    assert tensors.kind_of(answered) == "float32[3]"
    assert (
        json.loads((learned / "metrics.json").read_text())["candidate"]["plan"]["pro"]["auc"]
        is None
    )
    checked = serving_check.check(
        learned / "1", learned / "rows.parquet", features=["x", "plan"], baseline=learned / "1"
    )
    assert (checked.is_servable, checked.misfit) == (True, "")
    assert signatures.read(learned / "1")["serving_default"].outputs == {
        "probability": "float32[3]"
    }


def test_a_warm_start_keeps_the_classes(learned) -> None:
    rows = pd.read_parquet(learned / "rows.parquet")

    again = training.train(rows[["x", "plan"]], rows["goes_to"], epochs=1, parent=learned / "1")
    assert again.output["probability"].shape[1:] == (3,)
    with pytest.raises(InvalidArgumentError, match="tells 3 classes, the labels have 2"):
        training.train(rows[["x", "plan"]], rows["goes_to"].clip(upper=1), parent=learned / "1")


def test_training_refuses_a_class_without_rows_and_arrays() -> None:
    rows = pd.DataFrame({"x": [0.0, 1.0, 2.0]})

    with pytest.raises(InvalidArgumentError, match="no label of 3 is 1, of the classes 0 to 2"):
        training.train(rows, [0, 2, 2])
    with pytest.raises(InvalidArgumentError, match=r"\['scan'\] are tensors.*`train` of its own"):
        training.train(pd.DataFrame({"scan": tensors.column(np.zeros((2, 3)))}), [0, 1])
