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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy.typing as npt

from mlops_mini import wire
from mlops_mini.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
)
from mlops_mini.serving import batching, lifecycle, servables
from mlops_mini.serving.batching import BatchQueue, Task
from mlops_mini.serving.json_fast import InputLayout
from mlops_mini.serving.lifecycle import ModelLifecycle
from mlops_mini.serving.run_costs import INLINE_LIMIT_S, RunCosts
from mlops_mini.serving.servables import (
    CLASSIFY,
    DEFAULT_SIGNATURE,
    PREDICT,
    REGRESS,
    LoadedSignature,
    Servable,
    TensorSpec,
)
from mlops_mini.serving.workers import Workers
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

_MAX_BATCHES_AWAY = os.cpu_count() or 1  # of a signature on threads: the rest gathers meanwhile


@dataclass(frozen=True, slots=True)
class CheckedRun:
    """A run that may be made: what to feed and what to fetch.

    Attributes:
        signature: The signature that is run.
        arrays: One array per input of the signature.
        outputs: The outputs wanted.
    """

    signature: LoadedSignature
    arrays: Sequence[Array]
    outputs: Sequence[TensorSpec]


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
        batches: deque[list[Task]],
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
        self, model: ModelLifecycle, servable: Servable, signature: LoadedSignature, task: Task
    ) -> bool:
        """Let a request that fits its signature join the others of this turn of the event loop.

        Args:
            model: The model.
            servable: The version, not held.
            signature: Its signature.
            task: The request, which hears of its results later.

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
            self._call_soon(self._flush, servable, signature, queue)
        queue.waiting.append(task)
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
        queue.n_away += 1
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
        queue.n_away -= 1
        if queue.waiting:
            self._flush(turn.servable, turn.signature, queue)

    async def predict(
        self, request: PredictRequest, *, timeout_s: float | None = None
    ) -> PredictResponse:
        """Answer a request that names its model.

        Args:
            request: The request.
            timeout_s: Longest run, seconds; None for no limit.
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


def check_run(
    servable: Servable,
    signature_name: str,
    inputs: Mapping[str, Array],
    *,
    unreadable: Sequence[str] = (),
    output_filter: Sequence[str] = (),
    check_method: bool = False,
) -> CheckedRun:
    """Check a request against its signature; arguments are those of `Predictor`.

    Raises:
        FailedPreconditionError: There is no such signature.
        InvalidArgumentError: Inputs or outputs do not fit it.
        InternalError: The signature was exported for another method.
        UnimplementedError: The signature cannot be served.
    """
    key = signature_name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(key)
    if signature is None:
        raise FailedPreconditionError(f'Serving signature key "{key}" not found.')
    signature.check_servable()
    method = servable.signature_defs[key].method_name
    if check_method and method not in (PREDICT, CLASSIFY, REGRESS):
        raise InternalError(
            "Expected prediction signature method_name to be one of"
            f" {{{PREDICT}, {CLASSIFY}, {REGRESS}}}. Was: {method}"
        )
    _check_inputs(signature, {*inputs, *unreadable}, {*unreadable})
    _check_filter(signature, output_filter)
    fed = {**signature.defaults, **inputs}
    outputs = {spec.alias: spec for spec in signature.outputs}
    return CheckedRun(
        signature,
        [fed[spec.alias] for spec in signature.inputs],
        [outputs[alias] for alias in output_filter or outputs],
    )


def _check_inputs(signature: LoadedSignature, given: set[str], unreadable: set[str]) -> None:
    needed = {spec.alias for spec in signature.inputs}
    if len(given) > len(needed) or (len(given) < len(needed) and not signature.defaults):
        raise InvalidArgumentError(
            f"input size does not match signature: {len(given)}!={len(needed)}"
            f" len({_braced(given)}) != len({_braced(needed)})."
            f" Sent extra: {_braced(given - needed)}."
            f" Missing but required: {_braced(needed - given)}."
        )
    for spec in signature.inputs:
        if spec.alias not in given and spec.alias not in signature.defaults:
            raise InvalidArgumentError(
                f"Signature input alias: {spec.alias}(feed name: {spec.tensor}) not found in"
                " request and no default value provided. Inputs expected to be in the request"
                f" {_braced(given)}, or default input alias set:"
                f" {','.join(sorted(signature.defaults))}"
            )
        if spec.alias in unreadable:
            raise InvalidArgumentError(f"tensor parsing error: {spec.alias}")
    if given - needed:
        raise InvalidArgumentError(
            "Inputs contains invalid name. Used request inputs:"
            f" {','.join(sorted(given & needed))}, request input: {','.join(sorted(given))}"
        )


def _check_filter(signature: LoadedSignature, output_filter: Sequence[str]) -> None:
    known = {spec.alias for spec in signature.outputs}
    seen: set[str] = set()
    for alias in output_filter:
        if alias not in known:
            raise InvalidArgumentError(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the"
                f" set {_braced(known)}."
            )
        if alias in seen:
            raise InvalidArgumentError(f"duplicate output tensor alias: {alias}")
        seen.add(alias)


def _braced(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"


def _timed(
    costs: RunCosts, run: Callable[[], list[Array]], n_elements: int, *, is_here: bool
) -> list[Array]:
    """Run a signature and let its costs be learned from; `is_here` if there is no limit."""
    began = time.perf_counter()
    try:
        return run()
    finally:
        seconds = time.perf_counter() - began
        # A short one more of those that are known to be short says nothing new.
        if not (is_here and costs.is_warm and seconds < INLINE_LIMIT_S):
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
        named: dict[str, Array] = {}
        for (_, aliases), block in zip(layout.groups, arrays, strict=True):
            named.update(zip(aliases, block, strict=True))
        arrays = [named[spec.alias] for spec in signature.inputs]
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
