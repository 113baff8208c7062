"""How fast our model server answers, beside the least that a server in Python can do.

Both servers are up at once, on the same cores as wrk (Debian package wrk), and are asked in turn:
rounds over models and numbers of connections, of which the medians count. All that other programs
do to the machine meanwhile hits both, so the ratios say more than the figures. Prints the table and
writes it to benchmarks/server_speed.md.

Models: half_plus_two (a value; half_plus_two_b3 has three), dense (one input of 30 numbers),
tabular (6 named inputs, as `mlops_mini.model.training` exports them), flight (25 named inputs,
texts, NaN, in columns, as `RestClient` asks), cnn (28x28x1), cnn_b32 (the same with 32 images in a
request).

Example: python -m benchmarks.server_speed --rounds 3 --seconds 2 --models cnn,tabular
"""

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from mlops_mini.errors import InternalError
from tests.serving.servers import run_in_child, wait_until

CONNECTIONS = (1, 8, 64)
_WARM_UP_S = 1
MAX_SECONDS = 30  # for a first answer under load
_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = io.open("{body}", "rb")
wrk.body = file:read("*all")
file:close()
function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), failed))
end
"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one round came to.

    Attributes:
        requests_s: Requests per second.
        cpu_us: CPU time of the server per request, microseconds.
        p50_ms: Median latency.
        p99_ms: Its 99th percentile.
    """

    requests_s: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


def write_half_plus_two(folder: str) -> None:
    """Write y = 0.5 x + 2."""
    import tensorflow as tf

    x = tf.TensorSpec([None], tf.float32, "x")
    signature = tf.function(lambda x: {"y": 0.5 * x + 2.0}).get_concrete_function(x=x)
    tf.saved_model.save(tf.Module(), folder, signatures={"serving_default": signature})
    import keras

    write_keras(keras.Sequential([keras.Input(()), keras.layers.Rescaling(0.5, 2.0)]), folder)


def write_keras(model: Any, folder: str) -> None:
    """Write a Keras model beside its SavedModel, for servers that take that."""
    file = Path(folder, "assets.extra", "model.keras")
    file.parent.mkdir()
    model.save(file)


def write_dense(folder: str) -> None:
    """Write 30-64-32-1."""
    import keras

    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(32, "relu")]
    model = keras.Sequential([keras.Input((30,)), *layers, keras.layers.Dense(1, "sigmoid")])
    model.export(folder, format="tf_saved_model", verbose=False)


def write_cnn(folder: str) -> None:
    """Write a small convolutional net for images of 28x28x1, 10 classes."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(112, "relu"),
            layers.Dense(10, "softmax"),
        ]
    )
    model.export(folder, format="tf_saved_model", verbose=False)
    write_keras(model, folder)


def table(n_texts: int, n_numbers: int) -> pd.DataFrame:
    """Make up rows of categories and of numbers with gaps."""
    rng = np.random.default_rng(16)
    columns: dict[str, Any] = {
        f"text_{i}": rng.choice([f"value_{n}" for n in range(4 * (i + 1))], 500)
        for i in range(n_texts)
    }
    for i in range(n_numbers):
        numbers = rng.normal(100, 30, 500).round(2)
        columns[f"number_{i}"] = np.where(rng.random(500) < 0.1, np.nan, numbers)
    return pd.DataFrame(columns)


def write_table_model(n_texts: int, n_numbers: int, folder: str) -> None:
    """Write a classifier of so many columns, with its preprocessing inside."""
    from mlops_mini.model import training

    rows = table(n_texts, n_numbers)
    labels = np.arange(len(rows)) % 2
    training.export(training.train(rows, labels, epochs=1), Path(folder))


