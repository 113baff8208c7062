"""What the server counts: TensorFlow Serving's families under its names, and a few of our own.

All of it is counted on the event loop, so that nothing locks; threads tell it what has ended. Only
names of models that are or were configured become labels: whoever asks for others can't fill the
server's memory.

Source: tensorflow_serving/servables/tensorflow/util.cc, tensorflow_serving/batching/
batching_session.cc, tensorflow/cc/saved_model/loader.cc
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import unquote_to_bytes

from mlops_mini.errors import CODE_NAMES, InternalError, InvalidArgumentError, MlopsMiniError
from mlops_mini.serving.http_answers import Answer
from mlops_mini.serving.metrics import Counter, Family, Histogram, exponential
from mlops_mini.wire_messages import EXACT, parse

UNKNOWN_MODEL = "(unknown)"  # TensorFlow Serving makes a label of every name that is asked for
_ROUTE = re.compile(
    rb"(?i)/v1/models(?:/([^/:]+)(?:/(?:versions|labels)/[^/:]+)?(?:/metadata|:([a-z]+))?)?"
)
_PATH = re.compile(rb"(?is)(?:https?://[^/?#]*)?(/v1/.*)")
_MAX_KNOWN = 1000  # routes, and specs of gRPC requests, whose series are kept at hand
_MAX_PATHS = 100  # of version folders, the latest ones
_SERVING = ":tensorflow:serving:"
_BATCHING = f"{_SERVING}batching_session:"
_LATENCY_US = functools.partial(Histogram, exponential(10, 1.8, 33))
_QUEUING_US = functools.partial(Histogram, exponential(100, 1.2, 52))
SIZES = functools.partial(Histogram, exponential(1, 2, 14))
_EXAMPLES = functools.partial(Histogram, exponential(1, 2, 15))
_STALLS_S = functools.partial(Histogram, exponential(0.001, 2, 14))
_THREAD_POOL = "batch_threads"  # TensorFlow Serving's name where no other is configured
_UNKNOWN_CODE = 2
_MAX_NOTED = 256  # runs that aren't counted yet
_TURN_S = 0.002  # what came within that time has come in one turn of the event loop


class _Route(NamedTuple):
    """Where requests of one kind count that succeed."""

    n_succeeded: Counter
    latency_us: Histogram


class _Batches(NamedTuple):
    """Where batches count as such."""

    input_size: Histogram
    queuing_us: Histogram
    n_runs: Counter
    processed_size: Histogram


class _Task(Protocol):
    """What is asked of a request in a batch."""

    @property
    def n_rows(self) -> int: ...
    @property
    def queued_s(self) -> float: ...


class ServerMetrics:
    """Everything that is counted.

    Attributes:
        models: The names that may become labels.
        stalls_s: How late the event loop was, seconds.
        request_log_count: Requests that were logged, by model and status.
        families: All of it.
        noted: Runs that have ended and aren't counted yet.
    """

    def __init__(self, tell: Callable[..., object]) -> None:
        """Count nothing yet; `tell` calls a function on the event loop, from any thread."""
        self.models: Container[str] = ()
        self._tell = tell
        self.noted: list[_Run] = []
        self._batches: _Batches | None = None  # as every series, it's made with the first of them
        self._posts: dict[bytes, _Route] = {}
        self._calls: dict[tuple[str, bytes], _Route] = {}
        self.families: list[Family[Counter] | Family[Histogram]] = []
        self._request_count = self._counters(f"{_SERVING}request_count", "model_name", "status")
        self._request_latency = self._histograms(
            f"{_SERVING}request_latency", _LATENCY_US, "model_name", "API", "entrypoint"
        )
        self._runtime_latency = self._histograms(
            f"{_SERVING}runtime_latency", _LATENCY_US, "model_name", "API", "runtime"
        )
        self._example_counts = self._histograms(
            f"{_SERVING}request_example_counts", _EXAMPLES, "model"
        )
        self._example_total = self._counters(f"{_SERVING}request_example_count_total", "model")
        self._warmup_latency = self._histograms(
            f"{_SERVING}model_warmup_latency", _LATENCY_US, "model_path", "status", most=_MAX_PATHS
        )
        self._warmup_records = self._counters(
            f"{_SERVING}model_warmup_records_read", "model_path", "status", most=_MAX_PATHS
        )
        self._queuing_latency = self._histograms(
            f"{_BATCHING}queuing_latency", _QUEUING_US, "thread_pool_name"
        )
        self._wrapped_run_count = self._counters(f"{_BATCHING}wrapped_run_count")
        self._input_batch_size = self._histograms(f"{_BATCHING}input_batch_size", SIZES)
        self._processed_batch_size = self._histograms(f"{_BATCHING}processed_batch_size", SIZES)
        self._padding_size = self._histograms(
            f"{_BATCHING}padding_size", SIZES, "execution_batch_size"
        )
        self.request_log_count = self._counters(
            f"{_SERVING}request_log_count", "model_name", "status_code"
        )
        loading = ":tensorflow:cc:saved_model:load"
        self._load_attempts = self._counters(
            f"{loading}_attempt_count", "model_path", "status", most=_MAX_PATHS
        )
        self._load_latency = self._counters(f"{loading}_latency", "model_path", most=_MAX_PATHS)
        self._graph_runs = self._counters(":tensorflow:core:graph_runs")
        self._graph_run_time = self._counters(":tensorflow:core:graph_run_time_usecs")
        self._loads = self._counters(
            "mlops_mini_loads_total",
            "model_name",
            "status",
            help_text="Loads of versions, warm-up included, by how they ended.",
        )
        self.stalls_s = self._histograms(
            "mlops_mini_event_loop_stall_seconds",
            _STALLS_S,
            help_text="How much later than it was due the event loop did something.",
        ).series()

    def _counters(
        self, name: str, *labels: str, help_text: str = "", most: int | None = None
    ) -> Family[Counter]:
        family = Family(name, "counter", labels, Counter, help_text, most=most)
        self.families.append(family)
        return family

    def _histograms(
        self,
        name: str,
        make: functools.partial[Histogram],
        *labels: str,
        help_text: str = "",
        most: int | None = None,
    ) -> Family[Histogram]:
        family = Family(name, "histogram", labels, make, help_text, most=most)
        self.families.append(family)
        return family

    def rest_ended(self, method: str, target: bytes, answer: Answer, seconds: float) -> None:
        """Count a REST request; only those under `/v1` count.

        Args:
            method: The HTTP method.
            target: What was asked, undecoded.
            answer: What was answered.
            seconds: From the end of the request to its answer.
        """
        route = self._posts.get(target)
        if route is None or method != "POST" or answer.status != 200:
            self._count_rest(method, target, answer, seconds)
            return
        route.n_succeeded.value += 1
        route.latency_us.observe(seconds * 1e6)

    def _count_rest(self, method: str, target: bytes, answer: Answer, seconds: float) -> None:
        path = _PATH.fullmatch(target)
        if path is None:
            return
        match = _ROUTE.fullmatch(path[1])
        name, verb = match.groups(b"") if match else (b"", b"")
        model = unquote_to_bytes(name).decode("utf-8", "replace")
        if answer.status != 200:
            self._count_failed(model, answer.code or _UNKNOWN_CODE)
            return
        route = self._succeed(model, verb.decode() if method == "POST" else "", "REST", seconds)
        if method == "POST" and model in self.models:
            if len(self._posts) >= _MAX_KNOWN:
                self._posts.clear()
            self._posts[target] = route

    def grpc_ended(self, api: str, request_bytes: bytes, code: int, seconds: float) -> None:
        """Count a gRPC request.

        Args:
            api: `Predict`, `Classify` or `Regress`; TensorFlow Serving counts no others.
            request_bytes: The message, whose field 1 is the ModelSpec.
            code: Canonical code of its status.
            seconds: From the arrival of the message to its answer.
        """
        # Nearly all senders write the fields in order: then these bytes are the spec.
        spec_bytes = request_bytes[2 : 2 + request_bytes[1]] if request_bytes[:1] == b"\n" else b""
        route = self._calls.get((api, spec_bytes))
        if route is not None and not code:
            route.n_succeeded.value += 1
            route.latency_us.observe(seconds * 1e6)
            return
        try:
            spec = parse(EXACT["GetModelStatusRequest"], request_bytes).model_spec
        except InvalidArgumentError:
            spec = EXACT["ModelSpec"]()
        if code:
            self._count_failed(spec.name, code)
            return
        route = self._succeed(spec.name, api, "GRPC", seconds)
        if spec.SerializeToString() == spec_bytes:
            if len(self._calls) >= _MAX_KNOWN:
                self._calls.clear()
            self._calls[api, spec_bytes] = route

    def _count_failed(self, model: str, code: int) -> None:
        self._request_count.series(self._label(model), CODE_NAMES[code]).value += 1

    def route(self, model: str, api: str, entrypoint: str) -> _Route:
        """Find where requests of one kind count that succeed."""
        label = self._label(model)
        return _Route(
            self._request_count.series(label, CODE_NAMES[0]),
            self._request_latency.series(label, api, entrypoint),
        )

    def _succeed(self, model: str, api: str, entrypoint: str, seconds: float) -> _Route:
        route = self.route(model, api, entrypoint)
        route.n_succeeded.value += 1
        route.latency_us.observe(seconds * 1e6)
        return route

    def _label(self, model: str) -> str:
        return model if not model or model in self.models else UNKNOWN_MODEL

    def runs(self, model: str, version: int, signature: str) -> RunMetrics:
        """Make what counts the runs of a signature: its own part, and all the server's."""
        return RunMetrics(
            (model, str(version), signature),
            self._runtime_latency.series(model, "Predict", "TF1"),
            self._graph_runs.series(),
            self._graph_run_time.series(),
            self,
        )

    def note(self, run: _Run) -> None:
        """Note a run; many are counted at once."""
        self.noted.append(run)
        if len(self.noted) >= _MAX_NOTED:
            self.count_noted()

    def count_noted(self) -> None:
        """Count the runs that were noted."""
        noted, self.noted = self.noted, []
        for run in noted:
            run.counted.count(run)
            if run.is_batch:
                self._count_batch(run)

    def _count_batch(self, run: _Run) -> None:
        if self._batches is None:
            self._batches = _Batches(
                self._input_batch_size.series(),
                self._queuing_latency.series(_THREAD_POOL),
                self._wrapped_run_count.series(),
                self._processed_batch_size.series(),
            )
        batches = self._batches
        if not run.sizes:
            batches.input_size.observe(1, run.n_requests)
        for size in run.sizes:
            batches.input_size.observe(size)
        _observe_since(batches.queuing_us, run.queued_s, run.n_requests, run.began_s)
        batches.n_runs.value += 1
        batches.processed_size.observe(run.n_processed)
        padding = self._padding_size.series(str(run.n_processed))
        padding.observe(run.n_processed - run.n_rows)

    def examples_ran(self, model: str, api: str, n_examples: int, seconds: float) -> None:
        """Count a run of `Classify`, `Regress` or `MultiInference`; from any thread."""
        self._tell(self._count_examples, model, api, n_examples, seconds)

    def _count_examples(self, model: str, api: str, n_examples: int, seconds: float) -> None:
        self._graph_runs.series().value += 1
        self._graph_run_time.series().value += int(seconds * 1e6)
        if api == "MultiInference":
            self._example_counts.series(model).observe(n_examples)
            self._example_total.series(model).value += n_examples
        else:
            self._runtime_latency.series(model, api, "TF1").observe(seconds * 1e6)

    def loading(self, model: str) -> AbstractContextManager[None]:
        """Count what is done within as a load with its warm-up; on any thread."""
        return self._timed(self._count_load, model)

    def _count_load(self, model: str, code: int, _seconds: float) -> None:
        self._loads.series(model, CODE_NAMES[code]).value += 1

    def restoring(self, path: str) -> AbstractContextManager[None]:
        """Count what is done within as TensorFlow's part of a load."""
        return self._timed(self._count_restore, path)

    def _count_restore(self, path: str, code: int, seconds: float) -> None:
        self._load_attempts.series(path, "fail" if code else "success").value += 1
        self._load_latency.series(path).value += int(seconds * 1e6)

    def warming_up(self, path: str) -> AbstractContextManager[None]:
        """Count what is done within as a warm-up."""
        return self._timed(self._count_warmup, path)

    def _count_warmup(self, path: str, code: int, seconds: float) -> None:
        self._warmup_latency.series(path, CODE_NAMES[code]).observe(seconds * 1e6)

    def warmed_up(self, path: str, n_records: int) -> None:
        """Count the records of a warm-up that went well."""
        self._tell(self._count_warmup_records, path, n_records)

    def _count_warmup_records(self, path: str, n_records: int) -> None:
        self._warmup_records.series(path, CODE_NAMES[0]).value += n_records

    @contextlib.contextmanager
    def _timed(self, count: Callable[[str, int, float], None], label: str) -> Iterator[None]:
        began_s, code = time.perf_counter(), InternalError.code
        try:
            yield
            code = 0
        except MlopsMiniError as exc:
            code = exc.code
            raise
        finally:
            self._tell(count, label, code, time.perf_counter() - began_s)


