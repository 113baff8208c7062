"""How fast our model server answers over gRPC, beside the server that one writes first.

Both servers are up at once, on the same cores as h2load (Debian package nghttp2-client), and are
asked in turn: rounds over loads and calls in flight, of which the medians count. All that other
programs do to the machine meanwhile hits both, so the ratios say more than the figures. Every
answer is checked once before the load. Prints the table and writes it to benchmarks/grpc_speed.md.

Example: python -m benchmarks.grpc_speed --rounds 5 --seconds 2
"""

import argparse
import itertools
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import grpc
import numpy as np
import psutil

from benchmarks.server_speed import (
    MAX_SECONDS,
    Measured,
    cpu_s,
    drain,
    median,
    start,
    start_ours,
    table,
    write_models,
)
from mlops_mini.errors import InternalError
from mlops_mini.model import training
from mlops_mini.wire import PREDICT_METHOD, ModelSpec, PredictRequest, PredictResponse

# Connections, and streams on each.
IN_FLIGHT = ((1, 1), (1, 8), (8, 8))
_WARM_UP_S = 2
_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
Server = tuple[psutil.Process, str]


def requests() -> dict[str, PredictRequest]:
    """Name each load and its request."""
    rng = np.random.default_rng(7)
    images = rng.random((32, 28, 28, 1)).round(6).astype(np.float32)  # those of server_speed
    with_gaps = table(5, 20)
    tables = {
        "tabular": table(2, 4).dropna().iloc[:1],
        "flight": with_gaps[with_gaps.isna().any(axis=1)].iloc[:1],
    }
    arrays = {
        "half_plus_two": ("half_plus_two", {"x": np.float32([1])}),
        "half_plus_two_b3": ("half_plus_two", {"x": np.float32([1, 2, 5])}),
        "cnn": ("cnn", {"keras_tensor": images[:1]}),
        "cnn_b32": ("cnn", {"keras_tensor": images}),
        **{name: (name, training.as_inputs(rows)) for name, rows in tables.items()},
    }
    return {
        name: PredictRequest(model_spec=ModelSpec(name=model), inputs=inputs)
        for name, (model, inputs) in arrays.items()
    }


def start_naive(folder: Path, base_paths: Mapping[str, Path]) -> Server:
    """Start the naive server with all models."""
    models = [f"{name}={path}/1" for name, path in base_paths.items()]
    return start(
        folder, "naive", "benchmarks.naive_grpc_server", str(folder / "naive.json"), *models,
        api="grpc",
    )  # fmt: skip


def check(servers: Mapping[str, Server], load: str) -> None:
    """Make sure that all servers give the same answer."""
    answers = []
    for _, address in servers.values():
        with grpc.insecure_channel(address) as channel:
            answer = channel.unary_unary(PREDICT_METHOD)(requests()[load].to_bytes(), timeout=60)
        answers.append(PredictResponse.from_bytes(answer).outputs)
    for other in answers[1:]:
        for name, array in answers[0].items():
            if not np.allclose(array, other[name], rtol=1e-5, atol=1e-5):
                raise InternalError(f"{load}: the servers' answers differ")


