"""Which versions of a model are served: found on disk, loaded, swapped without a gap, unloaded.

`tick` looks at the model's folder once and does what is to be done; a thread of the server calls it
again and again. The rules:

- A version is a subfolder whose whole name reads as an integer. The highest one is wanted.
- A version is not touched before two looks in a row find the same, non-empty set of files in it: a
  copy that is still under way is never loaded.
- A new version is loaded before the old one is unloaded, and an unload waits for the requests that
  still run on it.
- A version that fails to load takes nobody down: the next lower one is wanted instead, and the
  failed one is tried again once its files change.
- A missing model folder changes nothing (it may be a network share); an empty one unloads all.

Source: TensorFlow Serving's architecture, https://www.tensorflow.org/tfx/serving/architecture
"""

from __future__ import annotations

import enum
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from mlops_mini.errors import MlopsMiniError, NotFoundError
from mlops_mini.serving.servables import Servable

logger = logging.getLogger(__name__)

Load = Callable[[Path, int], Servable]
# What a version folder holds: relative path, size and modification time of each file.
Snapshot = frozenset[tuple[str, int, int]]

_INT64_MAX = 2**63 - 1


class State(enum.IntEnum):
    """States of a version, numbered as in get_model_status.proto."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionStatus:
    """What is known of one version.

    Attributes:
        version: Its number.
        state: Where it is between START and END.
        error_code: Canonical code of why it ended; 0 if nothing went wrong.
        error_message: The words for it.
    """

    version: int
    state: State
    error_code: int = 0
    error_message: str = ""


@dataclass(slots=True)
class _Version:
    number: int
    state: State = State.START
    error: MlopsMiniError | None = None
    servable: Servable | None = None
    n_running: int = 0
    failed_snapshot: Snapshot | None = None


@dataclass(slots=True)
class _Look:
    """The version folders of one look at the disk, by number."""

    folders: dict[int, Path] = field(default_factory=dict)
    snapshots: dict[int, Snapshot] = field(default_factory=dict)


class ModelLifecycle:
    """The versions of one model.

    All methods may be called from any thread.
    """

    def __init__(self, *, name: str, base_path: Path, load: Load) -> None:
        """Describe the model; nothing is read before the first `tick`.

        Args:
            name: Name that requests use.
            base_path: Folder with the numbered version folders.
            load: Makes a servable of a version folder and its number.
        """
        self.name = name
        self._base_path = base_path
        self._load = load
        self._versions: dict[int, _Version] = {}
        self._last_look = _Look()
        self._last_warning = ""
        self._changed = threading.Condition()
        self._changing = threading.Lock()  # held by a whole tick or close: they exclude each other

    @property
    def is_waiting(self) -> bool:
        """True while nothing is served and no version has failed: the next look should be soon."""
        with self._changed:
            states = [version.state for version in self._versions.values()]
        return State.AVAILABLE not in states and State.END not in states

    def tick(self) -> None:
        """Look at the folder once, then load and unload until that look is satisfied."""
        with self._changing:
            look = self._look()
            if look is not None:
                self._satisfy(look)

    def _satisfy(self, look: _Look) -> None:
        settled = {
            number
            for number, snapshot in look.snapshots.items()
            if snapshot and snapshot == self._last_look.snapshots.get(number)
        }
        self._last_look = look
        for number in sorted(look.folders, reverse=True):
            if self._is_available(number) or (
                number in settled and self._try_load(number, look.folders[number], look)
            ):
                self._unload_others(keep=number)
                return
        if not look.folders:
            self._unload_others(keep=None)

    @contextmanager
    def acquire(self, version: int | None = None) -> Iterator[Servable]:
        """Hold a version for one request: it is not unloaded before the `with` ends.

        Args:
            version: Its number; None for the highest one available.

        Raises:
            NotFoundError: That version, or any, is not available now.
        """
        with self._changed:
            available = [v for v in self._versions.values() if v.state == State.AVAILABLE]
            wanted = [v for v in available if version is None or v.number == version]
            if not wanted:
                raise not_served(self.name, version)
            held = max(wanted, key=lambda v: v.number)
            held.n_running += 1
            servable = cast("Servable", held.servable)  # an available version has one
        try:
            yield servable
        finally:
            with self._changed:
                held.n_running -= 1
                self._changed.notify_all()

    @property
    def n_running(self) -> int:
        """Requests that hold a version now."""
        with self._changed:
            return sum(version.n_running for version in self._versions.values())

    def statuses(self) -> list[VersionStatus]:
        """List every version ever seen, highest first."""
        with self._changed:
            known = sorted(self._versions.values(), key=lambda v: v.number, reverse=True)
            return [
                VersionStatus(
                    version=v.number,
                    state=v.state,
                    error_code=v.error.code if v.error else 0,
                    error_message=str(v.error) if v.error else "",
                )
                for v in known
            ]

    def close(self) -> None:
        """Unload everything, once the requests that run have ended."""
        with self._changing:
            self._unload_others(keep=None)

    def _look(self) -> _Look | None:
        look = _Look()
        try:
            for folder in sorted(self._base_path.iterdir()):
                if (number := version_number(folder.name)) is not None:
                    look.folders[number] = folder
                    look.snapshots[number] = _snapshot(folder)
        except OSError as exc:
            self._warn(
                f"Could not find base path {self._base_path} for servable {self.name}, keeping"
                f" what is served: {exc.strerror}"
            )
            return None
        if not look.folders:
            self._warn(
                f"No versions of servable {self.name} found under base path {self._base_path}. Did"
                " you forget to name your leaf directory as a number (eg. '/1/')?"
            )
        else:
            self._last_warning = ""
        return look

    def _warn(self, text: str) -> None:
        """Log what is wrong with the folder, once until that changes."""
        if text != self._last_warning:
            logger.warning("%s", text)
        self._last_warning = text

    def _is_available(self, number: int) -> bool:
        version = self._versions.get(number)
        return version is not None and version.state == State.AVAILABLE

    def _try_load(self, number: int, folder: Path, look: _Look) -> bool:
        """Load a version unless it failed with these very files; say whether it is available."""
        version = self._versions.get(number) or _Version(number)
        if version.failed_snapshot == look.snapshots[number]:
            return False
        with self._changed:
            version.state, version.error = State.LOADING, None
            self._versions[number] = version
        try:
            servable = self._load(folder, number)
        except MlopsMiniError as exc:
            logger.error("could not load {name: %s version: %d}: %s", self.name, number, exc)  # noqa: TRY400 - the message says it all
            version.failed_snapshot = look.snapshots[number]
            with self._changed:
                version.state, version.error = State.END, exc
            return False
        with self._changed:
            version.servable, version.state = servable, State.AVAILABLE
        version.failed_snapshot = None
        logger.info(
            "Successfully loaded servable version {name: %s version: %d}", self.name, number
        )
        return True

    def _unload_others(self, *, keep: int | None) -> None:
        for version in list(self._versions.values()):
            if version.number == keep or version.state != State.AVAILABLE:
                continue
            with self._changed:
                version.state = State.UNLOADING
                self._changed.wait_for(lambda v=version: v.n_running == 0)  # type: ignore[misc]
                servable, version.servable = version.servable, None
            if servable is not None:
                servable.close()
            with self._changed:
                version.state = State.END
            logger.info(
                "Done unloading servable version {name: %s version: %d}", self.name, version.number
            )


def not_served(name: str, version: int | None) -> NotFoundError:
    """Make the error for a model or version that cannot be asked now."""
    asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return NotFoundError(f"Servable not found for request: {asked}")


def version_number(folder_name: str) -> int | None:
    """Read a folder's name as a version, as TensorFlow Serving does.

    >>> [version_number(name) for name in ("7", "007", "v3", "4.tmp", "1e3", "-1")]
    [7, 7, None, None, None, None]
    """
    digits = folder_name.strip().removeprefix("+")
    if not (digits.isascii() and digits.isdigit()) or int(digits) > _INT64_MAX:
        return None
    return int(digits)


def _snapshot(folder: Path) -> Snapshot:
    found = []
    for parent, _, names in os.walk(folder, followlinks=True):
        for path in (Path(parent, name) for name in names):
            try:
                stat = path.stat()
            except OSError:  # gone meanwhile, or a dead link: the next look will tell
                continue
            found.append((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns))
    return frozenset(found)
