import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_mini.data import columns, integrity, rules, storing, table_files, tensors
from mlops_mini.data.periods import Calendar
from mlops_mini.data.table import Table
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError

SCANS = Table(
    name="scans",
    key=["scan"],
    time="at",
    columns={"scan": "integer", "at": "instant", "depth": "float32[2,3]"},
)
MARCH = Calendar().period("2026-03")
DEPTH = np.arange(24, dtype=np.float32).reshape(4, 2, 3)


@pytest.fixture
def scans():
    at = pd.date_range("2026-03-02", periods=4, tz="UTC")
    return pd.DataFrame({"scan": range(4), "at": at, "depth": tensors.column(DEPTH)})


def test_arrays_come_back_whatever_was_done_to_the_rows(scans):
    shuffled = pd.concat([scans, scans.iloc[2:]], ignore_index=True).sample(frac=1, random_state=0)
    deep = shuffled[shuffled["scan"] > 1]

    assert (tensors.to_numpy(shuffled["depth"]) == DEPTH[shuffled["scan"]]).all()
    assert (tensors.to_numpy(deep["depth"]) == DEPTH[deep["scan"]]).all()
    assert tensors.to_numpy(scans["depth"].iloc[:0]).shape == (0, 2, 3)
    assert tensors.to_numpy(scans["depth"]).dtype == np.float32


def test_a_missing_array_counts_as_zeros(scans):
    some = scans["depth"].where([True, False, True, True])

    read = tensors.to_numpy(some)

    assert (read[[0, 2, 3]] == DEPTH[[0, 2, 3]]).all()
    assert not read[1].any()


def test_files_keep_type_and_shape_and_pandas_can_read_them_too(tmp_path, scans):
    file = tmp_path / "scans.parquet"
    tensors.write_parquet(scans, file)

    read = tensors.read_parquet(file, ["depth", "scan"])

    assert tensors.kind_of(read["depth"]) == "float32[2,3]"
    assert (tensors.to_numpy(read["depth"]) == DEPTH).all()
    assert pd.read_parquet(file)["scan"].tolist() == [0, 1, 2, 3]
    assert table_files.read(file, SCANS.arrow)["depth"].dtype == read["depth"].dtype


def test_a_tensor_is_a_plain_column_with_a_digest_of_its_values(scans):
    assert columns.kind(columns.plain(scans["depth"])) == "tensor"
    digest = integrity.contents_digest(scans)

    changed = scans.assign(depth=tensors.column(DEPTH + np.eye(4, 6).reshape(4, 2, 3)).array)
    assert integrity.contents_digest(scans.copy()) == digest
    assert integrity.contents_digest(changed.astype({"depth": scans["depth"].dtype})) != digest


def test_a_row_without_its_array_is_set_aside(scans):
    rows = pd.concat([scans] * 100, ignore_index=True).assign(scan=range(400))
    rows["depth"] = rows["depth"].where(rows["scan"] != 7)

    split = rules.split(SCANS, rows, MARCH)

    assert split.quarantined["scan"].tolist() == [7]
    assert split.quarantined["reason"].iloc[0].startswith("depth: not_nullable")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.zeros((4, 3, 3), np.float32), r"float32\[3,3\]"),
        (np.zeros((4, 2, 3), np.uint8), r"uint8\[2,3\]"),
        (np.zeros((4, 6), np.float32), r"float32\[6\]"),
    ],
)
def test_arrays_of_another_shape_or_dtype_are_refused_in_one_line(tmp_path, scans, values, kind):
    other = scans.assign(depth=tensors.column(values).array)
    expected = rf"{kind}, expected float32\[2,3\][^\n]*$"

    with pytest.raises(DataIntegrityError, match=rf"column 'depth' is {expected}"):
        rules.split(SCANS, other, MARCH)
    tensors.write_parquet(other, tmp_path / "scans.parquet")
    with pytest.raises(DataIntegrityError, match=rf"'depth' of type {expected}"):
        table_files.read(tmp_path / "scans.parquet", SCANS.arrow)


def test_lists_of_any_length_are_no_tensors(tmp_path, scans):
    ragged = pa.table({"scan": [1], "at": scans["at"][:1], "depth": [[[1.0], [2.0, 3.0]]]})
    pq.write_table(ragged, tmp_path / "scans.parquet")

    with pytest.raises(DataIntegrityError, match=r"of type list<.*expected float32\[2,3\]"):
        table_files.read(tmp_path / "scans.parquet", SCANS.arrow)
    with pytest.raises(DataIntegrityError, match=r"is object, expected float32\[2,3\]"):
        rules.split(SCANS, scans.assign(depth=pd.Series(list(DEPTH))), MARCH)


def test_a_file_with_tensors_is_stored_once(tmp_path, scans):
    tensors.write_parquet(scans, tmp_path / "sent.parquet")

    def send():
        return storing.store(
            tmp_path / "sent.parquet", SCANS, calendar=Calendar(), folder=tmp_path / "data"
        )

    assert [part.outcome for part in (*send(), *send())] == ["new", "the same"]


def test_refuses_kinds_and_columns_that_cannot_be():
    with pytest.raises(InvalidArgumentError, match=r"can't be missing: take the \? off"):
        Table(
            name="scans", key=["scan"], time="at",
            columns={"scan": "integer", "at": "instant", "depth": "float32[2,3]?"},
        )  # fmt: skip
    with pytest.raises(InvalidArgumentError, match="is of no kind 'text\\[3\\]'"):
        Table(
            name="scans", key=["scan"], time="at",
            columns={"scan": "integer", "at": "instant", "depth": "text[3]"},
        )  # fmt: skip
    with pytest.raises(InvalidArgumentError, match=r"got float64 of \[3\]"):
        tensors.column(np.zeros(3))
