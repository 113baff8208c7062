"""What happens, in the order in which it becomes known: the input of recent features.

Offline it is a table of the whole past, online a stream of single records.
"""

import math
from bisect import bisect_right
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from itertools import repeat
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from mlops_mini.data import columns
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import key_columns
from mlops_mini.features.feature_set import FeatureSet
from mlops_mini.features.instants import epoch_s, in_utc, seconds
from mlops_mini.features.key_columns import Key
from mlops_mini.features.sources import Observation

# Sums of millions of values below this are exact in 64 bits, as whole numbers and as floats.
MOST = 2**31


class Happening(NamedTuple):
    """Something that has happened to a row of a table.

    Attributes:
        kind: One of the feature set's events.
        id: Which row; with `kind` it tells whether two deliveries are of one event.
        event_s: When it happened, seconds since 1970-01-01 UTC.
        available_s: When it became known; not used before.
        entities: At which entities, in the order of `FeatureSet.entities`; None for none.
        value: A whole number; None for an event without a value.
    """

    kind: str
    id: Key
    event_s: int
    available_s: int
    entities: tuple[Key | None, ...]
    value: int | None

    @property
    def identity(self) -> Hashable:
        """What two deliveries of one event share."""
        return self.kind, self.id


class Observed(NamedTuple):
    """An observation of an entity.

    Attributes:
        table: Of which series.
        entity: Whose.
        event_s: The instant observed, seconds since 1970-01-01 UTC; with `table` and `entity` it
            tells whether two deliveries are of one observation.
        available_s: When it was published.
        numbers: By column, NaN for missing.
    """

    table: str
    entity: Key
    event_s: int
    available_s: int
    numbers: Mapping[str, float]

    @property
    def identity(self) -> Hashable:
        """What two deliveries of one observation share."""
        return self.table, self.entity, self.event_s


StreamEvent: TypeAlias = Happening | Observed


def from_tables(
    feature_set: FeatureSet, tables: Mapping[str, pd.DataFrame], keys: Mapping[str, str]
) -> pd.DataFrame:
    """List what has happened to the rows of tables.

    Args:
        feature_set: Which events, and the entities that they are looked up by.
        tables: Prepared rows by table, those of several periods in one frame; each table of an
            event.
        keys: The column that tells rows apart, by table.

    Returns:
        One row per event, in the order of `available_at`: `kind`, `id`, the instants `event_utc`
        and `available_at` (`datetime64[ns, UTC]`), a column for each of `FeatureSet.entities`, and
        `value`, float64, NaN for an event without one.

    Raises:
        InvalidArgumentError: A table or a column is not there, an instant has no time zone, a value
            is no number, or a row has no key.

    >>> from mlops_mini.features.sources import Event, Feature, Window
    >>> stop = Event(kind="stop", table="stops", time="began", value="minutes")
    >>> window = Window(entity="line", event=stop, window_s=3600, aggregate="count", empty=0)
    >>> stops_1h = Feature(name="n", group="recent", unit="", description="", source=window)
    >>> machines = FeatureSet(
    ...     of="orders", key="order", time="due", inputs=["line"], features=[stops_1h]
    ... )
    >>> stops = pd.DataFrame(
    ...     {"stop_id": ["s1"], "line": ["A"], "minutes": [12], "began": pd.Timestamp(0, tz="UTC")}
    ... )
    >>> history = from_tables(machines, {"stops": stops}, {"stops": "stop_id"})
    >>> stream(machines, history)
    [Happening(kind='stop', id='s1', event_s=0, available_s=0, entities=('A',), value=12)]
    """
    parts = [
        _happened(feature_set, table, tables, keys)
        for table in dict.fromkeys(event.table for event in feature_set.events)
    ]
    history = (
        pd.concat(parts, ignore_index=True)
        if parts
        else pd.DataFrame(columns=_history_columns(feature_set))
    )
    return history.sort_values("available_at", kind="stable", ignore_index=True)


def stream(
    feature_set: FeatureSet,
    history: pd.DataFrame,
    observed: Mapping[str, pd.DataFrame] = MappingProxyType({}),
) -> list[StreamEvent]:
    """Put events and observations into one stream, as a store receives it.

    Args:
        feature_set: Which events and observations; others are left out.
        history: As `from_tables` gives it.
        observed: Rows by table of observations; without a table there are none of it.

    Returns:
        Records in the order in which they become available.

    Raises:
        InvalidArgumentError: A column is missing, an instant has no time zone, or a value of an
            event is no whole number.
    """
    known = checked_history(feature_set, history)
    entities = zip(*(known[name].tolist() for name in feature_set.entities), strict=True)
    columns_of_event = [known[name].tolist() for name in ("kind", "id", "event_s", "available_s")]
    values = [None if math.isnan(value) else int(value) for value in known["value"]]
    records: list[StreamEvent] = list(
        map(Happening, *columns_of_event, entities if feature_set.entities else repeat(()), values)
    )
    for observation in feature_set.observations:
        if observation.table not in observed:
            continue
        published = checked_observations(feature_set, observation, observed[observation.table])
        numbers = published[list(feature_set.columns_of(observation))].to_dict("records")
        whose = published[observation.entity].tolist()
        instants = (published[name].tolist() for name in ("event_s", "available_s"))
        records += map(Observed, repeat(observation.table), whose, *instants, numbers)
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


