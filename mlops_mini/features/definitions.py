"""What each feature is, said once; `offline` and `online` compute it from here.

A formula is written for what is known before departure, and works alike on columns and on the
values of one flight. So training and serving cannot differ in a definition, only in how they look
up its inputs, and a test compares these.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mlops_mini.data import times

# Columns of `datasets.flights` that are known when a prediction is due: no outcome is among them.
FLIGHT_COLUMNS = (
    "year",
    "month",
    "day",
    "sched_dep_time",
    "sched_arr_time",
    "carrier",
    "origin",
    "dest",
    "distance",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """One input of the model.

    Attributes:
        name: Its name in frames, requests and the model's signature.
        dtype: `float32`, where missing is NaN, or `string`, where missing is empty.
        group: Where it comes from, such as `schedule`; features of a group come or fail together.
        unit: Unit of a number; empty for strings.
        description: What it says, one line.
        formula: Its value from `FLIGHT_COLUMNS` and two inputs looked up for them: `epoch_day`, the
            local date as days since 1970-01-01, and `shift_min`, by how many minutes the clocks of
            the destination are ahead of New York's at departure.
    """

    name: str
    dtype: Literal["float32", "string"]
    group: str
    unit: str
    description: str
    formula: Callable[[Mapping[str, Any]], Any]


SCHEDULE = (
    Feature(
        name="carrier",
        dtype="string",
        group="schedule",
        unit="",
        description="carrier that sells the flight, two characters",
        formula=lambda flight: flight["carrier"],
    ),
    Feature(
        name="origin",
        dtype="string",
        group="schedule",
        unit="",
        description="airport of departure: EWR, JFK or LGA",
        formula=lambda flight: flight["origin"],
    ),
    Feature(
        name="dest",
        dtype="string",
        group="schedule",
        unit="",
        description="airport of arrival, three letters",
        formula=lambda flight: flight["dest"],
    ),
    Feature(
        name="mins",
        dtype="float32",
        group="schedule",
        unit="min",
        description="scheduled departure, since local midnight",
        formula=lambda flight: times.minutes(flight["sched_dep_time"]),
    ),
    Feature(
        name="dow",
        dtype="float32",
        group="schedule",
        unit="day",
        description="local day of the week of the scheduled departure, Monday 0",
        formula=lambda flight: (flight["epoch_day"] + 3) % 7,  # 1970-01-01 was a Thursday
    ),
    Feature(
        name="distance",
        dtype="float32",
        group="schedule",
        unit="mile",
        description="from airport to airport",
        formula=lambda flight: flight["distance"],
    ),
    Feature(
        name="block",
        dtype="float32",
        group="schedule",
        unit="min",
        description="scheduled time from gate to gate",
        formula=lambda flight: times.block_min(
            flight["sched_dep_time"], flight["sched_arr_time"], flight["shift_min"]
        ),
    ),
)

FEATURES = SCHEDULE
