"""Draw a compiled pipeline: which task waits for which, and what became of each in a run."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlops_mini.runner.spec import JsonObject, Package

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Fill and edge by state; the state is written into the box as well.
_FILLS = {"SUCCEEDED": "#f7d9a8", "CACHED": "#cfe3f1", "FAILED": "#f3c4a5"}
_WORDS = {"SUCCEEDED": "ran", "NOT_TRIGGERED": "not run"}
_PLAIN, _EDGE = "#f2f2f2", "#555555"
_LINE = 9  # characters of a name in one line


def dependencies(package: Package) -> dict[str, set[str]]:
    """List the tasks that do something, and for each one those that it waits for.

    Args:
        package: A compiled pipeline; groups such as conditions are replaced by their tasks.

    Returns:
        Names by name, without those that follow from others.
    """
    waits = _flattened(package, package.root["dag"])

    def above(name: str) -> set[str]:
        return waits[name].union(*map(above, waits[name]))

    return {name: found.difference(*map(above, found)) for name, found in waits.items()}


def _flattened(package: Package, dag: JsonObject) -> dict[str, set[str]]:
    members: dict[str, dict[str, set[str]]] = {}
    for name, task in dag["tasks"].items():
        inner = package.component(task).get("dag")
        members[name] = _flattened(package, inner) if inner else {name: set()}
    found: dict[str, set[str]] = {}
    for name, task in dag["tasks"].items():
        before = {leaf for group in task.get("dependentTasks", []) for leaf in members[group]}
        found |= {leaf: waits | before for leaf, waits in members[name].items()}
    return found


def conditional(package: Package) -> set[str]:
    """List the tasks that run only if a condition holds."""
    return _conditional(package, package.root["dag"], is_inside=False)


def _conditional(package: Package, dag: JsonObject, *, is_inside: bool) -> set[str]:
    found: set[str] = set()
    for name, task in dag["tasks"].items():
        depends = is_inside or "condition" in task.get("triggerPolicy", {})
        inner = package.component(task).get("dag")
        if inner:
            found |= _conditional(package, inner, is_inside=depends)
        elif depends:
            found.add(name)
    return found


def draw_graph(package: Package, ax: Axes, *, states: Mapping[str, str]) -> Axes:
    """Draw the tasks from left to right, each to the right of all that it waits for.

    Args:
        package: The compiled pipeline.
        ax: Where to draw; its scales become columns and rows of boxes.
        states: What became of each task, such as CACHED; a task that isn't named is left plain.

    Returns:
        The same axes. A dashed box stands behind a condition.
    """
    waits, dashed = dependencies(package), conditional(package)

    def column(name: str) -> int:
        return 1 + max(map(column, waits[name]), default=-1)

    def next_column(name: str) -> int:
        return min((column(each) for each in waits if name in waits[each]), default=0)

    place: dict[str, tuple[int, int]] = {}
    # Within a column: what always runs on top, and above others whose result is needed first.
    for name in sorted(waits, key=lambda n: (column(n), n in dashed, next_column(n))):
        place[name] = column(name), -sum(x == column(name) for x, _ in place.values())
    boxes: dict[str, Any] = {}
    for name, (x, y) in place.items():
        state = states.get(name, "")
        style = {
            "boxstyle": "round,pad=0.35",
            "ec": _EDGE,
            "fc": _FILLS.get(state, _PLAIN),
            "ls": "--" if name in dashed else "-",
        }
        label = textwrap.fill(name, _LINE, break_long_words=False)
        label += f"\n{_WORDS.get(state, state.lower())}" if state else ""
        text = ax.text(x, y, label, ha="center", va="center", size=8, bbox=style)
        boxes[name] = text.get_bbox_patch()
    ax.set(xlim=(-0.5, max(x for x, _ in place.values()) + 0.5))
    ax.set(ylim=(min(y for _, y in place.values()) - 0.6, 0.6))
    ax.axis("off")
    ax.figure.canvas.draw()  # so that the boxes have sizes, which arrows begin and end at
    for name, before in waits.items():
        for each in sorted(before):
            arrow = {"arrowstyle": "->", "patchA": boxes[each], "patchB": boxes[name]}
            ax.annotate("", place[name], place[each], arrowprops=arrow | {"color": _EDGE})
    return ax
