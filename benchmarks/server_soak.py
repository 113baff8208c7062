"""Half a million requests over REST and gRPC while everything that an operator does is done.

Versions are published and removed, a label moves, the configuration is reloaded over gRPC, a log is
written and rotated, and a scraper reads the metrics. Every answer is checked. `/healthz` is asked
every 10 ms. Prints the table and writes it to benchmarks/server_soak.md; fails if a request failed,
if memory grew 10 MB after the first tenth of the requests, or if somebody was kept waiting for
longer than the stall test allows. The tests run the same with few requests.

Example: python -m benchmarks.server_soak --requests 500000
"""

import argparse
import dataclasses
import json
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import grpc
import numpy as np
import psutil

from benchmarks.server_swaps import RELOAD, model, reload_request
from mlops_mini.errors import InternalError
from mlops_mini.wire import PREDICT_METHOD, ModelSpec, PredictRequest, PredictResponse
from tests.serving.models import write_numbered
from tests.serving.pulse import noise_s
from tests.serving.servers import Server, publish_numbered, run_in_child, wait_until

MOST_GROWTH_MB = 10.0
LIMIT_S = 0.05  # of tests/serving/test_server_stalls.py
N_VERSIONS = 5
N_CALLS = 16  # gRPC calls under way
WARM_UP = 0.1  # of the requests, after which memory must stay
PATH = "/monitoring/prometheus/metrics"
ROTATE_BYTES = 10_000  # of the request log: that many bytes take some hundred requests


@dataclasses.dataclass
class Soaked:
    """What has happened.

    Attributes:
        counts: What was asked and done, by name.
        n_failed: Requests that failed or had a wrong answer.
        growth_mb: Resident memory at its most after the warm-up, less that at its end.
        longest_s: The longest wait for `/healthz`.
        limit_s: The longest that the stall test would allow: twice as long as the machine itself
            keeps a program waiting meanwhile, and at least `LIMIT_S`.
        n_log_files: Files of the request log.
    """

    counts: dict[str, int]
    n_failed: int
    growth_mb: float
    longest_s: float
    limit_s: float
    n_log_files: int


class Worker(threading.Thread):
    """Does something again and again until `done` is set, and counts it and its failures."""

    def __init__(
        self, name: str, work: Callable[[], Iterator[bool]], done: threading.Event
    ) -> None:
        """Start; `work` yields whether what it has just done went well."""
        super().__init__(name=name, daemon=True)
        self.n_done = self.n_failed = 0
        self._work, self._done = work, done
        self.start()

    def run(self) -> None:
        """Work until done."""
        try:
            for is_well in self._work():
                self.n_done += 1
                if not is_well:
                    print(f"failed: {self.name}, the {self.n_done}th time", file=sys.stderr)
                    self.n_failed += 1
                if self._done.is_set():
                    return
        except Exception as exc:  # noqa: BLE001 - whatever it is, it's a failure
            print(f"failed: {exc!r}", file=sys.stderr)
            self.n_failed += 1


def ask_rest(server: Server, path: str) -> Iterator[bool]:
    """Ask over REST, without a client library's cost, and check each answer."""
    body = b'{"instances":[0]}'
    request = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    host, port = server.rest.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        while True:
            connection.sendall(request + body)
            answer = b""
            while not answer.endswith(b"}"):
                piece = connection.recv(65536)
                if not piece:
                    break
                answer += piece
            head, _, document = answer.partition(b"\r\n\r\n")
            yield head.startswith(b"HTTP/1.1 200 OK") and is_version(json.loads(document))


def is_version(document: object) -> bool:
    """Say whether an answer is that of one of the versions."""
    return document in [{"predictions": [float(n)]} for n in range(1, N_VERSIONS + 1)]


