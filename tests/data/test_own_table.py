"""A table of somebody's own, from its files to the record of rows set aside."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from mlops_mini import files
from mlops_mini.data import completeness, partitions, quarantine, rules, table_files
from mlops_mini.data.periods import Calendar
from mlops_mini.data.table import Series, Table, WholeRule
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError, NotFoundError

READINGS = Table(
    name="readings",
    key=("machine", "time"),
    time="time",
    columns={"machine": "text", "time": "instant", "temp_c": "number?"},
    rules=[
        rules.in_range("temp_c", -40, 120),
        WholeRule(
            columns=("temp_c",),
            quantity="temperature",
            values=lambda rows: rows["temp_c"],
            low=10,
            high=40,
            unit="degrees Celsius",
        ),
    ],
    series=Series(every="1h", of="machine", max_age="6h", together=("temp_c",)),
)
CALENDAR = Calendar("month", zone="Europe/Berlin")
MARCH = CALENDAR.period("2026-03")
WEEK = CALENDAR.period("2026-W12")  # 26 March to 1 April, half of it after the clocks change


def readings(first: str, last: str) -> pd.DataFrame:
    """Hourly readings of two machines, the days given included."""
    hours = pd.date_range(first, last, freq="h", tz="Europe/Berlin").tz_convert("UTC")
    parts = [
        pd.DataFrame({"machine": machine, "time": hours, "temp_c": 20 + np.arange(len(hours)) % 5})
        for machine in ("007", "press")
    ]
    return pd.concat(parts, ignore_index=True).astype({"temp_c": float})


def write(rows: pd.DataFrame, path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        rows.to_csv(path, index=False)
    else:
        rows.to_parquet(path, index=False)


def load(period, folder) -> pd.DataFrame:
    return table_files.load(READINGS, period, calendar=CALENDAR, folder=folder)


@pytest.fixture(params=["parquet", "csv"])
def suffix(request):
    return request.param


@pytest.fixture
def months(tmp_path, suffix):
    """A data folder with March and April, one file each."""
    for month, last in (("2026-03", "2026-03-31 23:00"), ("2026-04", "2026-04-30 23:00")):
        write(readings(f"{month}-01", last), tmp_path / "readings" / f"{month}.{suffix}")
    return tmp_path


@pytest.fixture
def whole(tmp_path, suffix):
    """A data folder with both months in one file."""
    write(readings("2026-03-01", "2026-04-30 23:00"), tmp_path / f"readings.{suffix}")
    return tmp_path


@pytest.fixture(params=["months", "whole"])
def folder(request, tmp_path, suffix):
    return request.getfixturevalue(request.param)


def test_a_period_is_cut_by_time_and_has_the_same_rows_from_any_file(folder):
    march, week = load(MARCH, folder), load(WEEK, folder)

    pd.testing.assert_frame_equal(march, readings("2026-03-01", "2026-03-31 23:00"))
    assert march.dtypes.astype(str).tolist() == ["object", "datetime64[ns, UTC]", "float64"]
    assert march["machine"].unique().tolist() == ["007", "press"]
    assert len(march) == 2 * (31 * 24 - 1)  # the clocks went forward
    assert len(week) == 2 * 7 * 24
    assert week["time"].between(WEEK.start, WEEK.end, inclusive="left").all()
    found = table_files.partitions(READINGS, calendar=CALENDAR, folder=folder)
    assert [str(month) for month in found] == ["2026-03", "2026-04"]


def test_several_periods_of_one_file_are_cut_from_one_reading_of_it(whole):
    n_rows: list[int] = []

    def prepare(rows: pd.DataFrame) -> pd.DataFrame:
        n_rows.append(len(rows))
        return rows.assign(at=rows["time"])

    table = Table(
        name="readings", key=READINGS.key, time="at", columns=READINGS.columns, prepare=prepare
    )
    periods = [MARCH, CALENDAR.period("2026-04"), WEEK]

    loaded = table_files.load_each(table, periods, calendar=CALENDAR, folder=whole)

    assert n_rows == [len(readings("2026-03-01", "2026-04-30 23:00"))]
    for period, rows in zip(periods, loaded, strict=True):
        pd.testing.assert_frame_equal(rows, load(period, whole))


def test_a_week_needs_the_files_of_the_months_it_touches(months, suffix):
    names = table_files.names(READINGS, [WEEK, MARCH], calendar=CALENDAR, folder=months)

    assert names == [f"readings/2026-03.{suffix}", f"readings/2026-04.{suffix}"]


def test_a_whole_table_is_one_file(whole, suffix):
    names = table_files.names(READINGS, [WEEK, MARCH], calendar=CALENDAR, folder=whole)

    assert names == [f"readings.{suffix}"]


def test_weeks_may_be_what_is_stored(tmp_path):
    weekly = Calendar("week", zone="Europe/Berlin")
    rows = readings("2026-01-01", "2026-02-11 23:00")
    for week in [weekly.period(f"2026-W0{number}") for number in range(6)]:
        is_in = rows["time"].between(week.start, week.end, inclusive="left")
        write(rows[is_in], tmp_path / "readings" / f"{week}.parquet")
    january = weekly.period("2026-01")

    loaded = table_files.load(READINGS, january, calendar=weekly, folder=tmp_path)

    assert len(loaded) == 2 * 31 * 24
    assert len(table_files.partitions(READINGS, calendar=weekly, folder=tmp_path)) == 6


def test_bad_rows_are_set_aside_and_on_record(months, suffix, tmp_path):
    rows = load(MARCH, months)
    rows.loc[3, "temp_c"] = 2_100.0
    rows.loc[5, "time"] = rows.loc[4, "time"]
    rows.loc[7, "time"] = pd.Timestamp("2026-04-01T00:00Z")

    split = rules.split(READINGS, rows, MARCH)

    assert len(split.kept) == len(rows) - 3
    assert split.quarantined["reason"].str.partition(", found")[0].tolist() == [
        "temp_c: in_range(-40, 120)",
        "machine, time: comes only once",
        "time: is in 2026-03",
    ]
    assert quarantine.record([split])[["period", "table", "row", "column"]].to_numpy().tolist() == [
        ["2026-03", "readings", 3, "temp_c"],
        ["2026-03", "readings", 5, "machine, time"],
        ["2026-03", "readings", 7, "time"],
    ]


def test_a_row_without_a_time_is_lost_nowhere(tmp_path):
    rows = readings("2026-03-01", "2026-04-30 23:00")
    rows.loc[9, "time"] = pd.NaT
    write(rows, tmp_path / "readings.parquet")

    week = load(WEEK, tmp_path)
    split = rules.split(READINGS, week, WEEK)

    assert len(week) == 2 * 7 * 24 + 1
    assert split.quarantined["reason"].tolist() == ["time: not_nullable, found NaT"]


def test_a_time_that_prepare_cannot_tell_is_a_reason_by_itself():
    visits = Table(
        name="visits",
        key=["visit"],
        time="begun",
        columns={"visit": "integer", "day": "text"},
        prepare=lambda rows: rows.assign(
            begun=pd.to_datetime(rows["day"], utc=True, errors="coerce")
        ),
    )
    rows = pd.DataFrame({"visit": [1, 2], "day": ["2026-03-02", "some day"]})

    split = rules.split(visits, rows, MARCH, max_quarantined_share=1.0)

    assert split.quarantined["reason"].tolist() == ["begun: is in 2026-03, found NaT"]
    assert split.kept.columns.tolist() == ["visit", "day"]


def test_another_unit_refuses_the_partition(months):
    kelvin = load(MARCH, months).assign(temp_c=lambda rows: rows["temp_c"] + 273.15)

    with pytest.raises(DataIntegrityError, match="readings of 2026-03 refused: median temperature"):
        rules.split(READINGS, kelvin, MARCH)


def test_holes_and_old_rows_are_findings(months):
    rows = load(MARCH, months)
    is_early = rows["time"] < pd.Timestamp("2026-03-30T00:00Z")
    rows = rows[is_early | (rows["machine"] == "press")].drop(index=[4, 5])
    rows.loc[8, "temp_c"] = np.nan

    split = rules.split(READINGS, rows, MARCH)

    assert [finding.text for finding in split.findings] == [
        "007 lacks 48 of 743 hours of 2026-03, at most 46 in a row",
        "007's last hour is 46 h old at the end of 2026-03, and is used for at most 6 h",
        "007 at 2026-03-01 07:00:00+00:00 has no temp_c",
    ]


def test_a_series_has_steps_of_any_length():
    series = Series(every="15min", of="machine", max_age="30min")
    minutes = pd.date_range("2026-03-01", "2026-03-31 22:00", freq="15min", tz="Europe/Berlin")
    rows = pd.DataFrame({"machine": "saw", "time": minutes + pd.Timedelta("2min")})

    texts = [finding.text for finding in completeness.findings(series, "time", rows, MARCH)]

    assert texts == [
        "saw lacks 7 of 2972 steps of 15min of 2026-03, at most 7 in a row",
        "saw's last step is 1.75 h old at the end of 2026-03, and is used for at most 0.5 h",
    ]


def test_a_partition_arrives_and_its_rows_set_aside_are_found_again(months, suffix):
    rows = load(MARCH, months)
    rows.loc[3, "temp_c"] = 2_100.0
    file = months / "sent.parquet"
    write(rows, file)
    now = datetime(2026, 4, 1, tzinfo=UTC)
    partitions.send(file, months, name="readings-2026-03.parquet", period="2026-03")
    (arrived,) = partitions.receive(months, now=now).new

    received = table_files.read(arrived.path, READINGS.arrow)
    split = rules.split(READINGS, received, CALENDAR.period(arrived.period))
    quarantine.write(split, arrived, months)

    record = quarantine.read(months)
    assert record[["partition", "period", "table", "row", "value"]].to_numpy().tolist() == [
        [arrived.key, "2026-03", "readings", 3, "2100.0"]
    ]


def test_a_changed_order_of_columns_changes_nothing(months, suffix):
    path = months / "readings" / f"2026-03.{suffix}"
    rows = load(MARCH, months)
    write(rows.assign(note="extra")[["temp_c", "note", "time", "machine"]], path)

    pd.testing.assert_frame_equal(load(MARCH, months), rows)


def test_checksums_are_checked_where_the_folder_has_them(months, suffix):
    name = f"readings/2026-03.{suffix}"
    files.write_checksums(months, [name])
    assert len(load(MARCH, months)) > 0

    write(load(MARCH, months).head(9), months / name)

    with pytest.raises(DataIntegrityError, match=rf"readings/2026-03\.{suffix} has SHA-256"):
        load(MARCH, months)


CSV = "machine,time,temp_c\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("press,2026-03-01 00:00:00,1\n", "an instant without an offset .* such as 2026-03-01T05"),
        ("press,yesterday,1\n", "not a readable CSV file of this table"),
        ("press,2026-03-01T05:00:00Z,warm\n", "column 'temp_c' of type string, expected double"),
        ("press,2026-03-01T05:00:00Z\n", "not a readable CSV file of this table"),
        ("", "holds no rows"),
    ],
)
def test_a_csv_that_is_wrong_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "readings" / "2026-03.csv"
    path.parent.mkdir()
    path.write_text(CSV + text)

    with pytest.raises(DataIntegrityError, match=message) as error:
        load(MARCH, tmp_path)

    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("machine;time;temp_c\n", r"lacks the columns \['machine', 'time', 'temp_c'\]"),
        ("machine,time,temp_c,time\n", r"has the columns \['time'\] more than once"),
        ("", "not a readable CSV file"),
    ],
)
def test_a_csv_needs_a_line_of_column_names(tmp_path, header, message):
    path = tmp_path / "readings" / "2026-03.csv"
    path.parent.mkdir()
    path.write_text(header and f"{header}{header.replace('time', '2026-03-01T05:00Z')}")

    with pytest.raises(DataIntegrityError, match=message):
        load(MARCH, tmp_path)


def test_a_csv_may_write_instants_with_an_offset_and_leave_values_out(tmp_path):
    path = tmp_path / "readings" / "2026-03.csv"
    path.parent.mkdir()
    path.write_text(
        "\ufeffmachine,time,temp_c\r\n"
        "NA,2026-03-01T06:00:00+01:00,\r\n"
        ",2026-03-01 05:00:00.5Z,21\r\n",
        encoding="utf-8",
    )

    rows = load(MARCH, tmp_path)

    assert rows["machine"].tolist() == ["NA", None]
    assert rows["time"].astype(str).tolist() == [
        "2026-03-01 05:00:00+00:00",
        "2026-03-01 05:00:00.500000+00:00",
    ]
    assert rows["temp_c"].isna().tolist() == [True, False]


def test_whole_numbers_written_as_floats_are_read_from_csv(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text("n,flag\n3,true\n4.0,\n,false\n")
    table = Table(
        name="counts",
        key=["n"],
        time="time",
        columns={"n": "integer", "flag": "boolean?"},
        prepare=lambda rows: rows.assign(time=MARCH.start),
    )

    rows = table_files.read(path, table.arrow)

    assert rows["n"].tolist()[:2] == [3, 4]
    assert rows["flag"].tolist() == [True, None, False]


def test_files_that_contradict_each_other_are_refused(months, suffix):
    other = "csv" if suffix == "parquet" else "parquet"
    write(readings("2026-03-01", "2026-03-02"), months / "readings" / f"2026-03.{other}")
    with pytest.raises(DataIntegrityError, match="has both readings/2026-03"):
        load(MARCH, months)

    write(readings("2026-03-01", "2026-03-02"), months / f"readings.{other}")
    with pytest.raises(DataIntegrityError, match=rf"has both readings\.{other} and readings/"):
        load(MARCH, months)


def test_what_is_not_there_is_named_with_what_is(months, tmp_path):
    with pytest.raises(
        NotFoundError, match=r"no readings of 2026-05 .* 2026-03 to 2026-04 \(2 months\).* or \.csv"
    ):
        load(CALENDAR.period("2026-05"), months)
    with pytest.raises(NotFoundError, match="there is no month at all"):
        load(MARCH, tmp_path / "nowhere")
    with pytest.raises(InvalidArgumentError, match="use one zone"):
        load(Calendar().period("2026-03"), months)
    assert table_files.partitions(READINGS, calendar=CALENDAR, folder=tmp_path / "nowhere") == []


def test_a_period_without_rows_is_refused(whole):
    with pytest.raises(DataIntegrityError, match="no readings of 2026-05 in readings"):
        load(CALENDAR.period("2026-05"), whole)


def test_a_row_of_another_century_does_not_hide_what_is_stored(tmp_path):
    rows = readings("2026-03-01", "2026-03-31 23:00")
    rows.loc[0, "time"] = pd.Timestamp("1815-06-18T12:00Z")
    write(rows, tmp_path / "readings.parquet")

    stored = table_files.partitions(READINGS, calendar=CALENDAR, folder=tmp_path)

    assert [str(month) for month in stored] == ["2026-03"]


def test_an_instant_that_has_no_nanoseconds_is_refused_by_name(tmp_path):
    rows = readings("2026-03-01", "2026-03-02").astype({"time": "datetime64[us, UTC]"})
    rows.loc[0, "time"] = pd.Timestamp("9999-01-01T00:00Z").as_unit("us")
    write(rows, tmp_path / "readings.parquet")

    with pytest.raises(DataIntegrityError, match="before 1678 or after 2261"):
        load(MARCH, tmp_path)


def test_a_rule_that_fails_itself_is_named(months):
    broken = Table(
        name="readings",
        key=READINGS.key,
        time="time",
        columns=READINGS.columns,
        rules=[rules.row_rule("is warm", ["temp_c"], lambda rows: rows["temp"] > 20)],
    )

    with pytest.raises(InvalidArgumentError, match=r"rule 'is warm' on \['temp_c'\] fails itself"):
        rules.split(broken, load(MARCH, months), MARCH)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda rows: rows.head(3).assign(at=MARCH.start), "prepare gave 3 rows for"),
        (lambda rows: rows, "its time 'at' is not there once prepared"),
        (lambda rows: rows.assign(at="today"), "its time 'at' is object once prepared"),
    ],
)
def test_a_prepare_that_does_more_or_less_than_add_columns_is_named(months, prepare, message):
    table = Table(
        name="readings", key=["machine"], time="at", columns=READINGS.columns, prepare=prepare
    )

    with pytest.raises(InvalidArgumentError, match=message):
        rules.split(table, load(MARCH, months), MARCH)
