"""Windows and last observations for many instants at once, exactly as of each instant.

An event counts from the instant when it is known until it leaves the window. So a window's count is
how many such spans have begun by an instant, less how many have ended, and its sum is the
difference of two running sums: two sorted arrays and two binary searches answer all queries.

Values are whole numbers, and sums of these are exact. With fractions a difference of running sums
would lose digits, and disagree with a window that is summed by itself.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features.instants import Seconds
from mlops_mini.features.sources import Event, Observation, Window

# Above any instant in seconds, so that (entity, instant) is one sortable number.
_STRIDE = 1 << 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Queries:
    """What is asked: the values at an instant, for an example.

    Attributes:
        entities: A column of keys for each entity, shape [n, n_entities]; missing ones have no
            events.
        at_s: Instant of each, seconds since 1970-01-01 UTC, shape [n].
        table: The examples' table.
        without: The examples' keys, whose own events, those of rows of `table`, are not to count,
            shape [n]; None to count all.
    """

    entities: pd.DataFrame
    at_s: Seconds
    table: str
    without: "pd.Series[int] | pd.Series[str] | None"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Spans:
    """The events of a kind, by one of their entities.

    Attributes:
        rows: The events.
        codes: The entity of each, a number from 0; -1 for none.
        begins_s: When each begins to count.
        order: Their positions, sorted by entity and `begins_s`.
        entity: The entity that each query asks for, as in `codes`; -1 for an unknown one.
        n_begun: How many of the events, in this order, come before each query.
        own_row: Position of the event of each query's own example, -1 for none; None where events
            are of another table, or all count.
    """

    rows: pd.DataFrame
    codes: Seconds
    begins_s: Seconds
    order: Seconds
    entity: Seconds
    n_begun: Seconds
    own_row: Seconds | None


class Windows:
    """The events of a history, ready to answer the same queries for one window after the other."""

    def __init__(self, history: pd.DataFrame, queries: Queries) -> None:
        """Group the events by kind.

        Args:
            history: As `events.checked_history` gives it.
            queries: For whom and when.
        """
        self._queries = queries
        self._by_kind = {str(kind): rows for kind, rows in history.groupby("kind", sort=False)}
        self._spans: dict[tuple[str, str], _Spans] = {}

    def values(self, window: Window) -> npt.NDArray[np.float64]:
        """Compute a window feature: its value for each query, shape [n].

        Raises:
            InvalidArgumentError: What the window makes of a value is no whole number.
        """
        n, total = self._count_and_sum(window, window.event)
        if window.aggregate == "mean":
            with np.errstate(invalid="ignore"):
                return np.where(n > 0, total / n, window.empty)
        n_less = 0 if window.less is None else self._count_and_sum(window, window.less)[0]
        return np.where((n > 0) | (n_less > 0), n - n_less, window.empty)

    def _count_and_sum(self, window: Window, event: Event) -> tuple[Seconds, Seconds]:
        """Count the events in a window, and add up their values: two arrays of shape [n]."""
        queries = self._queries
        if event.kind not in self._by_kind:
            return np.zeros(len(queries.at_s), np.int64), np.zeros(len(queries.at_s), np.int64)
        spans = self._spans_of(event, window.entity)
        ends_s = np.maximum(spans.rows["event_s"].to_numpy() + window.window_s, spans.begins_s)
        ends, end_order = _sorted(spans.codes, ends_s)
        n_ended = np.searchsorted(ends, spans.entity * _STRIDE + queries.at_s, "right")
        n = spans.n_begun - n_ended
        value = _values(window, spans.rows) if window.aggregate == "mean" else None
        total = np.zeros(len(n), np.int64)
        if value is not None:
            total = _running_sum(value[spans.order])[spans.n_begun]
            total -= _running_sum(value[end_order])[n_ended]
        if spans.own_row is not None:
            row = spans.own_row
            is_own = (row >= 0) & (spans.codes[row] == spans.entity)
            is_own &= (spans.begins_s[row] <= queries.at_s) & (queries.at_s < ends_s[row])
            n = n - is_own
            if value is not None:
                total -= np.where(is_own, value[row], 0)
        is_known = spans.entity >= 0
        return np.where(is_known, n, 0), np.where(is_known, total, 0)

    def _spans_of(self, event: Event, entity_name: str) -> _Spans:
        """Sort the events of a kind by entity: once for all windows over them."""
        if (event.kind, entity_name) not in self._spans:
            queries, rows = self._queries, self._by_kind[event.kind]
            codes, names = pd.factorize(rows[entity_name])
            entity = pd.Index(names).get_indexer(pd.Index(queries.entities[entity_name]))
            begins_s = np.maximum(rows["event_s"].to_numpy(), rows["available_s"].to_numpy())
            begins, order = _sorted(codes, begins_s)
            own_row = None
            if queries.without is not None and event.table == queries.table:
                ids = pd.Index(rows["id"].infer_objects())
                own_row = ids.get_indexer(pd.Index(queries.without))
            self._spans[event.kind, entity_name] = _Spans(
                rows=rows,
                codes=codes,
                begins_s=begins_s,
                order=order,
                entity=entity,
                n_begun=np.searchsorted(begins, entity * _STRIDE + queries.at_s, "right"),
                own_row=own_row,
            )
        return self._spans[event.kind, entity_name]


def latest_rows(observation: Observation, observed: pd.DataFrame, queries: Queries) -> Seconds:
    """Find the last published observation that has not expired.

    Args:
        observation: How long one lives.
        observed: As `events.checked_observations` gives them.
        queries: For whom and when.

    Returns:
        Its row by position for each query, shape [n]; -1 for none.
    """
    codes, names = pd.factorize(observed[observation.entity])
    keys, order = _sorted(codes, observed["available_s"].to_numpy())
    entity = pd.Index(names).get_indexer(pd.Index(queries.entities[observation.entity]))
    before = np.searchsorted(keys, entity * _STRIDE + queries.at_s, "right") - 1
    row = np.append(order, -1)[before]
    published_s = np.append(observed["available_s"].to_numpy(), 0)[row]
    is_alive = queries.at_s - published_s <= observation.time_to_live_s
    return np.where(is_alive & (entity >= 0) & (np.append(codes, -1)[row] == entity), row, -1)


def _values(window: Window, rows: pd.DataFrame) -> Seconds:
    values = rows["value"].to_numpy()
    if window.value is not None:
        values = np.asarray(window.value(values), np.float64)
        if not np.array_equal(values, np.floor(values)):
            raise InvalidArgumentError(
                f"a window over events of the kind {window.event.kind!r} makes values of them that"
                " are no whole numbers: round them, or count in a smaller unit"
            )
    return values.astype(np.int64)


def _running_sum(values: Seconds) -> Seconds:
    return np.concatenate([[0], np.cumsum(values)])


def _sorted(codes: Seconds, instants_s: Seconds) -> tuple[Seconds, Seconds]:
    """Sort rows by entity, then instant: their keys, and their positions."""
    keys = codes * _STRIDE + instants_s
    order = np.argsort(keys, kind="stable")
    return keys[order], order
