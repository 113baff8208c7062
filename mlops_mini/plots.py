"""Plots. Each takes an `Axes`, draws into it and hands it back; titles say what the reader found.

Nothing here shows, styles or saves: the caller does.
"""

from typing import TYPE_CHECKING

import numpy as np

from mlops_mini.data.distances import MIN_SHARE
from mlops_mini.data.drift import DriftReport
from mlops_mini.errors import InvalidArgumentError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RULES_OF_THUMB = (0.1, 0.25)


def drift(report: DriftReport, ax: "Axes", *, n_columns: int = 12) -> "Axes":
    """Draw how far columns have moved.

    Args:
        report: Ranked, the first on top.
        ax: Where to draw.
        n_columns: How many columns of the report at most, from the first.

    Returns:
        The same axes. One row a column: a dot for its PSI, filled if it is above its threshold,
        and a tick for the threshold. The scale is logarithmic; what is below 1e-4 is drawn there.
        The rules of thumb .1 and .25 are dotted lines.

    Raises:
        InvalidArgumentError: The report has no column.
    """
    columns = report.columns[:n_columns]
    if not columns:
        raise InvalidArgumentError("no column to draw; compare tables that share columns")
    rows = np.arange(len(columns))
    psi = np.array([max(column.psi, MIN_SHARE) for column in columns])
    threshold = np.array([column.threshold for column in columns])
    moved = np.array([column.has_moved for column in columns])
    ax.hlines(rows, MIN_SHARE, psi, color="0.8", linewidth=1)
    for is_filled, label in ((True, "above its threshold"), (False, "not above")):
        of_kind = moved == is_filled
        face = "0.1" if is_filled else "white"
        ax.plot(psi[of_kind], rows[of_kind], "o", color="0.1", markerfacecolor=face, label=label)
    if np.isfinite(threshold).any():
        ax.plot(threshold, rows, "|", color="0.4", markersize=14, label="threshold")
    for rule in _RULES_OF_THUMB:
        ax.axvline(rule, color="0.6", linestyle=":", linewidth=1)
        ax.annotate(
            f"{rule:g}",
            (rule, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize="small",
        )
    ax.set(xscale="log", xlabel="population stability index (no unit, log scale)")
    ax.set_yticks(rows, [column.column for column in columns])
    ax.set_ylim(len(columns) - 0.5, -0.5)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", frameon=False)
    return ax
