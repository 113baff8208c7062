import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import DataIntegrityError, InvalidArgumentError, NotFoundError
from mlops_mini.features import offline
from mlops_mini.flights import datasets
from mlops_mini.flights.features import FEATURES
from mlops_mini.flights.preparation import prepare
from mlops_mini.model import evaluation, training
from mlops_mini.model.digest import model_digest


def weights(model: Any) -> list[np.ndarray]:
    return model.get_weights()


def run_in_session(folder: Path, features: pd.DataFrame) -> np.ndarray:
    """Run the model as a server does: from its files alone, names read from its signature."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(folder))
        signature = meta_graph.signature_def["serving_default"]
        feeds = {field.name: features[name] for name, field in signature.inputs.items()}
        return session.run(signature.outputs["probability"].name, feeds)


def test_learns_what_labels_depend_on(exported: Path, features, labels) -> None:
    metrics = evaluation.measure(evaluation.predict(exported, features), labels)

    assert metrics.log_loss < metrics.base_rate_log_loss - 0.1
    assert metrics.auc > 0.8


def test_same_seed_gives_the_same_model_and_another_seed_another(features, labels) -> None:
    first, again, other = (
        weights(training.train(features, labels, seed=seed, epochs=1)) for seed in (3, 3, 4)
    )

    assert all(map(np.array_equal, first, again))
    assert not np.array_equal(first[0], other[0])


def test_leaves_features_and_labels_as_they_were(features, labels) -> None:
    features_before, labels_before = features.copy(deep=True), labels.copy(deep=True)

    training.train(features, labels, epochs=1)

    pd.testing.assert_frame_equal(features, features_before)
    pd.testing.assert_series_equal(labels, labels_before)


def test_reports_each_epoch_with_a_falling_loss(features, labels) -> None:
    reports = []

    training.train(features, labels, epochs=3, on_epoch=lambda *report: reports.append(report))

    assert [epoch for epoch, _ in reports] == [1, 2, 3]
    assert reports[2][1] < reports[0][1]


def test_gaps_and_columns_that_never_vary_leave_all_weights_finite(model) -> None:
    assert all(np.isfinite(values).all() for values in weights(model))


def test_a_missing_number_counts_as_the_mean(exported: Path, features) -> None:
    rows = pd.concat([features.head(2)] * 2, ignore_index=True)
    rows.loc[:1, "gust"] = features["gust"].mean()
    rows.loc[2:, "gust"] = np.nan

    probabilities = evaluation.predict(exported, rows)

    np.testing.assert_allclose(probabilities[:2], probabilities[2:], rtol=1e-5)


def test_a_number_is_held_within_three_deviations(exported: Path, features) -> None:
    limit = features["gust"].mean() + 3 * features["gust"].std(ddof=0)
    rows = pd.concat([features.head(1)] * 4, ignore_index=True)

    probabilities = evaluation.predict(exported, rows.assign(gust=[limit, 1e6, np.inf, 0.0]))

    np.testing.assert_allclose(probabilities[:3], probabilities[0], rtol=1e-5)
    assert probabilities[3] != pytest.approx(probabilities[0], rel=1e-5)


def test_a_column_that_never_varied_has_no_say_later(exported: Path, features) -> None:
    changed = features.head(50).assign(constant=1e6, empty=-np.inf)

    np.testing.assert_array_equal(
        evaluation.predict(exported, changed), evaluation.predict(exported, features.head(50))
    )


def test_unseen_categories_share_a_place_of_their_own(exported: Path, features) -> None:
    rows = features.head(1)
    p = {
        origin: evaluation.predict(exported, rows.assign(origin=origin))[0]
        for origin in ("EWR", "JFK", "", "SWF", "Zürich")
    }

    assert p["SWF"] == p["Zürich"]
    assert len({p["EWR"], p["JFK"], p[""], p["SWF"]}) == 4


def test_vocabulary_goes_by_frequency_then_name(features, labels) -> None:
    few = features.head(6).assign(origin=["B", "C", "C", "A", "D", "D"])

    model = training.train(few, [0, 1, 0, 1, 0, 1], epochs=1)

    lookup = next(layer for layer in model._flatten_layers() if hasattr(layer, "get_vocabulary"))
    assert lookup.get_vocabulary() == ["[UNK]", "C", "D", "A", "B"]


def test_columns_of_one_kind_are_enough(features, labels) -> None:
    for names in (["origin"], ["mins", "gust"]):
        model = training.train(features[names], labels, epochs=1)
        assert set(model.input) == set(names)


def test_export_answers_the_same_in_a_tf1_session(exported: Path, model, features) -> None:
    rows = features.head(100)
    inputs = training.as_inputs(rows)
    import keras

    direct = model({name: keras.ops.convert_to_tensor(a) for name, a in inputs.items()})

    answered = run_in_session(exported, rows)

    assert answered.dtype == np.float32
    assert answered.shape == (100,)
    np.testing.assert_allclose(answered, direct["probability"], rtol=1e-5)


def test_signature_takes_raw_fields_of_shape_batch(exported: Path, features) -> None:
    import tensorflow as tf

    signature = tf.saved_model.load(str(exported)).signatures["serving_default"]

    fields = signature.structured_input_signature[1]
    assert {name: (spec.dtype, spec.shape.as_list()) for name, spec in fields.items()} == {
        name: (tf.string if name == "origin" else tf.float32, [None]) for name in features
    }
    answer = signature.structured_outputs["probability"]
    assert (list(signature.structured_outputs), answer.shape.as_list()) == (["probability"], [None])


def test_export_is_silent(model, tmp_path: Path, capfd) -> None:
    capfd.readouterr()

    training.export(model, tmp_path / "model")

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "labels", "message"),
    [
        ({}, [0, 1, np.nan, np.nan], "2 of 4 labels are missing"),
        ({}, [0, 1], "got 4 rows and labels of shape [2]"),
        ({}, [1, 1, 1, 1], "all 4 labels are 1"),
        ({}, [0, 1, 2, 0.5], "labels must be 0 to 2, got also [0.5]"),
        ({"mins": [1, np.inf, np.nan, 2]}, [0, 1, 0, 1], "infinite values in ['mins']"),
    ],
)
def test_refuses_what_cannot_be_learned_from(features, change, labels, message) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        training.train(features.head(4).assign(**change), labels)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_no_rows_no_columns_and_no_epochs(features, labels) -> None:
    with pytest.raises(InvalidArgumentError, match="got 0 rows"):
        training.train(features.head(0), [])
    with pytest.raises(InvalidArgumentError, match="1 feature"):
        training.train(features[[]], labels)
    with pytest.raises(InvalidArgumentError, match="1 epoch"):
        training.train(features, labels, epochs=0)


def test_a_warm_start_trains_on_and_keeps_the_preprocessing(
    exported: Path, model, features, labels
) -> None:
    moved = features.assign(mins=features["mins"] + 100, origin="SWF")

    warm = training.train(moved, labels, epochs=1, parent=exported)
    fresh = training.train(moved, labels, epochs=1)

    def learned(model: Any) -> tuple[list[str], np.ndarray]:
        layers = list(model._flatten_layers())
        (words,) = (layer.get_vocabulary() for layer in layers if hasattr(layer, "get_vocabulary"))
        (mean,) = (np.array(layer.mean).ravel() for layer in layers if hasattr(layer, "mean"))
        return words, mean

    words, means = learned(warm)
    assert words == learned(model)[0]
    assert "SWF" not in words
    np.testing.assert_array_equal(means, learned(model)[1])
    assert not np.array_equal(means, learned(fresh)[1])
    assert not any(map(np.array_equal, weights(warm), weights(model)))


def test_a_warm_start_needs_the_export_alone_and_begins_where_it_ended(
    exported: Path, features, labels, tmp_path: Path
) -> None:
    losses: dict[str, list[float]] = {"cold": [], "warm": []}
    for name, parent in (("cold", None), ("warm", exported)):
        model = training.train(
            features,
            labels,
            epochs=1,
            parent=parent,
            on_epoch=lambda _epoch, loss, name=name: losses[name].append(loss),
        )
    training.export(model, tmp_path / "second")
    third = training.train(features, labels, epochs=1, parent=tmp_path / "second")

    assert losses["warm"][0] < losses["cold"][0] - 0.02
    assert set(third.input) == set(features)


def test_a_warm_start_with_the_same_seed_gives_the_same_model(exported, features, labels) -> None:
    first, again = (
        weights(training.train(features, labels, seed=3, epochs=1, parent=exported))
        for _ in range(2)
    )

    assert all(map(np.array_equal, first, again))


@pytest.mark.parametrize("change", [{"temp": 20.0}, {"origin": 1.0}, {"mins": "early"}], ids=str)
def test_a_warm_start_refuses_other_features(exported, features, labels, change) -> None:
    with pytest.raises(InvalidArgumentError, match=r"takes .*'gust'.*train from scratch"):
        training.train(features.assign(**change), labels, parent=exported)


def test_a_warm_start_needs_a_keras_model(features, labels, tmp_path: Path) -> None:
    with pytest.raises(
        NotFoundError, match=r"it has no assets\.extra/model\.keras; name a version"
    ):
        training.train(features, labels, parent=tmp_path)


def test_a_parent_that_was_replaced_is_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(DataIntegrityError, match="does not have the digest 'abc'"):
        training.train_from_files(
            [tmp_path / "none"],
            tmp_path / "model",
            label="failed",
            features=["origin"],
            parent=exported,
            parent_digest="abc",
        )


def test_trains_from_a_file_on_the_named_features_alone(
    exported: Path, features, labels, tmp_path: Path
) -> None:
    file = tmp_path / "examples.parquet"
    features.assign(machine_id=range(len(features)), failed=labels, cost=labels).to_parquet(file)

    training.train_from_files([file], tmp_path / "model", label="failed", features=list(features))

    assert model_digest(tmp_path / "model") == model_digest(exported)


def test_a_file_that_lacks_a_feature_or_the_label_is_named(tmp_path: Path) -> None:
    file = tmp_path / "examples.parquet"
    pd.DataFrame({"machine_id": [1], "temp_c": [20.5]}).to_parquet(file)

    with pytest.raises(InvalidArgumentError, match=rf"{file} has no columns \['rpm', 'failed'\]"):
        training.train_from_files(
            [file], tmp_path / "model", label="failed", features=["temp_c", "rpm"]
        )


def test_importing_the_pipeline_does_not_import_tensorflow() -> None:
    code = (
        "import sys; from mlops_mini.model import training, evaluation, publish; "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_january_predicts_march_better_than_its_base_rate(tmp_path: Path) -> None:
    january, march = (datasets.flights(month) for month in ("2013-01", "2013-03"))
    (learned, labels), (asked, outcomes) = (
        (offline.compute(landed, FEATURES, prepare=prepare), landed["late"])
        for landed in (prepare(month).dropna(subset="late") for month in (january, march))
    )
    model = training.train(learned, labels)
    training.export(model, tmp_path / "model")

    probabilities = evaluation.predict(tmp_path / "model", asked)
    metrics = evaluation.measure(probabilities, outcomes)

    assert metrics.n_rows == 27_902
    assert metrics.auc > 0.61
    assert metrics.log_loss < metrics.base_rate_log_loss - 0.01
