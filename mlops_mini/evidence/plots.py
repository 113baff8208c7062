"""Pictures of evidence that grows look by look."""

from typing import TYPE_CHECKING

import numpy as np

from mlops_mini.evidence.eprocesses import Floats

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
