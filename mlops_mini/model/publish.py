"""Publish a SavedModel as the next numbered version that a model server picks up.

A model server polls the model's folder and loads the highest number it finds, so a version must
appear whole or not at all, and a number must never mean two models. One small file beside the
versions sees to both: it holds the last number ever given, and the publisher at work holds its
lock. The lock ends with its process, so an unfinished copy that the next publisher comes across was
left by a dead one.
"""

import errno
import json
import logging
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mlops_mini import files
from mlops_mini.data.periods import Calendar
from mlops_mini.errors import (
    DataIntegrityError,
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
)
from mlops_mini.model.digest import model_digest

logger = logging.getLogger(__name__)

# Model servers ignore names that are not numbers.
_LAST_VERSION = ".last_version"
_UNFINISHED = ".publishing-version"
# In a folder that model servers do not read.
_PUBLICATION = "assets.extra/publication.json"
_CHECKSUMS = "assets.extra/checksums.txt"
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """Where a version comes from; a file in the version's folder keeps it.

    Attributes:
        run_id: The pipeline run that published it.
        model_digest: Its `digest.model_digest`.
        test_period: The month or week at whose end it was judged.
        train_periods: The months or weeks that it was trained on.
        data_digest: Digest of the files that hold all these periods.
        began: When the run began, ISO 8601; empty if that isn't known.
        approved_by: Who let it through although its verdict was "undecided"; empty if nobody had
            to.
        holdout_days: How many days at the end of all periods it has not learned from: those that
            judged it, if a person let the candidate through just as it was judged.
        alias: What it is published as: the `champion`, meant to serve at once, or a `challenger`,
            which a release has to make the champion first.
    """

    run_id: str
    model_digest: str
    test_period: str
    train_periods: tuple[str, ...]
    data_digest: str
    began: str = ""
    approved_by: str = ""
    holdout_days: int = 0
    alias: Literal["champion", "challenger"] = "champion"

    @classmethod
    def read(cls, version_folder: Path) -> "Publication | None":
        """Read the publication of a version.

        Args:
            version_folder: The version's folder.

        Returns:
            What `publish` was given; None if it was given none.

        Raises:
            DataIntegrityError: The file holds something else.
        """
        try:
            fields = json.loads((version_folder / _PUBLICATION).read_bytes())
            return cls(**fields | {"train_periods": tuple(fields["train_periods"])})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as exc:
            raise DataIntegrityError(
                f"{version_folder / _PUBLICATION} does not tell where the version comes from"
                f" ({exc!r}): remove the version and publish its model again"
            ) from exc


def published_versions(model_folder: Path) -> list[PublishedVersion]:
    """List the versions of a model.

    Args:
        model_folder: Folder of the model's version folders; it may not exist yet.

    Returns:
        The versions, lowest first. Names are read as TensorFlow Serving reads them: `007` is 7. If
        `7` is there too, it comes later and is the one that's served.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("10", "007", "v3", "1e3", ".publishing-11"):
    ...         Path(folder, name).mkdir()
    ...     [(version.version, version.path.name) for version in published_versions(Path(folder))]
    [(7, '007'), (10, '10')]
    """
    return [version for version in _numbered(model_folder) if version.path.is_dir()]


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
        names = sorted(path.name for path in model_folder.iterdir())
        raise NotFoundError(
            f"no versions in {model_folder}; it holds {names or 'nothing'}, and a version is a"
            " folder named by a number: publish a model there first"
        )
    return versions[-1]


