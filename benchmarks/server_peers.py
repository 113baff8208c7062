"""How fast our model server is beside other Python servers with the same models.

FastAPI in its two usual forms, MLServer and mosec (in an environment of their own, made from
environments/peers.txt when it is missing), a naive grpc.aio server, and the bare server that does
as little as possible. All servers of a model are up at once, on the same cores as wrk or h2load,
and are asked in turn: rounds, of which the medians count. All that other programs do to the machine
meanwhile hits all of them, so the ratios say more than the figures. Each answer is checked once.
Prints the tables and writes them to benchmarks/server_peers.md.

Example: python -m benchmarks.server_peers --rounds 3 --seconds 1 --models cnn,flight
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from benchmarks import grpc_speed, server_speed
from benchmarks.server_speed import Measured, median
from mlops_mini.errors import InternalError
from mlops_mini.wire import PREDICT_METHOD, PredictRequest, PredictResponse
from tests.serving.servers import free_ports, wait_until

ENVIRONMENT = Path(".cache/environments/peers")
CONNECTIONS = (1, 64)
BATCHES = (1, 4, 16, 64, 256, 1024)
GROWING_CONNECTIONS = (1, 4, 16, 64, 256)
_HEADERS = {"Content-Type": "application/json"}
_START_TIMEOUT_S = 300.0


@dataclass
class Peer:
    """One server with one model.

    Attributes:
        process: Its process.
        address: `host:port`.
        path: What is asked over REST; empty for gRPC.
        bodies: What is sent, by load.
        start_s: Seconds from its start to its first answer.
        results: What was measured, by load and connections.
    """

    process: psutil.Process
    address: str
    path: str
    bodies: dict[str, bytes]
    start_s: float = 0.0
    pss_mb: float = 0.0
    results: dict[tuple[str, int], list[Measured]] = field(default_factory=dict)

    def ask(self, load: str) -> list[float]:
        """Ask once and return the numbers of the answer."""
        if not self.path:
            with grpc.insecure_channel(self.address) as channel:
                answer = channel.unary_unary(PREDICT_METHOD)(self.bodies[load], timeout=60)
            (array,) = PredictResponse.from_bytes(answer).outputs.values()
            return array.ravel().tolist()
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=60)) as connection:
            connection.request("POST", self.path, self.bodies[load], _HEADERS)
            response = connection.getresponse()
            text = response.read()
        if response.status != 200:
            raise InternalError(f"{self.path}: {response.status} {text[:300]!r}")
        document = json.loads(text)
        if isinstance(document.get("outputs"), list) and "model_name" in document:
            return list(document["outputs"][0]["data"])
        (numbers,) = document.values()
        return np.ravel(numbers).tolist()

    def measure(self, folder: Path, load: str, connections: int, seconds: int) -> None:
        """Ask for some seconds."""
        if not self.path:
            in_flight = (1, 1) if connections == 1 else (8, connections // 8)
            message = self.bodies[load]
            file = folder / f"{load}.grpc"
            file.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
            measured = grpc_speed.ask((self.process, self.address), file, in_flight, seconds)
        else:
            measured = server_speed.load(
                (self.process, self.address),
                server_speed.write_script(folder, f"{load}-{id(self)}", self.bodies[load]),
                self.path,
                connections,
                seconds,
            )
        self.results.setdefault((load, connections), []).append(measured)


def start(
    command: Sequence[str], folder: Path, name: str, port: int, path: str, load: str,
    bodies: dict[str, bytes], **environment: str,
) -> Peer:  # fmt: skip
    """Start a server and wait for its first answer."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **environment}
        )
    began = time.monotonic()
    peer = Peer(psutil.Process(process.pid), f"127.0.0.1:{port}", path, bodies)

    def look() -> bool:
        if process.poll() is not None:
            raise InternalError(f"{name} has ended: see {folder}/{name}.log")
        try:
            return bool(peer.ask(load))
        except (OSError, http.client.HTTPException, InternalError, grpc.RpcError):
            return False

    wait_until(look, f"{name}'s first answer", timeout_s=_START_TIMEOUT_S, pace_s=0.05)
    peer.start_s = time.monotonic() - began
    return peer


