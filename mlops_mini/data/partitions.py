"""Partition files arrive, whole or not at all.

Senders put files into `inbox/` of a folder; `receive` moves what is complete to
`arrived/NAME/SHA256.parquet`, where nothing is ever changed again. A file is complete once its
manifest is there and agrees with it, so an event of the file system is only a hint to look, and
looking twice changes nothing. Receivers wait for each other, and both parts must be on one file
system, for files move by link and rename.

Senders wait for nobody, so what a receiver removes from the inbox must be what it has read, not
what has that name by now. It renames a file to a hidden name, looks at it there, and removes it or
gives it back. What a killed receiver has left under a hidden name, the next one gives back first.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_mini import files
from mlops_mini.data import periods
from mlops_mini.data.periods import Calendar, Period
from mlops_mini.errors import AlreadyExistsError, DataIntegrityError, InvalidArgumentError

INBOX, ARRIVED = "inbox", "arrived"
_MANIFEST = ".manifest.json"
_TAKEN = ".taken"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a sender says about a file.

    Attributes:
        name: The file's name, such as `readings-2026-03.parquet`.
        period: The month or week of its rows, such as `2026-03`.
        n_rows: How many rows it has, none included.
        sha256: SHA-256 of its bytes, 64 hex digits.
    """

    name: str
    period: str
    n_rows: int
    sha256: str

    def __post_init__(self) -> None:
        is_name = re.fullmatch(r"\w[\w.-]*\.parquet", self.name, re.ASCII)
        is_digest = re.fullmatch(r"[0-9a-f]{64}", self.sha256)
        if not is_name or not is_digest or self.n_rows < 0:
            raise InvalidArgumentError(
                f"no manifest: name {self.name!r}, {self.n_rows} rows, SHA-256 {self.sha256!r};"
                " expected a name like readings-2026-03.parquet, 0 or more rows and 64 hex digits"
            )
        Calendar().period(self.period)

    @property
    def key(self) -> str:
        """Name and digest: another for every change of the file."""
        return f"{self.name}@{self.sha256}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition(Manifest):
    """A file that has arrived.

    Attributes:
        arrival: 1 for the first file of this name, 2 for the first that differs from it, and so on.
        arrived_at: When, UTC.
        path: The file; its bytes are those of the digest.
    """

    arrival: int
    arrived_at: datetime
    path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """The result of one look into the inbox.

    Attributes:
        new: Partitions under a name that was not there.
        changed: Partitions under a name that was there with other bytes; these are kept too.
        duplicates: What was there already, byte by byte; nothing happened.
        waiting: Files that have not arrived, and why, by name.
        late: Those of `new` and `changed` whose period is before one that was there: what was
            computed from its period, and later ones, is to be computed again.
    """

    new: tuple[Partition, ...] = ()
    changed: tuple[Partition, ...] = ()
    duplicates: tuple[Manifest, ...] = ()
    waiting: tuple[tuple[str, str], ...] = ()
    late: tuple[Partition, ...] = ()


def send(file: Path, folder: Path, *, name: str, period: str) -> Manifest:
    """Put a file into the inbox, as a sender should: the file first, its manifest last.

    Args:
        file: A parquet file; it stays where it is.
        folder: The folder with the inbox; made if it is not there.
        name: Name to send it under; a damaged or half-written file of that name is replaced.
        period: Month or week of its rows.

    Returns:
        The manifest, as written beside it.

    Raises:
        DataIntegrityError: It is no parquet file.
        InvalidArgumentError: The name is none, or the period.
        AlreadyExistsError: A complete file of that name still waits, and would be lost.
    """
    manifest = Manifest(
        name=name,
        period=period,
        n_rows=_count_rows(file),
        sha256=files.file_sha256(file),
    )
    inbox = folder / INBOX
    inbox.mkdir(parents=True, exist_ok=True)
    manifest_file = inbox / f"{name}{_MANIFEST}"
    if manifest_file.is_file() and _is_complete(inbox / name, manifest_file):
        raise AlreadyExistsError(
            f"{name} still waits in {inbox}: receive it before sending another"
        )
    manifest_file.unlink(missing_ok=True)
    with files.whole_file(inbox / name) as unfinished:
        shutil.copyfile(file, unfinished)
    _write_json(manifest_file, _to_json(manifest))
    return manifest


