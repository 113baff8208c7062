"""What the conformance tables cannot ask: mixed tasks, contexts, labels that are no UTF-8."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_mini.errors import InternalError, InvalidArgumentError
from mlops_mini.serving import example_methods, request_checks, servables
from tests.conformance.models import write_half_plus_two
from tests.serving.servers import run_in_child


def _check_methods(models: Path, folder: Path) -> None:
    from tensorflow_serving.apis import inference_pb2, input_pb2

    write_half_plus_two(str(folder / "1"))
    servable = servables.load(folder / "1", name="m", version=1)
    runs = []
    session_run = servable.run

    def run(inputs: Any, outputs: Any, arrays: Any, **how: Any) -> Any:
        runs.append([spec.tensor for spec in outputs])
        return session_run(inputs, outputs, arrays, **how)

    servable.run = run  # type: ignore[method-assign]
    sent = input_pb2.Input()
    assert example_methods.serialized_examples(sent) == []
    listed = sent.example_list_with_context
    listed.context.features.feature["x"].float_list.value.append(2.0)
    listed.examples.add()
    listed.examples.add().features.feature["x"].float_list.value.append(4.0)

    request = inference_pb2.MultiInferenceRequest(input=sent)
    for method in ("regress", "classify"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "m", f"{method}_x_to_y"
    regressed, classified = example_methods.multi_inference(servable, request, timeout_ms=0)
    assert runs == [["y:0"]]  # one run, and a tensor that two tasks want is fetched once
    assert regressed.scores.tolist() == [3.0, 4.0]
    assert classified.scores.tolist() == [[3.0], [4.0]]
    assert classified.labels.tolist() == [[b""], [b""]]

    odd = servables.load(models / "odd/1", name="m", version=1, tags=["odd", "tags"])
    inputs = {"x": np.float32([1])}
    checked = request_checks.check_run(odd, "", inputs)
    (y,) = odd.run(checked.signature.inputs, checked.outputs[:1], checked.arrays, timeout_ms=0)
    assert y.tolist() == [2.0]
    with pytest.raises(InvalidArgumentError) as raised:
        request_checks.check_run(odd, "", {"step": np.float32(1)})
    assert str(raised.value) == (
        "Signature input alias: x(feed name: x:0) not found in request and no default value"
        " provided. Inputs expected to be in the request {step}, or default input alias set: step"
    )
    with pytest.raises(
        InternalError, match=r"^Expected prediction signature method_name to be one of"
    ):
        request_checks.check_run(odd, "brain", inputs, check_method=True)


def test_tasks_share_a_run_and_defaults_fill_in(toy_models: Path, tmp_path: Path) -> None:
    run_in_child(_check_methods, toy_models, tmp_path, log_file=tmp_path / "log")
