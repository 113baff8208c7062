"""Features and labels of many flights at once, for training and evaluation."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mlops_mini.data import columns
from mlops_mini.features import events, prefix_sums
from mlops_mini.features.prefix_sums import Questions
from mlops_mini.flights import datasets, times
from mlops_mini.flights.definitions import (
    FLIGHT_COLUMNS,
    RECENT,
    SCHEDULE,
    WEATHER,
    WEATHER_OBSERVATION,
    is_late,
)

_NUMBERS = ("sched_dep_time", "sched_arr_time", "distance")


def compute(
    flights: pd.DataFrame,
    *,
    history: pd.DataFrame | None = None,
    weather: pd.DataFrame | None = None,
    zones: Mapping[str, str] | None = None,
    horizon: pd.Timedelta = times.HORIZON,
    counts_own: bool = False,
) -> pd.DataFrame:
    """Compute the features of flights, each as of the instant of its prediction.

    A group of features comes with its source: without `weather` there are no weather features, and
    without `history` no recent ones. Both may reach beyond the flights: what was not yet known when
    a prediction was due is not used.

    Args:
        flights: As `datasets.flights` gives them, in any order; only `flight_id` and
            `definitions.FLIGHT_COLUMNS` are read, so that no outcome can leak in.
        history: Events as `events.from_flights` gives them. Windows reach back 24 hours, so give
            also what came before the first of the flights.
        weather: As `datasets.weather` gives it.
        zones: IANA zone by airport code; without it those of the default data folder.
        horizon: How long before the scheduled departure a prediction is due.
        counts_own: Whether a flight's own events count among the recent ones. That is a leak: a
            flight that leaves early has departed by its scheduled minute. To demonstrate it only.

    Returns:
        One row a flight in the given order, index `flight_id`, columns as `definitions.FEATURES`
        says: float32 with NaN for missing, strings with the empty string.

    Raises:
        InvalidArgumentError: A column is not there, a date does not exist, instants have no time
            zone, a delay is no whole number of minutes, or a column holds texts for numbers or the
            other way round; the message names it and the row.

    >>> january = datasets.flights("2013-01")
    >>> compute(january).head(2)
              carrier origin dest   mins  dow  distance  block
    flight_id
    0              UA    EWR  IAH  315.0  1.0    1400.0  244.0
    1              UA    LGA  IAH  329.0  1.0    1416.0  241.0
    >>> features = compute(january, history=events.from_flights(january))
    >>> features.loc[20000, ["org_dep_n_1h", "car_late_n_6h", "org_overdue"]].to_dict()
    {'org_dep_n_1h': 5.0, 'car_late_n_6h': 39.0, 'org_overdue': -1.0}
    """
    columns.require(flights, ("flight_id", *FLIGHT_COLUMNS), "features")
    flight_id = events.flight_ids(flights["flight_id"])
    known = columns.plain_frame(flights[list(FLIGHT_COLUMNS)].reset_index(drop=True))
    for name in ("origin", "carrier", "dest"):
        known[name] = columns.texts(known[name])
    departure = times.scheduled_departure(known)
    asked = Questions(
        entities=known[["origin", "carrier", "dest"]],
        at_s=events.seconds(departure - horizon),
        without=None if counts_own else flight_id,
    )
    values = _schedule(known, departure, datasets.airport_zones() if zones is None else zones)
    if weather is not None:
        values |= _weather(events.checked_weather(weather), asked)
    if history is not None:
        values |= _recent(events.checked_history(history), asked)
    return pd.DataFrame(values).set_index(pd.Index(columns.plain(flights["flight_id"])))


def _schedule(
    flights: pd.DataFrame, departure: pd.Series, zones: Mapping[str, str]
) -> dict[str, pd.Series]:
    midnight = pd.to_datetime(flights[["year", "month", "day"]])
    inputs = {name: flights[name] for name in FLIGHT_COLUMNS} | {
        **{name: pd.Series(columns.numbers(flights[name])) for name in _NUMBERS},
        "epoch_day": (midnight - pd.Timestamp(0)).dt.days,
        "shift_min": times.clock_shift_min(flights["dest"], departure, zones),
    }
    found = {}
    for feature in SCHEDULE:
        values = feature.source.compute(inputs)
        is_text = feature.dtype == "string"
        found[feature.name] = (
            columns.texts(values).fillna("") if is_text else values.astype("float32")
        )
    return found


def _weather(observed: pd.DataFrame, asked: Questions) -> dict[str, pd.Series]:
    row = prefix_sums.latest_rows(WEATHER_OBSERVATION, observed, asked)
    found = {}
    for feature in WEATHER:
        values = np.append(observed[feature.source.value].to_numpy("float32"), np.float32(np.nan))
        found[feature.name] = pd.Series(values[row])  # row -1 is the NaN at the end
    return found


def _recent(history: pd.DataFrame, asked: Questions) -> dict[str, pd.Series]:
    by_kind = {str(kind): rows for kind, rows in history.groupby("kind", sort=False)}
    found = {}
    for feature in RECENT:
        values = prefix_sums.window_values(feature.source, by_kind, asked)
        found[feature.name] = pd.Series(values.astype("float32"))
    return found


def labels(flights: pd.DataFrame) -> "pd.Series[float]":
    """Tell which flights arrived more than 15 minutes late.

    A comparison with a missing delay is False, so the obvious `arr_delay > 15` would turn flights
    that never arrived into punctual ones: January's base rate would be .222 instead of .227.

    Args:
        flights: Columns `flight_id` and `arr_delay` (minutes, NaN if canceled or diverted).

    Returns:
        `late`, float64, index `flight_id`: 1 late, 0 not, NaN where nobody will ever know. Its
        `mean()`, the base rate, leaves these out.

    Raises:
        InvalidArgumentError: A column is not there, or a delay is no number.

    >>> labels(pd.DataFrame({"flight_id": [7, 8, 9], "arr_delay": [16.0, 15.0, float("nan")]}))
    flight_id
    7    1.0
    8    0.0
    9    NaN
    Name: late, dtype: float64
    """
    columns.require(flights, ("flight_id", "arr_delay"), "labels")
    index = pd.Index(columns.plain(flights["flight_id"]))
    delay = pd.Series(columns.numbers(flights["arr_delay"]), index=index)
    late: pd.Series[float] = is_late(delay).astype("float64").where(delay.notna()).rename("late")
    return late
