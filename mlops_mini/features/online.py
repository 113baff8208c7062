"""Features of one flight, for a request to the model while it serves."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from mlops_mini.data.periods import NEW_YORK
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features.store import Store
from mlops_mini.flights import datasets, times
from mlops_mini.flights.definitions import FLIGHT_COLUMNS, SCHEDULE

_TEXT = ("carrier", "origin", "dest")


def compute(
    flight: Mapping[Any, Any],
    *,
    store: Store | None = None,
    at: datetime | None = None,
    zones: Mapping[str, str] | None = None,
) -> dict[str, float | str]:
    """Compute the features of one flight, before it departs.

    The values are those that `offline.compute` gives for the same flight, bit for bit, once the
    store knows all that had happened by then. Whoever asks a model server calls this to make the
    request; `Store.as_of` tells how far the store is.

    Args:
        flight: `definitions.FLIGHT_COLUMNS`, in the units of `datasets.flights`. `carrier`,
            `origin`, `dest` and `distance` may be missing (None, NaN or pd.NA); what else it holds
            is not read, but for its `flight_id`: with it the flight's own events do not count.
        store: Where weather and recent features come from; without it there are none of these.
        at: As of when, usually now; without it 60 minutes before the scheduled departure.
        zones: IANA zone by airport code; without it those of the default data folder.

    Returns:
        Value by feature, in the order of `definitions.FEATURES`: numbers that float32 can hold, NaN
        for missing, and strings, empty for missing. A destination without a zone has no `block`.

    Raises:
        InvalidArgumentError: A value is not there, date and times are none, or `at` has no time
            zone.
        FailedPreconditionError: The store has forgotten what was before `at`.
        UnavailableError: The store does not answer. What to do is the caller's decision: ask a
            fallback model that needs no recent features, rather than send missing ones.

    >>> flight = {"year": 2013, "month": 1, "day": 1, "sched_dep_time": 515, "sched_arr_time": 819}
    >>> compute(flight | {"carrier": "UA", "origin": "EWR", "dest": "IAH", "distance": 1400})
    {'carrier': 'UA', 'origin': 'EWR', 'dest': 'IAH', 'mins': 315.0, 'dow': 1.0, 'distance': 1400.0,
     'block': 244.0}
    """
    inputs = _look_up(flight, datasets.airport_zones() if zones is None else zones)
    values: dict[str, float | str] = {}
    for feature in SCHEDULE:
        value = feature.source.compute(inputs)
        values[feature.name] = value if feature.dtype == "string" else float(np.float32(value))
    if store is None:
        return values
    reading = store.read(
        **{name: inputs[name] for name in _TEXT},
        at=inputs["departure"] - times.HORIZON if at is None else at,
        without=None if pd.isna(flight.get("flight_id")) else flight["flight_id"],
    )
    return values | {name: float(np.float32(value)) for name, value in reading.features.items()}


def _look_up(flight: Mapping[str, Any], zones: Mapping[str, str]) -> dict[str, Any]:
    missing = [name for name in FLIGHT_COLUMNS if name not in flight]
    if missing:
        raise InvalidArgumentError(f"features need {missing} too; there is {sorted(flight)}")
    texts = {name: flight[name] if isinstance(flight[name], str) else "" for name in _TEXT}
    try:
        day = date(int(flight["year"]), int(flight["month"]), int(flight["day"]))
        clock = {name: int(flight[name]) for name in ("sched_dep_time", "sched_arr_time")}
        distance = np.nan if pd.isna(flight["distance"]) else float(flight["distance"])
    except (TypeError, ValueError, OverflowError) as exc:
        asked = {name: flight[name] for name in FLIGHT_COLUMNS if name not in _TEXT}
        raise InvalidArgumentError(
            f"no features of {asked} ({exc}); expected a date, times as HHMM and miles"
        ) from exc
    since_midnight = timedelta(minutes=times.minutes(clock["sched_dep_time"]))
    local = datetime.combine(day, time()) + since_midnight
    departure = local.replace(tzinfo=ZoneInfo(NEW_YORK)).astimezone(UTC)
    return {
        **texts,
        **clock,
        "distance": distance,
        "departure": departure,
        "epoch_day": (day - date(1970, 1, 1)).days,
        "shift_min": _clock_shift_min(departure, zones.get(texts["dest"])),
    }


def _clock_shift_min(departure: datetime, zone: str | None) -> float:
    """The scalar twin of `times.clock_shift_min`."""
    if zone is None:
        return float("nan")
    offsets = [departure.astimezone(ZoneInfo(key)).utcoffset() for key in (zone, NEW_YORK)]
    there, new_york = (offset or timedelta() for offset in offsets)
    return (there - new_york) / timedelta(minutes=1)
