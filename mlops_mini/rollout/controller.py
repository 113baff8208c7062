"""Decides how far a new version is exposed: a state machine that a look moves on.

`step` is a pure function of a release's state and what was just seen. It knows servers, weights and
looks, and not what the model predicts. Blue-green and A/B are the same machine with other steps.

    PENDING -> SHADOW -> RAMP -> PROMOTED
    any of them -> PAUSED (and on again), ROLLED_BACK or ABORTED
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError
from mlops_mini.rollout import guardrails
from mlops_mini.rollout.guardrails import Evidence, Guardrail, Look
from mlops_mini.rollout.policy import Backend, TrafficPolicy

_CALM_LOG_E = 0.5  # the next step waits while there is some evidence against the canary
_SILENT_LOOKS = 3
_EXPECTED_REQUESTS = 5  # of a look in which no answer at all means something


class Phase(StrEnum):
    """Where a release is."""

    PENDING = "PENDING"
    SHADOW = "SHADOW"
    RAMP = "RAMP"
    PROMOTED = "PROMOTED"
    ROLLED_BACK = "ROLLED_BACK"
    PAUSED = "PAUSED"
    ABORTED = "ABORTED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    """How a release goes on while nothing speaks against it.

    Attributes:
        steps_pct: The canary's share of the requests in each step, percent, rising. `(100,)` is
            blue-green; a single share below 100 is an A/B test.
        mirror_pct: Share of the requests that is mirrored before the first step; 0 for no shadow.
        shadow_requests: Mirrored requests after which the shadow is over.
        step_requests: Requests that the canary must have answered in the first step; in the second
            twice as many, and so on: each is larger, and should take about as long.
        guardrails: What the canary must not be worse in.
        alpha: Chance that a canary that's no worse is ever rolled back, between 0 and 1.
        beta: Chance that one is promoted that is `margin` times as bad, between 0 and 1.
        promote_from_pct: Share of the requests at which a promotion may be proven, percent.
        max_looks: Looks in a phase or step after which the release pauses, undecided.
        watch_looks: Looks after the promotion during which late labels may still take it back.
        sticky_header: Names a user, who always gets the same version.
    """

    steps_pct: tuple[float, ...] = (1, 5, 25, 50)
    mirror_pct: float = 0
    shadow_requests: int = 500
    step_requests: int = 200
    guardrails: tuple[Guardrail, ...] = (guardrails.ERRORS,)
    alpha: float = 0.05
    beta: float = 0.05
    promote_from_pct: float = 50
    max_looks: int = 400
    watch_looks: int = 100
    sticky_header: str | None = None

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in pairwise((0, *self.steps_pct)))
        if not self.steps_pct or not rising or self.steps_pct[-1] > 100:
            raise InvalidArgumentError(
                f"steps_pct must rise from above 0 to at most 100, got {self.steps_pct}"
            )
        for name in ("shadow_requests", "step_requests", "max_looks"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("alpha", "beta"):
            if not 0 < getattr(self, name) < 1:
                raise InvalidArgumentError(
                    f"{name} must be between 0 and 1, got {getattr(self, name)}"
                )
        if not self.guardrails:
            raise InvalidArgumentError("a release needs a guardrail: without one nothing stops it")


BLUE_GREEN = Strategy(steps_pct=(100,), mirror_pct=100)


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """Where a release is and what has been seen; all that a controller has to remember.

    Attributes:
        phase: Where it is.
        i_step: Index of the step, from 0, in `RAMP`; of the last one after it.
        n_phase_looks: Looks since the phase or step began.
        n_step_requests: Requests that the canary answered since then.
        n_silent: Looks in a row in which it should have answered and didn't.
        looks: All looks since the canary was there.
        reason: Why it is there.
        paused_phase: Where it goes on after a pause.
    """

    phase: Phase = Phase.PENDING
    i_step: int = 0
    n_phase_looks: int = 0
    n_step_requests: int = 0
    n_silent: int = 0
    looks: tuple[Look, ...] = ()
    reason: str = "the canary has not answered yet"
    paused_phase: Phase | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.phase in (Phase.ROLLED_BACK, Phase.ABORTED)

    def weight_pct(self, strategy: Strategy) -> float:
        """Tell the canary's share of the requests, percent."""
        phase = self.paused_phase if self.phase is Phase.PAUSED else self.phase
        if phase is Phase.RAMP:
            return strategy.steps_pct[self.i_step]
        return 100.0 if phase is Phase.PROMOTED else 0.0

    def policy(
        self, strategy: Strategy, *, model: str, stable: Backend, canary: Backend
    ) -> TrafficPolicy:
        """Make the traffic policy of this state.

        Args:
            strategy: How the release goes on.
            model: Name of the model.
            stable: Who served before.
            canary: The new version, which serves alone once it is promoted.
        """
        phase = self.paused_phase if self.phase is Phase.PAUSED else self.phase
        if phase is Phase.PROMOTED:
            return TrafficPolicy(model=model, stable=canary, sticky_header=strategy.sticky_header)
        is_there = phase in (Phase.PENDING, Phase.SHADOW, Phase.RAMP)
        return TrafficPolicy(
            model=model,
            stable=stable,
            canary=canary if is_there else None,
            weight_pct=self.weight_pct(strategy),
            mirror_pct=strategy.mirror_pct if phase is Phase.SHADOW else 0,
            sticky_header=strategy.sticky_header,
        )


