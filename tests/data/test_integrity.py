import hashlib
import os

import numpy as np
import pandas as pd
import pytest

from mlops_mini.data import integrity
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError, NotFoundError


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "delay_min": [1.0, None, -3.0],
            "carrier": ["UA", None, ""],
            "at": pd.to_datetime(["2013-01-01", "2013-01-02", "2013-01-03"], utc=True),
        }
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.assign(delay_min=[1.0, None, -3.5]),
        lambda table: table.assign(delay_min=[1.0, 0.0, -3.0]),
        lambda table: table.assign(carrier=["UA", "", ""]),
        lambda table: table.assign(carrier=["U", None, "A"]),
        lambda table: table.assign(at=table["at"] + pd.Timedelta(microseconds=1)),
        lambda table: table.assign(delay_min=table["delay_min"].astype("float32")),
        lambda table: table.rename(columns={"at": "at_utc"}),
        lambda table: table[["carrier", "delay_min", "at"]],
        lambda table: table[::-1],
        lambda table: table[:2],
        lambda table: table.assign(more=0),
    ],
)
def test_digest_tells_tables_apart(table, change):
    assert integrity.contents_digest(change(table)) != integrity.contents_digest(table)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.copy(),
        lambda table: table.set_index(pd.Index([7, 8, 9])),
        lambda table: table.assign(at=table["at"].astype("datetime64[us, UTC]")),
        lambda table: table.assign(at=table["at"].dt.tz_convert("Asia/Tokyo")),
        lambda table: table.assign(carrier=["UA", np.nan, ""]),
        lambda table: table.assign(carrier=table["carrier"].astype("string")),
        lambda table: table.assign(carrier=table["carrier"].astype("category")),
    ],
)
def test_digest_leaves_out_how_a_table_is_held(table, change):
    assert integrity.contents_digest(change(table)) == integrity.contents_digest(table)


def test_digest_sees_a_change_after_row_10000():
    table = pd.DataFrame({"late": np.zeros(30_000)})

    changed = table.assign(late=[0.0] * 29_999 + [1.0])

    assert integrity.contents_digest(changed) != integrity.contents_digest(table)


def test_digest_knows_the_shape_of_arrays():
    array = np.arange(6, dtype=np.uint8)

    digests = {integrity.contents_digest({"a": array.reshape(n, -1)}) for n in (1, 2, 3)}

    assert len(digests) == 3


def test_digest_refuses_other_objects_by_column():
    with pytest.raises(InvalidArgumentError, match="'a' holds other objects than strings"):
        integrity.contents_digest(pd.DataFrame({"a": [1, "1"]}))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc")
    integrity.write_checksums(tmp_path, ["a.bin"])
    return tmp_path


def test_writes_the_format_of_sha256sum(folder):
    digest = hashlib.sha256(b"abc").hexdigest()

    assert (folder / "checksums.txt").read_text() == f"{digest}  a.bin\n"
    assert integrity.checked_path(folder, "a.bin") == folder / "a.bin"


def test_notices_a_change_after_a_first_check(folder):
    integrity.checked_path(folder, "a.bin")
    (folder / "a.bin").write_bytes(b"abx")
    os.utime(folder / "a.bin", ns=(1, 1))  # the same size: the time alone tells

    with pytest.raises(DataIntegrityError) as error:
        integrity.checked_path(folder, "a.bin")

    for part in ("a.bin", hashlib.sha256(b"abc").hexdigest(), hashlib.sha256(b"abx").hexdigest()):
        assert part in str(error.value)
    assert "`git checkout -- data` or `python -m tools.rebuild_data`" in str(error.value)


def test_hashes_an_unchanged_file_once(folder):
    kept = (folder / "a.bin").stat()
    integrity.checked_path(folder, "a.bin")
    (folder / "a.bin").write_bytes(b"xyz")
    os.utime(folder / "a.bin", ns=(kept.st_atime_ns, kept.st_mtime_ns))

    assert integrity.checked_path(folder, "a.bin")  # by size and time it is the file checked before


def test_refuses_a_file_that_the_list_does_not_have(folder):
    (folder / "b.bin").write_bytes(b"new")

    with pytest.raises(DataIntegrityError, match=r"sha256sum b\.bin >> checksums\.txt"):
        integrity.checked_path(folder, "b.bin")


def test_takes_a_folder_without_a_list_as_it_is_and_says_so(tmp_path, caplog):
    (tmp_path / "b.bin").write_bytes(b"new")

    with caplog.at_level("INFO"):
        path = integrity.checked_path(tmp_path, "b.bin")

    assert path.read_bytes() == b"new"
    assert "not checked against a checksum" in caplog.text


def test_names_a_missing_file_and_the_way_out(folder):
    with pytest.raises(NotFoundError, match=r"no file c\.bin in .*python -m tools.rebuild_data"):
        integrity.checked_path(folder, "c.bin")


@pytest.mark.parametrize("line", ["abc  a.bin", "0" * 64, "0" * 64 + " a.bin", "0" * 64 + "  "])
def test_refuses_a_broken_list(folder, line):
    (folder / "checksums.txt").write_text(line + "\n")

    with pytest.raises(DataIntegrityError, match="expected `SHA256  NAME`"):
        integrity.checked_path(folder, "a.bin")