def ask_grpc(server: Server, label: str) -> Iterator[bool]:
    """Ask over gRPC, several calls at a time, and check each answer."""
    spec = ModelSpec(name="labeled" if label else "m", version_label=label)
    request = PredictRequest(model_spec=spec, inputs={"x": np.zeros(2, np.float32)}).to_bytes()
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary(PREDICT_METHOD)
        while True:
            for answer in [call.future(request, timeout=60) for _ in range(N_CALLS)]:
                response = PredictResponse.from_bytes(answer.result())
                answered = float(response.model_spec.version or 0)
                yield response.outputs["version"].tolist() == [answered] * 2


def scrape(server: Server) -> Iterator[bool]:
    """Read the metrics, and rest a little."""
    while True:
        with urllib.request.urlopen(f"http://{server.rest}{PATH}", timeout=60) as answer:
            yield b"mlops_mini_model_ready" in answer.read()
        time.sleep(0.1)


def operate(server: Server, models: Path, base: Path, log: str) -> Iterator[bool]:
    """Publish and remove versions, move the label, reload the configuration."""
    with grpc.insecure_channel(server.grpc) as channel:
        reload = channel.unary_unary(RELOAD)

        def configure(stable: int) -> None:
            more = (
                "model_version_policy { all {} }"
                f' version_labels {{ key: "stable" value: {stable} }}'
            )
            labeled = model("labeled", models / "numbered", more)
            reload(reload_request(model("m", base, log) + labeled), timeout=60)

        while True:
            for number in range(2, N_VERSIONS + 1):
                publish_numbered(models, base, number)
                configure(number)
                server.wait_for(number)
                yield True
            for number in range(2, N_VERSIONS + 1):
                shutil.rmtree(base / str(number))
                configure(N_VERSIONS + 1 - number)
            server.wait_for(N_VERSIONS, "END")
            yield True


# A program of its own, so that it isn't kept waiting by the threads that ask here: until its stdin
# ends, it asks for `/healthz` again and again, and it sleeps in between. Prints the seconds of all
# answers, and how late it woke up at worst, which has nothing to do with the server.
_WATCHING = """
import http.client, json, sys, threading, time
done, late, seconds = threading.Event(), 0.0, []
threading.Thread(target=lambda: (sys.stdin.read(), done.set())).start()
connection = http.client.HTTPConnection(sys.argv[1], timeout=120)
while not done.is_set():
    began = time.perf_counter()
    time.sleep(0.01)
    late = max(late, time.perf_counter() - began - 0.01)
    began = time.perf_counter()
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    seconds.append(time.perf_counter() - began)
print(json.dumps([seconds, late]))
"""


@contextmanager
def serving(models: Path, folder: Path) -> Iterator[tuple[Server, str]]:
    """Start the server with both models and all that is watched and written."""
    base = folder / "m"
    base.mkdir()
    publish_numbered(models, base, 1)
    (folder / "monitoring.config").write_text("prometheus_config { enable: true }")
    (folder / "log").mkdir()
    log = (
        f'logging_config {{ log_collector_config {{ filename_prefix: "{folder}/log/m" }}'
        " sampling_config { sampling_rate: 0.1 } }"
    )
    more = 'model_version_policy { all {} } version_labels { key: "stable" value: 1 }'
    labeled = model("labeled", models / "numbered", more)
    (folder / "models.config").write_text(
        f"model_config_list {{ {model('m', base, log)} {labeled} }}"
    )
    flags = [
        f"--model_config_file={folder}/models.config",
        f"--monitoring_config_file={folder}/monitoring.config",
        f"--request_log_rotate_bytes={ROTATE_BYTES}",
    ]
    server = Server.start(base, folder / "server", *flags)
    try:
        wait_until(lambda: server.ask("GET", "/readyz").status == 200, "both models")
        yield server, log
    finally:
        server.close()


