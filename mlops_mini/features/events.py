"""What happens to flights, in the order in which it becomes known: the input of recent features.

Offline it is a table of the whole past, online a stream of single records.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data import columns
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.flights import datasets, times
from mlops_mini.flights.definitions import EVENTS, WEATHER, WEATHER_OBSERVATION

COLUMNS = (
    "kind",
    "flight_id",
    "event_utc",
    "available_at",
    "origin",
    "carrier",
    "dest",
    "delay_min",
)
_ENTITIES = ("origin", "carrier", "dest")
_KINDS_WITH_DELAY = tuple(event.kind for event in EVENTS if event.delay)


class FlightEvent(NamedTuple):
    """Something that has happened to a flight.

    Attributes:
        kind: See `definitions.EVENTS`.
        flight_id: Which flight; with `kind` it tells whether two deliveries are of one event.
        event_s: When it happened, seconds since 1970-01-01 UTC.
        available_s: When it became known; not used before.
        origin: The flight's.
        carrier: The flight's.
        dest: The flight's.
        delay_min: Whole minutes, negative if early; None for an event without a delay.
    """

    kind: str
    flight_id: int
    event_s: int
    available_s: int
    origin: str
    carrier: str
    dest: str
    delay_min: int | None


class WeatherEvent(NamedTuple):
    """An observation of the weather.

    Attributes:
        origin: Airport.
        event_s: The hour observed, seconds since 1970-01-01 UTC; with `origin` it tells whether two
            deliveries are of one observation.
        available_s: When it was published.
        observed: Value by column, in the units of `datasets.weather`, NaN for missing.
    """

    origin: str
    event_s: int
    available_s: int
    observed: Mapping[str, float]


StreamEvent: TypeAlias = FlightEvent | WeatherEvent


def from_flights(flights: pd.DataFrame, *, zones: Mapping[str, str] | None = None) -> pd.DataFrame:
    """List what has happened to flights.

    A scheduled departure counts as an event at its minute, whatever became of the flight. A
    departure and an arrival are known when they happen; a cancellation or diversion never is.

    Args:
        flights: As `datasets.flights` gives them; those of several months in one frame.
        zones: IANA zone by airport code; without it those of the default data folder. An arrival at
            an airport without one has no known instant, and is left out.

    Returns:
        One row an event, in the order of `available_at`, columns `COLUMNS`: instants
        `datetime64[ns, UTC]`, `delay_min` float64, NaN for an event without a delay.

    Raises:
        InvalidArgumentError: A column is not there, a date does not exist, a delay is no number, or
            a flight has no whole `flight_id`.

    >>> january = datasets.flights("2013-01")
    >>> from_flights(january)["kind"].value_counts().to_dict()  # 521 canceled, 85 diverted
    {'scheduled': 27004, 'departure': 26483, 'arrival': 26398}
    """
    columns.require(flights, ("flight_id", *_ENTITIES), "events")
    instants = times.derive_utc(flights, datasets.airport_zones() if zones is None else zones)
    known = flights[list(_ENTITIES)].apply(columns.texts)
    known.insert(0, "flight_id", flight_ids(flights["flight_id"]))
    parts = [
        known.assign(
            kind=event.kind,
            event_utc=instants[event.time].array,
            available_at=instants[event.time].array,
            delay_min=columns.numbers(flights[event.delay]) if event.delay else np.nan,
        )
        for event in EVENTS
    ]
    history = pd.concat(parts, ignore_index=True).dropna(subset="event_utc")
    return history.sort_values("available_at", kind="stable", ignore_index=True)[list(COLUMNS)]


def stream(history: pd.DataFrame, weather: pd.DataFrame | None = None) -> list[StreamEvent]:
    """Put events and observations into one stream, as a store receives it.

    Args:
        history: As `from_flights` gives it.
        weather: As `datasets.weather` gives it; without it there are no observations.

    Returns:
        Records in the order in which they become available.

    Raises:
        InvalidArgumentError: A column is missing, an instant has no time zone, or a delay is no
            whole number of minutes.

    >>> for event in stream(from_flights(datasets.flights("2013-01").head(1))):
    ...     print(event)
    FlightEvent(kind='scheduled', flight_id=0, event_s=1357035300, available_s=1357035300,
                origin='EWR', carrier='UA', dest='IAH', delay_min=None)
    FlightEvent(kind='departure', flight_id=0, event_s=1357035420, available_s=1357035420,
                origin='EWR', carrier='UA', dest='IAH', delay_min=2)
    FlightEvent(kind='arrival', flight_id=0, event_s=1357050600, available_s=1357050600,
                origin='EWR', carrier='UA', dest='IAH', delay_min=11)
    """
    known = checked_history(history)
    fields: list[list[Any]] = [known[name].tolist() for name in FlightEvent._fields[:-1]]
    delays = [None if math.isnan(delay) else int(delay) for delay in known["delay_min"]]
    records: list[StreamEvent] = list(map(FlightEvent, *fields, delays))
    if weather is not None:
        published = checked_weather(weather)
        names = [feature.source.value for feature in WEATHER]
        observed = published[names].astype("float64").to_dict("records")
        keys = [published[name].tolist() for name in ("origin", "event_s", "available_s")]
        records += list(map(WeatherEvent, *keys, observed))
    return sorted(records, key=_available_s)


def between(
    events: Sequence[StreamEvent], after: datetime | None, up_to: datetime
) -> Sequence[StreamEvent]:
    """Cut out of a stream what becomes available in a while.

    Args:
        events: As `stream` gives them.
        after: Only later ones, such as `Store.as_of`; None for all from the start.
        up_to: No later ones.

    Returns:
        Those with after < available <= up_to.
    """
    first = 0 if after is None else bisect_right(events, epoch_s(after), key=_available_s)
    return events[first : bisect_right(events, epoch_s(up_to), key=_available_s)]


def lacks_delay(event: StreamEvent) -> bool:
    """Tell whether an event has none of the delay of its kind: it is left out on both sides."""
    if isinstance(event, WeatherEvent):
        return False
    return event.delay_min is None and event.kind in _KINDS_WITH_DELAY


def checked_history(history: pd.DataFrame) -> pd.DataFrame:
    """Check a table of events, and bring it into the form that windows are computed from.

    Args:
        history: Columns `COLUMNS`, rows in any order.

    Returns:
        In the order of availability, instants as `event_s` and `available_s`, whole seconds since
        1970-01-01 UTC. Left out is what has no time or lacks the delay of its kind, and all but the
        first delivery of an event.

    Raises:
        InvalidArgumentError: A column is missing, an instant has no time zone, or a delay is no
            whole number of minutes.
    """
    columns.require(history, COLUMNS, "events")
    history = columns.plain_frame(history[list(COLUMNS)])
    for name in ("kind", *_ENTITIES):
        history[name] = columns.texts(history[name])
    history["delay_min"] = columns.numbers(history["delay_min"])
    is_complete = history["delay_min"].notna() | ~history["kind"].isin(_KINDS_WITH_DELAY)
    is_known = history["event_utc"].notna() & history["available_at"].notna() & is_complete
    known = history if is_known.all() else history[is_known]
    delays = known["delay_min"].to_numpy()
    is_whole = (np.abs(delays) < times.MOST_MINUTES) & (delays == np.floor(delays))
    is_odd = ~np.isnan(delays) & ~is_whole
    if is_odd.any():
        raise InvalidArgumentError(
            f"{int(is_odd.sum())} delays are no whole minutes, such as {delays[is_odd][0]}: round"
            " them, or sums online and offline would differ in the last digits"
        )
    known = known.assign(
        flight_id=flight_ids(known["flight_id"]),
        event_s=seconds(known["event_utc"]),
        available_s=seconds(known["available_at"]),
    )
    known = known.drop(columns=["event_utc", "available_at"])
    known = known.sort_values("available_s", kind="stable", ignore_index=True)
    return known.drop_duplicates(["kind", "flight_id"], ignore_index=True)


def checked_weather(weather: pd.DataFrame) -> pd.DataFrame:
    """Check observations, and say when each was published.

    Args:
        weather: As `datasets.weather` gives it, rows in any order.

    Returns:
        In the order of availability, with `event_s` and `available_s`, whole seconds since
        1970-01-01 UTC; of two observations of the same airport and hour only the first.

    Raises:
        InvalidArgumentError: A column is missing, an instant has no time zone, or an observed value
            is no number.
    """
    names = [feature.source.value for feature in WEATHER]
    rule = WEATHER_OBSERVATION
    needed = [rule.entity, rule.time, *names]
    columns.require(weather, needed, "weather")
    weather = columns.plain_frame(weather[needed])
    weather[rule.entity] = columns.texts(weather[rule.entity])
    known = weather.assign(**{name: columns.numbers(weather[name]) for name in names})
    known = known[known[rule.time].notna()]
    event_s = seconds(known[rule.time])
    known = known.assign(event_s=event_s, available_s=event_s + rule.published_after_s)
    known = known.drop_duplicates([rule.entity, "event_s"])
    return known.sort_values("available_s", kind="stable", ignore_index=True)


def seconds(instants: pd.Series) -> npt.NDArray[np.int64]:
    """Turn instants into whole seconds since 1970-01-01 UTC.

    Raises:
        InvalidArgumentError: They have no time zone, or one is missing.
    """
    instants = columns.plain(instants)
    if not len(instants):
        return np.zeros(0, np.int64)
    if columns.kind(instants) != "instant":
        raise InvalidArgumentError(
            f"{instants.name} is {instants.dtype}, without a time zone: local times are ambiguous"
            " when clocks change; convert it with .dt.tz_localize(zone)"
        )
    if instants.isna().any():
        raise InvalidArgumentError(
            f"{int(instants.isna().sum())} of {len(instants)} values of {instants.name} are"
            " missing: leave these rows out"
        )
    utc = instants.dt.tz_convert("UTC").dt.tz_localize(None)
    since: npt.NDArray[np.int64] = utc.to_numpy("datetime64[s]").astype(np.int64)
    return since


def flight_ids(column: pd.Series) -> npt.NDArray[np.int64]:
    """Read the ids of flights.

    Raises:
        InvalidArgumentError: One is missing or no whole number.
    """
    ids = columns.plain(column)
    if not pd.api.types.is_integer_dtype(ids.dtype):
        found = columns.numbers(ids)
        is_odd = ~(np.isfinite(found) & (found == np.floor(found)))
        if is_odd.any():
            at = int(np.argmax(is_odd))
            raise InvalidArgumentError(
                f"{int(is_odd.sum())} of {len(ids)} values of {column.name} are no whole numbers,"
                f" such as {ids.iloc[at]} in row {ids.index[at]}: number the flights"
            )
        return found.astype(np.int64)
    return ids.to_numpy(np.int64)


def epoch_s(instant: datetime) -> int:
    """Turn one instant into whole seconds since 1970-01-01 UTC.

    Raises:
        InvalidArgumentError: It has no time zone.
    """
    if instant.utcoffset() is None:
        raise InvalidArgumentError(
            f"{instant} has no time zone: say which, such as with .replace(tzinfo=UTC)"
        )
    return math.floor(instant.timestamp())


def _available_s(event: StreamEvent) -> int:
    return event.available_s
