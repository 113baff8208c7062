"""Requests that are run together: how they become one batch, and its results theirs again.

What has come in one turn of the event loop is one batch: nobody waits for anybody, so a lone
request loses nothing, and the more come, the less each costs. Batches are padded to a power of two
by a row that is there, so that TensorFlow prepares itself for a few sizes only.

Nobody has to ask for this, so it must not change an answer. A signature is batched if the first
dimension of all its inputs and outputs is free and it reaches no op with a state of its own. Its
first batches are also run one by one, and the clients get those answers. If one of them differs
from the batch's, or a batch fails where no request in it does, then the rows of this model aren't
independent of each other, and its requests are run alone for good.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import DeadlineExceededError, MlopsMiniError
from mlops_mini.serving.json_fast import InputLayout
from mlops_mini.serving.server_metrics import RunMetrics

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

MAX_ROWS = 64  # of a batch
MAX_TASK_ROWS = 8  # of a request in it: a larger one gains nothing, and the others would wait
_N_TRIALS = 20
_TOLERANCE = 1e-5
# Where 1e39 becomes Infinity as a float32 without a warning: `np.errstate` takes longer than most
# of what's done to a small request.
_ANY_SIZE = contextvars.copy_context()
_ANY_SIZE.run(np.seterr, over="ignore")


class Patience(NamedTuple):
    """How long a request may wait for others to be run with, and how many are enough.

    Attributes:
        seconds: Longest wait; 0 is for this turn of the event loop only.
        n_enough: Requests that are run as soon as they wait.
    """

    seconds: float = 0.0
    n_enough: int = MAX_ROWS


AT_ONCE = Patience()


class Results:
    """What a batch came to; its tasks share it, each has its rows.

    Attributes:
        arrays: One array per output.
        shared: Whatever the edge makes of all of it, for the tasks that come after.
    """

    __slots__ = ("arrays", "shared")

    def __init__(self, arrays: Sequence[Array]) -> None:
        self.arrays = arrays
        self.shared: Any = None


class Task(Protocol):
    """A request that waits for its batch.

    Attributes:
        blocks: What is fed, one array for each group of the layout of the signature's inputs, or
            where there is one row of several inputs their values.
        axis: The dimension of the blocks that counts rows: 0 if there is a block for each input, 1
            if there is one for each group.
        kind: What tasks that share a batch have in common: the sizes of a row, the form of blocks.
        n_rows: How many there are.
        n_elements: How many elements are fed, as `RunCosts` counts them.
        timeout_s: Longest run, seconds; None for no limit.
        queued_s: When its turn came, by `time.perf_counter`; set only where runs are counted.
    """

    blocks: Sequence[Any]
    axis: int
    kind: Hashable
    n_rows: int
    n_elements: int
    timeout_s: float | None
    queued_s: float

    def done(self, results: Results, start: int, stop: int | None) -> bool:
        """Take the results, the first of one's rows, and the one after the last; None is all.

        Returns:
            Whether it's answered, and whoever ran it counts that: see `RunMetrics.ran`.
        """
        ...

    def failed(self, error: Exception) -> None:
        """Take the error instead."""


@dataclass(slots=True)
class BatchQueue:
    """What waits for the next turn, and what is known of batches of this signature.

    Attributes:
        name: The signature's, for the log.
        waiting: Tasks, in the order in which they came.
        release: Lets the version go that they hold.
        timer: Ends their wait.
        n_away: Batches that run on threads.
        n_trials: Batches that were also run one by one.
        is_alone: True once a batch has changed an answer.
        metrics: What counts the runs; None if nobody asks for metrics.
    """

    name: str
    waiting: list[Task] = field(default_factory=list)
    release: Callable[[], None] | None = None
    timer: asyncio.TimerHandle | None = None
    n_away: int = 0
    n_trials: int = 0
    is_alone: bool = False
    metrics: RunMetrics | None = None

    @property
    def n_waiting(self) -> int:
        """Count the tasks that wait."""
        return len(self.waiting)

    @property
    def is_on_trial(self) -> bool:
        """Say whether the next batch also has to be run one by one."""
        return self.n_trials < _N_TRIALS

    def settle(
        self, tasks: Sequence[Task], outcome: Outcome, began_s: float, ended_s: float
    ) -> None:
        """Hand out what came of a run from then to then, by `time.perf_counter`, and count it."""
        n_answered = settle(tasks, outcome)
        if self.metrics is not None:
            is_batch, n_rows = len(tasks) > 1, sum([task.n_rows for task in tasks])
            n_processed = padded(n_rows) if is_batch else n_rows
            numbers = n_rows, n_processed, n_succeeded(tasks, outcome), n_answered
            self.metrics.ran(tasks, *numbers, began_s, ended_s, is_batch)


def cut(tasks: Sequence[Task], *, is_alone: bool = False) -> list[Sequence[Task]]:
    """Cut tasks into batches: of one kind, up to `MAX_ROWS` rows, large tasks alone.

    Args:
        tasks: In the order in which they came.
        is_alone: Make a batch of each.
    """
    if len(tasks) == 1:
        return [tasks]
    sizes = [task.n_rows for task in tasks]
    is_one_batch = sum(sizes) <= MAX_ROWS and max(sizes) <= MAX_TASK_ROWS and not is_alone
    if is_one_batch and len({task.kind for task in tasks}) == 1:
        return [tasks]
    batches: list[Sequence[Task]] = []
    open_batches: dict[Hashable, tuple[list[Task], int]] = {}
    for task in tasks:
        n_rows = task.n_rows
        if is_alone or n_rows > MAX_TASK_ROWS:
            batches.append([task])
            continue
        batch, n_rows_before = open_batches.get(task.kind, ([], MAX_ROWS))
        n_rows += n_rows_before
        if n_rows > MAX_ROWS:
            batch, n_rows = [], task.n_rows
            batches.append(batch)
        batch.append(task)
        open_batches[task.kind] = batch, n_rows
    return batches


def padded_rows(tasks: Sequence[Task]) -> int:
    """Count the rows of a batch with its padding; a task alone has none.

    >>> from types import SimpleNamespace
    >>> task = SimpleNamespace(n_rows=3)
    >>> padded_rows([task]), padded_rows([task, task])
    (3, 8)
    """
    if len(tasks) == 1:
        return tasks[0].n_rows
    return padded(sum([task.n_rows for task in tasks]))


def padded(n_rows: int) -> int:
    """Round up to a power of two.

    >>> [padded(n) for n in (1, 3, 64)]
    [1, 4, 64]
    """
    return 1 << (n_rows - 1).bit_length()


def join(tasks: Sequence[Task], dtypes: Sequence[np.dtype[Any] | None], n_rows: int) -> list[Array]:
    """Join the blocks of tasks of one kind, and pad them by the last task's first row.

    Args:
        tasks: At least one.
        dtypes: The type that each block is fed as.
        n_rows: Of all tasks with the padding.

    Returns:
        One array for each block; where rows aren't its first dimension, its first are the aliases.
    """
    last = tasks[-1]
    if len(tasks) == 1 and n_rows == last.n_rows:
        return [*map(_to_feed, last.blocks, dtypes)]
    quietly = _ANY_SIZE.copy().run
    n_padding = n_rows - sum([task.n_rows for task in tasks])
    joined: list[Array] = []
    for index, dtype in enumerate(dtypes):
        parts = [task.blocks[index] for task in tasks]
        if last.axis and not isinstance(parts[-1], np.ndarray):  # a row of values
            parts += parts[-1:] * n_padding
            n_values = len(parts) * len(parts[0])
            rows = quietly(np.fromiter, chain.from_iterable(parts), dtype, n_values)
            joined.append(np.ascontiguousarray(rows.reshape(len(parts), -1).T))
            continue
        if n_padding:
            block = parts[-1]
            row = block[:1] if not last.axis else block[:, :1]
            parts += [row] * n_padding
        concatenate = functools.partial(np.concatenate, dtype=dtype, casting="same_kind")
        joined.append(quietly(concatenate, parts, last.axis))
    return joined


def to_arrays(layout: InputLayout, blocks: Sequence[Any]) -> dict[str, Array]:
    """Turn the blocks of a plain request into one array per alias."""
    arrays: dict[str, Array] = {}
    for (dtype, aliases), block in zip(layout.groups, blocks, strict=True):
        rows = _to_feed(block, dtype)
        arrays.update({aliases[0]: rows} if layout.shape else zip(aliases, rows, strict=True))
    return arrays


def _to_feed(block: Any, dtype: np.dtype[Any] | None) -> Array:
    """Make the array to feed of a block: of a row of values one row for each alias."""
    quietly = _ANY_SIZE.copy().run
    if isinstance(block, np.ndarray):
        return quietly(block.astype, dtype, copy=False)
    return quietly(np.fromiter, block, dtype, len(block)).reshape(-1, 1)


# Of a batch, or of each of its tasks on its own.
Outcome = Results | list[Results | MlopsMiniError]
_Run = Callable[[Sequence[Task]], Sequence[Array]]


def n_succeeded(tasks: Sequence[Task], outcome: Outcome) -> int:
    """Count the tasks that have results."""
    if isinstance(outcome, Results):
        return len(tasks)
    return sum([isinstance(own, Results) for own in outcome])


def run(queue: BatchQueue, tasks: Sequence[Task], run_batch: _Run) -> Outcome:
    """Run tasks of one kind, together if that doesn't change their answers.

    If they fail together, each is run on its own, once, so that one bad request fails alone.

    Args:
        queue: Where they waited; learns from what happens.
        tasks: At least one.
        run_batch: Makes one run of tasks, and returns one array per output.

    Raises:
        DeadlineExceededError: They took too long.
    """
    if len(tasks) == 1:
        return run_alone(tasks, run_batch)
    if queue.is_on_trial:
        return _try(queue, tasks, run_batch)
    try:
        arrays = run_batch(tasks)
    except DeadlineExceededError:
        raise
    except MlopsMiniError:
        arrays = []
    if arrays and _is_whole(tasks, arrays):
        return Results(arrays)
    outcomes = run_alone(tasks, run_batch)
    if all(isinstance(outcome, Results) for outcome in outcomes):
        _refuse(queue, "fails, and each of its requests succeeds")
    return outcomes


def run_alone(tasks: Sequence[Task], run_batch: _Run) -> list[Results | MlopsMiniError]:
    """Run each task on its own; each has its results or its error."""
    outcomes: list[Results | MlopsMiniError] = []
    for task in tasks:
        try:
            outcomes.append(Results(run_batch([task])))
        except MlopsMiniError as exc:
            outcomes.append(exc)
    return outcomes


def _try(
    queue: BatchQueue, tasks: Sequence[Task], run_batch: _Run
) -> list[Results | MlopsMiniError]:
    """Run tasks on their own and as a batch, and compare."""
    outcomes = run_alone(tasks, run_batch)
    try:
        together = run_batch(tasks)
    except MlopsMiniError:
        if all(isinstance(outcome, Results) for outcome in outcomes):
            _refuse(queue, "fails, and each of its requests succeeds")
        return outcomes
    if not _is_whole(tasks, together) or not _are_equal(tasks, outcomes, together):
        _refuse(queue, "has other answers than its requests on their own")
    queue.n_trials += 1
    return outcomes


def _refuse(queue: BatchQueue, reason: str) -> None:
    queue.is_alone = True
    logger.info("requests of %s will run one by one: a batch of them %s", queue.name, reason)


def _is_whole(tasks: Sequence[Task], arrays: Sequence[Array]) -> bool:
    """Say whether every output has as many rows as the batch."""
    n_rows = padded_rows(tasks)
    return all(array.ndim and len(array) == n_rows for array in arrays)


def settle(tasks: Sequence[Task], outcome: Outcome) -> int:
    """Hand each task its results or its error; return how many answers are left to count."""
    n_answered = 0
    if isinstance(outcome, Results):
        start = 0
        for task in tasks:
            n_answered += task.done(outcome, start, start + task.n_rows)
            start += task.n_rows
    else:
        for task, own in zip(tasks, outcome, strict=True):
            if isinstance(own, Results):
                n_answered += task.done(own, 0, None)
            else:
                task.failed(own)
    return n_answered


def _are_equal(
    tasks: Sequence[Task],
    outcomes: Sequence[Results | MlopsMiniError],
    together: Sequence[Array],
) -> bool:
    start = 0
    for task, outcome in zip(tasks, outcomes, strict=True):
        stop = start + task.n_rows
        if not isinstance(outcome, Results):
            return False  # the batch has done what it could not
        for alone, array in zip(outcome.arrays, together, strict=True):
            if not _is_equal(alone, array[start:stop]):
                return False
        start = stop
    return True


def _is_equal(alone: Array, rows: Array) -> bool:
    if alone.shape != rows.shape or alone.dtype != rows.dtype:
        return False
    if alone.dtype.kind not in "fc":
        return bool(np.array_equal(alone, rows))
    return bool(np.allclose(alone, rows, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True))
