import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_mini.errors import DataIntegrityError
from mlops_mini.flights import datasets
from tests.flight_data import split_rows


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
    splits = [split_rows(flights, f"2013-{month:02}") for month, flights in year.groupby("month")]
    quarantined = pd.concat([split.quarantined for split in splits])

    assert sum(len(split.kept) for split in splits) == 336_775
    assert quarantined[["carrier", "flight", "month", "day", "reason"]].to_numpy().tolist() == [
        ["US", 1632, 7, 27, "distance: in_range(50, 5000), found 17"]
    ]


def test_large_but_true_delays_are_kept(year):
    longest = year.nlargest(1, "dep_delay")

    split = split_rows(longest, "2013-01")

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
    split = split_rows(put(march, 5, **values), "2013-03")

    assert split.quarantined["reason"].tolist() == [reason]
    assert split.quarantined.index.tolist() == [5]
    assert len(split.kept) == 1_999


@pytest.mark.parametrize(
    ("values", "instant"),
    [({"month": 4.0}, "2013-04-01 09:30"), ({"year": 2014.0}, "2014-03-01 10:30")],
)
def test_a_flight_of_another_month_is_set_aside(march, values, instant):
    split = split_rows(put(march, 5, **values), "2013-03")

    reason = split.quarantined["reason"].item()
    assert reason.startswith(f"sched_dep_utc: is in 2013-03, found {instant}")


def test_a_date_must_exist(march):
    april = put(march.assign(month=4), 9, day=31.0)

    split = split_rows(april, "2013-04")

    assert split.quarantined["reason"].tolist() == [
        "year, month, day: is a date, found 2013, 4, 31.0"
    ]


def test_all_broken_rules_of_a_row_are_told(march):
    split = split_rows(put(march, 0, distance=1.0, carrier="X"), "2013-03")

    assert sorted(split.quarantined["reason"].item().split("; ")) == [
        "carrier: str_length(2, 2), found X",
        "distance: in_range(50, 5000), found 1.0",
    ]


def test_of_two_equal_keys_the_first_is_kept(march):
    again = march.iloc[[3]].assign(flight_id=999_999)
    same_id = march.iloc[[4]].assign(flight=9_999)

    split = split_rows(pd.concat([march, again, same_id]), "2013-03")

    assert len(split.kept) == 2_000
    assert split.quarantined["reason"].str.contains("once, found 2013, 3").tolist() == [True, False]
    assert split.quarantined["reason"].iloc[1].startswith("flight_id: comes only once, found ")


def test_a_week_may_hold_the_months_it_touches():
    week = datasets.flights("2013-W12")

    assert split_rows(week, "2013-W12").quarantined.empty
    with pytest.raises(DataIntegrityError, match="sched_dep_utc: is in 2013-03, found 2013-04"):
        split_rows(week, "2013-03")


@settings(max_examples=15)
@given(
    rows=st.lists(st.integers(0, 199), max_size=10),
    column=st.sampled_from(["distance", "sched_dep_time", "flight", "day"]),
    value=st.sampled_from([-1.0, 0.5, np.nan, 30_000.0]),
)
def test_every_row_that_arrived_is_kept_or_quarantined(march, rows, column, value):
    arrived = march.head(200).astype({column: float})
    arrived.iloc[rows, arrived.columns.get_loc(column)] = value

    split = split_rows(arrived, "2013-03", max_quarantined_share=1.0)

    together = pd.concat([split.kept, split.quarantined.drop(columns="reason")]).sort_index()
    pd.testing.assert_frame_equal(together, arrived)


def test_more_bad_rows_than_the_limit_refuse_the_partition(march):
    arrived = march.astype({"distance": float})
    arrived.iloc[:20, arrived.columns.get_loc("distance")] = 1.0
    assert len(split_rows(arrived, "2013-03").quarantined) == 20  # exactly 1 %

    arrived.iloc[20, arrived.columns.get_loc("distance")] = 1.0

    with pytest.raises(
        DataIntegrityError, match=r"2013-03 refused: 21 of 2000 rows .* at most 1\.0%"
    ):
        split_rows(arrived, "2013-03")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda flights: flights.drop(columns="carrier"), r"columns \['carrier'\] are missing"),
        (lambda flights: flights.rename(columns={"dest": "to"}), r"columns \['dest'\] are missing"),
        (lambda flights: flights[:0], "no rows"),
        (lambda flights: flights.astype({"distance": str}), "'distance' is object, expected int16"),
        (lambda flights: flights.assign(carrier=1), "'carrier' is int64, expected string"),
        (lambda flights: put(flights, 1, distance="far"), "'distance' is object with 'far' in row"),
    ],
)
def test_a_malformed_partition_is_refused_as_a_whole(march, change, message):
    with pytest.raises(DataIntegrityError, match=message) as error:
        split_rows(change(march), "2013-03")

    assert "\n" not in str(error.value)


