"""Windows and last observations as of any recent instant, kept up to date event by event.

A read adds up the events in its windows, a few hundred at most. It keeps no running totals, so that
nothing has to be undone when an event is late, reads go back in time, or one event is not to count.
"""

import math
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Hashable, Mapping
from operator import itemgetter

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features.events import Observed, StreamEvent
from mlops_mini.features.feature_set import FeatureSet
from mlops_mini.features.key_columns import Key
from mlops_mini.features.sources import Event, Observation, Window

# Instant, when known, which row, value; sorted by the first two.
_Row = tuple[int, int, Key, int]
_by_instants = itemgetter(0, 1)


class RunningWindows:
    """The events of the last while, by entity, and the observations.

    Events may be added in any order. One whose `available_s` is later than the instant of a read is
    not seen by it, nor one that has left the window; no write is needed for either.
    """

    def __init__(self, feature_set: FeatureSet) -> None:
        """Start empty."""
        self._feature_set = feature_set
        # The positions in `Happening.entities` by which each kind is looked up.
        self._lookups = {
            event.kind: [(name, feature_set.entities.index(name)) for name in used]
            for event in feature_set.events
            for used in [feature_set.entities_of(event)]
        }
        self._happened: dict[tuple[str, str, Key], list[_Row]] = defaultdict(list)
        self._observed: dict[tuple[str, Key], list[Observed]] = defaultdict(list)
        self._known: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, event: StreamEvent) -> bool:
        return event.identity in self._known

    def add(self, event: StreamEvent) -> None:
        """Add an event that is not here yet, at its place in time."""
        self._known[event.identity] = event.event_s
        if isinstance(event, Observed):
            published = self._observed[event.table, event.entity]
            insort(published, event, key=lambda other: other.event_s)
            return
        for name, position in self._lookups[event.kind]:
            entity = event.entities[position]
            if entity is not None:
                rows = self._happened[event.kind, name, entity]
                row = (event.event_s, event.available_s, event.id, event.value or 0)
                insort(rows, row, key=_by_instants)

    def forget(self, before_s: int) -> None:
        """Drop events at or before an instant, seconds since 1970-01-01 UTC."""
        for rows in self._happened.values():
            del rows[: bisect_right(rows, (before_s, math.inf))]
        for published in self._observed.values():
            del published[: bisect_right(published, before_s, key=lambda each: each.event_s)]
        self._known = {name: event_s for name, event_s in self._known.items() if event_s > before_s}

    def read(
        self, entities: Mapping[str, Key | None], at_s: int, *, without: Key | None = None
    ) -> dict[str, float]:
        """Compute the features of an instant.

        Args:
            entities: Key by name, for each of `FeatureSet.entities`; unknown ones have no events.
            at_s: Seconds since 1970-01-01 UTC.
            without: Key of the example whose own events are not to count.

        Returns:
            Value by feature, `FeatureSet.latest` and then `FeatureSet.windows`; NaN for missing.
        """
        last = {
            observation.table: self._latest(observation, entities[observation.entity], at_s)
            for observation in self._feature_set.observations
        }
        values = {
            feature.name: last[feature.source.observation.table].get(feature.source.value, math.nan)
            for feature in self._feature_set.latest
        }
        for feature in self._feature_set.windows:
            window = feature.source
            values[feature.name] = self._aggregate(window, entities[window.entity], at_s, without)
        return values

    def _latest(
        self, observation: Observation, entity: Key | None, at_s: int
    ) -> Mapping[str, float]:
        if entity is None:
            return {}
        for observed in reversed(self._observed.get((observation.table, entity), ())):
            if observed.available_s <= at_s:
                is_alive = at_s - observed.available_s <= observation.time_to_live_s
                return observed.numbers if is_alive else {}
        return {}

    def _aggregate(
        self, window: Window, entity: Key | None, at_s: int, without: Key | None
    ) -> float:
        def values(event: Event) -> list[int]:
            if entity is None:
                return []
            rows = self._happened.get((event.kind, window.entity, entity), [])
            first = bisect_right(rows, (at_s - window.window_s, math.inf))
            last = bisect_right(rows, (at_s, math.inf))
            own = without if event.table == self._feature_set.of else None
            return [
                value
                for _, available_s, row_key, value in rows[first:last]
                if available_s <= at_s and row_key != own
            ]

        inside = values(window.event)
        taken_off = values(window.less) if window.less else []
        if not inside and not taken_off:
            return window.empty
        if window.aggregate == "count":
            return float(len(inside) - len(taken_off))
        total = sum(inside if window.value is None else map(window.value, inside))
        if not float(total).is_integer():
            raise InvalidArgumentError(
                f"a window over events of the kind {window.event.kind!r} makes values of them that"
                " are no whole numbers: round them, or count in a smaller unit"
            )
        return int(total) / len(inside)