class _Run(NamedTuple):
    """A run whose requests have been answered, until it's counted.

    Attributes:
        counted: Where it counts.
        n_requests: How many requests it was for.
        n_rows: Their rows.
        sizes: The rows of each, in the order in which they came; empty if each has one.
        queued_s: When each of them came; only when the first did if all came in one turn of the
            event loop. This and all times are of `time.perf_counter`.
        n_processed: Their rows and the padding.
        n_succeeded: How many of them have succeeded.
        n_answered: How many of these came by REST and aren't counted by their edge.
        began_s: When it began.
        ended_s: When it ended.
        answered_s: When the requests were answered.
        is_batch: Whether it counts as a batch, too.
    """

    counted: RunMetrics
    n_requests: int
    n_rows: int
    sizes: Sequence[int]
    queued_s: Sequence[float]
    n_processed: int
    n_succeeded: int
    n_answered: int
    began_s: float
    ended_s: float
    answered_s: float
    is_batch: bool


# As `_Run(...)`, without a call in Python.
_run = cast("Callable[[tuple[Any, ...]], _Run]", functools.partial(tuple.__new__, _Run))


class RunMetrics:
    """What counts the runs of one signature of one version, on the event loop.

    A run is only noted until somebody asks, or many are: together they take far less of the time in
    which requests wait.

    Attributes:
        labels: Model, version and signature.
        n_requests: Requests that were run, well or not.
        rows: Rows of each run.
    """

    __slots__ = ("_graph_run_time", "_graph_runs", "_latency_us", "_rest", "_server", "labels",
                 "n_requests", "rows")  # fmt: skip

    def __init__(
        self,
        labels: tuple[str, str, str],
        latency_us: Histogram,
        graph_runs: Counter,
        graph_run_time: Counter,
        server: ServerMetrics,
    ) -> None:
        """Count nothing yet; `ServerMetrics.runs` makes one."""
        self.labels = labels
        self.n_requests = Counter()
        self.rows = SIZES()
        self._rest: _Route | None = None  # a series that nothing has counted isn't shown
        self._latency_us = latency_us
        self._graph_runs = graph_runs
        self._graph_run_time = graph_run_time
        self._server = server

    def ran(
        self,
        tasks: Sequence[_Task],
        n_rows: int,
        n_processed: int,
        n_succeeded: int,
        n_answered: int,
        began_s: float,
        ended_s: float,
        is_batch: bool,
    ) -> None:
        """Note a run of these tasks, which have just been answered; `_Run` says what else is."""
        n_requests, first_s = len(tasks), tasks[0].queued_s
        sizes = [task.n_rows for task in tasks] if n_rows > n_requests else ()
        is_one_turn = tasks[-1].queued_s - first_s < _TURN_S
        queued_s = (first_s,) if is_one_turn else [task.queued_s for task in tasks]
        run = (
            self, n_requests, n_rows, sizes, queued_s, n_processed, n_succeeded, n_answered,
            began_s, ended_s, time.perf_counter(), is_batch,
        )  # fmt: skip
        self._server.note(_run(run))

    def ran_apart(self, n_rows: int, began_s: float) -> None:
        """Note a run that was none of a queue's, for one request, and ends now."""
        now_s = time.perf_counter()
        request = 1, n_rows, (n_rows,), (began_s,), n_rows, 1, 0
        self._server.note(_Run(self, *request, began_s, now_s, now_s, is_batch=False))

    def count(self, run: _Run) -> None:
        """Count a run."""
        micros = (run.ended_s - run.began_s) * 1e6
        self.n_requests.value += run.n_requests
        self.rows.observe(run.n_processed)
        self._latency_us.observe(micros, run.n_succeeded)
        self._graph_runs.value += 1
        self._graph_run_time.value += int(micros)
        if not run.n_answered:
            return
        if self._rest is None:
            self._rest = self._server.route(self.labels[0], "predict", "REST")
        self._rest.n_succeeded.value += run.n_answered
        _observe_since(self._rest.latency_us, run.queued_s, run.n_answered, run.answered_s)


def _observe_since(
    histogram: Histogram, queued_s: Sequence[float], n_tasks: int, ended_s: float
) -> None:
    """Count for how long so many of some tasks have waited, in microseconds.

    What comes in one turn of the event loop has come at the same time, and waits for as long as the
    first of it: which of them is read first says nothing about the client's wait.
    """
    if n_tasks != len(queued_s):
        histogram.observe((ended_s - queued_s[0]) * 1e6, n_tasks)
        return
    for began_s in queued_s:
        histogram.observe((ended_s - began_s) * 1e6)
