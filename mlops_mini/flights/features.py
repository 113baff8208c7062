"""What each feature of a flight is, said once: training and serving compute it from here.

`features.offline` and `features.online` repeat no number or rule of it, so they can't differ in a
definition, only in how they look values up, and a test compares these.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from mlops_mini.data import columns
from mlops_mini.features.feature_set import FeatureSet
from mlops_mini.features.sources import (
    Event,
    Feature,
    Formula,
    Latest,
    Observation,
    Window,
)
from mlops_mini.flights import times
from mlops_mini.flights.preparation import LATE_MIN

HOUR_S = 3600

# The weather of an hour is published when the hour is over.
WEATHER_OBSERVATION = Observation(
    table="weather",
    entity="origin",
    time="time_hour",
    published_after_s=HOUR_S,
    time_to_live_s=6 * HOUR_S,
)

# A canceled flight is scheduled and never departs; a diverted one departs and never arrives.
SCHEDULED = Event(kind="scheduled", table="flights", time="sched_dep_utc", value=None)
DEPARTURE = Event(kind="departure", table="flights", time="dep_utc", value="dep_delay")
ARRIVAL = Event(kind="arrival", table="flights", time="arr_utc", value="arr_delay")


def is_late(arr_delay: Any) -> Any:
    """Tell whether arrivals are late: a column or one number of minutes; False where missing."""
    return arr_delay > LATE_MIN


def _category(name: str, description: str) -> Feature[Formula]:
    return Feature(
        name=name,
        dtype="string",
        group="schedule",
        unit="",
        description=description,
        source=Formula(compute=lambda flight: flight[name]),
    )


def _schedule(
    name: str, unit: str, description: str, compute: Callable[[Mapping[str, Any]], Any]
) -> Feature[Formula]:
    return Feature(
        name=name,
        group="schedule",
        unit=unit,
        description=description,
        source=Formula(compute=compute),
    )


def _weather(name: str, unit: str, description: str) -> Feature[Latest]:
    return Feature(
        name=name,
        group="weather",
        unit=unit,
        description=description,
        source=Latest(observation=WEATHER_OBSERVATION, value=name),
    )


def _recent(name: str, unit: str, description: str, window: Window) -> Feature[Window]:
    return Feature(name=name, group="recent", unit=unit, description=description, source=window)


def _count(
    name: str,
    entity: str,
    event: Event,
    hours: int,
    description: str,
    *,
    less: Event | None = None,
) -> Feature[Window]:
    window = Window(
        entity=entity, event=event, window_s=hours * HOUR_S, aggregate="count", empty=0.0, less=less
    )
    return _recent(name, "flight", description, window)


def _mean(
    name: str,
    entity: str,
    event: Event,
    hours: int,
    description: str,
    *,
    value: Callable[[Any], Any] | None = None,
    unit: str = "min",
) -> Feature[Window]:
    window = Window(
        entity=entity,
        event=event,
        value=value,
        window_s=hours * HOUR_S,
        aggregate="mean",
        empty=float("nan"),
    )
    return _recent(name, unit, description, window)


def _clock(flight: Mapping[str, Any], name: str) -> "pd.Series[float]":
    """Read a column of clock times, such as 1735."""
    return pd.Series(columns.numbers(flight[name]), index=flight[name].index)


SCHEDULE = (
    _category("carrier", "carrier that sells the flight, two characters"),
    _category("origin", "airport of departure: EWR, JFK or LGA"),
    _category("dest", "airport of arrival, three letters"),
    _schedule(
        "mins",
        "min",
        "scheduled departure, since local midnight",
        lambda flight: times.minutes(_clock(flight, "sched_dep_time")),
    ),
    _schedule(
        "dow",
        "day",
        "local day of the week of the scheduled departure, Monday 0",
        lambda flight: (flight["epoch_day"] + 3) % 7,  # 1970-01-01 was a Thursday
    ),
    _schedule("distance", "mile", "from airport to airport", lambda flight: flight["distance"]),
    _schedule(
        "block",
        "min",
        "scheduled time from gate to gate",
        lambda flight: times.block_min(
            _clock(flight, "sched_dep_time"),
            _clock(flight, "sched_arr_time"),
            flight["shift_min"],
        ),
    ),
)

WEATHER = (
    _weather("temp", "degF", "temperature at the origin"),
    _weather("dewp", "degF", "dew point at the origin"),
    _weather("humid", "%", "relative humidity at the origin"),
    _weather("wind_speed", "mph", "wind at the origin"),
    _weather("wind_gust", "mph", "gusts at the origin, missing when there are none"),
    _weather("precip", "inch", "precipitation at the origin in the hour"),
    _weather("pressure", "mbar", "sea level pressure at the origin"),
    _weather("visib", "mile", "visibility at the origin, at most 10"),
)

RECENT = (
    _count("org_dep_n_1h", "origin", DEPARTURE, 1, "departures from the origin, 1 h"),
    _mean("org_dep_mean_1h", "origin", DEPARTURE, 1, "their mean departure delay"),
    _count("org_dep_n_3h", "origin", DEPARTURE, 3, "departures from the origin, 3 h"),
    _mean("org_dep_mean_3h", "origin", DEPARTURE, 3, "their mean departure delay"),
    *(
        _mean(
            f"car_dep_mean_{hours}h",
            "carrier",
            DEPARTURE,
            hours,
            f"mean departure delay of the carrier, from all origins, {hours} h",
        )
        for hours in (3, 24)
    ),
    _count("car_late_n_6h", "carrier", ARRIVAL, 6, "arrivals of the carrier, 6 h"),
    _mean(
        "car_late_mean_6h",
        "carrier",
        ARRIVAL,
        6,
        "how many of them were late, 0 to 1",
        value=is_late,
        unit="share",
    ),
    _mean("dst_arr_mean_24h", "dest", ARRIVAL, 24, "mean arrival delay at the destination, 24 h"),
    _count(
        "org_overdue",
        "origin",
        SCHEDULED,
        3,
        "scheduled departures less departures at the origin, 3 h; a canceled flight counts too",
        less=DEPARTURE,
    ),
)

# No outcome is among the inputs.
FEATURES = FeatureSet(
    of="flights",
    key="flight_id",
    time="sched_dep_utc",
    due="-60min",
    inputs=(
        "year",
        "month",
        "day",
        "sched_dep_time",
        "sched_arr_time",
        "carrier",
        "origin",
        "dest",
        "distance",
    ),
    features=(*SCHEDULE, *WEATHER, *RECENT),
)
