"""Watches a certificate's promise: people check a share of what was automated, one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.evidence import eprocesses

_RATIOS = np.array([2.5, 4.0, 8.0])  # how many times too many errors are looked for
_EVERY = 200  # audits between two starts
_FIRST = 0.8  # share of the evidence that is gathered from the first audit on


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """Too many automated items are wrong: the certificate no longer holds.

    Attributes:
        max_error: The promise that was broken.
        n_audits: Audits until the alarm.
        errors: How many of them found an error.
        e_value: Evidence against the promise.
    """

    max_error: float
    n_audits: int
    errors: int
    e_value: float

    def sentence(self) -> str:
        """Say it in words."""
        return (
            f"{self.errors:,} of {self.n_audits:,} audited items were wrong, far more than the"
            f" {100 * self.max_error:.3g} % that were promised"
        )


class AuditMonitor:
    """Tells, after each audit, whether the promise is surely broken.

    While it's kept, the chance that there's ever an alarm is at most 1 - confidence, no matter how
    often one looks. Most of the evidence is gathered from the first audit on; the rest starts anew
    every 200 audits, so that good old times don't hide a change.

    Source:
        Waudby-Smith, Ramdas: Estimating means of bounded random variables by betting, JRSS B 2024,
        https://arxiv.org/abs/2010.09686.

    >>> monitor = AuditMonitor(max_error=0.02)
    >>> monitor.update([0, 0, 1, 0, 0, 1, 0]).round(1)
    array([-0.1, -0.1,  1.2,  1.1,  1. ,  2.7,  2.5])
    >>> _ = monitor.update([1, 0, 1])
    >>> monitor.alarm.sentence()
    '3 of 8 audited items were wrong, far more than the 2 % that were promised'
    """

    def __init__(self, *, max_error: float, confidence: float = 0.95) -> None:
        """Begin to watch.

        Args:
            max_error: The promise: largest share of errors, between 0 and 1.
            confidence: One minus the chance of a false alarm, between 0 and 1.

        Raises:
            InvalidArgumentError: The confidence or the limit isn't between 0 and 1.
        """
        if not 0 < confidence < 1 or not 0 < max_error < 1:
            raise InvalidArgumentError(
                f"confidence is {confidence}, max_error {max_error}: expected both between 0 and 1"
            )
        self._max_error, self._limit = max_error, -np.log(1 - confidence)
        self._rates = np.minimum(_RATIOS * max_error, (1 + max_error) / 2)
        self.restart()

    def restart(self) -> None:
        """Forget all audits, such as after a new certificate."""
        self._n = np.zeros(0, np.int64)  # audits since each start
        self._errors = np.zeros(0, np.int64)  # errors among these
        self.alarm: Alarm | None = None

    @property
    def n_audits(self) -> int:
        """Audits since the restart."""
        return int(self._n[0]) if self._n.size else 0

    @property
    def errors(self) -> int:
        """Errors that they found."""
        return int(self._errors[0]) if self._n.size else 0

    def update(self, errors: npt.ArrayLike) -> eprocesses.Floats:
        """Take the next audits into account.

        Args:
            errors: For each audit whether the automated answer was wrong, 0 or 1, in order.

        Returns:
            Log of the evidence after each; there's an alarm when it reaches log(1 / (1 -
            confidence)), which is log 20 by default.

        Raises:
            InvalidArgumentError: Something else than 0 and 1.
        """
        found = np.asarray(errors)
        if found.ndim != 1 or not np.isin(found, (0, 1)).all():
            raise InvalidArgumentError(f"an audit finds an error, 1, or none, 0; got {found}")
        parts = [np.zeros(0)]
        while found.size:
            n_left = _EVERY - self.n_audits % _EVERY  # until the next start
            parts.append(self._update(found[:n_left].astype(np.int64)))
            found = found[n_left:]
        return np.concatenate(parts)

    def _update(self, found: npt.NDArray[np.int64]) -> eprocesses.Floats:
        if self.n_audits % _EVERY == 0:
            self._n, self._errors = np.append(self._n, 0), np.append(self._errors, 0)
        later = np.arange(1, self._n.size)
        weights = np.concatenate(
            [[_FIRST], (1 - _FIRST) / (later * (later + 1)), [(1 - _FIRST) / self._n.size]]
        )
        log_e = np.zeros((weights.size, found.size))  # the last row is of those yet to start
        log_e[:-1] = eprocesses.above_rate(
            np.column_stack([self._errors, np.tile(found, (self._n.size, 1))]),
            np.column_stack([self._n, np.ones((self._n.size, found.size), np.int64)]),
            max_rate=self._max_error,
            rates=self._rates,
        )[:, 1:]
        evidence = eprocesses.mean_of(log_e, weights=weights)
        crossed = np.flatnonzero(evidence >= self._limit)
        if self.alarm is None and crossed.size:
            at = int(crossed[0])
            self.alarm = Alarm(
                max_error=self._max_error,
                n_audits=self.n_audits + at + 1,
                errors=self.errors + int(found[: at + 1].sum()),
                e_value=float(np.exp(evidence[at])),
            )
        self._n, self._errors = self._n + found.size, self._errors + int(found.sum())
        return evidence
