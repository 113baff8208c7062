"""What training writes beside a model for its server to run first, in child processes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.model import publish, training, warmup_requests
from mlops_mini.model.digest import model_digest
from mlops_mini.serving import servables, warmup
from tests.serving.servers import run_in_child


def _train(folder: Path) -> None:
    rows = pd.DataFrame(
        {"plan": ["a", "b", ""] * 10, "calls": np.arange(30.0), "left": [0, 1] * 15}
    )
    rows.loc[3, "calls"] = np.nan
    rows.to_parquet(folder / "rows.parquet")
    training.train_from_files(
        [folder / "rows.parquet"],
        folder / "export",
        label="left",
        features=["plan", "calls"],
        epochs=1,
    )


def _check(folder: Path) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    _train(folder)
    file = folder / "export" / warmup_requests.FILE
    requests = [
        prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        for record in tf.compat.v1.io.tf_record_iterator(str(file))
    ]
    asked = [
        {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        for request in requests
    ]
    assert [len(inputs["calls"]) for inputs in asked] == [1, 2, 4, 8, 16, 32, 64]
    assert set(asked[-1]["plan"]) == {b"a", b"b", b""}
    assert np.isnan(asked[-1]["calls"]).any()

    # The same rows make the same bytes, and the file says nothing of what the model answers.
    written, digest = file.read_bytes(), model_digest(folder / "export")
    inputs = {"plan": np.array(["a"], object), "calls": np.float32([1])}
    warmup_requests.write(folder / "export", inputs)
    assert file.read_bytes() != written
    assert model_digest(folder / "export") == digest
    rows = pd.read_parquet(folder / "rows.parquet")[["plan", "calls"]]
    warmup_requests.write(folder / "export", training.as_inputs(rows))
    assert file.read_bytes() == written
    with pytest.raises(InvalidArgumentError, match="need rows"):
        warmup_requests.write(folder / "export", training.as_inputs(rows.iloc[:0]))

    version = publish.publish(folder / "export", folder / "models")
    assert (version.path / warmup_requests.FILE).read_bytes() == written
    servable = servables.load(version.path, name="m", version=1)
    signature = servable.signatures["serving_default"]
    assert not signature.costs.is_warm
    warmup.run(servable, version.path, n_iterations=1, timeout_s=30)

    # All ways to call it are there: a request makes none.
    n_made = servable._callable.cache_info().misses
    assert (n_made, signature.costs.is_warm) == (3, True)
    arrays = [asked[3][spec.alias] for spec in signature.inputs]
    for timeout_s in (None, 30):
        servable.run_signature(signature, arrays, timeout_ms=servables.limit_ms(timeout_s))
    servable.run_signature(signature, arrays, timeout_ms=None)
    assert servable._callable.cache_info().misses == n_made


def test_training_writes_requests_of_each_batch_size_and_the_server_runs_them(
    tmp_path: Path,
) -> None:
    run_in_child(_check, tmp_path, log_file=tmp_path / "log")
