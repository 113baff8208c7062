from dataclasses import replace

import pandas as pd
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import feature_set
from tests.features.toys import CLIMATE, FINISHED, JOBS, PLANNED, STARTED


def test_it_knows_its_features_by_their_source():
    parts = (JOBS.formulas, JOBS.latest, JOBS.windows)

    assert [len(part) for part in parts] == [2, 2, 10]
    assert tuple(feature for part in parts for feature in part) == JOBS.features
    assert JOBS.names[:3] == ("team", "dozens", "temp_c")


def test_events_observations_and_entities_are_listed_once():
    assert JOBS.events == (STARTED, FINISHED, PLANNED)
    assert JOBS.observations == (CLIMATE,)
    assert JOBS.entities == ("line", "team", "product")
    assert JOBS.entities_of(STARTED) == ("line", "team")
    assert JOBS.columns_of(CLIMATE) == ("temp_c", "humidity")


def test_it_reaches_as_far_back_as_its_longest_window_or_oldest_observation():
    assert JOBS.reach_s == 24 * 3600
    assert replace(JOBS, features=JOBS.latest).reach_s == 7 * 3600
    assert replace(JOBS, features=JOBS.formulas).reach_s == 0


def test_what_shares_a_name_is_refused():
    n_1h, temp_c = JOBS.windows[0], JOBS.latest[0]
    other_start = replace(STARTED, time="began_at")
    other_climate = replace(CLIMATE, time_to_live_s=60)
    other_window = replace(n_1h, name="x", source=replace(n_1h.source, event=other_start))
    other_latest = replace(
        temp_c, name="x", source=replace(temp_c.source, observation=other_climate)
    )

    for features, message in (
        ((n_1h, n_1h), r"features share the name \['line_n_1h'\]"),
        ((n_1h, other_window), r"different events share the kind \['started'\]"),
        ((temp_c, other_latest), r"different observations share the table \['climate'\]"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            replace(JOBS, features=features)


@pytest.mark.parametrize("due", ["soon", "0.5s", "NaT"])
def test_a_prediction_is_due_after_whole_seconds(due):
    with pytest.raises(InvalidArgumentError, match=f"due is '{due}', expected a duration"):
        replace(JOBS, due=due)

    assert feature_set.offset("-90s") == pd.Timedelta(seconds=-90)