def v2_body(request: PredictRequest) -> bytes:
    """Write a request as MLServer takes it."""
    inputs = []
    for name, array in request.inputs.items():
        is_text = array.dtype == object
        data = [t.decode() if isinstance(t, bytes) else t for t in array.ravel().tolist()]
        datatype = "BYTES" if is_text else "FP32"
        inputs.append({"name": name, "shape": [*array.shape], "datatype": datatype, "data": data})
    return json.dumps({"inputs": inputs}).encode()


def start_all(
    folder: Path, model: str, loads: list[str], version_folder: Path
) -> Iterator[tuple[str, Peer]]:
    """Start each server with one model, one after the other."""
    python = str(ENVIRONMENT / "bin" / "python")
    bodies = {load: server_speed.bodies()[load][1] for load in loads}
    messages = {load: grpc_speed.requests()[load].to_bytes() for load in loads}
    v2 = {load: v2_body(grpc_speed.requests()[load]) for load in loads}
    first = loads[0]
    pair = f"{model}={version_folder}"
    route = f"/v1/models/{model}:predict"
    rest_port, grpc_port = free_ports(2)
    flags = [
        f"--model_name={model}", f"--model_base_path={version_folder.parent}",
        f"--port={grpc_port}", f"--rest_api_port={rest_port}",
    ]  # fmt: skip
    ours = [sys.executable, "-m", "mlops_mini.serving.server", *flags]
    peer = start(ours, folder, "ours", rest_port, route, first, bodies)
    yield "ours", peer
    over_grpc = Peer(peer.process, f"127.0.0.1:{grpc_port}", "", messages, peer.start_s)
    yield "ours, gRPC", over_grpc

    for name, module in (("bare", "bare_server"), ("naive", "naive_grpc_server")):
        file = folder / f"{name}.json"
        file.unlink(missing_ok=True)
        began = time.monotonic()
        api = "rest" if name == "bare" else "grpc"
        started = server_speed.start(folder, name, f"benchmarks.{module}", str(file), pair, api=api)
        label, path = ("bare server", route) if name == "bare" else ("grpc.aio, naive", "")
        peer = Peer(*started, path, bodies if name == "bare" else messages)
        peer.ask(first)
        peer.start_s = time.monotonic() - began
        yield label, peer

    (port,) = free_ports(1)
    fastapi = [python, "-m", "benchmarks.peer_fastapi"]
    command = [*fastapi, str(port), "call", str(version_folder)]
    yield (
        "FastAPI, async, raw call",
        start(command, folder, "fastapi_call", port, "/predict", first, bodies),
    )
    (port,) = free_ports(1)
    keras_file = str(version_folder / "assets.extra" / "model.keras")
    command = [*fastapi, str(port), "predict", str(version_folder), keras_file]
    yield (
        "FastAPI, sync, Keras predict",
        start(command, folder, "fastapi_predict", port, "/predict", first, bodies),
    )
    (port,) = free_ports(1)
    command = [python, "-m", "benchmarks.peer_mosec", f"--port={port}", "--address=127.0.0.1"]
    socket_folder = tempfile.mkdtemp(prefix="mosec-", dir=folder)
    yield "mosec", start(
        [*command, f"--path={socket_folder}", "--timeout=60000"],
        folder, "mosec", port, "/predict", first, bodies, PEER_MODEL=str(version_folder),
    )  # fmt: skip
    ports = free_ports(3)
    settings = folder / f"mlserver-{model}"
    settings.mkdir(exist_ok=True)
    names = ("http_port", "grpc_port", "metrics_port")
    described = dict(zip(names, ports, strict=True)) | {
        "host": "127.0.0.1", "parallel_workers": 0, "debug": False
    }  # fmt: skip
    (settings / "settings.json").write_text(json.dumps(described))
    parameters = {"uri": str(version_folder)}
    implementation = "benchmarks.peer_mlserver.Runtime"
    model_settings = {"name": model, "implementation": implementation, "parameters": parameters}
    (settings / "model-settings.json").write_text(json.dumps(model_settings))
    command = [str(ENVIRONMENT / "bin" / "mlserver"), "start", str(settings)]
    yield "MLServer", start(
        command, folder, "mlserver", ports[0], f"/v2/models/{model}/infer", first, v2,
        PYTHONPATH=str(Path.cwd()),
    )  # fmt: skip


