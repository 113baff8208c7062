"""Publish a SavedModel as the next numbered version that a model server picks up.

A model server polls the model's folder and loads the highest number it finds, so a version must
appear whole or not at all, and a number must never mean two models. One small file beside the
versions sees to both: it holds the last number ever given, and the publisher at work holds its
lock. The lock falls with its process, so whatever unfinished copy the next publisher finds belongs
to a dead one.
"""

import errno
import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlops_mini.errors import DataIntegrityError, NotFoundError, ResourceExhaustedError

logger = logging.getLogger(__name__)

# Model servers ignore names that are not numbers.
_LAST_VERSION = ".last_version"
_UNFINISHED = ".publishing-version"
_BLOCK_BYTES = 4096
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedVersion:
    """A version of a model, as a model server sees it.

    Attributes:
        version: Its number, 0 to 2**63 - 1.
        path: Its folder.
    """

    version: int
    path: Path


def published_versions(model_folder: Path) -> list[PublishedVersion]:
    """List the versions of a model.

    Args:
        model_folder: Folder of the model's version folders; it may not exist yet.

    Returns:
        The versions, lowest first. Names are read as TensorFlow Serving reads them: `007` is 7, and
        where `7` is there too, it comes later and is the one that is served.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("10", "007", "v3", "1e3", ".publishing-11"):
    ...         Path(folder, name).mkdir()
    ...     [(found.version, found.path.name) for found in published_versions(Path(folder))]
    [(7, '007'), (10, '10')]
    """
    return [found for found in _numbered(model_folder) if found.path.is_dir()]


def latest_version(model_folder: Path) -> PublishedVersion:
    """Find the version that a model server would serve.

    Args:
        model_folder: Folder of the model's version folders.

    Returns:
        The highest version.

    Raises:
        NotFoundError: The folder is not there, or holds no version.
    """
    if not model_folder.is_dir():
        raise NotFoundError(f"no model folder {model_folder}: publish a model there first")
    versions = published_versions(model_folder)
    if not versions:
        there = sorted(path.name for path in model_folder.iterdir())
        raise NotFoundError(
            f"no versions in {model_folder}; it holds {there or 'nothing'}, and a version is a"
            " folder named by a number: publish a model there first"
        )
    return versions[-1]


def publish(export_folder: Path, model_folder: Path) -> PublishedVersion:
    """Copy a SavedModel to the next version of a model.

    The version appears by a rename, complete and on disk. Publishers of one model wait for each
    other; what a killed one left behind is removed.

    Args:
        export_folder: A SavedModel; it stays where it is.
        model_folder: Folder of the model's versions, on a file system that can lock and rename;
            made if it is not there.

    Returns:
        The new version. Its number is above all that were ever published here, deleted ones too.

    Raises:
        NotFoundError: `export_folder` is no SavedModel; nothing was written.
        ResourceExhaustedError: The disk is too full, or became so; no part of the version stays.
        DataIntegrityError: The file with the last number holds something else.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export, model = Path(folder, "export"), Path(folder, "delays")
    ...     export.mkdir()
    ...     _ = (export / "saved_model.pb").write_bytes(b"...")
    ...     [publish(export, model).version for _ in range(2)]
    [1, 2]
    """
    if not (export_folder / "saved_model.pb").is_file():
        raise NotFoundError(
            f"no SavedModel to publish in {export_folder}: it has no saved_model.pb; "
            "write one there first, for example with training.export"
        )
    # Disks give whole blocks, to folders too.
    n_blocks = sum(-(-path.stat().st_size // _BLOCK_BYTES) for path in export_folder.rglob("*"))
    n_bytes = n_blocks * _BLOCK_BYTES
    model_folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(model_folder / _LAST_VERSION) as last_version:
            _remove_unfinished(model_folder)
            _check_room(model_folder, n_bytes)
            version = _next_version(last_version, model_folder)
            path = model_folder / str(version)
            try:
                _copy(export_folder, model_folder / _UNFINISHED)
                (model_folder / _UNFINISHED).rename(path)
            finally:
                shutil.rmtree(model_folder / _UNFINISHED, ignore_errors=True)
            _sync(model_folder)
    except OSError as exc:
        if exc.errno not in _NO_ROOM:
            raise
        raise ResourceExhaustedError(
            f"publishing {export_folder} needs {n_bytes} bytes in {model_folder}, where "
            f"{shutil.disk_usage(model_folder).free} are free ({exc.strerror}): make room there, "
            "for example by deleting old versions"
        ) from exc
    logger.info("published: version=%d path=%s bytes=%d", version, path, n_bytes)
    return PublishedVersion(version=version, path=path)


def _numbered(model_folder: Path) -> list[PublishedVersion]:
    """List all that a model server takes for a version, a plain file called `6` included."""
    entries = model_folder.iterdir() if model_folder.is_dir() else ()
    found = [
        PublishedVersion(version=int(name[1]), path=path)
        for path in entries
        if (name := re.fullmatch(r"\s*\+?(\d+)\s*", path.name, re.ASCII))
    ]
    in_order = sorted(found, key=lambda found: (found.version, found.path.name))
    return [found for found in in_order if found.version < 2**63]


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold the lock of a file, made if it is not there, and give its descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        # Said aloud: a child forked meanwhile has the descriptor too, and would keep the lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _remove_unfinished(model_folder: Path) -> None:
    """Remove a dead publisher's copy; a living one would hold the lock that we hold."""
    if (model_folder / _UNFINISHED).exists():
        logger.warning("removed what a killed publisher left in %s", model_folder)
        shutil.rmtree(model_folder / _UNFINISHED)


def _check_room(folder: Path, n_bytes: int) -> None:
    """Fail before the copy as the disk would in its midst."""
    if shutil.disk_usage(folder).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _next_version(last_version: int, model_folder: Path) -> int:
    """Take the next number and write it down, before anything bears it."""
    text = os.pread(last_version, 64, 0).decode(errors="replace").strip()
    if text and not re.fullmatch(r"\d+", text, re.ASCII):
        raise DataIntegrityError(
            f"{model_folder / _LAST_VERSION} must hold the last version number, got {text!r}: "
            "write the highest ever published into it"
        )
    version = max([int(text or 0), *(found.version for found in _numbered(model_folder))]) + 1
    # In place, as numbers only grow: one write of a few bytes is there or not.
    os.pwrite(last_version, f"{version}\n".encode(), 0)
    os.fsync(last_version)
    return version


def _copy(source: Path, target: Path) -> None:
    """Copy a folder and wait until it is on disk."""
    target.mkdir()
    for entry in source.iterdir():
        if entry.is_dir():
            _copy(entry, target / entry.name)
        else:
            shutil.copyfile(entry, target / entry.name)
            _sync(target / entry.name)
    _sync(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
