import hashlib
import os

import pytest

from mlops_mini import files
from mlops_mini.errors import DataIntegrityError, NotFoundError


def test_a_file_that_is_not_written_to_its_end_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    with pytest.raises(ZeroDivisionError), files.whole_file(path) as unfinished:
        unfinished.write_text(f"{1 / 0}")

    assert path.read_text() == "old"
    with files.whole_file(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc")
    files.write_checksums(tmp_path, ["a.bin"])
    return tmp_path


def test_writes_the_format_of_sha256sum(folder):
    digest = hashlib.sha256(b"abc").hexdigest()

    assert (folder / "checksums.txt").read_text() == f"{digest}  a.bin\n"
    assert files.checked_path(folder, "a.bin") == folder / "a.bin"


def test_notices_a_change_after_a_first_check(folder):
    files.checked_path(folder, "a.bin")
    (folder / "a.bin").write_bytes(b"abx")
    os.utime(folder / "a.bin", ns=(1, 1))  # the same size: the time alone tells

    with pytest.raises(DataIntegrityError) as error:
        files.checked_path(folder, "a.bin")

    for part in ("a.bin", hashlib.sha256(b"abc").hexdigest(), hashlib.sha256(b"abx").hexdigest()):
        assert part in str(error.value)
    assert "`git checkout -- data` or `python -m tools.rebuild_data`" in str(error.value)


def test_hashes_an_unchanged_file_once(folder):
    kept = (folder / "a.bin").stat()
    files.checked_path(folder, "a.bin")
    (folder / "a.bin").write_bytes(b"xyz")
    os.utime(folder / "a.bin", ns=(kept.st_atime_ns, kept.st_mtime_ns))

    assert files.checked_path(folder, "a.bin")  # by size and time it is the file checked before


def test_refuses_a_file_that_the_list_does_not_have(folder):
    (folder / "b.bin").write_bytes(b"new")

    with pytest.raises(DataIntegrityError, match=r"sha256sum b\.bin >> checksums\.txt"):
        files.checked_path(folder, "b.bin")


def test_takes_a_folder_without_a_list_as_it_is_and_says_so(tmp_path, caplog):
    (tmp_path / "b.bin").write_bytes(b"new")

    with caplog.at_level("INFO"):
        path = files.checked_path(tmp_path, "b.bin")

    assert path.read_bytes() == b"new"
    assert "not checked against a checksum" in caplog.text


def test_names_a_missing_file_and_the_way_out(folder):
    with pytest.raises(NotFoundError, match=r"no file c\.bin in .*python -m tools.rebuild_data"):
        files.checked_path(folder, "c.bin")


def test_nobody_is_told_to_reset_a_data_folder_of_others(tmp_path):
    with pytest.raises(
        NotFoundError, match=r"nor the list checksums\.txt.*MLOPS_MINI_DATA"
    ) as error:
        files.checked_path(tmp_path, "c.bin")

    assert "git" not in str(error.value)


@pytest.mark.parametrize("line", ["abc  a.bin", "0" * 64, "0" * 64 + " a.bin", "0" * 64 + "  "])
def test_refuses_a_broken_list(folder, line):
    (folder / "checksums.txt").write_text(line + "\n")

    with pytest.raises(DataIntegrityError, match="expected `SHA256  NAME`"):
        files.checked_path(folder, "a.bin")