def receive(folder: Path, *, now: datetime) -> Receipt:
    """Look into the inbox and move what is complete to where it stays.

    If the process dies, the next look ends what this one began. Ask `arrived`, not the receipt,
    what is there: a receipt may be lost with its process.

    Args:
        folder: The folder with the inbox; it may have none yet.
        now: The time to write down, with a time zone.

    Returns:
        What arrived, came again, or waits.

    Raises:
        InvalidArgumentError: `now` has no time zone.

    >>> import tempfile
    >>> import pandas as pd
    >>> with tempfile.TemporaryDirectory() as name:
    ...     folder, now = Path(name), datetime(2026, 4, 1, 12, tzinfo=UTC)
    ...     march = folder / "march.parquet"
    ...     pd.DataFrame({"temp_c": [21.0, 22.5]}).to_parquet(march)
    ...     _ = send(march, folder, name="readings-2026-03.parquet", period="2026-03")
    ...     first = receive(folder, now=now)
    ...     _ = send(march, folder, name="readings-2026-03.parquet", period="2026-03")
    ...     again = receive(folder, now=now)
    ...     len(first.new), first.new[0].n_rows, len(again.new), len(again.duplicates)
    (1, 2, 0, 1)
    """
    if now.tzinfo is None:
        raise InvalidArgumentError(f"now is {now}, without a time zone: give it one, such as UTC")
    inbox, arrived_at = folder / INBOX, now.astimezone(UTC).isoformat()
    if not inbox.is_dir():
        return Receipt()
    by_kind: dict[str, list[Any]] = {"new": [], "changed": [], "duplicates": [], "waiting": []}
    with files.locked(folder / ".receiving"):
        for taken in inbox.glob(f".*{_TAKEN}"):
            _give_back(taken)
        there = arrived(folder)
        visible = [path.name for path in inbox.iterdir() if not path.name.startswith(".")]
        for name in sorted({name.removesuffix(_MANIFEST) for name in visible}):
            try:
                kind, manifest = _receive(name, folder, arrived_at)
            except (DataIntegrityError, InvalidArgumentError) as exc:
                by_kind["waiting"].append((name, str(exc)))
                continue
            by_kind[kind].append(manifest)
            logger.info("arrived: %s rows=%d as=%s", name, manifest.n_rows, kind)
    late = [
        partition
        for partition in (*by_kind["new"], *by_kind["changed"])
        if there and _period(partition) < _period(there[-1])  # sorted by period
    ]
    return Receipt(late=tuple(late), **{kind: tuple(each) for kind, each in by_kind.items()})


def arrived(folder: Path) -> list[Partition]:
    """List all partitions that ever arrived, of a changed one each state.

    Args:
        folder: The folder that was received into.

    Returns:
        Sorted by period, then by name, then by arrival: of one name the last is the current one.
    """
    partitions = [_read_partition(path) for path in (folder / ARRIVED).glob("*/*.json")]
    return sorted(
        partitions,
        key=lambda partition: (
            _period(partition),
            partition.name,
            partition.arrival,
        ),
    )


def missing_periods(partitions: Iterable[Manifest], *, until: str = "") -> list[str]:
    """List the gaps between the first and the last period.

    Args:
        partitions: Of one table, all months or all weeks, in any order.
        until: The last period that should be there by now; without it, the last one that is.

    Returns:
        Periods of which nothing is there, in order; they're never made up.

    >>> def manifest(month: str) -> Manifest:
    ...     name = f"readings-{month}.parquet"
    ...     return Manifest(name=name, period=month, n_rows=1, sha256="0" * 64)
    >>> missing_periods([manifest("2026-05"), manifest("2026-02")])
    ['2026-03', '2026-04']
    >>> missing_periods([manifest("2026-05")], until="2026-07")
    ['2026-06', '2026-07']
    """
    there = sorted({_period(partition) for partition in partitions})
    gaps = [
        str(period)
        for before, after in pairwise(there)
        for period in periods.iterate(before.next(), after.previous())
    ]
    if until and there:
        gaps += map(str, periods.iterate(there[-1].next(), Calendar().period(until)))
    return gaps


def _period(partition: Manifest) -> Period:
    """Tell the period; periods come in the same order in any zone."""
    return Calendar().period(partition.period)


