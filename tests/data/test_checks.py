import datetime as dt
import os
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlops_mini.data import checks
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.flights import airports, datasets


@pytest.fixture(scope="module")
def july():
    return datasets.flights("2013-07").set_index("flight_id")


@pytest.fixture(scope="module")
def weather():
    return datasets.weather()


def test_pytest_shows_the_reason_of_a_failed_check(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    test = tmp_path / "test_data.py"
    test.write_text(
        "import pandas as pd\n"
        "from mlops_mini.data import checks\n"
        "def test_distances():\n"
        "    distance = pd.Series([1400, 17], name='distance')\n"
        "    assert checks.in_range(distance, low=50, high=5000)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test.name]

    env = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    shown = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )

    assert shown.returncode == 1
    assert (
        "assert FAILED: distance: 1 of 2 values are not in 50 to 5000, such as 17 in row 1"
        in shown.stdout
    )


def test_a_result_is_true_only_if_passed_and_cannot_be_changed():
    passed = checks.in_range(np.array([1, 2]), low=1, high=2)
    failed = checks.in_range(np.array([1, 3]), low=1, high=2)

    assert passed
    assert not failed
    assert (passed.rows, failed.rows) == ((), (1,))
    assert repr(passed) == "passed: the values of all 2 rows are in 1 to 2"
    with pytest.raises(FrozenInstanceError):
        failed.passed = True


def test_in_range_finds_the_17_mile_flight(july):
    found = checks.in_range(july["distance"], low=50, high=5000)

    assert july.loc[list(found.rows), ["carrier", "flight"]].to_numpy().tolist() == [["US", 1632]]
    assert found.columns == ("distance",)


def test_in_range_finds_the_impossible_wind(weather):
    found = checks.in_range(weather[["wind_speed", "wind_gust"]], low=0, high=100)

    assert found.columns == ("wind_speed",)
    assert weather.loc[list(found.rows), "wind_speed"].tolist() == [pytest.approx(1048.36058)]


def test_in_range_includes_its_ends_and_leaves_missing_values_out():
    assert checks.in_range(np.array([0.0, 1.0, np.nan]), low=0, high=1)
    assert checks.in_range(np.array([0.0, np.inf, -np.inf]), low=0, high=1).rows == (1, 2)


def test_in_range_takes_instants():
    hours = pd.Series(pd.to_datetime(["2013-01-01", "2014-01-02"], utc=True))
    low, high = pd.Timestamp("2013-01-01", tz="UTC"), pd.Timestamp("2014-01-01", tz="UTC")

    assert checks.in_range(hours, low=low, high=high).rows == (1,)


@pytest.mark.parametrize("empty", [None, "", " ", np.nan, pd.NaT])
def test_no_empty_finds_every_kind_of_nothing(empty):
    frame = pd.DataFrame({"a": ["x", "y"], "b": ["z", empty]}, index=[7, 8])

    found = checks.no_empty(frame)

    assert (found.rows, found.columns) == ((8,), ("b",))
    assert checks.no_empty(frame[["a"]])


def test_no_empty_needs_rows():
    assert not checks.no_empty(pd.DataFrame({"a": []}))


def test_no_empty_finds_the_empty_observation(weather):
    found = checks.no_empty(weather[["temp", "dewp", "humid"]])

    row = weather.loc[list(found.rows)].squeeze()
    assert (row["origin"], str(row["time_hour"])) == ("EWR", "2013-08-22 13:00:00+00:00")
    assert found.columns == ("temp", "dewp", "humid")
    assert found.reason.endswith("; also dewp, humid")


def test_types_are_takes_an_integer_that_missing_values_made_a_float(july):
    assert july["arr_delay"].dtype == "float64"
    assert july["arr_delay"].isna().any()

    assert checks.types_are(
        july, {"arr_delay": "integer", "distance": "integer", "carrier": "string"}
    )


@pytest.mark.parametrize(
    ("column", "kind", "rows"),
    [
        (pd.Series([1.0, 1.5]), "integer", (1,)),
        (pd.Series(["UA", 3]), "string", (1,)),
        (pd.Series(["1", "2"]), "number", ()),
        (pd.Series([True, False]), "number", ()),
        (pd.Series([0, 1]), "boolean", ()),
        (pd.Series([1, 2]), "string", ()),
        (pd.to_datetime(pd.Series(["2013-01-01"])), "instant", ()),
        (pd.Series([1.0]), "float32", ()),
    ],
)
def test_types_are_refuses(column, kind, rows):
    found = checks.types_are(column.to_frame("a"), {"a": kind})

    assert not found
    assert (found.rows, found.columns) == (rows, ("a",))
    assert str(kind) in found.reason


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pd.Series([1.5, np.nan]), "number"),
        (pd.Series([True, False]), "boolean"),
        (pd.Series(["UA", None]), "string"),
        (pd.to_datetime(pd.Series(["2013-01-01"]), utc=True), "instant"),
        (pd.Series([1.0], dtype="float32"), "float32"),
    ],
)
def test_types_are_takes(column, kind):
    assert checks.types_are(column.to_frame("a"), {"a": kind})


