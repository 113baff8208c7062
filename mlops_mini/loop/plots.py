"""Pictures of a year under policies of retraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SCORE, _LIMIT, _RETRAINED = "#0072B2", "black", "#D55E00"


def timeline(
    ax: Axes,
    score: Mapping[int, float],
    *,
    limit: float,
    retrained: Sequence[int],
    name: str,
) -> Axes:
    """Draw what a trigger looks at, week by week, and when it made the model retrain.

    Args:
        ax: Where to draw.
        score: What the trigger compares with its limit, by week.
        limit: Above which, or at which, it fires.
        retrained: Weeks at whose end the model was retrained.
        name: Of the score, for the axis.

    Returns:
        The same axes: the score as a line, the limit dashed, a triangle for each retraining.
    """
    weeks = list(score)
    ax.plot(weeks, [score[week] for week in weeks], color=_SCORE, linewidth=1.4)
    ax.axhline(limit, color=_LIMIT, linestyle="--", linewidth=1)
    top = max([*score.values(), limit])
    ax.plot(retrained, np.full(len(retrained), 1.12 * top), "v", color=_RETRAINED, markersize=5)
    ax.set(ylabel=name, xlim=(4.5, 51.5), ylim=(min([0.0, *score.values()]), 1.25 * top))
    return ax


def prices(ax: Axes, n_retrained: Mapping[str, int], share: Mapping[str, float]) -> Axes:
    """Draw what each policy costs and what it brings.

    Args:
        ax: Where to draw.
        n_retrained: Number of retrainings by policy.
        share: Share of the gap between never and weekly retraining that it closes, 0 to 1.

    Returns:
        The same axes: one dot per policy, with its name.
    """
    for policy, n in n_retrained.items():
        ax.plot(n, share[policy], "o", color=_RETRAINED if n > 20 else _SCORE)
        ax.annotate(policy, (n, share[policy]), xytext=(7, -4), textcoords="offset points")
    ax.axhline(1, color=_LIMIT, linestyle=":", linewidth=1)
    ax.set(xlabel="retrainings in a year", ylabel="share of the gain", ylim=(-0.08, 1.12))
    return ax
