import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from mlops_mini.data import partitions, table_files
from mlops_mini.data.partitions import Manifest
from mlops_mini.errors import AlreadyExistsError, DataIntegrityError, InvalidArgumentError
from mlops_mini.files import file_sha256
from mlops_mini.flights import datasets, tables

NOW = datetime(2013, 4, 1, 12, tzinfo=UTC)
NAME = "flights-2013-03.parquet"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A month in two states, and one without rows."""
    folder = tmp_path_factory.mktemp("files")
    march = datasets.flights("2013-03").head(500)
    states = {"first": march, "second": march.assign(arr_delay=march["arr_delay"] + 1)}
    for name, flights in (states | {"empty": march[:0]}).items():
        flights.to_parquet(folder / f"{name}.parquet", index=False)
    return {path.stem: path for path in folder.iterdir()}


def send(file, folder, name=NAME, period="2013-03"):
    return partitions.send(file, folder, name=name, period=period)


def inbox(folder):
    return sorted(path.name for path in (folder / "inbox").iterdir())


def test_a_file_arrives_with_what_its_manifest_says(files, tmp_path):
    manifest = send(files["first"], tmp_path)

    receipt = partitions.receive(tmp_path, now=NOW)

    (arrived,) = receipt.new
    assert receipt == partitions.Receipt(new=(arrived,))
    assert (arrived.name, arrived.n_rows, str(arrived.period)) == (NAME, 500, "2013-03")
    assert (arrived.key, arrived.arrival, arrived.arrived_at) == (manifest.key, 1, NOW)
    assert arrived.path.read_bytes() == files["first"].read_bytes()
    assert len(table_files.read(arrived.path, tables.FLIGHTS.arrow)) == 500
    assert partitions.arrived(tmp_path) == [arrived]
    assert inbox(tmp_path) == []


def test_an_empty_inbox_brings_nothing(tmp_path):
    assert partitions.receive(tmp_path, now=NOW) == partitions.Receipt()
    assert partitions.arrived(tmp_path) == []


def test_the_same_file_again_changes_nothing(files, tmp_path):
    send(files["first"], tmp_path)
    (first,) = partitions.receive(tmp_path, now=NOW).new
    again = send(files["first"], tmp_path)

    receipt = partitions.receive(tmp_path, now=NOW + timedelta(days=1))

    assert receipt == partitions.Receipt(duplicates=(again,))
    assert partitions.arrived(tmp_path) == [first]
    assert inbox(tmp_path) == []


def test_other_bytes_under_the_same_name_are_kept_beside(files, tmp_path):
    send(files["first"], tmp_path)
    (first,) = partitions.receive(tmp_path, now=NOW).new
    send(files["second"], tmp_path)

    receipt = partitions.receive(tmp_path, now=NOW)

    (second,) = receipt.changed
    assert receipt == partitions.Receipt(changed=(second,))
    assert second.key != first.key
    assert (first.arrival, second.arrival) == (1, 2)
    assert partitions.arrived(tmp_path) == [first, second]
    assert first.path.read_bytes() == files["first"].read_bytes()
    assert second.path.read_bytes() == files["second"].read_bytes()


def test_the_first_state_sent_again_after_a_change_is_a_duplicate(files, tmp_path):
    for file in ("first", "second"):
        send(files[file], tmp_path)
        partitions.receive(tmp_path, now=NOW)
    send(files["first"], tmp_path)

    assert len(partitions.receive(tmp_path, now=NOW).duplicates) == 1
    assert [one.arrival for one in partitions.arrived(tmp_path)] == [1, 2]


def test_a_month_without_rows_arrives_and_is_refused_when_read(files, tmp_path):
    send(files["empty"], tmp_path)

    (arrived,) = partitions.receive(tmp_path, now=NOW).new

    assert arrived.n_rows == 0
    with pytest.raises(DataIntegrityError, match="holds no rows"):
        table_files.read(arrived.path, tables.FLIGHTS.arrow)


def test_a_file_without_manifest_has_not_arrived(files, tmp_path):
    send(files["first"], tmp_path)
    (tmp_path / "inbox" / f"{NAME}.manifest.json").unlink()

    receipt = partitions.receive(tmp_path, now=NOW)

    ((name, reason),) = receipt.waiting
    assert (name, reason) == (
        NAME,
        f"{NAME}.manifest.json is not there: the file is not complete",
    )
    assert partitions.arrived(tmp_path) == []


def test_a_half_written_file_waits_until_it_is_whole(files, tmp_path):
    send(files["first"], tmp_path)
    whole = files["first"].read_bytes()
    waiting = tmp_path / "inbox" / NAME
    waiting.write_bytes(whole[: len(whole) // 2])

    first = partitions.receive(tmp_path, now=NOW)

    assert "SHA-256" in first.waiting[0][1]
    assert partitions.arrived(tmp_path) == []
    assert waiting.stat().st_size == len(whole) // 2
    waiting.write_bytes(whole)
    assert len(partitions.receive(tmp_path, now=NOW).new) == 1


def test_a_half_written_copy_of_what_is_there_is_not_thrown_away(files, tmp_path):
    send(files["first"], tmp_path)
    partitions.receive(tmp_path, now=NOW)
    send(files["first"], tmp_path)
    (tmp_path / "inbox" / NAME).write_bytes(b"half")

    receipt = partitions.receive(tmp_path, now=NOW)

    assert receipt.duplicates == ()
    assert [name for name, _ in receipt.waiting] == [NAME]
    assert (tmp_path / "inbox" / NAME).read_bytes() == b"half"


def test_one_bad_file_does_not_hold_up_the_others(files, tmp_path):
    send(files["first"], tmp_path)
    send(files["first"], tmp_path, name="flights-2013-02.parquet", period="2013-02")
    (tmp_path / "inbox" / "flights-2013-02.parquet").write_bytes(b"PAR1")

    receipt = partitions.receive(tmp_path, now=NOW)

    assert [one.name for one in receipt.new] == [NAME]
    assert [name for name, _ in receipt.waiting] == ["flights-2013-02.parquet"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rows": 499}, "has 500 rows, its manifest says 499"),
        ({"sha256": "0" * 64}, "its manifest says 000"),
        ({"sha256": "0"}, "no manifest"),
        ({"period": "2013-3"}, "is not a period"),
        ({"period": 3}, "is not a period"),
        ({"rows": "many"}, "is no manifest"),
        ({"rows": -1}, "no manifest"),
        ({"name": "../flights.parquet"}, "no manifest"),
        ({"name": "flights-2013-04.parquet"}, "is the manifest of 'flights-2013-04.parquet'"),
    ],
)
def test_a_file_that_is_not_what_its_manifest_says_waits(files, tmp_path, change, reason):
    send(files["first"], tmp_path)
    path = tmp_path / "inbox" / f"{NAME}.manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    receipt = partitions.receive(tmp_path, now=NOW)

    ((name, found),) = receipt.waiting
    assert name == NAME
    assert reason in found
    assert partitions.arrived(tmp_path) == []
    assert (tmp_path / "inbox" / NAME).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\udcff"])
def test_a_broken_manifest_waits(files, tmp_path, text):
    send(files["first"], tmp_path)
    manifest = tmp_path / "inbox" / f"{NAME}.manifest.json"
    manifest.write_bytes(text.encode(errors="surrogateescape"))

    receipt = partitions.receive(tmp_path, now=NOW)

    assert "is no manifest" in receipt.waiting[0][1]


def test_what_a_killed_receiver_began_is_ended_by_the_next(files, tmp_path):
    manifest = send(files["first"], tmp_path)
    state = tmp_path / "arrived" / "flights-2013-03"
    state.mkdir(parents=True)
    # Killed after the file was in place, before the note of its arrival.
    os.link(tmp_path / "inbox" / NAME, state / f"{manifest.sha256}.parquet")
    assert partitions.arrived(tmp_path) == []

    receipt = partitions.receive(tmp_path, now=NOW)

    assert [one.key for one in receipt.new] == [manifest.key]
    assert sorted(path.suffix for path in state.iterdir()) == [".json", ".parquet"]
    assert inbox(tmp_path) == []


@pytest.mark.parametrize("left", [["file", "manifest"], ["manifest"]])
def test_what_a_killed_receiver_did_not_tidy_up_is_a_duplicate(files, tmp_path, left):
    send(files["first"], tmp_path)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "inbox").iterdir()}
    (first,) = partitions.receive(tmp_path, now=NOW).new
    # Killed after the note, with files still in the inbox.
    for name, content in kept.items():
        if ("manifest" if name.endswith(".json") else "file") in left:
            (tmp_path / "inbox" / name).write_bytes(content)

    receipt = partitions.receive(tmp_path, now=NOW)

    assert [one.key for one in receipt.duplicates] == [first.key]
    assert partitions.arrived(tmp_path) == [first]
    assert inbox(tmp_path) == []


def test_a_complete_file_that_waits_is_not_overwritten(files, tmp_path):
    send(files["first"], tmp_path)

    with pytest.raises(AlreadyExistsError, match="receive it before sending another"):
        send(files["second"], tmp_path)

    assert (tmp_path / "inbox" / NAME).read_bytes() == files["first"].read_bytes()


def test_a_damaged_file_is_replaced_by_sending_it_again(files, tmp_path):
    send(files["first"], tmp_path)
    (tmp_path / "inbox" / NAME).write_bytes(b"half")

    send(files["first"], tmp_path)

    assert len(partitions.receive(tmp_path, now=NOW).new) == 1


def test_only_parquet_is_sent(tmp_path):
    text = tmp_path / "flights.csv"
    text.write_text("carrier\nUA\n")

    with pytest.raises(DataIntegrityError, match="not a readable parquet file"):
        send(text, tmp_path)


@pytest.mark.parametrize("name", ["../x.parquet", "a/b.parquet", ".x.parquet", "x.csv", ""])
def test_a_name_is_a_plain_file_name(files, tmp_path, name):
    with pytest.raises(InvalidArgumentError, match="expected a name like"):
        send(files["first"], tmp_path, name=name)


def test_a_late_partition_is_sorted_into_its_place(files, tmp_path):
    for month, name in (("2013-01", "c"), ("2013-04", "a"), ("2013-02", "b")):
        send(files["first"], tmp_path, name=f"{name}.parquet", period=month)
        partitions.receive(tmp_path, now=NOW)

    there = partitions.arrived(tmp_path)

    assert [one.period for one in there] == ["2013-01", "2013-02", "2013-04"]
    assert partitions.missing_periods(there) == ["2013-03"]


def test_what_comes_after_a_later_period_is_late(files, tmp_path):
    def receive(name, *, state="first"):
        send(files[state], tmp_path, name=f"flights-{name}.parquet", period=name)
        return partitions.receive(tmp_path, now=NOW)

    first, third = receive("2013-01"), receive("2013-03")
    assert partitions.missing_periods(partitions.arrived(tmp_path)) == ["2013-02"]
    assert partitions.missing_periods(partitions.arrived(tmp_path), until="2013-05") == [
        "2013-02", "2013-04", "2013-05",
    ]  # fmt: skip
    second, again = receive("2013-02"), receive("2013-01", state="second")

    assert (first.late, third.late) == ((), ())
    assert second.late == second.new
    assert again.late == again.changed
    assert receive("2013-03", state="second").late == ()  # changed, and the newest


def test_no_period_is_missing_from_nothing_or_one():
    march = Manifest(name=NAME, period="2013-03", n_rows=1, sha256="0" * 64)

    assert partitions.missing_periods([]) == []
    assert partitions.missing_periods([march, march]) == []


def test_a_time_needs_a_zone(tmp_path):
    with pytest.raises(InvalidArgumentError, match="without a time zone"):
        partitions.receive(tmp_path, now=datetime(2013, 4, 1))  # noqa: DTZ001


def test_arrival_is_written_down_in_utc(files, tmp_path):
    send(files["first"], tmp_path)
    local = pd.Timestamp("2013-04-01 08:00", tz="America/New_York").to_pydatetime()

    (arrived,) = partitions.receive(tmp_path, now=local).new

    assert arrived.arrived_at.isoformat() == "2013-04-01T12:00:00+00:00"


@pytest.mark.parametrize(
    ("what", "n_arrived"),
    [
        pytest.param("kill", {1}, id="the receiver is killed"),
        pytest.param("send", {1, 2}, id="another file is sent"),
        pytest.param(
            "send and kill", {1, 2}, id="another file is sent, then the receiver is killed"
        ),
        pytest.param("replace", {1, 2}, id="another file takes its place, its manifest later"),
    ],
)
def test_at_whatever_step_no_file_is_lost(files, tmp_path, what, n_arrived):
    """Each step that the receiver takes in the file system, or each two of them."""
    command = [sys.executable, "-m", "tests.data.receiving_steps", what, tmp_path]
    ran = subprocess.run(
        [*command, files["first"], files["second"]], capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    first, second = (file_sha256(files[name]) for name in ("first", "second"))
    assert told["n_steps"] >= 10
    assert {len(trial["arrived"]) for trial in told["trials"]} == n_arrived
    for trial in told["trials"]:
        # A sender who asks for nothing may replace the first before it is taken: that is theirs.
        expected = [[first, second], [second]] if trial["was_sent"] else [[first]]
        assert trial["arrived"] in expected[: 2 if what == "replace" else 1], trial
        assert trial["numbers"] == list(range(1, len(trial["arrived"]) + 1)), trial
        assert trial["are_whole"], trial
        assert trial["inbox"] == [], trial
        assert trial["is_quiet"], trial


def test_receivers_at_once_bring_each_file_once(files, tmp_path):
    names = [f"flights-2013-{month:02}.parquet" for month in range(1, 9)]
    for name in names:
        send(files["first"], tmp_path, name=name, period=name[8:15])

    with ThreadPoolExecutor(4) as pool:
        receipts = list(pool.map(lambda _: partitions.receive(tmp_path, now=NOW), range(4)))

    assert sorted(one.name for receipt in receipts for one in receipt.new) == names
    assert all(receipt.duplicates == receipt.waiting == () for receipt in receipts)
    assert [one.arrival for one in partitions.arrived(tmp_path)] == [1] * 8