def test_types_are_tells_all_columns_at_once():
    frame = pd.DataFrame({"carrier": [1], "dist": [1]})

    found = checks.types_are(frame, {"carrier": "string", "distance": "number"})

    assert found.columns == ("carrier", "distance")
    assert found.reason == "carrier: the type is int64, expected string; also distance"


def test_types_are_refuses_a_type_that_is_none(july):
    with pytest.raises(InvalidArgumentError, match="'text' is no type"):
        checks.types_are(july, {"carrier": "text"})


def test_is_scaled_knows_standardized_columns(weather):
    temp = weather["temp"].dropna()
    scaled = (temp - temp.mean()) / temp.std(ddof=0)

    assert checks.is_scaled(scaled, to="standard")
    assert checks.is_scaled(scaled.to_numpy(dtype="float32"), to="standard")
    assert not checks.is_scaled(scaled + 0.02, to="standard")
    assert not checks.is_scaled(scaled * 1.02, to="standard")
    assert checks.is_scaled(scaled * 1.02, to="standard", tolerance=0.05)


def test_is_scaled_names_the_columns_that_are_not(weather):
    columns = weather[["temp", "humid"]].dropna()
    columns = columns.assign(humid=columns["humid"] / 100)

    found = checks.is_scaled(columns, to="unit")

    assert found.columns == ("temp",)
    assert found.reason.startswith("temp: minimum 10.94, maximum 100")
    assert checks.is_scaled(columns[["humid"]], to="unit")


@pytest.mark.parametrize("values", [[], [np.nan], [5.0, 5.0], [np.nan, 3.0]])
@pytest.mark.parametrize("to", ["standard", "unit"])
def test_is_scaled_refuses_what_cannot_be(values, to):
    assert not checks.is_scaled(np.array(values), to=to)


def test_one_hot_is_valid():
    one_hot = np.eye(3)[[0, 2, 1, 1]]

    assert checks.one_hot_is_valid(one_hot)
    assert checks.one_hot_is_valid(pd.get_dummies(pd.Series(["EWR", "JFK"])))


@pytest.mark.parametrize("row", [[0, 0, 0], [1, 1, 0], [0.5, 0.5, 0], [2, -1, 0], [1, np.nan, 0]])
def test_one_hot_rows_must_have_one_1(row):
    found = checks.one_hot_is_valid(np.array([[0, 1, 0], row, [1, 0, 0]], dtype="float64"))

    assert not found
    assert found.rows == (1,)


@pytest.mark.parametrize("index", [-1, 3, 1.5, np.nan])
def test_an_embedding_index_must_be_a_row_of_the_table(index):
    assert checks.embedding_index_in_range(np.array([0, 1, 2]), n_rows=3)

    found = checks.embedding_index_in_range(np.array([0, index, 2]), n_rows=3)

    assert found.rows == (1,)


