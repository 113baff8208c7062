"""Pictures of evidence: how it grows look by look, and how sure it is in the end."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mlops_mini.evidence.eprocesses import Floats
from mlops_mini.evidence.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_QUIET, _ALARM = "#56B4E9", "#D55E00"


def paths(ax: "Axes", values: Floats, *, limit: float, n_drawn: int = 40) -> "Axes":
    """Draw a statistic of many experiments, look by look, those that ever cross a limit in orange.

    Args:
        ax: Where to draw.
        values: The statistic, such as log e, shape [n_experiments, n_looks].
        limit: Where it's an alarm.
        n_drawn: How many are drawn, the first ones; a path ends in a dot where it crosses.

    Returns:
        The same axes, with the limit as a dashed line.
    """
    looks = np.arange(1, values.shape[-1] + 1)
    for path in values[:n_drawn]:
        crosses = path >= limit
        end = crosses.argmax() + 1 if crosses.any() else len(path)
        color, width = (_ALARM, 1.2) if crosses.any() else (_QUIET, 0.5)
        ax.plot(looks[:end], path[:end], color=color, linestyle="-", linewidth=width)
        if crosses.any():
            ax.plot(looks[end - 1], path[end - 1], "o", color=_ALARM, markersize=4, zorder=3)
    ax.axhline(limit, color="black", linestyle="--", linewidth=1)
    ax.set(xlabel="looks", xlim=(0, values.shape[-1]))
    return ax


def intervals(ax: "Axes", by_name: Mapping[str, Interval]) -> "Axes":
    """Draw means with their limits, the first one on top.

    Args:
        ax: Where to draw.
        by_name: What to draw, by what it's called.

    Returns:
        The same axes, with a line at zero: orange is an interval that doesn't reach it.
    """
    for row, interval in enumerate(by_name.values()):
        color = _QUIET if interval.lower <= 0 <= interval.upper else _ALARM
        ax.plot([interval.lower, interval.upper], [row, row], color=color, linestyle="-", lw=5)
        ax.plot(interval.value, row, "o", color="black")
    ax.axvline(0, color="black", linestyle="--", linewidth=1)
    ax.set_yticks(range(len(by_name)), list(by_name))
    ax.set_ylim(len(by_name) - 0.5, -0.5)
    return ax
