"""Features of one flight, for a request to the model while it serves."""

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from mlops_mini.data import datasets, times
from mlops_mini.data.periods import NEW_YORK
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features.definitions import FEATURES, FLIGHT_COLUMNS

_TEXT = ("carrier", "origin", "dest")


def compute(
    flight: Mapping[str, Any], *, zones: Mapping[str, str] | None = None
) -> dict[str, float | str]:
    """Compute the features of one flight, before it departs.

    The values are those that `offline.compute` gives for the same flight, bit for bit.

    Args:
        flight: `definitions.FLIGHT_COLUMNS`, in the units of `datasets.flights`. `carrier`,
            `origin`, `dest` and `distance` may be None or NaN; what else it holds is not read.
        zones: IANA zone by airport code; without it those of the default data folder.

    Returns:
        Value by feature, in the order of `definitions.FEATURES`: numbers that float32 can hold, NaN
        for missing, and strings, empty for missing. A destination without a zone has no `block`.

    Raises:
        InvalidArgumentError: A value is not there, or date and times are none.

    >>> flight = {"year": 2013, "month": 1, "day": 1, "sched_dep_time": 515, "sched_arr_time": 819}
    >>> compute(flight | {"carrier": "UA", "origin": "EWR", "dest": "IAH", "distance": 1400})
    {'carrier': 'UA', 'origin': 'EWR', 'dest': 'IAH', 'mins': 315.0, 'dow': 1.0, 'distance': 1400.0,
     'block': 244.0}
    """
    inputs = _look_up(flight, datasets.airport_zones() if zones is None else zones)
    values: dict[str, float | str] = {}
    for feature in FEATURES:
        value = feature.formula(inputs)
        values[feature.name] = value if feature.dtype == "string" else float(np.float32(value))
    return values


def _look_up(flight: Mapping[str, Any], zones: Mapping[str, str]) -> dict[str, Any]:
    missing = [name for name in FLIGHT_COLUMNS if name not in flight]
    if missing:
        raise InvalidArgumentError(f"features need {missing} too; there is {sorted(flight)}")
    texts = {name: flight[name] if isinstance(flight[name], str) else "" for name in _TEXT}
    try:
        day = date(int(flight["year"]), int(flight["month"]), int(flight["day"]))
        clock = {name: int(flight[name]) for name in ("sched_dep_time", "sched_arr_time")}
        distance = np.nan if flight["distance"] is None else float(flight["distance"])
    except (TypeError, ValueError, OverflowError) as exc:
        asked = {name: flight[name] for name in FLIGHT_COLUMNS if name not in _TEXT}
        raise InvalidArgumentError(
            f"no features of {asked} ({exc}); expected a date, times as HHMM and miles"
        ) from exc
    since_midnight = timedelta(minutes=times.minutes(clock["sched_dep_time"]))
    departure = datetime.combine(day, time()) + since_midnight
    return {
        **texts,
        **clock,
        "distance": distance,
        "epoch_day": (day - date(1970, 1, 1)).days,
        "shift_min": _clock_shift_min(departure, zones.get(texts["dest"])),
    }


def _clock_shift_min(departure: datetime, zone: str | None) -> float:
    """The scalar twin of `times.clock_shift_min`."""
    if zone is None:
        return float("nan")
    here = departure.replace(tzinfo=ZoneInfo(NEW_YORK)).astimezone(ZoneInfo("UTC"))
    offsets = [here.astimezone(ZoneInfo(key)).utcoffset() for key in (zone, NEW_YORK)]
    there, new_york = (offset or timedelta() for offset in offsets)
    return (there - new_york) / timedelta(minutes=1)
