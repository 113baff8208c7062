"""What it costs a model server to count and to log what it does, and how fast the log is read.

Servers that differ only in their flags are up at once and are asked in turn by wrk (Debian package
wrk): many short rounds, in a changing order. What counts is the median of the rounds' ratios to the
server that does neither; whatever else the machine does hits all of them. Two servers that do the
same differ by some 2 % for as long as they live, so all are started anew several times. A page of
metrics is read every second meanwhile, as Prometheus does four times a minute. Then 300,000 records
of a model with 25 inputs are written and read in a process of its own. Prints the table and writes
it to benchmarks/server_observability.md; fails if a server that counts, or logs 1 %, answers less
than 0.95 of what the first one does.

Example: python -m benchmarks.server_observability --starts 2
"""

import argparse
import itertools
import json
import platform
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from benchmarks import server_speed
from benchmarks.server_speed import Measured, bodies, load, median
from mlops_mini.prediction_log import Reader
from mlops_mini.serving.model_config import LogConfig
from mlops_mini.serving.request_log import RequestLog
from mlops_mini.wire import ModelSpec

LEAST_RATIO = 0.95
CONNECTIONS = (1, 64)
PATH = "/monitoring/prometheus/metrics"
_WARM_UP_S = 1


class Variant(NamedTuple):
    """What a server does beside answering: count, and log this share of the requests."""

    has_metrics: bool = False
    sampling_rate: float | None = None
    must_be_cheap: bool = False


VARIANTS = {
    "off": Variant(),
    "metrics": Variant(has_metrics=True, must_be_cheap=True),
    "metrics, log 1 %": Variant(has_metrics=True, sampling_rate=0.01, must_be_cheap=True),
    "log 100 %": Variant(sampling_rate=1.0),
}


def start(
    folder: Path, name: str, base_paths: Mapping[str, Path]
) -> tuple[psutil.Process, str, Path]:
    """Start a server with all models; return it, its address and the folder of its log."""
    own, variant = folder / re.sub(r"\W", "", name), VARIANTS[name]
    own.mkdir()
    logging = (
        f'logging_config {{ log_collector_config {{ filename_prefix: "{own}/log/m" }}'
        f" sampling_config {{ sampling_rate: {variant.sampling_rate} }} }}"
        if variant.sampling_rate is not None
        else ""
    )
    config = "".join(
        f'config {{ name: "{model}" base_path: "{path}" model_platform: "tensorflow" {logging} }}'
        for model, path in base_paths.items()
    )
    (own / "models.config").write_text(f"model_config_list {{ {config} }}")
    (own / "monitoring.config").write_text("prometheus_config { enable: true }")
    metrics = [f"--monitoring_config_file={own}/monitoring.config"] if variant.has_metrics else []
    process, address = server_speed.start(
        own,
        "server",
        "mlops_mini.serving.server",
        f"--model_config_file={own}/models.config",
        f"--address_file={own}/server.json",
        "--port=0",
        *metrics,
    )
    return process, address, own / "log"


def scrape(address: str, is_over: threading.Event) -> None:
    """Read the page of metrics every second."""
    while not is_over.wait(1):
        with urllib.request.urlopen(f"http://{address}{PATH}", timeout=60) as answer:
            answer.read()


def measure(
    folder: Path,
    base_paths: Mapping[str, Path],
    names: list[str],
    results: dict[tuple[str, int, str], list[Measured]],
    *,
    rounds: int,
    seconds: int,
) -> None:
    """Start all servers and measure them in turn; results are by load, connections and server."""
    folder.mkdir()
    is_over = threading.Event()
    with ExitStack() as stack:
        servers = {}
        for label, variant in VARIANTS.items():
            process, address, log = servers[label] = start(folder, label, base_paths)
            stack.callback(process.wait)
            stack.callback(process.kill)
            if variant.has_metrics:
                thread = threading.Thread(target=scrape, args=[address, is_over])
                thread.start()
                stack.callback(thread.join)
                stack.callback(is_over.set)
        loads = {}
        for name in names:
            model, body = bodies()[name]
            script = server_speed.write_script(folder, name, body)
            loads[name] = (script, f"/v1/models/{model}:predict")
        order = [*VARIANTS]
        for number, name, connections in itertools.product(range(-1, rounds), names, CONNECTIONS):
            random.shuffle(order)
            for label in order:
                process, address, log = servers[label]
                lasting = seconds if number >= 0 else _WARM_UP_S
                measured = load((process, address), *loads[name], connections, lasting)
                if number >= 0:
                    results.setdefault((name, connections, label), []).append(measured)
                for file in log.glob("*.tfrecord"):
                    file.unlink()


def ratio(first: list[Measured], other: list[Measured], what: str) -> float:
    """Take the median of the rounds' ratios."""
    pairs = zip(first, other, strict=True)
    return statistics.median(getattr(b, what) / getattr(a, what) for a, b in pairs)


