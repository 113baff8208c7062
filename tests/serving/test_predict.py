"""What both edges share, with a servable that runs as long as the test wants."""

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from mlops_mini.errors import DeadlineExceededError, InvalidArgumentError
from mlops_mini.serving.example_methods import ExampleMethods
from mlops_mini.serving.grpc_api import GrpcApi
from mlops_mini.serving.http_answers import Answer
from mlops_mini.serving.json_fast import InputLayout
from mlops_mini.serving.model_config import ModelConfig
from mlops_mini.serving.model_service import ModelService
from mlops_mini.serving.models import Models
from mlops_mini.serving.predict import Predictor
from mlops_mini.serving.rest_api import RestApi
from mlops_mini.serving.servables import LoadedSignature, TensorSpec
from mlops_mini.serving.workers import Workers
from mlops_mini.wire import ModelSpec, PredictRequest
from tests.serving.servers import run_in_child, wait_until

X = TensorSpec(alias="x", tensor="x:0", dtype="float", numpy=np.dtype(np.float32), shape=(-1,))
SPEC = ModelSpec(name="m")
REQUEST = PredictRequest(model_spec=SPEC, inputs={"x": np.float32([1])})


class HeldServable:
    """Answers its input once it is let go; on a worker thread, as a slow model does."""

    name, version, batching = "m", 1, "alone"

    def __init__(self) -> None:
        self.begun, self.let_go, self.is_closed = threading.Event(), threading.Event(), False
        self.limits: list[int | None] = []
        self.threads: list[int] = []
        definition = SimpleNamespace(method_name="tensorflow/serving/predict")
        self.signature_defs = {"serving_default": definition}
        signature = LoadedSignature(name="serving_default", inputs=(X,), outputs=(X,))
        self.signatures = {"serving_default": signature}
        self.dtypes = {"": signature.dtypes, "serving_default": signature.dtypes}
        self.layouts: dict[str, InputLayout | None] = {}

    def can_batch(self) -> None:
        """Let batches be made of plain bodies."""
        layout = InputLayout.of([(X.alias, X.dtype, X.numpy, X.shape)])
        signature = LoadedSignature(
            name="serving_default", inputs=(X,), outputs=(X,), may_batch=True, layout=layout
        )
        self.signatures = {"serving_default": signature}
        self.layouts[""] = layout

    def run_signature(self, _signature: Any, arrays: Any, *, timeout_ms: int | None) -> Any:
        return self.run((), (), arrays, timeout_ms=timeout_ms)

    def run(self, _inputs: Any, _outputs: Any, arrays: Any, *, timeout_ms: int | None) -> Any:
        self.limits.append(timeout_ms)
        self.threads.append(threading.get_ident())
        self.begun.set()
        assert self.let_go.wait(60)
        assert not self.is_closed
        return list(arrays)

    def close(self) -> None:
        self.is_closed = True


def edges(models: Models, *, timeout_s: float = 30, n_threads: int = 0) -> tuple[RestApi, GrpcApi]:
    """Both edges of one server, without their ports."""
    workers = Workers(n_threads)
    core: dict[str, Any] = {
        "workers": workers,
        "predictor": Predictor(models.by_name, workers),
        "examples": ExampleMethods(models.by_name),
        "model_service": ModelService(models),
    }
    return RestApi(models=models, timeout_s=timeout_s, **core), GrpcApi(**core)


@contextmanager
def serving(held: HeldServable, folder: Path) -> Iterator[Models]:
    (folder / "1").mkdir()
    (folder / "1" / "saved_model.pb").write_text("graph")
    models = Models(lambda *_: cast("Any", held), poll_wait_s=0.02)
    models.replace([ModelConfig(name="m", base_path=str(folder))], timeout_s=20)
    yield models
    models.close(20)


def test_a_caller_that_gives_up_does_not_let_go_of_a_version_that_still_runs(
    tmp_path: Path,
) -> None:
    held = HeldServable()

    async def ask_and_give_up(models: Models) -> None:
        asking = asyncio.create_task(edges(models)[1].predict(REQUEST.to_bytes(), None))
        assert await asyncio.to_thread(held.begun.wait, 60)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        models.configure([])
        await asyncio.to_thread(
            wait_until, lambda: models.statuses("m")[0].state.name == "UNLOADING", "the unload"
        )
        assert not held.is_closed
        held.let_go.set()
        await asyncio.to_thread(wait_until, lambda: held.is_closed, "the end of the unload")

    with serving(held, tmp_path) as models:
        asyncio.run(ask_and_give_up(models))


def test_a_limit_is_answered_while_the_run_goes_on_and_holds_its_version(tmp_path: Path) -> None:
    held = HeldServable()

    async def ask(models: Models) -> None:
        rest, grpc = edges(models, timeout_s=0.05, n_threads=1)
        # A first run may have to import TensorFlow, which takes longer than the limit.
        held.let_go.set()
        await grpc.predict(REQUEST.to_bytes(), None)
        held.let_go.clear()
        held.begun.clear()
        held.limits.clear()
        over_rest = functools.partial(rest.predict, SPEC, b'{"instances":[1]}')
        over_grpc = functools.partial(grpc.predict, REQUEST.to_bytes(), 0.05)
        for over in (over_rest, over_grpc):  # the second one never gets the only thread
            with pytest.raises(
                DeadlineExceededError, match=r"^Timed out waiting for notification$"
            ):
                await over()
        assert len(held.limits) <= 1
        assert await asyncio.to_thread(held.begun.wait, 60)
        models.configure([])
        await asyncio.to_thread(
            wait_until, lambda: models.statuses("m")[0].state.name == "UNLOADING", "the unload"
        )
        assert not held.is_closed
        held.let_go.set()
        await asyncio.to_thread(wait_until, lambda: held.is_closed, "the end of the unload")
        assert len(held.limits) == 1

    with serving(held, tmp_path) as models:
        asyncio.run(ask(models))


