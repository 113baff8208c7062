"""Draw a lineage: from data partitions through run and verdict to what served before and after."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from mlops_mini.lineage.lineage import Lineage, Partition

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

_MOST_BOXES = 6
_COLUMNS = {"data": 0.0, "run": 1.0, "verdict": 2.0, "served": 3.0}


def plot(lineage: Lineage, ax: Axes) -> Axes:
    """Draw a lineage into an empty Axes; a width of 11 inches and a height of 5.4 fit well.

    Args:
        lineage: As `lineage.of_version` or `lineage.of_run` tells it.
        ax: Where to draw.

    Returns:
        The same Axes. What is missing or was edited is drawn dashed.
    """
    texts = _data(lineage.partitions)
    middle = (len(texts) - 1) / 2 if texts else 0.0
    run, verdict = lineage.run, lineage.verdict.get("decision", "no verdict")
    text = f"run\n{run.id}\nseed {run.arguments.get('seed')}" if run else "no run"
    of_run = _box(ax, "run", middle, text)
    for row, text in enumerate(texts):
        _arrow(ax, _box(ax, "data", row, text), of_run)
    text = f"verdict\n{verdict}"
    if lineage.publication and lineage.publication.approved_by:
        text += f"\napproved by {lineage.publication.approved_by}"
    of_verdict = _box(ax, "verdict", middle, text)
    _arrow(ax, of_run, of_verdict)
    _draw_services(lineage, ax, of_verdict)
    height = max(len(texts) - 1, 2)
    ax.set(xlim=(-0.45, 3.45), ylim=(height + 0.6, -0.6))
    ax.axis("off")
    return ax


def _data(partitions: Sequence[Partition]) -> list[str]:
    """Describe each partition, or if there are many, all together that had the same role."""
    if len(partitions) <= _MOST_BOXES:
        groups = [[part] for part in partitions]
    else:
        grouped = groupby(partitions, key=lambda part: (part.table, part.role))
        groups = [list(group) for _, group in grouped]
    return [
        f"{first.table} {first.period}"
        + (f" to {last.period}" if len(group) > 1 else "")
        + f"\n{first.role}\n{sum(part.n_rows for part in group):,} rows, "
        + (f"{len(group)} partitions" if len(group) > 1 else first.digest[:8])
        for group in groups
        for first, last in [(group[0], group[-1])]
    ]


def _draw_services(lineage: Lineage, ax: Axes, of_verdict: Text) -> None:
    """Draw the version, the one that served before it and the one that served after it."""
    if lineage.version is None:
        return
    middle = of_verdict.get_position()[1]
    is_broken = bool(lineage.problems)
    is_serving = bool(lineage.services) and lineage.services[-1].until is None
    name = f"version {lineage.version}" + ("\nserves now" if is_serving else "")
    name += "\nmissing or edited" if is_broken else ""
    served = _box(ax, "served", middle, name, is_broken=is_broken, is_bold=True)
    _arrow(ax, of_verdict, served)
    if not lineage.services:
        return
    before, last = lineage.services[0].before, lineage.services[-1]
    if before is not None:
        _arrow(ax, _box(ax, "served", middle - 1, f"before: version {before}"), served)
    if last.after is not None:
        text = f"after: version {last.after}\n{last.ended}"
        _arrow(ax, served, _box(ax, "served", middle + 1, text))


def _box(
    ax: Axes, column: str, row: float, text: str, *, is_broken: bool = False, is_bold: bool = False
) -> Text:
    style = {
        "boxstyle": "round,pad=0.4",
        "facecolor": "white",
        "edgecolor": "0.3",
        "linestyle": "--" if is_broken else "-",
        "linewidth": 1.8 if is_bold else 0.8,
    }
    at = _COLUMNS[column]
    return ax.text(at, row, text, ha="center", va="center", fontsize="small", bbox=style)


def _arrow(ax: Axes, start: Text, end: Text) -> None:
    """Draw an arrow from the edge of a box to the edge of another."""
    patches = {"patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch()}
    style = {"arrowstyle": "->", "color": "0.5", "shrinkA": 0, "shrinkB": 2, **patches}
    # After the boxes, which know their sizes once they're drawn.
    ax.annotate("", end.get_position(), start.get_position(), arrowprops=style, zorder=4)
