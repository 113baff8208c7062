"""Plays a loop: period after period, data arrives, models are retrained, released, and watched.

Each step may be begun again: what it does is known by its key, its run, its version or its request,
so that doing it twice is doing it once. Between two steps the state is written down.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from mlops_mini import processes, use_case
from mlops_mini import workspace as workspaces
from mlops_mini.errors import AbortedError
from mlops_mini.loop import arrival, intake, retrain, serving, state
from mlops_mini.loop.comparison import Comparison
from mlops_mini.loop.plan import Plan
from mlops_mini.loop.production import Production
from mlops_mini.loop.state import State
from mlops_mini.model import champions
from mlops_mini.runner.records import TaskRecord
from mlops_mini.triggers import reasons

_SET_UP_S, _PERIOD_S = 20, 7  # on two cores of 2026, for the announcement
# What each step does, for people who watch.
DOES: dict[state.Step, str] = {
    "begin": "the first model",
    "wait": "requests until labels have matured",
    "deliver": "a delivery and its checks",
    "look": "is there a reason to retrain?",
    "retrain": "the pipeline",
    "release": "the new version's server",
    "serve": "requests",
    "end": "the comparison",
}


def begin(workspace: Path, plan: Plan) -> None:
    """Make the workspace of a loop; `go_on` plays it.

    Args:
        workspace: Emptied first, if it's an earlier loop's.
        plan: What is played.

    Raises:
        NotFoundError: The use case or the data folder isn't there.
        InvalidArgumentError: There are too few periods.
        FailedPreconditionError: The workspace is something else; nothing in it has changed.
        AlreadyExistsError: Another loop is at work there.
    """
    case = use_case.load(plan.use_case)
    first = plan.periods(case.calendar)[plan.n_first]
    data = workspaces.existing_data_folder(plan.data_folder)
    owned = workspaces.emptied(
        workspace,
        mark=state.MARK,
        owner="a loop",
        way_out="name an empty or a new folder as workspace",
        needed=[data],
    )
    with owned:
        state.write(workspace, State(plan=plan, period=str(first)))


def go_on(
    workspace: Path,
    *,
    on_step: Callable[[State], None] = lambda _state: None,
    on_task: Callable[[TaskRecord], None] = lambda _task: None,
    has_router: bool | None = None,
) -> State:
    """Play a loop to its end, from where it is.

    Args:
        workspace: What `begin` has made.
        on_step: Told of each step as it begins.
        on_task: Told of each change of a pipeline's task, in another thread.
        has_router: Whether requests go through Envoy; if it's there for this platform if None.

    Returns:
        The state at its end.

    Raises:
        NotFoundError: There's no loop, or its data is gone.
        FailedPreconditionError: Another version of the package has begun it.
        AlreadyExistsError: Another process plays it.
        AbortedError: The first model wasn't published.
    """
    with ExitStack() as stack:
        stack.enter_context(state.owned(workspace))
        known = state.read(workspace)
        stack.enter_context(processes.native_stderr_to(workspace / "native.log"))
        began = time.monotonic()
        beside = stack.enter_context(Comparison(workspace))
        if known.step != "end":
            of = stack.enter_context(
                Production(workspace, known, on_task=on_task, has_router=has_router)
            )
            known = _took(workspace, known, "set-up", began)
            while known.step != "end":
                on_step(known)
                began = time.monotonic()
                stage = known.step
                known = state.following(_do(of, known), of.played)
                known = _took(workspace, known, stage, began)
        on_step(known)
        began = time.monotonic()
        beside.wait(known)
        return _took(workspace, known, "comparison", began)


def announcement(workspace: Path) -> str:
    """Say what will be played, and how long it takes."""
    plan = state.read(workspace).plan
    case = use_case.load(plan.use_case)
    played = plan.periods(case.calendar)[plan.n_first :]
    minutes = max(round((_SET_UP_S + _PERIOD_S * len(played)) / 60), 1)
    unit = case.calendar.unit
    return (
        f"{case.name}: the first {plan.n_first} {unit}s train a model, then {len(played)} {unit}s"
        f" are played, {played[0]} to {played[-1]}. That takes about {minutes}"
        f" minute{'s' * (minutes > 1)} on two cores; Ctrl-C stops it, and --resume goes on."
    )


def progress(known: State) -> tuple[int, int]:
    """Tell how many periods have been played, and how many there are."""
    played = known.plan.periods(use_case.load(known.plan.use_case).calendar)[known.plan.n_first :]
    names = [str(period) for period in played]
    return (len(names) if known.step == "end" else names.index(known.period)), len(names)


def _do(of: Production, known: State) -> State:
    """Do the next step."""
    of.tick(known)
    period = of.period(known)
    match known.step:
        case "begin":
            return _begin(of, known)
        case "wait":
            return serving.serve(of, known, until=of.now(known))
        case "deliver":
            return intake.deliver(of, known)
        case "look":
            return retrain.look(of, known)
        case "retrain":
            return retrain.retrain(of, known)
        case "release":
            return serving.begin_release(of, known)
    known = serving.serve(of, known, until=period.end)
    if period != of.played[-1]:
        return known
    return intake.observe(of, known, period, now=of.world.matured_at(period))


def _begin(of: Production, known: State) -> State:
    """Have the first periods delivered, and train the first model."""
    if not of.gateway.has_router:
        text = (
            "there's no Envoy for this platform, so new versions replace old ones without a"
            " release: nothing is mirrored, and nothing taken back"
        )
        known = known.noted("left out", text)
    settings = Path(of.plan.data_folder) / of.case.settings
    if settings.is_file():  # of the training, which no sender delivers
        (of.workspace / arrival.DATA).mkdir(exist_ok=True)
        shutil.copyfile(settings, of.workspace / arrival.DATA / of.case.settings)
    first = of.periods[: of.plan.n_first]
    for period in first:
        known = intake.receive(of, known, period, now=of.now(known))
    of.ledger.fire(reasons.on_demand("first", reason="there's no model yet"))
    run = retrain.run(of, period=first[-1], now=of.now(known))
    version = champions.champion(of.models)
    if version is None:
        why = retrain.verdict(run)[1] if run else "its run has ended before"
        raise AbortedError(f"there's no first model: {why}; begin with more periods")
    text = f"the first model serves, trained on data until {first[-1]}"
    return replace(known.noted("first", text, version=version), stable=version)


def _took(workspace: Path, known: State, stage: str, began: float) -> State:
    """Add to the seconds of a stage, and write the state down."""
    seconds = known.stage_s.get(stage, 0.0) + time.monotonic() - began
    known = replace(known, stage_s={**known.stage_s, stage: seconds})
    state.write(workspace, known)
    return known
