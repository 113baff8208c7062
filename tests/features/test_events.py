from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import events, instants
from mlops_mini.features.events import Happening, Observed
from mlops_mini.features.feature_set import FeatureSet
from tests.features.toys import (
    CLIMATE,
    FINISHED,
    HOUR_S,
    JOBS,
    STARTED,
    climate,
    happened,
    jobs,
    window,
)


@pytest.fixture(scope="module")
def rows():
    return jobs(500)


@pytest.fixture(scope="module")
def history(rows):
    return happened(rows)


def test_what_has_not_happened_is_no_event(rows, history):
    assert history["kind"].value_counts().to_dict() == {
        "planned": 500,
        "started": rows["started_at"].notna().sum(),
        "finished": rows["finished_at"].notna().sum(),
    }
    assert rows["finished_at"].notna().sum() < rows["started_at"].notna().sum() < 500


def test_events_are_listed_in_the_order_in_which_they_are_known(rows, history):
    assert history["available_at"].is_monotonic_increasing
    assert history["available_at"].dtype == history["event_utc"].dtype == "datetime64[ns, UTC]"
    assert (history["available_at"] == history["event_utc"]).all()
    job = rows.dropna().iloc[0]
    of_one = history[history["id"] == job["job_id"]].set_index("kind")
    assert of_one.loc["started", "event_utc"] == job["started_at"]
    assert of_one.loc["started", ["line", "team", "product", "value"]].tolist() == [
        *job[["line", "team", "product", "wait_min"]]
    ]


def test_an_event_may_become_known_after_it_has_happened(rows):
    reported = replace(STARTED, published_after_s=HOUR_S)
    late = replace(JOBS, features=[window("n", "line", reported, 1, aggregate="count")])

    history = events.from_tables(late, {"jobs": rows}, {"jobs": "job_id"})

    assert (history["available_at"] - history["event_utc"] == pd.Timedelta(hours=1)).all()


def test_two_tables_may_have_keys_and_entities_of_their_own():
    repair = replace(FINISHED, kind="repair", table="repairs", time="at", value="minutes")
    both = replace(
        JOBS,
        features=[
            window("n", "team", STARTED, 1, aggregate="count"),
            window("m", "machine", repair, 1, aggregate="mean"),
        ],
    )
    now = pd.Timestamp("2013-03-08", tz="UTC")
    started = pd.DataFrame({"job_id": [7], "team": ["red"], "wait_min": [5], "started_at": [now]})
    repairs = pd.DataFrame({"repair_no": ["r1"], "machine": [12], "minutes": [30], "at": [now]})

    history = events.from_tables(
        both,
        {"jobs": started, "repairs": repairs},
        {"jobs": "job_id", "repairs": "repair_no"},
    )

    at_s = instants.epoch_s(now)
    assert events.stream(both, history) == [
        Happening("started", 7, at_s, at_s, ("red", None), 5),
        Happening("repair", "r1", at_s, at_s, (None, 12), 30),
    ]


def test_without_any_event_the_history_is_empty():
    plan_only = replace(JOBS, features=JOBS.formulas)

    history = events.from_tables(plan_only, {}, {})

    assert history.empty
    assert events.stream(plan_only, history) == []
    assert events.checked_history(JOBS, happened(jobs(0))).empty


def test_a_table_a_key_or_a_column_that_is_missing_is_named(rows):
    with pytest.raises(InvalidArgumentError, match="events need the table 'jobs' and its key"):
        events.from_tables(JOBS, {}, {})
    with pytest.raises(InvalidArgumentError, match="the key of 'jobs' is 'job_id' in the feature"):
        events.from_tables(JOBS, {"jobs": rows}, {"jobs": "n_parts"})
    with pytest.raises(
        InvalidArgumentError, match=r"'started' need the columns \['wait_min'\] too"
    ):
        events.from_tables(JOBS, {"jobs": rows.drop(columns="wait_min")}, {"jobs": "job_id"})
    with pytest.raises(InvalidArgumentError, match=r"1 of 500 values of job_id are missing"):
        happened(rows.assign(job_id=rows["job_id"].where(rows["job_id"] != 5)))
    with pytest.raises(InvalidArgumentError, match=r"events need the columns \['kind'\] too"):
        events.checked_history(JOBS, happened(rows).drop(columns="kind"))
    with pytest.raises(InvalidArgumentError, match=r"of climate need the columns \['humidity'\]"):
        events.checked_observations(JOBS, CLIMATE, climate().drop(columns="humidity"))


