"""Batches with limits, as TensorFlow Serving makes them: what `--enable_batching` asks for.

Each signature of a version has a queue of batches, of which the last one fills. A free thread takes
a batch once it is full or its first request has waited for `batch_timeout_micros`. There are
`num_batch_threads` threads for all queues, which take turns. A request that comes when all batches
that may wait are full is refused.

Unlike there, a batch that fails is run again, each request on its own, so that a bad one fails
alone. This is left out where a run may change the model.

Source: tensorflow/core/kernels/batching_util/shared_batch_scheduler.h,
tensorflow_serving/batching/batching_session.cc
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    MlopsMiniError,
    ResourceExhaustedError,
    UnavailableError,
)
from mlops_mini.serving import batching
from mlops_mini.serving.batching import Outcome, Results, Task, n_succeeded
from mlops_mini.serving.batching_options import BatchingOptions
from mlops_mini.serving.server_metrics import RunMetrics

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
# Makes one run of tasks, padded to so many rows, in so many seconds; None is no limit.
Run = Callable[[Sequence[Task], int, float | None], Sequence[Array]]


def count_rows(arrays: Sequence[Array]) -> int:
    """Count the rows of a request.

    Args:
        arrays: What is fed, at least one array.

    Raises:
        InvalidArgumentError: The arrays don't have the same rows.
    """
    if not all(array.ndim for array in arrays):
        raise InvalidArgumentError("Batching Run() input tensors must have at least one dimension")
    if len(sizes := {len(array) for array in arrays}) > 1:
        raise InvalidArgumentError(
            "Batching Run() input tensors must have equal 0th-dimension size"
        )
    return sizes.pop()


class _Waiting:
    """A task from its arrival to its answer, which it gets once, also if its time is over before.

    Attributes:
        is_running: True once a thread has taken it.
        ends_at_s: When its time is over, on the event loop's clock.
    """

    def __init__(
        self, task: Task, release: Callable[[], None], give_up: Callable[[_Waiting], None]
    ) -> None:
        """Wait from now on; `release` lets the version go, `give_up` is told if time is over."""
        self.blocks, self.axis, self.kind = task.blocks, task.axis, task.kind
        self.n_rows, self.n_elements, self.timeout_s = task.n_rows, task.n_elements, task.timeout_s
        self.queued_s = task.queued_s
        self.is_running = False
        self._asked: Task | None = task
        self._release = release
        self._timer = None
        self.ends_at_s = float("inf")
        if task.timeout_s is not None:
            loop = asyncio.get_running_loop()
            self.ends_at_s = loop.time() + task.timeout_s
            self._timer = loop.call_later(task.timeout_s, give_up, self)

    def done(self, results: Results, start: int, stop: int | None) -> bool:
        """Answer with results, unless there was an answer before."""
        asked = self._answered()
        return asked is not None and asked.done(results, start, stop)

    def failed(self, error: Exception) -> None:
        """Answer with an error, unless there was an answer before."""
        asked = self._answered()
        if asked is not None:
            asked.failed(error)

    def _answered(self) -> Task | None:
        asked, self._asked = self._asked, None
        if self._timer is not None:
            self._timer.cancel()
        return asked

    def end(self) -> None:
        """Let the version go: nothing is run for this task any more."""
        self._release()


@dataclass(slots=True, eq=False)
class _Batch:
    """Tasks that are to be run together; `is_due` once they have waited long enough."""

    tasks: list[_Waiting] = field(default_factory=list)
    n_rows: int = 0
    is_due: bool = False
    timer: asyncio.TimerHandle | None = None


class _Ran(NamedTuple):
    """Tasks that ran together, what came of them, and from when to when, by `perf_counter`."""

    tasks: Sequence[Task]
    outcome: Outcome
    began_s: float
    ended_s: float


class LimitedQueue:
    """The batches of one signature of a version that wait for a thread.

    Attributes:
        options: The limits.
        hold: Holds the version.
        metrics: What counts the runs; None if nobody asks for metrics.
    """

    def __init__(
        self,
        options: BatchingOptions,
        run: Run,
        hold: Callable[[], Callable[[], None] | None],
        *,
        may_run_again: bool,
    ) -> None:
        """Start with nothing that waits.

        Args:
            options: The limits.
            run: Makes a run, on any thread.
            hold: Holds the version, returns what lets it go; None if it is on its way out.
            may_run_again: Whether a failed run has changed nothing.
        """
        self.options = options
        self.hold = hold
        self.metrics: RunMetrics | None = None
        self._run = run
        self._may_run_again = may_run_again
        self._batches = deque([_Batch()])

    @property
    def is_empty(self) -> bool:
        """Say whether nothing waits."""
        return len(self._batches) == 1 and not self._batches[-1].tasks

    @property
    def n_waiting(self) -> int:
        """Count the tasks that wait for a thread; of one that is cut, the parts."""
        return sum([len(batch.tasks) for batch in self._batches])

    def check_room(self, n_rows: int) -> None:
        """Raise an error if a request of so many rows can't wait here."""
        options, batches = self.options, self._batches
        if n_rows > options.max_batch_size:
            raise InvalidArgumentError(
                f"Task size {n_rows} is larger than maximum input batch size"
                f" {options.max_batch_size}"
            )
        most_batches, filling = max(options.max_enqueued_batches, 1), batches[-1].n_rows
        full = "The batch scheduling queue to which this task was submitted is full; "
        if not options.enable_large_batch_splitting:
            if filling + n_rows > options.max_batch_size and len(batches) >= most_batches:
                raise UnavailableError(
                    f"{full}currently {len(batches)} batches enqueued and max_enqueued_batches is"
                    f" {most_batches}"
                )
            return
        most_rows = options.max_run_rows
        capacity = (most_batches - len(batches) + 1) * most_rows - filling
        if n_rows > capacity:
            raise UnavailableError(
                f"{full}task size is {n_rows} but scheduling capacity is only {capacity}"
                f" (num_enqueued_batches={len(batches)}, max_enqueued_batches={most_batches},"
                f" open_batch_size={filling}, max_execution_batch_size={most_rows})"
            )

    def split(self, task: Task) -> list[Task]:
        """Cut a task that doesn't fit into the batch that fills, if large ones are to be cut."""
        most_rows, filling = self.options.max_run_rows, self._batches[-1].n_rows
        is_split = self.options.enable_large_batch_splitting and task.n_rows > 1
        if not is_split or filling + task.n_rows <= most_rows:
            return [task]
        cuts = [*range(most_rows - filling, task.n_rows, most_rows), task.n_rows]
        return _parts(task, [0, *cuts] if cuts[0] else cuts)

    def add(self, waiting: _Waiting, on_due: Callable[[], None]) -> None:
        """Put a task into the batch that fills, or into the next if it doesn't fit."""
        n_rows = waiting.n_rows
        if self._batches[-1].n_rows + n_rows > self.options.max_run_rows:
            self._batches.append(_Batch())
        batch = self._batches[-1]
        if not batch.tasks:
            self._start_timer(batch, on_due)
        batch.tasks.append(waiting)
        batch.n_rows += n_rows

    def _start_timer(self, batch: _Batch, on_due: Callable[[], None]) -> None:
        def end_wait() -> None:
            batch.is_due = True
            on_due()

        wait_s = self.options.batch_timeout_micros / 1e6
        if wait_s:
            batch.timer = asyncio.get_running_loop().call_later(wait_s, end_wait)
        else:
            batch.is_due = True

    def take(self) -> list[_Waiting]:
        """Take the first batch if it needn't wait any longer; else nothing."""
        batch = self._batches[0]
        if len(self._batches) == 1:
            is_full = batch.n_rows >= self.options.max_run_rows
            if not batch.tasks or not (is_full or batch.is_due):
                return []
            self._batches.append(_Batch())
        self._batches.popleft()
        if batch.timer is not None:
            batch.timer.cancel()
        for waiting in batch.tasks:
            waiting.is_running = True
        return batch.tasks

    def drop(self, waiting: _Waiting) -> None:
        """Take one task out that waits."""
        for batch in self._batches:
            if waiting in batch.tasks:
                batch.tasks.remove(waiting)
                batch.n_rows -= waiting.n_rows
                if not batch.tasks and batch.timer is not None:
                    batch.timer.cancel()
                if not batch.tasks and batch is not self._batches[-1]:
                    self._batches.remove(batch)
                return

    def run(self, tasks: Sequence[_Waiting], timeout_s: float | None) -> list[_Ran]:
        """Run a batch, rows of other inner sizes apart unless they are padded."""
        if self.options.pad_variable_length_inputs:
            _pad(tasks)
        groups: dict[Any, list[Task]] = {}
        for task in tasks:
            groups.setdefault(task.kind, []).append(task)
        return [self._run_group(group, timeout_s) for group in groups.values()]

    def _run_group(self, tasks: Sequence[Task], timeout_s: float | None) -> _Ran:
        began_s = time.perf_counter()
        outcome = self._run_tasks(tasks, timeout_s)
        return _Ran(tasks, outcome, began_s, time.perf_counter())

    def _run_tasks(self, tasks: Sequence[Task], timeout_s: float | None) -> Outcome:
        run = functools.partial(self._checked_run, timeout_s)
        try:
            return Results(run(tasks))
        except MlopsMiniError as exc:
            is_over = isinstance(exc, DeadlineExceededError)
            if len(tasks) == 1 or is_over or not self._may_run_again:
                return [exc] * len(tasks)
        return batching.run_alone(tasks, run)

    def _checked_run(self, timeout_s: float | None, tasks: Sequence[Task]) -> Sequence[Array]:
        n_padded = self._padded_rows(tasks)
        arrays = self._run(tasks, n_padded, timeout_s)
        if not all(array.ndim for array in arrays):
            raise FailedPreconditionError("Batched output tensor has 0 dimensions")
        if any(len(array) != n_padded for array in arrays):
            raise FailedPreconditionError(
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension"
                " sizes of the input tensors"
            )
        return arrays

    def _padded_rows(self, tasks: Sequence[Task]) -> int:
        return self.options.padded(sum([task.n_rows for task in tasks]))

    def settle(self, ran: _Ran) -> None:
        """Hand out what came of a run and count it, on the event loop."""
        n_answered = batching.settle(ran.tasks, ran.outcome)
        if self.metrics is not None:
            n_rows = sum([task.n_rows for task in ran.tasks])
            n_good = n_succeeded(ran.tasks, ran.outcome)
            numbers = n_rows, self.options.padded(n_rows), n_good, n_answered
            self.metrics.ran(ran.tasks, *numbers, ran.began_s, ran.ended_s, True)


