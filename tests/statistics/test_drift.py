import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.flights import airports, datasets, tables, times
from mlops_mini.statistics import distances, drift, protos, schemas
from tests.flight_data import periods
from tests.statistics.test_mergeable import of

SCHEDULE = ["mins", "dow", "distance", "block"]
WEATHER = ["temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"]


@pytest.fixture(scope="module")
def flights(year):
    """Labeled flights with the columns of the schedule and the last published weather."""
    arrived = year[year["arr_delay"].notna()].reset_index(drop=True)
    utc = times.derive_utc(arrived, airports.zones())
    weather = datasets.weather()
    published = weather.assign(published=weather["time_hour"] + pd.Timedelta(hours=1))
    observed = pd.merge_asof(
        pd.DataFrame({"pred_utc": utc["pred_utc"], "origin": arrived["origin"]})
        .reset_index()
        .sort_values("pred_utc"),
        published.sort_values("published")[["published", "origin", *WEATHER]],
        left_on="pred_utc",
        right_on="published",
        by="origin",
        tolerance=pd.Timedelta(hours=6),
    ).set_index("index")
    return pd.DataFrame(
        {
            "month": arrived["month"],
            "day": arrived["day"],
            "mins": times.minutes(arrived["sched_dep_time"]),
            "dow": pd.to_datetime(arrived[["year", "month", "day"]]).dt.dayofweek,
            "distance": arrived["distance"],
            "block": utc["block_min"],
            **observed[WEATHER].sort_index(),
        }
    )


@pytest.fixture(scope="module")
def by_month(flights):
    return {month: of(rows[[*SCHEDULE, *WEATHER]]) for month, rows in flights.groupby("month")}


@pytest.fixture(scope="module")
def against_january(by_month):
    return pd.DataFrame(
        {
            month: drift.compare(by_month[1], by_month[month]).table()["psi"]
            for month in range(2, 13)
        }
    )


def test_temperature_and_dew_point_move_in_every_month(against_january):
    assert (against_january.loc[["temp", "dewp"]] > 0.25).all(axis=None)
    assert against_january.loc["dewp", 7] == pytest.approx(8.23, abs=0.005)
    assert (against_january.loc["pressure"] > 0.25).sum() == 10


def test_the_schedule_hardly_moves(against_january):
    assert against_january.loc[SCHEDULE].max(axis=None) < 0.08


def test_halves_of_a_month_do_not_differ(flights):
    may = flights.loc[flights["month"] == 5, [*SCHEDULE, *WEATHER]]
    order = np.random.RandomState(0).permutation(len(may))
    halves = np.array_split(order, 2)

    report = drift.compare(*(of(may.iloc[half]) for half in halves))

    assert max(found.psi for found in report.columns) < 0.005