def test_an_embedding_of_all_destinations_is_not_used_by_january():
    all_dests = sorted(airports.zones())
    january = datasets.flights("2013-01")["dest"].map({d: i for i, d in enumerate(all_dests)})

    assert checks.embedding_index_in_range(january, n_rows=len(all_dests))
    found = checks.embedding_index_used(january, n_rows=len(all_dests))

    assert not found
    assert {"ILM", "LEX", "SBN"} <= {all_dests[row] for row in found.rows}
    assert len(found.rows) == len(all_dests) - january.nunique()
    assert checks.embedding_index_used(january, n_rows=len(all_dests), min_share=0.8)


def test_a_join_on_local_time_is_refused(weather):
    local = ["origin", "year", "month", "day", "hour"]

    found = checks.is_join_key(weather, local)

    assert checks.is_join_key(weather, ["origin", "time_hour"])
    assert not found
    twice = weather.loc[list(found.rows)]
    assert sorted(twice["origin"]) == ["EWR", "EWR", "JFK", "JFK", "LGA", "LGA"]
    assert twice[["month", "day", "hour"]].drop_duplicates().to_numpy().tolist() == [[11, 3, 1]]
    with pytest.raises(pd.errors.MergeError):
        weather[local].merge(weather, on=local, validate="many_to_one")


def test_a_join_key_must_be_there():
    found = checks.is_join_key(pd.DataFrame({"tailnum": ["N1", None]}), ["tailnum"])

    assert found.rows == (1,)


def test_rows_are_labels_of_the_index_given(july):
    part = july.loc[july["distance"] < 80]

    assert checks.in_range(part["distance"], low=50, high=5000).rows == tuple(part.index)


NOTHING = {
    "no rows": pd.DataFrame({"a": [], "b": []}),
    "no columns": pd.DataFrame(index=[0, 1]),
    "no rows in an array": np.empty((0, 3)),
    "no columns in an array": np.empty((3, 0)),
}
OF_VALUES = {
    "in_range": lambda values: checks.in_range(values, low=-np.inf, high=np.inf),
    "no_empty": checks.no_empty,
    "is_scaled": lambda values: checks.is_scaled(values, to="unit"),
    "one_hot": checks.one_hot_is_valid,
    "embedding": lambda values: checks.embedding_index_in_range(values, n_rows=3),
    "used": lambda values: checks.embedding_index_used(values, n_rows=3),
}


@pytest.mark.parametrize("check", OF_VALUES.values(), ids=OF_VALUES)
@pytest.mark.parametrize("values", NOTHING.values(), ids=NOTHING)
def test_of_nothing_no_check_passes(values, check):
    assert not check(values)


def test_an_empty_table_has_no_types_and_no_key():
    table = pd.DataFrame({"a": pd.Series([], dtype="float64")})

    assert checks.types_are(table, {"a": "float64"}).reason == "there are no rows"
    assert checks.is_join_key(table, ["a"]).reason == "there are no rows"


