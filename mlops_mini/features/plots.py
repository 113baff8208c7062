"""Pictures of windows: what is known when a prediction is due, and how running sums find it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KNOWN, _UNKNOWN, _WINDOW = "#0072B2", "#D55E00", "#E69F00"


def known_when(
    axes: "Sequence[Axes]",
    day: pd.DataFrame,
    *,
    at: datetime,
    window_s: int,
    marked: Mapping[Any, str] | None = None,
) -> "Sequence[Axes]":
    """Draw the events of a day, and which of them three ways of averaging take in.

    Args:
        axes: Two that share their x axis: one for the events, a lower one for the averages.
        day: Events of one day and one entity, as `events.from_tables` lists them.
        at: When the prediction is due, in the time zone of the clock that is drawn.
        window_s: Length of the window, seconds.
        marked: What is written beside single events, by the id of their row.

    Returns:
        The same axes. Filled dots are known at `at`, open ones aren't yet. Below, one bar per way:
        the whole day, the day so far, and the window, each with its count and mean.
    """
    top, bottom = axes
    hours, kind = _hours(day, at), day["kind"].iloc[0]
    due, begin = at.hour + at.minute / 60, at.hour + at.minute / 60 - window_s / 3600
    is_known = hours <= due
    top.axvspan(begin, due, color=_WINDOW, alpha=0.2, linewidth=0)
    top.plot(hours[is_known], day["value"][is_known], "o", color=_KNOWN, ms=4)
    top.plot(hours[~is_known], day["value"][~is_known], "o", color=_UNKNOWN, ms=4, mfc="none")
    above: dict[str, Any] = {"va": "top", "transform": top.get_xaxis_transform()}
    top.text(due - 0.2, 1.0, "known", color=_KNOWN, ha="right", **above)
    top.text(due + 0.2, 1.0, "not known yet", color=_UNKNOWN, **above)
    for row_id, name in (marked or {}).items():
        at_row = np.flatnonzero(day["id"] == row_id)[0]
        dot = (hours.iloc[at_row], day["value"].iloc[at_row])
        arrow = {"arrowstyle": "->", "color": "0.2"}
        top.annotate(name, dot, (dot[0] + 0.3, dot[1] + 300), arrowprops=arrow)
    top.set(ylabel="delay (min)", ylim=(day["value"].min() - 25, day["value"].max() * 1.25))
    ways = {
        "whole day": (hours.min(), hours.max(), _UNKNOWN, hours > -np.inf),
        "day so far": (hours.min(), due, _KNOWN, is_known),
        f"last {window_s // 3600} h": (begin, due, _WINDOW, is_known & (hours > begin)),
    }
    for row, (left, right, color, is_inside) in enumerate(ways.values()):
        bottom.barh(-row, right - left, left=left, height=0.55, color=color)
        said = f"{is_inside.sum()} {kind}s, mean {day['value'][is_inside].mean():.0f} min"
        bottom.text(due + 0.25, -row, said, va="center", color="black" if row else "white")
    bottom.set_yticks([0, -1, -2], list(ways))
    bottom.set(xlabel="hour of the local clock", xticks=range(6, 28, 3))
    bottom.tick_params(left=False)
    for each in axes:
        each.axvline(due, color="black", linewidth=1)
    return axes


def prefix_sums(ax: "Axes", day: pd.DataFrame, *, at: datetime, window_s: int) -> "Axes":
    """Draw a running sum, and the sum of a window as the difference of two of its values.

    Args:
        ax: Where to draw.
        day: Events of one day and one entity, as `events.from_tables` lists them.
        at: Where the window ends, in the time zone of the clock that is drawn.
        window_s: Length of the window, seconds.

    Returns:
        The same axes: the sum of all values so far as steps, and the window shaded.
    """
    hours = _hours(day, at).sort_values(kind="stable")
    sums = day["value"][hours.index].cumsum().to_numpy()
    end_h = at.hour + at.minute / 60
    ends_h = np.array([end_h - window_s / 3600, end_h])
    n = np.searchsorted(hours, ends_h, side="right")
    low, high = np.concatenate([[0], sums])[n]
    ax.axvspan(*ends_h, color=_WINDOW, alpha=0.2, linewidth=0)
    ax.step(np.append(hours, 28), np.append(sums, sums[-1]), where="post", color=_KNOWN)
    ax.hlines([low, high], [ends_h[0], end_h], end_h + 0.6, color="0.4", linestyle=":")
    ax.plot(ends_h, [low, high], "o", color="black", ms=6)
    ax.annotate("", (end_h + 0.45, low), (end_h + 0.45, high), arrowprops={"arrowstyle": "<->"})
    said = (
        f"{high:,.0f} - {low:,.0f} = {high - low:,.0f} min\nin {n[1] - n[0]} {day['kind'].iloc[0]}s"
    )
    ax.text(end_h + 0.75, (low + high) / 2, said, va="center")
    ax.set(
        xlabel="hour of the local clock",
        ylabel="sum of all delays so far (min)",
        xlim=(hours.min() - 0.2, end_h + 3.5),
        ylim=(min(0.0, sums.min()) - 60, high * 1.35),
    )
    return ax


def _hours(day: pd.DataFrame, at: datetime) -> "pd.Series[float]":
    """Tell when events happened, in hours since midnight before `at`."""
    midnight = pd.Timestamp(at).normalize()
    return (day["event_utc"] - midnight) / pd.Timedelta(hours=1)
