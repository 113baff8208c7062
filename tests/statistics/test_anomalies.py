import numpy as np
import pandas as pd
import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.flights import datasets, tables
from mlops_mini.statistics import anomalies, schemas
from tests.flight_data import periods
from tests.statistics.test_mergeable import of

COLUMNS = ["severity", "anomaly", "description"]


def months(table):
    if table == "flights":
        return {str(month): datasets.flights(month) for month in datasets.flight_months()}
    weather = datasets.weather()
    return {f"2013-{number:02}": rows for number, rows in weather.groupby("month")}


def weeks(table):
    every = periods("2013-W00", "2013-W51")
    if table == "flights":
        return {str(week): datasets.flights(week) for week in every}
    weather = datasets.weather()
    hour = weather["time_hour"]
    return {str(week): weather[(hour >= week.start) & (hour < week.end)] for week in every}


def found(frame, schema):
    return anomalies.table(anomalies.validate(of(frame), schema))


def errors(frames, schema):
    tables = {period: found(frame, schema) for period, frame in frames.items()}
    return [
        (period, column, row.description)
        for period, table in tables.items()
        for column, row in table.iterrows()
        if row.severity == "ERROR"
    ]


@pytest.fixture(scope="module")
def january():
    return datasets.flights("2013-01")


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (months, [("2013-07", "distance", "1 of 29425 values outside 50 to 5000, such as 17")]),
        (weeks, [("2013-W29", "distance", "1 of 6739 values outside 50 to 5000, such as 17")]),
    ],
)
def test_the_only_error_in_a_year_of_flights_is_that_of_17_miles(cut, expected):
    assert errors(cut("flights"), schemas.read(tables.FLIGHTS.schema)) == expected


@pytest.mark.parametrize(
    ("cut", "period", "n_rows"), [(months, "2013-02", 2_010), (weeks, "2013-W06", 503)]
)
def test_the_only_error_in_a_year_of_weather_is_the_wind_of_1048(cut, period, n_rows):
    text = f"1 of {n_rows} values outside 0 to 100, such as 1048.36058"

    schema = schemas.read(tables.WEATHER.schema)

    assert errors(cut("weather"), schema) == [(period, "wind_speed", text)]


def test_the_literal_schema_of_january_is_wrong_about_july():
    flights, weather = months("flights"), months("weather")
    literal = schemas.infer(of(flights["2013-01"]), literal=True)

    table = found(flights["2013-07"], literal)

    assert sorted(table.index.unique()) == [
        "air_time", "arr_delay", "dep_delay", "dest", "distance", "flight_id", "month",
        "sched_arr_time", "sched_dep_time", "tailnum",
    ]  # fmt: skip
    assert table.loc["month", "description"] == "29425 of 29425 values outside 1 to 1, such as 7"
    literal = schemas.infer(of(weather["2013-01"]), literal=True)
    assert sorted(found(weather["2013-07"], literal).index.unique()) == [
        "dewp", "month", "precip", "pressure", "temp", "time_hour", "wind_dir", "wind_gust",
        "wind_speed",
    ]  # fmt: skip


@pytest.mark.parametrize("table", ["flights", "weather"])
def test_the_literal_schema_of_a_month_finds_nothing_in_that_month(table):
    for frame in months(table).values():
        assert found(frame, schemas.infer(of(frame), literal=True)).empty


def test_even_the_loose_schema_of_january_has_nothing_to_say_about_july():
    flights = months("flights")

    table = found(flights["2013-07"], schemas.infer(of(flights["2013-01"])))

    assert table["severity"].to_dict() == {"dest": "WARNING"}


def test_new_destinations_are_warned_of_with_their_share():
    schema = schemas.read(tables.FLIGHTS.schema)
    n_unseen = {}
    for month, flights in months("flights").items():
        table = found(flights, schema)
        if "dest" in table.index:
            assert table.loc["dest", "severity"] == "WARNING"
            n_unseen[month] = round(
                float(table.loc["dest", "description"].split()[0]) * len(flights)
            )

    assert n_unseen["2013-03"] == 28
    assert n_unseen["2013-08"] == max(n_unseen.values()) == 245
    assert list(n_unseen) == [f"2013-{month:02}" for month in range(3, 13)]


def test_more_new_destinations_than_one_in_a_hundred_are_an_error(january):
    table = found(
        january.assign(dest=january["dest"].where(np.arange(27_004) % 50 != 0, "XXX")),
        schemas.read(tables.FLIGHTS.schema),
    )

    assert table.loc["dest", COLUMNS].tolist() == [
        "ERROR",
        "unseen values",
        "0.02003 of 27004 values outside the vocabulary: XXX 541",
    ]


@pytest.mark.parametrize(
    ("change", "column", "anomaly", "kind"),
    [
        (lambda f: f.drop(columns="dest"), "dest", "missing column", "SCHEMA_MISSING_COLUMN"),
        (lambda f: f.assign(x=1), "x", "new column", "SCHEMA_NEW_COLUMN"),
        (
            lambda f: f.assign(air_time=np.nan),
            "air_time",
            "wholly empty",
            "FEATURE_TYPE_NOT_PRESENT",
        ),
        (lambda f: f.assign(tailnum=None), "tailnum", "wholly empty", "FEATURE_TYPE_NOT_PRESENT"),
        (
            lambda f: f.assign(dep_delay=f["dep_delay"].where(f["flight_id"] % 2 == 0)),
            "dep_delay",
            "too many missing",
            "FEATURE_TYPE_LOW_FRACTION_PRESENT",
        ),
        (lambda f: f.assign(distance="far"), "distance", "other type", "UNEXPECTED_DATA_TYPE"),
        (
            lambda f: f.assign(distance=f["distance"] + 0.5),
            "distance",
            "other type",
            "UNEXPECTED_DATA_TYPE",
        ),
        (lambda f: f.assign(carrier=1), "carrier", "other type", "UNEXPECTED_DATA_TYPE"),
        (lambda f: f.assign(distance=-1), "distance", "out of range", "INT_TYPE_SMALL_INT"),
        (lambda f: f.assign(day=32), "day", "out of range", "INT_TYPE_BIG_INT"),
    ],
)
def test_each_anomaly_has_its_type(january, change, column, anomaly, kind):
    validated = anomalies.validate(of(change(january)), schemas.read(tables.FLIGHTS.schema))

    assert list(validated.anomaly_info) == [column]
    info = validated.anomaly_info[column]
    assert info.severity == info.ERROR
    assert info.path.step == [column]
    assert info.short_description == anomaly
    (reason,) = info.reason
    assert anomalies_pb2.AnomalyInfo.Type.Name(reason.type) == kind
    assert reason.description == info.description


