"""A use case of hourly readings and two kinds of events: does a machine stop in the next hours?"""

from operator import itemgetter
from typing import Any

import pandas as pd

from mlops_mini.data.periods import Calendar
from mlops_mini.data.rules import in_range, is_in
from mlops_mini.data.table import Series, Table
from mlops_mini.features.feature_set import FeatureSet
from mlops_mini.features.sources import Event, Feature, Formula, Latest, Observation, Window
from mlops_mini.use_case import Label, UseCase

ZONE = "Asia/Tokyo"
SHIFTS = ("night", "early", "late")
MACHINES = ("press", "oven", "saw", "drill")
HOUR_S = 3600


def prepare(readings: pd.DataFrame) -> pd.DataFrame:
    """Add the local hour, tenths of a degree, and whether the machine stopped soon after."""
    hour = readings["read_at"].dt.tz_convert(ZONE).dt.hour
    added = {"hour": hour, "shift": pd.cut(hour, [-1, 7, 15, 23], labels=SHIFTS)}
    if "temp_c" in readings:
        added["tenths_c"] = (readings["temp_c"] * 10).round()
    if "stops_in_h" in readings:
        added["stopped"] = (readings["stops_in_h"] <= 6).astype("float64")
    return readings.assign(**added)


def train(features: pd.DataFrame, labels: Any, *, epochs: int, **settings: Any) -> Any:
    """Train for twice as long: stops are rare."""
    from mlops_mini.model import training

    return training.train(features, labels, epochs=2 * epochs, **settings)


READINGS = Table(
    name="readings",
    key=["reading"],
    time="read_at",
    columns={
        "reading": "integer",
        "machine": "text",
        "read_at": "instant",
        "temp_c": "number?",
        "load": "number",
        "stops_in_h": "number?",
    },
    rules=[is_in("machine", MACHINES), in_range("temp_c", -20, 200), in_range("load", 0, 1)],
    prepare=prepare,
    series=Series(every="1h", of="machine", values=MACHINES, max_age="3h"),
)

VISITS = Table(
    name="visits",
    key=["visit"],
    time="visited_at",
    columns={"visit": "integer", "machine": "text", "visited_at": "instant", "minutes": "integer"},
    rules=[is_in("machine", MACHINES), in_range("minutes", 1, 600)],
)

READING = Event(
    kind="reading", table="readings", time="read_at", value="tenths_c", published_after_s=300
)
VISIT = Event(kind="visit", table="visits", time="visited_at", value="minutes")
LAST = Observation(
    table="readings",
    entity="machine",
    time="read_at",
    published_after_s=300,
    time_to_live_s=4 * HOUR_S,
)


def _window(name: str, unit: str, event: Event, hours: int, says: str, **how: Any) -> Feature:
    window = Window(entity="machine", event=event, window_s=hours * HOUR_S, **how)
    return Feature(name=name, group="recent", unit=unit, description=says, source=window)


def _now(name: str, unit: str, says: str, **kind: Any) -> Feature:
    source = Formula(compute=itemgetter(name))
    return Feature(name=name, group="now", unit=unit, description=says, source=source, **kind)


MEAN = {"aggregate": "mean", "empty": float("nan")}
COUNT = {"aggregate": "count", "empty": 0.0}

STOPS = UseCase(
    "stops",
    tables=[READINGS, VISITS],
    calendar=Calendar("month", zone=ZONE),
    label=Label("stopped", matures_after="6h"),
    features=FeatureSet(
        of="readings",
        key="reading",
        time="read_at",
        due="10min",
        inputs=["machine", "read_at", "load"],
        features=[
            _now("machine", "", "which machine", dtype="string"),
            _now("hour", "h", "hour of the day in Tokyo"),
            _now("load", "", "load, 0 to 1"),
            Feature(
                name="temp_c",
                group="last",
                unit="degC",
                description="last temperature known",
                source=Latest(observation=LAST, value="temp_c"),
            ),
            _window("warm_24h", "0.1 degC", READING, 24, "mean temperature, 24 h", **MEAN),
            _window("n_visits_7d", "visit", VISIT, 168, "visits in 7 days", **COUNT),
            _window("visit_min_7d", "min", VISIT, 168, "mean minutes of a visit, 7 days", **MEAN),
        ],
    ),
    slices=["machine", "shift"],
    train=train,
)