def step(state: State, look: Look, strategy: Strategy) -> State:
    """Move a release on by what was just seen.

    Args:
        state: Where it is.
        look: What was seen since the last one.
        strategy: How it goes on.

    Returns:
        Where it is now; its `reason` says why.

    >>> from mlops_mini.rollout.guardrails import Counts
    >>> strategy = Strategy(steps_pct=(10, 50), step_requests=50)
    >>> here = Look(seconds=1, weight_pct=0)
    >>> state = step(State(), here, strategy)
    >>> state.phase, state.weight_pct(strategy)
    (<Phase.RAMP: 'RAMP'>, 10)
    >>> errors = Counts(n_canary=30, n_stable=270, bad_canary=9)
    >>> look = Look(seconds=1, weight_pct=10, counts={"error": errors})
    >>> step(step(state, look, strategy), look, strategy).phase
    <Phase.ROLLED_BACK: 'ROLLED_BACK'>
    """
    if state.is_over or state.phase is Phase.PAUSED:
        return state
    if state.phase is Phase.PENDING:
        return _pending(state, look, strategy)
    counts = look.counts.get("error")
    state = replace(
        state,
        looks=(*state.looks, look),
        n_phase_looks=state.n_phase_looks + 1,
        n_step_requests=state.n_step_requests + (counts.n_canary if counts else 0),
        n_silent=state.n_silent + 1 if _is_silent(look) else 0,
    )
    evidence = guardrails.judge(state.looks, strategy.guardrails, alpha=strategy.alpha)
    worst = max(evidence, key=lambda one: one.log_e - one.limit)
    if worst.is_alarm:
        return _moved(state, Phase.ROLLED_BACK, worst.sentence())
    if state.phase is Phase.PROMOTED and look.is_healthy:
        return state
    return (
        _stopped(state, look)
        or _forward(state, evidence, strategy)
        or _waited(state, worst, strategy)
    )


def pause(state: State, reason: str) -> State:
    """Stop where it is; the weight stays.

    Raises:
        FailedPreconditionError: It is over, or paused already.
    """
    _check_running(state)
    return _pause(state, reason)


def resume(state: State, reason: str) -> State:
    """Go on after a pause, with a fresh count of looks.

    Raises:
        FailedPreconditionError: It isn't paused.
    """
    if state.phase is not Phase.PAUSED or state.paused_phase is None:
        raise FailedPreconditionError(f"the release isn't paused, it is {state.phase}")
    return replace(state, phase=state.paused_phase, paused_phase=None, n_phase_looks=0,
                   n_silent=0, reason=reason)  # fmt: skip


def abort(state: State, reason: str) -> State:
    """Give all traffic back to the stable.

    Raises:
        FailedPreconditionError: It is over already.
    """
    if state.is_over:
        raise FailedPreconditionError(f"the release is over: {state.phase}, {state.reason}")
    return _moved(state, Phase.ABORTED, reason)


def promote(state: State, reason: str) -> State:
    """Promote the canary, whatever the evidence says.

    Raises:
        FailedPreconditionError: It is over, or promoted already.
    """
    if state.is_over or state.phase is Phase.PROMOTED:
        raise FailedPreconditionError(f"there is nothing to promote: {state.phase}, {state.reason}")
    return _moved(state, Phase.PROMOTED, reason)


