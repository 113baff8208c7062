"""Instants as whole seconds since 1970-01-01 UTC: what windows are computed with."""

import math
from datetime import datetime
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data import columns
from mlops_mini.errors import InvalidArgumentError

Seconds: TypeAlias = npt.NDArray[np.int64]


def in_utc(instants: pd.Series) -> pd.Series:
    """Bring a column of instants into one form.

    Args:
        instants: Of any dtype that has a time zone; or all missing.

    Returns:
        `datetime64[ns, UTC]`, NaT for missing, index and name as given.

    Raises:
        InvalidArgumentError: They have no time zone, or are no instants.
    """
    plain = columns.plain(instants)
    kind = columns.kind(plain)
    if kind == "empty":
        return pd.Series(pd.NaT, plain.index, "datetime64[ns, UTC]", str(plain.name))
    if kind != "instant":
        raise InvalidArgumentError(
            f"{plain.name} is {plain.dtype}, without a time zone: local times are ambiguous when"
            " clocks change; convert it with .dt.tz_localize(zone)"
        )
    utc: pd.Series = plain.dt.tz_convert("UTC").dt.as_unit("ns")
    return utc


def seconds(instants: pd.Series) -> Seconds:
    """Turn instants into whole seconds since 1970-01-01 UTC.

    Raises:
        InvalidArgumentError: They have no time zone, or one is missing.
    """
    known = in_utc(instants)
    if known.isna().any():
        raise InvalidArgumentError(
            f"{int(known.isna().sum())} of {len(known)} values of {known.name} are missing: leave"
            " these rows out"
        )
    since: Seconds = known.dt.tz_localize(None).to_numpy("datetime64[s]").astype(np.int64)
    return since


def epoch_s(instant: datetime) -> int:
    """Turn one instant into whole seconds since 1970-01-01 UTC.

    Raises:
        InvalidArgumentError: It has no time zone.
    """
    if instant.utcoffset() is None:
        raise InvalidArgumentError(
            f"{instant} has no time zone: say which, such as with .replace(tzinfo=UTC)"
        )
    return math.floor(instant.timestamp())
