"""The request log: sampled requests and their answers, written beside the answering.

An edge asks `RequestLog.sampled` whether a request is to be logged, answers it, and then hands what
was asked and answered to `RequestLog.add`, which never waits. A thread makes PredictionLog records
of it (`mlops_mini.prediction_log` says how they look) and writes them. If the disk is full, or
slower than the requests, records are dropped and counted, and one line in the server's log says so.
"""

from __future__ import annotations

import errno
import functools
import itertools
import logging
import math
import os
import random
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from mlops_mini import prediction_log, wire
from mlops_mini.errors import FailedPreconditionError
from mlops_mini.prediction_log import UNFINISHED
from mlops_mini.serving import plain_messages
from mlops_mini.serving.model_config import LogConfig, ModelConfig
from mlops_mini.serving.plain_messages import field
from mlops_mini.serving.servables import DEFAULT_SIGNATURE
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse
from mlops_mini.wire_messages import EXACT, FAST, parse

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

_MAX_WAITING_BYTES = 2**26
_GATHER_S = 0.1  # so that the thread doesn't wake for each request
_WRITTEN_RECORDS = 256  # at once
_TURN_S = 0.0005  # after which others have theirs
_RETRY_S = 1.0
_SILENCE_S = 60.0  # after it was said that records are dropped
# Where a PredictionLog has the messages of each method.
_LOGS = {
    method: EXACT["PredictionLog"].DESCRIPTOR.fields_by_name[f"{method}_log"].number
    for method in ("predict", "classify", "regress", "multi_inference")
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Exchange(NamedTuple):
    """What was asked and answered, serialized; `RequestLog.add` describes the fields."""

    method: str
    answered: ModelSpec
    request: bytes
    response: bytes


class _Waiting(NamedTuple):
    """A request that was answered and is to be written; see `RequestLog.add_later`."""

    log: LogConfig
    model: str
    request_id: bytes
    make: Callable[[], Exchange]
    n_bytes: int
    time_ns: int


class RequestLog:
    """Writes the logs of all models; `close` it at the end. Any thread may call its methods.

    Attributes:
        logs: The logs of the models that have one, by the model's name.
        counts: Requests by model and what became of their record: `OK` (it is written),
            `RESOURCE_EXHAUSTED` (dropped, the disk is full or slow), `UNAVAILABLE` (dropped, the
            file cannot be written otherwise) or `INTERNAL` (our own fault).
    """

    def __init__(
        self,
        *,
        leave_out_features: bool = False,
        rotate_bytes: int = 2**28,
        rotate_s: float = 3600.0,
        saved_model_tags: Sequence[str] = ("serve",),
        max_waiting: int = 20_000,
    ) -> None:
        """Write nothing yet.

        Args:
            leave_out_features: Log requests without their inputs.
            rotate_bytes: Size at which a file is finished and the next one begun, bytes.
            rotate_s: Age at which it is, seconds.
            saved_model_tags: What the models were loaded with.
            max_waiting: Requests that may wait to be written; more are dropped.
        """
        self.logs: Mapping[str, LogConfig] = {}
        self.counts = Counter[tuple[str, str]]()
        self._leave_out_features = leave_out_features
        self._rotate_bytes = rotate_bytes
        self._rotate_s = rotate_s
        self._saved_model_tags = tuple(saved_model_tags)
        self._max_waiting = max_waiting
        self._id_prefix, self._numbers = secrets.token_hex(8).encode(), itertools.count(1)
        self._waiting = deque[_Waiting]()
        self._n_waiting_bytes = 0
        self._silent_until_s = 0.0
        self._is_closed = False
        self._has_work = threading.Event()
        self._lock = threading.Lock()  # of what waits, and the counts
        self._files: dict[Path, _LogFile] = {}
        self._thread: threading.Thread | None = None

    @property
    def records_written(self) -> int:
        """Records in files so far."""
        with self._lock:
            return sum(n for (_, status), n in self.counts.items() if status == "OK")

    @property
    def records_dropped(self) -> int:
        """Records lost so far."""
        with self._lock:
            return sum(n for (_, status), n in self.counts.items() if status != "OK")

    def check(self, configs: Iterable[ModelConfig]) -> None:
        """Make the folders of the models' logs, and find out whether files can be made there.

        That a disk is full, now, is no reason not to serve.

        Raises:
            FailedPreconditionError: They cannot.
        """
        for config in configs:
            if config.request_log is not None and config.request_log not in self.logs.values():
                _check_writable(config.request_log)

    def configure(self, configs: Iterable[ModelConfig]) -> None:
        """Log requests of these models from now on, as far as they have a log."""
        self.logs = {config.name: config.request_log for config in configs if config.request_log}

    def sampled(self, model: str) -> LogConfig | None:
        """Decide whether a request of a model is logged: return its log, or None."""
        log = self.logs.get(model)
        return log if log is not None and random.random() < log.sampling_rate else None  # noqa: S311

    def identify(self, given: bytes) -> bytes:
        """Return the id that a client gave a request, or else one that no other server makes.

        It's b"" while no model has a log.
        """
        if not self.logs:
            return b""
        return given or b"%b-%x" % (self._id_prefix, next(self._numbers))

    def add(
        self,
        log: LogConfig,
        method: str,
        answered: ModelSpec,
        request_id: bytes,
        request: bytes,
        response: bytes,
    ) -> None:
        """Have a request logged that was answered now, unless too many wait already.

        Args:
            log: The log of its model.
            method: `predict`, `classify`, `regress` or `multi_inference`.
            answered: The model, version and signature that answered.
            request_id: What `identify` has said.
            request: The serialized request.
            response: The serialized response.
        """
        exchange = Exchange(method, answered, request, response)
        n_bytes = len(request) + len(response)
        self.add_later(log, answered.name, request_id, lambda: exchange, n_bytes)

    def add_later(
        self,
        log: LogConfig,
        model: str,
        request_id: bytes,
        make: Callable[[], Exchange],
        n_bytes: int,
    ) -> None:
        """Have a request logged that was answered now; see `add`.

        Args:
            log: The log of its model.
            model: The model's name.
            request_id: What `identify` has said.
            make: Serializes what was asked and answered; called by the thread that writes.
            n_bytes: About how much memory that takes until then.
        """
        with self._lock:
            n_waiting = len(self._waiting)
            has_room = n_waiting < self._max_waiting and self._n_waiting_bytes < _MAX_WAITING_BYTES
            if has_room:
                waiting = _Waiting(log, model, request_id, make, n_bytes, time.time_ns())
                self._waiting.append(waiting)
                self._n_waiting_bytes += n_bytes
            else:
                self.counts[model, "RESOURCE_EXHAUSTED"] += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="request log", daemon=True)
                self._thread.start()
        if not self._has_work.is_set():
            self._has_work.set()
        if not has_room and (now_s := time.monotonic()) > self._silent_until_s:
            self._silent_until_s = now_s + _SILENCE_S
            logger.error(
                "the request log is slower than the requests: %d wait, others are dropped and"
                " counted",
                n_waiting,
            )

    def add_predict(
        self,
        log: LogConfig,
        request_id: bytes,
        asked: ModelSpec,
        version: int,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
    ) -> None:
        """Have a Predict logged that came by REST, as if it had come by gRPC; see `add`.

        Args:
            log: The log of its model.
            request_id: Its id.
            asked: The model and signature as they were asked for.
            version: The version that answered.
            inputs: One array per alias; none is changed any more. So for the outputs.
            outputs: One array per alias.
        """
        make = functools.partial(predict_exchange, asked, version, inputs, outputs)
        n_bytes = wire.n_bytes(inputs) + wire.n_bytes(outputs)
        self.add_later(log, asked.name, request_id, make, n_bytes)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits and finish the files, for that many seconds at most."""
        self._is_closed = True
        self._has_work.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _work(self) -> None:
        while self._waiting or not self._is_closed:
            due_s = min([file.due_s for file in self._files.values()], default=math.inf)
            wait_s = max(due_s - time.monotonic(), 0)
            if self._has_work.wait(min(wait_s, threading.TIMEOUT_MAX)) and not self._is_closed:
                time.sleep(_GATHER_S)
            self._has_work.clear()
            while self._waiting:
                self._write_waiting()
            for file in self._files.values():
                file.rotate_if_due()
        for file in self._files.values():
            file.finish()

    def _write_waiting(self) -> None:
        """Write what waits, but not too much at once."""
        names: dict[Path, list[str]] = {}
        records: dict[Path, list[bytes]] = {}
        began_s = time.monotonic()
        for _ in range(min(len(self._waiting), _WRITTEN_RECORDS)):
            if time.monotonic() - began_s > _TURN_S:
                time.sleep(0)  # the event loop waits for this thread while it makes records
                began_s = time.monotonic()
            with self._lock:
                waiting = self._waiting.popleft()
                self._n_waiting_bytes -= waiting.n_bytes
            try:
                record = prediction_log.frame(self._encode(waiting))
            except Exception:  # our own fault, whatever it is: later records must be written
                logger.exception("a request of %s cannot be logged", waiting.model)
                self._count([waiting.model], "INTERNAL")
                continue
            names.setdefault(waiting.log.prefix, []).append(waiting.model)
            records.setdefault(waiting.log.prefix, []).append(record)
        for prefix, framed in records.items():
            if prefix not in self._files:
                self._files[prefix] = _LogFile(prefix, self._rotate_bytes, self._rotate_s)
            status = self._files[prefix].write(b"".join(framed), len(framed))
            self._count(names[prefix], status)

    def _count(self, names: Sequence[str], status: str) -> None:
        with self._lock:
            self.counts.update((name, status) for name in names)

    def _encode(self, waiting: _Waiting) -> bytes:
        method, answered, request, response = waiting.make()
        if self._leave_out_features:
            request = _without_features(method, request)
        time_us = waiting.time_ns // 1000
        metadata = EXACT["LogMetadata"](
            request_id=waiting.request_id, time_us=time_us, timestamp_secs=time_us // 1_000_000
        )
        shared = _shared_metadata(answered, waiting.log.sampling_rate, self._saved_model_tags)
        exchange = field(1, request) + field(2, response)
        return field(1, shared + metadata.SerializeToString()) + field(_LOGS[method], exchange)


def predict_exchange(
    asked: ModelSpec, version: int, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Exchange:
    """Serialize a Predict; the arguments are those of `RequestLog.add_predict`."""
    answered = _answered(asked.name, version, asked.signature_name or DEFAULT_SIGNATURE)
    if plain_messages.are_plain(chain(inputs.values(), outputs.values())):
        request = plain_messages.write_request(asked, inputs)
        response = plain_messages.write_response(answered, [*outputs], [*outputs.values()])
    else:
        request = PredictRequest(model_spec=asked, inputs=inputs).to_bytes(as_content=False)
        response = PredictResponse(model_spec=answered, outputs=outputs).to_bytes()
    return Exchange("predict", answered, request, response)


@functools.lru_cache(256)
def _answered(name: str, version: int, signature_name: str) -> ModelSpec:
    return ModelSpec(name=name, version=version, signature_name=signature_name)


@functools.lru_cache(256)
def _shared_metadata(
    answered: ModelSpec, sampling_rate: float, saved_model_tags: tuple[str, ...]
) -> bytes:
    """Write the part of a LogMetadata that all requests of a signature have in common."""
    metadata = EXACT["LogMetadata"](saved_model_tags=saved_model_tags)
    wire.fill_spec(metadata.model_spec, answered)
    metadata.sampling_config.sampling_rate = sampling_rate
    return bytes(metadata.SerializeToString())


def _check_writable(log: LogConfig) -> None:
    """Make the folder of a log, and find out whether files can be made there."""
    trial = log.prefix.with_name(f".{log.prefix.name}.{os.getpid()}")
    try:
        trial.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as exc:
        if exc.errno not in _FULL:
            raise FailedPreconditionError(
                f"the request log {log.prefix}-*.tfrecord cannot be written ({exc.strerror}:"
                f" {exc.filename}): choose another filename_prefix, or --request_log_prefix"
            ) from exc


def _without_features(method: str, request: bytes) -> bytes:
    """Write a request again with nothing but the model, and which outputs or tasks were wanted."""
    if method == "predict":
        asked = parse(FAST["PredictRequest"], request)
        kept = FAST["PredictRequest"](output_filter=asked.output_filter)
    elif method == "multi_inference":
        asked = parse(EXACT["MultiInferenceRequest"], request)
        kept = EXACT["MultiInferenceRequest"]()
        for task in asked.tasks:
            kept_task = kept.tasks.add(method_name=task.method_name)
            wire.fill_spec(kept_task.model_spec, wire.read_spec(task) or ModelSpec(name=""))
        return bytes(kept.SerializeToString())
    else:
        asked, kept = parse(EXACT["ExamplesRequest"], request), EXACT["ExamplesRequest"]()
    wire.fill_spec(kept.model_spec, wire.read_spec(asked) or ModelSpec(name=""))
    return bytes(kept.SerializeToString())


class _LogFile:
    """The file of a log that is being written, and when it's the next one's turn.

    Attributes:
        due_s: When it is, in seconds of the monotonic clock; infinite while there is no file.
    """

    def __init__(self, prefix: Path, rotate_bytes: int, rotate_s: float) -> None:
        self.due_s = math.inf
        self._prefix = prefix
        self._rotate_bytes = rotate_bytes
        self._rotate_s = rotate_s
        self._path = prefix
        self._descriptor = -1
        self._n_bytes = 0
        self._status = "OK"
        self._retry_s = 0.0
        self._n_dropped = 0  # since the last one that was written

    def write(self, data: bytes, n_records: int) -> str:
        """Write whole records and return a canonical code; what fails leaves nothing behind."""
        now_s = time.monotonic()
        if self._status != "OK" and now_s < self._retry_s:
            self._n_dropped += n_records
            return self._status
        try:
            self._append(data)
        except OSError as exc:
            if self._status == "OK":
                logger.error(  # noqa: TRY400 - the message says it all
                    "the request log %s cannot be written (%s): requests are answered, records"
                    " are dropped and counted",
                    self._prefix,
                    exc.strerror,
                )
            self._status = "RESOURCE_EXHAUSTED" if exc.errno in _FULL else "UNAVAILABLE"
            self._n_dropped += n_records
            self._retry_s = now_s + _RETRY_S
            self.finish()
            return self._status
        if self._status != "OK":
            n_dropped, self._n_dropped, self._status = self._n_dropped, 0, "OK"
            logger.warning(
                "the request log %s is written again; %d records were dropped",
                self._prefix,
                n_dropped,
            )
        if self._n_bytes >= self._rotate_bytes:
            self.finish()
        return "OK"

    def _append(self, data: bytes) -> None:
        if self._descriptor >= 0 and not os.fstat(self._descriptor).st_nlink:
            self._close()  # somebody has removed it
        if self._descriptor < 0:
            self._prefix.parent.mkdir(parents=True, exist_ok=True)
            begun = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            name = f"{self._prefix.name}-{begun}-{os.getpid()}.tfrecord"
            self._path = self._prefix.with_name(name)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(f"{self._path}{UNFINISHED}", flags, 0o644)
            self._n_bytes = 0
            self.due_s = time.monotonic() + self._rotate_s
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            os.ftruncate(self._descriptor, self._n_bytes)
            raise
        self._n_bytes += len(data)

    def rotate_if_due(self) -> None:
        """Finish the file if it is old enough."""
        if time.monotonic() >= self.due_s:
            self.finish()

    def finish(self) -> None:
        """Give the file its name; one without records is removed."""
        if self._descriptor < 0:
            return
        unfinished = Path(f"{self._path}{UNFINISHED}")
        try:
            if self._n_bytes:
                unfinished.rename(self._path)
            else:
                unfinished.unlink()
        except OSError as exc:
            logger.warning("%s keeps its name: %s", unfinished, exc.strerror)
        self._close()

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor, self.due_s = -1, math.inf
