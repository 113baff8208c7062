"""Local clock times as instants: what clocks skip or show twice is decided here, once."""

import re
from typing import Any

import numpy as np
import pandas as pd

from mlops_mini.data import columns
from mlops_mini.errors import InvalidArgumentError

_OFFSET = re.compile(r"(?:Z|[+-]\d{2}:?\d{2})\s*$", re.IGNORECASE)


def to_utc(
    local: "pd.Series[Any]", zone: str, *, written_as: str | None = None
) -> "pd.Series[Any]":
    """Turn what local clocks showed into instants.

    Where clocks go back, they show an hour twice: the first of the two instants is taken. Where
    they go forward, they skip an hour: a time in it is taken as one an hour later. Both is what
    `zoneinfo` does too.

    Args:
        local: Dates and times without a time zone, or texts of them.
        zone: IANA time zone of the clocks, such as "Europe/Berlin".
        written_as: How texts are written, such as "%d.%m.%Y %H:%M"; without it as ISO 8601 says,
            such as "2026-03-29 02:30" or "2026-03-29".

    Returns:
        `datetime64[ns, UTC]`, index as given; missing where a text can't be read, or has an offset
        of its own, such as "2026-03-29T02:30Z", so that it's no local time.

    Raises:
        InvalidArgumentError: The column holds neither texts nor times, or instants that have a time
            zone already; or there is no such zone.

    >>> clocks = pd.Series(["2026-03-29 02:30", "2026-10-25 02:30", "noon"])
    >>> to_utc(clocks, "Europe/Berlin").tolist()  # skipped, shown twice, none
    [Timestamp('2026-03-29 01:30:00+0000', tz='UTC'),
     Timestamp('2026-10-25 00:30:00+0000', tz='UTC'), NaT]
    """
    plain = columns.plain(local)
    if plain.isna().all():
        return pd.Series(pd.NaT, index=plain.index, name=plain.name, dtype="datetime64[ns, UTC]")
    kind = columns.kind(plain)
    if kind == "text":
        has_offset = plain.astype(str).str.contains(_OFFSET)
        written = plain.mask(has_offset, other=None)
        plain = pd.to_datetime(written, format=written_as or "ISO8601", errors="coerce")
    elif kind != "local time":
        raise InvalidArgumentError(
            f"column {local.name!r} is {plain.dtype}, expected local clock times, or texts of them:"
            " instants with a time zone need no conversion"
        )
    try:
        aware = plain.dt.tz_localize(
            zone, ambiguous=np.ones(len(plain), dtype=bool), nonexistent=pd.Timedelta(hours=1)
        )
    except (KeyError, ValueError) as exc:
        raise InvalidArgumentError(
            f"there is no time zone {zone!r}: name one of IANA's, such as Europe/Berlin or UTC"
        ) from exc
    instants: pd.Series[Any] = aware.dt.tz_convert("UTC").astype("datetime64[ns, UTC]")
    return instants
