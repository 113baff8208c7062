"""What is derived from a flight as it's stored: instants, clocks, the label, slices.

`prepare` serves training and serving alike. It adds what the columns at hand allow: given only what
is known an hour before departure, it can't add what happened later.
"""

import pandas as pd

from mlops_mini.data import columns
from mlops_mini.flights import airports, times

LATE_MIN = 15  # An arrival is late if it's delayed by more minutes than these.
HOURS = ("0 to 6", "6 to 12", "12 to 18", "18 to 24")
_SCHEDULE = ("year", "month", "day", "sched_dep_time")


def prepare(flights: pd.DataFrame) -> pd.DataFrame:
    """Add the columns that follow from a flight's own.

    Args:
        flights: Columns of `tables.FLIGHTS`, or at least those of the schedule: `year`, `month`,
            `day`, `sched_dep_time`, `sched_arr_time` and `dest`, of any dtype.

    Returns:
        The same rows with these columns added, missing where a date or a clock time is none:

        - `sched_dep_utc`: the instant of the scheduled departure, `datetime64[ns, UTC]`.
        - `epoch_day`: its local date, days since 1970-01-01, float64.
        - `shift_min`: by how many minutes the destination's clocks are ahead, float64.
        - `hours`: the quarter of the local day in which it's scheduled, one of `HOURS`.
        - `dep_utc`, `arr_utc`: actual departure and arrival, missing if there was none; only where
          `dep_delay` and `arr_delay` are there.
        - `late`: 1 if it arrived more than 15 minutes late, 0 if not, missing if it never arrived;
          only where `arr_delay` is there.

    >>> from mlops_mini.flights import datasets
    >>> january = datasets.flights("2013-01")
    >>> prepare(january).loc[0, ["sched_dep_utc", "hours"]].tolist()
    [Timestamp('2013-01-01 10:15:00+0000', tz='UTC'), '0 to 6']
    """
    is_scheduled = _is_scheduled(flights)
    known = flights[is_scheduled]
    departure = times.scheduled_departure(known)
    shift_min = times.clock_shift_min(columns.texts(known["dest"]), departure, airports.zones())
    midnight = pd.to_datetime(known[["year", "month", "day"]].apply(_numbers))
    derived = {
        "sched_dep_utc": departure,
        "epoch_day": (midnight - pd.Timestamp(0)).dt.days.astype("float64"),
        "shift_min": shift_min,
        "hours": pd.cut(
            times.minutes(_numbers(known["sched_dep_time"])) / 60,
            [0, 6, 12, 18, 24.01],
            right=False,
            labels=HOURS,
        ),
    }
    if "dep_delay" in flights and "arr_delay" in flights:
        instants = times.derive_utc(known, airports.zones())
        derived |= {name: instants[name] for name in ("dep_utc", "arr_utc")}
    if "arr_delay" in flights:
        delay_min = _numbers(flights["arr_delay"])
        # A comparison with a missing delay is False: it would make a canceled flight punctual.
        derived["late"] = (delay_min > LATE_MIN).astype("float64").where(delay_min.notna())
    return flights.assign(
        **{name: column.reindex(flights.index) for name, column in derived.items()}
    )


def _is_scheduled(flights: pd.DataFrame) -> "pd.Series[bool]":
    """Tell which rows have a date and a clock time."""
    parts = flights[list(_SCHEDULE)].apply(_numbers)
    possible = parts.where((parts >= 1) & (parts <= 9999))
    date = pd.to_datetime(possible[["year", "month", "day"]], errors="coerce")
    clock = parts["sched_dep_time"]
    is_clock: pd.Series[bool] = clock.between(0, 2400) & (clock % 100 < 60)
    return date.notna() & is_clock


def _numbers(column: "pd.Series[float]") -> "pd.Series[float]":
    values, _ = columns.as_numbers(column)
    return pd.Series(values, index=column.index)
