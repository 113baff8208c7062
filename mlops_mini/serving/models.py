"""The set of models that a server serves: configured and replaced, each looked after on its own.

Each model is looked after by a thread of its own, so that a broken, slow or missing one holds up no
other.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlops_mini.errors import (
    CODE_NAMES,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    MlopsMiniError,
    NotFoundError,
)
from mlops_mini.serving import not_found
from mlops_mini.serving.lifecycle import (
    ModelLifecycle,
    Retries,
    State,
    VersionStatus,
)
from mlops_mini.serving.model_config import PLATFORM, ModelConfig
from mlops_mini.serving.request_log import RequestLog
from mlops_mini.serving.servables import Servable

logger = logging.getLogger(__name__)

Load = Callable[[str, Path, int], Servable]

_FIRST_LOOKS_S = 0.1
_RECOVERY_S = 1.0


class Models:
    """All models. All methods may be called from any thread; `close` it at the end.

    Attributes:
        by_name: Each model's versions; `lifecycle.acquire` finds there what a request asks for.
        request_log: Where requests are logged of the models that have a log.
    """

    def __init__(
        self,
        load: Load,
        *,
        poll_wait_s: float = 1.0,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        n_load_threads: int = 0,
        strict_labels: bool = False,
        allow_unavailable_labels: bool = False,
        request_log: RequestLog | None = None,
    ) -> None:
        """Start with no model.

        Args:
            load: Makes a servable of a model's name, a version folder and its number.
            poll_wait_s: Seconds between looks for versions; 0 is one look, below 0 none.
            retries: For versions that fail to load.
            n_load_threads: Loads at the same time; 0 is four for each CPU.
            strict_labels: Refuse labels of versions that are not available.
            allow_unavailable_labels: With `strict_labels`, refuse only to move such a label.
            request_log: Told which models have a log, and closed at the end.
        """
        self._load = load
        self._poll_wait_s = poll_wait_s
        self._retries = retries
        self._turns = threading.BoundedSemaphore(n_load_threads or 4 * (os.cpu_count() or 1))
        self._strict_labels = strict_labels
        self._allow_unavailable_labels = allow_unavailable_labels
        self.request_log = request_log or RequestLog()
        self.by_name: dict[str, ModelLifecycle] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._configuring = threading.RLock()
        self._changed = threading.Condition()
        self._is_closed = False
        self._is_first = True  # TensorFlow Serving words the failure of the first set differently

    def statuses(self, name: str, *, version: int | None = None) -> list[VersionStatus]:
        """List the versions of a model that were ever seen, highest first.

        Raises:
            NotFoundError: There is no version, or not the one that is asked for.
        """
        model = self.by_name.get(name)
        statuses = [
            status
            for status in (model.statuses() if model else [])
            if version is None or status.version == version
        ]
        if not statuses:
            what = "any versions of" if version is None else f"version {version} of"
            error = NotFoundError(f"Could not find {what} model {name}")
            error.hint = "" if model else not_found.models_hint(name, self.names())
            raise error
        return statuses

    def names(self) -> list[str]:
        """List the models that are to be served."""
        return [config.name for config in self.configs()]

    def configs(self) -> list[ModelConfig]:
        """List what is to be served, by name."""
        with self._configuring:
            configs = [model.config for _, model in sorted(self.by_name.items())]
        return [config for config in configs if config is not None]

    def not_ready(self) -> dict[str, str]:
        """Tell which models do not answer yet, and why; empty if all do."""
        whys = {name: self.by_name[name].why_not_ready() for name in self.names()}
        return {name: why for name, why in whys.items() if why}

    def report(self) -> dict[str, dict[str, Any]]:
        """Describe every model in JSON's terms: `ready`, if not the `reason`, versions, labels."""
        described = {}
        for name in self.names():
            model = self.by_name[name]
            why = model.why_not_ready()
            reason = {"reason": why} if why else {}
            described[name] = {"ready": not why, **reason, **model.report()}
        return described

    @property
    def n_running(self) -> int:
        """Requests under way."""
        return sum(model.n_running for model in list(self.by_name.values()))

    @property
    def is_busy(self) -> bool:
        """True while a model is being looked after, so that a version may be loading."""
        return any(thread.is_alive() for thread in self._threads.values())

    def replace(self, configs: Sequence[ModelConfig], *, timeout_s: float | None = None) -> None:
        """Serve these models and no others; return once each new one has an answer.

        Later calls do not wait for earlier ones: a model that they take away is waited for no more.

        Args:
            configs: The whole set.
            timeout_s: Longest wait, seconds; None waits for as long as it takes.

        Raises:
            InvalidArgumentError: The set cannot be served; nothing has changed.
            FailedPreconditionError: A label is refused (`strict_labels`), or a request log cannot
                be written; nothing has changed.
            MlopsMiniError: A new model failed to load; the set is in force all the same.
            DeadlineExceededError: A new model is not there yet; the set is in force all the same.
        """
        what = "servable" if self._is_first else "model"
        new = self.configure(configs)
        with self._changed:
            self._changed.wait_for(lambda: all(map(self._is_decided, new)), timeout_s)
            late = [model for model in new if not self._is_decided(model)]
            failed = [s for model in new for s in _failed(model)]
        if late:
            raise DeadlineExceededError(
                f"{', '.join(model.name for model in late)} not available within {timeout_s:g} s:"
                f" {late[0].why_not_ready()}"
            )
        if failed:
            raise MlopsMiniError(
                f"{len(failed)} {what}(s) did not become available: {{{''.join(failed)}}}"
            )

    def wait_for_first_tries(self) -> None:
        """Return once every model's first load has ended, well or not, or there was none to make.

        A model without a folder, or without versions in it, isn't waited for; nor are later tries.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._is_closed
                    or all(m.is_tried or m.config is None for m in self.by_name.values())
                )
            )

    def configure(self, configs: Sequence[ModelConfig]) -> list[ModelLifecycle]:
        """Replace the set of models without waiting; errors as in `replace`.

        Returns:
            The models that are new.
        """
        with self._configuring:
            self._check(configs)
            logger.info("Adding/updating models.")
            self._is_first = False
            self.request_log.configure(configs)
            wanted = {config.name: config for config in configs}
            for model in self.by_name.values():
                if model.name not in wanted and model.config is not None:
                    model.configure(None)
            new = []
            for name, config in wanted.items():
                model = self.by_name.get(name) or ModelLifecycle(
                    name,
                    load=functools.partial(self._load_in_turn, name),
                    retries=self._retries,
                    changed=self._changed,
                )
                if model.config is None:
                    new.append(model)
                if model.config != config:
                    model.configure(config)
                    for label, version in config.labels.items():
                        if not model.is_available(version):
                            logger.info("label %s of %s waits for version %d", label, name, version)
                self.by_name[name] = model
                self._look_after(model)
            return new

    def close(self, timeout_s: float = 0.0) -> None:
        """Stop looking after the models; wait that many seconds at most for loads under way."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for model in list(self.by_name.values()):
            model.wake.set()
        for thread in list(self._threads.values()):
            thread.join(max(deadline - time.monotonic(), 0))
        self.request_log.close()

    def _check(self, configs: Sequence[ModelConfig]) -> None:
        """Refuse what cannot be served; each rule is checked for all models before the next one."""
        known = {config.name: self.by_name.get(config.name) for config in configs}
        for config in configs:
            model = known[config.name]
            if model is not None and model.config and model.config.platform != config.platform:
                raise InvalidArgumentError(
                    f"Illegal to change a model's platform. For model {config.name} platform was"
                    f" {model.config.platform} and new platform requested is {config.platform}"
                )
        for config in configs if self._strict_labels else ():
            model = known[config.name]
            for label, version in config.labels.items():
                if model is not None and model.is_available(version):
                    continue
                current = model.labels.get(label, version) if model else version
                if not (self._allow_unavailable_labels and current == version):
                    raise FailedPreconditionError(
                        f"Request to assign label to version {version} of model {config.name},"
                        " which is not currently available for inference"
                    )
        for config in configs:
            if config.platform != PLATFORM:
                raise InvalidArgumentError(
                    f"Model {config.name} requests unsupported platform {config.platform}"
                )
        self.request_log.check(configs)

    def _is_decided(self, model: ModelLifecycle) -> bool:
        """Say whether there is nothing to wait for: a version answers, or all have failed."""
        states = model.states()
        return (
            self._is_closed
            or model.config is None
            or State.AVAILABLE in states
            or (State.END in states and State.LOADING not in states and not model.is_ticking)
        )

    def _load_in_turn(self, name: str, folder: Path, version: int) -> Servable:
        with self._turns:
            try:
                return self._load(name, folder, version)
            except MlopsMiniError:
                raise
            except Exception as exc:  # whatever a model does, it must not end its thread
                raise InternalError(f"{type(exc).__name__}: {exc}") from exc

    def _look_after(self, model: ModelLifecycle) -> None:
        if self._poll_wait_s < 0 or model.name in self._threads:
            return
        thread = threading.Thread(
            target=self._tend, args=[model], name=f"model {model.name}", daemon=True
        )
        self._threads[model.name] = thread
        thread.start()

    def _tend(self, model: ModelLifecycle) -> None:
        """Tick a model until it is no longer wanted and all of it is unloaded."""
        last_failure = ""
        while True:
            model.wake.clear()  # before what may have been changed by who sets it is looked at
            if self._is_closed:
                return
            failure = ""
            try:
                model.tick()
            except Exception as exc:  # whatever it is, the model must be looked after on
                failure = repr(exc)
                if failure != last_failure:
                    logger.exception("a look after model %s failed; it goes on", model.name)
            last_failure = failure
            with self._configuring:
                if model.config is None and not model.states() - {State.END}:
                    del self._threads[model.name]
                    return
            pause_s = model.pause_s(self._poll_wait_s, first_looks_s=_FIRST_LOOKS_S)
            model.wake.wait(_RECOVERY_S if failure else pause_s)


def _failed(model: ModelLifecycle) -> list[str]:
    """Describe the versions that have failed, if no version is served."""
    if model.config is None or State.AVAILABLE in model.states():
        return []
    return [
        f"{{{{name: {model.name} version: {s.version}}} due to error:"
        f" {CODE_NAMES[s.error_code]}: {s.error_message}}}, "
        for s in model.statuses()
        if s.error_code
    ]