def soak(models: Path, folder: Path, *, n_requests: int) -> Soaked:
    """Ask that often, or a little more, while all the rest is done.

    Args:
        models: Folder that holds `numbered`, versions 1 to 5.
        folder: An empty folder.
        n_requests: Over REST and gRPC together.
    """
    done, before_s = threading.Event(), noise_s()
    with serving(models, folder) as (server, log), ExitStack() as stack:
        process = psutil.Process(server.process.pid)
        stack.callback(done.set)
        asking = {
            "requests over REST": lambda: ask_rest(server, "/v1/models/m:predict"),
            "requests over REST, by label": lambda: ask_rest(
                server, "/v1/models/labeled/labels/stable:predict"
            ),
            "requests over gRPC": lambda: ask_grpc(server, ""),
            "requests over gRPC, by label": lambda: ask_grpc(server, "stable"),
        }
        askers = {how: Worker(how, ask, done) for how, ask in asking.items()}
        operating = {
            "swaps, with a reload and a moved label each": lambda: operate(
                server, models, folder / "m", log
            ),
            "pages of metrics": lambda: scrape(server),
        }
        others = {what: Worker(what, work, done) for what, work in operating.items()}
        workers = {**askers, **others}

        def reach(share: float) -> list[float]:
            resident_mb = []
            while sum(worker.n_done for worker in askers.values()) < share * n_requests:
                ended = [name for name, worker in workers.items() if not worker.is_alive()]
                if ended:
                    raise InternalError(f"{', '.join(ended)} ended: see what was printed")
                resident_mb.append(process.memory_info().rss / 2**20)
                time.sleep(0.05)
            return resident_mb

        warm_mb = max(reach(WARM_UP))
        watching = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", _WATCHING, server.rest],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        resident_mb = reach(1)
        seconds, late_s = json.loads(watching.communicate()[0])
        done.set()
        for worker in workers.values():
            worker.join(120)
        median_s = statistics.median(seconds)
        n_log_files = len([*(folder / "log").iterdir()])
    return Soaked(
        counts={name: worker.n_done for name, worker in workers.items()},
        n_failed=sum(worker.n_failed for worker in workers.values()),
        growth_mb=max(resident_mb, default=warm_mb) - warm_mb,
        longest_s=max(seconds),
        limit_s=max(LIMIT_S, 10 * median_s, 2 * max(before_s, noise_s(), late_s)),
        n_log_files=n_log_files,
    )


def main() -> int:
    """Measure, print and write the table; 1 if it doesn't hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500_000)
    options = parser.parse_args()
    before, began_s = psutil.getloadavg()[0], time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log_file = folder / "build.log"
        run_in_child(write_numbered, f"{folder}/numbered", N_VERSIONS, log_file=log_file)
        (folder / "soak").mkdir()
        soaked = soak(folder, folder / "soak", n_requests=options.requests)
    rows = {
        **{name: f"{n:,}" for name, n in soaked.counts.items()},
        "files of the request log": f"{soaked.n_log_files:,}",
        "failed": soaked.n_failed,
        "growth of memory after the warm-up, MB": f"{soaked.growth_mb:.1f}",
        "longest wait for /healthz, ms": f"{soaked.longest_s * 1000:.0f}",
        "what the stall test allows at such times, ms": f"{soaked.limit_s * 1000:.0f}",
        "minutes": f"{(time.monotonic() - began_s) / 60:.0f}",
    }
    table = "".join(f"| {what} | {count} |\n" for what, count in rows.items())
    text = f"""# Half a million requests while everything is done

Every answer is checked. `python -m benchmarks.server_soak` makes this table.

| what | count |
| --- | ---: |
{table}
{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {psutil.cpu_count()} cores,
load average {before:.1f} before and {psutil.getloadavg()[0]:.1f} after,
Python {platform.python_version()}, TensorFlow {version("tensorflow")}.
"""
    print(text)
    Path(__file__).with_suffix(".md").write_text(text)
    is_well = (
        not soaked.n_failed
        and soaked.growth_mb < MOST_GROWTH_MB
        and soaked.longest_s <= soaked.limit_s
        and soaked.n_log_files > 1
    )
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
