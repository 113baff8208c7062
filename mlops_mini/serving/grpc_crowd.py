"""How long a gRPC call waits for others that may come.

`grpc.aio` wakes the event loop for each call, so that a turn of it brings only one, however many
clients there are; and answers one by one bring the next calls one by one. So calls wait for each
other, if there are others: two milliseconds, or until as many wait as came together shortly before.
A lone client's calls don't wait.
"""

from __future__ import annotations

from collections import deque

from mlops_mini.serving.batching import AT_ONCE, MAX_ROWS, Patience

_PATIENCE_S = 0.002
_COMING_S = 0.2  # a call whose message takes longer isn't waited for
_SOON_S = 130e-6  # after an answer: no client is that quick with its next call
_WINDOW_S = 0.05  # for which others are believed in, and counted
_LEARN_S = 0.003  # of a window, in which calls wait for any number of others


class Crowd:
    """What is known of the calls under way; all times are of one clock, in seconds.

    >>> crowd = Crowd()
    >>> crowd.begins(0.0)
    >>> crowd.enters(0.0).seconds
    0.0
    >>> crowd.begins(0.0)
    >>> crowd.enters(0.0).seconds  # the first is still under way
    0.002
    """

    def __init__(self) -> None:
        """Know of no calls."""
        self._n_under_way = 0
        self._coming_s = deque[float]()  # when those calls were begun whose message isn't here yet
        self._left_s = float("-inf")
        self._others_until_s = float("-inf")
        self._window_s = float("-inf")
        self._most = 0  # calls that were under way at once in this window

    def begins(self, now_s: float) -> None:
        """Note a call whose message isn't here yet."""
        self._coming_s.append(now_s)

    def enters(self, now_s: float) -> Patience:
        """Note a call whose message is here, and say how long it may wait for others."""
        self._n_under_way += 1
        coming_s = self._coming_s
        if coming_s:
            coming_s.pop()  # the youngest: one whose client has gone grows old at the other end
        while coming_s and now_s - coming_s[0] > _COMING_S:
            coming_s.popleft()
        if now_s - self._window_s > _WINDOW_S:
            self._window_s, self._most = now_s, 0
        self._most = max(self._most, self._n_under_way)
        if coming_s or self._n_under_way > 1 or now_s - self._left_s < _SOON_S:
            self._others_until_s = now_s + _WINDOW_S
        if now_s > self._others_until_s:
            return AT_ONCE
        is_learning = now_s - self._window_s < _LEARN_S
        return Patience(_PATIENCE_S, MAX_ROWS if is_learning else self._most)

    def leaves(self, now_s: float) -> None:
        """Note that a call has been answered."""
        self._n_under_way -= 1
        self._left_s = now_s
