"""What a loop has done: a record for scripts, tables for a terminal, and a page for people."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlops_mini import page
from mlops_mini.description import TextTable
from mlops_mini.errors import MlopsMiniError, NotFoundError
from mlops_mini.files import whole_file
from mlops_mini.lineage import lineage
from mlops_mini.lineage import report as lineage_report
from mlops_mini.loop import comparison, state
from mlops_mini.loop.comparison import Compared
from mlops_mini.loop.state import Event, Kind, Served, State
from mlops_mini.use_case import load

PAGE, RECORD = "report.html", "record.json"
_N_DRIFTED = 4
# What a row of the timeline shows, from top to bottom.
_TIMELINE: dict[str, tuple[str, ...]] = {
    "quarantined": ("quarantined",),
    "reason to retrain": ("fired",),
    "refused, undecided": ("refused", "undecided", "failed"),
    "by hand": ("by hand",),
    "release begins": ("releasing",),
    "canary lost": ("canary lost",),
    "rolled back": ("rolled back",),
    "promoted": ("first", "promoted"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """How good what served was, over all periods that can be compared.

    Attributes:
        n_rows: Predictions with a label.
        served: Their mean log loss, nats.
        never: That of never retraining, on the same rows.
        always: That of retraining in each period.
    """

    n_rows: int
    served: float
    never: float
    always: float

    @property
    def share(self) -> float:
        """Share of the gap between never and always that is closed; NaN if there's no gap."""
        gap = self.never - self.always
        return (self.never - self.served) / gap if gap > 0 else math.nan


def quality(known: State, compared: dict[str, Compared]) -> Quality | None:
    """Add up what is known of quality; None while nothing is."""
    both = [
        (each, compared[each.period])
        for each in known.served
        if each.log_loss is not None and each.period in compared and each.n_labeled
    ]
    n_rows = sum(served.n_labeled for served, _ in both)
    if not n_rows:
        return None

    def mean(losses: list[float]) -> float:
        weighted = zip(losses, both, strict=True)
        return sum(loss * served.n_labeled for loss, (served, _) in weighted) / n_rows

    return Quality(
        n_rows=n_rows,
        served=mean([served.log_loss or 0.0 for served, _ in both]),
        never=mean([other.never for _, other in both]),
        always=mean([other.always for _, other in both]),
    )


def record(workspace: Path) -> dict[str, Any]:
    """Collect what a loop has done, as JSON values.

    Raises:
        NotFoundError: There's no loop.
    """
    known, compared = state.read(workspace), comparison.read(workspace)
    measured = quality(known, compared)
    return {
        "use_case": known.plan.use_case,
        "first": known.plan.first,
        "last": known.plan.last,
        "n_first": known.plan.n_first,
        "seed": known.plan.seed,
        "is_over": known.step == "end",
        "stable": known.stable,
        "events": [asdict(event) for event in known.events],
        "periods": [
            asdict(each)
            | {
                name: getattr(compared[each.period], name) if each.period in compared else None
                for name in ("never", "always")
            }
            for each in known.served
        ],
        "quality": asdict(measured) | {"share": measured.share} if measured else None,
        "seconds": {stage: round(seconds, 1) for stage, seconds in known.stage_s.items()},
        "task_seconds": _task_seconds(workspace),
    }


def write(workspace: Path) -> Path:
    """Write the record and the page into the workspace.

    Returns:
        The page.

    Raises:
        NotFoundError: There's no loop.
    """
    for name, text in (
        (RECORD, json.dumps(record(workspace), indent=1) + "\n"),
        (PAGE, html_page(workspace)),
    ):
        with whole_file(workspace / name) as unfinished:
            unfinished.write_text(text)
    return workspace / PAGE


def tables(workspace: Path) -> list[TextTable]:
    """Lay a loop out for a terminal, without what the ledger has suppressed."""
    known, compared = state.read(workspace), comparison.read(workspace)
    told = tuple(each for each in known.events if each.kind != "suppressed")
    laid_out: list[TextTable] = [("What happened", _EVENTS, event_rows(told))]
    if measured := quality(known, compared):
        laid_out.append(_quality_table(known, measured))
    return [*laid_out, _stages(known), _tasks(workspace)]


def _task_seconds(workspace: Path) -> dict[str, float]:
    """Add up how long the tasks of all runs have taken, by component, longest first."""
    seconds: dict[str, float] = {}
    with suppress(NotFoundError), lineage.records_of(workspace) as records:
        for run in records.runs():
            for task in records.run(run.id).tasks.values():
                if task.attempt and task.state != "CACHED":
                    name = task.component
                    seconds[name] = seconds.get(name, 0.0) + task.elapsed_s
    in_order = sorted(seconds.items(), key=lambda each: -each[1])
    return {name: round(spent, 1) for name, spent in in_order}


_EVENTS = ("when", "what", "version", "why")


def event_rows(events: tuple[Event, ...]) -> list[tuple[str, ...]]:
    """Make a row per event."""
    return [
        (each.period, each.kind, "" if each.version is None else str(each.version), each.text)
        for each in events
    ]


