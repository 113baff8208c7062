"""The real server on a candidate: what it answers, and what a model that it cannot serve costs."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.model import serving_check, training
from tests.trained import FEATURE_NAMES


def test_a_model_that_answers_otherwise_is_a_finding(stages, candidate) -> None:
    """No tolerance is below zero: whatever it answers is too far off."""
    model, _ = candidate

    checked = serving_check.check(
        model, stages.path("test_examples"), features=FEATURE_NAMES, n_rows=3, tolerance=-1.0
    )

    assert not checked.is_servable
    assert checked.finding.startswith("3 answers over REST and gRPC differ from the model's own by")


def test_a_damaged_model_is_a_finding_and_no_error(stages, candidate, tmp_path: Path) -> None:
    model, _ = candidate
    shutil.copytree(model, tmp_path / "model")
    (data,) = (tmp_path / "model" / "variables").glob("variables.data*")
    data.write_bytes(data.read_bytes()[:10])

    checked = serving_check.check(
        tmp_path / "model", stages.path("test_examples"), features=FEATURE_NAMES
    )

    assert not checked.is_servable
    assert "does not load" in checked.finding


def test_a_model_of_other_features_is_a_finding(stages, tmp_path: Path) -> None:
    examples = pd.read_parquet(stages.path("test_examples")).head(500)
    features = examples[["origin", "mins"]].assign(color="red")
    training.export(training.train(features, examples["late"], epochs=1), tmp_path / "model")

    checked = serving_check.check(
        tmp_path / "model", stages.path("test_examples"), features=["origin", "mins"]
    )

    assert not checked.is_servable
    assert "needs color (string)" in checked.finding


def test_asks_about_any_table_and_sends_its_features_alone(
    exported: Path, features: pd.DataFrame, tmp_path: Path
) -> None:
    file = tmp_path / "examples.parquet"
    features.assign(machine_id=range(len(features)), failed=0.0, shift="night").to_parquet(file)

    checked = serving_check.check(
        exported, file, features=list(features), n_rows=5, baseline=exported
    )
    without_gust = serving_check.check(
        exported, file, features=[name for name in features if name != "gust"], n_rows=5
    )

    assert checked.is_servable, checked.finding
    assert checked.misfit == ""
    assert 0 < checked.latency_ms < 10_000
    assert not without_gust.is_servable
    assert "needs gust (float32)" in without_gust.finding
    with pytest.raises(InvalidArgumentError, match=r"has no columns \['temp_c'\]: name others"):
        serving_check.check(exported, file, features=[*features, "temp_c"])


def test_what_callers_of_the_baseline_would_miss_is_told(exported, features, tmp_path) -> None:
    """The server can serve it, but those who send what the baseline takes get errors."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="mins")])
    def answer(mins):
        return {"probability": tf.sigmoid(mins / 1000)}

    tf.saved_model.save(tf.Module(), str(tmp_path / "small"), signatures=answer)
    file = tmp_path / "examples.parquet"
    features.to_parquet(file)

    checked = serving_check.check(
        tmp_path / "small", file, features=["mins"], n_rows=3, baseline=exported
    )

    assert checked.is_servable, checked.finding
    assert checked.misfit == (
        "the baseline takes constant (float32), empty (float32), gust (float32), origin (string),"
        " where it takes no such"
    )


@pytest.mark.parametrize(
    ("scale", "words"), [(1 / 500, "model's own within"), (float("nan"), "signature fallback")]
)
def test_the_fallback_is_asked_too(scale: float, words: str, features, tmp_path: Path) -> None:
    """NaN is as far off from the model's own answer as can be, though that's NaN too."""
    import tensorflow as tf

    def answers(scale: float):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="mins")])
        def answer(mins):
            return {"probability": tf.sigmoid(mins * scale)}

        return answer

    signatures = {"serving_default": answers(1 / 1000), "fallback": answers(scale)}
    tf.saved_model.save(tf.Module(), str(tmp_path / "model"), signatures=signatures)
    features.to_parquet(tmp_path / "examples.parquet")

    checked = serving_check.check(
        tmp_path / "model", tmp_path / "examples.parquet", features=["mins"], n_rows=3
    )

    assert words in checked.finding
    assert checked.is_servable == ("own within" in words)


def test_a_model_that_outlasts_the_client_is_told_as_slow(features, tmp_path: Path) -> None:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="mins")])
    def answer(mins):
        matrix = tf.zeros([300, 300]) + tf.reduce_mean(mins) * 1e-9
        for _ in tf.range(2_000):
            matrix = tf.matmul(matrix, matrix) + 1e-3
        return {"probability": tf.sigmoid(mins + 1e-30 * tf.tanh(tf.reduce_mean(matrix)))}

    tf.saved_model.save(tf.Module(), str(tmp_path / "model"), signatures=answer)
    features.to_parquet(tmp_path / "examples.parquet")

    checked = serving_check.check(
        tmp_path / "model",
        tmp_path / "examples.parquet",
        features=["mins"],
        n_rows=3,
        timeout_s=0.1,
    )

    assert not checked.is_servable
    assert checked.latency_ms >= 100
