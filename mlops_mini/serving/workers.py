"""Worker threads, and a process beside ours, for the work that would stop the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from mlops_mini.errors import DeadlineExceededError
from mlops_mini.serving import servables
from mlops_mini.serving.large_messages import LargeMessages

T = TypeVar("T")

MAX_INLINE_BYTES = 2**18  # of a message read or written on the event loop: some milliseconds
_MAX_THREAD_BYTES = 2**22  # of JSON: tens of milliseconds in which the parser lets nobody else work
_N_RARE_THREADS = 32


class Workers:
    """Threads for runs, others for work that is rare or large. They end with this process."""

    def __init__(self, n_run_threads: int = 0) -> None:
        """Start nothing yet; `n_run_threads` of 0 is four for each CPU."""
        # All of TensorFlow first: to import a part while another thread imports all fails both.
        first = servables.tensorflow
        n_runs = n_run_threads or 4 * (os.cpu_count() or 1)
        self._runs = ThreadPoolExecutor(n_runs, "run", initializer=first)
        self._rare = ThreadPoolExecutor(_N_RARE_THREADS, "rare", initializer=first)
        self._large = LargeMessages()

    async def do(self, work: Callable[..., T], *arguments: Any) -> T:
        """Call a function on a thread: for work that is rare, or takes long."""
        return await _wait(self._rare.submit(work, *arguments))

    async def do_json(self, n_bytes: int, work: Callable[..., T], *arguments: Any) -> T:
        """Read or write JSON of about that size.

        On a thread; if it is very large, in the process beside ours, since a JSON parser lets no
        other thread work meanwhile.
        """
        if n_bytes > _MAX_THREAD_BYTES:
            return await self.do(self._large.call, work, *arguments)
        return await self.do(work, *arguments)

    async def run(
        self,
        run: Callable[..., T],
        *arguments: Any,
        timeout_s: float | None = None,
        hold: contextlib.ExitStack | None = None,
    ) -> T:
        """Wait for a run, but not longer than its request may take.

        If it still waits for a thread then, it is dropped. Once begun it cannot be stopped: it goes
        on and keeps its hold on the version, which must not be unloaded meanwhile.

        Args:
            run: The run.
            *arguments: What it takes.
            timeout_s: Longest wait, seconds; None for no limit.
            hold: What must not be let go before the run has ended.

        Raises:
            DeadlineExceededError: It takes longer, in the words of a run that does.
        """
        work = self._runs.submit(run, *arguments)
        try:
            return await _wait(work, timeout_s)
        finally:
            if hold is not None and not work.done():
                rest = hold.pop_all()
                work.add_done_callback(lambda _: rest.close())


async def _wait(work: Future[T], timeout_s: float | None = None) -> T:
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.wrap_future(work)
    except TimeoutError as exc:
        if work.done() and not work.cancelled():
            raise  # the work's own error
        raise DeadlineExceededError("Timed out waiting for notification") from exc