def test_two_weeks_of_may_differ_by_their_weather(flights):
    may = flights[flights["month"] == 5]
    weeks = [of(may.loc[(may["day"] - 1) // 7 == week, [*SCHEDULE, *WEATHER]]) for week in (0, 1)]

    psi = drift.compare(*weeks).table()["psi"]

    assert psi["pressure"] == pytest.approx(7.36, abs=0.005)
    assert psi["dewp"] == pytest.approx(3.23, abs=0.005)
    assert psi[["mins", "distance", "block"]].max() < 0.01


def test_statistics_of_a_file_give_the_same_report(by_month, tmp_path):
    protos.write(by_month[1], tmp_path / "1.pb")

    report = drift.compare(protos.read(tmp_path / "1.pb"), by_month[7])

    pd.testing.assert_frame_equal(report.table(), drift.compare(by_month[1], by_month[7]).table())


def test_the_report_ranks_by_relevance(by_month):
    importances = {"temp": 0.001, "visib": 0.1, "mins": 0.2}

    by_psi = drift.compare(by_month[1], by_month[7])
    by_relevance = drift.compare(by_month[1], by_month[7], importances=importances)

    assert [found.column for found in by_psi.columns[:3]] == ["dewp", "temp", "pressure"]
    assert [found.column for found in by_relevance.columns[:3]] == ["visib", "temp", "mins"]
    table = by_relevance.table()
    assert table.loc["visib", "relevance"] == table.loc["visib", "psi"] * 0.1
    assert (table["relevance"] == 0).sum() == len(SCHEDULE) + len(WEATHER) - 3


def test_thresholds_are_a_quantile_of_the_past():
    spans = [of(pd.DataFrame({"a": ["x"] * n + ["y"] * (100 - n)})) for n in (50, 51, 53, 56, 60)]

    thresholds = drift.calibrate(spans, measure=distances.l_infinity)

    assert thresholds == {"a": pytest.approx(np.quantile([0.01, 0.02, 0.03, 0.04], 0.95))}


def test_calibrated_thresholds_ring_less_than_rules_of_thumb(flights):
    day = (flights["month"] * 31 + flights["day"]) // 7
    weeks = [of(rows[WEATHER]) for _, rows in flights[flights["month"] <= 6].groupby(day)]
    calibrated = drift.calibrate(weeks)

    alarms = {
        name: np.mean(
            [bool(drift.compare(a, b, thresholds=limits).moved) for a, b in pairwise(weeks)]
        )
        for name, limits in {
            "calibrated": calibrated,
            "rule of thumb": dict.fromkeys(WEATHER, 0.25),
        }.items()
    }

    assert alarms["rule of thumb"] == 1.0
    assert alarms["calibrated"] < 0.5


def test_too_few_spans_to_calibrate_on_are_refused(by_month):
    with pytest.raises(InvalidArgumentError, match="2 spans to calibrate"):
        drift.calibrate([by_month[1], by_month[2]])


def test_the_reviewed_thresholds_are_those_of_january_to_june():
    weeks = [
        of(datasets.flights(week)[["carrier", "origin", "dest"]])
        for week in periods("2013-W00", "2013-W25")
    ]

    calibrated = drift.calibrate(weeks, measure=distances.l_infinity)

    assert {name: round(threshold, 4) for name, threshold in calibrated.items()} == {
        f.name: f.drift_comparator.infinity_norm.threshold
        for f in schemas.read(tables.FLIGHTS.schema).feature
        if f.HasField("drift_comparator")
    }


def test_the_schema_says_what_has_drifted():
    january, july = (of(datasets.flights(month)) for month in ("2013-01", "2013-07"))

    found = drift.validate(january, july, schemas.read(tables.FLIGHTS.schema))

    assert list(found.anomaly_info) == ["dest"]
    (reason,) = found.anomaly_info["dest"].reason
    assert reason.type == anomalies_pb2.AnomalyInfo.COMPARATOR_L_INFTY_HIGH
    assert reason.description == "L-infinity distance 0.01112, at most 0.0075"
    measured = {
        info.path.step[0]: info.drift_measurements[0].value for info in found.drift_skew_info
    }
    # TFDV 1.16.1 finds these from the same two files.
    assert measured == {
        "carrier": pytest.approx(0.007822566202785403, rel=1e-12),
        "dest": pytest.approx(0.011115975518023256, rel=1e-12),
        "origin": pytest.approx(0.010363328281269124, rel=1e-12),
    }


def test_drift_and_skew_have_their_own_comparators():
    schema = schema_pb2.Schema()
    delay = schema.feature.add(name="delay_min", type="FLOAT")
    delay.skew_comparator.jensen_shannon_divergence.threshold = 0.1
    training = of(pd.DataFrame({"delay_min": np.arange(100.0)}))
    serving = of(pd.DataFrame({"delay_min": np.arange(100.0) * 60}))  # seconds by mistake

    with pytest.raises(InvalidArgumentError, match="no drift_comparator for any of its 1 columns"):
        drift.validate(training, serving, schema, role="drift")
    found = drift.validate(training, serving, schema, role="skew")
    (reason,) = found.anomaly_info["delay_min"].reason
    assert reason.type == anomalies_pb2.AnomalyInfo.COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH
    assert reason.short_description == "skew"
    assert found.drift_skew_info[0].skew_measurements[0].threshold == 0.1
    assert not drift.validate(training, training, schema, role="skew").anomaly_info


@pytest.mark.parametrize(
    ("reference", "current", "side"),
    [
        ({"a": [None]}, {"a": ["x"]}, "in the reference"),
        ({"a": ["x"]}, {"a": [None]}, "now"),
        ({"a": ["x"]}, {"b": ["x"]}, "now"),
        ({"b": ["x"]}, {"a": ["x"]}, "in the reference"),
    ],
)
def test_a_comparison_without_values_is_an_anomaly(reference, current, side):
    schema = schema_pb2.Schema()
    schema.feature.add(name="a", type="BYTES").drift_comparator.infinity_norm.threshold = 0.5

    found = drift.validate(of(pd.DataFrame(reference)), of(pd.DataFrame(current)), schema)

    assert found.anomaly_info["a"].description == f"no values {side}"


def test_columns_of_one_side_only_are_left_out():
    report = drift.compare(of(pd.DataFrame({"a": [1], "b": [2]})), of(pd.DataFrame({"b": [2]})))

    assert [found.column for found in report.columns] == ["b"]


def test_a_column_of_another_kind_is_refused_by_name():
    with pytest.raises(InvalidArgumentError, match="'a' holds text in the reference and number"):
        drift.compare(of(pd.DataFrame({"a": ["x"]})), of(pd.DataFrame({"a": [1]})))


A = of(pd.DataFrame({"a": [1.0, 2.0]}))
NO_ROWS = of(pd.DataFrame({"a": pd.Series([], dtype=float)}))


@pytest.mark.parametrize(
    ("reference", "current"), [(A, NO_ROWS), (NO_ROWS, A), (A, of(pd.DataFrame({"b": [1.0]})))]
)
def test_nothing_to_compare_is_no_calm(reference, current):
    with pytest.raises(InvalidArgumentError, match="nothing to compare: the reference has"):
        drift.compare(reference, current)


def test_thresholds_of_columns_that_have_gone_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"of \['gone'\], which are not on both sides"):
        drift.compare(A, A, thresholds={"a": 0.1, "gone": 0.1})


@pytest.mark.parametrize("quantile", [np.nan, 1.5])
def test_thresholds_that_nothing_exceeds_are_refused(quantile):
    with pytest.raises(InvalidArgumentError, match="'a' has nothing to compare between spans 1"):
        drift.calibrate([A, A, NO_ROWS, A])
    with pytest.raises(InvalidArgumentError, match="expected a share from 0 to 1"):
        drift.calibrate([A, A, A], quantile=quantile)


@pytest.mark.parametrize(
    ("comparator", "message"),
    [
        ({"normalized_abs_difference": {"threshold": 0.1}}, r"asks for \['normalized_abs_diff"),
        ({"jensen_shannon_divergence": {"threshold": math.nan}}, "divergence nan, expected a thr"),
    ],
)
def test_a_comparator_that_is_never_broken_is_refused(comparator, message):
    schema = schema_pb2.Schema()
    schema.feature.add(name="a", drift_comparator=comparator)

    with pytest.raises(InvalidArgumentError, match=message):
        drift.validate(A, A, schema)
    with pytest.raises(InvalidArgumentError, match="no role 'shift'"):
        drift.validate(A, A, schema, role="shift")
