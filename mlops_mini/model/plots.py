"""Pictures of how good models are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PLAIN = "#0072B2"


def aucs(ax: "Axes", scores: "pd.Series[float]", *, colors: Sequence[str] = (_PLAIN,)) -> "Axes":
    """Draw AUCs as bars that begin at a coin's.

    Args:
        ax: Where to draw.
        scores: AUC by name, the first on top.
        colors: One per bar, or one for all.

    Returns:
        The same axes; each bar says its AUC with two decimals.
    """
    each = list(colors) * (len(scores) // len(colors))
    bars = ax.barh(scores.index.astype(str), scores - 0.5, left=0.5, color=each)
    ax.bar_label(bars, [f"{auc:.2f}" for auc in scores], padding=4)
    ax.set(xlabel="AUC (0.5 is a coin)", xlim=(0.5, max(0.9, scores.max() + 0.05)))
    ax.invert_yaxis()
    return ax