def test_a_renamed_column_is_one_too_few_and_one_too_many(january):
    table = found(january.rename(columns={"dest": "to"}), schemas.read(tables.FLIGHTS.schema))

    assert table["anomaly"].to_dict() == {"dest": "missing column", "to": "new column"}


def test_an_empty_partition_is_empty_in_every_column(january):
    table = found(january[:0], schemas.read(tables.FLIGHTS.schema))

    assert len(table) == 15
    assert set(table["anomaly"]) == {"wholly empty"}


def test_whole_numbers_with_missing_ones_are_no_change_of_type(january):
    assert january["arr_delay"].dtype == "float64"
    assert found(january, schemas.read(tables.FLIGHTS.schema)).empty


def test_whole_numbers_will_do_for_floats():
    weather = months("weather")["2013-01"].assign(visib=10.0, precip=0)

    assert found(weather, schemas.read(tables.WEATHER.schema)).empty


def test_two_things_wrong_with_a_column_are_both_told():
    weather = months("weather")["2013-01"]
    one_left = np.arange(len(weather)) == 5
    broken = weather.assign(humid=weather["humid"].where(one_left).mask(one_left, np.inf))

    validated = anomalies.validate(of(broken), schemas.read(tables.WEATHER.schema))

    assert validated.anomaly_info["humid"].short_description == "several"
    assert found(broken, schemas.read(tables.WEATHER.schema))["anomaly"].tolist() == [
        "too many missing",
        "out of range",
    ]
    assert validated.baseline == schemas.read(tables.WEATHER.schema)


def test_without_anomalies_the_table_is_empty_with_its_columns():
    table = anomalies.table(anomalies_pb2.Anomalies())

    assert isinstance(table, pd.DataFrame)
    assert (table.columns.tolist(), len(table), table.index.name) == (COLUMNS, 0, "column")


def test_what_rounding_hides_is_an_anomaly_all_the_same():
    numbers = 2.0**40 + np.arange(40_000)
    numbers[[0, -1]] = 2.0**39 - 0.5, 2.0**41
    counted = of(pd.DataFrame({"id": numbers}))
    schema = schemas.infer(of(pd.DataFrame({"id": [1]})))
    schema.feature[0].int_domain.min, schema.feature[0].int_domain.max = 2**39, 2**41 - 1

    table = anomalies.table(anomalies.validate(counted, schema))

    assert table["description"].tolist() == [
        "1 of 40000 values not whole",
        "2 of 40000 values outside 5.49756e+11 to 2.19902e+12, such as 2.199023256e+12",
    ]


def one_column(**feature):
    return schema_pb2.Schema(
        feature=[{"name": "a", **feature}],
        string_domain=[{"name": "carriers", "value": ["UA", "B6"]}],
    )


@pytest.mark.parametrize(
    ("values", "feature", "anomaly"),
    [
        (["UA", "XX"], {"type": "BYTES", "domain": "carriers"}, "unseen values"),
        (["UA", "XX"], {"domain": "carriers"}, "unseen values"),
        ([1, 2], {"domain": "carriers"}, "other type"),
        (["x", "y"], {"int_domain": {"min": 0}}, "other type"),
        ([1, 2], {"int_domain": {"max": 1}}, "out of range"),
        ([1, None], {"type": "FLOAT", "presence": {"min_count": 2}}, "too few values"),
        ([1, np.inf], {"type": "FLOAT", "float_domain": {"disallow_inf": True}}, "infinite values"),
        ([1, np.nan], {"type": "FLOAT", "float_domain": {"disallow_nan": True}}, "NaN"),
    ],
)
def test_what_a_schema_of_tfdv_expects_is_checked(values, feature, anomaly):
    found = anomalies.validate(of(pd.DataFrame({"a": values})), one_column(**feature))

    assert found.anomaly_info["a"].short_description == anomaly


def test_a_column_of_no_type_may_hold_anything():
    for values in (["x"], [1.5]):
        assert not anomalies.validate(of(pd.DataFrame({"a": values})), one_column()).anomaly_info


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"unique_constraints": {"min": 1}}, "expects unique_constraints of 'a'"),
        ({"type": "INT", "bool_domain": {}}, "expects bool_domain of 'a'"),
        ({"type": "STRUCT"}, "expects type STRUCT of 'a'"),
        ({"domain": "airports"}, "domain 'airports', which the schema does not define"),
        ({"type": "BYTES", "int_domain": {"min": 0}}, "a range of texts"),
        ({"type": "INT", "string_domain": {"value": ["x"]}}, "a vocabulary of numbers"),
    ],
)
def test_an_expectation_that_is_not_checked_is_refused(feature, message):
    with pytest.raises(InvalidArgumentError, match=message):
        anomalies.validate(of(pd.DataFrame({"a": ["x"]})), one_column(**feature))
