import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_mini.data import datasets, schema
from mlops_mini.errors import DataIntegrityError


@pytest.fixture(scope="module")
def march():
    return datasets.flights("2013-03").head(2_000)


def put(flights, row, **values):
    """Change values of one row, in columns that can hold them."""
    changed = flights.copy()
    for name, value in values.items():
        changed[name] = changed[name].astype(object if isinstance(value, str | None) else float)
        changed.loc[row, name] = value
    return changed


def test_one_row_of_the_year_is_quarantined(year):
    splits = [
        schema.split_rows(flights, f"2013-{month:02}") for month, flights in year.groupby("month")
    ]
    quarantined = pd.concat([split.quarantined for split in splits])

    assert sum(len(split.kept) for split in splits) == 336_775
    assert quarantined[["carrier", "flight", "month", "day", "reason"]].to_numpy().tolist() == [
        ["US", 1632, 7, 27, "distance: in_range(50, 5000), found 17"]
    ]


def test_large_but_true_delays_are_kept(year):
    longest = year.nlargest(1, "dep_delay")

    split = schema.split_rows(longest, "2013-01")

    assert split.kept["dep_delay"].tolist() == [1301]
    assert split.quarantined.empty


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"distance": 49.0}, "distance: in_range(50, 5000), found 49.0"),
        ({"distance": 5001.0}, "distance: in_range(50, 5000), found 5001.0"),
        ({"distance": 100.5}, "distance: is a whole number, found 100.5"),
        ({"distance": np.nan}, "distance: not_nullable, found nan"),
        ({"carrier": "UAL"}, "carrier: str_length(2, 2), found UAL"),
        ({"carrier": None}, "carrier: not_nullable, found None"),
        ({"origin": "BOS"}, "origin: isin(('EWR', 'JFK', 'LGA')), found BOS"),
        ({"dest": "LHRX"}, "dest: str_length(3, 3), found LHRX"),
        ({"month": 4.0}, "month: isin([3]), found 4.0"),
        ({"year": 2014.0}, "year: equal_to(2013), found 2014.0"),
        ({"sched_dep_time": 1260.0}, "sched_dep_time: is a clock time HHMM, found 1260.0"),
        ({"sched_arr_time": 2401.0}, "sched_arr_time: is a clock time HHMM, found 2401.0"),
        ({"sched_arr_time": -5.0}, "sched_arr_time: is a clock time HHMM, found -5.0"),
        ({"arr_delay": 7.25}, "arr_delay: is a whole number, found 7.25"),
        (
            {"dep_delay": np.nan, "arr_delay": 3.0},
            "dep_delay, arr_delay: no arrival without departure, found nan, 3.0",
        ),
    ],
)
def test_a_reason_names_column_rule_and_value(march, values, reason):
    split = schema.split_rows(put(march, 5, **values), "2013-03")

    assert split.quarantined["reason"].tolist() == [reason]
    assert split.quarantined.index.tolist() == [5]
    assert len(split.kept) == 1_999


def test_a_date_must_exist(march):
    april = put(march.assign(month=4), 9, day=31.0)

    split = schema.split_rows(april, "2013-04")

    assert split.quarantined["reason"].tolist() == [
        "year, month, day: is a date, found 2013, 4, 31.0"
    ]


def test_all_broken_rules_of_a_row_are_told(march):
    split = schema.split_rows(put(march, 0, distance=1.0, carrier="X"), "2013-03")

    assert sorted(split.quarantined["reason"].item().split("; ")) == [
        "carrier: str_length(2, 2), found X",
        "distance: in_range(50, 5000), found 1.0",
    ]


def test_of_two_equal_keys_the_first_is_kept(march):
    again = march.iloc[[3]].assign(flight_id=999_999)
    same_id = march.iloc[[4]].assign(flight=9_999)

    split = schema.split_rows(pd.concat([march, again, same_id]), "2013-03")

    assert len(split.kept) == 2_000
    assert split.quarantined["reason"].str.contains("once, found 2013, 3").tolist() == [True, False]
    assert split.quarantined["reason"].iloc[1].startswith("flight_id: ")


def test_a_week_may_hold_the_months_it_touches():
    week = datasets.flights("2013-W12")

    assert schema.split_rows(week, "2013-W12").quarantined.empty
    with pytest.raises(DataIntegrityError, match=r"month: isin\(\[3\]\), found 4"):
        schema.split_rows(week, "2013-03")


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(st.integers(0, 199), max_size=10),
    column=st.sampled_from(["distance", "sched_dep_time", "flight", "day"]),
    value=st.sampled_from([-1.0, 0.5, np.nan, 30_000.0]),
)
def test_every_row_that_arrived_is_kept_or_quarantined(march, rows, column, value):
    arrived = march.head(200).astype({column: float})
    arrived.iloc[rows, arrived.columns.get_loc(column)] = value

    split = schema.split_rows(arrived, "2013-03", max_quarantined_share=1.0)

    together = pd.concat([split.kept, split.quarantined.drop(columns="reason")]).sort_index()
    pd.testing.assert_frame_equal(together, arrived)


def test_more_bad_rows_than_the_limit_refuse_the_partition(march):
    arrived = march.astype({"distance": float})
    arrived.iloc[:20, arrived.columns.get_loc("distance")] = 1.0
    assert len(schema.split_rows(arrived, "2013-03").quarantined) == 20  # exactly 1 %

    arrived.iloc[20, arrived.columns.get_loc("distance")] = 1.0

    with pytest.raises(
        DataIntegrityError, match=r"2013-03 refused: 21 of 2000 rows .* at most 1\.0%"
    ):
        schema.split_rows(arrived, "2013-03")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda flights: flights.drop(columns="carrier"), r"columns \['carrier'\] are missing"),
        (lambda flights: flights.rename(columns={"dest": "to"}), r"columns \['dest'\] are missing"),
        (lambda flights: flights[:0], "no rows"),
        (lambda flights: flights.astype({"distance": str}), "'distance' is object, expected int16"),
        (lambda flights: flights.assign(carrier=1), "'carrier' is int64, expected string"),
        (lambda flights: put(flights, 1, distance="far"), "'distance' is object, expected int16"),
    ],
)
def test_a_malformed_partition_is_refused_as_a_whole(march, change, message):
    with pytest.raises(DataIntegrityError, match=message) as error:
        schema.split_rows(change(march), "2013-03")

    assert "\n" not in str(error.value)


def test_the_frame_given_is_not_changed(march):
    before = march.copy()

    schema.split_rows(march, "2013-03")

    pd.testing.assert_frame_equal(march, before)
