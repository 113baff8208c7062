"""A second tenant: machines with hourly readings, two sources of events, and keys that are texts.

A reading comes with a temperature in tenths of a degree, a visit of the mechanics with no value; it
is booked two hours later. The hall where the machine stands has a climate that is observed. It is
asked, at each reading, what is known ten minutes before it.
"""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import events, offline, online
from mlops_mini.features.feature_set import FeatureSet
from mlops_mini.features.sources import Event, Feature, Formula, Latest, Observation, Window
from mlops_mini.features.store import Store

HOUR_S = 3600
NOON = pd.Timestamp("2026-03-29 00:30", tz="UTC")  # clocks change in Berlin half an hour later

READ = Event(kind="read", table="readings", time="at", value="decidegrees")
VISITED = Event(
    kind="visited", table="visits", time="came", value=None, published_after_s=2 * HOUR_S
)
HALL = Observation(
    table="halls",
    entity="hall",
    time="measured",
    published_after_s=HOUR_S,
    time_to_live_s=3 * HOUR_S,
)


def is_hot(decidegrees):
    return decidegrees > 800


def prepare(readings):
    """Local wall clocks of the hall, in Berlin."""
    return readings.assign(hour=readings["at"].dt.tz_convert("Europe/Berlin").dt.hour)


def feature(name, source, **given):
    return Feature(name=name, group="g", unit="", description=name, source=source, **given)


def window(name, entity, event, hours, aggregate, **given):
    empty = 0.0 if aggregate == "count" else math.nan
    seconds = hours * HOUR_S
    source = Window(
        entity=entity, event=event, window_s=seconds, aggregate=aggregate, empty=empty, **given
    )
    return feature(name, source)


SENSORS = FeatureSet(
    of="readings",
    key="reading",
    time="at",
    due="-10min",
    inputs=["at", "machine", "hall", "model"],
    features=[
        feature("model", Formula(compute=lambda row: row["model"]), dtype="string"),
        feature("hour", Formula(compute=lambda row: row["hour"])),
        window("mean_6h", "machine", READ, 6, "mean"),
        feature("humidity", Latest(observation=HALL, value="humidity")),
        window("hot_24h", "machine", READ, 24, "mean", value=is_hot),
        window("visits_48h", "machine", VISITED, 48, "count"),
        window("quiet_24h", "hall", READ, 24, "count", less=VISITED),
    ],
)
KEYS = {"readings": "reading", "visits": "visit"}

# Instants around the ends of windows; the same names of readings and visits, which are two things.
instants = st.builds(
    lambda hours, off_s: NOON - pd.Timedelta(hours=hours, seconds=off_s),
    st.sampled_from([0, 2, 3, 4, 6, 24, 48]),
    st.sampled_from([-600, -599, 0, 1, 7, 600]),
)
machines, halls = st.sampled_from(["m1", "m2", None]), st.sampled_from(["north", "south"])
names = st.integers(0, 20).map(lambda number: f"no. {number}")


def rows(columns, **unique):
    return st.lists(st.fixed_dictionaries(columns), max_size=12, **unique).map(
        lambda found: pd.DataFrame(found, columns=list(columns)).astype(
            {name: "datetime64[ns, UTC]" for name in columns if name in ("at", "came", "measured")}
        )
    )


readings_tables = rows(
    {
        "reading": names,
        "at": instants,
        "machine": machines,
        "hall": halls,
        "model": st.sampled_from(["A", "B", None]),
        "decidegrees": st.integers(-400, 1500) | st.none(),
    },
    min_size=1,
    unique_by=lambda row: row["reading"],
)
visits_tables = rows(
    {"visit": names, "came": instants | st.none(), "machine": machines, "hall": halls},
    unique_by=lambda row: row["visit"],
)
halls_tables = rows(
    {"hall": halls, "measured": instants, "humidity": st.floats(0, 1) | st.none()},
    unique_by=lambda row: (row["hall"], row["measured"]),
)


def history_of(readings, visits):
    return events.from_tables(SENSORS, {"readings": readings, "visits": visits}, KEYS)


def bits(frame):
    """Numbers as their bits, all NaN alike."""
    numbers = frame.drop(columns="model").to_numpy(np.float32)
    return np.where(np.isnan(numbers), np.float32(np.nan), numbers).view("uint32")


def assert_equal_bit_for_bit(found, expected):
    assert found.columns.tolist() == expected.columns.tolist() == list(SENSORS.names)
    assert found["model"].tolist() == expected["model"].tolist()
    np.testing.assert_array_equal(bits(found), bits(expected))


@settings(max_examples=40, deadline=None)
@given(readings_tables, visits_tables, halls_tables)
def test_online_equals_offline_whatever_happens(tmp_path_factory, readings, visits, halls):
    history = history_of(readings, visits)
    stream = events.stream(SENSORS, history, {"halls": halls})
    asked = readings.sort_values("at")
    path = tmp_path_factory.mktemp("sensors") / "store.sqlite"
    served = []
    with Store(path, SENSORS) as store:
        answers = online.requests(asked, SENSORS, prepare=prepare, store=store)
        for at in asked["at"] - pd.Timedelta(minutes=10):
            store.apply(events.between(stream, store.as_of, at), up_to=at)
            served.append(next(answers))
        one_row = online.compute(asked.iloc[-1].to_dict(), SENSORS, prepare=prepare, store=store)
    assert repr(one_row) == repr(served[-1])

    expected = offline.compute(
        asked, SENSORS, prepare=prepare, history=history, observed={"halls": halls}
    )

    assert_equal_bit_for_bit(pd.DataFrame(served), expected)


