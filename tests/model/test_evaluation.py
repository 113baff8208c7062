import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from mlops_mini.errors import DataIntegrityError, InvalidArgumentError, NotFoundError
from mlops_mini.model import evaluation
from tests.trained import FEATURE_NAMES

FLIGHTS = {"key": "flight_id", "label": "late", "slices": ["origin", "carrier", "hours"]}


def test_predictions_do_not_depend_on_the_batch_size(exported: Path, features) -> None:
    rows = features.head(100)

    whole = evaluation.predict(exported, rows)

    assert whole.shape == (100,)
    np.testing.assert_allclose(evaluation.predict(exported, rows, batch_size=7), whole, rtol=1e-5)


def test_predicts_nothing_for_no_rows(exported: Path, features) -> None:
    assert evaluation.predict(exported, features.head(0)).shape == (0,)


def test_ignores_order_and_columns_the_model_does_not_know(exported: Path, features) -> None:
    rows = features.head(20)
    shuffled = rows[rows.columns[::-1]].assign(temp=20.0)

    np.testing.assert_array_equal(
        evaluation.predict(exported, shuffled), evaluation.predict(exported, rows)
    )


def test_names_the_features_that_do_not_fit(exported: Path, features) -> None:
    with pytest.raises(InvalidArgumentError, match=r"needs gust \(float32\), origin \(string\);"):
        evaluation.predict(exported, features.drop(columns="origin").assign(gust="strong"))


def test_says_where_no_model_is(tmp_path: Path, features) -> None:
    with pytest.raises(NotFoundError, match=f"no SavedModel in {tmp_path}"):
        evaluation.predict(tmp_path, features)


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


def test_the_loss_of_each_row_is_that_of_its_own_label() -> None:
    losses = evaluation.log_loss_per_row(np.float32([0.25, 0.25, 1.0, 1.0]), [0, 1, 1, 0])

    expected = [-math.log(0.75), -math.log(0.25), -math.log(1 - 1e-7), -math.log(1e-7)]
    np.testing.assert_allclose(losses, expected)


def test_log_loss_is_bit_for_bit_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    labels, probabilities = rng.integers(0, 2, 9_973), rng.random(9_973).astype(np.float32)

    metrics = evaluation.measure(probabilities, labels)

    assert metrics.log_loss == sklearn.metrics.log_loss(labels, probabilities.astype(np.float64))


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
        ([[0.1], [0.2]], [0, 1], "classes than two, got [2, 1]"),
    ],
)
def test_refuses_what_cannot_be_measured(probabilities, labels, message) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        evaluation.measure(probabilities, labels)

    assert message in str(caught.value)


def test_slices_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 500)
    probabilities = rng.random(500)
    carrier = pd.Series(rng.choice(["AA", "UA", "YV"], 500), index=range(1000, 1500))

    slices = evaluation.measure_slices(probabilities, labels, {"carrier": carrier})["carrier"]

    whole = evaluation.measure(probabilities, labels)
    assert list(slices) == ["AA", "UA", "YV"]
    n_rows = np.array([metrics.n_rows for metrics in slices.values()])
    losses = np.array([metrics.log_loss for metrics in slices.values()])
    assert n_rows.sum() == 500
    assert n_rows @ losses / 500 == pytest.approx(whole.log_loss)
    of_ua = (carrier == "UA").to_numpy()
    assert slices["UA"] == evaluation.measure(probabilities[of_ua], labels[of_ua])


def test_a_slice_without_rows_is_there_and_says_so() -> None:
    origin = pd.Series(["EWR", "EWR"], dtype=pd.CategoricalDtype(["EWR", "JFK"]))

    slices = evaluation.measure_slices([0.1, 0.9], [0, 1], {"origin": origin})["origin"]

    assert (slices["EWR"].auc, slices["EWR"].n_rows) == (1.0, 2)
    assert slices["JFK"].n_rows == 0
    assert math.isnan(slices["JFK"].log_loss)


def test_refuses_to_slice_other_rows() -> None:
    with pytest.raises(InvalidArgumentError, match="origin slices 1 rows, there are 2"):
        evaluation.measure_slices([0.1, 0.9], [0, 1], {"origin": pd.Series(["EWR"])})


def test_evaluates_both_models_on_the_same_flights(stages, candidate, tmp_path: Path) -> None:
    model, digest = candidate
    file = tmp_path / "metrics.json"

    overall = evaluation.evaluate(
        model,
        stages.path("test_examples"),
        file,
        tmp_path / "predictions",
        **FLIGHTS,
        features=FEATURE_NAMES,
        baseline=model,
        baseline_digest=digest,
    )

    text = file.read_text()
    assert "NaN" not in text
    report = json.loads(text)
    assert report["candidate"] == report["baseline"]
    by = report["candidate"]
    assert by["overall"]["all"] == dataclasses.asdict(overall)
    assert set(by["origin"]) == {"EWR", "JFK", "LGA"}
    assert set(by["hours"]) == {"0 to 6", "6 to 12", "12 to 18", "18 to 24"}
    for slicing in by.values():
        assert sum(metrics["n_rows"] for metrics in slicing.values()) == overall.n_rows
    assert {"UA", "B6"} < set(by["carrier"])
    answered = pd.read_parquet(tmp_path / "predictions")
    assert list(answered) == ["flight_id", "candidate", "baseline", "fallback"]
    assert (answered["candidate"] == answered["baseline"]).all()


