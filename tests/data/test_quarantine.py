from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mlops_mini.data import partitions, quarantine, table_files
from mlops_mini.errors import DataIntegrityError
from mlops_mini.flights import datasets, tables
from tests.flight_data import split_rows

NOW = datetime(2013, 8, 1, 12, tzinfo=UTC)


@pytest.fixture
def july(tmp_path):
    """July as it arrives, and what becomes of its rows."""
    file = datasets.data_folder() / "flights" / "2013-07.parquet"
    partitions.send(file, tmp_path, name="flights-2013-07.parquet", period="2013-07")
    (partition,) = partitions.receive(tmp_path, now=NOW).new
    flights = table_files.read(partition.path, tables.FLIGHTS.arrow)
    return partition, flights, split_rows(flights, partition.period)


def test_a_row_set_aside_is_on_record_and_can_be_found_again(july, tmp_path):
    partition, flights, split = july

    path = quarantine.write(split, partition, tmp_path)

    assert path.parent.name == "flights-2013-07"
    record = quarantine.read(tmp_path)
    assert record.to_dict("records") == [
        {
            "partition": partition.key,
            "period": "2013-07",
            "table": "flights",
            "row": record["row"].item(),
            "column": "distance",
            "rule": "in_range(50, 5000)",
            "value": "17",
        }
    ]
    assert flights.iloc[record["row"].item()]["flight"] == 1632


def test_writing_again_replaces_the_record(july, tmp_path):
    partition, _, split = july

    first = quarantine.write(split, partition, tmp_path)
    second = quarantine.write(split, partition, tmp_path)

    assert first == second
    assert len(quarantine.read(tmp_path)) == 1
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_rows_lost_between_arrival_and_record_are_refused(july, tmp_path):
    partition, flights, _ = july
    split = split_rows(flights.drop(index=7), partition.period)

    with pytest.raises(DataIntegrityError, match=r"29423 rows kept and 1 quarantined.*29425"):
        quarantine.write(split, partition, tmp_path)


def test_a_row_without_reason_is_refused(july, tmp_path):
    partition, _, split = july
    silent = replace(split, failures=split.failures[:0])

    with pytest.raises(DataIntegrityError, match="0 with a reason"):
        quarantine.write(silent, partition, tmp_path)


def test_each_broken_rule_has_a_line(july, tmp_path):
    partition, flights, _ = july
    changed = flights.astype({"distance": float})
    changed.loc[[3, 5], "distance"] = [0.5, float("nan")]

    split = split_rows(changed, partition.period)
    quarantine.write(split, partition, tmp_path)

    record = quarantine.read(tmp_path)
    assert record["row"].is_monotonic_increasing
    assert sorted(record.loc[record["row"] == 3, "rule"]) == [
        "in_range(50, 5000)",
        "is a whole number",
    ]
    assert record.loc[record["row"] == 5, ["rule", "value"]].to_numpy().tolist() == [
        ["not_nullable", "nan"]
    ]


def test_a_clean_partition_has_an_empty_record(tmp_path):
    file = datasets.data_folder() / "flights" / "2013-03.parquet"
    partitions.send(file, tmp_path, name="flights-2013-03.parquet", period="2013-03")
    (partition,) = partitions.receive(tmp_path, now=NOW).new
    split = split_rows(table_files.read(partition.path, tables.FLIGHTS.arrow), "2013-03")

    path = quarantine.write(split, partition, tmp_path)

    assert path.read_text() == "period,table,row,column,rule,value\n"
    assert quarantine.read(tmp_path).empty


def test_nothing_on_record_is_an_empty_table(tmp_path):
    record = quarantine.read(tmp_path)

    assert record.columns.tolist() == ["partition", *quarantine.COLUMNS]
    assert record.empty
