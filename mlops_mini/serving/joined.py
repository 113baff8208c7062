"""Requests that join others: who waits for an answer, and what one turn has gathered."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import DeadlineExceededError
from mlops_mini.serving.batching import BatchQueue, Results, Task
from mlops_mini.serving.json_fast import fits
from mlops_mini.serving.servables import LoadedSignature, Servable

Array = npt.NDArray[Any]
T = TypeVar("T")


class Joined:
    """A request in a batch, whose answer somebody waits for."""

    def __init__(
        self,
        blocks: Sequence[Array],
        axis: int,
        n_rows: int,
        *,
        n_elements: int,
        timeout_s: float | None,
        answer: Callable[[list[Array]], Any],
    ) -> None:
        """Be ready to join; `answer` makes what `future` gets of the arrays of its rows."""
        self.blocks: Sequence[Any] = blocks
        self.axis = axis
        self.kind: Hashable = None
        if not axis:
            shapes = [block.shape[1:] for block in blocks]
            self.kind = shapes[0] if len(shapes) == 1 else tuple(shapes)
        self.n_rows = n_rows
        self.n_elements = n_elements
        self.timeout_s = timeout_s
        self.queued_s = 0.0
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answer = answer

    def done(self, results: Results, start: int, stop: int | None) -> bool:
        """Take the results; who waits for the future answers with them, and counts that."""
        if not self.future.done():  # its time may be over, or its client gone
            self.future.set_result(self._answer([array[start:stop] for array in results.arrays]))
        return False

    def failed(self, error: Exception) -> None:
        """Take the error instead."""
        if not self.future.done():
            self.future.set_exception(error)


class Turn:
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
        """Begin none yet; `release` lets the version go."""
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


def common_rows(signature: LoadedSignature, arrays: Sequence[Array]) -> int:
    """Count the rows of a request of the declared shapes; 0 if it has others."""
    are_fit = [
        fits(array.shape, spec.shape) for array, spec in zip(arrays, signature.inputs, strict=True)
    ]
    return len(arrays[0]) if all(are_fit) and len({len(array) for array in arrays}) == 1 else 0


def to_blocks(signature: LoadedSignature, arrays: Sequence[Array]) -> tuple[Sequence[Array], int]:
    """Make the blocks of a task, and tell which of their dimensions counts rows."""
    layout = signature.layout
    has_columns = len({array.shape for array in arrays}) == 1 and arrays[0].ndim == 1
    if layout is None or layout.shape is not None or not has_columns:
        return arrays, 0
    by_alias = {spec.alias: array for spec, array in zip(signature.inputs, arrays, strict=True)}
    return [np.stack([by_alias[a] for a in aliases]) for _, aliases in layout.groups], 1


async def within(future: asyncio.Future[T], timeout_s: float | None) -> T:
    """Wait for a run, but not longer than its request may take.

    Raises:
        DeadlineExceededError: It takes longer, in the words of a run that does.
    """
    if timeout_s is None:
        return await future
    try:
        async with asyncio.timeout(timeout_s):
            return await future
    except TimeoutError as exc:
        raise DeadlineExceededError("Timed out waiting for notification") from exc