def table_lines(
    results: Mapping[tuple[str, int, str], list[Measured]],
) -> tuple[list[str], list[float]]:
    """Write the results as a table, and tell the ratios that must be high."""
    reference, *others = VARIANTS
    lines = [
        f"| load | connections | {reference}, req/s (CPU us) | {' | '.join(others)} |",
        f"| --- | ---: | ---: |{' ---: |' * len(others)}",
    ]
    ratios = []
    for name, connections in dict.fromkeys(key[:2] for key in results):
        off = results[name, connections, reference]
        cells = []
        for other in others:
            measured = results[name, connections, other]
            speed, cpu = ratio(off, measured, "requests_s"), ratio(off, measured, "cpu_us")
            cells.append(f"{speed:.3f} ({cpu:.3f})")
            ratios += [speed] * VARIANTS[other].must_be_cheap
        lines.append(
            f"| {name} | {connections} | {median(off, 'requests_s'):,.0f}"
            f" ({median(off, 'cpu_us'):,.0f}) | {' | '.join(cells)} |"
        )
    return lines, ratios


def write_log(prefix: Path, n_records: int) -> None:
    """Write the records of a model with 25 inputs, as a server does."""
    log, config = RequestLog(), LogConfig(prefix=prefix, sampling_rate=1.0)
    model, body = bodies()["flight"]
    values = json.loads(body)["inputs"]
    inputs = {
        name: np.array([v.encode() for v in column], object)
        if isinstance(column[0], str)
        else np.array(column, np.float32)
        for name, column in values.items()
    }
    for number in range(n_records):
        outputs = {"probability": np.float32([number / n_records])}
        log.add_predict(config, b"id-%d" % number, ModelSpec(name=model), 1, inputs, outputs)
        if number % 1000 == 0:
            while log.records_written < number - 10_000:
                time.sleep(0.01)
    log.close(timeout_s=600)
    if log.records_written != n_records:
        raise SystemExit(f"{log.records_dropped} records were dropped")


def read_log(prefix: Path) -> None:
    """Read a log, and print in how many seconds, and with how many MB at most."""
    began, reader = time.perf_counter(), Reader(prefix)
    for record in reader:
        if float(record.outputs["probability"][0]) >= 1 or len(record.inputs) != 25:
            raise SystemExit(f"{record.request_id} is wrong")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(time.perf_counter() - began, peak_mb)


def reader_lines(folder: Path, n_records: int) -> list[str]:
    """Write and read a log, and tell what reading took."""
    prefix = folder / "read" / "m"
    began = time.perf_counter()
    write_log(prefix, n_records)
    writing_s = time.perf_counter() - began
    size = sum(file.stat().st_size for file in prefix.parent.iterdir()) / 1e6
    command = [sys.executable, "-m", "benchmarks.server_observability", f"--read={prefix}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak_mb = map(float, done.stdout.split())
    shutil.rmtree(prefix.parent)
    return [
        f"{n_records:,} records of 25 inputs, {size:,.0f} MB, were written in {writing_s:.0f} s",
        f"and read in {seconds:.0f} s by a process that had {peak_mb:.0f} MB at most.",
    ]


def main() -> int:
    """Measure, print and write the table; 1 if it costs too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5, help="of all servers")
    parser.add_argument("--rounds", type=int, default=5, help="after each start")
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--loads", default="half_plus_two,tabular", help="with commas between")
    parser.add_argument("--records", type=int, default=300_000, help="to be read")
    parser.add_argument("--no-table", action="store_true", help="print only")
    parser.add_argument("--read", type=Path, help="only read that log")
    options = parser.parse_args()
    if options.read:
        read_log(options.read)
        return 0
    before = psutil.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = options.loads.split(",")
        base_paths = server_speed.write_models(folder, [*{bodies()[load][0] for load in names}])
        results: dict[tuple[str, int, str], list[Measured]] = {}
        for number in range(options.starts):
            measure(
                folder / str(number),
                base_paths,
                names,
                results,
                rounds=options.rounds,
                seconds=options.seconds,
            )
        read = reader_lines(folder, options.records) if options.records else []
    table, ratios = table_lines(results)
    busy = (
        " Others were at work on this machine: the rates say little, the CPU per request more."
        if before > (psutil.cpu_count() or 1)
        else ""
    )
    lines = [
        "# What counting and logging cost",
        "",
        (
            f"REST, wrk on the same cores, {options.starts} starts of all servers with"
            f" {options.rounds} interleaved rounds of {options.seconds} s each."
        ),
        "Requests per second as a share of those of a server that does neither, and behind them",
        "the CPU that a request takes: medians of the rounds' own ratios.",
        "`python -m benchmarks.server_observability` makes this table.",
        "",
        *table,
        "",
        f"Of metrics and a log of 1 %, all in all {statistics.geometric_mean(ratios):.3f}.{busy}",
        "",
        *read,
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {psutil.cpu_count()} cores,",
        f"load average {before:.1f} before and {psutil.getloadavg()[0]:.1f} after,",
        f"Python {platform.python_version()}, TensorFlow {version('tensorflow')}.",
    ]
    text = "\n".join(lines) + "\n"
    if not options.no_table:
        Path(__file__).with_suffix(".md").write_text(text)
    print(text)
    return 0 if statistics.geometric_mean(ratios) >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
