"""The page of metrics that Prometheus reads, and the watch over the event loop.

A page is begun after it was asked for, never before, so it misses nothing; whoever asks while one
is due gets the same. To write pages takes a tenth of the event loop's time at most: the next is
begun nine times as long after the last one as that took, however many ask. It's written family by
family, with other work in between.

Source: tensorflow_serving/util/prometheus_exporter.cc
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from mlops_mini.serving.http_answers import Answer
from mlops_mini.serving.metrics import gauge_lines, head, labels
from mlops_mini.serving.models import Models
from mlops_mini.serving.predict import Predictor
from mlops_mini.serving.server_metrics import ServerMetrics

DEFAULT_PATH = "/monitoring/prometheus/metrics"
_PAUSE = 9  # times the seconds that a page has taken
_BEAT_S = 0.02
_TEXT = {"Content-Type": "text/plain"}
_RUN_LABELS = ("model_name", "version", "signature")
_STATES = "mlops_mini_version_state", "1 for the state that a version is in."
_LABELS = "mlops_mini_version_label", "1 for the version that a label stands for."
_READY = "mlops_mini_model_ready", "1 if a version of the model answers, else 0."
_RUNNING = "mlops_mini_requests_running", "Requests that hold a version of the model now."
_QUEUED = "mlops_mini_queued_requests", "Requests that wait to be run now."
_ROWS = "mlops_mini_run_rows", "Rows of each run, padding included."
_REQUESTS = "mlops_mini_run_requests_total", "Predict requests that were run, well or not."


class Monitoring:
    """Writes the page of metrics on request."""

    def __init__(
        self, path: str, metrics: ServerMetrics, models: Models, predictor: Predictor
    ) -> None:
        """Watch the running event loop from now on.

        Args:
            path: Where the page is.
            metrics: What is counted.
            models: Whose states are told.
            predictor: Whose queues are told.
        """
        self.path = path
        self._metrics = metrics
        self._models = models
        self._predictor = predictor
        self._due: asyncio.Task[str] | None = None  # a page that isn't begun
        self._next_s = 0.0
        self._beat_later()

    def _beat_later(self) -> None:
        due_s = time.perf_counter() + _BEAT_S
        asyncio.get_running_loop().call_later(_BEAT_S, self._beat, due_s)

    def _beat(self, due_s: float) -> None:
        self._metrics.stalls_s.observe(max(time.perf_counter() - due_s, 0.0))
        self._beat_later()

    async def answer(self, path: str) -> Answer | None:
        """Answer a request for the page, by whatever method; None if the path isn't its own."""
        if path == self.path:
            if self._due is None:
                self._due = asyncio.get_running_loop().create_task(self._write())
            text = await asyncio.shield(self._due)
            return Answer(200, _TEXT, text.encode("utf-8", "replace"))
        if path.startswith((f"{self.path}?", f"{self.path}#")):
            return Answer(400, _TEXT, f"Unexpected path: {path}".encode("utf-8", "replace"))
        return None

    async def _write(self) -> str:
        await asyncio.sleep(max(self._next_s - time.perf_counter(), 0))
        self._due = None
        self._metrics.count_noted()
        self._count_logged()
        lines: list[str] = []
        took_s = 0.0
        for part in [*[family.lines() for family in self._metrics.families], self._own_lines()]:
            began_s = time.perf_counter()
            lines.extend(part)
            took_s += time.perf_counter() - began_s
            await asyncio.sleep(0)
        self._next_s = time.perf_counter() + _PAUSE * took_s
        return "\n".join(lines) + "\n"

    def _count_logged(self) -> None:
        """Take over what the request log has counted: it's written on a thread of its own."""
        for (model, status), n_requests in dict(self._models.request_log.counts).items():
            self._metrics.request_log_count.series(model, status).value = n_requests

    def _own_lines(self) -> Iterator[str]:
        report = self._models.report()
        ready = [((name,), float(model["ready"])) for name, model in report.items()]
        yield from gauge_lines(*_READY, ("model_name",), ready)
        states = [
            ((name, version, described["state"]), 1.0)
            for name, model in report.items()
            for version, described in model["versions"].items()
            if described["state"] != "END" or "error" in described
        ]
        yield from gauge_lines(*_STATES, ("model_name", "version", "state"), states)
        targets = [
            ((name, label, str(target["version"])), 1.0)
            for name, model in report.items()
            for label, target in model["labels"].items()
            if target["version"] is not None
        ]
        yield from gauge_lines(*_LABELS, ("model_name", "label", "version"), targets)
        running = [((name,), float(self._models.by_name[name].n_running)) for name in report]
        yield from gauge_lines(*_RUNNING, ("model_name",), running)
        # Of a version that was loaded again both may be in memory: the later one counts.
        queues = {q.metrics.labels: q for q in self._predictor.queues() if q.metrics is not None}
        queued = [(run_labels, float(q.n_waiting)) for run_labels, q in queues.items()]
        yield from gauge_lines(*_QUEUED, _RUN_LABELS, queued)
        runs = [q.metrics for q in queues.values() if q.metrics is not None]
        if runs:
            yield from head(_ROWS[0], "histogram", _ROWS[1])
        for run in runs:
            yield from run.rows.lines(_ROWS[0], labels(_RUN_LABELS, run.labels))
        if runs:
            yield from head(_REQUESTS[0], "counter", _REQUESTS[1])
        for run in runs:
            yield from run.n_requests.lines(_REQUESTS[0], labels(_RUN_LABELS, run.labels))
