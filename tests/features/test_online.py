import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import events, offline, online
from mlops_mini.features.store import Store
from tests.features.toys import JOBS, climate, happened, jobs


@pytest.fixture(scope="module")
def rows():
    return jobs(800)


def test_a_replayed_plan_online_equals_offline(tmp_path, rows):
    history, observed = happened(rows), {"climate": climate()}
    stream = events.stream(JOBS, history, observed)
    served = []
    with Store(tmp_path / "store.sqlite", JOBS) as store:
        answers = online.requests(rows, JOBS, store=store)
        for at in rows["planned_at"] - pd.Timedelta(hours=1):
            store.apply(events.between(stream, store.as_of, at), up_to=at)
            served.append(next(answers))
            if len(served) % 50 == 0:
                job = rows.iloc[len(served) - 1].to_dict()
                one = online.compute(job, JOBS, store=store)
                assert repr(one) == repr(served[-1])

    expected = offline.compute(rows, JOBS, history=history, observed=observed)

    found = pd.DataFrame(served, index=expected.index).astype(expected.dtypes)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert expected.isna().any().sum() > 3  # missing values were compared too


def test_a_replay_in_any_order_equals_offline_and_a_store_told_late_does_not(tmp_path, rows):
    shuffled = rows.sample(frac=1, random_state=0)
    history, observed = happened(rows), {"climate": climate()}
    stream = events.stream(JOBS, history, observed)
    expected = offline.compute(shuffled, JOBS, history=history, observed=observed)

    with Store(tmp_path / "store.sqlite", JOBS) as store:
        in_time = online.replay(shuffled, JOBS, stream, store=store)
    with Store(tmp_path / "late.sqlite", JOBS) as store:
        late = online.replay(shuffled, JOBS, stream, store=store, told_every="12h")

    pd.testing.assert_frame_equal(in_time, expected, check_exact=True)
    assert late.index.equals(expected.index)
    assert not late.equals(expected)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "team": st.sampled_from(["red", "blue", None]),
                "n_parts": st.integers(0, 10**9) | st.floats(0, 1e9) | st.none(),
            }
        ),
        min_size=1,
        max_size=8,
    )
)
def test_one_job_has_the_features_that_it_has_among_others(plans):
    planned_at = pd.Timestamp("2013-03-08", tz="UTC")
    rows = [plan | {"planned_at": planned_at, "line": "A", "product": None} for plan in plans]
    table = pd.DataFrame(rows).assign(job_id=range(len(rows)))

    alone = [online.compute(row, JOBS) for row in rows]

    together = offline.compute(table, JOBS).to_dict("records")
    assert repr(alone) == repr(list(online.requests(table, JOBS))) == repr(together)


def test_values_are_plain_and_in_the_order_of_the_set(tmp_path, rows):
    job = rows.iloc[700].to_dict()
    with Store(tmp_path / "store.sqlite", JOBS) as store:
        found = online.compute(job, JOBS, store=store, at=job["planned_at"])

    assert list(found) == list(JOBS.names)
    assert [type(value) for value in found.values()] == [str, *[float] * 13]


@pytest.mark.parametrize("gone", [None, np.nan, pd.NA, pd.NaT])
def test_every_kind_of_missing_value_is_missing(rows, gone):
    job = rows.iloc[0].to_dict() | {"n_parts": gone, "team": gone, "job_id": gone}

    found = online.compute(job, JOBS)

    assert found["team"] == ""
    assert math.isnan(found["dozens"])


def test_a_missing_input_is_named(rows):
    job = rows.iloc[0].drop(["team", "line"]).to_dict()

    with pytest.raises(InvalidArgumentError, match=r"need \['line', 'team'\] too"):
        online.compute(job, JOBS)
