from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import offline
from mlops_mini.features.sources import Formula
from tests.features.toys import JOBS, climate, happened, jobs


@pytest.fixture(scope="module")
def rows():
    return jobs(1000)


@pytest.fixture(scope="module")
def features(rows):
    return offline.compute(rows, JOBS, history=happened(rows), observed={"climate": climate()})


def test_columns_index_and_types_are_those_of_the_set(rows, features):
    assert features.columns.tolist() == list(JOBS.names)
    assert features.index.equals(pd.Index(rows["job_id"]))
    assert features["team"].dtype == object
    assert (features.drop(columns="team").dtypes == np.float32).all()


def test_features_come_with_their_source(rows, features):
    def names(**sources):
        found = offline.compute(rows, JOBS, **sources)
        pd.testing.assert_frame_equal(found, features[found.columns])
        return found.columns.tolist()

    plan, air, recent = JOBS.names[:2], JOBS.names[2:4], JOBS.names[4:]
    assert names() == [*plan]
    assert names(observed={"climate": climate(), "other": rows}) == [*plan, *air]
    assert names(history=happened(rows)) == [*plan, *recent]


def test_outcomes_change_nothing(rows):
    outcomes = ["started_at", "finished_at", "wait_min", "overrun_min"]

    pd.testing.assert_frame_equal(
        offline.compute(rows.drop(columns=outcomes), JOBS), offline.compute(rows, JOBS)
    )


def test_what_happens_after_a_prediction_changes_nothing(rows, features):
    last = rows["planned_at"].iloc[499] - pd.Timedelta(hours=1)
    history, observed = happened(rows), climate()
    known = history[history["available_at"] <= last]
    published = observed[observed["hour"] + pd.Timedelta(hours=1) <= last]

    found = offline.compute(rows.head(500), JOBS, history=known, observed={"climate": published})

    assert len(known) < len(history)
    pd.testing.assert_frame_equal(found, features.head(500))


def test_order_and_repetition_of_rows_change_no_value(rows, features):
    again = pd.concat([rows, rows]).sample(frac=1.0, random_state=0)

    found = offline.compute(again, JOBS, history=happened(rows), observed={"climate": climate()})

    pd.testing.assert_frame_equal(found, features.loc[again["job_id"]])


def test_another_instant_may_be_asked_for(rows, features):
    sources = {"history": happened(rows), "observed": {"climate": climate()}}

    now = offline.compute(rows, JOBS, **sources, due="0min")

    later = rows.assign(planned_at=rows["planned_at"] + pd.Timedelta(hours=1))
    pd.testing.assert_frame_equal(now, offline.compute(later, JOBS, **sources))
    assert not now.equals(features)


def test_a_formula_cannot_read_what_is_not_known(rows):
    def with_formula(compute):
        return replace(JOBS, features=[replace(JOBS.formulas[1], source=Formula(compute=compute))])

    with pytest.raises(InvalidArgumentError, match="'dozens' reads the column 'wait_min', which"):
        offline.compute(rows, with_formula(lambda job: job["wait_min"] > 0))
    with pytest.raises(InvalidArgumentError, match=r"'dozens' can't be computed.*check the col"):
        offline.compute(rows, with_formula(lambda job: job["line"] / 12))


def test_prepare_derives_from_the_inputs_alone_and_keeps_the_rows(rows):
    read = []

    def prepare(known):
        read.extend(known.columns)
        return known.assign(dozens=known["n_parts"] // 12)

    dozens = replace(JOBS.formulas[1], source=Formula(compute=lambda job: job["dozens"]))
    whole = replace(JOBS, features=[dozens])

    found = offline.compute(rows.assign(dozens=-1), whole, prepare=prepare)

    assert read == list(JOBS.inputs)
    assert found["dozens"].tolist() == (rows["n_parts"] // 12).tolist()
    for changes in (lambda known: known.head(5), lambda known: known[::-1]):
        with pytest.raises(InvalidArgumentError, match=r"jobs: prepare gave .* the rows it got"):
            offline.compute(rows, JOBS, prepare=changes)


def test_what_is_missing_is_named(rows):
    history = happened(rows)
    with pytest.raises(InvalidArgumentError, match=r"features need the columns \['team'\] too"):
        offline.compute(rows.drop(columns="team"), JOBS)
    with pytest.raises(InvalidArgumentError, match=r"features need the columns \['job_id'\] too"):
        offline.compute(rows.drop(columns="job_id"), JOBS)
    with pytest.raises(InvalidArgumentError, match=r"recent features need the columns \['line'\]"):
        offline.compute(
            rows,
            replace(JOBS, inputs=("planned_at", "n_parts", "team", "product")),
            history=history,
        )
    with pytest.raises(InvalidArgumentError, match="1 of 1000 rows have no planned_at, such as ro"):
        offline.compute(rows.assign(planned_at=rows["planned_at"].where(rows.index != 7)), JOBS)
    naive = rows.assign(planned_at=rows["planned_at"].dt.tz_localize(None))
    with pytest.raises(InvalidArgumentError, match=r"planned_at is .* without a time zone"):
        offline.compute(naive, JOBS, history=history)


def test_windows_alone_or_nothing_at_all_give_a_row_for_each_example(rows):
    windows_only = replace(JOBS, features=JOBS.windows)

    assert len(offline.compute(rows, windows_only)) == 1000
    assert len(offline.compute(rows, windows_only, history=happened(rows)).columns) == 10
