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
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar, cast

import numpy.typing as npt

from mlops_mini import wire
from mlops_mini.errors import (
    DeadlineExceededError,
)
from mlops_mini.serving import batch_scheduler, batching, lifecycle, servables
from mlops_mini.serving.batch_scheduler import BatchScheduler, LimitedQueue
from mlops_mini.serving.batching import AT_ONCE, BatchQueue, Patience, Task
from mlops_mini.serving.batching_options import BatchingOptions
from mlops_mini.serving.joined import Joined, Turn, common_rows, to_blocks, within
from mlops_mini.serving.json_fast import InputLayout
from mlops_mini.serving.lifecycle import ModelLifecycle
from mlops_mini.serving.request_checks import CheckedRun, check_run
from mlops_mini.serving.run_costs import INLINE_LIMIT_S, RunCosts
from mlops_mini.serving.servables import (
    DEFAULT_SIGNATURE,
    LoadedSignature,
    Servable,
)
from mlops_mini.serving.server_metrics import ServerMetrics
from mlops_mini.serving.workers import Workers
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
T = TypeVar("T")

_MAX_BATCHES_AWAY = os.cpu_count() or 1  # of a signature on threads: the rest gathers meanwhile


class Predictor:
    """Answers Predict.

    Every method raises an `MlopsMiniError` whose code and text are what TensorFlow Serving answers.
    """

    def __init__(
        self,
        models: Mapping[str, ModelLifecycle],
        workers: Workers,
        *,
        check_method: bool = False,
        n_batch_threads: int = 1,
        metrics: ServerMetrics | None = None,
    ) -> None:
        """Answer for these models.

        Args:
            models: The models by name; others may change it at any time.
            workers: Where slow runs are made.
            check_method: Refuse signatures that were exported for another method.
            n_batch_threads: Batches that run at the same time where `BatchingOptions` limit them.
            metrics: What counts the runs; None counts none.
        """
        self._models = models
        self._workers = workers
        self._check_method = check_method
        self._scheduler = BatchScheduler(n_batch_threads)
        self._metrics = metrics
        # By a servable's `id`, while it lives.
        self._queues: dict[int, dict[str, BatchQueue | LimitedQueue]] = {}
        self._under_way = set[asyncio.Task[None]]()

    def find(self, spec: ModelSpec) -> tuple[ModelLifecycle, Servable, LoadedSignature] | None:
        """Find what a request asks for, without holding it; None if it isn't there."""
        model = self._models.get(spec.name)
        label = spec.version_label if spec.version is None else ""
        servable = model.answering.get((spec.version, label)) if model else None
        if model is None or servable is None:
            return None
        signature = servable.signatures.get(spec.signature_name or DEFAULT_SIGNATURE)
        return None if signature is None else (model, servable, signature)

    def submit(
        self,
        model: ModelLifecycle,
        servable: Servable,
        signature: LoadedSignature,
        task: Task,
        *,
        patience: Patience = AT_ONCE,
        is_alone: bool = False,
    ) -> bool:
        """Let a request that fits its signature join the others of this turn of the event loop.

        Args:
            model: The model.
            servable: The version, not held.
            signature: Its signature.
            task: The request, which hears of its results later.
            patience: How long it may wait for others.
            is_alone: No others can come in this turn: a short run is made at once.

        Returns:
            False if nothing was begun, since the version is on its way out, or more is to be
            checked: `run` says why it is refused, if it is.
        """
        if self._check_method:
            return False
        queue = self._queue(model, servable, signature)
        if queue.metrics is not None and not task.queued_s:
            task.queued_s = time.perf_counter()
        if isinstance(queue, LimitedQueue):
            return self._scheduler.schedule(queue, task)
        if not queue.waiting:
            release = model.hold(servable)
            if release is None:
                return False
            if is_alone and self._is_run_here(servable, signature, queue, (task,)):
                release()
                return True
            queue.release = release
            if patience.seconds:
                loop = asyncio.get_running_loop()
                queue.timer = loop.call_later(
                    patience.seconds, self._flush, servable, signature, queue
                )
            else:
                self._call_soon(self._call_soon, self._flush, servable, signature, queue)
        queue.waiting.append(task)
        is_enough = not patience.seconds or len(queue.waiting) >= patience.n_enough
        if queue.timer is not None and is_enough:
            queue.timer.cancel()
            queue.timer = None
            self._call_soon(self._flush, servable, signature, queue)
        return True

    def _queue(
        self, model: ModelLifecycle, servable: Servable, signature: LoadedSignature
    ) -> BatchQueue | LimitedQueue:
        queues = self._queues.get(id(servable))
        if queues is None:
            queues = self._queues[id(servable)] = {}
            weakref.finalize(servable, self._queues.pop, id(servable))
        queue = queues.get(signature.name)
        if queue is None:
            if isinstance(servable.batching, BatchingOptions):
                queue = _limited_queue(model, servable, signature, servable.batching)
            else:
                version = f"{{name: {servable.name} version: {servable.version}}}"
                queue = BatchQueue(
                    f"signature {signature.name} of {version}",
                    is_alone=servable.batching == "alone" or not signature.may_batch,
                )
            if self._metrics is not None:
                queue.metrics = self._metrics.runs(servable.name, servable.version, signature.name)
            queues[signature.name] = queue
        return queue

    def queues(self) -> list[BatchQueue | LimitedQueue]:
        """List where requests wait, for every signature that was asked of a version in memory."""
        return [queue for queues in list(self._queues.values()) for queue in queues.values()]

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
            self._begin_next(Turn(servable, signature, queue, deque(batches), release))
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
            is_counted = queue.metrics is not None
            began_s = time.perf_counter() if is_counted else 0.0
            outcome = batching.run(queue, tasks, run)
            queue.settle(tasks, outcome, began_s, time.perf_counter() if is_counted else 0.0)
        except Exception as exc:  # our own fault, whatever it is: nobody may wait for ever
            logger.exception("a batch of %s has failed", queue.name)
            _give_up(tasks, exc)
        return True

    def _begin_next(self, turn: Turn) -> None:
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

    async def _run_away(self, turn: Turn, tasks: Sequence[Task]) -> None:
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
                began_s = time.perf_counter()
                arguments = (batching.run, queue, tasks, run)
                outcome = await self._workers.run(*arguments, timeout_s=timeout_s, hold=hold)
                queue.settle(tasks, outcome, began_s, time.perf_counter())
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
        patience: Patience = AT_ONCE,
    ) -> PredictResponse:
        """Answer a request that names its model.

        Args:
            request: The request.
            timeout_s: Longest run, seconds; None for no limit.
            patience: How long it may wait for others to run with.
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
                patience=patience,
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
        patience: Patience = AT_ONCE,
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
            patience: How long it may wait for others to run with.
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
        joined = None if output_filter else self._join(servable, checked, timeout_s, patience)
        if joined is not None:
            is_limited = isinstance(servable.batching, BatchingOptions)  # the scheduler keeps time
            results = await (joined if is_limited else within(joined, timeout_s))
            return {s.alias: array for s, array in zip(checked.outputs, results, strict=True)}
        costs, n_elements = checked.signature.costs, _n_elements(checked.arrays)
        began_s = time.perf_counter()
        # What fetches other outputs is a callable of its own, which takes long to make.
        is_short = n_elements <= costs.inline_elements and not output_filter
        if is_short and costs.is_warm:
            results = _timed_run(servable, checked, n_elements, None)
        else:
            timeout_ms = None if is_short else servables.limit_ms(timeout_s)
            run = (_timed_run, servable, checked, n_elements, timeout_ms)
            results = await self._workers.run(*run, timeout_s=timeout_s, hold=hold)
            costs.is_warm |= is_short
        self._count_lone_run(servable, checked, began_s)
        return {spec.alias: array for spec, array in zip(checked.outputs, results, strict=True)}

    def _count_lone_run(self, servable: Servable, checked: CheckedRun, began_s: float) -> None:
        """Count a run that waited for no other, and began then."""
        if self._metrics is None or (model := self._models.get(servable.name)) is None:
            return
        counted = self._queue(model, servable, checked.signature).metrics
        if counted is not None:
            n_rows = next((len(array) for array in checked.arrays if array.ndim), 1)
            counted.ran_apart(n_rows, began_s)

    def _join(
        self, servable: Servable, checked: CheckedRun, timeout_s: float | None, patience: Patience
    ) -> asyncio.Future[list[Array]] | None:
        """Let a checked request join the others; None if it must be run alone."""
        signature, arrays = checked.signature, checked.arrays
        model = self._models.get(servable.name)
        if model is None or not arrays:
            return None
        queue = self._queue(model, servable, signature)
        is_limited = isinstance(queue, LimitedQueue)
        if not is_limited and cast("BatchQueue", queue).is_alone:
            return None
        servable.check(signature.inputs, arrays)
        if is_limited:
            n_rows = batch_scheduler.count_rows(arrays)
        else:
            n_rows = common_rows(signature, arrays)
        if not n_rows or (not is_limited and n_rows > batching.MAX_TASK_ROWS):
            return None
        blocks, axis = to_blocks(signature, arrays)
        n_elements = _n_elements(arrays)
        task = Joined(blocks, axis, n_rows, n_elements=n_elements, timeout_s=timeout_s, answer=list)
        is_joined = self.submit(model, servable, signature, task, patience=patience)
        return task.future if is_joined else None


def _limited_queue(
    model: ModelLifecycle,
    servable: Servable,
    signature: LoadedSignature,
    options: BatchingOptions,
) -> LimitedQueue:
    """Make the queue of a signature, which must not keep the version in memory."""
    version = weakref.ref(servable)

    def run(tasks: Sequence[Task], n_rows: int, timeout_s: float | None) -> list[Array]:
        held = cast("Servable", version())  # each task holds it
        return _run_batch(held, signature, servables.limit_ms(timeout_s), tasks, n_rows)

    def hold() -> Callable[[], None] | None:
        held = version()
        return None if held is None else model.hold(held)

    return LimitedQueue(options, run, hold, may_run_again=signature.is_stateless)


def _timed_run(
    servable: Servable, checked: CheckedRun, n_elements: int, timeout_ms: int | None
) -> list[Array]:
    """Run a signature and let its costs be learned from."""
    costs, began_s = checked.signature.costs, time.perf_counter()
    try:
        return servable.run(
            checked.signature.inputs, checked.outputs, checked.arrays, timeout_ms=timeout_ms
        )
    finally:
        seconds = time.perf_counter() - began_s
        if not _is_usual(costs, seconds, timeout_ms):
            costs.add(n_elements, seconds)


def _give_up(tasks: Sequence[Task], error: Exception) -> None:
    for task in tasks:
        task.failed(error)


def _run_batch(
    servable: Servable,
    signature: LoadedSignature,
    timeout_ms: int | None,
    tasks: Sequence[Task],
    n_rows: int = 0,
) -> list[Array]:
    """Run tasks of one kind as one batch, padded to so many rows; 0 for the next power of two."""
    n_rows = n_rows or batching.padded_rows(tasks)
    if tasks[0].axis == 0:
        arrays: Sequence[Array] = batching.join(tasks, signature.input_dtypes, n_rows)
    else:
        layout = cast("InputLayout", signature.layout)
        groups = batching.join(tasks, [dtype for dtype, _ in layout.groups], n_rows)
        arrays = layout.order([*chain.from_iterable(groups)])
    began_s = time.perf_counter()
    try:
        return servable.run_signature(signature, arrays, timeout_ms=timeout_ms)
    finally:
        seconds = time.perf_counter() - began_s
        if not _is_usual(signature.costs, seconds, timeout_ms):
            signature.costs.add(_batch_elements(tasks), seconds)


def _is_usual(costs: RunCosts, seconds: float, timeout_ms: int | None) -> bool:
    """Say whether a run says nothing new: it's one more short one on the event loop."""
    return timeout_ms is None and costs.is_warm and seconds < INLINE_LIMIT_S


def _is_short(signature: LoadedSignature, tasks: Sequence[Task]) -> bool:
    return _batch_elements(tasks) <= signature.costs.inline_elements


def _batch_elements(tasks: Sequence[Task]) -> int:
    """Count the elements of a batch with its padding."""
    if len(tasks) == 1:
        return tasks[0].n_elements
    n_elements, n_rows = sum([t.n_elements for t in tasks]), sum([t.n_rows for t in tasks])
    return n_elements * batching.padded(n_rows) // n_rows


def _n_elements(arrays: Sequence[Array]) -> int:
    """Count what is fed; a text counts as its bytes and one more."""
    n_elements = sum([array.size for array in arrays])
    texts = [array for array in arrays if array.dtype == object]
    return n_elements + sum(map(wire.text_bytes, texts))