def test_the_first_candidate_has_nothing_to_be_compared_with(stages, candidate, tmp_path) -> None:
    model, _ = candidate
    file = tmp_path / "metrics.json"

    evaluation.evaluate(
        model,
        stages.path("test_examples"),
        file,
        tmp_path / "predictions",
        **FLIGHTS,
        features=FEATURE_NAMES,
    )

    assert json.loads(file.read_text())["baseline"] is None
    columns = list(pd.read_parquet(tmp_path / "predictions"))
    assert columns == ["flight_id", "candidate", "fallback"]


def test_a_named_baseline_that_is_gone_or_replaced_is_an_error(
    stages, candidate, exported: Path, tmp_path: Path
) -> None:
    model, digest = candidate
    examples, file = stages.path("test_examples"), tmp_path / "metrics.json"

    for baseline, error, message in (
        (tmp_path / "gone", NotFoundError, "no SavedModel in"),
        (exported, DataIntegrityError, "was replaced"),
    ):
        with pytest.raises(error, match=message):
            evaluation.evaluate(
                model,
                examples,
                file,
                tmp_path / "predictions",
                **FLIGHTS,
                features=FEATURE_NAMES,
                baseline=baseline,
                baseline_digest=digest,
            )
    assert not file.exists()


@pytest.fixture(scope="module")
def machines(features, labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Examples of another subject: machines, with a hall that has none of them. Never change it."""
    halls = pd.Categorical(["A", "B"] * (len(features) // 2), ["B", "A", "C"])
    file = tmp_path_factory.mktemp("machines") / "examples.parquet"
    rows = features.assign(machine_id=[f"m{i}" for i in range(len(features))], failed=labels)
    rows.assign(hall=halls, overall="x").to_parquet(file)
    return file


def test_evaluates_any_table_by_its_own_slices(exported, machines, features, tmp_path) -> None:
    file = tmp_path / "metrics.json"

    overall = evaluation.evaluate(
        exported,
        machines,
        file,
        tmp_path / "predictions",
        key="machine_id",
        label="failed",
        slices=["hall"],
        features=list(features),
    )

    candidate = json.loads(file.read_text())["candidate"]
    assert list(candidate) == ["overall", "hall"]
    n_rows = {hall: metrics["n_rows"] for hall, metrics in candidate["hall"].items()}
    assert list(n_rows.items()) == [("B", 1500), ("A", 1500), ("C", 0)]
    assert candidate["hall"]["C"]["log_loss"] is None
    assert overall.n_rows == 3000


def test_a_model_sees_no_column_that_is_no_feature(exported, machines, tmp_path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"needs gust \(float32\)"):
        evaluation.evaluate(
            exported,
            machines,
            tmp_path / "metrics.json",
            tmp_path / "predictions",
            key="machine_id",
            label="failed",
            slices=[],
            features=["origin", "mins", "constant", "empty"],
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "origin"}, "2996 of 3000 rows in .* repeat the origin of another row"),
        ({"slices": ["hall", "shift"]}, r"has no columns \['shift'\]: name others"),
        ({"label": "broken"}, r"has no columns \['broken'\]: name others"),
        ({"slices": ["overall"]}, "a column named 'overall' can't be a slice"),
    ],
    ids=["key", "slice", "label", "overall"],
)
def test_a_description_that_does_not_fit_the_table_is_refused(
    machines: Path, tmp_path: Path, change: dict, message: str
) -> None:
    predictions = tmp_path / "predictions.parquet"
    pd.read_parquet(machines).assign(probability=0.5).to_parquet(predictions)
    arguments = {"key": "machine_id", "label": "failed", "slices": ["hall"]} | change

    with pytest.raises(InvalidArgumentError, match=message):
        evaluation.score(predictions, machines, tmp_path / "metrics.json", **arguments)
    assert not (tmp_path / "metrics.json").exists()


def test_answers_that_are_no_probabilities_are_left_to_the_gate(
    exported, machines, features, tmp_path
) -> None:
    import tensorflow as tf

    takes = {name: tf.TensorSpec([None], dtype) for name, dtype in (("mins", tf.float32),)}

    @tf.function(input_signature=[takes["mins"]])
    def broken(mins):
        return {"probability": tf.math.log(mins - mins - 1.0)}

    tf.saved_model.save(tf.Module(), str(tmp_path / "broken"), signatures=broken)

    metrics = evaluation.evaluate(
        tmp_path / "broken",
        machines,
        tmp_path / "metrics.json",
        tmp_path / "predictions",
        key="machine_id",
        label="failed",
        slices=["hall"],
        features=list(features),
    )

    assert (metrics.n_rows, math.isnan(metrics.log_loss)) == (3000, True)
    assert pd.read_parquet(tmp_path / "predictions")["candidate"].isna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("one less", "for other examples .* predict each flight_id there once"),
        ("one twice", "1 of .* repeat the flight_id of another row"),
        ("another", "for other examples .* predict each flight_id there once"),
    ],
)
def test_scores_only_one_prediction_for_each_flight(
    stages, tmp_path: Path, change: str, message: str
) -> None:
    flights = pd.read_parquet(stages.path("test_examples"))
    ids = flights["flight_id"].to_numpy().copy()
    if change == "one less":
        ids = ids[1:]
    else:
        ids[0] = ids[1] if change == "one twice" else -1
    table = pd.DataFrame({"flight_id": ids, "probability": 0.5})
    table.to_parquet(tmp_path / "predictions")

    with pytest.raises(InvalidArgumentError, match=message):
        evaluation.score(
            tmp_path / "predictions",
            stages.path("test_examples"),
            tmp_path / "metrics",
            **FLIGHTS,
        )


def test_a_damaged_model_is_named(exported: Path, features, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "variables")

    with pytest.raises(DataIntegrityError, match=f"{tmp_path}/model does not load"):
        evaluation.predict(tmp_path / "model", features)
