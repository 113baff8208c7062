"""Rules, statistics, schemas and drift do not depend on who has read a table."""

import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlops_mini.data.completeness import completeness
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError
from mlops_mini.flights import datasets, tables
from mlops_mini.statistics import anomalies, drift, mergeable, schemas
from tests.flight_data import split_rows, split_weather_rows
from tests.statistics.test_mergeable import assert_same, of

AS = {
    "nullable": lambda frame: frame.convert_dtypes(),
    "arrow": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
    "objects": lambda frame: frame.astype(object),
    "categories": lambda frame: frame.astype("category"),
    "an index with gaps": lambda frame: frame.set_axis(
        pd.Index([pd.NA] * len(frame), dtype="Int64")
    ),
}


def hours_there(weather):
    """Tell which hours of February are there."""
    february = tables.CALENDAR.period("2013-02")
    return completeness(tables.WEATHER.series, "time_hour", weather, february)


@pytest.fixture(scope="module")
def july():
    """Some flights, with one that breaks a rule and one that breaks two."""
    part = datasets.flights("2013-07").iloc[::60].head(480).reset_index(drop=True)
    part.loc[7, "distance"] = 17
    part.loc[[9, 11], ["dep_delay", "day"]] = np.nan, 32
    return part


@pytest.fixture(scope="module")
def weather():
    hours = datasets.weather()
    return hours[hours["month"] == 2].reset_index(drop=True)


@pytest.mark.parametrize("convert", AS.values(), ids=AS)
def test_rows_are_set_aside_alike(july, convert):
    expected = split_rows(july, "2013-07", max_quarantined_share=0.1)
    other = convert(july)

    found = split_rows(other, "2013-07", max_quarantined_share=0.1)

    pd.testing.assert_frame_equal(found.failures, expected.failures)
    assert found.quarantined["reason"].tolist() == expected.quarantined["reason"].tolist()
    assert found.findings == expected.findings
    pd.testing.assert_frame_equal(found.kept, other[~np.isin(range(480), expected.failures["row"])])


@pytest.mark.parametrize("convert", AS.values(), ids=AS)
def test_hours_of_weather_are_judged_alike(weather, convert):
    expected = split_weather_rows(weather, "2013-02")

    found = split_weather_rows(convert(weather), "2013-02")

    pd.testing.assert_frame_equal(found.failures, expected.failures)
    assert found.findings == expected.findings
    pd.testing.assert_frame_equal(
        hours_there(convert(weather)),
        hours_there(weather),
    )


@pytest.mark.parametrize("convert", AS.values(), ids=AS)
def test_statistics_schemas_and_drift_are_alike(july, weather, convert):
    for table in (july, weather):
        before, after = of(table), of(convert(table))

        assert_same(after, before)
        assert schemas.infer(after) == schemas.infer(before)
        found = anomalies.validate(after, schemas.infer(before, literal=True))
        assert not found.anomaly_info
        half = of(convert(table).iloc[::2])
        expected = drift.compare(before, of(table.iloc[::2])).table()
        pd.testing.assert_frame_equal(drift.compare(after, half).table(), expected)


@pytest.mark.parametrize("value", [np.inf, 2.0**70])
def test_a_row_of_no_possible_date_is_set_aside(july, value):
    change = july.astype({"day": float})
    change.loc[3, "day"] = value

    found = split_rows(change, "2013-07", max_quarantined_share=0.1)

    assert "is a date" in found.failures.loc[found.failures["row"] == 3, "rule"].tolist()


def test_a_column_of_several_kinds_is_named_with_its_row(july):
    mixed = july.astype({"distance": object, "carrier": object})
    mixed.loc[3, "distance"] = "far"

    with pytest.raises(InvalidArgumentError, match="'distance' is object, with 'far' in row 3"):
        mergeable.add(mergeable.create(), mixed)
    with pytest.raises(DataIntegrityError, match="'distance' is object with 'far' in row 3, exp"):
        split_rows(mixed, "2013-07")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(flight=True), "'flight' is bool, expected int16"),
        (lambda f: f.assign(carrier=pd.Series([1] * 480, dtype="category")), "'carrier' is int64"),
        (lambda f: f.join(f[["day"]], rsuffix="_").rename(columns={"day_": "day"}), "more than"),
    ],
)
def test_a_column_that_only_looks_right_is_refused(july, change, message):
    with pytest.raises(DataIntegrityError, match=message):
        split_rows(change(july), "2013-07")


@pytest.mark.parametrize("share", [np.nan, -0.1, 1.1])
def test_a_share_that_no_partition_exceeds_is_refused(july, share):
    with pytest.raises(InvalidArgumentError, match="max_quarantined_share is"):
        split_rows(july, "2013-07", max_quarantined_share=share)


def test_hours_without_a_zone_are_not_called_missing(weather):
    naive = weather.assign(time_hour=weather["time_hour"].dt.tz_localize(None))

    with pytest.raises(InvalidArgumentError, match=r"time_hour is datetime64.* or all hours"):
        hours_there(naive)
    with pytest.raises(InvalidArgumentError, match=r"complete hours need the columns \['origin'\]"):
        hours_there(weather[["time_hour"]])


@pytest.mark.parametrize("dtype", [object, pd.ArrowDtype(pa.timestamp("us", tz="UTC"))])
def test_instants_beyond_nanoseconds_are_counted(weather, dtype):
    far = pd.Series([dt.datetime(9999, 1, 1, tzinfo=dt.UTC)] * 2, dtype=dtype)
    hours = pd.concat(
        [
            weather[["origin", "time_hour"]].astype(object),
            pd.DataFrame({"origin": "EWR", "time_hour": far.astype(object)}),
        ]
    )

    assert of(far.to_frame("at")).columns["at"].maximum == 253_370_764_800
    pd.testing.assert_frame_equal(hours_there(hours), hours_there(weather))


def test_columns_of_one_name_as_text_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"\['1'\] are there more than once"):
        of(pd.DataFrame([[1, 2]], columns=[1, "1"]))


def test_texts_that_differ_after_a_nul_stay_apart():
    merged = mergeable.merge(of(pd.DataFrame({"a": ["x"]})), of(pd.DataFrame({"a": ["x\0y"]})))

    assert merged.columns["a"].counts.to_dict() == {"x": 1, "x\0y": 1}