def html_page(workspace: Path) -> str:
    """Write the page, which needs no network.

    Raises:
        NotFoundError: There's no loop.
    """
    known, compared = state.read(workspace), comparison.read(workspace)
    name = load(known.plan.use_case).name
    measured = quality(known, compared)
    parts = [page.paragraph(_summary(known, measured))]
    if known.served:
        parts += [page.heading("What happened"), _timeline(known)]
        parts += [page.heading("How good it was"), *_losses(known, compared, measured)]
    parts += [page.heading("Every decision"), page.table(_EVENTS, event_rows(known.events))]
    if known.served:
        parts += [page.heading("Inputs"), *_drift(known)]
    if known.stable is not None:
        parts += [page.heading(f"Where version {known.stable} comes from")]
        parts += _lineage(workspace, known.stable, name)
    for title, header, rows in (_stages(known), _tasks(workspace)):
        parts += [page.heading(title), page.table(header, rows)]
    return page.page(f"{name}, {known.plan.first} to {known.plan.last}", *parts)


def _summary(known: State, measured: Quality | None) -> str:
    told: dict[Kind, str] = {
        "promoted": "promoted",
        "rolled back": "rolled back",
        "refused": "refused",
        "undecided": "undecided",
        "quarantined": "deliveries set aside",
    }
    counts = ", ".join(f"{words}: {known.count(kind)}" for kind, words in told.items())
    over = "" if known.step == "end" else f" It's in {known.period} by now."
    text = f"{len(known.served)} periods were served ({counts}).{over}"
    if measured and not math.isnan(measured.share):
        text += (
            f" The served log loss is {measured.served:.4f}; never retrained it would have been"
            f" {measured.never:.4f}, retrained in each period {measured.always:.4f}, so"
            f" {measured.share:.0%} of the gap is closed."
        )
    return text


def _timeline(known: State) -> str:
    places = {each.period: number for number, each in enumerate(known.served)}
    rows = [
        (name, [places[e.period] for e in known.events if e.kind in kinds and e.period in places])
        for name, kinds in _TIMELINE.items()
    ]
    return page.marks(
        [row for row in rows if row[1]],
        names=[each.period for each in known.served],
        caption="A reason to retrain, a verdict, a release: what came when",
    )


def _losses(known: State, compared: dict[str, Compared], measured: Quality | None) -> list[str]:
    def gained(served: Served, name: str) -> float:
        """Tell by how much a period's log loss is below that of never retraining."""
        other = compared.get(served.period)
        if other is None or served.log_loss is None:
            return math.nan
        return other.never - (served.log_loss if name == "served" else other.always)

    drawn = [
        page.Line(name=title, values=[gained(each, name) for each in known.served])
        for name, title in (("served", "served"), ("always", "retrained in each period"))
    ]
    shown = [
        page.lines(
            drawn,
            caption="How much better than never retraining",
            x_label="period",
            y_label="log loss that was saved, nats; below 0 it was worse",
        )
    ]
    if measured:
        title, header, rows = _quality_table(known, measured)
        shown += [page.paragraph(title), page.table(header, rows)]
    return shown


def _quality_table(known: State, measured: Quality) -> TextTable:
    n_promoted = known.count("promoted")
    share = "" if math.isnan(measured.share) else f"{measured.share:.0%}"
    rows = [
        ("never", "0", f"{measured.never:.4f}", "0%"),
        ("as the loop did", str(n_promoted), f"{measured.served:.4f}", share),
        ("in each period", str(len(known.served) - 1), f"{measured.always:.4f}", "100%"),
    ]
    title = f"Log loss of {measured.n_rows:,} predictions"
    return (title, ("retrained", "promoted", "log loss", "of the gap"), rows)


def _drift(known: State) -> list[str]:
    most: dict[str, float] = {}
    for each in known.served:
        for column, psi in each.psi.items():
            most[column] = max(most.get(column, 0.0), psi)
    chosen = sorted(most, key=lambda column: -most[column])[:_N_DRIFTED]
    if not chosen:
        return [page.paragraph("Nothing to compare.")]
    drawn = [
        page.Line(name=column, values=[each.psi.get(column, math.nan) for each in known.served])
        for column in chosen
    ]
    return [
        page.lines(
            drawn,
            caption="The features that have moved most since the first model was trained",
            x_label="period",
            y_label="PSI",
        )
    ]


def _lineage(workspace: Path, version: int, model: str) -> list[str]:
    try:
        found = lineage.of_version(workspace, version, model=model)
    except MlopsMiniError as exc:
        return [page.paragraph(str(exc))]
    return [
        part
        for title, header, rows in lineage_report.tables(found)
        for part in (page.paragraph(title), page.table(header, rows))
    ]


def _stages(known: State) -> TextTable:
    whole = sum(known.stage_s.values()) or 1.0
    in_order = sorted(known.stage_s.items(), key=lambda each: -each[1])
    rows = [(stage, f"{seconds:.0f}", f"{seconds / whole:.0%}") for stage, seconds in in_order]
    return ("Where the time went", ("stage", "s", "share"), rows)


def _tasks(workspace: Path) -> TextTable:
    spent = _task_seconds(workspace)
    rows = [(component, f"{seconds:.0f}") for component, seconds in spent.items()]
    return ("Tasks of the pipeline's runs, added up", ("component", "s"), rows)