def check(peers: dict[str, Peer], loads: list[str]) -> None:
    """Make sure that all servers give the same answers."""
    for load in loads:
        expected = peers["ours"].ask(load)
        for name, peer in peers.items():
            if not np.allclose(peer.ask(load), expected, rtol=1e-3, atol=1e-4):
                raise InternalError(f"{load}: {name} answers otherwise than ours")


def compare(
    folder: Path, names: list[str], rounds: int, seconds: int
) -> dict[str, dict[str, Peer]]:
    """Measure all servers with each model; return them, ended, by model and name."""
    base_paths = server_speed.write_models(folder)
    by_model: dict[str, list[str]] = {}
    for load in names:
        by_model.setdefault(server_speed.bodies()[load][0], []).append(load)
    compared = {}
    for model, loads in by_model.items():
        peers: dict[str, Peer] = {}
        try:
            for name, peer in start_all(folder, model, loads, base_paths[model] / "1"):
                peers[name] = peer  # noqa: PERF403 - what has started must be ended if one fails
            check(peers, loads)
            for load, peer in itertools.product(loads, peers.values()):
                peer.measure(folder, load, 8, 1)  # to warm it up
            for _ in range(rounds):
                for load, connections in itertools.product(loads, CONNECTIONS):
                    for peer in peers.values():
                        peer.measure(folder, load, connections, seconds)
            for peer in peers.values():
                tree = [peer.process, *peer.process.children(recursive=True)]
                peer.pss_mb = sum(p.memory_full_info().pss for p in tree) / 2**20
        finally:
            end(peers.values())
        compared[model] = peers
        print(*table_lines(compared, loads), sep="\n", flush=True)
    return compared


def end(peers: Any) -> None:
    """End servers and their children."""
    for peer in peers:
        with contextlib.suppress(psutil.NoSuchProcess):
            tree = [*peer.process.children(recursive=True), peer.process]
            for process in tree:
                process.kill()
            psutil.wait_procs(tree, timeout=30)


