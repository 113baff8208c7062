"""Pictures of how good models are, and of what the gate says about them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from mlops_mini.model.gate import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PLAIN, _FAILED = "#0072B2", "#D55E00"


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


def failed_rules(ax: "Axes", verdicts: Mapping[str, Verdict]) -> "Axes":
    """Draw which rules of the gate each candidate breaks.

    Args:
        ax: Where to draw.
        verdicts: By the candidate's name, the first on top.

    Returns:
        The same axes: a column for each rule that somebody breaks, a dot where a candidate breaks
        it, large where no other rule sees that candidate.
    """
    broken = {
        name: list(dict.fromkeys(rule.rule for rule in each.rules if rule.verdict == "fail"))
        for name, each in verdicts.items()
    }
    columns = list(dict.fromkeys(rule for rules in broken.values() for rule in rules))
    for row, rules in enumerate(broken.values()):
        size = 14 if len(rules) == 1 else 7
        ax.plot([columns.index(rule) for rule in rules], [row] * len(rules), "o",
                color=_FAILED, linestyle="", markersize=size)  # fmt: skip
    ax.set_xticks(range(len(columns)), columns, rotation=30, ha="left", rotation_mode="anchor")
    ax.set_yticks(range(len(broken)), list(broken))
    ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(broken) - 0.5, -0.5))
    ax.xaxis.tick_top()
    ax.grid(color="0.9", linestyle="-")
    ax.set_axisbelow(True)
    return ax
