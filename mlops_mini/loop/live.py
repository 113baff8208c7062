"""Live requests through the router, and a release that watches what becomes of them.

`release.run` looks every few seconds; here the time between two looks is that of the next requests,
so a release takes as long as they do.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from mlops_mini.loop import traffic
from mlops_mini.loop.gateway import Gateway
from mlops_mini.loop.traffic import Answer
from mlops_mini.loop.world import Request
from mlops_mini.monitoring.journal import Journal
from mlops_mini.rollout import pairs, release
from mlops_mini.rollout.attempts import AttemptLog
from mlops_mini.rollout.controller import Phase
from mlops_mini.rollout.guardrails import Counts
from mlops_mini.rollout.release import Release

_HALF = 0.5
_LOGGED_S = 10.0
_POLL_S = 0.005
LOST = "process-lost"  # a file that says why a release wasn't the canary's fault


class InterruptedReleaseError(Exception):
    """A release can't go on now: no request is left, or the stable's server has died."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What has become of the row of a request.

    Attributes:
        label: 0 or 1, or the number of a class; NaN if there's never one.
        known_s: When it's known, seconds since 1970 UTC.
    """

    label: float
    known_s: float


@dataclass(kw_only=True, slots=True)
class LiveRelease:
    """A release that's carried out on live requests.

    Attributes:
        folder: The release's.
        gateway: Who answers.
        model: Name of the model.
        stable: Number of the version that serves.
        canary: Number of the new one.
        journal: Leaves out what the canary answers as a shadow.
        requests: What is still to be asked; each look takes some away.
        outcomes: By the request's id.
        n_per_look: Requests between two looks.
        loses_canary: Whether the canary's process is to be killed in the ramp.
        answered: Ids of the requests that were answered.
    """

    folder: Path
    gateway: Gateway
    model: str
    stable: int
    canary: int
    journal: Journal
    requests: deque[Request]
    outcomes: Mapping[str, Outcome]
    n_per_look: int
    loses_canary: bool = False
    answered: set[str] = field(default_factory=set)
    _mirrored: set[str] = field(default_factory=set)
    _now_s: float = 0.0
    _waiting: list[tuple[Outcome, bool, Answer]] = field(default_factory=list)

    def run(self) -> Release:
        """Carry it out, as far as the requests last.

        Returns:
            The release at its end.

        Raises:
            InterruptedReleaseError: It isn't over. Run it again once there are requests, or the
                stable's server answers again.
        """
        router = self.gateway.router
        made = release.read(self.folder)
        phase = made.state.phase
        logs = self.gateway.log(self.stable), self.gateway.log(self.canary)
        pairing = pairs.LoggedPairs(*logs, is_new=True)
        attempts = AttemptLog(router.folder, router)

        def differences() -> dict[str, Counts]:
            return self._paired(pairing) if phase is Phase.SHADOW else {}

        def looked(seen: Release) -> None:
            nonlocal phase
            if phase is Phase.SHADOW and seen.state.phase is Phase.RAMP:
                self.journal.pass_over(self.gateway.log(self.canary))
            phase = seen.state.phase
            if phase is Phase.PAUSED:
                raise InterruptedReleaseError

        def ask_next(_look_s: float) -> None:
            if self.loses_canary and phase is Phase.RAMP:
                self.loses_canary = False
                (self.folder / LOST).touch()
                os.kill(self.gateway.pids[f"v{self.canary}"], signal.SIGKILL)
            self._ask_next(attempts, has_copies=phase is Phase.SHADOW)

        try:
            return release.run(
                self.folder,
                router,
                sources=[differences, self._labels],
                on_look=looked,
                sleep=ask_next,
                now=lambda: datetime.fromtimestamp(self._now_s, UTC),
            )
        finally:
            attempts.close()

    def _ask_next(self, attempts: AttemptLog, *, has_copies: bool) -> None:
        """Ask as much as makes a look, and return once the router has written it down."""
        if self.gateway.keep_router_running():
            (self.folder / LOST).touch()
        if not self.requests or not self.gateway.is_alive(self.stable):
            raise InterruptedReleaseError
        n = min(self.n_per_look, len(self.requests))
        asked = [self.requests.popleft() for _ in range(n)]
        self._now_s = asked[-1].due_s
        answers = traffic.ask(self.gateway.router.address, self.model, asked)
        self.answered |= {key for key, answer in answers.items() if answer.status == 200}
        by_version, copied = _answered_by(attempts, answers, has_copies=has_copies)
        self._mirrored |= copied
        if not self.gateway.is_alive(self.canary):  # the next look may take it back for that
            (self.folder / LOST).touch()
        for request_id, version in by_version.items():
            if request_id in self.outcomes and answers[request_id].status == 200:
                is_canary = version == f"v{self.canary}"
                outcome = self.outcomes[request_id]
                self._waiting.append((outcome, is_canary, answers[request_id]))

    def _paired(self, pairing: pairs.LoggedPairs) -> dict[str, Counts]:
        """Compare what both sides have answered until now, once it's in their logs.

        Else a shadow could be over before anybody has seen what it answers.
        """
        deadline = time.monotonic() + _LOGGED_S
        n = n_different = 0
        while True:
            counts = pairing()[pairs.METRIC]
            n, n_different = n + counts.n_canary, n_different + counts.bad_canary
            if pairing.n_pairs >= len(self._mirrored) or time.monotonic() > deadline:
                return {pairs.METRIC: Counts(n_canary=n, bad_canary=n_different)}
            time.sleep(_POLL_S)

    def _labels(self) -> dict[str, Counts]:
        """Count the labels that have come since the last look: a source of the release."""
        known = [each for each in self._waiting if each[0].known_s <= self._now_s]
        self._waiting = [each for each in self._waiting if each[0].known_s > self._now_s]
        labeled = [
            (is_canary, _class(answer) != outcome.label)
            for outcome, is_canary, answer in known
            if not np.isnan(outcome.label)
        ]
        wrong = {
            side: [is_wrong for is_canary, is_wrong in labeled if is_canary == side]
            for side in (True, False)
        }
        counts = Counts(
            n_canary=len(wrong[True]),
            n_stable=len(wrong[False]),
            bad_canary=sum(wrong[True]),
            bad_stable=sum(wrong[False]),
        )
        return {"wrong": counts}


def _answered_by(
    log: AttemptLog, answers: Mapping[str, Answer], *, has_copies: bool
) -> tuple[dict[str, str], set[str]]:
    """Wait until the router has written down what was answered.

    Returns:
        Who has answered, by the request's id, and the ids whose copy was answered too.
    """
    waiting, copies = set(answers), set(answers if has_copies else ())
    by_version, copied = dict[str, str](), set[str]()
    deadline = time.monotonic() + _LOGGED_S
    while (waiting or copies) and time.monotonic() < deadline:
        for attempt in log.read():
            key = attempt.request_id
            if attempt.cluster.endswith("-shadow"):
                copies.discard(key)
                if not attempt.is_bad and key in answers and answers[key].status == 200:
                    copied.add(key)
            elif key in waiting and attempt.is_bad == (answers[key].status != 200):
                waiting.discard(key)
                by_version[key] = attempt.cluster.removesuffix("-rest")
        time.sleep(_POLL_S)
    return by_version, copied


def _class(answer: Answer) -> float:
    """Read which class was predicted."""
    (scores,) = json.loads(answer.body)["outputs"]
    return float(np.argmax(scores)) if isinstance(scores, list) else float(scores >= _HALF)


def by_id(
    ids: Iterable[str], labels: Iterable[float], known_s: Iterable[float]
) -> dict[str, Outcome]:
    """Arrange outcomes by the request's id."""
    return {
        request_id: Outcome(label=label, known_s=at_s)
        for request_id, label, at_s in zip(ids, labels, known_s, strict=True)
    }
