"""A file is cut into partitions that are there whole, once, and only if all of it is in order."""

import json

import pandas as pd
import pytest

from mlops_mini import files
from mlops_mini.data import storing, table_files
from mlops_mini.data.periods import Calendar
from mlops_mini.data.table import Table
from mlops_mini.errors import AlreadyExistsError, DataIntegrityError, NotFoundError
from tests.test_cli import run

CALENDAR = Calendar("month", zone="Europe/Berlin")
SALES = Table(
    name="sales",
    key=["sale"],
    time="at",
    columns={"sale": "integer", "at": "instant", "usd": "number?", "n": "integer?"},
)
# The second is March in Berlin, though not in London.
CSV = """usd,at,sale,note,n
1.5,2026-02-11T12:00:00Z,1,x,3
,2026-02-28T23:30:00Z,2,,
2.5,2026-03-07T12:00:00+01:00,3,y,4
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sales.csv"
    path.write_text(CSV)
    return path


def store(file, folder, **how):
    parts = storing.store(file, SALES, calendar=CALENDAR, folder=folder, **how)
    return {str(part.period): (part.n_rows, part.outcome) for part in parts}


def stored(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_rows_are_cut_by_the_calendar(file, tmp_path):
    folder = tmp_path / "data"

    assert store(file, folder) == {"2026-02": (1, "new"), "2026-03": (2, "new")}
    assert stored(folder) == {"sales/2026-02.parquet", "sales/2026-03.parquet"}
    march = CALENDAR.period("2026-03")
    rows = table_files.load(SALES, march, calendar=CALENDAR, folder=folder)
    assert rows["sale"].tolist() == [2, 3]
    assert list(rows.columns) == list(SALES.columns)


def test_weeks_that_begin_at_no_midnight_are_cut_where_they_begin(file, tmp_path):
    weeks = Calendar("week", zone="Europe/Berlin")
    rows = pd.DataFrame({"sale": range(3000), "usd": 1.0, "n": 1})
    rows["at"] = pd.date_range("2026-03-01", periods=3000, freq="h", tz="UTC")
    rows.to_parquet(tmp_path / "sales.parquet")

    parts = storing.store(
        tmp_path / "sales.parquet", SALES, calendar=weeks, folder=tmp_path / "data"
    )

    assert sum(part.n_rows for part in parts) == 3000
    assert {part.n_rows for part in parts[1:-1]} == {7 * 24}


def test_the_same_file_again_changes_nothing(file, tmp_path):
    folder = tmp_path / "data"
    store(file, folder)
    before = {name: (folder / name).stat().st_mtime_ns for name in stored(folder)}

    assert store(file, folder) == {"2026-02": (1, "the same"), "2026-03": (2, "the same")}
    assert {name: (folder / name).stat().st_mtime_ns for name in stored(folder)} == before


def test_other_rows_are_refused_before_anything_is_written_and_replaced_if_asked(file, tmp_path):
    folder = tmp_path / "data"
    store(file, folder)
    file.write_text(CSV.replace("2.5", "25") + "9,2026-04-01T12:00:00Z,9,,\n")

    with pytest.raises(AlreadyExistsError, match=r"2026-03\.parquet in .* that month.*--replace"):
        store(file, folder)
    assert "sales/2026-04.parquet" not in stored(folder)

    replaced = store(file, folder, is_replacing=True)
    assert {month: outcome for month, (_, outcome) in replaced.items()} == {
        "2026-02": "the same",
        "2026-03": "replaced",
        "2026-04": "new",
    }


def test_a_replaced_csv_file_leaves_and_checksums_follow(file, tmp_path):
    folder = tmp_path / "data"
    (folder / "sales").mkdir(parents=True)
    (folder / "sales" / "2026-03.csv").write_text(CSV.replace("2.5", "25"))
    files.write_checksums(folder, ["sales/2026-03.csv"])

    store(file, folder, is_replacing=True)

    listed = files.read_checksums(folder / files.CHECKSUMS)
    assert set(listed) == {"sales/2026-02.parquet", "sales/2026-03.parquet"}
    assert stored(folder) == {*listed, files.CHECKSUMS}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("usd,at", "dollars,at", "lacks the columns ['usd']"),
        ("T12:00:00Z,1", "T12:00:00,1", "without an offset in column 'at': '2026-02-11T12:00:00'"),
        ("2026-02-11T12:00:00Z", "", "1 of 3 rows have no at from 1971 to 2098, such as row 0"),
        ("2026-02-11", "1026-02-11", "sales.csv has an instant before 1678"),
        ("1.5,", "high,", "column 'usd'"),
    ],
)
def test_a_file_that_is_out_of_order_is_refused_whole(file, tmp_path, before, after, words):
    file.write_text(CSV.replace(before, after))

    with pytest.raises(DataIntegrityError) as refused:
        store(file, tmp_path / "data")

    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "data").exists()


def test_one_file_for_all_is_left_alone(file, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sales.csv").write_text(CSV)

    with pytest.raises(AlreadyExistsError, match=r"all of sales in one file, sales\.csv"):
        store(file, tmp_path / "data")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NotFoundError, match="no file"):
        store(tmp_path / "gone.csv", tmp_path / "data")


def test_the_command_asks_which_table_and_prints_what_it_did(tmp_path):
    (tmp_path / "visits.csv").write_text(
        "visit,machine,visited_at,minutes\n1,saw,2026-03-31T16:00:00Z,5\n"
    )
    arguments = ["data", "send", str(tmp_path / "visits.csv"), "--data", str(tmp_path / "data")]
    arguments += ["--use-case", "tests.tenants.sensors:STOPS"]

    failed = run(*arguments)
    sent = run(*arguments, "--table", "visits", "--json")

    assert failed.returncode == 1
    assert "has several tables: name one of ['readings', 'visits'] by --table" in failed.stderr
    assert json.loads(sent.stdout) == [{"period": "2026-04", "n_rows": 1, "outcome": "new"}]