def grow(folder: Path, seconds: int, rounds: int) -> list[str]:
    """Measure ours beside the bare server with the CNN, for more rows and more connections."""
    base_paths = {"cnn": server_speed.write_models(folder)["cnn"]}
    rng = np.random.default_rng(7)
    loads = [(n_rows, 1) for n_rows in BATCHES] + [(1, n) for n in GROWING_CONNECTIONS[1:]]
    for name in ("ours", "bare"):
        (folder / f"{name}.json").unlink(missing_ok=True)
    servers = {
        "ours": server_speed.start_ours(folder, base_paths),
        "bare": server_speed.start_bare(folder, base_paths),
    }
    results: dict[tuple[int, int, str], list[Measured]] = {}
    try:
        for is_counted in [False] + [True] * rounds:
            for (n_rows, connections), label in itertools.product(loads, servers):
                body = {"instances": rng.random((n_rows, 28, 28, 1)).round(6).tolist()}
                script = server_speed.write_script(
                    folder, f"cnn-{n_rows}", json.dumps(body).encode()
                )
                measured = server_speed.load(
                    servers[label], script, "/v1/models/cnn:predict", connections, seconds
                )
                if is_counted:
                    results.setdefault((n_rows, connections, label), []).append(measured)
    finally:
        for process, _ in servers.values():
            process.kill()
            process.wait()
    lines = [
        "| rows | connections | ours, rows/s (CPU us a row) | bare | ratio | p50, p99 ms |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for n_rows, connections in loads:
        ours, bare = (results[n_rows, connections, label] for label in ("ours", "bare"))
        speed, bare_speed = (n_rows * median(r, "requests_s") for r in (ours, bare))
        lines.append(
            f"| {n_rows} | {connections} | {speed:,.0f} ({median(ours, 'cpu_us') / n_rows:,.0f}) |"
            f" {bare_speed:,.0f} ({median(bare, 'cpu_us') / n_rows:,.0f}) |"
            f" {speed / bare_speed:.2f} |"
            f" {median(ours, 'p50_ms'):.2f}, {median(ours, 'p99_ms'):.2f} |"
        )
    return lines


def noise(peers: dict[str, dict[str, Peer]]) -> float:
    """Say how far the rounds of a measurement lie apart, as a share of their median."""
    spreads = []
    for of_model in peers.values():
        for peer in of_model.values():
            for rounds in peer.results.values():
                speeds = [measured.requests_s for measured in rounds]
                if len(speeds) > 1:
                    spreads.append((max(speeds) - min(speeds)) / statistics.median(speeds))
    return statistics.median(spreads) if spreads else 0.0


def table_lines(compared: dict[str, dict[str, Peer]], names: list[str]) -> list[str]:
    """Write a table for each load."""
    lines = []
    for load in names:
        peers = compared[server_speed.bodies()[load][0]]
        lines += ["", f"## {load}", ""]
        lines += [
            (
                "| server | 1 connection: req/s (CPU us) | p50, p99 ms | ours : it"
                " | 64: req/s (CPU us) | p50, p99 ms | ours : it | PSS MB | start s |"
            ),
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for name, peer in peers.items():
            cells = []
            for connections in CONNECTIONS:
                rounds = peer.results[load, connections]
                ours = peers["ours" if peer.path else "ours, gRPC"].results[load, connections]
                ratio = median(ours, "requests_s") / median(rounds, "requests_s")
                p99 = f"{median(rounds, 'p99_ms'):.2f}" if peer.path else "-"
                cells += [
                    f"{median(rounds, 'requests_s'):,.0f} ({median(rounds, 'cpu_us'):,.0f})",
                    f"{median(rounds, 'p50_ms'):.2f}, {p99}",
                    f"{ratio:.1f}",
                ]
            cells += [f"{peer.pss_mb:.0f}", f"{peer.start_s:.1f}"]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> int:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=1)
    loads = "cnn,cnn_b32,half_plus_two,tabular,flight"
    parser.add_argument("--models", default=loads, help="loads, with commas between")
    parser.add_argument("--folder", type=Path, help="keep the models there")
    parser.add_argument("--no-table", action="store_true", help="print only")
    options = parser.parse_args()
    lock = "environments/peers.txt"
    subprocess.check_call([sys.executable, "tools/set_up.py", str(ENVIRONMENT), f"--lock={lock}"])
    before = psutil.getloadavg()[0]
    names = options.models.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(exist_ok=True)
        compared = compare(folder, names, options.rounds, options.seconds)
        growth = grow(folder, options.seconds, options.rounds)
    versions = dict(
        line.split(" ; ")[0].strip().split("==")
        for line in Path(lock).read_text().splitlines()
        if line.startswith(("fastapi==", "mlserver==", "mosec==", "uvicorn=="))
    )
    lines = [
        "# The model server beside other Python servers",
        "",
        "Same machine, models and requests, all servers of a model up at once, wrk (over gRPC",
        (
            f"h2load) on the same cores, medians of {options.rounds} interleaved rounds of"
            f" {options.seconds} s."
        ),
        "`ours : it` is our requests per second through the other's; a gRPC server is compared",
        "with ours over gRPC, where 64 are 8 connections with 8 calls each, and the first figure",
        "under `p50` is the mean. CPU is what a server and its children used for a request. The",
        "start is that to the first answer, of one server after the other.",
        *table_lines(compared, names),
        "",
        "## Growth",
        "",
        "The CNN with more rows in a request, and on more connections, beside the bare server.",
        "",
        *growth,
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {psutil.cpu_count()} cores,",
        f"load average {before:.1f} before and {psutil.getloadavg()[0]:.1f} after; between the",
        f"rounds of one measurement requests per second differ by {noise(compared):.0%} (median).",
        f"Python {platform.python_version()}, TensorFlow {version('tensorflow')}, "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + ".",
    ]
    text = "\n".join(lines) + "\n"
    if not options.no_table:
        Path(__file__).with_suffix(".md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
