"""Which of our modules a request passes, in order: the life of a request in CONTRIBUTING.md."""

import asyncio
import http.client
import json
import sys
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import mlops_mini
from mlops_mini.serving import lifecycle, server
from mlops_mini.serving.config import ServerConfig
from mlops_mini.serving.model_config import ModelConfig
from mlops_mini.serving.server_metrics import ServerMetrics
from mlops_mini.wire import ModelSpec
from tests.serving.servers import run_in_child

PACKAGE = Path(mlops_mini.__file__).parent
# Who is asked by whom: on the way in, until the request waits for its batch.
WAY_IN = [
    ("http_protocol", "rest_api"),
    ("rest_api", "json_fast"),
    ("rest_api", "predict"),
    ("predict", "lifecycle"),
]
# And with the batch, from the run to the answer; the last line lets the version go.
WAY_OUT = [
    ("predict", "batching"),
    ("batching", "predict"),
    ("predict", "batching"),
    ("predict", "servables"),
    ("predict", "batching"),
    ("batching", "rest_api"),
    ("rest_api", "json_response"),
    ("rest_api", "http_protocol"),
    ("predict", "lifecycle"),
]


def _module(frame: FrameType | None) -> str:
    """Name the module of ours that a frame, or the nearest one outside of it, belongs to."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if PACKAGE in path.parents:
            return path.stem
        frame = frame.f_back
    return ""


class Steps:
    """Notes each call from one of our modules to another; it is a function for `sys.setprofile`."""

    def __init__(self) -> None:
        self._calls: list[tuple[str, str]] = []

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and PACKAGE in Path(frame.f_code.co_filename).parents:
            self._calls.append((_module(frame.f_back), _module(frame)))

    def between_modules(self) -> list[tuple[str, str]]:
        """List them, one for several in a row."""
        calls = [(asking, asked) for asking, asked in self._calls if asking not in ("", asked)]
        return [call for call, _ in groupby(calls)]


def _check_path(base: Path, folder: Path) -> None:
    config = ServerConfig(
        model_base_path=str(base), port=0, address_file=str(folder / "addresses.json")
    )
    metrics = ServerMetrics(lambda count, *labels: count(*labels))
    models = server._models(config, "unasked", metrics)
    models.replace([ModelConfig(name="m", base_path=str(base))], timeout_s=60)
    with lifecycle.acquire(models.by_name, ModelSpec(name="m")) as servable:
        signature = servable.signatures["serving_default"]
        arrays = [np.float32([2])]
        servable.run(signature.inputs, signature.outputs, arrays, timeout_ms=None)
    for _ in range(20):  # as after twenty requests on a quiet machine
        signature.costs.add(1, 1e-5)
    signature.costs.is_warm = True

    def ask() -> bytes:
        address = json.loads((folder / "addresses.json").read_text())["rest"]
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("POST", "/v1/models/m:predict", b'{"instances": [2.0]}')
        answer = connection.getresponse().read()
        connection.close()
        return answer

    async def trace() -> list[tuple[str, str]]:
        listeners = await server._open(config, "unasked", models, None, metrics)
        paths = []
        for _ in range(5):  # a run that another process interrupts is long, and learned from
            steps = Steps()
            sys.setprofile(steps)
            try:
                answer = await asyncio.to_thread(ask)
            finally:
                sys.setprofile(None)
            assert json.loads(answer) == {"predictions": [3.0]}
            paths.append(steps.between_modules())
        await server._close(listeners, models, 10)
        return min(paths[1:], key=len)  # the first body of its kind is read the exact way

    path = asyncio.run(trace())

    assert path == WAY_IN + WAY_OUT, path
    assert len({module for step in path for module in step}) <= 8  # seven, and the batch
    for module in ("json_fast", "lifecycle", "servables", "json_response"):
        assert len({asking for asking, asked in path if asked == module}) == 1, module


def test_a_rest_predict_passes_eight_modules_from_the_edge_and_back(
    toy_models: Path, tmp_path: Path
) -> None:
    run_in_child(_check_path, toy_models / "toy", tmp_path, log_file=tmp_path / "log")
