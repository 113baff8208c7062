"""Answers of a stable and of its shadow to the same requests, from the logs of both servers.

Envoy throws away what a shadow answers, but both servers can log (`serving.request_log`), and a
copy keeps its request's id. So a fault of the canary is found without a label and before any user
has had one of its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import NotFoundError
from mlops_mini.prediction_log import Reader, Record, ends
from mlops_mini.rollout.guardrails import Counts

METRIC = "differs"
_MOST_WAITING = 10_000
_HALF = 0.5

Differs = Callable[[Record, Record], bool]


def other_class(stable: Record, canary: Record) -> bool:
    """Say whether the highest score of any row is another class's, in any output.

    For an output with one score per row the classes are below .5 and from .5 on.
    """
    return any(
        not np.array_equal(_classes(scores), _classes(canary.outputs[alias]))
        for alias, scores in stable.outputs.items()
    )


def _classes(scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
    is_single = scores.ndim < 2 or scores.shape[-1] == 1
    return scores >= _HALF if is_single else np.asarray(scores.argmax(axis=-1))


class LoggedPairs:
    """Pairs the records of two logs by request id: a source of a release.

    Each call counts the pairs that have become whole since the last one. Requests of which only one
    side has a record wait for the other, the last 10,000 of each side.

    Attributes:
        n_pairs: How many there were so far.
    """

    def __init__(
        self,
        stable_log: Path,
        canary_log: Path,
        *,
        differs: Differs = other_class,
        is_new: bool = False,
    ) -> None:
        """Begin at the start of both logs, which need not be there yet.

        Args:
            stable_log: Prefix of the stable's log; see `prediction_log`.
            canary_log: Prefix of the canary's.
            differs: Given the stable's record and the canary's, says whether they disagree.
            is_new: Whether nothing was mirrored before now: what the stable has answered until now
                isn't read then.
        """
        self.n_pairs = 0
        self._differs = differs
        self._logs = _Log(stable_log, ends(stable_log) if is_new else {}), _Log(canary_log, {})

    def __call__(self) -> dict[str, Counts]:
        """Count pairs, under the metric `differs`; none may mean that the logs haven't come yet."""
        stable_log, canary_log = self._logs
        for log in self._logs:
            log.read()
        whole = stable_log.waiting.keys() & canary_log.waiting.keys()
        n_different = sum(
            self._differs(stable_log.waiting.pop(key), canary_log.waiting.pop(key)) for key in whole
        )
        self.n_pairs += len(whole)
        return {METRIC: Counts(n_canary=len(whole), bad_canary=n_different)}


class _Log:
    """Records of one log that wait for the other's, by request id and by what was asked."""

    def __init__(self, prefix: Path, positions: dict[str, int]) -> None:
        self._prefix = prefix
        self._positions = positions
        self.waiting: dict[tuple[str, str, str], Record] = {}

    def read(self) -> None:
        for record in self._new_records():
            self.waiting[record.request_id, record.method, record.signature_name] = record
        for key in list(self.waiting)[:-_MOST_WAITING]:
            del self.waiting[key]

    def _new_records(self) -> Iterator[Record]:
        try:
            reader = Reader(self._prefix, positions=self._positions)
        except NotFoundError:
            return
        yield from reader
        self._positions = reader.positions
