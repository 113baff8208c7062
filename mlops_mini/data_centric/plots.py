"""Pictures of data: sheets of images, tables with intervals, pilots, criteria, learning curves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data_centric.more_data import Forecast
from mlops_mini.data_centric.pilots import ALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _ORANGE, _GRAY = "#0072B2", "#D55E00", "0.6"
_FRAME = 1  # white pixels between images


def sheet(
    ax: "Axes",
    images: npt.NDArray[np.generic],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> "Axes":
    """Draw gray images in rows, as dark things on white paper.

    Args:
        ax: Where to draw.
        images: 0 is the background, shape [n_rows, n_columns, height, width].
        rows: A name for each row.
        columns: A name for each column.

    Returns:
        The same axes.
    """
    n_rows, n_columns, height, width = images.shape
    framed = np.pad(images, [(0, 0), (0, 0), (_FRAME, _FRAME), (_FRAME, _FRAME)])
    step_y, step_x = height + 2 * _FRAME, width + 2 * _FRAME
    paper = framed.transpose(0, 2, 1, 3).reshape(n_rows * step_y, n_columns * step_x)
    highest = 255 if images.dtype == np.uint8 else 1
    ax.imshow(paper, cmap="gray_r", vmin=0, vmax=highest, interpolation="nearest", aspect="equal")
    ax.set_xticks(step_x * (np.arange(len(columns)) + 0.5) - 0.5, columns, fontsize=8)
    ax.set_yticks(step_y * (np.arange(len(rows)) + 0.5) - 0.5, rows, fontsize=9)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def rooms(ax: "Axes", table: pd.DataFrame) -> "Axes":
    """Draw the room for improvement of each slice, with its interval.

    Args:
        ax: Where to draw.
        table: As `priorities.prioritize` returns it; slices without a known gap are left out.

    Returns:
        The same axes: a dot and a line for each slice, the largest room at the top, and beside it
        the probability that none is larger. What's below zero is people being worse.
    """
    shown = table[table["gap"].notna()][::-1]
    places = np.arange(len(shown))
    gaps = shown[["gap_low", "gap", "gap_high"]].to_numpy(float)
    low, middle, high = (100 * shown["share"].to_numpy(float)[:, None] * gaps).T
    ax.hlines(places, low, high, color=_BLUE, linewidth=2)
    ax.plot(middle, places, "o", color=_BLUE)
    for place, at, p_best in zip(places, high, shown["p_best"], strict=True):
        ax.annotate(
            f"{p_best:.0%}",
            (at, place),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(places, shown.index)
    ax.set(xlabel="gap x share (points of overall accuracy)", ylim=(-0.6, len(shown) - 0.4))
    return ax


def pilot_changes(ax: "Axes", changes: pd.DataFrame) -> "Axes":
    """Draw what each pilot changed in each slice, the mean over seeds, in points.

    Args:
        ax: Where to draw.
        changes: As `pilots.run_pilots` returns them.

    Returns:
        The same axes: a row for each pilot, a column for each slice, "all" last.
    """
    mean = 100 * changes.pivot_table("change", "pilot", "slice")
    others = [str(name) for name in mean if name != ALL and name not in mean.index]
    slices = [*(name for name in mean.index if name in mean), *sorted(others)]
    mean = mean[[*slices, ALL]]
    values = mean.to_numpy(float)
    limit = np.abs(values).max()
    ax.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    for (row, column), value in np.ndenumerate(values):
        color = "white" if abs(value) > 0.6 * limit else "black"
        ax.text(column, row, f"{value:+z.0f}", ha="center", va="center", color=color)
    ax.set_xticks(range(mean.shape[1]), mean.columns)
    ax.set_yticks(range(len(mean)), [f"+ {name}" for name in mean.index])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def criteria_map(ax: "Axes", table: pd.DataFrame, *, named: Sequence[str] = ()) -> "Axes":
    """Draw candidates by how hard, how readable and how realistic their examples are.

    Args:
        ax: Where to draw.
        table: As `votes.Measured.table` returns it.
        named: Candidates whose name is written beside them.

    Returns:
        The same axes: hard to the right, readable to the top, the more realistic the larger;
        candidates that got many votes, 3% or more, are orange squares.
    """
    hard, readable, realistic = table[["hard", "readable", "realistic"]].to_numpy(float).T
    is_voted = table["votes"].to_numpy(float) >= 0.03
    for chosen, color, marker in ((~is_voted, _GRAY, "o"), (is_voted, _ORANGE, "s")):
        x, y, sizes = 100 * hard[chosen], 100 * readable[chosen], 8 + 110 * realistic[chosen] ** 2
        ax.scatter(x, y, sizes, color=color, marker=marker, alpha=0.7, linewidths=0)
    for place, name in enumerate(table.index):
        if name in named:
            at = (100 * hard[place], 100 * readable[place])
            ax.annotate(str(name), at, (7, 3), textcoords="offset points", fontsize=8)
    ax.set(xlabel="hard: the model is wrong (%)", ylabel="readable (%)")
    return ax


def learning_curve(ax: "Axes", curve: pd.DataFrame, forecast: Forecast) -> "Axes":
    """Draw how accuracy grows with more examples, and what a forecast expects of even more.

    Args:
        ax: Where to draw.
        curve: As `more_data.learning_curve` returns it.
        forecast: Made from it.

    Returns:
        The same axes: a dot for each training, a band between the seeds, the mean as a line, and at
        the right end the forecast with its interval.
    """
    by_size = 100 * curve.groupby("n")["accuracy"].agg(["min", "mean", "max"])
    ax.fill_between(by_size.index, by_size["min"], by_size["max"], color=_BLUE, alpha=0.2)
    ax.plot(by_size.index, by_size["mean"], color=_BLUE)
    ax.plot(curve["n"], 100 * curve["accuracy"], "o", color=_BLUE, markersize=4)
    ax.plot(
        [by_size.index[-1], forecast.n],
        [by_size["mean"].iloc[-1], 100 * forecast.accuracy],
        color=_ORANGE,
        linestyle="--",
    )
    ax.vlines(forecast.n, 100 * forecast.low, 100 * forecast.high, color=_ORANGE, linewidth=2)
    ax.plot(forecast.n, 100 * forecast.accuracy, "s", color=_ORANGE)
    ax.set(xlabel="examples added", ylabel="right (%)")
    return ax