@pytest.mark.parametrize("gone", [[None, None], [np.nan, np.nan], [pd.NaT, pd.NaT], [pd.NA] * 2])
@pytest.mark.parametrize("kind", ["integer", "number", "string", "boolean", "instant"])
def test_a_column_without_values_is_in_no_range_and_of_no_type(gone, kind):
    frame = pd.DataFrame({"a": gone})

    assert checks.in_range(frame, low=0, high=1).reason == "a: there is no value in 2 rows"
    assert checks.types_are(frame, {"a": kind}).columns == ("a",)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda a: checks.in_range(a, low=1, high=0), "no value is in 1 to 0"),
        (lambda a: checks.in_range(a, low=np.nan, high=1), "no value is in nan to 1"),
        (lambda a: checks.is_scaled(a, to="Standard"), "no scale 'Standard'"),
        (lambda a: checks.is_scaled(a, to="unit", tolerance=np.inf), "tolerance is inf"),
        (lambda a: checks.is_scaled(a, to="unit", tolerance=np.nan), "tolerance is nan"),
        (checks.one_hot_is_valid, "one column, 'values', is no one-hot"),
        (lambda a: checks.embedding_index_in_range(a, n_rows=0), "n_rows is 0"),
        (lambda a: checks.embedding_index_used(a, n_rows=0), "n_rows is 0"),
        (lambda a: checks.embedding_index_used(a, n_rows=2, min_share=np.nan), "min_share is nan"),
        (lambda a: checks.embedding_index_used(a, n_rows=2, min_share=0), "min_share is 0"),
        (lambda a: checks.types_are(pd.DataFrame({"a": a}), {}), "no column is expected"),
        (lambda a: checks.is_join_key(pd.DataFrame({"a": a}), []), r"on is \[\]"),
        (lambda a: checks.is_join_key(pd.DataFrame({"a": a}), "a"), "on is 'a'"),
        (lambda a: checks.is_join_key(pd.DataFrame({"a": a}), ["b"]), r"need the columns \['b'\]"),
        (lambda a: checks.in_range(a.tolist(), low=0, high=1), "got <class 'list'>"),
        (lambda a: checks.in_range(a[0], low=0, high=1), "got <class 'numpy.int64'>"),
    ],
)
def test_what_cannot_be_judged_is_refused(check, message):
    with pytest.raises(InvalidArgumentError, match=message):
        check(np.array([1, 1]))


def test_values_that_are_no_numbers_are_named_with_their_row():
    mixed = pd.Series([1, "far", None, True], index=[6, 7, 8, 9], name="a", dtype=object)

    assert checks.in_range(mixed, low=0, high=1).reason == (
        "a: 1 of 4 values are not in 0 to 1, such as 'far' in row 7"
    )
    assert checks.is_scaled(mixed, to="unit").reason == (
        "a: 1 values are no numbers, such as 'far' in row 7"
    )
    assert checks.embedding_index_in_range(mixed, n_rows=3).rows == (7, 8)
    assert checks.one_hot_is_valid(pd.DataFrame({"a": mixed, "b": 0})).rows == (7, 8)
    assert checks.types_are(mixed.to_frame(), {"a": "number"}).rows == (7, 9)
    assert checks.types_are(mixed.to_frame(), {"a": "string"}).rows == (6, 9)


def test_instants_and_limits_both_have_a_time_zone_or_none():
    hours = pd.Series(pd.to_datetime(["2013-01-01"], utc=True), name="hour")

    for column in (hours, hours.astype("timestamp[us, tz=UTC][pyarrow]"), hours.astype(object)):
        with pytest.raises(InvalidArgumentError, match=r"'hour' is datetime64.*a time zone if and"):
            checks.in_range(column, low=pd.Timestamp("2013"), high=pd.Timestamp("2014"))
    assert not checks.in_range(hours, low=0, high=1)


def test_dates_are_in_a_range_and_texts_are_not():
    days = pd.Series([dt.date(2013, 1, 1), "2013-01-01", None, dt.date(2014, 1, 1)])

    low, high = dt.date(2013, 1, 1), dt.date(2013, 12, 31)
    assert checks.in_range(days, low=low, high=high).rows == (1, 3)


def test_an_infinite_column_is_not_scaled():
    found = checks.is_scaled(np.array([0.0, np.inf]), to="standard")

    assert found.reason == "values: 1 of 2 values are infinite"


def test_an_arrow_nan_is_empty():
    column = pd.Series(pd.array(pa.array([1.0, float("nan")]), pd.ArrowDtype(pa.float64())))

    assert checks.no_empty(column).rows == (1,)


def test_categories_of_numbers_are_no_texts():
    frame = pd.DataFrame({"a": pd.Series([1, 2], dtype="category")})

    assert not checks.types_are(frame, {"a": "string"})
    assert checks.types_are(frame, {"a": "integer"})


