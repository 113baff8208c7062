"""Which hours of weather are there: holes, freshness, and observations that say nothing."""

import pandas as pd

from mlops_mini.data import columns
from mlops_mini.data.periods import Period
from mlops_mini.data.rules import Finding
from mlops_mini.errors import InvalidArgumentError

ORIGINS = ("EWR", "JFK", "LGA")

# An observation is published one hour after its hour, and used for at most six hours from then.
PUBLISHED_AFTER = pd.Timedelta(hours=1)
MAX_AGE = pd.Timedelta(hours=6)


def completeness(weather: pd.DataFrame, period: Period | str) -> pd.DataFrame:
    """Count the hours that are there and those that are not.

    Args:
        weather: Columns `origin` and `time_hour`; hours out of the period do not count.
        period: Month or week.

    Returns:
        One row for each of `ORIGINS`, index `origin`: `n_expected` and `n_missing` hours,
        `longest_gap_h`, the most that are missing in a row, and `age_h`, the hours from the
        publication of the last observation to the end of the period, NaN without any.

    Raises:
        InvalidArgumentError: A column is not there, or `time_hour` has no time zone.

    >>> from mlops_mini.flights import datasets
    >>> completeness(datasets.weather(), "2013-12")
            n_expected  n_missing  longest_gap_h  age_h
    origin
    EWR            744         30             29   29.0
    JFK            744         29             29   29.0
    LGA            744         29             29   29.0
    """
    columns.require(weather, ("origin", "time_hour"), "complete hours")
    weather = columns.plain_frame(weather[["origin", "time_hour"]])
    if columns.kind(weather["time_hour"]) not in {"instant", "empty"}:
        raise InvalidArgumentError(
            f"time_hour is {weather['time_hour'].dtype}, expected instants with a time zone, or all"
            " hours would be missing: convert it with .dt.tz_localize('UTC')"
        )
    period = Period.parse(period)
    # First, for an hour of the year 9999 has no nanoseconds to be looked up by.
    weather = weather[weather["time_hour"].between(period.start, period.end)]
    hours = pd.date_range(period.start, period.end, freq="h", inclusive="left")
    table = {}
    for origin in ORIGINS:
        is_there = hours.isin(weather.loc[weather["origin"] == origin, "time_hour"])
        # A hole and the hour before it share a number.
        gaps = pd.Series(~is_there).groupby(is_there.cumsum()).sum()
        age = period.end - (hours[is_there].max() + PUBLISHED_AFTER)
        table[origin] = {
            "n_expected": len(hours),
            "n_missing": int((~is_there).sum()),
            "longest_gap_h": int(gaps.max()),
            "age_h": age / pd.Timedelta(hours=1),
        }
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("origin")


def weather_findings(weather: pd.DataFrame, period: Period | str) -> tuple[Finding, ...]:
    """Tell what is missing from a partition of weather, none of which keeps it from being used.

    Args:
        weather: As it arrived, with the columns of `datasets.weather`: an hour that breaks a rule
            is there nevertheless.
        period: Month or week that it is the partition of.

    Returns:
        At most one `incomplete` and one `stale` for each of `ORIGINS`, and an `empty observation`
        for each row that has neither temperature, dew point nor humidity.
    """
    found = []
    max_age_h = MAX_AGE / pd.Timedelta(hours=1)
    for origin, hours in completeness(weather, period).to_dict("index").items():
        if hours["n_missing"]:
            text = (
                f"{origin} lacks {hours['n_missing']} of {hours['n_expected']} hours of {period},"
                f" at most {hours['longest_gap_h']} in a row"
            )
            found.append(Finding(name="incomplete", column="time_hour", text=text))
        if not hours["age_h"] <= max_age_h:  # NaN, no hour at all, is not either
            text = (
                f"{origin}'s last hour is {hours['age_h']:.0f} h old at the end of {period},"
                f" and is used for at most {max_age_h:.0f} h"
            )
            found.append(Finding(name="stale", column="time_hour", text=text))
    is_empty = columns.plain_frame(weather[["temp", "dewp", "humid"]]).isna().all(axis=1)
    found += [
        Finding(
            name="empty observation",
            column="temp, dewp, humid",
            text=f"{row.origin} at {row.time_hour} has no temperature, dew point and humidity",
        )
        for row in weather[is_empty].itertuples()
    ]
    return tuple(found)
