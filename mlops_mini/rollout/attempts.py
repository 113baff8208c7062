"""What became of each attempt, from the router's log: the one count that retries don't distort.

A cluster's own counters know only final answers: an attempt of the canary that failed and was
rescued by the stable isn't among them. Envoy's log of attempts has a line for each.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlops_mini.rollout import envoy_config
from mlops_mini.rollout.envoy import Router
from mlops_mini.rollout.guardrails import SLOW_P50, SLOW_P95, Counts, Look
from mlops_mini.rollout.policy import TrafficPolicy

_ROTATE_BYTES = 64 << 20
_N_FOR_LIMITS = 500
# A version that has just been loaded is slow at first, and that says nothing about it.
_N_COLD = 100
# gRPC statuses that are the server's fault or say that it can't answer such a request.
_GRPC_OK, _GRPC_NONE = "0", "-"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to have a request answered.

    Attributes:
        cluster: Who was asked: `v7-rest`, or `v7-rest-shadow` for a copy.
        is_bad: Whether there was no answer, or an error; a client's error (4xx) too: if it is the
            client's fault, the stable has as many of them.
        duration_us: Microseconds from the first byte sent to the last one received, or None.
        request_id: Its `x-request-id`.
        route: The route that sent it there, as `envoy_config.split_name` names it; `-` for a copy,
            and if a header named its version.
    """

    cluster: str
    is_bad: bool
    duration_us: int | None
    request_id: str
    route: str


class AttemptLog:
    """Reads what has been appended to the log since the last time, and keeps it small."""

    def __init__(self, folder: Path, router: Router) -> None:
        """Begin at the end of the log.

        Args:
            folder: Envoy's folder.
            router: Told to begin a new file when this one is large.
        """
        self._path, self._router = folder / envoy_config.REQUEST_LOG, router
        self._path.touch()
        self._file = self._path.open("rb")
        self._file.seek(0, os.SEEK_END)
        self._rest = b""

    def read(self) -> list[Attempt]:
        """Return the attempts that have ended since the last call."""
        attempts = self._parse(self._file.read())
        if self._file.tell() > _ROTATE_BYTES:
            self._path.replace(self._path.with_suffix(".old"))
            self._router.reopen_logs()
            attempts += self._parse(self._file.read())
            self._file.close()
            self._path.touch()
            self._file, self._rest = self._path.open("rb"), b""
            self._path.with_suffix(".old").unlink()
        return attempts

    def _parse(self, appended: bytes) -> list[Attempt]:
        *lines, self._rest = (self._rest + appended).split(b"\n")
        return [_attempt(line.decode("ascii", "replace")) for line in lines if line]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Watcher:
    """Makes looks of attempts."""

    def __init__(self, log: AttemptLog, *, slow_limits_us: tuple[float, float] | None) -> None:
        """Watch a log.

        Args:
            log: What is read.
            slow_limits_us: The stable's median and 95 % quantile, if they are known already.
        """
        self._log = log
        self.slow_limits_us = slow_limits_us
        self._stable_us: list[int] = []
        self._failed_ids: dict[str, None] = {}
        self._n_canary = 0

    def look(self, policy: TrafficPolicy, router: Router, *, seconds: float) -> Look:
        """Count what has become known since the last look, of requests that were split by weight.

        Args:
            policy: What holds; attempts under another weight are left out.
            router: Asked for the canary's health, or that of who serves alone.
            seconds: How long it was.

        Returns:
            The look, with the metrics `error`, and `slow_p50` and `slow_p95` as soon as the stable
            has answered 500 requests, whose quantiles become the limits for good. The canary's
            first 100 requests, while it's cold, aren't among the latter two.
        """
        canary = policy.canary.name if policy.canary else None
        shadow = "-shadow" if policy.mirror_pct else ""
        of_canary = {f"{canary}-rest{shadow}", f"{canary}-grpc{shadow}"}
        of_stable = {f"{policy.stable.name}-rest", f"{policy.stable.name}-grpc"}
        # A line may come a second after its attempt, so that the log still has attempts under the
        # policy before; and who gets what by a header isn't drawn by lot.
        split = envoy_config.split_name(policy)
        attempts = self._log.read()
        drawn = [one for one in attempts if one.route == split]
        canary_attempts = [
            one for one in (attempts if shadow else drawn) if one.cluster in of_canary
        ]
        if not shadow:
            # Envoy writes an attempt before the one that rescues it, perhaps a look later.
            self._failed_ids |= dict.fromkeys(a.request_id for a in canary_attempts if a.is_bad)
        stable_attempts = []
        for attempt in drawn:
            if attempt.cluster in of_stable:
                if attempt.request_id in self._failed_ids:
                    del self._failed_ids[attempt.request_id]
                else:
                    stable_attempts.append(attempt)
        for request_id in list(self._failed_ids)[:-10_000]:
            del self._failed_ids[request_id]
        counts = {"error": _counts(canary_attempts, stable_attempts)}
        if self.slow_limits_us is None:
            self._learn_limits(stable_attempts)
        else:
            warm_attempts = canary_attempts[max(_N_COLD - self._n_canary, 0) :]
            for metric, limit_us in zip((SLOW_P50, SLOW_P95), self.slow_limits_us, strict=True):
                counts[metric] = _slow(warm_attempts, stable_attempts, limit_us)
        self._n_canary += len(canary_attempts)
        health = router.counts()
        names = of_canary if canary else of_stable
        return Look(
            seconds=seconds,
            weight_pct=policy.weight_pct,
            is_healthy=all(name in health and health[name].is_healthy for name in names),
            counts=counts,
        )

    def _learn_limits(self, stable_attempts: Iterable[Attempt]) -> None:
        self._stable_us += [a.duration_us for a in stable_attempts if a.duration_us is not None]
        if len(self._stable_us) >= _N_FOR_LIMITS:
            p50, p95 = np.quantile(self._stable_us, [0.5, 0.95])
            self.slow_limits_us = float(p50), float(p95)


def _attempt(line: str) -> Attempt:
    cluster, http_status, grpc_status, duration_us, request_id, route = line.split(" ")[:6]
    is_ok = http_status[:1] == "2" and grpc_status in (_GRPC_OK, _GRPC_NONE)
    return Attempt(
        cluster, not is_ok, int(duration_us) if duration_us.isdigit() else None, request_id, route
    )


def _counts(canary: list[Attempt], stable: list[Attempt]) -> Counts:
    return Counts(
        n_canary=len(canary),
        n_stable=len(stable),
        bad_canary=sum(one.is_bad for one in canary),
        bad_stable=sum(one.is_bad for one in stable),
    )


def _slow(canary: list[Attempt], stable: list[Attempt], limit_us: float) -> Counts:
    """Count slow answers among the answers; an attempt without one is an error."""
    canary_us = [one.duration_us for one in canary if one.duration_us is not None]
    stable_us = [one.duration_us for one in stable if one.duration_us is not None]
    return Counts(
        n_canary=len(canary_us),
        n_stable=len(stable_us),
        bad_canary=sum(us > limit_us for us in canary_us),
        bad_stable=sum(us > limit_us for us in stable_us),
    )
