"""The airports: those that flights leave from, and the clocks of each."""

import csv
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

ORIGINS = ("EWR", "JFK", "LGA")
NEW_YORK = "America/New_York"  # the time zone of all three


@lru_cache(maxsize=1)
def zones() -> Mapping[str, str]:
    """Read the time zone of each airport, written by hand in `airport_zones.csv` beside this.

    Returns:
        IANA zone by airport code, read-only.

    >>> zones()["SJU"]
    'America/Puerto_Rico'
    """
    with Path(__file__).with_name("airport_zones.csv").open(newline="", encoding="utf-8") as file:
        return MappingProxyType({row["airport"]: row["zone"] for row in csv.DictReader(file)})