def _receive(name: str, folder: Path, arrived_at: str) -> tuple[str, Manifest]:
    """Move one file to where it stays, and tell which field of a receipt it belongs to."""
    source, manifest_file = folder / INBOX / name, folder / INBOX / f"{name}{_MANIFEST}"
    with _opened(manifest_file) as stream:  # until the end, or another file could get its number
        manifest = _read_manifest(stream, manifest_file, name)
        read = _identity(os.fstat(stream.fileno()))
        stem = name.removesuffix(".parquet")
        target = folder / ARRIVED / stem / f"{manifest.sha256}.parquet"
        same_name = [other for other in arrived(folder) if other.name == name]
        known = [other for other in same_name if other.key == manifest.key]
        if source.is_file() or not known:  # else a receiver died while it tidied up
            _take(source, target, manifest)
        kind, received = "duplicates", manifest
        if not known:
            entry = target.with_suffix(".json")
            extra = {"arrival": len(same_name) + 1, "arrived_at": arrived_at}
            _write_json(entry, _to_json(manifest) | extra)
            kind, received = "changed" if same_name else "new", _read_partition(entry)
        # In this order: a manifest that stays alone tells the next receiver what is left to do.
        _remove(source, lambda path: path.samefile(target))
        _remove(manifest_file, lambda path: _identity(path.stat()) == read)
    return kind, received


def _remove(path: Path, is_read: Callable[[Path], bool]) -> None:
    """Remove a file from the inbox, unless its sender has put another there since it was read."""
    taken = path.with_name(f".{path.name}{_TAKEN}")
    try:
        if not is_read(path):
            return
        path.rename(taken)
    except FileNotFoundError:
        return
    if is_read(taken):
        taken.unlink()
    else:
        _give_back(taken)


def _give_back(taken: Path) -> None:
    """Bring a file back into the inbox, unless its sender has put another there meanwhile."""
    with suppress(FileExistsError):
        taken.with_name(taken.name[1:].removesuffix(_TAKEN)).hardlink_to(taken)
    taken.unlink()


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Tell what changes when a file is replaced, or written over in place."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _take(source: Path, target: Path, manifest: Manifest) -> None:
    """Bring a file to its place if it is what its manifest says; it stays in the inbox, too."""
    if not source.is_file():
        raise DataIntegrityError(f"{manifest.name} has a manifest, but is not there: send it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.whole_file(target) as checked:
        checked.hardlink_to(source)  # if its sender replaces it now, this stays the file we check
        _check(checked, manifest)


def _check(path: Path, manifest: Manifest) -> None:
    sha256 = files.file_sha256(path)
    if sha256 != manifest.sha256:
        raise DataIntegrityError(
            f"{manifest.name} has SHA-256 {sha256}, its manifest says {manifest.sha256}: wait until"
            " it is written, or send it again"
        )
    n_rows = _count_rows(path)
    if n_rows != manifest.n_rows:
        raise DataIntegrityError(
            f"{manifest.name} has {n_rows} rows, its manifest says {manifest.n_rows}: send it again"
        )


def _is_complete(path: Path, manifest_file: Path) -> bool:
    try:
        with _opened(manifest_file) as stream:
            _check(path, _read_manifest(stream, manifest_file, path.name))
    except (DataIntegrityError, InvalidArgumentError, FileNotFoundError):
        return False
    return True


def _count_rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as exc:
        raise DataIntegrityError(f"{path} is not a readable parquet file: send another") from exc


def _to_json(manifest: Manifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "period": manifest.period,
        "rows": manifest.n_rows,
        "sha256": manifest.sha256,
    }


@contextmanager
def _opened(manifest_file: Path) -> Iterator[IO[bytes]]:
    try:
        stream = manifest_file.open("rb")
    except FileNotFoundError as exc:
        raise DataIntegrityError(
            f"{manifest_file.name} is not there: the file is not complete"
        ) from exc
    with stream:
        yield stream


def _read_manifest(stream: IO[bytes], path: Path, name: str) -> Manifest:
    manifest = Manifest(**_parse_fields(stream.read(), path))
    if manifest.name != name:
        raise DataIntegrityError(
            f"{path.name} is the manifest of {manifest.name!r}: rename it, or write it again"
        )
    return manifest


def _read_partition(path: Path) -> Partition:
    content = path.read_bytes()
    stored = json.loads(content)
    return Partition(
        **_parse_fields(content, path),
        arrival=stored["arrival"],
        arrived_at=datetime.fromisoformat(stored["arrived_at"]),
        path=path.with_suffix(".parquet"),
    )


def _parse_fields(content: bytes, path: Path) -> dict[str, Any]:
    """Parse a manifest, its fields named as `Manifest` does."""
    try:
        stored = json.loads(content.decode("utf-8"))
        return {
            "name": str(stored["name"]),
            "period": str(stored["period"]),
            "n_rows": int(stored["rows"]),
            "sha256": str(stored["sha256"]),
        }
    except (ValueError, KeyError, TypeError) as exc:
        raise DataIntegrityError(
            f"{path.name} is no manifest ({exc!r}), expected JSON with name, period, rows and"
            " sha256: write it again"
        ) from exc


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with files.whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
