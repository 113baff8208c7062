"""A degree of automation at work: in front of a model server, with a review queue beside it.

What happens when something is away:

- The model: people decide, without a hint.
- The queue: what needs a person, an audit included, is deferred: it isn't answered, and the caller
  asks again. What's automated without an audit is answered.
- The people: their items wait, up to `max_open` of them, after which more are deferred. Once an
  audit has waited for longer than `audits_overdue_s`, nothing is automated until it's done, since
  nobody would see a broken promise.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from mlops_mini import files
from mlops_mini.automation import levels
from mlops_mini.automation.audits import Alarm, AuditMonitor
from mlops_mini.automation.levels import Evidence, Level
from mlops_mini.automation.policy import AutomationPolicy, Route
from mlops_mini.client import Client
from mlops_mini.errors import (
    DataIntegrityError,
    DeadlineExceededError,
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from mlops_mini.review.queue import Item, Kind, ReviewQueue
from mlops_mini.triggers import reasons
from mlops_mini.triggers.reasons import Firing

logger = logging.getLogger(__name__)

_POLICY = TypeAdapter(AutomationPolicy)
_AWAY = (UnavailableError, DeadlineExceededError, NotFoundError, ResourceExhaustedError)
_KINDS: dict[Route, Kind] = {
    Route.AUTO: "audit",
    Route.HUMAN: "human",
    Route.HINT: "hint",
    Route.SHADOW: "shadow",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Something to be decided.

    Attributes:
        id: Unique; asked again under the same id, it isn't queued twice.
        inputs: One value per input of the model, without the batch's axis.
        text: What a person is shown in words.
        image: What a person is shown as a picture: the bytes of a PNG file.
    """

    id: str
    inputs: Mapping[str, Any]
    text: str = ""
    image: bytes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What became of a case.

    Attributes:
        id: The case.
        route: Who decides it.
        answer: The model's, if it decides; empty otherwise.
        is_audited: Whether a person checks it.
        reason: Why it wasn't automated, if the degree of automation would allow it.
    """

    id: str
    route: Route
    answer: str = ""
    is_audited: bool = False
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """What the model says about some cases, and which version of it; or what's the problem."""

    answers: Sequence[str]
    scores: npt.NDArray[np.float64]
    version: int | None
    problem: str = ""