class BatchScheduler:
    """The threads that run the batches of all queues. For one event loop."""

    def __init__(self, n_threads: int) -> None:
        """Start nothing yet."""
        self._threads = ThreadPoolExecutor(n_threads, "batch")
        self._n_free = n_threads
        self._queues: deque[LimitedQueue] = deque()  # those in which something waits
        self._is_called = False

    def schedule(self, queue: LimitedQueue, task: Task) -> bool:
        """Let a task wait for its batch; it hears of its results, or of an error, later.

        Returns:
            False if nothing was begun, since the version is on its way out.
        """
        try:
            queue.check_room(task.n_rows)
        except MlopsMiniError as exc:
            task.failed(exc)
            return True
        parts = queue.split(task)
        releases = [release for _ in parts if (release := queue.hold()) is not None]
        if len(releases) < len(parts):
            for release in releases:
                release()
            return False
        give_up = functools.partial(self._give_up, queue)
        for part, release in zip(parts, releases, strict=True):
            queue.add(_Waiting(part, release, give_up), self._call_soon)
        if queue not in self._queues:
            self._queues.append(queue)
        self._call_soon()
        return True

    def _call_soon(self) -> None:
        """Look for batches once everything that came in this turn of the event loop is in."""
        if not self._is_called:
            self._is_called = True
            asyncio.get_running_loop().call_soon(self._start_batches)

    def _start_batches(self) -> None:
        self._is_called = False
        n_idle = 0
        while self._n_free and n_idle < len(self._queues):
            queue = self._queues.popleft()
            batch = queue.take()
            n_idle = 0 if batch else n_idle + 1
            if batch:
                self._start(queue, batch)
            if not queue.is_empty:
                self._queues.append(queue)

    def _start(self, queue: LimitedQueue, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        left_s = max(waiting.ends_at_s for waiting in batch) - loop.time()
        timeout_s = None if left_s == float("inf") else max(left_s, 0.001)
        self._n_free -= 1
        work = self._threads.submit(queue.run, batch, timeout_s)
        work.add_done_callback(
            lambda done: loop.call_soon_threadsafe(self._end, queue, batch, done)
        )

    def _end(self, queue: LimitedQueue, batch: list[_Waiting], work: Future[list[_Ran]]) -> None:
        self._n_free += 1
        try:
            for ran in work.result():
                queue.settle(ran)
        except Exception as exc:  # our own fault, whatever it is: nobody may wait for ever
            logger.exception("a batch has failed")
            for waiting in batch:
                waiting.failed(exc)
        for waiting in batch:
            waiting.end()
        self._start_batches()

    def _give_up(self, queue: LimitedQueue, waiting: _Waiting) -> None:
        """Answer a task whose time is over; its run, if it has begun, goes on."""
        if waiting.is_running:
            waiting.failed(DeadlineExceededError("Timed out waiting for notification"))
            return
        queue.drop(waiting)
        waiting.end()
        waiting.failed(
            ResourceExhaustedError("Run() timeout exceeded while waiting in batching queue")
        )


class _Part:
    """Some rows of a task that is cut; the task hears the results of all, or the first error."""

    def __init__(self, task: Task, start: int, stop: int, results: dict[int, list[Array]]) -> None:
        rows = (slice(None),) * task.axis + (slice(start, stop),)
        self.blocks: Sequence[Any] = [block[rows] for block in task.blocks]
        self.axis, self.kind, self.timeout_s = task.axis, task.kind, task.timeout_s
        self.queued_s = task.queued_s
        self.n_rows = stop - start
        self.n_elements = task.n_elements * self.n_rows // task.n_rows
        self._task, self._start, self._results = task, start, results

    def done(self, results: Results, start: int, stop: int | None) -> bool:
        if self._start not in self._results:  # another part has failed
            return False
        self._results[self._start] = [array[start:stop] for array in results.arrays]
        parts = self._results.values()
        if not all(parts):
            return False
        arrays = [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
        return self._task.done(Results(arrays), 0, None)

    def failed(self, error: Exception) -> None:
        if self._results:
            self._results.clear()
            self._task.failed(error)


def _parts(task: Task, cuts: Sequence[int]) -> list[Task]:
    """Cut a task at these rows."""
    results: dict[int, list[Array]] = {start: [] for start in cuts[:-1]}  # [] until it is there
    return [_Part(task, start, stop, results) for start, stop in itertools.pairwise(cuts)]


def _pad(tasks: Sequence[_Waiting]) -> None:
    """Pad inner dimensions to the longest of all tasks by each block's first element."""
    if len({task.kind for task in tasks}) == 1 or any(task.axis for task in tasks):
        return
    shapes = [[block.shape[1:] for block in task.blocks] for task in tasks]
    if any(len({len(shape) for shape in of_one}) > 1 for of_one in zip(*shapes, strict=True)):
        return  # other ranks can't be padded
    longest = [tuple(map(max, zip(*of_one, strict=True))) for of_one in zip(*shapes, strict=True)]
    for task in tasks:
        blocks = []
        for block, sizes in zip(task.blocks, longest, strict=True):
            full = np.full((task.n_rows, *sizes), block.flat[0] if block.size else 0, block.dtype)
            full[tuple(map(slice, block.shape))] = block
            blocks.append(full)
        task.blocks, task.kind = blocks, tuple(longest)
