"""Columns and types of the stored tables, and their reviewed schemas."""

from pathlib import Path

import pyarrow as pa
from tensorflow_metadata.proto.v0 import schema_pb2

from mlops_mini.statistics import schemas


def _table(columns: dict[str, pa.DataType], *, optional: tuple[str, ...] = ()) -> pa.Schema:
    """Declare a table: its columns, and those in which a value may be missing."""
    return pa.schema(
        [pa.field(name, kind, nullable=name in optional) for name, kind in columns.items()]
    )


# Only what cannot be derived: dep_time, arr_time, hour, minute and time_hour follow from these,
# except the arr_time of a diverted flight, which is an outcome that nothing here may use.
FLIGHTS = _table(
    {
        "flight_id": pa.int32(),
        "year": pa.int16(),
        "month": pa.int8(),
        "day": pa.int8(),
        "sched_dep_time": pa.int16(),
        "dep_delay": pa.int16(),
        "sched_arr_time": pa.int16(),
        "arr_delay": pa.int16(),
        "carrier": pa.string(),
        "flight": pa.int16(),
        "tailnum": pa.string(),
        "origin": pa.string(),
        "dest": pa.string(),
        "air_time": pa.int16(),
        "distance": pa.int16(),
    },
    optional=("dep_delay", "arr_delay", "tailnum", "air_time"),
)

_OBSERVED = {
    "temp": pa.float64(),
    "dewp": pa.float64(),
    "humid": pa.float64(),
    "wind_dir": pa.int16(),
    "wind_speed": pa.float64(),
    "wind_gust": pa.float64(),
    "precip": pa.float64(),
    "pressure": pa.float64(),
    "visib": pa.float64(),
}

# The local columns stay beside time_hour: their key is not unique, and that is a lesson.
WEATHER = _table(
    {
        "origin": pa.string(),
        "year": pa.int16(),
        "month": pa.int8(),
        "day": pa.int8(),
        "hour": pa.int8(),
        **_OBSERVED,
        "time_hour": pa.timestamp("us", tz="UTC"),
    },
    optional=tuple(_OBSERVED),
)

PLANES = _table(
    {
        "tailnum": pa.string(),
        "year": pa.int16(),
        "type": pa.string(),
        "manufacturer": pa.string(),
        "model": pa.string(),
        "engines": pa.int8(),
        "seats": pa.int16(),
        "speed": pa.int16(),
        "engine": pa.string(),
    },
    optional=("year", "speed"),
)

CARRIERS = _table({"carrier": pa.string(), "name": pa.string()})


def reviewed(table: str) -> schema_pb2.Schema:
    """Read the reviewed schema of a table of this package.

    The file lies beside this module as `flights.pbtxt` and `weather.pbtxt`, with the reasons as
    comments. It is part of the package, as row rules are: a pipeline needs it wherever it runs.

    Args:
        table: `flights` or `weather`.

    Returns:
        The schema.

    Raises:
        NotFoundError: No such table.

    >>> [f.float_domain.max for f in reviewed("weather").feature if f.name == "wind_speed"]
    [100.0]
    """
    return schemas.read(Path(__file__).with_name(f"{table}.pbtxt"))
