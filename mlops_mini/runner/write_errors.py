"""Why something could not be written, and what to do about it: each reason has its own way out."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from pathlib import Path

from mlops_mini.errors import (
    DataIntegrityError,
    FailedPreconditionError,
    InvalidArgumentError,
    MlopsMiniError,
    PermissionDeniedError,
    ResourceExhaustedError,
)

_KINDS: dict[type[MlopsMiniError], tuple[set[int], str]] = {
    ResourceExhaustedError: ({errno.ENOSPC, errno.EDQUOT, errno.EFBIG}, "make room there"),
    PermissionDeniedError: (
        {errno.EACCES, errno.EPERM, errno.EROFS},
        "allow this user to write there, or take another folder",
    ),
    InvalidArgumentError: (
        {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST},
        "take another folder, or a shorter name",
    ),
}
_LITTLE_BYTES = 1_000_000
_TOO_MANY = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM}
_OF_SQLITE = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
}


def explained(
    exc: OSError | sqlite3.DatabaseError, *, what: str, root: Path, then: str = ""
) -> MlopsMiniError:
    """Turn an error of the system or of SQLite into one of ours.

    Args:
        exc: What was raised.
        what: Who wanted to write, such as "run 'a'".
        root: The folder of all runs.
        then: What to do once the reason is gone, such as "resume it".

    >>> full = OSError(errno.ENOSPC, "No space left on device")
    >>> explained(full, what="run 'a'", root=Path("/r"), then="resume it")
    ResourceExhaustedError("run 'a' cannot write below /r: [Errno 28] No space left on device; \
make room there, then resume it")
    """
    then = f", then {then}" if then else ""
    begin = f"{what} cannot write below {root}: {exc}"
    if isinstance(exc, OSError):
        number = exc.errno
    else:
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return DataIntegrityError(
                f"{what} cannot read the records of runs below {root}: {exc}; put runs.sqlite back "
                "from a copy, or move it away with its runs"
            )
        number = _OF_SQLITE.get(code)
        # Of a file that it maps into memory SQLite only says that it could not be written.
        if code == sqlite3.SQLITE_IOERR and shutil.disk_usage(root).free < _LITTLE_BYTES:
            number = errno.ENOSPC
    for kind, (numbers, way_out) in _KINDS.items():
        if number in numbers:
            return kind(f"{begin}; {way_out}{then}")
    if number in _TOO_MANY:
        return ResourceExhaustedError(f"{begin}; take fewer workers (n_workers){then}")
    return FailedPreconditionError(f"{begin}; mend that{then}")
