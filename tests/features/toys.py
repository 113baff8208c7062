"""Jobs of a workshop: a small feature set, made-up histories, and the plain way to compute windows.

Each job is planned for a line, a team and a product; it starts late or early, and takes longer or
shorter than planned. Each line's temperature is observed every hour.
"""

import math

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from mlops_mini.features import events, prefix_sums
from mlops_mini.features.events import Happening, Observed
from mlops_mini.features.feature_set import FeatureSet
from mlops_mini.features.sources import Event, Feature, Formula, Latest, Observation, Window
from mlops_mini.features.windows import RunningWindows

NOW_S = 1_362_700_800  # 8 March 2013
HOUR_S = 3600
PLACES = {"line": ("A", "B"), "team": ("red", "blue"), "product": ("chair", "table")}
HERE = {"line": "A", "team": "red", "product": "chair"}

CLIMATE = Observation(
    table="climate",
    entity="line",
    time="hour",
    published_after_s=HOUR_S,
    time_to_live_s=6 * HOUR_S,
)
PLANNED = Event(kind="planned", table="jobs", time="planned_at", value=None)
STARTED = Event(kind="started", table="jobs", time="started_at", value="wait_min")
FINISHED = Event(kind="finished", table="jobs", time="finished_at", value="overrun_min")


def is_long(overrun_min):
    return overrun_min > 15


def window(name, entity, event, hours, **fields):
    empty = 0.0 if fields["aggregate"] == "count" else math.nan
    source = Window(entity=entity, event=event, window_s=hours * HOUR_S, empty=empty, **fields)
    return Feature(name=name, group="recent", unit="min", description=name, source=source)


def latest(name):
    source = Latest(observation=CLIMATE, value=name)
    return Feature(name=name, group="climate", unit="", description=name, source=source)


COUNT, MEAN = {"aggregate": "count"}, {"aggregate": "mean"}
JOBS = FeatureSet(
    of="jobs",
    key="job_id",
    time="planned_at",
    due="-60min",
    inputs=("planned_at", "n_parts", "line", "team", "product"),
    features=(
        Feature(
            name="team",
            dtype="string",
            group="plan",
            unit="",
            description="who does it",
            source=Formula(compute=lambda job: job["team"]),
        ),
        Feature(
            name="dozens",
            group="plan",
            unit="12",
            description="how many parts",
            source=Formula(compute=lambda job: job["n_parts"] / 12),
        ),
        latest("temp_c"),
        latest("humidity"),
        window("line_n_1h", "line", STARTED, 1, **COUNT),
        window("line_wait_1h", "line", STARTED, 1, **MEAN),
        window("line_n_3h", "line", STARTED, 3, **COUNT),
        window("line_wait_3h", "line", STARTED, 3, **MEAN),
        window("team_wait_3h", "team", STARTED, 3, **MEAN),
        window("team_wait_24h", "team", STARTED, 24, **MEAN),
        window("team_n_6h", "team", FINISHED, 6, **COUNT),
        window("team_long_6h", "team", FINISHED, 6, value=is_long, **MEAN),
        window("product_overrun_24h", "product", FINISHED, 24, **MEAN),
        window("line_waiting", "line", PLANNED, 3, less=STARTED, **COUNT),
    ),
)
RECENT_NAMES = [feature.name for feature in JOBS.windows]


def happening(kind="started", job_id=1, event_s=NOW_S, value=10, **changed):
    """An event of a job of the red team on line A that makes chairs, known when it happens."""
    entities = HERE | {name: changed.pop(name) for name in HERE if name in changed}
    fields = {"available_s": event_s} | changed
    return Happening(
        kind=kind,
        id=job_id,
        event_s=event_s,
        value=None if kind == "planned" else value,
        entities=tuple(entities.values()),
        **fields,
    )


def observed(event_s, temp_c=40.0, line="A"):
    """An observation, published an hour later, that lacks the humidity."""
    values = {"temp_c": temp_c, "humidity": math.nan}
    return Observed("climate", line, event_s, event_s + HOUR_S, values)


# Instants on a coarse grid around the ends of all windows, so that ties and edges are common.
instants_s = st.builds(
    lambda hours, off: NOW_S - hours * HOUR_S + off,
    st.sampled_from([0, 1, 2, 3, 6, 24]),
    st.sampled_from([-1, 0, 1, 600]),
)

happenings = st.builds(
    lambda event_s, known_after_s, **fields: happening(
        event_s=event_s, available_s=event_s + known_after_s, **fields
    ),
    event_s=instants_s,
    known_after_s=st.sampled_from([0, 0, 0, 1, HOUR_S, 30 * HOUR_S]),
    kind=st.sampled_from(["planned", "started", "finished"]),
    job_id=st.integers(0, 30),
    value=st.integers(-80, 1300),
    line=st.sampled_from(PLACES["line"]),
    team=st.sampled_from(PLACES["team"]),
    product=st.sampled_from(PLACES["product"]),
)

entities = st.fixed_dictionaries(
    {name: st.sampled_from([*values, "unknown", None]) for name, values in PLACES.items()}
)

