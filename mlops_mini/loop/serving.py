"""Serves a period's requests, each once, with a release under way or not."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pandas as pd

from mlops_mini.errors import DeadlineExceededError
from mlops_mini.lineage import releases
from mlops_mini.loop import live, plan, state, traffic
from mlops_mini.loop.live import InterruptedReleaseError, LiveRelease
from mlops_mini.loop.production import Production
from mlops_mini.loop.state import State
from mlops_mini.loop.world import Request
from mlops_mini.model import champions
from mlops_mini.rollout import release
from mlops_mini.rollout.controller import Phase
from mlops_mini.rollout.release import Release

_MAX_ATTEMPTS = 3
_MAX_ROUNDS = 20
_LOGGED_S = 5.0
_POLL_S = 0.02
_N_CHUNK = 2_000


def begin_release(of: Production, known: State) -> State:
    """Begin to release the champion, unless it serves already."""
    version, stable = champions.champion(of.models), known.stable
    if known.releasing is not None or version is None or stable is None or version == stable:
        return known
    if not of.gateway.has_router:
        of.gateway.stop(stable)
        return replace(
            known.noted("promoted", "it serves at once", version=version), stable=version
        )
    known = replace(known, releasing=version, attempt=1)
    _start(of, known)
    words = "mirrored first, then 10, 50 and 100 % of the requests"
    return known.noted("releasing", words, version=version)


def serve(of: Production, known: State, *, until: datetime) -> State:
    """Have all requests answered that are due until then, each once.

    Raises:
        DeadlineExceededError: Some aren't after 20 rounds.
    """
    period = of.period(known)
    requests = [each for each in of.world.requests(period) if each.due_s < until.timestamp()]
    waiting = _unanswered(of, known, requests, answered=set())
    for _ in range(_MAX_ROUNDS):
        if not waiting:
            return known
        if known.releasing is None:
            answered = _ask(of, known, waiting)
        else:
            known, answered = _ask_in_release(of, known, waiting)
        waiting = _unanswered(of, known, requests, answered=answered)
    raise DeadlineExceededError(
        f"{len(waiting)} of {len(requests)} requests of {period} aren't answered after"
        f" {_MAX_ROUNDS} rounds: the servers' logs in {of.workspace / 'servers'} say why"
    )


def _unanswered(
    of: Production, known: State, requests: Sequence[Request], *, answered: set[str]
) -> list[Request]:
    """List the requests whose answers aren't in a log.

    A log has what was answered a moment later; an answer that a killed server hasn't written down
    is asked for again.
    """
    deadline = time.monotonic() + _LOGGED_S
    while True:
        # Lowest version first: a shadow's answers come too late to count.
        files = (of.workspace / "logs").glob("v*-*.tfrecord*")
        for version in sorted({int(file.name[1:].partition("-")[0]) for file in files}):
            of.journal.read_log(of.gateway.log(version))
        logged = of.journal.request_ids(of.period(known))
        if answered <= logged or time.monotonic() > deadline:
            return [each for each in requests if each.id not in logged]
        time.sleep(_POLL_S)


def _ask(of: Production, known: State, waiting: Sequence[Request]) -> set[str]:
    """Ask without a release; what has died is started anew first."""
    answered: set[str] = set()
    for start in range(0, len(waiting), _N_CHUNK):
        address = of.gateway.serve(_stable(known))
        answers = traffic.ask(address, of.case.name, waiting[start : start + _N_CHUNK])
        answered |= {key for key, answer in answers.items() if answer.status == 200}
    return answered


def _ask_in_release(
    of: Production, known: State, waiting: Sequence[Request]
) -> tuple[State, set[str]]:
    """Ask as many as it takes until the release is over, or all."""
    folder, version, stable = _folder(of, known), _canary(known), _stable(known)
    of.gateway.serve(stable)
    made = release.read(folder)
    canary = made.canary if made.state.is_over else of.gateway.start(version)
    release.move(folder, stable=of.gateway.start(stable), canary=canary)
    period = of.period(known)
    outcomes = pd.concat([of.world.outcomes(each) for each in (period.previous(), period)])
    going_on = LiveRelease(
        folder=folder,
        gateway=of.gateway,
        model=of.case.name,
        stable=stable,
        canary=version,
        journal=of.journal,
        requests=deque(waiting),
        outcomes=live.by_id(outcomes["request_id"], outcomes["label"], outcomes["known_s"]),
        n_per_look=plan.n_per_look(of.n_requests(period)),
        loses_canary=_loses_canary(known),
    )
    try:
        known = _conclude(of, known, going_on.run())
    except InterruptedReleaseError:
        paused = release.read(folder)
        if paused.state.phase is Phase.PAUSED:
            release.order(folder, "abort", f"undecided: {paused.state.reason}")
            known = _conclude(of, known, release.read(folder))
    return known, going_on.answered


def _conclude(of: Production, known: State, ended: Release) -> State:
    """Let the canary be the stable, or take it back; one that was lost is tried again."""
    folder, version, stable = _folder(of, known), _canary(known), _stable(known)
    reason = ended.state.reason
    releases.note(folder)
    if ended.state.phase is Phase.PROMOTED:
        known = known.noted("promoted", reason, version=version)
        known = replace(known, stable=version, releasing=None)
        of.gateway.serve(version)
        of.gateway.stop(stable)
    elif (folder / live.LOST).exists() and known.attempt < _MAX_ATTEMPTS:
        of.gateway.stop(version)
        text = f"a process has died, and the release took the canary back ({reason}); once more"
        known = known.noted("canary lost", text, version=version)
        known = replace(known, attempt=known.attempt + 1)
        _start(of, known)
    else:
        champions.roll_back(of.models, version, by="the release", reason=reason)
        known = replace(known.noted("rolled back", reason, version=version), releasing=None)
        of.gateway.stop(version)
    state.write(of.workspace, known)
    return known


def _start(of: Production, known: State) -> None:
    """Start the canary's server, and write the release down unless it is."""
    folder = _folder(of, known)
    if not (folder / "release.json").exists():
        made = Release(
            model=of.case.name,
            stable=of.gateway.start(_stable(known)),
            canary=of.gateway.start(_canary(known)),
            strategy=plan.strategy(of.n_requests(of.period(known))),
        )
        release.start(folder, made)
    releases.begin(folder, of.workspace, _canary(known))


def _folder(of: Production, known: State) -> Path:
    return of.workspace / "releases" / f"v{known.releasing}-{known.attempt}"


def _loses_canary(known: State) -> bool:
    """Tell whether the canary's process is to be killed in this release."""
    planned = [p for p, what in (known.plan.incidents or {}).items() if what == "lost canary"]
    return bool(planned) and known.period >= min(planned) and not known.count("canary lost")


def _stable(known: State) -> int:
    assert known.stable is not None  # noqa: S101 - the first step has seen to it
    return known.stable


def _canary(known: State) -> int:
    assert known.releasing is not None  # noqa: S101 - asked in a release alone
    return known.releasing
