"""Draw a lineage: from data partitions through run and verdict to what served before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_mini.lineage.lineage import Lineage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_PARTITIONS = 7
_COLUMNS = {"data": 0.0, "run": 1.0, "verdict": 2.0, "served": 3.0}


def plot(lineage: Lineage, ax: Axes) -> Axes:
    """Draw a lineage into an empty Axes; a width of 10 inches and a height of 4 fit well.

    Args:
        lineage: As `lineage.of_version` or `lineage.of_run` tells it.
        ax: Where to draw.

    Returns:
        The same Axes. What is missing or was edited is drawn dashed.
    """
    parts = lineage.partitions
    shown = list(parts[-_MOST_PARTITIONS:])
    texts = [
        f"{part.table} {part.period}\n{part.role}\n{part.n_rows:,} rows, {part.digest[:8]}"
        for part in shown
    ]
    if len(parts) > len(shown):
        texts.insert(0, f"and {len(parts) - len(shown)} more before")
    middle = (len(texts) - 1) / 2 if texts else 0.0
    run = lineage.run
    _box(ax, "run", middle, f"run\n{run.id}\nseed {run.arguments.get('seed')}" if run else "no run")
    for row, text in enumerate(texts):
        _box(ax, "data", row, text)
        _arrow(ax, ("data", row), ("run", middle))
    verdict = lineage.verdict.get("decision", "no verdict")
    _box(ax, "verdict", middle, f"verdict\n{verdict}")
    _arrow(ax, ("run", middle), ("verdict", middle))
    _draw_services(lineage, ax, middle)
    height = max(len(texts) - 1, 2)
    ax.set(xlim=(-0.45, 3.45), ylim=(height + 0.6, -0.6))
    ax.axis("off")
    return ax


def _draw_services(lineage: Lineage, ax: Axes, middle: float) -> None:
    """Draw the version, the one that served before it and the one that served after it."""
    if lineage.version is None:
        return
    is_broken = bool(lineage.problems)
    name = f"version {lineage.version}" + ("\nmissing or edited" if is_broken else "")
    _box(ax, "served", middle, name, is_broken=is_broken, is_bold=True)
    _arrow(ax, ("verdict", middle), ("served", middle))
    if not lineage.services:
        return
    before, last = lineage.services[0].before, lineage.services[-1]
    if before is not None:
        _box(ax, "served", middle - 1, f"before: version {before}")
        _arrow(ax, ("served", middle - 1), ("served", middle))
    if last.after is not None:
        _box(ax, "served", middle + 1, f"after: version {last.after}\n{last.ended}")
        _arrow(ax, ("served", middle), ("served", middle + 1))
    else:
        _box(ax, "served", middle + 1, "serves now")


def _box(
    ax: Axes, column: str, row: float, text: str, *, is_broken: bool = False, is_bold: bool = False
) -> None:
    style = {
        "boxstyle": "round,pad=0.4",
        "facecolor": "white",
        "edgecolor": "0.3",
        "linestyle": "--" if is_broken else "-",
        "linewidth": 1.8 if is_bold else 0.8,
    }
    ax.text(
        _COLUMNS[column],
        row,
        text,
        ha="center",
        va="center",
        fontsize="small",
        bbox=style,
        zorder=2,
    )


def _arrow(ax: Axes, start: tuple[str, float], end: tuple[str, float]) -> None:
    ax.annotate(
        "",
        xy=(_COLUMNS[end[0]], end[1]),
        xytext=(_COLUMNS[start[0]], start[1]),
        arrowprops={"arrowstyle": "->", "color": "0.5", "shrinkA": 34, "shrinkB": 40}
        if start[0] != end[0]
        else {"arrowstyle": "->", "color": "0.5", "shrinkA": 12, "shrinkB": 16},
        zorder=1,
    )