def test_large_keys_stay_apart_beside_a_missing_one():
    table = pd.DataFrame({"id": pd.Series([2**53, 2**53 + 1, None], dtype="Int64")})

    assert checks.is_join_key(table, ["id"]).rows == (2,)
    lists = pd.DataFrame({"id": [[1], [2]], "day": 1})
    with pytest.raises(InvalidArgumentError, match=r"values of \['id', 'day'\] cannot be compared"):
        checks.is_join_key(lists, ["id", "day"])


def test_a_masked_value_is_missing():
    masked = np.ma.masked_array([1.0, 2.0], mask=[False, True])

    assert checks.no_empty(masked).rows == (1,)


AS = {
    "nullable": lambda frame: frame.convert_dtypes(),
    "arrow": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
    "objects": lambda frame: frame.astype(object),
    "categories": lambda frame: frame.astype("category"),
    "numpy scalars": lambda frame: frame.map(scalar).astype(object),
    "decimals": lambda frame: frame.map(decimal).astype(object),
    "an index with a gap": lambda frame: frame.set_axis(
        pd.Index([*range(7), pd.NA], dtype="Int64")
    ),
}
FRAME = pd.DataFrame(
    {
        "distance": [50.0, 17.0, np.nan, 1400.0, 9e5, 200.0, 200.0, 60.0],
        "code": [0, 1, 2, 3, 4, 1, 1, 0],
        "carrier": ["UA", "B6", None, " ", "AA", "UA", "UA", "B6"],
        "is_late": [True, False] * 4,
        "hour": pd.to_datetime(["2013-01-01 05:00"] * 7 + ["2014-01-01 05:00"], utc=True),
    }
)
CHECKS = {
    "in_range": lambda f: checks.in_range(f[["distance", "code"]], low=1, high=1400),
    "in_range of instants": lambda f: checks.in_range(
        f["hour"],
        low=pd.Timestamp("2013", tz="America/New_York"),
        high=pd.Timestamp("2014", tz="UTC"),
    ),
    "no_empty": checks.no_empty,
    "types": lambda f: checks.types_are(
        f, {"code": "integer", "carrier": "string", "is_late": "boolean", "hour": "instant"}
    ),
    "wrong types": lambda f: checks.types_are(f, {"distance": "integer", "carrier": "number"}),
    "is_scaled": lambda f: checks.is_scaled(f[["distance", "code", "is_late"]], to="standard"),
    "is unit": lambda f: checks.is_scaled(f[["code", "is_late"]], to="unit"),
    "one_hot": lambda f: checks.one_hot_is_valid(f[["code", "is_late"]]),
    "embedding": lambda f: checks.embedding_index_in_range(f[["code", "distance"]], n_rows=4),
    "embedding used": lambda f: checks.embedding_index_used(f["code"], n_rows=9),
    "join key": lambda f: checks.is_join_key(f, ["code", "carrier"]),
    "leakage": lambda f: checks.no_leakage_column(f, f["is_late"]),
}


def scalar(value):
    return value if value is None or isinstance(value, pd.Timestamp) else np.array([value])[0]


def decimal(value):
    is_number = isinstance(value, float | int) and not isinstance(value, bool)
    return Decimal(str(value)) if is_number else value


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("convert", AS.values(), ids=AS)
def test_equal_values_give_equal_results_whatever_their_dtype(check, convert):
    plain, converted = check(FRAME), check(convert(FRAME))

    assert told(plain) == told(converted)
    assert (plain.passed, plain.columns) == (converted.passed, converted.columns)


def told(found):
    """What a result says of values and rows, without the dtype, the gap and `.0`."""
    reason = re.sub(r"the type is .*, exp|\.0\b", "", found.reason.replace("row <NA>", "row 7"))
    return re.sub("nan|None|<NA>", "missing", reason), [7 if r is pd.NA else r for r in found.rows]


def test_numbers_too_large_to_be_squared_are_not_scaled():
    found = checks.is_scaled(pd.Series([1e308, -1e308], name="a"), to="standard")

    assert not found
    assert "standard deviation inf" in found.reason