def made(n, *, seed=0):
    """Two days of readings and visits of five machines in two halls, and the halls' climate."""
    rng = np.random.default_rng(seed)
    machine = rng.integers(0, 5, n)

    def instants_of(size):
        seconds = rng.integers(0, 48 * HOUR_S, size)
        return NOON - pd.to_timedelta(np.sort(seconds)[::-1], unit="s")

    readings = pd.DataFrame({"reading": [f"r{i}" for i in range(n)], "at": instants_of(n)})
    readings["machine"] = [f"m{i}" for i in machine]
    readings["hall"] = np.where(machine < 2, "north", "south")
    readings["model"] = rng.choice(["A", "B"], n)
    readings["decidegrees"] = rng.integers(300, 1200, n)
    visits = readings[["machine", "hall"]].iloc[::10].reset_index(drop=True)
    visits["visit"] = [f"r{i}" for i in range(len(visits))]
    visits["came"] = instants_of(len(visits))
    halls = pd.DataFrame({"hall": "north", "measured": instants_of(40)})
    halls["humidity"] = rng.random(40)
    return readings, visits, halls


def test_two_replayed_days_online_equal_offline(tmp_path):
    readings, visits, halls = made(600)
    history = history_of(readings, visits)
    stream = events.stream(SENSORS, history, {"halls": halls})
    served = []
    with Store(tmp_path / "store.sqlite", SENSORS) as store:
        answers = online.requests(readings, SENSORS, prepare=prepare, store=store)
        for at in readings["at"] - pd.Timedelta(minutes=10):
            store.apply(events.between(stream, store.as_of, at), up_to=at)
            served.append(next(answers))
    # A restarted store goes on from text keys and from values that are missing.
    with Store(tmp_path / "store.sqlite", SENSORS) as store:
        again = list(online.requests(readings.tail(50), SENSORS, prepare=prepare, store=store))

    expected = offline.compute(
        readings, SENSORS, prepare=prepare, history=history, observed={"halls": halls}
    )

    assert repr(again) == repr(served[-50:])
    assert_equal_bit_for_bit(pd.DataFrame(served), expected)
    assert expected.index.tolist() == readings["reading"].tolist()
    assert 0 < expected["humidity"].isna().mean() < 1
    assert expected["visits_48h"].agg(["min", "max"]).tolist() == [0, 14]
    assert expected["quiet_24h"].nunique() > 50
    assert expected["hour"].isin([0, 1]).any()


def test_a_visit_with_the_key_of_a_reading_is_not_its_own(tmp_path):
    readings = pd.DataFrame(
        {"reading": ["1"], "at": [NOON], "machine": ["m1"], "hall": ["north"], "model": ["A"]}
    ).assign(decidegrees=500)
    visits = pd.DataFrame(
        {"visit": ["1"], "came": [NOON - pd.Timedelta(hours=5)], "machine": "m1", "hall": "north"}
    )
    history = history_of(readings, visits)
    due = (NOON - pd.Timedelta(minutes=10)).to_pydatetime()
    with Store(tmp_path / "store.sqlite", SENSORS) as store:
        store.apply(events.stream(SENSORS, history), up_to=due)
        served = online.compute(readings.iloc[0], SENSORS, prepare=prepare, store=store)
        # A minute after the reading itself, its own value does not count, the visit does.
        later = datetime(2026, 3, 29, 0, 31, tzinfo=UTC)
        store.apply([], up_to=later)
        own = online.compute(readings.iloc[0], SENSORS, prepare=prepare, store=store, at=later)

    computed = offline.compute(readings, SENSORS, prepare=prepare, history=history)

    assert served["visits_48h"] == computed["visits_48h"].item() == 1
    assert (own["visits_48h"], math.isnan(own["mean_6h"])) == (1, True)
    late = offline.compute(readings, SENSORS, prepare=prepare, history=history, due="1min")
    assert (late["visits_48h"].item(), math.isnan(late["mean_6h"].item())) == (1, True)
    leaky = offline.compute(
        readings, SENSORS, prepare=prepare, history=history, due="1min", counts_own=True
    )
    assert leaky["mean_6h"].item() == 500


def test_fractions_of_a_degree_are_refused_with_a_way_out():
    readings, visits, _ = made(20)
    in_degrees = readings.assign(decidegrees=readings["decidegrees"] / 10)
    history = history_of(in_degrees, visits)

    with pytest.raises(InvalidArgumentError, match="round them, or count in a smaller unit, such"):
        offline.compute(readings, SENSORS, prepare=prepare, history=history)
    with pytest.raises(InvalidArgumentError, match="round them, or count in a smaller unit, such"):
        events.stream(SENSORS, history)


def test_what_a_window_makes_of_values_must_be_whole_too(tmp_path):
    readings, visits, _ = made(20)
    source = Window(
        entity="machine",
        event=READ,
        value=lambda decidegrees: decidegrees / 10,
        window_s=HOUR_S * 100,
        aggregate="mean",
        empty=math.nan,
    )
    degrees = FeatureSet(
        of="readings",
        key="reading",
        time="at",
        inputs=["at", "machine"],
        features=[feature("degrees", source)],
    )
    history = events.from_tables(degrees, {"readings": readings}, KEYS)

    with pytest.raises(InvalidArgumentError, match="'read' makes values of them that are no whole"):
        offline.compute(readings, degrees, history=history)
    with Store(tmp_path / "store.sqlite", degrees) as store:
        store.apply(events.stream(degrees, history), up_to=NOON + timedelta(hours=1))
        with pytest.raises(InvalidArgumentError, match="'read' makes values of them that are no"):
            list(online.requests(readings, degrees, store=store))
    assert len(visits) == 2
