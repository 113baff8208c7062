"""Degrees of automation as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def broken_promises(ax: Axes, errors: Mapping[str, npt.ArrayLike], *, max_error: float) -> Axes:
    """Draw the true errors that thresholds from many draws lead to.

    Args:
        ax: Where to draw.
        errors: By way of choosing the threshold, the true error of each draw, 0 to 1.
        max_error: What was promised.
    """
    bins = np.linspace(0, 100 * max(np.max(each) for each in errors.values()), 40).tolist()
    for (name, each), color, hatch in zip(
        errors.items(), ("#D55E00", "#0072B2"), ("///", ""), strict=False
    ):
        shown = 100 * np.asarray(each)
        ax.hist(shown, bins, color=color, alpha=0.6, hatch=hatch, label=name, edgecolor="white")
    ax.axvline(100 * max_error, color="black", linestyle="--")
    ax.set(xlabel="true error among automated items (%)", ylabel="draws", ylim=(0, None))
    ax.legend(frameon=False)
    return ax


def errors_by_class(ax: Axes, errors: pd.Series, *, max_error: float) -> Axes:
    """Draw the share of errors in each class, the largest on top.

    Args:
        ax: Where to draw.
        errors: Share of errors, 0 to 1, by class.
        max_error: What was promised for all together.
    """
    shown = 100 * errors.sort_values()
    ax.barh(shown.index, shown, color="#0072B2")
    ax.axvline(100 * max_error, color="black", linestyle="--")
    ax.set(xlabel="wrong among the automated items of a class (%)")
    return ax


def evidence(ax: Axes, log_e: npt.ArrayLike, *, limit: float) -> Axes:
    """Draw the evidence of audits against a promise.

    Args:
        ax: Where to draw.
        log_e: Natural logarithm of it after each audit, shape [n_audits].
        limit: Evidence at which there's an alarm.
    """
    powers = np.asarray(log_e) / np.log(10)
    ax.plot(np.arange(1, powers.size + 1), powers, color="#D55E00")
    ax.axhline(np.log10(limit), color="black", linestyle="--")
    ax.set(xlabel="audits", ylabel="evidence (powers of ten)", xlim=(0, None))
    return ax


def costs(
    ax: Axes, curves: Mapping[str, pd.DataFrame], marks: Sequence[tuple[str, float, float]]
) -> Axes:
    """Draw what automation costs against its errors, as a curve for each kind of people.

    Args:
        ax: Where to draw.
        curves: By kind, as `costs.cost_curve` returns them.
        marks: What's marked, such as a degree: a short name, error, 0 to 1, and cost per item.
    """
    styles = zip(("#0072B2", "#009E73", "#D55E00"), ("-", "--", ":"), strict=True)
    for (name, curve), (color, style) in zip(curves.items(), styles, strict=False):
        ax.plot(100 * curve["error_rate"], curve["cost"], style, color=color, label=name)
    for name, error, cost in marks:
        ax.plot(100 * error, cost, "o", color="black", markersize=5)
        ax.annotate(name, (100 * error, cost), textcoords="offset points", xytext=(5, 4))
    ax.set(xlabel="wrong answers (%)", ylabel="cost per item", xlim=(0, None), ylim=(0, None))
    ax.legend(frameon=False, loc="lower right")
    return ax
