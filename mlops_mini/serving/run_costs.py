"""How long runs of a signature take, learned from the requests that it gets.

A short run is best made right on the event loop, where no thread has to be woken; a long one would
keep everybody else waiting. Nobody can know which is which before real requests have come: a trial
run could have side effects, and one on a small input says nothing of a large one. So the first runs
all go to worker threads and are timed there. After that an input may run on the loop if inputs of
its size have proved to be short; a size that hasn't been seen goes to a thread.
"""

from __future__ import annotations

import statistics
import threading
from collections import deque

INLINE_LIMIT_S = 3e-3  # of a run, so of a whole batch
_FIRST_RUNS = 20  # of a signature: none of them on the event loop
_ENOUGH_RUNS = 3  # of one size, to judge it by
_KEPT_RUNS = 9
_OVERRUN = 10  # one run this many times over the limit makes its size a long one


class RunCosts:
    """Seconds that the latest runs took, by size class (inputs within a factor of two).

    Attributes:
        inline_elements: Inputs with up to that many elements are short runs; -1 while none is
            known to be.
        is_warm: True once a run has been made in the way that the event loop makes it.

    >>> costs = RunCosts()
    >>> for _ in range(20):
    ...     costs.add(100, 0.000_05)
    >>> costs.inline_elements
    127
    >>> costs.add(100, 0.5)
    >>> costs.inline_elements
    -1
    """

    def __init__(self, *, may_inline: bool = True) -> None:
        """Start without any runs.

        Args:
            may_inline: False for a signature that must never run on the event loop.
        """
        self.inline_elements = -1
        self.is_warm = False
        self._may_inline = may_inline
        self._n_runs = 0
        self._seconds: dict[int, deque[float]] = {}
        self._changing = threading.Lock()

    def add(self, n_elements: int, seconds: float) -> None:
        """Learn from a run; may be called from any thread.

        Args:
            n_elements: How many elements were fed, over all inputs; of text also its bytes.
            seconds: How long the run took.
        """
        if not self._may_inline:
            return
        with self._changing:
            self._n_runs += 1
            known = self._seconds.setdefault(n_elements.bit_length(), deque(maxlen=_KEPT_RUNS))
            known.extend([seconds] * (_KEPT_RUNS if seconds > _OVERRUN * INLINE_LIMIT_S else 1))
            self.inline_elements = self._longest_short() if self._n_runs >= _FIRST_RUNS else -1

    def _longest_short(self) -> int:
        """Find the largest size below every size that has proved to be long."""
        largest = -1
        for size, seconds in sorted(self._seconds.items()):
            if len(seconds) < _ENOUGH_RUNS:
                continue
            if statistics.median(seconds) > INLINE_LIMIT_S:
                break
            largest = (1 << size) - 1
        return largest
