"""Which versions of a model are served: discovered, loaded, swapped without a gap, unloaded.

`tick` looks at the model's folder once and does what is to be done; a thread of `Models` calls it
again and again. The rules:

- A version is a subfolder whose whole name reads as an integer. The policy says which are wanted.
- A version is not touched before two looks in a row find the same, non-empty set of files in it: a
  copy that is still under way is never loaded. What can never be loaded (an empty folder, a dead
  link) is said once in the log.
- New versions are loaded before old ones are unloaded, and an unload waits for the requests that
  still run on it, but holds nothing up meanwhile.
- If a version fails to load, the next lower one is served instead. The failed one is tried again as
  often as the flags say, and once more whenever its files change.
- A missing model folder changes nothing (it may be a network share); an empty one unloads all.
- What is served stays as it was loaded: other files under the same number get one warning.
- A label that moves stays where it is until the version it moves to is available.

Source: TensorFlow Serving's architecture, https://www.tensorflow.org/tfx/serving/architecture
"""

from __future__ import annotations

import enum
import functools
import gc
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError
from mlops_mini.serving import not_found, version_folders
from mlops_mini.serving.model_config import ModelConfig
from mlops_mini.serving.servables import Servable
from mlops_mini.serving.version_folders import Snapshot
from mlops_mini.wire import ModelSpec

logger = logging.getLogger(__name__)

Load = Callable[[Path, int], Servable]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """How often a version that failed to load is tried again while its files stay the same.

    Attributes:
        most: Tries after the first.
        interval_s: Seconds between them.
    """

    most: int = 0
    interval_s: float = 0.0


@dataclass(slots=True)
class _Version:
    number: int
    state: State = State.START
    error: MlopsMiniError | None = None
    servable: Servable | None = None
    n_running: int = 0
    loaded: tuple[Path, Snapshot] | None = None  # where from, and what stood there then
    failed_snapshot: Snapshot | None = None  # the files of the last try, if it failed
    n_failed: int = 0  # tries with those files
    retry_at_s: float = float("inf")


