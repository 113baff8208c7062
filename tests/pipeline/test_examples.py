"""What arrives is either used or set aside with a reason, and features know what came before."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_mini import files, workspace
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError, NotFoundError
from mlops_mini.flights.use_case import FLIGHTS
from mlops_mini.pipeline import examples
from tests.tenants import churn, made, sensors

DATA = workspace.data_folder()


def periods(*texts: str):
    return [FLIGHTS.calendar.period(text) for text in texts]


def unchecked(folder: Path, *months: str) -> Path:
    """Make a data folder without checksums, free to be changed."""
    (folder / "flights").mkdir(parents=True)
    for month in months:
        shutil.copy(DATA / "flights" / f"{month}.parquet", folder / "flights")
    shutil.copy(DATA / "weather.parquet", folder)
    return folder


def cleaned(folder: Path, *texts: str, source: Path = DATA) -> tuple[str, ...]:
    return examples.clean(
        FLIGHTS,
        periods(*texts),
        folder / "clean",
        quarantine_file=folder / "quarantine.csv",
        partitions_file=folder / "partitions.json",
        data_folder=source,
    )


def test_every_row_is_used_or_set_aside_with_a_reason(tmp_path: Path) -> None:
    cleaned(tmp_path, "2013-07")

    (july,) = examples.read(FLIGHTS, periods("2013-07"), data_folder=tmp_path / "clean").periods
    (line,) = pd.read_csv(tmp_path / "quarantine.csv").to_dict("records")
    assert len(july.rows) + 1 == 29_425
    assert (line["table"], line["column"], line["value"]) == ("flights", "distance", 17)
    assert july.n_without_label == july.labels.isna().sum()
    features, labels = july.labeled()
    assert len(features) == len(labels) == len(july.rows) - july.n_without_label


def test_each_partition_is_on_record_by_its_contents(tmp_path: Path) -> None:
    for name in ("as it is", "changed"):
        (tmp_path / name).mkdir()
    cleaned(tmp_path / "as it is", "2013-01", "2013-02")
    copied = unchecked(tmp_path / "changed" / "data", "2013-01", "2013-02")
    january = pd.read_parquet(copied / "flights" / "2013-01.parquet")
    january.loc[20_000, "distance"] += 1
    january.to_parquet(copied / "flights" / "2013-01.parquet")
    february = pd.read_parquet(copied / "flights" / "2013-02.parquet")
    february.to_parquet(copied / "flights" / "2013-02.parquet", compression="gzip")
    cleaned(tmp_path / "changed", "2013-01", "2013-02", source=copied)

    before, after = (
        {(part["table"], part["period"]): part for part in json.loads(file.read_text())}
        for file in (tmp_path / name / "partitions.json" for name in ("as it is", "changed"))
    )

    flights, weather = before["flights", "2013-02"], before["weather", "2013-02"]
    assert (flights["n_rows"], flights["n_quarantined"]) == (24_951, 0)
    assert weather["n_quarantined"] == 1
    changed = {key for key in before if before[key]["digest"] != after[key]["digest"]}
    assert changed == {("flights", "2013-01")}  # by a value far behind row 10,000


def test_impossible_weather_never_becomes_a_feature(tmp_path: Path) -> None:
    findings = cleaned(tmp_path, "2013-02")

    (february,) = examples.read(FLIGHTS, periods("2013-02"), data_folder=tmp_path / "clean").periods
    (line,) = pd.read_csv(tmp_path / "quarantine.csv").to_dict("records")
    assert (line["period"], line["table"], line["column"]) == ("2013-02", "weather", "wind_speed")
    assert february.features["wind_speed"].max() < 100
    assert "EWR lacks 3 of 672 hours of 2013-02, at most 1 in a row" in findings


def test_the_first_hours_of_a_month_know_the_end_of_the_month_before() -> None:
    (alone,) = examples.read(FLIGHTS, periods("2013-02"), data_folder=DATA).periods
    _, together = examples.read(FLIGHTS, periods("2013-01", "2013-02"), data_folder=DATA).periods

    assert alone.features.equals(together.features)
    assert alone.features["car_dep_mean_24h"].notna().iloc[0]


def test_the_stream_tells_things_in_the_order_in_which_they_become_known() -> None:
    stream = examples.read(FLIGHTS, periods("2013-03"), data_folder=DATA).stream
    known_s = [event.available_s for event in stream]

    assert known_s == sorted(known_s)


def test_the_digest_is_of_the_files_that_the_periods_need(tmp_path: Path) -> None:
    folder = unchecked(tmp_path / "data", "2013-01", "2013-02", "2013-03")
    before = examples.digest(FLIGHTS, periods("2013-02"), data_folder=folder)

    assert before == examples.digest(FLIGHTS, periods("2013-02"), data_folder=DATA)
    assert before == examples.digest(FLIGHTS, periods("2013-01", "2013-02"), data_folder=folder)
    (folder / "flights" / "2013-03.parquet").write_bytes(b"not needed")
    assert examples.digest(FLIGHTS, periods("2013-02"), data_folder=folder) == before
    weather = pd.read_parquet(folder / "weather.parquet")
    weather[1:].to_parquet(folder / "weather.parquet")
    assert examples.digest(FLIGHTS, periods("2013-02"), data_folder=folder) != before


def test_a_copy_is_a_data_folder_that_says_the_same(tmp_path: Path) -> None:
    week, raw = periods("2013-W05"), tmp_path / "raw"
    digest = examples.digest(FLIGHTS, week, data_folder=DATA)

    examples.copy(FLIGHTS, week, raw, data_digest=digest, data_folder=DATA)

    assert files.file_sha256(raw / "checksums.txt") == digest
    assert examples.digest(FLIGHTS, week, data_folder=raw) == digest
    (copied,) = examples.read(FLIGHTS, week, data_folder=raw).periods
    (source,) = examples.read(FLIGHTS, week, data_folder=DATA).periods
    assert copied.features.equals(source.features)


def test_a_copy_of_other_files_than_were_seen_is_refused(tmp_path: Path) -> None:
    folder, month = unchecked(tmp_path / "data", "2013-01"), periods("2013-01")
    digest = examples.digest(FLIGHTS, month, data_folder=folder)
    january = folder / "flights" / "2013-01.parquet"
    pd.read_parquet(january).head(1000).to_parquet(january)

    with pytest.raises(DataIntegrityError, match="have changed; start a new run"):
        examples.copy(FLIGHTS, month, tmp_path / "raw", data_digest=digest, data_folder=folder)


def test_a_missing_period_has_no_digest() -> None:
    with pytest.raises(NotFoundError, match=r"no flights of 2014-01 in .*2013-01 to 2013-12"):
        examples.digest(FLIGHTS, periods("2014-01"), data_folder=DATA)


def test_the_twelve_months_pass_and_lose_the_two_impossible_rows(tmp_path: Path) -> None:
    findings = cleaned(tmp_path, *(f"2013-{month:02}" for month in range(1, 13)))

    refused = pd.read_csv(tmp_path / "quarantine.csv")
    assert sorted(refused[["period", "table", "column"]].to_numpy().tolist()) == [
        ["2013-02", "weather", "wind_speed"],
        ["2013-07", "flights", "distance"],
    ]
    assert len(pd.read_parquet(tmp_path / "clean" / "flights.parquet")) == 336_776 - 1
    assert len(pd.read_parquet(tmp_path / "clean" / "weather.parquet")) == 26_115 - 1
    (august,) = (text for text in findings if "flights of 2013-08: dest" in text)
    assert "0.00835 of 29327 values outside the vocabulary" in august


def test_what_is_clean_stays_as_it_is_when_it_is_cleaned_again(tmp_path: Path) -> None:
    weeks = ("2013-W05", "2013-W06")
    cleaned(tmp_path / "once", *weeks)
    cleaned(tmp_path / "twice", *weeks, source=tmp_path / "once" / "clean")

    assert len(pd.read_csv(tmp_path / "once" / "quarantine.csv")) == 1
    assert pd.read_csv(tmp_path / "twice" / "quarantine.csv").empty
    once, twice = (
        examples.digest(FLIGHTS, periods(*weeks), data_folder=tmp_path / name / "clean")
        for name in ("once", "twice")
    )
    assert once == twice


def test_statistics_that_break_the_schema_refuse_the_partition(tmp_path: Path) -> None:
    """Each row keeps all rules, but too many destinations were never heard of."""
    folder = unchecked(tmp_path / "data", "2013-01")
    january = folder / "flights" / "2013-01.parquet"
    flights = pd.read_parquet(january)
    flights.loc[flights["dest"] == "ATL", "dest"] = "ABQ"
    flights.to_parquet(january)

    with pytest.raises(DataIntegrityError, match=r"flights of 2013-01: dest: .*ABQ.*sent again"):
        cleaned(tmp_path, "2013-01", source=folder)
    assert not (tmp_path / "clean").exists()


def test_examples_from_clean_rows_are_those_from_the_source(tmp_path: Path) -> None:
    weeks = periods("2013-W05", "2013-W06", "2013-W07")
    cleaned(tmp_path, "2013-W05", "2013-W06", "2013-W07")
    for name, folder in (("a", tmp_path / "clean"), ("b", DATA)):
        examples.write(
            FLIGHTS,
            weeks[:2],
            weeks[2],
            train_file=tmp_path / f"train_{name}",
            test_file=tmp_path / f"test_{name}",
            data_folder=folder,
        )

    for part in ("train", "test"):
        written, expected = (pd.read_parquet(tmp_path / f"{part}_{name}") for name in "ab")
        # The one hour with the impossible wind is in the source alone.
        differ = (written != expected) & ~(written.isna() & expected.isna())
        assert set(written.columns[differ.any()]) <= {
            "temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"
        }  # fmt: skip
        assert differ.any(axis=1).mean() < 0.01
        assert written["late"].isin([0, 1]).all()
    assert written["car_dep_mean_24h"].notna().iloc[0]


def test_a_month_without_any_event_is_a_finding_and_no_fault(tmp_path: Path) -> None:
    folder, months = tmp_path / "data", ("2026-01", "2026-02")
    made.write_sensors(folder, months=months)
    visits = pd.read_csv(folder / "visits.csv")
    is_early = pd.to_datetime(visits["visited_at"]) < pd.Timestamp("2026-01-20", tz="UTC")
    visits[is_early].to_csv(folder / "visits.csv", index=False)
    needed = [sensors.STOPS.calendar.period(month) for month in months]

    findings = examples.clean(
        sensors.STOPS,
        needed,
        tmp_path / "clean",
        quarantine_file=tmp_path / "quarantine.csv",
        partitions_file=tmp_path / "partitions.json",
        data_folder=folder,
    )

    assert "no visits at all in 2026-02" in findings
    _, february = examples.read(sensors.STOPS, needed, data_folder=tmp_path / "clean").periods
    assert (february.features["n_visits_7d"] == 0).all()


def labeled(folder: Path, change) -> Path:
    """Make two months of customers, and change the table of the first."""
    made.write_customers(folder, months=("2026-01", "2026-02"), n_rows=300)
    january = folder / "customers" / "2026-01.csv"
    customers = pd.read_csv(january)
    change(customers).to_csv(january, index=False)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.assign(churned=1), "churned is 1 in all .* rows of 2026-01"),
        (lambda rows: rows.assign(churned=np.nan), "no row of 2026-01 has a label"),
        (
            lambda rows: rows.assign(churned=rows["churned"] * 2),
            r"churned is 2.* a label is 1 or 0",
        ),
    ],
)
def test_labels_that_teach_nothing_are_refused_in_one_line(tmp_path, change, message) -> None:
    folder = labeled(tmp_path / "data", change)
    january, february = (churn.CHURN.calendar.period(month) for month in ("2026-01", "2026-02"))

    with pytest.raises(InvalidArgumentError, match=f"use case churn: .*{message}"):
        examples.write(
            churn.CHURN,
            [january],
            february,
            train_file=tmp_path / "train",
            test_file=tmp_path / "test",
            data_folder=folder,
        )
