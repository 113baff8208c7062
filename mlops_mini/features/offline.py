"""Features and labels of many flights at once, for training and evaluation."""

from collections.abc import Mapping

import pandas as pd

from mlops_mini.data import datasets, times
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features.definitions import FEATURES, FLIGHT_COLUMNS

LATE_MIN = 15


def compute(flights: pd.DataFrame, *, zones: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Compute the features of flights.

    Args:
        flights: As `datasets.flights` gives them; only `flight_id` and `definitions.FLIGHT_COLUMNS`
            are read, so that no outcome can leak in.
        zones: IANA zone by airport code; without it those of the default data folder.

    Returns:
        One row a flight in the given order, index `flight_id`, columns as `definitions.FEATURES`
        says: float32 with NaN for missing, strings with the empty string.

    Raises:
        InvalidArgumentError: A column is not there, or a date does not exist.

    >>> compute(datasets.flights("2013-01")).head(2)
              carrier origin dest   mins  dow  distance  block
    flight_id
    0              UA    EWR  IAH  315.0  1.0    1400.0  244.0
    1              UA    LGA  IAH  329.0  1.0    1416.0  241.0
    """
    missing = [name for name in ("flight_id", *FLIGHT_COLUMNS) if name not in flights.columns]
    if missing:
        raise InvalidArgumentError(
            f"features need the columns {missing} too; there are {list(flights.columns)}"
        )
    known = flights[list(FLIGHT_COLUMNS)].set_index(pd.Index(flights["flight_id"]))
    departure = times.scheduled_departure(known)
    midnight = pd.to_datetime(known[["year", "month", "day"]])
    inputs = {name: known[name] for name in FLIGHT_COLUMNS} | {
        "epoch_day": (midnight - pd.Timestamp(0)).dt.days,
        "shift_min": times.clock_shift_min(
            known["dest"], departure, datasets.airport_zones() if zones is None else zones
        ),
    }
    columns = {}
    for feature in FEATURES:
        values = feature.formula(inputs)
        is_text = feature.dtype == "string"
        columns[feature.name] = values.fillna("") if is_text else values.astype("float32")
    return pd.DataFrame(columns)


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
        InvalidArgumentError: A column is not there.

    >>> labels(pd.DataFrame({"flight_id": [7, 8, 9], "arr_delay": [16.0, 15.0, float("nan")]}))
    flight_id
    7    1.0
    8    0.0
    9    NaN
    Name: late, dtype: float64
    """
    missing = [name for name in ("flight_id", "arr_delay") if name not in flights.columns]
    if missing:
        raise InvalidArgumentError(
            f"labels need the columns {missing} too; there are {list(flights.columns)}"
        )
    delay = flights.set_index("flight_id")["arr_delay"]
    return (delay > LATE_MIN).astype("float64").where(delay.notna()).rename("late")
