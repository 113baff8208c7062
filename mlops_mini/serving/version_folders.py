"""The numbered folders in a model's base path, and whether each can be loaded as a version.

Source: TensorFlow Serving's `FileSystemStoragePathSource`: only the name makes a version.
"""

from __future__ import annotations

import os
from pathlib import Path

# What a version folder holds: relative path, size and modification time of each file.
Snapshot = frozenset[tuple[str, int, int]]

_INT64_MAX = 2**63 - 1


def version_number(folder_name: str) -> int | None:
    """Read a folder's name as a version, as TensorFlow Serving does.

    >>> [version_number(name) for name in ("7", "007", "v3", "4.tmp", "1e3", "-1")]
    [7, 7, None, None, None, None]
    """
    digits = folder_name.strip().removeprefix("+")
    if not (digits.isascii() and digits.isdigit()) or int(digits) > _INT64_MAX:
        return None
    return int(digits)


def find(base_path: Path) -> dict[int, Path]:
    """List the version folders by number; if two have the same number, the last name counts.

    Raises:
        OSError: The base path is not there, or cannot be listed.
    """
    numbered = ((version_number(path.name), path) for path in sorted(base_path.iterdir()))
    return {number: path for number, path in numbered if number is not None}


def snapshot(folder: Path) -> Snapshot:
    """List the files in a version folder; empty if there are none, or none can be listed."""
    files = []
    for parent, _, names in os.walk(folder, followlinks=True):
        for path in (Path(parent, name) for name in names):
            try:
                stat = path.stat()
            except OSError:  # gone meanwhile, or a dead link: the next look will tell
                continue
            files.append((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns))
    return frozenset(files)


def problem(folder: Path) -> str:
    """Say why a version folder cannot be loaded; empty if it may be."""
    try:
        if not folder.exists():
            is_dead_link = folder.is_symlink()
            return (
                f"it is a link to {folder.readlink()}, which is not there" if is_dead_link else ""
            )
        if not folder.is_dir():
            return "it is a file, not a folder"
        is_empty = next(folder.iterdir(), None) is None
    except OSError as exc:
        return f"it cannot be read: {exc.strerror}"
    return "it is an empty folder" if is_empty else ""
