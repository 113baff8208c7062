from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError
from mlops_mini.rollout import controller
from mlops_mini.rollout.controller import BLUE_GREEN, Phase, State, Strategy
from mlops_mini.rollout.guardrails import ERRORS, Counts, Guardrail, Look
from mlops_mini.rollout.policy import Backend

V1 = Backend(name="v1", rest="127.0.0.1:8501", grpc="127.0.0.1:8500")
V2 = Backend(name="v2", rest="127.0.0.1:8601", grpc="127.0.0.1:8600")
QUICK = Strategy(steps_pct=(10, 50), step_requests=50)


def _look(weight_pct: float, *, bad_canary: float = 0.01, n: int = 500, **changes: object) -> Look:
    n_canary = round(n * weight_pct / 100)
    counts = Counts(
        n_canary=n_canary,
        n_stable=n - n_canary,
        bad_canary=round(n_canary * bad_canary),
        bad_stable=round((n - n_canary) * 0.01),
    )
    return replace(Look(seconds=1, weight_pct=weight_pct, counts={"error": counts}), **changes)  # type: ignore[arg-type]


def _play(
    strategy: Strategy, make_look: Callable[[State], Look], *, n_looks: int = 1000
) -> list[State]:
    """Play looks from the start, until the release is promoted or over; one state per change."""
    states = [State()]
    for _ in range(n_looks):
        state = controller.step(states[-1], make_look(states[-1]), strategy)
        if (state.phase, state.i_step) != (states[-1].phase, states[-1].i_step):
            states.append(state)
        else:
            states[-1] = state
        if state.is_over or state.phase in (Phase.PROMOTED, Phase.PAUSED):
            break
    return states


def _in_ramp(strategy: Strategy = QUICK) -> State:
    return controller.step(State(), Look(seconds=1, weight_pct=0), strategy)


def test_a_healthy_canary_goes_all_the_way() -> None:
    strategy = Strategy(mirror_pct=100, shadow_requests=100)

    def look(state: State) -> Look:
        if state.phase is Phase.SHADOW:
            counts = Counts(n_canary=50, n_stable=50)
            return Look(seconds=1, weight_pct=0, counts={"error": counts})
        return _look(state.weight_pct(strategy))

    states = _play(strategy, look)

    assert [(state.phase, state.weight_pct(strategy)) for state in states] == [
        (Phase.PENDING, 0),
        (Phase.SHADOW, 0),
        (Phase.RAMP, 1),
        (Phase.RAMP, 5),
        (Phase.RAMP, 25),
        (Phase.RAMP, 50),
        (Phase.PROMOTED, 100),
    ]


def test_a_broken_canary_goes_back_to_nothing_at_once() -> None:
    states = _play(QUICK, lambda state: _look(state.weight_pct(QUICK), bad_canary=0.2))

    assert states[-1].phase is Phase.ROLLED_BACK
    assert states[-1].weight_pct(QUICK) == 0
    assert "errors" in states[-1].reason


def test_a_canary_a_little_worse_than_the_margin_is_not_promoted() -> None:
    rng = np.random.default_rng(4)

    def look(state: State) -> Look:
        look = _look(state.weight_pct(QUICK), bad_canary=0)
        counts = look.counts["error"]
        return replace(
            look,
            counts={
                "error": replace(
                    counts,
                    bad_canary=rng.binomial(counts.n_canary, 0.02),
                    bad_stable=rng.binomial(counts.n_stable, 0.01),
                )
            },
        )

    ends = [_play(QUICK, look)[-1].phase for _ in range(20)]

    assert ends.count(Phase.PROMOTED) <= 3  # beta is 5 %, and most are rolled back
    assert ends.count(Phase.ROLLED_BACK) >= 15


def test_a_canary_that_fails_its_health_checks_is_rolled_back() -> None:
    state = controller.step(_in_ramp(), _look(10, is_healthy=False), QUICK)

    assert (state.phase, state.reason) == (
        Phase.ROLLED_BACK,
        "the canary fails its health checks",
    )


def test_a_canary_that_answers_nothing_is_rolled_back_after_three_looks() -> None:
    nothing = Look(seconds=1, weight_pct=10, counts={"error": Counts(n_stable=100)})
    states = [_in_ramp()]
    for _ in range(3):
        states.append(controller.step(states[-1], nothing, QUICK))

    assert [state.phase for state in states[1:]] == [Phase.RAMP, Phase.RAMP, Phase.ROLLED_BACK]
    assert "answered nothing" in states[-1].reason