def bodies() -> dict[str, tuple[str, bytes]]:
    """Name each load, its model and its body."""
    rng = np.random.default_rng(7)
    images = rng.random((32, 28, 28, 1)).round(6)
    tabular, flight = table(2, 4).dropna().iloc[0], table(5, 20)
    row = flight[flight.isna().any(axis=1)].iloc[0]
    columns = {name: [value] for name, value in row.items()}
    documents = {
        "half_plus_two": ("half_plus_two", {"instances": [1.0]}),
        "half_plus_two_b3": ("half_plus_two", {"instances": [1.0, 2.0, 5.0]}),
        "dense": ("dense", {"instances": rng.random((1, 30)).round(6).tolist()}),
        "tabular": ("tabular", {"instances": [tabular.to_dict()]}),
        "flight": ("flight", {"signature_name": "", "inputs": columns}),
        "cnn": ("cnn", {"instances": images[:1].tolist()}),
        "cnn_b32": ("cnn", {"instances": images.tolist()}),
    }
    return {name: (model, json.dumps(d).encode()) for name, (model, d) in documents.items()}


WRITERS: dict[str, tuple[Callable[..., None], tuple[int, ...]]] = {
    "half_plus_two": (write_half_plus_two, ()),
    "dense": (write_dense, ()),
    "tabular": (write_table_model, (2, 4)),
    "flight": (write_table_model, (5, 20)),
    "cnn": (write_cnn, ()),
}


def write_models(folder: Path, names: Sequence[str] = tuple(WRITERS)) -> dict[str, Path]:
    """Write version 1 of these models unless it is there; return the base paths."""
    for name in names:
        write, arguments = WRITERS[name]
        if not (folder / name / "1").exists():
            run_in_child(write, *arguments, f"{folder / name}/1", log_file=folder / "build.log")
    return {name: folder / name for name in names}


def start(
    folder: Path,
    name: str,
    module: str,
    *arguments: str,
    api: str = "rest",
    python: str = sys.executable,
) -> tuple[psutil.Process, str]:
    """Start a server that writes where it listens into a file of its name."""
    log = (folder / f"{name}.log").open("wb")
    command = [python, "-m", module, *arguments]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    file = folder / f"{name}.json"

    def look() -> str:
        if process.poll() is not None:
            raise InternalError(f"{module} has ended: see {log.name}")
        return json.loads(file.read_text())[api] if file.exists() else ""

    return psutil.Process(process.pid), wait_until(look, f"the ports of {name}")


def start_ours(
    folder: Path, base_paths: Mapping[str, Path], *, api: str = "rest"
) -> tuple[psutil.Process, str]:
    """Start our server with all models."""
    config = "".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}\n'
        for name, path in base_paths.items()
    )
    file = folder / "models.config"
    file.write_text(f"model_config_list {{ {config} }}")
    flags = [f"--model_config_file={file}", f"--address_file={folder / 'ours.json'}", "--port=0"]
    return start(folder, "ours", "mlops_mini.serving.server", *flags, api=api)


def start_bare(folder: Path, base_paths: Mapping[str, Path]) -> tuple[psutil.Process, str]:
    """Start the bare server with all models."""
    models = [f"{name}={path}/1" for name, path in base_paths.items()]
    return start(folder, "bare", "benchmarks.bare_server", str(folder / "bare.json"), *models)


def cpu_s(process: psutil.Process) -> float:
    """Sum the CPU time of a server and its children."""
    tree = [process, *process.children(recursive=True)]
    return sum(t.user + t.system for t in (p.cpu_times() for p in tree))


def drain(process: psutil.Process) -> None:
    """Wait until a server has nothing to do any more."""
    before = cpu_s(process)
    while True:
        time.sleep(0.05)
        now = cpu_s(process)
        if now - before < 0.02:
            return
        before = now


def write_script(folder: Path, name: str, body: bytes) -> Path:
    """Write what wrk sends, and the script that sends it."""
    (folder / f"{name}.body").write_bytes(body)
    script = folder / f"{name}.lua"
    script.write_text(_SCRIPT.format(body=folder / f"{name}.body"))
    return script