def publish(
    export_folder: Path, model_folder: Path, *, publication: Publication | None = None
) -> PublishedVersion:
    """Copy a SavedModel to the next version of a model.

    The version appears by a rename, complete and on disk. Publishers of one model wait for each
    other; what a killed one left behind is removed.

    With a publication, doing it again changes nothing and returns the version that this run has
    published. The same holds for a version with the same digest, if it's the newest one or was
    judged on the same period: a model that was trained again bit by bit is nothing new to a server.

    Args:
        export_folder: A SavedModel; it stays where it is.
        model_folder: Folder of the model's versions, on a file system that can lock and rename;
            made if it isn't there.
        publication: Where the model comes from, to be kept in the version's folder.

    Returns:
        The version. A new one's number is above all that were ever published here, even deleted
        ones.

    Raises:
        NotFoundError: `export_folder` is no SavedModel; nothing was written.
        FailedPreconditionError: The version that's served was judged on a later period, and the new
            one would take its place; nothing was written.
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
        with files.locked(model_folder / _LAST_VERSION) as last_version:
            _remove_copy(model_folder)
            if publication and (earlier := _published_before(publication, model_folder)):
                logger.info("published before: version=%d path=%s", earlier.version, earlier.path)
                return earlier
            if publication:
                _check_is_no_older(publication, model_folder)
            _check_room(model_folder, n_bytes)
            version = _next_version(last_version, model_folder)
            path = model_folder / str(version)
            try:
                _copy(export_folder, model_folder / _UNFINISHED)
                if publication:
                    _write(publication, model_folder / _UNFINISHED)
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


def write_verdict(
    verdicts_folder: Path, *, run_id: str, state: str, error: str, model_folder: Path
) -> Path:
    """Write down how a run has ended. Doing it again replaces the file.

    Args:
        verdicts_folder: Receives `RUN_ID.json`, whole or not at all; made if it isn't there.
        run_id: The run.
        state: Such as SUCCEEDED or FAILED.
        error: What went wrong, empty if nothing did.
        model_folder: Folder of the model's versions; the one that this run published is named.

    Returns:
        The file: `run_id`, `state`, `error`, and `version`, null if the run published none.

    Raises:
        DataIntegrityError: A version doesn't tell where it comes from.
    """
    published = _by_run(model_folder).get(run_id)
    record = {
        "run_id": run_id,
        "state": state,
        "error": error,
        "version": published.version if published else None,
    }
    verdicts_folder.mkdir(parents=True, exist_ok=True)
    path = verdicts_folder / f"{run_id}.json"
    with files.whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(record, indent=2) + "\n")
    return path


def changed_files(version_folder: Path) -> dict[str, str]:
    """Compare a version's files with the checksums that were written when it was published.

    Args:
        version_folder: A version that was published with a publication. The list lies beside that,
            as `assets.extra/checksums.txt`, and `sha256sum -c` reads it too.

    Returns:
        `changed`, `missing` or `added`, by the name of the file; empty if all are as they were.

    Raises:
        NotFoundError: The version has no such list.
        DataIntegrityError: The list holds something else.
    """
    if not (version_folder / _CHECKSUMS).is_file():
        raise NotFoundError(
            f"{version_folder} has no {_CHECKSUMS}, so nothing tells whether its files were edited:"
            " publish its model again"
        )
    expected = files.read_checksums(version_folder / _CHECKSUMS)
    present = {_name_in(version_folder, path) for path in _files_in(version_folder)}
    changed = {
        name: "changed" if name in present else "missing"
        for name, sha256 in expected.items()
        if name not in present or files.file_sha256(version_folder / name) != sha256
    }
    added = dict.fromkeys(sorted(present - expected.keys() - {_CHECKSUMS}), "added")
    return changed | added


def remove_unfinished(model_folder: Path) -> bool:
    """Remove what a killed publisher has left of its copy, and tell whether there was any."""
    if not model_folder.is_dir():
        return False
    with files.locked(model_folder / _LAST_VERSION):
        return _remove_copy(model_folder)


def _by_run(model_folder: Path) -> dict[str, PublishedVersion]:
    """Find the versions that tell which run published them."""
    return {
        publication.run_id: version
        for version in published_versions(model_folder)
        if (publication := Publication.read(version.path))
    }


def _published_before(publication: Publication, model_folder: Path) -> PublishedVersion | None:
    """Find the version that this run published, or one that makes another superfluous."""
    versions = published_versions(model_folder)
    own = _by_run(model_folder).get(publication.run_id)
    if own or not versions:
        return own
    for version in reversed(versions):
        earlier = Publication.read(version.path)
        is_candidate = version == versions[-1] or (
            earlier is not None and earlier.test_period == publication.test_period
        )
        if is_candidate and _has_digest(publication.model_digest, version.path, earlier):
            return version
    return None


def _check_is_no_older(publication: Publication, model_folder: Path) -> None:
    """Refuse a version that would be served in place of one judged on a later period."""
    for newest in published_versions(model_folder)[-1:]:
        served = Publication.read(newest.path)
        calendar = Calendar()  # periods come in the same order in any zone
        if served and calendar.period(publication.test_period) < calendar.period(
            served.test_period
        ):
            raise FailedPreconditionError(
                f"a model judged on {publication.test_period} would be served in place of version "
                f"{newest.version} in {model_folder}, judged later, on {served.test_period}: judge "
                f"it on {served.test_period} or later too, or first remove the versions judged "
                f"after {publication.test_period}"
            )


def _has_digest(digest: str, version_folder: Path, publication: Publication | None) -> bool:
    if publication:
        return publication.model_digest == digest
    try:
        return model_digest(version_folder) == digest
    except (NotFoundError, DataIntegrityError):
        return False  # whatever it is, it isn't this model


def _write(publication: Publication, folder: Path) -> None:
    """Write a publication and the checksums of all files, and wait until they're on disk."""
    path, listing = folder / _PUBLICATION, folder / _CHECKSUMS
    path.parent.mkdir(exist_ok=True)
    listing.unlink(missing_ok=True)  # of the version that an export was copied from
    path.write_text(json.dumps(asdict(publication), indent=2) + "\n")
    lines = [f"{files.file_sha256(each)}  {_name_in(folder, each)}\n" for each in _files_in(folder)]
    listing.write_text("".join(lines))
    for file_or_folder in (path, listing, path.parent, folder):
        _sync(file_or_folder)


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _name_in(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _numbered(model_folder: Path) -> list[PublishedVersion]:
    """List all that a model server takes for a version, a plain file called `6` included."""
    entries = model_folder.iterdir() if model_folder.is_dir() else ()
    versions = [
        PublishedVersion(version=int(name[1]), path=path)
        for path in entries
        if (name := re.fullmatch(r"\s*\+?(\d+)\s*", path.name, re.ASCII))
    ]
    in_order = sorted(versions, key=lambda version: (version.version, version.path.name))
    return [version for version in in_order if version.version < 2**63]


def _remove_copy(model_folder: Path) -> bool:
    """Remove a dead publisher's copy; a living one would hold the lock that we hold."""
    is_there = (model_folder / _UNFINISHED).exists()
    if is_there:
        logger.warning("removed what a killed publisher left in %s", model_folder)
        shutil.rmtree(model_folder / _UNFINISHED)
    return is_there


def _check_room(folder: Path, n_bytes: int) -> None:
    """Fail before the copy with the error that the disk would give halfway."""
    if shutil.disk_usage(folder).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _next_version(last_version: int, model_folder: Path) -> int:
    """Take the next number and write it down, before a folder has it as its name."""
    text = os.pread(last_version, 64, 0).decode(errors="replace").strip()
    if text and not re.fullmatch(r"\d+", text, re.ASCII):
        raise DataIntegrityError(
            f"{model_folder / _LAST_VERSION} must hold the last version number, got {text!r}: "
            "write the highest ever published into it"
        )
    numbers = (version.version for version in _numbered(model_folder))
    next_version = max([int(text or 0), *numbers]) + 1
    # In place, as numbers only grow: one write of a few bytes is there or not.
    os.pwrite(last_version, f"{next_version}\n".encode(), 0)
    os.fsync(last_version)
    return next_version


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
