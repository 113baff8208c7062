"""A release in a folder: its state survives whoever runs it, and each decision is written down.

The folder holds `release.json` and `looks.jsonl` (all that must be remembered), `decisions.jsonl`
(why each thing was done) and a lock, so that one controller runs at a time. Operators write
`order.json`, which the running controller takes at its next look.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import TypeAdapter

from mlops_mini.errors import (
    AlreadyExistsError,
    DataIntegrityError,
    FailedPreconditionError,
    InvalidArgumentError,
    MlopsMiniError,
    NotFoundError,
)
from mlops_mini.files import is_locked, locked, whole_file
from mlops_mini.rollout import attempts, controller, envoy, guardrails
from mlops_mini.rollout.controller import Phase, State, Strategy
from mlops_mini.rollout.guardrails import Counts, Evidence, Look
from mlops_mini.rollout.policy import Backend, TrafficPolicy

logger = logging.getLogger(__name__)

_FORMAT = 1
_STATE, _LOOKS, _DECISIONS = "release.json", "looks.jsonl", "decisions.jsonl"
_ORDER, _LOCK = "order.json", "lock"
_MAX_BLIND_LOOKS = 10

Verb = Literal["pause", "resume", "abort", "promote"]
Source = Callable[[], Mapping[str, Counts]]


class Router(Protocol):
    """Makes a policy hold: Envoy's router, or a cluster's."""

    def apply(self, policy: TrafficPolicy) -> None:
        """Say who gets what from now on."""
        ...


class Watcher(Protocol):
    """Sees what became of requests.

    Attributes:
        slow_limits_us: The stable's median and 95 % quantile; None until they are known.
    """

    slow_limits_us: tuple[float, float] | None

    def look(self, policy: TrafficPolicy, *, seconds: float) -> Look:
        """Count what has become known since the last look, of requests under this policy."""
        ...

    def close(self) -> None:
        """Watch no longer."""
        ...


def _now() -> datetime:
    return datetime.now().astimezone()


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """All that a controller has to remember.

    Attributes:
        model: Name of the model.
        stable: Who served before.
        canary: The new version.
        strategy: How it goes on.
        state: Where it is.
        slow_limits_us: Median and 95 % quantile of the stable's latency, as measured before the
            canary came, microseconds; None until they are.
        format_version: Of the file.
    """

    model: str
    stable: Backend
    canary: Backend
    strategy: Strategy
    state: State = field(default_factory=State)
    slow_limits_us: tuple[float, float] | None = None
    format_version: int = _FORMAT

    @property
    def policy(self) -> TrafficPolicy:
        """Who gets what."""
        return self.state.policy(
            self.strategy, model=self.model, stable=self.stable, canary=self.canary
        )

    def evidence(self) -> list[Evidence]:
        """Weigh what has been seen so far."""
        return guardrails.judge(
            self.state.looks, self.strategy.guardrails, alpha=self.strategy.alpha
        )


def start(folder: Path, release: Release, *, replaces: bool = False) -> None:
    """Write down a new release; `run` carries it out.

    Args:
        folder: Made if needed.
        release: The release, at its beginning.
        replaces: Whether a release that is under way is given up for it. Its canary gets no more
            requests before the new one gets any.

    Raises:
        AlreadyExistsError: One is under way, and this doesn't replace it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / _STATE).exists():
        old = read(folder)
        if not old.state.is_over and old.state.phase is not Phase.PROMOTED:
            if not replaces:
                raise AlreadyExistsError(
                    f"the release of {old.canary.name} is {old.state.phase} in {folder}: wait for "
                    "its end, abort it, or say that this one replaces it"
                )
            order(folder, "abort", f"{release.canary.name} replaces it")
    with locked(folder / _LOCK):  # a running controller ends with the old release
        for name in (_LOOKS, _DECISIONS, _ORDER):
            (folder / name).unlink(missing_ok=True)
        _write(folder, release)


def move(folder: Path, *, stable: Backend, canary: Backend) -> None:
    """Tell a release that the servers of its versions have been started anew, elsewhere.

    Args:
        folder: The release's folder; no controller runs.
        stable: Where the stable is now.
        canary: Where the canary is.
    """
    with locked(folder / _LOCK, if_taken="a controller runs: end it first"):
        _write(folder, replace(read(folder), stable=stable, canary=canary))


