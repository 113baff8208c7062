import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.pipeline import evaluation


@pytest.mark.slow
def test_predictions_do_not_depend_on_the_batch_size(exported: Path, features) -> None:
    rows = features.head(100)

    whole = evaluation.predict(exported, rows)

    assert whole.shape == (100,)
    np.testing.assert_allclose(evaluation.predict(exported, rows, batch_size=7), whole, rtol=1e-5)


@pytest.mark.slow
def test_predicts_nothing_for_no_rows(exported: Path, features) -> None:
    assert evaluation.predict(exported, features.head(0)).shape == (0,)


@pytest.mark.slow
def test_ignores_order_and_columns_the_model_does_not_know(exported: Path, features) -> None:
    rows = features.head(20)
    shuffled = rows[rows.columns[::-1]].assign(temp=20.0)

    np.testing.assert_array_equal(
        evaluation.predict(exported, shuffled), evaluation.predict(exported, rows)
    )


@pytest.mark.slow
def test_names_the_features_that_do_not_fit(exported: Path, features) -> None:
    with pytest.raises(InvalidArgumentError, match=r"needs gust \(float32\), origin \(string\);"):
        evaluation.predict(exported, features.drop(columns="origin").assign(gust="strong"))


@pytest.mark.slow
def test_says_where_no_model_is(tmp_path: Path, features) -> None:
    with pytest.raises(NotFoundError, match=f"no SavedModel in {tmp_path}"):
        evaluation.predict(tmp_path, features)


@pytest.mark.slow
def test_refuses_a_model_without_the_signature(tmp_path: Path, features) -> None:
    import tensorflow as tf

    tf.saved_model.save(tf.Module(), str(tmp_path))

    with pytest.raises(InvalidArgumentError, match="answers no `probability`"):
        evaluation.predict(tmp_path, features)


def test_measures_a_case_worked_by_hand() -> None:
    metrics = evaluation.measure(np.float32([0.25, 0.5, 0.5, 0.75]), [0, 0, 1, 1])

    # Of four pairs of a 1 and a 0, three are in order and one is tied.
    assert metrics.auc == 0.875
    assert metrics.log_loss == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2)
    assert metrics.n_rows == 4
    assert metrics.base_rate == 0.5
    assert metrics.base_rate_log_loss == pytest.approx(math.log(2))


def test_always_predicting_the_base_rate_costs_its_entropy() -> None:
    labels = [1, 0, 0, 0, 0]

    metrics = evaluation.measure(np.full(5, 0.2), labels)

    assert metrics.log_loss == pytest.approx(metrics.base_rate_log_loss)
    assert metrics.auc == 0.5


def test_a_sure_and_wrong_prediction_costs_much_but_not_everything() -> None:
    metrics = evaluation.measure([0.0, 1.0], [1, 0])

    assert metrics.log_loss == pytest.approx(-math.log(1e-7))
    assert metrics.auc == 0


def test_a_single_class_has_a_log_loss_but_no_auc() -> None:
    metrics = evaluation.measure([0.5, 0.5], [1, 1])

    assert math.isnan(metrics.auc)
    assert metrics.log_loss == pytest.approx(math.log(2))
    assert metrics.base_rate_log_loss == 0


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([0.1, np.nan, np.nan], [0, 1, 0], "2 of 3 predictions are NaN"),
        ([0.1, 1.5], [0, 1], "must be 0 to 1, got 0.1 to 1.5"),
        ([0.1, 0.2], [0, np.nan], "1 of 2 labels are missing"),
        ([0.1, 0.2, 0.3], [0, 1], "got 3 rows and labels of shape [2]"),
        ([], [], "got 0 rows"),
        ([[0.1], [0.2]], [0, 1], "must have shape [n_rows], got [2, 1]"),
    ],
)
def test_refuses_what_cannot_be_measured(probabilities, labels, message) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        evaluation.measure(probabilities, labels)

    assert message in str(caught.value)


BASELINE = evaluation.Metrics(
    n_rows=1000, auc=0.7, log_loss=0.5, base_rate=0.25, base_rate_log_loss=0.5623
)


@pytest.mark.parametrize(
    ("log_loss", "is_blessed"), [(0.4999, True), (0.5, True), (0.5001, False), (math.nan, False)]
)
def test_blesses_a_candidate_that_is_not_worse(log_loss: float, is_blessed: bool) -> None:
    verdict = evaluation.judge(dataclasses.replace(BASELINE, log_loss=log_loss), BASELINE)

    assert verdict.is_blessed is is_blessed
    assert f"log loss {log_loss:.4f}" in verdict.reason
    assert "baseline's 0.5000" in verdict.reason


def test_blesses_the_first_model_and_says_what_guessing_costs() -> None:
    verdict = evaluation.judge(BASELINE, None)

    assert verdict.is_blessed
    assert "0.5000" in verdict.reason
    assert "0.5623" in verdict.reason


@pytest.mark.parametrize("change", [{"n_rows": 999}, {"base_rate": 0.26}])
def test_refuses_to_compare_on_different_rows(change) -> None:
    with pytest.raises(InvalidArgumentError, match="same rows"):
        evaluation.judge(dataclasses.replace(BASELINE, **change), BASELINE)
