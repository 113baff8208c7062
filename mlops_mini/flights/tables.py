"""The tables of the use case: columns, keys, times and rules."""

from pathlib import Path

import pyarrow as pa

from mlops_mini.data.periods import Calendar
from mlops_mini.data.table import Series, Table
from mlops_mini.flights import preparation, row_rules
from mlops_mini.flights.airports import NEW_YORK, ORIGINS

CALENDAR = Calendar("month", zone=NEW_YORK)

# Only what cannot be derived: dep_time, arr_time, hour, minute and time_hour follow from these,
# except the arr_time of a diverted flight, which is an outcome that nothing here may use.
FLIGHTS = Table(
    name="flights",
    key=("flight_id",),
    time="sched_dep_utc",
    columns={
        "flight_id": "int32",
        "year": "int16",
        "month": "int8",
        "day": "int8",
        "sched_dep_time": "int16",
        "dep_delay": "int16?",
        "sched_arr_time": "int16",
        "arr_delay": "int16?",
        "carrier": "text",
        "flight": "int16",
        "tailnum": "text?",
        "origin": "text",
        "dest": "text",
        "air_time": "int16?",
        "distance": "int16",
    },
    rules=row_rules.FLIGHTS,
    prepare=preparation.prepare,
    max_missing={"arr_delay": 0.10},  # a week of blizzard has .17, the next .08
    schema=Path(__file__).with_name("flights.pbtxt"),
)

# The local columns stay beside time_hour: their key is not unique, and that is a lesson.
WEATHER = Table(
    name="weather",
    key=("origin", "time_hour"),
    time="time_hour",
    columns={
        "origin": "text",
        "year": "int16",
        "month": "int8",
        "day": "int8",
        "hour": "int8",
        "temp": "number?",
        "dewp": "number?",
        "humid": "number?",
        "wind_dir": "int16?",
        "wind_speed": "number?",
        "wind_gust": "number?",
        "precip": "number?",
        "pressure": "number?",
        "visib": "number?",
        "time_hour": "instant",
    },
    rules=row_rules.WEATHER,
    series=Series(
        every="1h",
        of="origin",
        values=ORIGINS,
        max_age="6h",
        together=("temp", "dewp", "humid"),
    ),
    max_missing={
        **dict.fromkeys(row_rules.WEATHER_LIMITS, 0.01),
        "wind_dir": 0.10,
        "wind_gust": 0.99,
        "pressure": 0.35,
    },
    schema=Path(__file__).with_name("weather.pbtxt"),
)

PLANES = pa.schema(
    [
        pa.field("tailnum", pa.string(), nullable=False),
        pa.field("year", pa.int16()),
        pa.field("type", pa.string(), nullable=False),
        pa.field("manufacturer", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("engines", pa.int8(), nullable=False),
        pa.field("seats", pa.int16(), nullable=False),
        pa.field("speed", pa.int16()),
        pa.field("engine", pa.string(), nullable=False),
    ]
)

CARRIERS = pa.schema(
    [
        pa.field("carrier", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
    ]
)