def read(folder: Path) -> Release:
    """Read a release.

    Raises:
        NotFoundError: There is none.
        DataIntegrityError: The file is damaged, or another version wrote it.
    """
    try:
        text = (folder / _STATE).read_text()
    except FileNotFoundError as exc:
        raise NotFoundError(f"no release in {folder}: start one there") from exc
    try:
        message = json.loads(text)
        if message.get("format_version") != _FORMAT:
            raise DataIntegrityError(
                f"{folder / _STATE} isn't of format {_FORMAT}: another version of mlops_mini wrote "
                "it; end the release with that one"
            )
        n_looks = message.pop("n_looks")
        lines = (folder / _LOOKS).read_text().splitlines() if n_looks else []
        message["state"]["looks"] = [json.loads(line) for line in lines[:n_looks]]
        return _ADAPTER.validate_python(message)
    except (ValueError, LookupError, AttributeError, OSError) as exc:
        raise DataIntegrityError(f"the release in {folder} is damaged: {exc}") from exc


def decisions(folder: Path) -> list[dict[str, Any]]:
    """List what was decided, with time, phases, reason and evidence, oldest first."""
    try:
        lines = (folder / _DECISIONS).read_text().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def order(folder: Path, verb: Verb, reason: str) -> None:
    """Tell a release to pause, to go on, to give up or to promote its canary at once.

    A running controller does it at its next look; if none runs, the state is changed here, and the
    traffic when one runs again.

    Args:
        folder: The release's folder.
        verb: What to do.
        reason: Why, for the log of decisions.

    Raises:
        NotFoundError: There is no release.
        FailedPreconditionError: It can't be done in this state.
    """
    release = read(folder)
    _obeyed(release.state, verb, reason)
    if is_locked(folder / _LOCK):
        with whole_file(folder / _ORDER) as unfinished:
            unfinished.write_text(json.dumps({"verb": verb, "reason": reason}))
        return
    with locked(folder / _LOCK, if_taken="a controller has just started: say it again"):
        _decide(folder, release, _obeyed(release.state, verb, reason), _now())


