"""Pictures of a release: how far the canary was exposed, and what spoke against it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlops_mini.rollout import guardrails
from mlops_mini.rollout.guardrails import Guardrail, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ("#0072B2", "#D55E00", "#009E73")
_LOWEST = -3.0  # powers of ten: what's below it makes no difference
_DASHES = ("-", "--", ":")


def weights(ax: "Axes", looks: Sequence[Look]) -> "Axes":
    """Draw the canary's share of the requests, and what share it got.

    Args:
        ax: Where to draw.
        looks: All looks since the canary came, in order.

    Returns:
        The same axes: a step for what was meant, a dot for each look at both sides.
    """
    n = np.arange(1, len(looks) + 1)
    nothing = guardrails.Counts()
    counts = [look.counts.get("error", nothing) for look in looks]
    got_pct = [
        100 * c.n_canary / (c.n_canary + c.n_stable) if look.weight_pct and c.n_stable else math.nan
        for look, c in zip(looks, counts, strict=True)
    ]
    ax.step(n, [look.weight_pct for look in looks], where="mid", color=_COLORS[0])
    ax.plot(n, got_pct, ".", color=_COLORS[0], markersize=4)
    ax.set(ylabel="canary's\nshare (%)", ylim=(-3, 103), xlim=(0, len(looks) + 1))
    return ax


def evidence(
    ax: "Axes", looks: Sequence[Look], judged: Sequence[Guardrail], *, alpha: float = 0.05
) -> "Axes":
    """Draw how the evidence against a canary grew, in powers of ten, with the alarm's limit.

    Args:
        ax: Where to draw.
        looks: All looks since the canary came, in order.
        judged: The guardrails, at most three.
        alpha: Chance of a false alarm that they share, between 0 and 1.

    Returns:
        The same axes, each line with its guardrail's name, cut off where evidence is below 1/1,000.
    """
    n, limit = np.arange(1, len(looks) + 1), math.log10(len(judged) / alpha)
    lowest = 0.0
    for guardrail, color, dash in zip(judged, _COLORS, _DASHES, strict=False):
        powers = guardrails.log_e_by_look(looks, guardrail) / math.log(10)
        ax.plot(n, powers, color=color, linestyle=dash, label=guardrail.name)
        lowest = min(lowest, float(powers.min(initial=0)))
    ax.axhline(limit, color="black", linestyle="--", linewidth=1)
    ax.text(len(looks) + 0.5, limit, "alarm ", ha="right", va="bottom", fontsize=9)
    ax.set(xlabel="looks", ylabel="evidence\n(powers of ten)", xlim=(0, len(looks) + 1))
    ax.set_ylim(bottom=max(lowest, _LOWEST) - 0.2)
    ax.legend(loc="best", frameon=False, fontsize=9)
    return ax


def error_rates(ax: "Axes", looks: Sequence[Look], *, limit_pct: float) -> "Axes":
    """Draw which share of the requests failed on each side, beside a fixed limit.

    Args:
        ax: Where to draw.
        looks: Looks in which both sides answered, in order.
        limit_pct: The limit, percent.

    Returns:
        The same axes.
    """
    n = np.arange(1, len(looks) + 1)
    counts = [look.counts["error"] for look in looks]
    canary_pct = [100 * c.bad_canary / max(c.n_canary, 1) for c in counts]
    stable_pct = [100 * c.bad_stable / max(c.n_stable, 1) for c in counts]
    ax.plot(n, canary_pct, "o-", color=_COLORS[1], label="canary")
    ax.plot(n, stable_pct, "s--", color=_COLORS[0], label="stable")
    ax.axhline(limit_pct, color="black", linestyle=":", linewidth=1)
    ax.set(xlabel="looks", ylabel="failed requests (%)", ylim=(-2, None))
    ax.legend(frameon=False)
    return ax