def test_the_frame_given_is_not_changed(march):
    before = march.copy()

    split_rows(march, "2013-03")

    pd.testing.assert_frame_equal(march, before)


def test_a_failure_names_position_column_rule_and_value(march):
    split = split_rows(put(march, 5, distance=1.0, carrier="X"), "2013-03")

    assert sorted(split.failures.itertuples(index=False, name=None)) == [
        (5, "carrier", "str_length(2, 2)", "X"),
        (5, "distance", "in_range(50, 5000)", "1.0"),
    ]


def test_integers_that_missing_values_made_floats_are_kept(march):
    floats = march.astype(dict.fromkeys(march.select_dtypes("number"), "float64"))

    split = split_rows(floats, "2013-03")

    assert split.quarantined.empty
    assert split.findings == ()


def test_a_wholly_empty_column_refuses_the_partition(march):
    for column in ("arr_delay", "tailnum", "distance"):
        with pytest.raises(DataIntegrityError, match=f"column '{column}' is wholly empty"):
            split_rows(march.assign(**{column: None}), "2013-03")


def test_a_renamed_column_is_suspected(march):
    with pytest.raises(DataIntegrityError, match=r"\(is one of \['to'\] a new name\?\)"):
        split_rows(march.rename(columns={"dest": "to"}), "2013-03")


def test_an_extra_column_is_kept_and_a_finding(march):
    split = split_rows(march.assign(gate="A1"), "2013-03")

    assert [(finding.name, finding.column) for finding in split.findings] == [
        ("extra column", "gate")
    ]
    assert "gate" in split.kept.columns


def test_a_carrier_that_flickers_is_no_news(year):
    months = dict(iter(year.groupby("month")))
    counts = {month: (flights["carrier"] == "OO").sum() for month, flights in months.items()}

    assert {month: n for month, n in counts.items() if n} == {1: 1, 6: 2, 8: 4, 9: 20, 11: 5}
    for month in (1, 2, 9):
        assert split_rows(months[month], f"2013-{month:02}").findings == ()


def test_many_flights_without_label_are_a_finding_in_one_week_of_blizzard():
    findings = {
        week: split_rows(datasets.flights(week), week).findings
        for week in ("2013-W04", "2013-W05", "2013-W06")
    }

    assert findings["2013-W04"] == findings["2013-W06"] == ()
    assert [finding.text for finding in findings["2013-W05"]] == [
        "16.6% of arr_delay are missing, expected at most 10.0%"
    ]


def test_labels_that_never_come_stay_missing(year):
    assert year["arr_delay"].isna().sum() == 9_430
    assert year["dep_delay"].isna().sum() == 8_255


UNITS = {
    "km": (lambda rows: {"distance": (rows.distance * 1.609).round()}, "distance (distance)"),
    "seconds of departure": (lambda rows: {"dep_delay": rows.dep_delay * 60}, "size (dep_delay)"),
    "seconds of arrival": (lambda rows: {"arr_delay": rows.arr_delay * 60}, "size (arr_delay)"),
    "hours": (lambda rows: {"arr_delay": rows.arr_delay / 60}, "size (arr_delay)"),
    "seconds in the air": (
        lambda rows: {"air_time": rows.air_time * 60},
        "speed (distance, air_time)",
    ),
}


@pytest.mark.parametrize("month", [1, 7, 9])
@pytest.mark.parametrize("unit", UNITS)
def test_another_unit_refuses_the_partition(year, month, unit):
    convert, what = UNITS[unit]
    flights = year[year["month"] == month]

    with pytest.raises(DataIntegrityError, match="another unit") as error:
        split_rows(flights.assign(**convert(flights)), f"2013-{month:02}")

    assert what in str(error.value)
    assert "\n" not in str(error.value)


def test_everything_wrong_is_told_at_once(march):
    far = march.assign(distance=march["distance"] * 10, dep_delay=march["dep_delay"] * 60)

    with pytest.raises(DataIntegrityError) as error:
        split_rows(far, "2013-03")

    for part in ("median distance", "median size (dep_delay)", "rows break a rule"):
        assert part in str(error.value)


def test_a_few_rows_are_not_judged_as_a_whole(march):
    few = march.head(99).assign(dep_delay=march["dep_delay"].head(99) * 60)

    assert len(split_rows(few, "2013-03").kept) == 99


def test_a_few_rows_may_lack_all_that_may_be_missing(march):
    few = march.head(50).assign(dep_delay=None, arr_delay=None, air_time=None, tailnum=None)

    assert len(split_rows(few, "2013-03").kept) == 50


def test_a_few_rows_without_a_required_value_are_quarantined(march):
    few = march.head(50).assign(distance=None, carrier=None)

    split = split_rows(few, "2013-03", max_quarantined_share=1.0)

    assert len(split.quarantined) == 50
    assert split.quarantined["reason"].str.contains("carrier: not_nullable").all()
    assert split.quarantined["reason"].str.contains("distance: not_nullable").all()