def _pending(state: State, look: Look, strategy: Strategy) -> State:
    if not look.is_healthy:
        n_looks = state.n_phase_looks + 1
        if n_looks >= strategy.max_looks:
            return _pause(state, f"the canary has not answered in {n_looks} looks")
        return replace(state, n_phase_looks=n_looks)
    if strategy.mirror_pct:
        return _moved(state, Phase.SHADOW, f"the canary answers: mirroring "
                      f"{strategy.mirror_pct:g} % of the requests")  # fmt: skip
    return _moved(state, Phase.RAMP, f"the canary answers: it gets {strategy.steps_pct[0]:g} %")


def _forward(state: State, evidence: Sequence[Evidence], strategy: Strategy) -> State | None:
    """Move on if enough has been seen and nothing speaks against it."""
    if max(one.log_e for one in evidence) >= _CALM_LOG_E:
        return None
    if state.phase is Phase.SHADOW:
        if state.n_step_requests < strategy.shadow_requests:
            return None
        weight_pct = strategy.steps_pct[0]
        return _moved(
            state,
            Phase.RAMP,
            f"{state.n_step_requests:,} mirrored requests, no evidence against the canary: it "
            f"gets {weight_pct:g} %",
        )
    if state.n_step_requests < strategy.step_requests * (1 + state.i_step):
        return None
    seen = f"{state.n_step_requests:,} canary requests, no evidence against it"
    if state.i_step + 1 < len(strategy.steps_pct):
        weight_pct = strategy.steps_pct[state.i_step + 1]
        return replace(
            _moved(state, Phase.RAMP, f"{seen}: it gets {weight_pct:g} %"), i_step=state.i_step + 1
        )
    if strategy.steps_pct[state.i_step] == 100:  # there is nobody left to compare it with
        return _moved(state, Phase.PROMOTED, f"{seen}: promoted")
    limit = guardrails.promotion_limit(strategy.beta)
    asked = [one for one in evidence if one.log_e_promotion is not None]
    if asked and all(one.log_e_promotion >= limit for one in asked):  # type: ignore[operator]
        return _moved(state, Phase.PROMOTED, f"{seen}, and it's shown to be no worse: promoted")
    return None


def _stopped(state: State, look: Look) -> State | None:
    """Stop it for what needs no statistics, or makes them worthless."""
    if not look.is_healthy:
        return _moved(state, Phase.ROLLED_BACK, "the canary fails its health checks")
    if state.n_silent >= _SILENT_LOOKS:
        return _moved(
            state, Phase.ROLLED_BACK, f"the canary answered nothing in {_SILENT_LOOKS} looks"
        )
    # Of a canary that has gone silent the share is off too, and that explains it.
    split = [look for look in state.looks if look.weight_pct]
    if not state.n_silent and guardrails.split_is_off(split):
        return _pause(
            state,
            f"the canary gets another share of the requests than {look.weight_pct:g} %: until that "
            "is explained, no comparison can be trusted",
        )
    return None


def _waited(state: State, worst: Evidence, strategy: Strategy) -> State:
    """Pause it if it has gone nowhere for too long."""
    if state.n_phase_looks < strategy.max_looks:
        return state
    return _pause(
        state,
        f"undecided after {state.n_phase_looks} looks and {state.n_step_requests:,} canary "
        f"requests: {worst.sentence()}",
    )


def _is_silent(look: Look) -> bool:
    """Tell whether the canary should have answered something and didn't."""
    counts = look.counts.get("error")
    if not look.weight_pct or counts is None:
        return False
    expected = look.weight_pct / 100 * (counts.n_canary + counts.n_stable)
    return counts.n_canary == counts.bad_canary and expected >= _EXPECTED_REQUESTS


def _moved(state: State, phase: Phase, reason: str) -> State:
    return replace(
        state, phase=phase, paused_phase=None, n_phase_looks=0, n_step_requests=0, n_silent=0,
        reason=reason,
    )  # fmt: skip


def _pause(state: State, reason: str) -> State:
    return replace(state, phase=Phase.PAUSED, paused_phase=state.phase, reason=reason)


def _check_running(state: State) -> None:
    if state.is_over or state.phase is Phase.PAUSED:
        raise FailedPreconditionError(f"the release is {state.phase}: {state.reason}")