class ModelLifecycle:
    """The versions of one model, also after it is no longer wanted.

    All methods may be called from any thread. `answering` is what `acquire` holds, by number, None
    for the latest, and label, empty for none; one in it may be closed unless it's then held.
    """

    def __init__(
        self,
        name: str,
        *,
        load: Load,
        retries: Retries = Retries(),
        changed: threading.Condition | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe the model; nothing is read before it is configured and `tick` is called.

        Args:
            name: Name that requests use.
            load: Makes a servable of a version folder and its number.
            retries: For versions that fail to load.
            changed: Lock of all that is known here, notified whenever a state changes.
            clock: Seconds that only grow.
        """
        self.name = name
        self.config: ModelConfig | None = None
        self.wake = threading.Event()  # set when a look should not wait for its time
        self.is_ticking = False
        self.is_tried = False  # a first look has loaded, failed, or found nothing to load
        self._load = load
        self._retries = retries
        self._clock = clock
        self._versions: dict[int, _Version] = {}
        self._labels: dict[str, int] = {}
        self.answering: Mapping[tuple[int | None, str], Servable] = {}
        self._answering: Mapping[tuple[int | None, str], _Version] = {}
        self._seen: dict[int, Snapshot] = {}  # also of versions whose turn may come without a look
        self._waiting: dict[int, str] = {}  # why versions that are wanted are not tried
        self._is_settling = False  # the next look may find a version complete
        self._n_looks = 0
        self._last_warning = ""
        self._changed = changed or threading.Condition()
        self._changing = threading.Lock()  # held by a whole tick

    def configure(self, config: ModelConfig | None) -> None:
        """Set which versions are wanted from the next tick on; None wants none."""
        with self._changed:
            if self.config is None:  # new, or wanted again: what failed before gets another chance
                for version in self._versions.values():
                    version.failed_snapshot = version.error = None
                self.is_tried, self._n_looks = False, 0
            self.config = config
            self._apply_labels()
            self._changed.notify_all()
        self.wake.set()

    def tick(self) -> None:
        """Look at the folder once, then load and unload until that look is satisfied."""
        with self._changing:
            config, self.is_ticking, self._is_settling = self.config, True, False
            try:
                if config is None:
                    self._unload(self._versions)
                elif (folders := self._look(config.folder)) is not None:
                    self._satisfy(config, folders)
                self._close_idle()
            finally:
                with self._changed:
                    self.is_ticking = False
                    self._n_looks += 1
                    # A copy that never ends must not keep others waiting for a first try.
                    self.is_tried |= not self._is_settling or self._n_looks > 1
                    self._changed.notify_all()

    def _satisfy(self, config: ModelConfig, folders: Mapping[int, Path]) -> None:
        candidates = config.policy.candidates(folders)
        kept, tried = set[int](), set[int]()
        was_waiting, self._waiting = self._waiting, {}
        for number in candidates:
            if len(kept) == config.policy.limit:
                break
            tried.add(number)
            if self._is_served_again(number):
                self._warn_if_changed(self._versions[number], folders[number])
                kept.add(number)
            elif self._try_load(number, folders[number]):
                kept.add(number)
        for number, reason in self._waiting.items():
            if reason != was_waiting.get(number):
                logger.warning("{name: %s version: %d} waits: %s", self.name, number, reason)
        self._seen = {
            n: self._seen.get(n) or version_folders.snapshot(path) for n, path in folders.items()
        }
        for version in self._versions.values():
            if version.state == State.LOADING and version.number not in tried:
                self._set(version, State.END)  # it waited for another try, and is not wanted now
        if kept:
            self._unload(self._versions.keys() - kept)
        elif not candidates:
            self._unload(self._versions.keys() - folders)

    @contextmanager
    def acquire(self, *, version: int | None = None, label: str = "") -> Iterator[Servable]:
        """Hold a version for one request, as the function `acquire` does.

        Args:
            version: Its number; None for the highest one available, or the one that `label` names.
            label: Its label; empty for none.
        """
        with self._changed:
            held = self._answering.get((version, label if version is None else ""))
            if held is None:
                if version is None and label:
                    version = self._labels.get(label)
                    if version is None:
                        raise self._with_hint(not_found.unknown_label(label))
                raise self._with_hint(not_found.not_served(self.name, version))
            held.n_running += 1
        try:
            yield cast("Servable", held.servable)  # an available version has one
        finally:
            self._release(held)

    def _with_hint(self, error: MlopsMiniError) -> MlopsMiniError:
        error.hint = not_found.versions_hint(self.name, self._answering)
        return error

    def hold(self, servable: Servable) -> Callable[[], None] | None:
        """Hold one that is `answering`; return what lets it go, or None if it is too late."""
        self._changed.acquire()  # `with` takes two calls more, for each request
        try:
            held = self._answering.get((servable.version, ""))
            if held is not None and held.servable is servable:
                held.n_running += 1
                return functools.partial(self._release, held)
            return None
        finally:
            self._changed.release()

    def _release(self, held: _Version) -> None:
        self._changed.acquire()
        try:
            held.n_running -= 1
            if held.state == State.UNLOADING and not held.n_running:
                self.wake.set()
        finally:
            self._changed.release()

    @property
    def n_running(self) -> int:
        """Requests that hold a version now."""
        with self._changed:
            return sum(version.n_running for version in self._versions.values())

    @property
    def labels(self) -> dict[str, int]:
        """The versions that labels stand for now."""
        with self._changed:
            return dict(self._labels)

    def is_available(self, number: int) -> bool:
        """Say whether a version is served now."""
        version = self._versions.get(number)
        return version is not None and version.state == State.AVAILABLE

    def states(self) -> set[State]:
        """List the states that versions are in; an END counts only if it is that of a failure."""
        with self._changed:
            return {v.state for v in self._versions.values() if v.state != State.END or v.error}

    def why_not_ready(self) -> str:
        """Say why no version is served; empty if one is."""
        with self._changed:
            if State.AVAILABLE in self.states():
                return ""
            reasons = {n: f"waits: {reason}" for n, reason in self._waiting.items()}
            for number, version in self._versions.items():
                if version.error:
                    reasons[number] = f"cannot be loaded: {version.error}"
            if reasons:
                return f"version {max(reasons)} {reasons[max(reasons)]}"
            return self._last_warning or "its versions are being loaded"

    def report(self) -> dict[str, Any]:
        """Describe versions and labels, in JSON's terms.

        Returns:
            `versions`: by number, highest first, the state and, where there is one, the last
            `error`, or what a version `waits` for that was never tried. `labels`: the `version`
            that each stands for now, None for none, and the one that it `waits_for`, if any.
        """
        with self._changed:
            versions: dict[int, dict[str, str]] = {
                n: {"state": State.START.name, "waits": reason}
                for n, reason in self._waiting.items()
            }
            for number, version in self._versions.items():
                if number not in versions or version.state != State.END:
                    versions[number] = {"state": version.state.name}
                if version.error:
                    versions[number]["error"] = str(version.error)
            labels: dict[str, dict[str, int | None]] = {}
            for label, wanted in (self.config.labels if self.config else {}).items():
                now = self._labels.get(label, wanted)
                labels[label] = {"version": now if self.is_available(now) else None}
                if not self.is_available(wanted):
                    labels[label]["waits_for"] = wanted
        ordered = {str(number): versions[number] for number in sorted(versions, reverse=True)}
        return {"versions": ordered, "labels": labels}

    def statuses(self) -> list[VersionStatus]:
        """List every version ever seen, highest first."""
        with self._changed:
            known = sorted(self._versions.values(), key=lambda v: v.number, reverse=True)
            return [
                VersionStatus(
                    version=v.number,
                    state=v.state,
                    error_code=v.error.code if v.error and v.state == State.END else 0,
                    error_message=str(v.error) if v.error and v.state == State.END else "",
                )
                for v in known
            ]

    def pause_s(self, poll_wait_s: float, *, first_looks_s: float) -> float | None:
        """Tell how many seconds to wait for the next look; None means until `wake` is set.

        Args:
            poll_wait_s: Seconds between looks; 0 for one look only.
            first_looks_s: The same while nothing is served and nothing has failed.
        """
        never = float("inf")
        with self._changed:
            if self.config is None:
                return None
            if not self.states() & {State.AVAILABLE, State.LOADING, State.END}:
                return first_looks_s
            waiting = [v.retry_at_s for v in self._versions.values() if v.state == State.LOADING]
            if self._is_settling and not poll_wait_s:  # there is no next look that could tell
                return first_looks_s
        pause_s = min(poll_wait_s or never, max(min(waiting, default=never) - self._clock(), 0))
        return None if pause_s == never else pause_s

    def _look(self, base_path: Path) -> dict[int, Path] | None:
        """List the version folders by number; None if the base path is not there."""
        try:
            folders = version_folders.find(base_path)
        except OSError as exc:
            self._warn(
                f"Could not find base path {base_path} for servable {self.name} with error"
                f" NOT_FOUND: {exc.strerror}"
            )
            return None
        no_versions = (
            f"No versions of servable {self.name} found under base path {base_path}. Did"
            " you forget to name your leaf directory as a number (eg. '/1/')?"
        )
        self._warn("" if folders else no_versions)
        return folders

    def _warn(self, text: str) -> None:
        """Log what is wrong with the folder, if anything is, once until that changes."""
        if text and text != self._last_warning:
            logger.warning("%s", text)
        self._last_warning = text

    def _try_load(self, number: int, folder: Path) -> bool:
        """Load a version unless it is incomplete or failed before; say whether it is available."""
        snapshot = version_folders.snapshot(folder)
        seen, self._seen[number] = self._seen.get(number), snapshot
        if problem := version_folders.problem(folder):
            self._wait(number, problem)
            return False
        if not snapshot or snapshot != seen:
            self._is_settling = True
            if seen is not None:
                self._wait(number, "its files still change")
            return False
        version = self._versions.get(number) or _Version(number)
        is_same = version.failed_snapshot == snapshot
        if is_same and self._clock() < version.retry_at_s:
            return False
        with self._changed:
            self._versions[number] = version
        self._set(version, State.LOADING)
        try:
            servable = self._load(folder, number)
        except MlopsMiniError as exc:
            version.n_failed = version.n_failed + 1 if is_same else 1
            version.failed_snapshot = snapshot
            may_retry = version.n_failed <= self._retries.most
            pause_s = self._retries.interval_s if may_retry else float("inf")
            version.retry_at_s = self._clock() + pause_s
            version.error = exc
            logger.error("could not load {name: %s version: %d}: %s", self.name, number, exc)  # noqa: TRY400 - the message says it all
            self._set(version, State.LOADING if may_retry else State.END)
            return False
        version.servable, version.error, version.failed_snapshot = servable, None, None
        version.loaded = (folder, snapshot)
        self._set(version, State.AVAILABLE)
        logger.info(
            "Successfully loaded servable version {name: %s version: %d}", self.name, number
        )
        return True

    def _is_served_again(self, number: int) -> bool:
        """Take back an unload that still waits for requests; say whether it is available."""
        version = self._versions.get(number)
        if version is not None and version.state == State.UNLOADING:
            self._set(version, State.AVAILABLE)
        return self.is_available(number)

    def _wait(self, number: int, reason: str) -> None:
        self._waiting = {**self._waiting, number: reason}  # others may be reading the old one

    def _warn_if_changed(self, version: _Version, folder: Path) -> None:
        """Log once that the folder of a version isn't what was loaded from it any more."""
        if version.loaded is None:
            return
        loaded_from, snapshot = version.loaded
        if loaded_from != folder:
            what = f"is served from {loaded_from}, not from {folder}"
        elif snapshot != version_folders.snapshot(folder):
            what = f"is served as it was loaded, but files in {folder} have changed since"
        else:
            return
        version.loaded = None
        logger.warning(
            "{name: %s version: %d} %s: a change needs a new number",
            self.name,
            version.number,
            what,
        )

    def _unload(self, numbers: Collection[int]) -> None:
        for number in numbers:
            if self.is_available(number):
                self._set(self._versions[number], State.UNLOADING)

    def _close_idle(self) -> None:
        """Close the versions on their way out that no request runs on any more."""
        for version in self._versions.values():
            if version.state != State.UNLOADING or version.n_running or version.servable is None:
                continue
            version.servable.close()
            version.servable = None
            self._set(version, State.END)
            gc.collect()  # TensorFlow's graphs are cycles, and large
            logger.info(
                "Done unloading servable version {name: %s version: %d}", self.name, version.number
            )

    def _set(self, version: _Version, state: State) -> None:
        with self._changed:
            version.state = state
            self._apply_labels()
            self._changed.notify_all()

    def _apply_labels(self) -> None:
        wanted = self.config.labels if self.config else {}
        self._labels = {
            label: number if self.is_available(number) else self._labels.get(label, number)
            for label, number in wanted.items()
        }
        served = {n: v for n, v in self._versions.items() if v.state == State.AVAILABLE}
        answering: dict[tuple[int | None, str], _Version] = {(n, ""): served[n] for n in served}
        answering |= {(None, key): served[n] for key, n in self._labels.items() if n in served}
        if served:
            answering[None, ""] = served[max(served)]
        self._answering = answering
        servables = {key: version.servable for key, version in answering.items()}
        self.answering = cast("dict[tuple[int | None, str], Servable]", servables)


def acquire(
    models: Mapping[str, ModelLifecycle], spec: ModelSpec | None
) -> AbstractContextManager[Servable]:
    """Hold the version that a request asks for: it is not unloaded before the `with` ends.

    Args:
        models: The models by name.
        spec: What the request says; None if it says nothing.

    Raises:
        InvalidArgumentError: It names no model, or a label that stands for nothing.
        NotFoundError: That model or version is not available now.
    """
    if spec is None:
        raise InvalidArgumentError("Missing ModelSpec")
    if not spec.name:
        raise InvalidArgumentError("ModelSpec has no name specified.")
    model = models.get(spec.name)
    if model is not None:
        return model.acquire(version=spec.version, label=spec.version_label)
    if spec.version_label and spec.version is None:
        error = not_found.unknown_label(spec.version_label)
    else:
        error = not_found.not_served(spec.name, spec.version)
    error.hint = not_found.models_hint(spec.name, [n for n, m in models.items() if m.config])
    raise error