def ask(server: Server, body: Path, in_flight: tuple[int, int], seconds: int) -> Measured:
    """Ask a server for some seconds, with so many calls under way."""
    process, address = server
    connections, streams = in_flight
    before = cpu_s(process)
    command = [
        "h2load", f"-c{connections}", f"-m{streams}", f"-D{seconds}", f"--data={body}",
        "-Hcontent-type: application/grpc", "-Hte: trailers", f"http://{address}{PREDICT_METHOD}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    used_s = cpu_s(process) - before
    drain(process)
    text = done.stdout
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", text)
    speed = re.search(r"finished in [^,]+, ([0-9.]+) req/s", text)
    latency = re.search(r"time for request: +\S+ +\S+ +([0-9.]+)(us|ms|s)", text)
    if not (counts and speed and latency) or counts[2] != "0" or counts[3] != "0":
        raise InternalError(f"{command} has failed: {text}")
    if counts[1] == "0" and seconds < MAX_SECONDS:  # it's slower than that
        return ask(server, body, in_flight, 4 * seconds)
    mean_ms = float(latency[1]) * _UNITS_MS[latency[2]]
    return Measured(
        requests_s=float(speed[1]),
        cpu_us=used_s / int(counts[1]) * 1e6,
        p50_ms=mean_ms,
        p99_ms=0.0,
    )


def measure(
    folder: Path, names: list[str], *, rounds: int, seconds: int
) -> dict[tuple[str, tuple[int, int], str], list[Measured]]:
    """Measure both servers in turn; the results are by load, calls in flight and server."""
    all_paths = write_models(folder)
    models = {spec.name for name in names if (spec := requests()[name].model_spec)}
    base_paths = {name: all_paths[name] for name in sorted(models)}
    results: dict[tuple[str, tuple[int, int], str], list[Measured]] = {}
    servers: dict[str, Server] = {}
    try:
        servers["ours"] = start_ours(folder, base_paths, api="grpc")
        servers["naive"] = start_naive(folder, base_paths)
        for name in names:
            message = requests()[name].to_bytes()
            body = b"\0" + len(message).to_bytes(4, "big") + message  # a message as gRPC frames it
            (folder / f"{name}.grpc").write_bytes(body)
            check(servers, name)
            for server in servers.values():
                ask(server, folder / f"{name}.grpc", (8, 8), _WARM_UP_S)
        for _ in range(rounds):
            for name, in_flight in itertools.product(names, IN_FLIGHT):
                for label, server in servers.items():
                    measured = ask(server, folder / f"{name}.grpc", in_flight, seconds)
                    results.setdefault((name, in_flight, label), []).append(measured)
    finally:
        for process, _ in servers.values():
            process.kill()
            process.wait()
    return results


def table_lines(
    results: Mapping[tuple[str, tuple[int, int], str], list[Measured]],
) -> list[str]:
    """Write the results as a table."""
    lines = [
        "| load | in flight | ours, req/s (CPU us) | naive | ratio | mean ms, ours | naive |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, in_flight in dict.fromkeys(key[:2] for key in results):
        ours, naive = (results[name, in_flight, label] for label in ("ours", "naive"))
        speed, naive_speed = median(ours, "requests_s"), median(naive, "requests_s")
        lines.append(
            f"| {name} | {in_flight[0]}x{in_flight[1]} | {speed:,.0f}"
            f" ({median(ours, 'cpu_us'):,.0f}) | {naive_speed:,.0f}"
            f" ({median(naive, 'cpu_us'):,.0f}) | {speed / naive_speed:.2f} |"
            f" {median(ours, 'p50_ms'):.2f} | {median(naive, 'p50_ms'):.2f} |"
        )
    return lines


def main() -> int:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument(
        "--models", default="half_plus_two,cnn,cnn_b32", help="loads, with commas between"
    )
    parser.add_argument("--folder", type=Path, help="keep the models there")
    parser.add_argument("--no-table", action="store_true", help="print only")
    options = parser.parse_args()
    before = psutil.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        for name in ("ours", "naive"):
            (folder / f"{name}.json").unlink(missing_ok=True)
        results = measure(
            folder, options.models.split(","), rounds=options.rounds, seconds=options.seconds
        )
    lines = [
        "# The model server over gRPC beside a naive one",
        "",
        "h2load on the same cores, connections x calls on each, medians of",
        f"{options.rounds} interleaved rounds of {options.seconds} s. The naive server is what one",
        "writes first (`naive_grpc_server.py`); CPU is what a server used for a request.",
        "",
        *table_lines(results),
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {psutil.cpu_count()} cores,",
        f"load average {before:.1f} before and {psutil.getloadavg()[0]:.1f} after,",
        (
            f"Python {platform.python_version()}, TensorFlow {version('tensorflow')},"
            f" grpcio {version('grpcio')}."
        ),
    ]
    text = "\n".join(lines) + "\n"
    if not options.no_table:
        Path(__file__).with_suffix(".md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