def load(
    server: tuple[psutil.Process, str], script: Path, path: str, connections: int, seconds: int
) -> Measured:
    """Ask a server for some seconds over some connections."""
    process, address = server
    url = f"http://{address}{path}"
    before = cpu_s(process)
    limits = [f"-c{connections}", f"-d{seconds}s", "--timeout=60s"]
    command = ["wrk", "-t1", *limits, "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    used_s = cpu_s(process) - before
    drain(process)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    n_requests, micros, p50, p99, n_failed = map(int, line.split()[1:])
    if not (n_failed or n_requests) and seconds < MAX_SECONDS:  # it's slower than that
        return load(server, script, path, connections, 4 * seconds)
    if n_failed or not n_requests:
        raise InternalError(f"{url}: {n_failed} of {n_requests} failed: {done.stdout}")
    return Measured(
        requests_s=n_requests / micros * 1e6,
        cpu_us=used_s / n_requests * 1e6,
        p50_ms=p50 / 1000,
        p99_ms=p99 / 1000,
    )


def measure(
    folder: Path, names: list[str], *, rounds: int, seconds: int
) -> dict[tuple[str, int, str], list[Measured]]:
    """Measure both servers in turn; the results are by load, connections and server."""
    base_paths = write_models(folder)
    base_paths = {name: base_paths[name] for name in {bodies()[load][0] for load in names}}
    servers = {
        "ours": start_ours(folder, base_paths),
        "bare": start_bare(folder, base_paths),
    }
    results: dict[tuple[str, int, str], list[Measured]] = {}
    try:
        loads = {}
        for name in names:
            model, body = bodies()[name]
            loads[name] = (write_script(folder, name, body), f"/v1/models/{model}:predict")
        for name, connections in itertools.product(names, (1, 64)):
            for server in servers.values():
                load(server, *loads[name], connections, _WARM_UP_S)
        for _ in range(rounds):
            for name, connections in itertools.product(names, CONNECTIONS):
                for label, server in servers.items():
                    measured = load(server, *loads[name], connections, seconds)
                    results.setdefault((name, connections, label), []).append(measured)
    finally:
        for process, _ in servers.values():
            process.kill()
            process.wait()
    return results


def median(rounds: list[Measured], what: str) -> float:
    """Take the median of one of the attributes."""
    return statistics.median(getattr(measured, what) for measured in rounds)


def table_lines(results: Mapping[tuple[str, int, str], list[Measured]]) -> list[str]:
    """Write the results as a table."""
    lines = [
        "| load | connections | ours, req/s (CPU us) | bare | ratio | CPU ratio | p50, p99 ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, connections in dict.fromkeys(key[:2] for key in results):
        ours, bare = (results[name, connections, label] for label in ("ours", "bare"))
        speed, bare_speed = median(ours, "requests_s"), median(bare, "requests_s")
        cpu, bare_cpu = median(ours, "cpu_us"), median(bare, "cpu_us")
        lines.append(
            f"| {name} | {connections} | {speed:,.0f} ({cpu:,.0f}) | {bare_speed:,.0f}"
            f" ({bare_cpu:,.0f}) | {speed / bare_speed:.2f} | {cpu / bare_cpu:.2f} |"
            f" {median(ours, 'p50_ms'):.2f}, {median(ours, 'p99_ms'):.2f} |"
        )
    return lines


def main() -> int:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--models", default=",".join(bodies()), help="loads, with commas between")
    parser.add_argument("--folder", type=Path, help="keep the models there")
    parser.add_argument("--no-table", action="store_true", help="print only")
    options = parser.parse_args()
    before = psutil.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        for name in ("ours", "bare"):
            (folder / f"{name}.json").unlink(missing_ok=True)
        results = measure(
            folder, options.models.split(","), rounds=options.rounds, seconds=options.seconds
        )
    lines = [
        "# The model server beside a bare one",
        "",
        "REST, wrk on the same cores, medians of",
        f"{options.rounds} interleaved rounds of {options.seconds} s. The bare server does as",
        "little as possible (`bare_server.py`); CPU is what a server used for a request.",
        "",
        *table_lines(results),
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