def test_without_traffic_it_waits_and_then_pauses_and_is_never_promoted() -> None:
    states = _play(QUICK, lambda _: Look(seconds=1, weight_pct=10))

    assert states[-1].phase is Phase.PAUSED
    assert states[-1].weight_pct(QUICK) == 10
    assert "undecided after 400 looks" in states[-1].reason


def test_a_share_that_is_off_pauses_it_since_nothing_can_be_compared() -> None:
    off = Look(seconds=1, weight_pct=10, counts={"error": Counts(n_canary=1, n_stable=300)})
    states = _play(QUICK, lambda _: off)

    assert states[-1].phase is Phase.PAUSED
    assert "another share" in states[-1].reason


def test_the_looks_of_a_step_are_counted_anew_after_a_pause() -> None:
    paused = controller.pause(_in_ramp(), "lunch")
    assert controller.step(paused, _look(10), QUICK) == paused

    resumed = controller.resume(paused, "back")

    assert (resumed.phase, resumed.n_phase_looks) == (Phase.RAMP, 0)


def test_a_late_label_takes_a_promoted_canary_back() -> None:
    strategy = replace(
        QUICK, guardrails=(ERRORS, Guardrail(name="wrong", metrics=("wrong",), is_late=True))
    )
    states = _play(strategy, lambda state: _look(state.weight_pct(strategy)))
    assert states[-1].phase is Phase.PROMOTED
    late = {"wrong": Counts(n_canary=50, n_stable=50, bad_canary=25, bad_stable=5)}

    state = states[-1]
    for _ in range(3):
        state = controller.step(state, Look(seconds=1, weight_pct=100, counts=late), strategy)

    assert state.phase is Phase.ROLLED_BACK
    assert "wrong" in state.reason


def test_blue_green_is_one_step_and_back_again() -> None:
    shadow = Look(seconds=1, weight_pct=0, counts={"error": Counts(n_canary=500, n_stable=500)})
    at_once = Look(seconds=1, weight_pct=100, counts={"error": Counts(n_canary=500)})
    states = _play(BLUE_GREEN, lambda state: at_once if state.phase is Phase.RAMP else shadow)

    assert [(state.phase, state.weight_pct(BLUE_GREEN)) for state in states] == [
        (Phase.PENDING, 0),
        (Phase.SHADOW, 0),
        (Phase.RAMP, 100),
        (Phase.PROMOTED, 100),
    ]
    assert controller.abort(states[-1], "back to blue").weight_pct(BLUE_GREEN) == 0


def test_the_policy_of_each_phase() -> None:
    strategy = Strategy(mirror_pct=50, sticky_header="x-user")

    def policy(state: State) -> tuple[str, float, float]:
        made = state.policy(strategy, model="m", stable=V1, canary=V2)
        return made.stable.name, made.weight_pct, made.mirror_pct

    assert policy(State()) == ("v1", 0, 0)
    assert policy(State(phase=Phase.SHADOW)) == ("v1", 0, 50)
    assert policy(State(phase=Phase.RAMP, i_step=2)) == ("v1", 25, 0)
    assert policy(State(phase=Phase.PAUSED, paused_phase=Phase.RAMP, i_step=1)) == ("v1", 5, 0)
    assert policy(State(phase=Phase.PROMOTED)) == ("v2", 0, 0)
    assert policy(State(phase=Phase.ROLLED_BACK)) == ("v1", 0, 0)


def test_what_is_over_stays_as_it_is() -> None:
    over = controller.abort(_in_ramp(), "no")

    assert controller.step(over, _look(10), QUICK) == over
    for order in (controller.pause, controller.abort, controller.promote):
        with pytest.raises(FailedPreconditionError, match="ABORTED"):
            order(over, "again")
    with pytest.raises(FailedPreconditionError, match="isn't paused"):
        controller.resume(_in_ramp(), "why?")


@pytest.mark.parametrize(
    "change",
    [
        {"steps_pct": ()},
        {"steps_pct": (5, 5)},
        {"steps_pct": (0, 5)},
        {"steps_pct": (50, 120)},
        {"shadow_requests": 0},
        {"step_requests": 0},
        {"alpha": 0},
        {"beta": 1},
        {"guardrails": ()},
    ],
)
def test_an_impossible_strategy_cannot_be_made(change: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        Strategy(**change)  # type: ignore[arg-type]
