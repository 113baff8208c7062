"""Whether data is what it was: checksums of files, and digests of contents."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_mini.errors import DataIntegrityError, InvalidArgumentError, NotFoundError

CHECKSUMS = "checksums.txt"

logger = logging.getLogger(__name__)


def contents_digest(columns: pd.DataFrame | Mapping[str, NDArray[np.generic]]) -> str:
    """Digest what a table or a set of arrays says, however it is stored.

    Column names, their order, dtypes, shapes and every value count, and so does the order of rows.
    File format, compression, library versions and a frame's index do not. Missing is one thing: NaN
    and None are equal, and so are NaNs of different bits; -0.0 and 0.0 differ.

    Args:
        columns: A frame, or named arrays of numbers, strings or instants.

    Returns:
        SHA-256, 64 hex digits.

    Raises:
        InvalidArgumentError: A column holds other things than numbers, strings or instants.

    >>> table = pd.DataFrame({"carrier": ["UA", None], "delay_min": [3.0, float("nan")]})
    >>> contents_digest(table)[:12]
    'ad7d8d805359'
    >>> contents_digest(table) == contents_digest(table.set_index(pd.Index(["a", "b"])))
    True
    >>> contents_digest(table) == contents_digest(table[::-1])
    False
    """
    digest = hashlib.sha256()
    for name, values in columns.items():
        dtype, shape, data = _encode(str(name), values)
        digest.update(json.dumps([name, dtype, shape, len(data)]).encode())
        digest.update(data)
    return digest.hexdigest()


def _encode(name: str, values: pd.Series | NDArray[np.generic]) -> tuple[str, list[int], bytes]:
    """Tell dtype, shape and little-endian bytes of a column."""
    if isinstance(values, pd.Series) and isinstance(values.dtype, pd.DatetimeTZDtype):
        values = values.dt.tz_convert(None)
    array = np.asarray(values)
    shape = list(array.shape)
    if array.dtype.kind in "OUT":
        missing = pd.isna(array)
        texts = [None if gone else text for text, gone in zip(array, missing, strict=True)]
        if not all(text is None or isinstance(text, str) for text in texts):
            raise InvalidArgumentError(
                f"column {name!r} holds other objects than strings; convert it to numbers, strings"
                " or instants for a digest"
            )
        return "str", shape, json.dumps(texts).encode()
    if array.dtype.kind == "M":
        return "instant", shape, array.astype("datetime64[us]").astype("<i8").tobytes()
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), np.asarray(np.nan, array.dtype), array)
    return array.dtype.name, shape, array.astype(array.dtype.newbyteorder("<")).tobytes()


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
        raise NotFoundError(
            f"no file {name} in {folder}; get it with `git checkout -- data`"
            " or `python -m tools.rebuild_data`"
        )
    if not listing.is_file():
        logger.info("not checked against a checksum, %s has no %s: %s", folder, CHECKSUMS, name)
        return path
    expected = read_checksums(listing).get(name)
    if expected is None:
        raise DataIntegrityError(
            f"{name} is not listed in {listing}; add it with `cd {folder} &&"
            f" sha256sum {name} >> {CHECKSUMS}`, or remove the list to load unchecked"
        )
    found = file_sha256(path)
    if found != expected:
        raise DataIntegrityError(
            f"{path} has SHA-256 {found}, {CHECKSUMS} expects {expected}; get it back with"
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
