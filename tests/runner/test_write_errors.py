"""Each reason why nothing could be written has its own advice."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from mlops_mini.errors import (
    DataIntegrityError,
    FailedPreconditionError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
)
from mlops_mini.runner import write_errors
from mlops_mini.runner.runner import Runner
from tests.runner import faults


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (errno.ENOSPC, ResourceExhaustedError, "make room there, then resume it"),
        (errno.EDQUOT, ResourceExhaustedError, "make room there"),
        (errno.EACCES, PermissionDeniedError, "allow this user to write there"),
        (errno.EROFS, PermissionDeniedError, "take another folder"),
        (errno.ENAMETOOLONG, InvalidArgumentError, "a shorter name"),
        (errno.EMFILE, ResourceExhaustedError, "fewer workers"),
        (errno.EIO, FailedPreconditionError, "mend that, then resume it"),
    ],
)
def test_each_reason_has_its_own_way_out(number: int, kind: type, advice: str) -> None:
    found = write_errors.explained(
        OSError(number, os.strerror(number)), what="run 'a'", root=Path("/r"), then="resume it"
    )

    assert type(found) is kind
    assert os.strerror(number) in str(found)
    assert advice in str(found)
    assert ("make room" in str(found)) == (number in {errno.ENOSPC, errno.EDQUOT})


def test_a_run_whose_folder_is_taken_by_a_file_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("of the user's own")

    with (
        Runner(tmp_path, mode="inline") as runner,
        pytest.raises(InvalidArgumentError, match=r"run 'mine'.*File exists.*another folder"),
    ):
        runner.run(faults.of_one(faults.exits), run_id="mine")

    assert (tmp_path / "mine").read_text() == "of the user's own"


def test_a_root_that_cannot_be_a_folder_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(InvalidArgumentError, match=r"a runner cannot write.*Not a directory"):
        Runner(tmp_path / "file" / "runs")


def test_a_root_with_too_long_a_name_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"File name too long.*a shorter name"):
        Runner(tmp_path / ("x" * 300))


def test_records_that_are_no_database_are_told_so(tmp_path: Path) -> None:
    (tmp_path / "runs.sqlite").write_text("something else " * 100)

    with pytest.raises(DataIntegrityError, match=r"not a database.*from a copy"):
        Runner(tmp_path)


def test_records_that_may_only_be_read_are_no_full_disk(tmp_path: Path) -> None:
    file = tmp_path / "one.sqlite"
    sqlite3.connect(file).close()
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("create table t (x)")
    connection.close()

    found = write_errors.explained(caught.value, what="run 'a'", root=tmp_path)

    assert isinstance(found, PermissionDeniedError)
    assert "make room" not in str(found)