def test_a_stream_mixes_events_and_observations_by_the_time_they_are_known(history):
    stream = events.stream(JOBS, history, {"climate": climate()})

    known_s = [event.available_s for event in stream]
    assert known_s == sorted(known_s)
    observed = [event for event in stream if isinstance(event, Observed)]
    assert len(observed) == len(climate())
    assert len(stream) == len(history) + len(observed)
    assert {event.available_s - event.event_s for event in observed} == {HOUR_S}
    assert {type(value) for event in observed for value in event.numbers.values()} == {float}
    values = {type(event.value) for event in stream if isinstance(event, Happening)}
    assert values == {int, type(None)}


def test_a_stream_is_cut_without_a_gap_or_an_overlap(history):
    stream = events.stream(JOBS, history)
    noon, stream_end = datetime(2013, 3, 5, 12, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    after_night = events.between(stream, noon + timedelta(hours=11), stream_end)
    night = datetime.fromtimestamp(after_night[0].available_s, UTC)

    parts = [
        events.between(stream, after, up_to)
        for after, up_to in ((None, noon), (noon, night), (night, stream_end))
    ]

    assert [event for part in parts for event in part] == stream
    assert all(noon.timestamp() < event.available_s <= night.timestamp() for event in parts[1])
    assert parts[1][-1].available_s == night.timestamp()


def test_instants_without_a_zone_are_refused(history):
    naive = history.assign(event_utc=history["event_utc"].dt.tz_localize(None))
    naive_climate = climate().assign(hour=lambda frame: frame["hour"].dt.tz_localize(None))
    naive_jobs = jobs(5).assign(started_at=lambda frame: frame["started_at"].dt.tz_localize(None))

    with pytest.raises(InvalidArgumentError, match=r"event_utc is .* without a time zone"):
        events.checked_history(JOBS, naive)
    with pytest.raises(InvalidArgumentError, match=r"hour is .* without a time zone"):
        events.checked_observations(JOBS, CLIMATE, naive_climate)
    with pytest.raises(InvalidArgumentError, match=r"started_at is .* without a time zone"):
        happened(naive_jobs)
    with pytest.raises(InvalidArgumentError, match="has no time zone"):
        instants.epoch_s(datetime(2013, 1, 1))  # noqa: DTZ001


def test_another_zone_is_the_same_instant(history):
    in_tokyo = history.assign(event_utc=history["event_utc"].dt.tz_convert("Asia/Tokyo"))

    pd.testing.assert_frame_equal(
        events.checked_history(JOBS, in_tokyo), events.checked_history(JOBS, history)
    )


@pytest.mark.parametrize("value", [0.5, np.inf, 2.0**40])
def test_values_that_are_no_whole_numbers_are_refused(history, value):
    history = history.copy()
    history.loc[5, ["kind", "value"]] = ["started", value]

    with pytest.raises(InvalidArgumentError, match=r"1 values .* tenths of a degree") as raised:
        events.checked_history(JOBS, history)

    assert f"such as {value}" in str(raised.value)


def test_an_event_that_lacks_its_time_or_its_value_is_left_out(history):
    history = history.copy()
    started = history[history["kind"] == "started"].index
    history.loc[started[0], "value"] = np.nan
    history.loc[started[1], "event_utc"] = pd.NaT

    known = events.checked_history(JOBS, history)

    assert len(known) == len(history) - 2
    assert known.loc[known["kind"] == "started", "value"].notna().all()


def test_what_no_feature_uses_is_left_out(history):
    starts_only = FeatureSet(
        of="jobs", key="job_id", time="planned_at", inputs=["line"], features=JOBS.windows[:1]
    )

    known = events.checked_history(starts_only, history)

    assert set(known["kind"]) == {"started"}
    assert {"team", "product"}.isdisjoint(known)


def test_of_two_observations_of_an_instant_the_first_stands():
    one = climate().head(1)
    twice = pd.concat([one, one.assign(temp_c=99.0)])

    known = events.checked_observations(JOBS, CLIMATE, twice)

    assert known["temp_c"].tolist() == one["temp_c"].tolist()