def checked_history(feature_set: FeatureSet, history: pd.DataFrame) -> pd.DataFrame:
    """Check a table of events, and bring it into the form that windows are computed from.

    Args:
        feature_set: Which events; other kinds are left out.
        history: As `from_tables` gives it, rows in any order.

    Returns:
        In the order of availability, instants as `event_s` and `available_s`, whole seconds since
        1970-01-01 UTC. Left out is what has no time or lacks the value of its kind, and all but the
        first delivery of an event.

    Raises:
        InvalidArgumentError: A column is missing, an instant has no time zone, or a value is no
            whole number.
    """
    names = _history_columns(feature_set)
    columns.require(history, names, "events")
    history = history[names].reset_index(drop=True)
    history["kind"] = columns.texts(history["kind"])
    history["value"] = columns.numbers(history["value"])
    kinds_with_value = [event.kind for event in feature_set.events if event.value is not None]
    is_used = history["kind"].isin([event.kind for event in feature_set.events])
    is_used &= history["value"].notna() | ~history["kind"].isin(kinds_with_value)
    is_used &= history["event_utc"].notna() & history["available_at"].notna()
    used = history if is_used.all() else history[is_used]
    require_whole(used["value"])
    known = pd.DataFrame(
        {
            "kind": used["kind"],
            "id": _ids(used),
            "event_s": seconds(used["event_utc"]),
            "available_s": seconds(used["available_at"]),
            **{name: key_columns.read(used[name]) for name in feature_set.entities},
            "value": used["value"],
        }
    )
    known = known.sort_values("available_s", kind="stable", ignore_index=True)
    return known.drop_duplicates(["kind", "id"], ignore_index=True)


def checked_observations(
    feature_set: FeatureSet, observation: Observation, rows: pd.DataFrame
) -> pd.DataFrame:
    """Check observations, and say when each was published.

    Args:
        feature_set: Which columns are used.
        observation: Of which series they are.
        rows: Its table, rows in any order.

    Returns:
        In the order of availability, with `event_s` and `available_s`, whole seconds since
        1970-01-01 UTC; of two observations of the same entity and instant only the first.

    Raises:
        InvalidArgumentError: A column is missing, an instant has no time zone, or an observed value
            is no number.
    """
    names = feature_set.columns_of(observation)
    needed = [observation.entity, observation.time, *names]
    columns.require(rows, needed, f"observations of {observation.table}")
    known = columns.plain_frame(rows[needed])
    known = known.assign(**{name: columns.numbers(known[name]) for name in names})
    known[observation.entity] = key_columns.read(known[observation.entity])
    known = known[known[observation.time].notna()]
    event_s = seconds(known[observation.time])
    known = known.assign(event_s=event_s, available_s=event_s + observation.published_after_s)
    known = known.drop_duplicates([observation.entity, "event_s"])
    return known.sort_values("available_s", kind="stable", ignore_index=True)


def require_whole(values: "pd.Series[float]") -> None:
    """Refuse values that are no whole numbers: their sums would depend on the order.

    Raises:
        InvalidArgumentError: A value that is not missing is a fraction, or too large.
    """
    numbers = values.to_numpy(np.float64)
    with np.errstate(invalid="ignore"):
        is_whole = (np.abs(numbers) < MOST) & (numbers == np.floor(numbers))
    is_odd = ~np.isnan(numbers) & ~is_whole
    if is_odd.any():
        raise InvalidArgumentError(
            f"{int(is_odd.sum())} values of events are no whole numbers below 2**31, such as"
            f" {numbers[is_odd][0]}: round them, or count in a smaller unit, such as tenths of a"
            " degree; else sums online and offline would differ in the last digits"
        )


def _happened(
    feature_set: FeatureSet,
    table: str,
    tables: Mapping[str, pd.DataFrame],
    keys: Mapping[str, str],
) -> pd.DataFrame:
    """List what has happened to the rows of one table."""
    if table not in tables or table not in keys:
        raise InvalidArgumentError(
            f"events need the table {table!r} and its key; there are the tables {sorted(tables)}"
            f" and the keys {dict(keys)}"
        )
    rows, key = tables[table], keys[table]
    if table == feature_set.of and key != feature_set.key:
        raise InvalidArgumentError(
            f"the key of {table!r} is {feature_set.key!r} in the feature set and {key!r} here: an"
            " example would not know which events are its own"
        )
    columns.require(rows, [key], f"events of {table}")
    shared = {"id": key_columns.read_complete(rows[key]).array} | {
        name: key_columns.read(rows[name]).array if name in rows else None
        for name in feature_set.entities
    }
    parts = []
    for event in feature_set.events:
        if event.table == table:
            values = () if event.value is None else (event.value,)
            needed = (event.time, *feature_set.entities_of(event), *values)
            columns.require(rows, needed, f"events of the kind {event.kind!r}")
            happened_at = in_utc(rows[event.time])
            known_after = pd.Timedelta(seconds=event.published_after_s)
            part = {
                "kind": event.kind,
                "event_utc": happened_at.array,
                "available_at": (happened_at + known_after).array,
                "value": columns.numbers(rows[event.value]) if event.value else np.nan,
            }
            parts.append(pd.DataFrame(part | shared)[happened_at.notna().to_numpy()])
    return pd.concat(parts, ignore_index=True)[_history_columns(feature_set)]


def _history_columns(feature_set: FeatureSet) -> list[str]:
    return ["kind", "id", "event_utc", "available_at", *feature_set.entities, "value"]


def _ids(known: pd.DataFrame) -> "pd.Series[Any]":
    """Read the keys of rows: one table may have numbers, another texts."""
    if isinstance(known["id"].dtype, np.dtype) and known["id"].dtype.kind == "i":
        numbers: pd.Series[Any] = known["id"].astype(np.int64)
        return numbers
    if known.empty:
        return known["id"]
    parts = [key_columns.read_complete(ids) for _, ids in known["id"].groupby(known["kind"])]
    ids: pd.Series[Any] = pd.concat(parts).reindex(known.index)
    return ids


def _available_s(event: StreamEvent) -> int:
    return event.available_s