class Dispatcher:
    """Decides cases by a policy that's kept in a file, and steps down by itself."""

    def __init__(
        self,
        client: Client,
        queue: ReviewQueue,
        policy_file: Path,
        *,
        output: str,
        on_alarm: Callable[[Firing], object] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        max_open: int = 10_000,
        audits_overdue_s: float = 86_400.0,
        timeout_s: float = 1.0,
    ) -> None:
        """Stand in front of a model server.

        Args:
            client: Of the model server, REST or gRPC.
            queue: For the cases of people; its categories are the model's, in its order.
            policy_file: JSON, as `save` writes it; people alone decide while there's none.
            output: The model's output with one probability per category.
            on_alarm: Told when audits show that a promise is broken, as a reason to retrain: a
                ledger's `fire` fits. It's told once, or twice under the same key if the process is
                killed meanwhile.
            now: The clock.
            max_open: The most items that may wait for people.
            audits_overdue_s: Seconds after which an audit has waited for too long.
            timeout_s: Seconds to wait for the model.

        Raises:
            DataIntegrityError: The file holds something else.
        """
        self._client, self._queue, self._file = client, queue, policy_file
        self._output, self._on_alarm, self._now = output, on_alarm, now
        self._max_open, self._audits_overdue_s = max_open, audits_overdue_s
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self.policy = load(policy_file)
        self._seen = 0  # the last outcome that was taken into account
        self._monitor = self._begin_to_watch()

    def set_policy(self, policy: AutomationPolicy) -> None:
        """Change the policy from now on; audits of other certificates no longer count.

        Raises:
            UnavailableError: The queue is away.
        """
        with self._lock:
            if policy.certificates != self.policy.certificates:
                seqs = [outcome.seq for outcome in self._queue.outcomes()]
                policy = replace(policy, audits_after=max(seqs, default=0))
            save(policy, self._file)
            self.policy = policy
            self._monitor = self._begin_to_watch()

    def decide(self, cases: Sequence[Case]) -> list[Decision]:
        """Decide cases, or hand them to people.

        Raises:
            MlopsMiniError: What the server says to inputs that it refuses.
        """
        if not cases:
            return []
        policy = self.policy
        asked = self._ask(cases, policy)
        routing = policy.route(
            asked.scores,
            [case.id for case in cases],
            answers=asked.answers,
            model_version=asked.version,
            at=self._now(),
        )
        routes, reason = routing.routes, asked.problem or routing.reason
        if asked.problem:
            routes = (Route.HUMAN,) * len(cases)
        is_audited, n_free, problem = routing.is_audited, 0, ""
        try:
            n_free = self._max_open - self._queue.n_open()
            overdue_s = self._queue.oldest_audit_s()
            if overdue_s > self._audits_overdue_s:
                reason = f"an audit has waited for {overdue_s / 3600:.1f} hours: nobody is watching"
                routes = tuple(Route(policy.rest) if r is Route.AUTO else r for r in routes)
                is_audited = np.zeros(len(cases), np.bool_)
            is_queued = [r is not Route.AUTO for r in routes] | is_audited
            items = [
                _item(case, routes[n], asked, n) for n, case in enumerate(cases) if is_queued[n]
            ]
            if len(items) > n_free:
                problem = f"the queue has room for {max(n_free, 0)} more: ask again later"
            elif items:
                self._queue.add(items)
        except UnavailableError as exc:
            logger.warning("the queue is away: %s", exc)
            is_queued = [r is not Route.AUTO for r in routes] | is_audited
            problem = f"the queue is away: {exc}"
        return [
            Decision(id=case.id, route=Route.DEFERRED, reason=problem)
            if problem and queued
            else Decision(
                id=case.id,
                route=route,
                answer=answer if route is Route.AUTO else "",
                is_audited=bool(audited),
                reason="" if route is Route.AUTO else reason,
            )
            for case, route, answer, audited, queued in zip(
                cases, routes, asked.answers, is_audited, is_queued, strict=True
            )
        ]

    def watch(self) -> Alarm | None:
        """Look at the new audits; too many errors take the degree of automation a step down.

        The certificate is withdrawn with it: up again it goes only with a new one.

        Returns:
            The alarm, if there was one.

        Raises:
            UnavailableError: The queue is away.
        """
        with self._lock:
            if self._monitor is None:
                return None
            for outcome in self._queue.outcomes(after=self._seen):
                self._seen = outcome.seq
                made = self.policy.certificate_for(outcome.answer)
                if (
                    outcome.kind == "audit"
                    and outcome.label
                    and outcome.score is not None
                    and made is not None
                    and outcome.model_version == made.scope.model_version
                    and made.automates(outcome.score)
                ):
                    self._monitor.update([outcome.label != outcome.answer])
            alarm = self._monitor.alarm
        if alarm is None:
            return None
        if self._on_alarm is not None:
            scope = next(iter(self.policy.certificates.values())).scope
            self._on_alarm(
                reasons.promise_broken(
                    version=scope.model_version,
                    max_error=alarm.max_error,
                    n_audits=alarm.n_audits,
                    errors=alarm.errors,
                )
            )
        self.step_down(alarm.sentence())
        return alarm

    def step_down(self, reason: str) -> Level:
        """Take the degree of automation a step down, for an alarm of any kind, such as drift.

        Returns:
            The degree from now on. Certificates are withdrawn.
        """
        move = levels.next_level(self.policy.level, Evidence(alarms=(reason,)))
        logger.info("stepped down: level=%s reason=%s", move.level, reason)
        self.set_policy(replace(self.policy, level=move.level, certificates={}))
        return move.level

    def _begin_to_watch(self) -> AuditMonitor | None:
        """Watch the promise anew, from all audits of these certificates that the queue knows."""
        promise, self._seen = self.policy.promise, self.policy.audits_after
        if promise is None:
            return None
        return AuditMonitor(max_error=promise.max_error, confidence=promise.confidence)

    def _ask(self, cases: Sequence[Case], policy: AutomationPolicy) -> _Asked:
        """Ask the model, unless nobody wants to know."""
        if policy.level is Level.HUMAN:
            return _nothing(len(cases))
        inputs = {name: np.stack([case.inputs[name] for case in cases]) for name in cases[0].inputs}
        try:
            prediction = self._client.predict(inputs, timeout_s=self._timeout_s)
        except _AWAY as exc:
            logger.warning("the model is away: %s", exc)
            return _nothing(len(cases), problem=f"the model is away: {exc}")
        given = np.asarray(prediction.get(self._output, ()), np.float64)
        if given.shape != (len(cases), len(self._queue.categories)):
            raise FailedPreconditionError(
                f"the model answers {sorted(prediction)}, {self._output!r} of shape"
                f" {list(given.shape)}: expected {len(cases)} items with a probability for each of"
                f" {len(self._queue.categories)} categories"
            )
        scores = given.max(axis=1)
        answers = [
            "" if np.isnan(score) else self._queue.categories[place]
            for score, place in zip(scores, given.argmax(axis=1), strict=True)
        ]
        return _Asked(answers=answers, scores=scores, version=prediction.version)


def save(policy: AutomationPolicy, file: Path) -> None:
    """Write a policy as JSON, whole or not at all."""
    with files.whole_file(file) as unfinished:
        unfinished.write_bytes(_POLICY.dump_json(policy, indent=2))


def load(file: Path) -> AutomationPolicy:
    """Read a policy; without a file, people alone decide.

    Raises:
        DataIntegrityError: The file holds something else.
    """
    try:
        return _POLICY.validate_json(file.read_bytes())
    except FileNotFoundError:
        return AutomationPolicy(level=Level.HUMAN)
    except ValidationError as exc:
        raise DataIntegrityError(
            f"{file} holds no policy ({exc.error_count()} errors): remove it, and people decide"
        ) from exc


def _nothing(n: int, *, problem: str = "") -> _Asked:
    return _Asked(answers=[""] * n, scores=np.full(n, np.nan), version=None, problem=problem)


def _item(case: Case, route: Route, asked: _Asked, place: int) -> Item:
    answer = asked.answers[place]
    return Item(
        id=case.id,
        kind=_KINDS[route] if answer else "human",
        text=case.text,
        image=case.image,
        answer=answer,
        score=float(asked.scores[place]) if answer else None,
        model_version=asked.version,
    )
