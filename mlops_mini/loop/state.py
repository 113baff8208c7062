"""How far a loop has come: one small file that's replaced as a whole after each step.

What the rooms remember themselves (the ledger, runs, versions, releases, the journal) isn't in it.
Each step may be begun again at any time, so a loop that was killed goes on with the step that it
hadn't ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from mlops_mini import files
from mlops_mini.data.periods import Period
from mlops_mini.errors import DataIntegrityError, FailedPreconditionError, NotFoundError
from mlops_mini.loop.plan import Plan
from mlops_mini.runner import write_errors

FORMAT = 1
MARK, FILE = ".mlops-mini-loop", "loop.json"

Step = Literal["begin", "wait", "deliver", "look", "retrain", "release", "serve", "end"]
Kind = Literal[
    "quarantined", "mended", "missing", "fired", "suppressed", "first", "blessed", "undecided",
    "refused", "failed", "by hand", "releasing", "promoted", "rolled back", "canary lost",
    "left out", "unknown quality",
]  # fmt: skip

_IN_PERIOD: tuple[Step, ...] = ("wait", "deliver", "look", "retrain", "release", "serve")


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that's worth a line in the report.

    Attributes:
        period: In which it happened.
        kind: What it was.
        text: One sentence for people.
        version: Of the model, if it's about one.
    """

    period: str
    kind: Kind
    text: str
    version: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What a period's predictions were like, once its labels had come.

    Attributes:
        period: The period.
        n_requests: Requests that were answered, each once.
        n_labeled: Those with a label.
        log_loss: Mean over these, nats; None without labels.
        by_version: Requests by the version that answered.
        psi: How far features have moved against the first periods, the largest ones by name.
    """

    period: str
    n_requests: int
    n_labeled: int
    log_loss: float | None
    by_version: dict[str, int]
    psi: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """All that a loop has to remember.

    Attributes:
        plan: What is played.
        period: Where it is.
        step: What is to be done next; `end` when everything is.
        stable: The version that serves; None before the first.
        releasing: The version that's being released; None if there's none.
        attempt: The number of its release, from 1; a canary that was lost is released again.
        checked: By partition, name and digest, why it was refused; empty if it was taken.
        events: What has happened, in order.
        served: What periods were like, in order.
        stage_s: Seconds by step, over all starts.
        format_version: Of the file.
    """

    plan: Plan
    period: str
    step: Step = "begin"
    stable: int | None = None
    releasing: int | None = None
    attempt: int = 1
    checked: dict[str, str] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    served: tuple[Served, ...] = ()
    stage_s: dict[str, float] = field(default_factory=dict)
    format_version: int = FORMAT

    def noted(self, kind: Kind, text: str, *, version: int | None = None) -> State:
        """Add an event."""
        event = Event(period=self.period, kind=kind, text=text, version=version)
        return replace(self, events=(*self.events, event))

    def count(self, kind: Kind) -> int:
        """Count the events of a kind."""
        return sum(event.kind == kind for event in self.events)

    def happens(self, incident: str) -> bool:
        """Tell whether the plan has something go wrong in this period."""
        return (self.plan.incidents or {}).get(self.period) == incident


def following(state: State, played: Sequence[Period]) -> State:
    """Move on to the next step, of this period or of the next one.

    Args:
        state: A step of it has ended.
        played: All periods that are played.

    >>> from mlops_mini.data.periods import Calendar
    >>> plan = Plan(use_case="churn:CHURN", data_folder="data", first="2026-01", last="2026-03")
    >>> march = [Calendar().period("2026-03")]
    >>> [following(State(plan=plan, period="2026-03", step=step), march).step
    ...  for step in ("begin", "wait", "serve")]
    ['wait', 'deliver', 'end']
    """
    if state.step == "begin":
        return replace(state, step=_IN_PERIOD[0])
    at = _IN_PERIOD.index(state.step)
    if at + 1 < len(_IN_PERIOD):
        return replace(state, step=_IN_PERIOD[at + 1])
    names = [str(period) for period in played]
    place = names.index(state.period)
    if place + 1 == len(names):
        return replace(state, step="end")
    return replace(state, step=_IN_PERIOD[0], period=names[place + 1])


def read(workspace: Path) -> State:
    """Read how far a loop has come.

    Raises:
        NotFoundError: There's no loop.
        FailedPreconditionError: Another version of the package has written it.
        DataIntegrityError: The file holds something else.
    """
    file = workspace / FILE
    try:
        message = json.loads(file.read_text())
    except FileNotFoundError as exc:
        raise NotFoundError(
            f"no loop in {workspace}: name its workspace, or begin one with `mlops-mini loop`"
        ) from exc
    except ValueError as exc:
        raise DataIntegrityError(f"{file} is damaged ({exc}): begin a new loop") from exc
    found = message.get("format_version") if isinstance(message, Mapping) else None
    if found != FORMAT:
        raise FailedPreconditionError(
            f"{file} is of format {found}, and this version of mlops_mini goes on with format"
            f" {FORMAT}: end it with the version that began it, or begin a new loop"
        )
    try:
        return _ADAPTER.validate_python(message)
    except ValueError as exc:
        raise DataIntegrityError(f"{file} is damaged ({exc}): begin a new loop") from exc


def write(workspace: Path, state: State) -> None:
    """Replace what was known by a newer state.

    Raises:
        ResourceExhaustedError: The disk is full; what was known stays. So it is for other errors of
            the disk.
    """
    try:
        with files.whole_file(workspace / FILE) as unfinished:
            unfinished.write_bytes(_ADAPTER.dump_json(state, indent=1))
    except OSError as exc:
        raise write_errors.explained(
            exc, what="the loop's state", root=workspace, then="resume the loop"
        ) from exc


@contextmanager
def owned(workspace: Path) -> Iterator[None]:
    """Hold the workspace of a loop, so that one process at a time works in it.

    Raises:
        NotFoundError: There's no loop.
        AlreadyExistsError: Another process holds it.
    """
    if not (workspace / MARK).is_file():
        raise NotFoundError(
            f"no loop in {workspace}: name its workspace, or begin one with `mlops-mini loop`"
        )
    taken = f"another process works in {workspace}, as a loop: wait for its end"
    with files.locked(workspace / MARK, if_taken=taken):
        yield


_ADAPTER = TypeAdapter(State)
