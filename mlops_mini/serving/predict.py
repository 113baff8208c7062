"""Predict, whatever it came by: knows models, signatures and arrays, no JSON, no HTTP, no gRPC.

Both edges read a request into arrays, call `Predictor` and write the arrays of its answer. A run
that is known to be short is made right here on the event loop, any other on a worker thread, so
that one slow request never stops the rest. A request whose time is over is answered at once, also
while its run cannot be stopped.

Source: tensorflow_serving/apis/predict.proto
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import chain
from typing import Any, cast

import numpy.typing as npt

from mlops_mini import wire
from mlops_mini.errors import (
    DeadlineExceededError,
)
from mlops_mini.serving import batching, lifecycle, servables
from mlops_mini.serving.batching import BatchQueue, Results, Task
from mlops_mini.serving.json_fast import InputLayout
from mlops_mini.serving.lifecycle import ModelLifecycle
from mlops_mini.serving.request_checks import CheckedRun, check_run
from mlops_mini.serving.run_costs import INLINE_LIMIT_S, RunCosts
from mlops_mini.serving.servables import (
    DEFAULT_SIGNATURE,
    LoadedSignature,
    Servable,
)
from mlops_mini.serving.workers import Workers
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

_MAX_BATCHES_AWAY = os.cpu_count() or 1  # of a signature on threads: the rest gathers meanwhile


class _Turn:
    """What waited for one turn of the event loop, cut into batches.

    Attributes:
        servable: The version that all of it asks.
        signature: The signature that all of it asks.
        queue: Where it waited.
        batches: Those that have not begun.
    """

    def __init__(
        self,
        servable: Servable,
        signature: LoadedSignature,
        queue: BatchQueue,
        batches: deque[Sequence[Task]],
        release: Callable[[], None],
    ) -> None:
        self.servable = servable
        self.signature = signature
        self.queue = queue
        self.batches = batches
        self._n_left = len(batches)
        self._release = release
        self._ending = threading.Lock()

    def end_one(self) -> None:
        """Note, in whatever thread, that a batch has ended; the last one lets the version go."""
        with self._ending:
            self._n_left -= 1
            is_last = not self._n_left
        if is_last:
            self._release()


class Predictor:
    """Answers Predict.

    Every method raises an `MlopsMiniError` whose code and text are what TensorFlow Serving answers.
    """

    def __init__(
        self, models: Mapping[str, ModelLifecycle], workers: Workers, *, check_method: bool = False
    ) -> None:
        """Answer for these models.

        Args:
            models: The models by name; others may change it at any time.
            workers: Where slow runs are made.
            check_method: Refuse signatures that were exported for another method.
        """
        self._models = models
        self._workers = workers
        self._check_method = check_method
        self._queues: dict[int, dict[str, BatchQueue]] = {}  # by a servable's `id`, while it lives
        self._under_way = set[asyncio.Task[None]]()

    def submit(
        self,
        model: ModelLifecycle,
        servable: Servable,
        signature: LoadedSignature,
        task: Task,
        *,
        patience_s: float = 0.0,
        is_alone: bool = False,
    ) -> bool:
        """Let a request that fits its signature join the others of this turn of the event loop.

        Args:
            model: The model.
            servable: The version, not held.
            signature: Its signature.
            task: The request, which hears of its results later.
            patience_s: How long it may wait for others, seconds; 0 for this turn only.
            is_alone: No others can come in this turn: a short run is made at once.

        Returns:
            False if nothing was begun, since the version is on its way out, or more is to be
            checked: `run` says why it is refused, if it is.
        """
        if self._check_method:
            return False
        queue = self._queue(servable, signature)
        if not queue.waiting:
            queue.release = model.hold(servable)
            if queue.release is None:
                return False
            if is_alone:
                queue.waiting.append(task)
                self._flush(servable, signature, queue)
                return True
            if patience_s:
                loop = asyncio.get_running_loop()
                queue.timer = loop.call_later(patience_s, self._flush, servable, signature, queue)
            else:
                self._call_soon(self._flush, servable, signature, queue)
        queue.waiting.append(task)
        if queue.timer is not None and (not patience_s or queue.is_full):
            queue.timer.cancel()
            queue.timer = None
            self._call_soon(self._flush, servable, signature, queue)
        return True

    def _queue(self, servable: Servable, signature: LoadedSignature) -> BatchQueue:
        queues = self._queues.get(id(servable))
        if queues is None:
            queues = self._queues[id(servable)] = {}
            weakref.finalize(servable, self._queues.pop, id(servable))
        queue = queues.get(signature.name)
        if queue is None:
            version = f"{{name: {servable.name} version: {servable.version}}}"
            queue = queues[signature.name] = BatchQueue(
                f"signature {signature.name} of {version}", is_alone=not signature.may_batch
            )
        return queue

    def _call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        asyncio.get_running_loop().call_soon(call, *arguments)

    def _flush(self, servable: Servable, signature: LoadedSignature, queue: BatchQueue) -> None:
        """Run what waits, unless as many batches are away as may be: the next to end does it."""
        if queue.n_away >= _MAX_BATCHES_AWAY or queue.release is None:
            return
        queue.timer = None
        tasks, queue.waiting = queue.waiting, []
        release, queue.release = queue.release, None
        batches = batching.cut(tasks, is_alone=queue.is_alone)
        if len(batches) > 1 or not self._is_run_here(servable, signature, queue, tasks):
            self._begin_next(_Turn(servable, signature, queue, deque(batches), release))
        else:
            release()

    def _is_run_here(
        self,
        servable: Servable,
        signature: LoadedSignature,
        queue: BatchQueue,
        tasks: Sequence[Task],
    ) -> bool:
        """Run a batch on the event loop if it is known to be short, and say whether it is."""
        if not _is_short(signature, tasks) or not signature.costs.is_warm:
            return False
        if len(tasks) > 1 and queue.is_on_trial:
            return False
        run = functools.partial(_run_batch, servable, signature, None)
        try:
            batching.settle(tasks, batching.run(queue, tasks, run))
        except Exception as exc:  # our own fault, whatever it is: nobody may wait for ever
            logger.exception("a batch of %s has failed", queue.name)
            _give_up(tasks, exc)
        return True

    def _begin_next(self, turn: _Turn) -> None:
        """Begin one batch of a turn; what else the event loop has to do may go before the next."""
        tasks = turn.batches.popleft()
        if turn.batches:
            self._call_soon(self._begin_next, turn)
        if self._is_run_here(turn.servable, turn.signature, turn.queue, tasks):
            turn.end_one()
            return
        work = asyncio.get_running_loop().create_task(self._run_away(turn, tasks))
        self._under_way.add(work)
        work.add_done_callback(self._under_way.discard)

    async def _run_away(self, turn: _Turn, tasks: Sequence[Task]) -> None:
        """Run a batch on a thread."""
        queue, is_short = turn.queue, _is_short(turn.signature, tasks)
        # A run alone is nobody's obstacle: it takes its thread, however long.
        is_counted = len(tasks) > 1
        queue.n_away += is_counted
        timeouts = [task.timeout_s for task in tasks if task.timeout_s is not None]
        timeout_s = max(timeouts) if len(timeouts) == len(tasks) else None
        timeout_ms = None if is_short else servables.limit_ms(timeout_s)
        run = functools.partial(_run_batch, turn.servable, turn.signature, timeout_ms)
        outcome: batching.Outcome
        with contextlib.ExitStack() as hold:
            hold.callback(turn.end_one)
            try:
                arguments = (batching.run, queue, tasks, run)
                outcome = await self._workers.run(*arguments, timeout_s=timeout_s, hold=hold)
                batching.settle(tasks, outcome)
            except DeadlineExceededError as exc:
                batching.settle(tasks, [exc] * len(tasks))
            except Exception as exc:  # as above
                logger.exception("a batch of %s has failed", queue.name)
                _give_up(tasks, exc)
        turn.signature.costs.is_warm |= is_short
        queue.n_away -= is_counted
        if queue.waiting:
            self._flush(turn.servable, turn.signature, queue)

    async def predict(
        self,
        request: PredictRequest,
        *,
        timeout_s: float | None = None,
        patience_s: float = 0.0,
    ) -> PredictResponse:
        """Answer a request that names its model.

        Args:
            request: The request.
            timeout_s: Longest run, seconds; None for no limit.
            patience_s: How long it may wait for others to run with, seconds.
        """
        with contextlib.ExitStack() as hold:
            servable = hold.enter_context(lifecycle.acquire(self._models, request.model_spec))
            asked = request.model_spec or ModelSpec(name="")  # without one nothing is acquired
            outputs = await self.run(
                servable,
                asked.signature_name,
                request.inputs,
                unreadable=request.unreadable,
                output_filter=request.output_filter,
                timeout_s=timeout_s,
                patience_s=patience_s,
                hold=hold,
            )
            answered = ModelSpec(
                name=asked.name,
                version=servable.version,
                signature_name=asked.signature_name or DEFAULT_SIGNATURE,
            )
        return PredictResponse(model_spec=answered, outputs=outputs)

    async def run(
        self,
        servable: Servable,
        signature_name: str,
        inputs: Mapping[str, Array],
        *,
        unreadable: Sequence[str] = (),
        output_filter: Sequence[str] = (),
        timeout_s: float | None,
        patience_s: float = 0.0,
        hold: contextlib.ExitStack,
    ) -> dict[str, Array]:
        """Check a request against its signature and run that.

        Args:
            servable: The version that was asked for, acquired.
            signature_name: The signature asked for; empty for the default.
            inputs: One array per input alias.
            unreadable: Aliases of inputs that were sent and cannot become arrays.
            output_filter: Aliases of the outputs wanted; empty means all.
            timeout_s: Longest run, seconds; None for no limit.
            patience_s: How long it may wait for others to run with, seconds.
            hold: Holds the servable. If the time is over before the run is, the run takes it along,
                so that the version is not unloaded under its feet.

        Returns:
            One array per output alias.
        """
        checked = check_run(
            servable,
            signature_name,
            inputs,
            unreadable=unreadable,
            output_filter=output_filter,
            check_method=self._check_method,
        )
        joined = None if output_filter else self._join(servable, checked, timeout_s, patience_s)
        if joined is not None:
            results = await _within(joined, timeout_s)
            return {s.alias: array for s, array in zip(checked.outputs, results, strict=True)}
        costs, n_elements = checked.signature.costs, _n_elements(checked.arrays)
        # What fetches other outputs is a callable of its own, which takes long to make.
        is_short = n_elements <= costs.inline_elements and not output_filter
        if is_short and costs.is_warm:
            results = _timed_run(servable, checked, n_elements, None)
        else:
            timeout_ms = None if is_short else servables.limit_ms(timeout_s)
            run = (_timed_run, servable, checked, n_elements, timeout_ms)
            results = await self._workers.run(*run, timeout_s=timeout_s, hold=hold)
            costs.is_warm |= is_short
        return {spec.alias: array for spec, array in zip(checked.outputs, results, strict=True)}

    def _join(
        self, servable: Servable, checked: CheckedRun, timeout_s: float | None, patience_s: float
    ) -> asyncio.Future[list[Array]] | None:
        """Let a checked request join the others; None if it must be run alone."""
        signature, layout = checked.signature, checked.signature.layout
        if layout is None or self._queue(servable, signature).is_alone:
            return None
        model = self._models.get(servable.name)
        aliases = [spec.alias for spec in signature.inputs]
        blocks = layout.to_blocks(dict(zip(aliases, checked.arrays, strict=True)))
        if model is None or blocks is None or blocks[1] > batching.MAX_TASK_ROWS:
            return None
        n_elements = _n_elements(checked.arrays)
        task = _Joined(layout, *blocks, n_elements=n_elements, timeout_s=timeout_s)
        is_joined = self.submit(model, servable, signature, task, patience_s=patience_s)
        return task.future if is_joined else None


class _Joined:
    """A checked request in a batch, whose arrays somebody waits for."""

    def __init__(
        self,
        layout: InputLayout,
        blocks: Sequence[Array],
        n_rows: int,
        *,
        n_elements: int,
        timeout_s: float | None,
    ) -> None:
        self.blocks: Sequence[Any] = blocks
        self.axis = 0 if layout.shape else 1
        self.kind: Hashable = blocks[0].shape[1:] if layout.shape else None
        self.n_rows = n_rows
        self.n_elements = n_elements
        self.timeout_s = timeout_s
        self.future: asyncio.Future[list[Array]] = asyncio.get_running_loop().create_future()

    def done(self, results: Results, start: int, stop: int | None) -> None:
        if not self.future.done():  # its time may be over
            self.future.set_result([array[start:stop] for array in results.arrays])

    def failed(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


async def _within(future: asyncio.Future[list[Array]], timeout_s: float | None) -> list[Array]:
    try:
        async with asyncio.timeout(timeout_s):
            return await future
    except TimeoutError as exc:
        raise DeadlineExceededError("Timed out waiting for notification") from exc


def _timed(
    costs: RunCosts, run: Callable[[], list[Array]], n_elements: int, *, is_here: bool
) -> list[Array]:
    """Run a signature and let its costs be learned from; `is_here` if there is no limit."""
    began, cpu_began = time.perf_counter(), time.thread_time()
    try:
        return run()
    finally:
        seconds = time.perf_counter() - began
        # A short one more of those that are known to be short says nothing new.
        if not (is_here and costs.is_warm and seconds < INLINE_LIMIT_S):
            if (
                is_here
            ):  # on this thread alone: what other programs take of it is no cost of its own
                seconds = min(seconds, time.thread_time() - cpu_began)
            costs.add(n_elements, seconds)


def _timed_run(
    servable: Servable, checked: CheckedRun, n_elements: int, timeout_ms: int | None
) -> list[Array]:
    signature = checked.signature
    run = functools.partial(
        servable.run, signature.inputs, checked.outputs, checked.arrays, timeout_ms=timeout_ms
    )
    return _timed(signature.costs, run, n_elements, is_here=timeout_ms is None)


def _give_up(tasks: Sequence[Task], error: Exception) -> None:
    for task in tasks:
        task.failed(error)


def _run_batch(
    servable: Servable,
    signature: LoadedSignature,
    timeout_ms: int | None,
    tasks: Sequence[Task],
) -> list[Array]:
    """Run tasks of one kind as one batch."""
    layout = cast("InputLayout", signature.layout)  # without one there are no tasks
    arrays = batching.join(tasks, [dtype for dtype, _ in layout.groups])
    if layout.shape is None:
        arrays = [*layout.order([*chain.from_iterable(arrays)])]
    run = functools.partial(servable.run_signature, signature, arrays, timeout_ms=timeout_ms)
    return _timed(signature.costs, run, _batch_elements(tasks), is_here=timeout_ms is None)


def _is_short(signature: LoadedSignature, tasks: Sequence[Task]) -> bool:
    return _batch_elements(tasks) <= signature.costs.inline_elements


def _batch_elements(tasks: Sequence[Task]) -> int:
    """Count the elements of a batch with its padding."""
    if len(tasks) == 1:
        return tasks[0].n_elements
    n_elements = sum([task.n_elements for task in tasks])
    n_rows = sum([task.n_rows for task in tasks])
    return n_elements * batching.padded_rows(tasks) // n_rows


def _n_elements(arrays: Sequence[Array]) -> int:
    """Count what is fed; a text counts as its bytes and one more."""
    n_elements = sum([array.size for array in arrays])
    texts = [array for array in arrays if array.dtype == object]
    return n_elements + sum(map(wire.text_bytes, texts))
