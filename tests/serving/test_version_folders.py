"""What can be a version, and what is said of what cannot; with real files and rights."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlops_mini.serving import version_folders

NOBODY = 65534


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read everything: be somebody else meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_good_folder_has_no_problem(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    (tmp_path / "2").symlink_to(tmp_path / "1")

    assert version_folders.problem(tmp_path / "1") == ""
    assert version_folders.problem(tmp_path / "2") == ""
    assert version_folders.problem(tmp_path / "gone") == ""


def test_each_kind_of_bad_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").touch()
    (tmp_path / "3").symlink_to(tmp_path / "gone")
    (tmp_path / "4").symlink_to("4")

    assert version_folders.problem(tmp_path / "1") == "it is an empty folder"
    assert version_folders.problem(tmp_path / "2") == "it is a file, not a folder"
    gone = f"it is a link to {tmp_path / 'gone'}, which is not there"
    assert version_folders.problem(tmp_path / "3") == gone
    assert version_folders.problem(tmp_path / "4") == "it is a link to 4, which is not there"


@pytest.mark.parametrize("closed", ["", "1"])
def test_what_must_not_be_read_is_named(closed: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        (base / "1").mkdir()
        (base / "1" / "saved_model.pb").touch()
        (base / closed).chmod(0)
        try:
            with without_privileges():
                found = version_folders.problem(base / "1")
        finally:
            (base / closed).chmod(0o755)

    assert found == "it cannot be read: Permission denied"


def test_of_two_names_for_one_number_the_last_counts(tmp_path: Path) -> None:
    for name in ("7", "007", "v3", "8.tmp"):
        (tmp_path / name).mkdir()

    assert version_folders.find(tmp_path) == {7: tmp_path / "7"}
