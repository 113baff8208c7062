"""Pictures of what a model server does: versions that follow each other, requests in a queue."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WAITING, _RUNNING = "#E69F00", "#0072B2"


def answers_by_version(ax: "Axes", answered_by: Sequence[int], *, n_around: int = 100) -> "Axes":
    """Draw which version answered each request, around every change of version.

    Args:
        ax: Where to draw.
        answered_by: The version that answered, request by request.
        n_around: How many answers are drawn before and after a change. What lies further away is
            cut out, so the picture doesn't depend on how many requests somebody happened to send.

    Returns:
        The same axes, with one step for each change.
    """
    stretches = [(version, len(list(same))) for version, same in groupby(answered_by)]
    x = 0
    for index, (version, n_answers) in enumerate(stretches):
        is_between = 0 < index < len(stretches) - 1
        width = min(n_answers, n_around * (1 + is_between))
        ax.hlines(version, x, x + width, color=_RUNNING, linewidth=3)
        ax.text(x + width / 2, version + 0.12, f"version {version}", ha="center")
        x += width
        if index < len(stretches) - 1:
            ax.vlines(x, version, stretches[index + 1][0], color=_RUNNING, linewidth=1)
    versions = range(min(answered_by), max(answered_by) + 1)
    ax.set(
        xlabel="requests, one after the other (those far from a change are left out)",
        ylabel="answered by version",
        ylim=(versions[0] - 0.4, versions[-1] + 0.6),
        yticks=versions,
    )
    return ax


def queued(
    arrivals_ms: Sequence[float], *, run_ms: float, row_ms: float, max_rows: int
) -> pd.DataFrame:
    """Work out when each request is answered if a single worker runs the model.

    Whenever the worker is free it takes what has arrived by then, in order.

    Args:
        arrivals_ms: When requests of one row each arrive, ascending.
        run_ms: What a run costs, however many rows it has.
        row_ms: What each row adds.
        max_rows: How many requests are run together at most; 1 runs them one by one.

    Returns:
        One row per request: `arrival_ms`, `start_ms` and `end_ms` of its run.

    >>> queued([0, 1, 2], run_ms=4, row_ms=1, max_rows=8)["end_ms"].tolist()
    [5.0, 11.0, 11.0]
    >>> queued([0, 1, 2], run_ms=4, row_ms=1, max_rows=1)["end_ms"].tolist()
    [5.0, 10.0, 15.0]
    """
    waiting, runs, free_ms = list(arrivals_ms), [], 0.0
    while waiting:
        start_ms = max(free_ms, waiting[0])
        taken = [arrival for arrival in waiting[:max_rows] if arrival <= start_ms]
        free_ms = start_ms + run_ms + row_ms * len(taken)
        runs += [(arrival, start_ms, free_ms) for arrival in taken]
        waiting = waiting[len(taken) :]
    return pd.DataFrame(runs, columns=["arrival_ms", "start_ms", "end_ms"]).astype(float)


def queue(ax: "Axes", served: pd.DataFrame) -> "Axes":
    """Draw a queue: one line per request, from its arrival to its answer.

    Args:
        ax: Where to draw.
        served: As `queued` works it out.

    Returns:
        The same axes; the first request is on top, thin and light while it waits.
    """
    rows = -served.index.to_numpy()
    waited_ms = served["start_ms"] - served["arrival_ms"]
    ran_ms = served["end_ms"] - served["start_ms"]
    ax.barh(rows, waited_ms, left=served["arrival_ms"], height=0.3, color=_WAITING)
    ax.barh(rows, ran_ms, left=served["start_ms"], height=0.8, color=_RUNNING)
    ax.set(xlabel="ms", yticks=[], ylabel="requests")
    ax.spines["left"].set_visible(False)
    return ax
