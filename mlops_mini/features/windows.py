"""Windows and last observations as of any recent instant, kept up to date event by event.

A read adds up the events in its windows, a few hundred at most. It keeps no running totals, so that
nothing has to be undone when an event is late, reads go back in time, or one event is not to count.
"""

import math
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Hashable, Mapping

from mlops_mini.features.events import FlightEvent, StreamEvent, WeatherEvent
from mlops_mini.features.sources import Window
from mlops_mini.flights.definitions import RECENT, WEATHER, WEATHER_OBSERVATION

# Each entity by which some window looks events up.
_ENTITIES = tuple(dict.fromkeys(feature.source.entity for feature in RECENT))

# Instant, when known, flight_id, delay; sorted.
_Row = tuple[int, int, int, int]


def key(event: StreamEvent) -> Hashable:
    """Tell what two deliveries of one event share."""
    if isinstance(event, FlightEvent):
        return event.kind, event.flight_id
    return "weather", event.origin, event.event_s


class RunningWindows:
    """The events of the last while, by entity, and the observations.

    Events may be added in any order. One whose `available_s` is later than the instant of a read is
    not seen by it, nor one that has left the window; no write is needed for either.
    """

    def __init__(self) -> None:
        self._events: dict[tuple[str, str, str], list[_Row]] = defaultdict(list)
        self._weather: dict[str, list[tuple[int, int, Mapping[str, float]]]] = defaultdict(list)
        self._keys: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, event: StreamEvent) -> bool:
        return key(event) in self._keys

    def add(self, event: StreamEvent) -> None:
        """Add an event that is not here yet, at its place in time."""
        self._keys[key(event)] = event.event_s
        if isinstance(event, WeatherEvent):
            row = (event.event_s, event.available_s, event.observed)
            insort(self._weather[event.origin], row, key=lambda other: other[0])
            return
        for entity in _ENTITIES:
            rows = self._events[event.kind, entity, getattr(event, entity)]
            insort(rows, (event.event_s, event.available_s, event.flight_id, event.delay_min or 0))

    def forget(self, before_s: int) -> None:
        """Drop events at or before an instant, seconds since 1970-01-01 UTC."""
        for rows in self._events.values():
            del rows[: bisect_right(rows, (before_s, math.inf))]
        for observed in self._weather.values():
            del observed[: bisect_right(observed, before_s, key=lambda row: row[0])]
        self._keys = {name: event_s for name, event_s in self._keys.items() if event_s > before_s}

    def read(
        self, entities: Mapping[str, str], at_s: int, *, without: int | None = None
    ) -> dict[str, float]:
        """Compute the features of an instant.

        Args:
            entities: `origin`, `carrier` and `dest`; unknown ones have no events.
            at_s: Seconds since 1970-01-01 UTC.
            without: `flight_id` whose own events are not to count.

        Returns:
            Value by feature, `definitions.WEATHER` and then `definitions.RECENT`; NaN for missing.
        """
        observed = self._latest(entities[WEATHER_OBSERVATION.entity], at_s)
        values = {f.name: observed.get(f.source.value, math.nan) for f in WEATHER}
        for feature in RECENT:
            window = feature.source
            entity = entities[window.entity]
            values[feature.name] = self._aggregate(window, entity, at_s, without)
        return values

    def _latest(self, origin: str, at_s: int) -> Mapping[str, float]:
        for _, available_s, observed in reversed(self._weather.get(origin, ())):
            if available_s <= at_s:
                is_alive = at_s - available_s <= WEATHER_OBSERVATION.time_to_live_s
                return observed if is_alive else {}
        return {}

    def _aggregate(self, window: Window, entity: str, at_s: int, without: int | None) -> float:
        def delays(kind: str) -> list[int]:
            rows = self._events.get((kind, window.entity, entity), [])
            first = bisect_right(rows, (at_s - window.window_s, math.inf))
            last = bisect_right(rows, (at_s, math.inf))
            return [
                delay_min
                for _, available_s, flight_id, delay_min in rows[first:last]
                if available_s <= at_s and flight_id != without
            ]

        inside = delays(window.event.kind)
        taken_off = delays(window.less.kind) if window.less else []
        if not inside and not taken_off:
            return window.empty
        if window.value is None:
            return float(len(inside) - len(taken_off))
        return sum(int(window.value(delay_min)) for delay_min in inside) / len(inside)
