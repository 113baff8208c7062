"""The instants of a flight, derived from local clock times, delays and time zones.

`minutes` and `block_min` work alike on columns and on the numbers of one flight, so that features
computed offline and online share them.
"""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import pandas as pd

from mlops_mini.data import columns, local_times
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.flights.airports import NEW_YORK

NumberOrColumn = TypeVar("NumberOrColumn", int, float, pd.Series)

HORIZON = pd.Timedelta(minutes=60)

# No delay is 19 years long, and longer ones have no place in 64 bits of nanoseconds.
MOST_MINUTES = 1e7


def minutes(hhmm: NumberOrColumn) -> NumberOrColumn:
    """Count the minutes since midnight of a clock time.

    Args:
        hhmm: Clock time as a number, such as 1735; midnight at the end of a day is 2400.

    Returns:
        Minutes, 0 to 1440.

    >>> minutes(1735), minutes(2400)
    (1055, 1440)
    """
    return hhmm // 100 * 60 + hhmm % 100


def block_min(
    sched_dep_time: NumberOrColumn, sched_arr_time: NumberOrColumn, shift_min: NumberOrColumn
) -> NumberOrColumn:
    """Tell how long a flight is scheduled to take from gate to gate.

    Args:
        sched_dep_time: HHMM on the clocks of the origin.
        sched_arr_time: HHMM on the clocks of the destination.
        shift_min: By how much the destination's clocks are ahead at departure, minutes.

    Returns:
        Minutes, 0 to 1439; missing where the shift is.

    >>> block_min(2310, 105, -60)  # an hour west
    175
    """
    return (minutes(sched_arr_time) - minutes(sched_dep_time) - shift_min) % 1440


def scheduled_departure(flights: pd.DataFrame) -> pd.Series:
    """Tell when flights are to leave, as instants.

    Args:
        flights: Columns `year month day sched_dep_time` as `datasets.flights` gives them, or of
            another dtype.

    Returns:
        `datetime64[ns, UTC]` named `sched_dep_utc`, index as given; `local_times.to_utc` says which
        instant is meant on the nights when the clocks go back or forward.

    Raises:
        InvalidArgumentError: A column is not there, a value is missing or no number, or a date does
            not exist.
    """
    flights = _numbers(flights, ("year", "month", "day", "sched_dep_time"))
    is_incomplete = flights.isna().any(axis=1).to_numpy()
    if is_incomplete.any():
        raise InvalidArgumentError(
            f"{int(is_incomplete.sum())} of {len(flights)} flights have no date or scheduled time,"
            f" such as row {flights.index[int(np.argmax(is_incomplete))]}; take such rows out first"
            " with rules.split"
        )
    since_midnight = pd.to_timedelta(minutes(flights["sched_dep_time"]), unit="min")
    try:
        local = pd.to_datetime(flights[["year", "month", "day"]]) + since_midnight
    except ValueError as exc:
        raise InvalidArgumentError(
            f"a flight has a date that does not exist ({exc}); take such rows out first with"
            " rules.split"
        ) from exc
    return local_times.to_utc(local, NEW_YORK).rename("sched_dep_utc")


def clock_shift_min(
    dest: pd.Series, instant: pd.Series, zones: Mapping[str, str]
) -> "pd.Series[float]":
    """Tell by how much the clocks of destinations are ahead of New York's.

    Args:
        dest: Airport codes.
        instant: When, `datetime64[ns, UTC]`, same index.
        zones: IANA zone by airport code.

    Returns:
        Minutes, float64, NaN for an airport without a zone.
    """
    dest, instant = columns.plain(dest), columns.plain(instant)
    new_york = instant.dt.tz_convert(NEW_YORK).dt.tz_localize(None)
    shift = pd.Series(np.nan, index=dest.index, dtype="float64")
    zone = dest.map(zones)
    for name in zone.dropna().unique():
        there = zone == name
        local = instant[there].dt.tz_convert(name).dt.tz_localize(None)
        shift[there] = (local - new_york[there]) / pd.Timedelta(minutes=1)
    return shift


def derive_utc(flights: pd.DataFrame, zones: Mapping[str, str]) -> pd.DataFrame:
    """Derive the instants of flights.

    Args:
        flights: As `datasets.flights` gives them.
        zones: IANA zone by airport code, as `airports.zones` gives them.

    Returns:
        One row a flight, index as given, instants `datetime64[ns, UTC]`:

        - `sched_dep_utc`, and `pred_utc`, 60 minutes before it, when a prediction is due.
        - `dep_utc`: actual departure, NaT if canceled.
        - `block_min`: scheduled minutes from gate to gate, float64.
        - `sched_arr_utc`, and `arr_utc`, the actual arrival, NaT if canceled or diverted.

        What needs the zone of an airport that has none in `zones` is missing.

    Raises:
        InvalidArgumentError: As `scheduled_departure`, or a delay is no number.

    >>> from mlops_mini.flights import airports, datasets
    >>> flights = datasets.flights("2013-01").set_index("flight_id")
    >>> derive_utc(flights, airports.zones()).loc[3]  # JFK to Puerto Rico
    sched_dep_utc    2013-01-01 10:45:00+00:00
    pred_utc         2013-01-01 09:45:00+00:00
    dep_utc          2013-01-01 10:44:00+00:00
    block_min                            217.0
    sched_arr_utc    2013-01-01 14:22:00+00:00
    arr_utc          2013-01-01 14:04:00+00:00
    Name: 3, dtype: object
    """
    sched_dep_utc = scheduled_departure(flights)
    columns.require(flights, ("dest",), "instants of flights")
    known = _numbers(flights, ("sched_dep_time", "sched_arr_time", "dep_delay", "arr_delay"))
    shift_min = clock_shift_min(columns.texts(flights["dest"]), sched_dep_utc, zones)
    block = block_min(known["sched_dep_time"], known["sched_arr_time"], shift_min)
    sched_arr_utc = sched_dep_utc + _lasting(block)
    return pd.DataFrame(
        {
            "sched_dep_utc": sched_dep_utc,
            "pred_utc": sched_dep_utc - HORIZON,
            "dep_utc": sched_dep_utc + _lasting(known["dep_delay"]),
            "block_min": block,
            "sched_arr_utc": sched_arr_utc,
            "arr_utc": sched_arr_utc + _lasting(known["arr_delay"]),
        }
    )


def _numbers(flights: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Take plain columns of numbers out of a table."""
    columns.require(flights, names, "instants of flights")
    found = flights[list(names)].apply(
        lambda column: pd.Series(columns.numbers(column), index=column.index)
    )
    is_absurd = (found.abs() > MOST_MINUTES).to_numpy()
    if is_absurd.any():
        row, column = np.argwhere(is_absurd)[0]
        raise InvalidArgumentError(
            f"column {names[column]!r} holds {found.iloc[row, column]:g} in row"
            f" {found.index[row]}, which is no part of a date, no time and no delay in minutes;"
            " take such rows out first with rules.split"
        )
    return found


def _lasting(minutes: pd.Series) -> pd.Series:
    """Turn minutes into durations; missing ones stay missing.

    The missing ones are filled in between: pandas 2.3 rounds what memory happens to hold at a NaN,
    and now and then warns of an overflow there.
    """
    return pd.to_timedelta(minutes.fillna(0), unit="min").where(minutes.notna())