def run(
    folder: Path,
    router: Router,
    *,
    watcher: Watcher | None = None,
    look_s: float = 1.0,
    sources: Sequence[Source] = (),
    on_look: Callable[[Release], None] = lambda _release: None,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = _now,
) -> Release:
    """Carry a release out, or go on with it, until it is over.

    Args:
        folder: The release's folder.
        router: Told who gets what.
        watcher: What looks are made by; None for what Envoy's router logs. It's closed at the end.
        look_s: Seconds between looks, above 0.
        sources: Called at each look; what they return, such as labels that have arrived, is added
            to its counts by metric.
        on_look: Called after each look.
        sleep: Waits between looks.
        now: Time for the log of decisions.

    Returns:
        The release at its end: rolled back, aborted, or promoted and watched long enough.

    Raises:
        AlreadyExistsError: Another controller runs it.
        UnavailableError: The router is gone for good.
    """
    if look_s <= 0:
        raise InvalidArgumentError(f"look_s must be above 0, got {look_s:g}")
    taken = f"another controller runs the release in {folder}"
    with locked(folder / _LOCK, if_taken=taken):
        release = read(folder)
        if watcher is None:
            if not isinstance(router, envoy.Router):
                raise InvalidArgumentError("only Envoy's router has a log to watch: give a watcher")
            log = attempts.AttemptLog(router.folder, router)
            watcher = attempts.Watcher(log, slow_limits_us=release.slow_limits_us)
        with closing(watcher):
            running = _Running(
                folder=folder, router=router, sources=sources, on_look=on_look, now=now,
                sleep=sleep,
            )  # fmt: skip
            return running.to_the_end(release, watcher, look_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Running:
    """A release that is being carried out."""

    folder: Path
    router: Router
    sources: Sequence[Source]
    on_look: Callable[[Release], None]
    sleep: Callable[[float], None]
    now: Callable[[], datetime]

    def to_the_end(self, release: Release, watcher: Watcher, look_s: float) -> Release:
        applied: TrafficPolicy | None = None
        n_blind = 0
        while True:
            release = _ordered(self.folder, release, self.now())
            try:
                if release.policy != applied:
                    self.router.apply(release.policy)
                    applied = release.policy
                if _is_done(release):
                    return release
                self.sleep(look_s)
                look = watcher.look(applied, seconds=look_s)
                n_blind = 0
            except MlopsMiniError as exc:
                n_blind += 1
                release = self._blind(release, n_blind, exc)
                self.sleep(look_s)
                continue
            release = replace(release, slow_limits_us=watcher.slow_limits_us)
            release = self._looked(release, look)
            self.on_look(release)

    def _looked(self, release: Release, look: Look) -> Release:
        counts = {metric: c for source in self.sources for metric, c in source().items()}
        if release.state.phase is Phase.PROMOTED:  # nobody is left to compare its requests with
            look = replace(look, weight_pct=100.0, counts=counts)
        else:
            look = replace(look, counts={**look.counts, **counts})
        state = controller.step(release.state, look, release.strategy)
        if len(state.looks) > len(release.state.looks):
            _append(self.folder / _LOOKS, _LOOK_ADAPTER.dump_json(look).decode())
        return _decide(self.folder, release, state, self.now())

    def _blind(self, release: Release, n_blind: int, exc: MlopsMiniError) -> Release:
        """Pause a release of which nothing is seen; never promote it."""
        logger.warning("nothing seen: %s", exc)
        if n_blind < _MAX_BLIND_LOOKS:
            return release
        if _is_done(release):
            raise exc  # it's decided, and the router can't be told
        if release.state.phase is Phase.PAUSED:
            return release
        reason = f"nothing has been seen for {n_blind} looks: {exc}"
        return _decide(self.folder, release, controller.pause(release.state, reason), self.now())


def _is_done(release: Release) -> bool:
    state = release.state
    watched = state.n_phase_looks >= release.strategy.watch_looks
    return state.is_over or (state.phase is Phase.PROMOTED and watched)


def _ordered(folder: Path, release: Release, now: datetime) -> Release:
    """Do what an operator has said since the last look."""
    try:
        text = (folder / _ORDER).read_text()
    except FileNotFoundError:
        return release
    (folder / _ORDER).unlink()
    verb, reason = json.loads(text)["verb"], json.loads(text)["reason"]
    try:
        return _decide(folder, release, _obeyed(release.state, verb, reason), now)
    except FailedPreconditionError as exc:  # the release has moved on since it was said
        logger.warning("not done, %s (%s): %s", verb, reason, exc)
        return release


def _obeyed(state: State, verb: Verb, reason: str) -> State:
    return {
        "pause": controller.pause,
        "resume": controller.resume,
        "abort": controller.abort,
        "promote": controller.promote,
    }[verb](state, f"an operator: {reason}")


def _decide(folder: Path, release: Release, state: State, now: datetime) -> Release:
    """Write down the new state and, if something was decided, why."""
    old = release.state
    release = replace(release, state=state)
    if (old.phase, old.i_step, old.reason) != (state.phase, state.i_step, state.reason):
        decision = {
            "time": now.isoformat(timespec="milliseconds"),
            "phase": state.phase,
            "weight_pct": state.weight_pct(release.strategy),
            "n_looks": len(state.looks),
            "reason": state.reason,
            "evidence": [evidence.sentence() for evidence in release.evidence()],
        }
        _append(folder / _DECISIONS, json.dumps(decision))
        logger.info("%s at %g %%: %s", state.phase, decision["weight_pct"], state.reason)
    _write(folder, release)
    return release


def _write(folder: Path, release: Release) -> None:
    """Write all but the looks, which are appended to a file of their own."""
    message = _ADAPTER.dump_python(release, mode="json")
    message["n_looks"] = len(message["state"].pop("looks"))
    with whole_file(folder / _STATE) as unfinished:
        unfinished.write_text(json.dumps(message, indent=1))


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


_ADAPTER = TypeAdapter(Release)
_LOOK_ADAPTER = TypeAdapter(Look)
