"""What the request log costs a request, and how fast the log is read.

Servers with and without it are up at once and are asked in turn, as in `server_speed`: of the
rounds the medians count, and the ratios say more than the figures. Then 300,000 records of a model
with 25 inputs are written and read in a process of its own. Prints the table and writes it to
benchmarks/server_observability.md.

Example: python -m benchmarks.server_observability --rounds 3 --seconds 2 --loads half_plus_two
"""

import argparse
import itertools
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil

from benchmarks import server_speed
from benchmarks.server_speed import Measured, bodies, load, median
from mlops_mini.prediction_log import Reader
from mlops_mini.serving.model_config import LogConfig
from mlops_mini.serving.request_log import RequestLog
from mlops_mini.wire import ModelSpec

# Share of requests that each server logs; None is a server without a log.
RATES = {"plain": None, "log 1 %": 0.01, "log 100 %": 1.0}
CONNECTIONS = (1, 64)
_WARM_UP_S = 2


def start(
    folder: Path, name: str, base_paths: Mapping[str, Path]
) -> tuple[psutil.Process, str, Path]:
    """Start a server with all models; return it, its address and the folder of its log."""
    own, rate = folder / name.replace(" ", "").replace("%", ""), RATES[name]
    own.mkdir()
    logging = (
        f'logging_config {{ log_collector_config {{ filename_prefix: "{own}/log/m" }}'
        f" sampling_config {{ sampling_rate: {rate} }} }}"
        if rate is not None
        else ""
    )
    config = "".join(
        f'config {{ name: "{model}" base_path: "{path}" model_platform: "tensorflow" {logging} }}'
        for model, path in base_paths.items()
    )
    (own / "models.config").write_text(f"model_config_list {{ {config} }}")
    process, address = server_speed.start(
        own,
        "server",
        "mlops_mini.serving.server",
        f"--model_config_file={own}/models.config",
        f"--address_file={own}/server.json",
        "--port=0",
    )
    return process, address, own / "log"


def measure(
    folder: Path, names: list[str], *, rounds: int, seconds: int
) -> dict[tuple[str, int, str], list[Measured]]:
    """Measure all servers in turn; the results are by load, connections and server."""
    base_paths = server_speed.write_models(folder)
    base_paths = {name: base_paths[name] for name in {bodies()[load][0] for load in names}}
    servers = {name: start(folder, name, base_paths) for name in RATES}
    results: dict[tuple[str, int, str], list[Measured]] = {}
    try:
        loads = {}
        for name in names:
            model, body = bodies()[name]
            (folder / f"{name}.body").write_bytes(body)
            script = folder / f"{name}.lua"
            script.write_text(server_speed.SCRIPT.format(body=folder / f"{name}.body"))
            loads[name] = (script, model)
        for round_number, name, connections in itertools.product(
            range(-1, rounds), names, CONNECTIONS
        ):
            order = list(servers.items())
            for label, (process, address, log) in order[:: -1 if round_number % 2 else 1]:
                lasting = seconds if round_number >= 0 else _WARM_UP_S
                measured = load((process, address), *loads[name], connections, lasting)
                if round_number >= 0:
                    results.setdefault((name, connections, label), []).append(measured)
                for file in log.glob("*.tfrecord"):
                    file.unlink()
    finally:
        for process, _, _ in servers.values():
            process.kill()
            process.wait()
    return results


def table_lines(results: Mapping[tuple[str, int, str], list[Measured]]) -> list[str]:
    """Write the results as a table."""
    others = [name for name in RATES if name != "plain"]
    lines = [
        f"| load | connections | plain, req/s (CPU us) | {' | '.join(others)} |",
        f"| --- | ---: | ---: |{' ---: |' * len(others)}",
    ]
    for name, connections in dict.fromkeys(key[:2] for key in results):
        plain = results[name, connections, "plain"]
        speed, cpu = median(plain, "requests_s"), median(plain, "cpu_us")
        cells = [
            f"{median(own, 'requests_s') / speed:.2f} ({median(own, 'cpu_us') / cpu:.2f})"
            for own in (results[name, connections, other] for other in others)
        ]
        lines.append(
            f"| {name} | {connections} | {speed:,.0f} ({cpu:,.0f}) | {' | '.join(cells)} |"
        )
    return lines


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
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--loads", default="half_plus_two,flight,cnn", help="with commas between")
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
        results = measure(folder, names, rounds=options.rounds, seconds=options.seconds)
        read = reader_lines(folder, options.records) if options.records else []
    lines = [
        "# What the request log costs",
        "",
        f"REST, wrk on the same cores, medians of {options.rounds} interleaved rounds of",
        f"{options.seconds} s. Requests per second as a share of those of a server without a log,",
        "and behind them the CPU that a request takes.",
        "",
        *table_lines(results),
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
