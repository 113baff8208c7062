"""Rules that flights and hourly weather must keep."""

from functools import partial

import numpy as np
import pandas as pd

from mlops_mini.data import rules
from mlops_mini.data.table import RowRule, WholeRule
from mlops_mini.flights.airports import NEW_YORK, ORIGINS


def _is_clock_time(column: str) -> RowRule:
    def keeps(flights: pd.DataFrame) -> "pd.Series[bool]":
        return flights[column].between(0, 2400) & (flights[column] % 100 < 60)

    return rules.row_rule("is a clock time HHMM", [column], keeps)


def _date_exists(flights: pd.DataFrame) -> "pd.Series[bool]":
    parts = flights[["year", "month", "day"]]
    # Left out first, for infinite numbers raise even so.
    possible = parts.where((parts >= 1) & (parts <= 9999))
    return pd.to_datetime(possible, errors="coerce").notna()


def _arrived_only_if_departed(flights: pd.DataFrame) -> "pd.Series[bool]":
    return flights["dep_delay"].notna() | flights["arr_delay"].isna()


def _local_hour_agrees(weather: pd.DataFrame) -> "pd.Series[bool]":
    local = weather["time_hour"].dt.tz_convert(NEW_YORK).dt
    agrees: pd.Series[bool] = (
        (weather["year"] == local.year)
        & (weather["month"] == local.month)
        & (weather["day"] == local.day)
        & (weather["hour"] == local.hour)
    )
    return agrees


def _speed_mph(flights: pd.DataFrame) -> pd.Series:
    return flights["distance"] / flights["air_time"].where(flights["air_time"] > 0) * 60


def _size(flights: pd.DataFrame, *, name: str) -> pd.Series:
    return flights[name].abs()


def _off_whole_knots(weather: pd.DataFrame, *, name: str) -> pd.Series:
    knots = weather[name] / 1.150_78
    return (knots - knots.round()).abs()


def _humidity_gap(weather: pd.DataFrame) -> pd.Series:
    """Compare the humidity with what temperature and dew point say, percentage points.

    Source: Alduchov and Eskridge, "Improved Magnus form approximation of saturation vapor
    pressure", Journal of Applied Meteorology 35 (1996).
    """
    temp, dewp = ((weather[name] - 32) / 1.8 for name in ("temp", "dewp"))
    exponent = 17.625 * dewp / (243.04 + dewp) - 17.625 * temp / (243.04 + temp)
    gap: pd.Series = (100 * np.exp(exponent) - weather["humid"]).abs()
    return gap


WEATHER_LIMITS = {
    "temp": (-30, 120),
    "dewp": (-60, 90),
    "humid": (0, 100),
    "wind_dir": (0, 360),
    "wind_speed": (0, 100),
    "wind_gust": (0, 150),
    "precip": (0, 12),
    "pressure": (870, 1085),
    "visib": (0, 10),
}

# They hold for all flights of 2013 but one, of 17 miles. Delays have no limits: the longest is over
# 21 hours, and true. Beside the limits on a whole partition stand the extremes of all months and
# weeks of 2013, here and in another unit.
FLIGHTS: tuple[RowRule | WholeRule, ...] = (
    *rules.is_whole(
        "flight_id",
        "year",
        "month",
        "day",
        "sched_dep_time",
        "sched_arr_time",
        "dep_delay",
        "arr_delay",
        "air_time",
        "flight",
        "distance",
    ),
    rules.in_range("day", 1, 31),
    _is_clock_time("sched_dep_time"),
    _is_clock_time("sched_arr_time"),
    rules.has_length("carrier", 2),
    rules.is_in("origin", ORIGINS),
    rules.has_length("dest", 3),
    rules.in_range("distance", 50, 5000),
    rules.row_rule("is a date", ["year", "month", "day"], _date_exists),
    rules.row_rule(
        "no arrival without departure", ["dep_delay", "arr_delay"], _arrived_only_if_departed
    ),
    rules.unique("year", "month", "day", "carrier", "flight", "origin"),
    WholeRule(  # 764 to 1,008; in km 1,229 and more
        columns=("distance",),
        quantity="distance",
        values=lambda flights: flights["distance"],
        low=600,
        high=1_110,
        unit="miles",
    ),
    WholeRule(  # 366 to 438; in km 589 and more
        columns=("distance", "air_time"),
        quantity="speed",
        values=_speed_mph,
        low=250,
        high=510,
        unit="mph",
    ),
    *(
        WholeRule(  # departure 5 to 11, arrival 12 to 23; in seconds 300 and more
            columns=(name,),
            quantity="size",
            values=partial(_size, name=name),
            low=2,
            high=120,
            unit="min",
        )
        for name in ("dep_delay", "arr_delay")
    ),
)

# They hold for all hours of 2013 but one, with a wind of 1,048 mph. Whole partitions are judged by
# airport, for each has a station of its own, but for rain, which is rare.
WEATHER: tuple[RowRule | WholeRule, ...] = (
    *rules.is_whole("year", "month", "day", "hour"),
    rules.is_in("origin", ORIGINS),
    *(rules.in_range(name, low, high) for name, (low, high) in WEATHER_LIMITS.items()),
    rules.row_rule(
        "is a full hour",
        ["time_hour"],
        lambda weather: weather["time_hour"] == weather["time_hour"].dt.floor("h"),
    ),
    rules.row_rule(
        "is the local hour of time_hour", ["year", "month", "day", "hour"], _local_hour_agrees
    ),
    WholeRule(  # .01 to .03; with both in degrees Celsius 4.4 and more
        columns=("temp", "dewp", "humid"),
        quantity="gap between humid and what temp and dewp make of it",
        values=_humidity_gap,
        low=0,
        high=1,
        unit="%",
        by="origin",
    ),
    *(
        WholeRule(  # .00, as stations report whole knots; in km/h, m/s or knots about .25
            columns=(name,),
            quantity="distance from whole knots",
            values=partial(_off_whole_knots, name=name),
            low=0,
            high=0.05,
            unit="knots",
            by="origin",
            min_rows=5,
        )
        for name in ("wind_speed", "wind_gust")
    ),
    WholeRule(  # .01 to .17; in mm .25 and more. A week without rain cannot tell.
        columns=("precip",),
        quantity="precipitation of wet hours",
        values=lambda weather: weather["precip"].where(weather["precip"] > 0),
        low=0.005,
        high=0.21,
        unit="inches",
        min_rows=5,
    ),
)
