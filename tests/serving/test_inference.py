"""What both edges share, with a servable that runs as long as the test wants."""

import asyncio
import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from mlops_mini.serving.inference import ModelServer
from mlops_mini.serving.lifecycle import ModelLifecycle
from mlops_mini.serving.servables import Signature, TensorSpec
from mlops_mini.wire import ModelSpec, PredictRequest
from tests.serving.servers import wait_until

X = TensorSpec(alias="x", tensor="x:0", dtype="float", numpy=np.dtype(np.float32), shape=(-1,))


class HeldServable:
    """Answers its input once it is let go; on a worker thread, as a slow model does."""

    version = 1

    def __init__(self) -> None:
        self.begun, self.let_go, self.is_closed = threading.Event(), threading.Event(), False
        signature = Signature(
            name="serving_default",
            inputs=(X,),
            outputs=(X,),
            inline_call=lambda x: [x],
            pooled_call=lambda x: [x],
            is_inline=False,
        )
        self.signatures = {"serving_default": signature}

    def run(self, _signature: Signature, arrays: Any, **_how: bool) -> Any:
        self.begun.set()
        assert self.let_go.wait(20)
        assert not self.is_closed
        return list(arrays)

    def close(self) -> None:
        self.is_closed = True


def test_a_caller_that_gives_up_does_not_let_go_of_a_version_that_still_runs(
    tmp_path: Path,
) -> None:
    held = HeldServable()
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_text("graph")
    model = ModelLifecycle(name="m", base_path=tmp_path, load=lambda *_: cast("Any", held))
    model.tick()
    model.tick()
    request = PredictRequest(model_spec=ModelSpec(name="m"), inputs={"x": np.float32([1])})

    async def ask_and_give_up() -> None:
        asking = asyncio.create_task(ModelServer({"m": model}).predict_proto(request.to_bytes()))
        await asyncio.to_thread(held.begun.wait, 10)
        for _ in range(3):  # a deadline, a closed connection and a stop may follow each other
            asking.cancel()
            await asyncio.wait({asking}, timeout=0.01)
        assert not asking.done()
        unloading = threading.Thread(target=model.close)
        unloading.start()
        await asyncio.to_thread(
            wait_until, lambda: model.statuses()[0].state.name == "UNLOADING", "the unload"
        )
        assert not held.is_closed
        held.let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.to_thread(unloading.join, 10)

    asyncio.run(ask_and_give_up())

    assert held.is_closed
    assert model.n_running == 0
