"""Windows and last observations for many instants at once, exactly as of each instant.

An event counts from the instant when it is known until it leaves the window. So a window's count is
how many such spans have begun by an instant, less how many have ended, and its sum is the
difference of two running sums: two sorted arrays and two binary searches answer all questions.

Values are whole numbers, and sums of these are exact. With fractions a difference of running sums
would lose digits, and disagree with a window that is summed by itself.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.features.sources import Event, Observation, Window

Seconds = npt.NDArray[np.int64]

# Above any instant in seconds, so that (entity, instant) is one sortable number.
_STRIDE = 1 << 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """What is asked: the values at an instant, for a flight.

    Attributes:
        entities: Columns `origin carrier dest`, shape [n, 3]; missing ones have no events.
        at_s: Instant of each, seconds since 1970-01-01 UTC, shape [n].
        without: `flight_id` whose own events are not to count, shape [n]; None to count all.
    """

    entities: pd.DataFrame
    at_s: Seconds
    without: Seconds | None


def window_values(
    window: Window, events: dict[str, pd.DataFrame], asked: Questions
) -> npt.NDArray[np.float64]:
    """Compute a window feature.

    Args:
        window: Which.
        events: Rows of `events.checked_history` by kind; kinds that are not there have none.
        asked: For whom and when.

    Returns:
        Its value for each question, shape [n].
    """
    n, total = _count_and_sum(window, window.event, events, asked)
    if window.aggregate == "mean":
        with np.errstate(invalid="ignore"):
            return np.where(n > 0, total / n, window.empty)
    n_less = 0 if window.less is None else _count_and_sum(window, window.less, events, asked)[0]
    return np.where((n > 0) | (n_less > 0), n - n_less, window.empty)


def latest_rows(observation: Observation, observed: pd.DataFrame, asked: Questions) -> Seconds:
    """Find the last published observation that has not expired.

    Args:
        observation: How long one lives.
        observed: As `events.checked_weather` gives them.
        asked: For whom and when.

    Returns:
        Its row by position for each question, shape [n]; -1 for none.
    """
    codes, names = pd.factorize(observed[observation.entity])
    keys, order = _sorted(codes, observed["available_s"].to_numpy())
    entity = pd.Index(names).get_indexer(pd.Index(asked.entities[observation.entity]))
    before = np.searchsorted(keys, entity * _STRIDE + asked.at_s, "right") - 1
    row = np.append(order, -1)[before]
    published_s = np.append(observed["available_s"].to_numpy(), 0)[row]
    is_alive = asked.at_s - published_s <= observation.time_to_live_s
    return np.where(is_alive & (entity >= 0) & (np.append(codes, -1)[row] == entity), row, -1)


def _count_and_sum(
    window: Window, event: Event, events: dict[str, pd.DataFrame], asked: Questions
) -> tuple[Seconds, Seconds]:
    """Count the events in a window, and add up their values: two arrays of shape [n]."""
    nothing = np.zeros(len(asked.at_s), np.int64)
    if event.kind not in events:
        return nothing, nothing
    rows = events[event.kind]
    codes, names = pd.factorize(rows[window.entity])
    entity = pd.Index(names).get_indexer(pd.Index(asked.entities[window.entity]))
    happened_s = rows["event_s"].to_numpy()
    begins_s = np.maximum(happened_s, rows["available_s"].to_numpy())
    ends_s = np.maximum(happened_s + window.window_s, begins_s)
    value = (
        nothing[:0]
        if window.value is None
        else window.value(rows["delay_min"].to_numpy()).astype(np.int64)
    )

    n = nothing.copy()
    total = nothing.copy()
    at = entity * _STRIDE + asked.at_s
    for instants_s, sign in ((begins_s, 1), (ends_s, -1)):
        keys, order = _sorted(codes, instants_s)
        passed = np.searchsorted(keys, at, "right")
        n += sign * passed
        if window.value is not None:
            total += sign * np.concatenate([[0], np.cumsum(value[order])])[passed]
    if asked.without is not None:
        row = pd.Index(rows["flight_id"]).get_indexer(pd.Index(asked.without))
        is_own = (row >= 0) & (codes[row] == entity)
        is_own &= (begins_s[row] <= asked.at_s) & (asked.at_s < ends_s[row])
        n -= is_own
        if window.value is not None:
            total -= np.where(is_own, value[row], 0)
    return np.where(entity >= 0, n, 0), np.where(entity >= 0, total, 0)


def _sorted(codes: Seconds, instants_s: Seconds) -> tuple[Seconds, Seconds]:
    """Sort rows by entity, then instant: their keys, and their positions."""
    keys = codes * _STRIDE + instants_s
    order = np.argsort(keys, kind="stable")
    return keys[order], order