histories = st.lists(happenings, max_size=25, unique_by=lambda event: event.identity)


def as_history(some_events):
    """The table that `events.from_tables` would make of events."""
    frame = pd.DataFrame(some_events, columns=Happening._fields)
    for name, seconds in {"event_utc": "event_s", "available_at": "available_s"}.items():
        frame[name] = pd.to_datetime(frame[seconds].astype("int64"), unit="s", utc=True)
    for position, name in enumerate(JOBS.entities):
        frame[name] = [event.entities[position] for event in some_events]
    return frame.drop(columns=["entities", "event_s", "available_s"]).astype({"value": "float64"})


def queries(entity, at_s, *, without=None, n=1):
    """The same question, n times."""
    return prefix_sums.Queries(
        entities=pd.DataFrame([entity] * n),
        at_s=np.array([at_s] * n),
        table="jobs",
        without=None if without is None else pd.Series([without] * n),
    )


def offline_values(some_events, entity, at_s, *, without=None):
    """All windows as the offline side computes them."""
    history = events.checked_history(JOBS, as_history(some_events))
    windows = prefix_sums.Windows(history, queries(entity, at_s, without=without))
    return {feature.name: float(windows.values(feature.source)[0]) for feature in JOBS.windows}


def online_values(some_events, entity, at_s, *, without=None):
    """The same as the online side computes them, events arriving in the order given."""
    windows = RunningWindows(JOBS)
    for event in some_events:
        if event not in windows:
            windows.add(event)
    values = windows.read(entity, at_s, without=without)
    return {name: values[name] for name in RECENT_NAMES}


def plain_values(some_events, entity, at_s, *, without=None):
    """The definition, said once more and as plainly as possible."""

    def values(kind, name, hours):
        position = list(HERE).index(name)
        return [
            event.value
            for event in some_events
            if event.kind == kind
            and event.entities[position] == entity[name] is not None
            and at_s - hours * HOUR_S < event.event_s <= at_s
            and event.available_s <= at_s
            and event.id != without
        ]

    def mean(numbers):
        return sum(numbers) / len(numbers) if numbers else math.nan

    return {
        "line_n_1h": len(values("started", "line", 1)),
        "line_wait_1h": mean(values("started", "line", 1)),
        "line_n_3h": len(values("started", "line", 3)),
        "line_wait_3h": mean(values("started", "line", 3)),
        "team_wait_3h": mean(values("started", "team", 3)),
        "team_wait_24h": mean(values("started", "team", 24)),
        "team_n_6h": len(values("finished", "team", 6)),
        "team_long_6h": mean([value > 15 for value in values("finished", "team", 6)]),
        "product_overrun_24h": mean(values("finished", "product", 24)),
        "line_waiting": len(values("planned", "line", 3)) - len(values("started", "line", 3)),
    }


def same(left, right):
    """Tell whether values are equal, missing ones too."""
    assert list(left) == list(right)
    return all(
        a == b or (math.isnan(a) and math.isnan(b))
        for a, b in zip(left.values(), right.values(), strict=True)
    )


def jobs(n, *, days=5, seed=0):
    """Jobs of some days, planned at any minute; some never start, some never finish."""
    rng = np.random.default_rng(seed)
    start = pd.Timestamp(NOW_S, unit="s", tz="UTC") - pd.Timedelta(days=days)
    planned_at = start + pd.to_timedelta(np.sort(rng.integers(0, days * 1440, n)), unit="min")
    rows = pd.DataFrame({"job_id": np.arange(n), "planned_at": planned_at})
    for name, values in PLACES.items():
        rows[name] = rng.choice(values, n)
    rows["n_parts"] = rng.integers(1, 100, n)
    wait_min = rng.integers(-40, 200, n)
    overrun_min = rng.integers(-30, 90, n)
    rows["wait_min"] = np.where(rng.random(n) < 0.9, wait_min, np.nan)
    rows["overrun_min"] = np.where(rng.random(n) < 0.9, overrun_min, np.nan) + 0 * rows["wait_min"]
    minute = pd.Timedelta(minutes=1)
    rows["started_at"] = rows["planned_at"] + rows["wait_min"] * minute
    rows["finished_at"] = rows["started_at"] + (60 + rows["overrun_min"]) * minute
    return rows


def climate(*, days=6, seed=0):
    """Hourly observations of both lines; some hours are missing, and some values."""
    rng = np.random.default_rng(seed)
    now = pd.Timestamp(NOW_S, unit="s", tz="UTC")
    hours = [now - pd.Timedelta(hours=h) for h in range(24 * days)]
    rows = pd.DataFrame([(line, hour) for hour in hours for line in PLACES["line"]])
    rows = rows.set_axis(["line", "hour"], axis=1)
    rows["temp_c"] = rng.normal(20, 5, len(rows))
    rows["humidity"] = np.where(rng.random(len(rows)) < 0.5, rng.random(len(rows)), np.nan)
    return rows[rng.random(len(rows)) < 0.6]


def happened(rows):
    """The history of jobs."""
    return events.from_tables(JOBS, {"jobs": rows}, {"jobs": "job_id"})