class Heard:
    """Where two requests of a batch are answered."""

    began_s = 0.0

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def send_json(self, body: bytes, request_id: bytes = b"") -> bool:
        self.send(Answer(200, {}, body, request_id=request_id))
        return True

    def send(self, answer: Answer) -> None:
        self.answers.append(answer)


def test_a_limit_is_answered_to_all_of_a_batch_whose_run_holds_its_version(tmp_path: Path) -> None:
    held, heard, body = HeldServable(), Heard(), b'{"instances":[1]}'
    held.can_batch()

    async def ask(models: Models) -> None:
        rest, _ = edges(models, timeout_s=0.05)
        rest._reader.learn(body, (1,))
        take = rest.find_taker("POST", b"/v1/models/m:predict", {})
        assert take is not None
        assert [take(body, heard, False) for _ in range(2)] == [True, True]
        await asyncio.to_thread(wait_until, lambda: len(heard.answers) == 2, "the answers")
        models.configure([])
        await asyncio.to_thread(
            wait_until, lambda: models.statuses("m")[0].state.name == "UNLOADING", "the unload"
        )
        assert not held.is_closed
        held.let_go.set()
        await asyncio.to_thread(wait_until, lambda: held.is_closed, "the end of the unload")

    with serving(held, tmp_path) as models:
        asyncio.run(ask(models))

    assert [answer.status for answer in heard.answers] == [504, 504]
    assert all(b"Timed out waiting for notification" in answer.body for answer in heard.answers)


def test_twenty_runs_prove_themselves_before_the_event_loop_makes_one(tmp_path: Path) -> None:
    held, main = HeldServable(), threading.get_ident()
    held.let_go.set()

    async def ask(models: Models) -> None:
        _, grpc = edges(models)
        for _ in range(22):
            await grpc.predict(REQUEST.to_bytes(), None)
        many = PredictRequest(model_spec=SPEC, inputs={"x": np.zeros(2, np.float32)})
        await grpc.predict(many.to_bytes(), None)

    with serving(held, tmp_path) as models:
        # Whatever the machine does meanwhile, these runs are short.
        held.signatures["serving_default"].costs.add = _all_short(held)  # type: ignore[method-assign]
        asyncio.run(ask(models))

    # The 21st is made as the event loop makes it, but still on a thread: its first time takes long.
    assert [limit is None for limit in held.limits] == [False] * 20 + [True] * 2 + [False]
    assert [thread == main for thread in held.threads] == [False] * 21 + [True, False]


def _all_short(held: HeldServable) -> Callable[[int, float], None]:
    add = held.signatures["serving_default"].costs.add
    return lambda n_elements, _: add(n_elements, 1e-6)


def test_a_deadline_limits_the_run_and_rest_has_its_own_limit(tmp_path: Path) -> None:
    held = HeldServable()
    held.let_go.set()

    async def ask(models: Models) -> None:
        rest, grpc = edges(models, timeout_s=1)
        for timeout_s in (None, 0.9, 30.0):
            await grpc.predict(REQUEST.to_bytes(), timeout_s)
        await rest.predict(SPEC, b'{"instances":[1]}')

    with serving(held, tmp_path) as models:
        asyncio.run(ask(models))

    # The next power of two, so that a handful of callables serves all deadlines.
    assert held.limits == [0, 1024, 32768, 1024]


def _check_turns(folder: Path) -> None:
    held = HeldServable()

    async def ask(models: Models) -> None:
        _, grpc = edges(models, n_threads=2)
        asking = [grpc.predict(REQUEST.to_bytes(), None) for _ in range(4)]
        answers = asyncio.gather(*asking)
        await asyncio.to_thread(wait_until, lambda: len(held.limits) == 2, "two runs")
        # Status needs a thread too, and gets one while all those for runs are taken.
        with pytest.raises(InvalidArgumentError, match="Missing ModelSpec"):
            await grpc.status(b"", None)
        assert len(held.limits) == 2
        held.let_go.set()
        assert len(await answers) == 4

    with serving(held, folder) as models:
        asyncio.run(ask(models))


def test_more_slow_runs_than_threads_wait_for_their_turn(tmp_path: Path) -> None:
    run_in_child(_check_turns, tmp_path, log_file=tmp_path / "log")


def test_a_request_that_does_not_fit_is_told_what_does(tmp_path: Path) -> None:
    async def ask(models: Models, body: bytes) -> str:
        with pytest.raises(InvalidArgumentError) as raised:
            await edges(models)[0].predict(SPEC, body)
        assert "for example" not in str(raised.value)
        return str(raised.value.hint)  # type: ignore[attr-defined]

    with serving(HeldServable(), tmp_path) as models:
        hints = [
            asyncio.run(ask(models, body))
            for body in (b"{}", b'{"instances":["a"]}', b'{"signature_name":"zz"}')
        ]

    takes = 'serving_default takes x: float [?]; for example {"instances":[{"x":0.0}]}'
    assert hints == [takes, takes, "signatures of this model: serving_default"]
