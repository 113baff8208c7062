"""Files that are whole or not there: write and rename, locks, checksums."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from mlops_mini.errors import AlreadyExistsError, DataIntegrityError, NotFoundError

CHECKSUMS = "checksums.txt"

_LOOK_S = 0.1
_POLL_S = 0.02

logger = logging.getLogger(__name__)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a hidden name to write to, and rename it once it is written.

    Args:
        path: The file; an older one is replaced, and stays if writing fails.

    Yields:
        A path beside it at which no file is yet.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def locked(file: Path, *, if_taken: str = "") -> Iterator[int]:
    """Hold the lock of a file, which falls with this process, however it dies.

    Args:
        file: Made if it is not there; what it holds stays.
        if_taken: What to say if another process holds it; without it, wait.

    Yields:
        The file's descriptor, to read and write.

    Raises:
        AlreadyExistsError: Another process holds it, and `if_taken` is given.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + _LOOK_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if if_taken else 0))
                break
            except BlockingIOError as exc:
                # Whoever only looks (`is_locked`) holds it for a moment.
                if time.monotonic() > deadline:
                    raise AlreadyExistsError(if_taken) from exc
                time.sleep(_POLL_S)
        yield descriptor
    finally:
        # Said aloud: a child forked meanwhile has the descriptor too, and would keep the lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def is_locked(file: Path) -> bool:
    """Tell whether another process holds the lock of a file, without being in its way."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, and for a moment: who wants it meanwhile asks again, as `locked` does.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def checked_path(folder: Path, name: str) -> Path:
    """Find a file of a data folder and make sure that it is the one the folder promises.

    A folder with `checksums.txt` (as `sha256sum` writes it) vouches for each file in it: one that
    is not listed is refused, for it may be half of an update. A folder without the list is taken as
    it is; its tables' columns and types are still checked when they are read. Hashing is done once
    per process, path, size and time of change.

    Args:
        folder: The data folder.
        name: The file's path inside it, with slashes.

    Returns:
        The file's path.

    Raises:
        NotFoundError: There is no such file.
        DataIntegrityError: Its checksum is another, or the list does not have it or is broken.
    """
    path, listing = folder / name, folder / CHECKSUMS
    if not path.is_file():
        # A folder of others may be in a checkout of theirs: nobody is told to reset that.
        way_out = (
            "get it with `git checkout -- data` or `python -m tools.rebuild_data`"
            if listing.is_file()
            else f"nor the list {CHECKSUMS}, so these are hardly the data of mlops_mini: name"
            " their folder by --data (folder=) or MLOPS_MINI_DATA"
        )
        raise NotFoundError(f"no file {name} in {folder}; {way_out}")
    if not listing.is_file():
        logger.info("not checked against a checksum, %s has no %s: %s", folder, CHECKSUMS, name)
        return path
    expected = read_checksums(listing).get(name)
    if expected is None:
        raise DataIntegrityError(
            f"{name} is not listed in {listing}; add it with `cd {folder} &&"
            f" sha256sum {name} >> {CHECKSUMS}`, or remove the list to load unchecked"
        )
    actual = file_sha256(path)
    if actual != expected:
        raise DataIntegrityError(
            f"{path} has SHA-256 {actual}, {CHECKSUMS} expects {expected}; get it back with"
            " `git checkout -- data` or `python -m tools.rebuild_data`"
        )
    return path


def file_sha256(path: Path) -> str:
    """Tell a file's SHA-256, 64 hex digits, hashing it again only if its size or time changed."""
    status = path.stat()
    return _hash(path.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _hash(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checksums(path: Path) -> dict[str, str]:
    """Read a list in the format of `sha256sum`.

    Args:
        path: The list.

    Returns:
        SHA-256 by file name.

    Raises:
        DataIntegrityError: A line is not a digest, two spaces (or a space and a star) and a name.
    """
    checksums: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition(" ")
        if len(digest) != 64 or name[:1] not in {" ", "*"} or not name[1:]:
            raise DataIntegrityError(
                f"{path} holds the line {line[:80]!r}, expected `SHA256  NAME`; make it anew with"
                " `git checkout -- data` or sha256sum"
            )
        checksums[name[1:]] = digest
    return checksums


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write the list that `checked_path` reads, sorted by name.

    Args:
        folder: The data folder; `sha256sum -c checksums.txt` there says the same.
        names: The files to vouch for, relative to the folder.
    """
    lines = [f"{file_sha256(folder / name)}  {name}\n" for name in sorted(names)]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")
