"""Warm-up files of every kind, in child processes: pytest's own never imports TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_mini.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    MlopsMiniError,
    UnimplementedError,
)
from mlops_mini.serving import servables, warmup
from mlops_mini.wire import ModelSpec, PredictRequest
from tests.conformance.models import write_half_plus_two
from tests.serving.servers import run_in_child


class Counting(servables.Servable):
    """Counts its runs."""

    n_runs = 0

    def run(self, *arguments: Any, **how: Any) -> Any:
        self.n_runs += 1
        return super().run(*arguments, **how)


def _predict(signature_name: str = "", **inputs: Any) -> bytes:
    spec = ModelSpec(name="other", version=77, signature_name=signature_name)
    return PredictRequest(model_spec=spec, inputs=inputs).to_bytes()


def _check_records(folder: Path) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    write_half_plus_two(str(folder / "1"))
    servables.Servable = Counting  # type: ignore[misc]
    servable = servables.load(folder / "1", name="m", version=1)
    assert isinstance(servable, Counting)
    file = folder / "1/assets.extra/tf_serving_warmup_requests"

    def run(*logs: Any, n_iterations: int = 0) -> int:
        file.parent.mkdir(exist_ok=True)
        with tf.io.TFRecordWriter(str(file)) as writer:
            for log in logs:
                writer.write(log.SerializeToString())
        before = servable.n_runs
        warmup.run(servable, folder / "1", n_iterations=n_iterations)
        return servable.n_runs - before

    def log(kind: str, signature_name: str = "") -> Any:
        made = prediction_log_pb2.PredictionLog()
        request = getattr(made, kind).request
        if kind == "multi_inference_log":
            for method in ("classify", "regress"):
                task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
                task.model_spec.name = "m"
                task.model_spec.signature_name = f"{method}_x_to_y"
        else:
            request.model_spec.signature_name = signature_name
        example = request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(2.0)
        return made

    predict = prediction_log_pb2.PredictionLog()
    predict.predict_log.request.ParseFromString(_predict(x=np.float32([[1]])))
    empty = prediction_log_pb2.PredictionLog()
    assert not warmup.has_requests(folder / "1")
    assert run() == 0
    every = [
        predict,
        log("classify_log", "classify_x_to_y"),
        log("regress_log", "regress_x_to_y"),
        log("multi_inference_log"),
        empty,
    ]
    assert run(*every) == 4
    assert run(*every, n_iterations=3) == 12

    predict.predict_log.request.model_spec.signature_name = "zz"
    with pytest.raises(FailedPreconditionError, match=r'^Serving signature key "zz" not'):
        run(predict)
    session = prediction_log_pb2.PredictionLog()
    session.session_run_log.SetInParent()
    with pytest.raises(UnimplementedError, match=r"^Unsupported log_type for warmup: 5$"):
        run(session)
    assert run(*[empty] * 1000) == 0
    with pytest.raises(InvalidArgumentError, match=r"^Number of warmup records exceeds the maxim"):
        run(*[empty] * 1001)
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(b"\xff\xff no log")
    with pytest.raises(
        InvalidArgumentError, match=f"^Failed to parse warmup record: .* from {file}$"
    ):
        warmup.run(servable, folder / "1", n_iterations=1)
    file.write_bytes(b"no records at all, whatever this is")
    with pytest.raises(MlopsMiniError) as raised:
        warmup.run(servable, folder / "1", n_iterations=1)
    assert raised.value.code == 15
    assert str(raised.value) == (
        "corrupted record at 0 (Is this even a TFRecord file?). Please verify your warmup data is"
        " in TFRecord format."
    )


def test_every_record_is_run_and_a_failing_one_fails_the_load(tmp_path: Path) -> None:
    run_in_child(_check_records, tmp_path, log_file=tmp_path / "log")
