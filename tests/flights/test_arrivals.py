"""What arrives is either used or set aside with a reason, and features know what came before."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from mlops_mini import files
from mlops_mini.errors import DataIntegrityError, NotFoundError
from mlops_mini.flights import arrivals, datasets
from mlops_mini.flights.tables import CALENDAR

DATA = datasets.data_folder()


def unchecked(folder: Path, *months: str) -> Path:
    """Make a data folder without checksums, free to be changed."""
    (folder / "flights").mkdir(parents=True)
    for month in months:
        shutil.copy(DATA / "flights" / f"{month}.parquet", folder / "flights")
    shutil.copy(DATA / "weather.parquet", folder)
    return folder


def test_every_row_is_used_or_set_aside_with_a_reason() -> None:
    (july,) = arrivals.read([CALENDAR.period("2013-07")]).partitions

    assert july.n_arrived == 29_425
    assert len(july.flights) + july.n_quarantined == july.n_arrived
    assert july.refused == {"distance: in_range(50, 5000), found 17": 1}
    assert july.n_without_label == july.labels.isna().sum()
    features, labels = july.labeled()
    assert len(features) == len(labels) == len(july.flights) - july.n_without_label


def test_impossible_weather_never_becomes_a_feature() -> None:
    arrived = arrivals.read([CALENDAR.period("2013-02")])
    (february,) = arrived.partitions

    (line,) = arrived.quarantined.to_dict("records")
    assert (line["period"], line["table"], line["column"]) == ("2013-02", "weather", "wind_speed")
    assert february.refused == {"wind_speed: in_range(0, 100), found 1048.36058": 1}
    assert february.features["wind_speed"].max() < 100
    assert "EWR lacks 3 of 672 hours of 2013-02, at most 1 in a row" in february.findings


def test_the_first_hours_of_a_month_know_the_end_of_the_month_before() -> None:
    alone = arrivals.read([CALENDAR.period("2013-02")]).partitions[0]
    together = arrivals.read([CALENDAR.period("2013-01"), CALENDAR.period("2013-02")]).partitions[1]

    assert alone.features.equals(together.features)
    assert alone.features["car_dep_mean_24h"].notna().iloc[0]


def test_the_stream_tells_things_in_the_order_in_which_they_become_known() -> None:
    stream = arrivals.read([CALENDAR.period("2013-03")]).stream
    known_s = [event.available_s for event in stream]

    assert known_s == sorted(known_s)


def test_the_digest_is_of_the_files_that_the_periods_need(tmp_path: Path) -> None:
    folder = unchecked(tmp_path / "data", "2013-01", "2013-02", "2013-03")
    before = arrivals.digest(["2013-02"], data_folder=folder)

    assert before == arrivals.digest(["2013-02"])
    assert before == arrivals.digest([CALENDAR.period("2013-01"), "2013-02"], data_folder=folder)
    (folder / "flights" / "2013-03.parquet").write_bytes(b"not needed")
    assert arrivals.digest(["2013-02"], data_folder=folder) == before
    weather = pd.read_parquet(folder / "weather.parquet")
    weather.iloc[1:].to_parquet(folder / "weather.parquet")
    assert arrivals.digest(["2013-02"], data_folder=folder) != before


def test_a_copy_is_a_data_folder_that_says_the_same(tmp_path: Path) -> None:
    digest = arrivals.digest(["2013-W05"])

    arrivals.copy(["2013-W05"], tmp_path / "raw", data_digest=digest)

    assert files.file_sha256(tmp_path / "raw" / "checksums.txt") == digest
    assert arrivals.digest(["2013-W05"], data_folder=tmp_path / "raw") == digest
    week = CALENDAR.period("2013-W05")
    (copied,) = arrivals.read([week], data_folder=tmp_path / "raw").partitions
    (source,) = arrivals.read([week]).partitions
    assert copied.features.equals(source.features)


def test_a_copy_of_other_files_than_were_seen_is_refused(tmp_path: Path) -> None:
    folder = unchecked(tmp_path / "data", "2013-01")
    digest = arrivals.digest(["2013-01"], data_folder=folder)
    january = folder / "flights" / "2013-01.parquet"
    pd.read_parquet(january).head(1000).to_parquet(january)

    with pytest.raises(DataIntegrityError, match=r"have changed; ask with arrivals\.digest anew"):
        arrivals.copy(["2013-01"], tmp_path / "raw", data_digest=digest, data_folder=folder)


def test_a_missing_period_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no flights of 2014-01"):
        arrivals.digest(["2014-01"])


def test_the_twelve_months_pass_and_lose_the_two_impossible_rows(tmp_path: Path) -> None:
    months = [str(month) for month in datasets.flight_months()]

    findings = arrivals.clean(months, tmp_path / "clean", quarantine_file=tmp_path / "q.csv")

    refused = pd.read_csv(tmp_path / "q.csv")
    assert refused[["period", "table", "column"]].to_numpy().tolist() == [
        ["2013-02", "weather", "wind_speed"],
        ["2013-07", "flights", "distance"],
    ]
    n_rows = datasets.count_rows(folder=tmp_path / "clean")
    assert sum(n for name, n in n_rows.items() if name.startswith("flights/")) == 336_776 - 1
    assert n_rows["weather.parquet"] == 26_115 - 1
    (august,) = (text for text in findings if "flights of 2013-08: dest" in text)
    assert "0.00835 of 29327 values outside the vocabulary" in august


def test_what_is_clean_stays_as_it_is_when_it_is_cleaned_again(tmp_path: Path) -> None:
    weeks = ["2013-W05", "2013-W06"]
    for source, name in ((None, "once"), (tmp_path / "once", "twice")):
        arrivals.clean(
            weeks, tmp_path / name, quarantine_file=tmp_path / f"{name}.csv", data_folder=source
        )

    assert len(pd.read_csv(tmp_path / "once.csv")) == 1
    assert pd.read_csv(tmp_path / "twice.csv").empty
    assert arrivals.digest(weeks, data_folder=tmp_path / "once") == arrivals.digest(
        weeks, data_folder=tmp_path / "twice"
    )


def test_statistics_that_break_the_schema_refuse_the_partition(tmp_path: Path) -> None:
    """Each row keeps all rules, but too many destinations were never heard of."""
    folder = unchecked(tmp_path / "data", "2013-01")
    january = folder / "flights" / "2013-01.parquet"
    flights = pd.read_parquet(january)
    flights.loc[flights["dest"] == "ATL", "dest"] = "ABQ"
    flights.to_parquet(january)

    with pytest.raises(DataIntegrityError, match=r"flights of 2013-01: dest: .*ABQ.*sent again"):
        arrivals.clean(
            ["2013-01"],
            tmp_path / "clean",
            quarantine_file=tmp_path / "q.csv",
            data_folder=folder,
        )
    assert not (tmp_path / "clean").exists()


def test_examples_from_clean_rows_are_those_from_the_source(tmp_path: Path) -> None:
    weeks = ["2013-W05", "2013-W06", "2013-W07"]
    arrivals.clean(weeks, tmp_path / "clean", quarantine_file=tmp_path / "q.csv")
    for name, folder in (("a", tmp_path / "clean"), ("b", None)):
        arrivals.write_examples(
            weeks[:2],
            weeks[2],
            train_file=tmp_path / f"train_{name}",
            test_file=tmp_path / f"test_{name}",
            data_folder=folder,
        )

    for part in ("train", "test"):
        found, expected = (pd.read_parquet(tmp_path / f"{part}_{name}") for name in "ab")
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
        assert found["late"].isin([0, 1]).all()
    assert found["car_dep_mean_24h"].notna().iloc[0]
