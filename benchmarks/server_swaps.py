"""Requests while versions, labels and configurations change, and memory over loads and unloads.

wrk asks a server over 16 connections for the latest version, and over 16 by label; one connection
more for each reads the answers. Meanwhile versions are published and removed, and the configuration
is reloaded over gRPC to move the label. Then loads and unloads a model of 16 MB again and again,
and reads the resident memory of the server. Prints the table and writes it to
benchmarks/server_swaps.md; fails if a request failed or memory grew 10 MB.

Example: python -m benchmarks.server_swaps
"""

import argparse
import http.client
import json
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import grpc
import psutil
from google.protobuf import text_format
from google.protobuf.wrappers_pb2 import BytesValue
from tensorflow_serving.config import model_server_config_pb2

from tests.serving.models import write_numbered
from tests.serving.servers import Server, publish_numbered, run_in_child, wait_until

MOST_GROWTH_MB = 10.0
N_FIRST_CYCLES = 6
N_CYCLES = 30
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
N_CONNECTIONS = 16
# What wrk sends, and the line it ends with; its latencies are in us.
WRK_SCRIPT = """
wrk.method, wrk.body = "POST", '{"instances":[0]}'
function done(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  print(string.format('\\n{"requests":%d,"failed":%d,"longest_us":%d,"p99_us":%d}',
    summary.requests, failed, latency.max, latency:percentile(99)))
end
"""
PATHS = ("/v1/models/m:predict", "/v1/models/labeled/labels/stable:predict")


def write_large(base: str) -> None:
    """Two versions with a variable of 16 MB each."""
    import tensorflow as tf

    for number in (1, 2):
        module = tf.Module()
        module.weights = tf.Variable(tf.fill([1000, 4000], float(number)))
        function = tf.function(lambda x, m=module: {"y": tf.reduce_sum(m.weights[:1]) + x})
        signature = function.get_concrete_function(x=tf.TensorSpec([None], tf.float32, "x"))
        folder = f"{base}/large/{number}"
        tf.saved_model.save(module, folder, signatures={"serving_default": signature})


def reload_request(models: str) -> bytes:
    """Write a ReloadConfigRequest, whose field 1 is the configuration, from text."""
    text = f"model_config_list {{ {models} }}"
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    return bytes(BytesValue(value=config.SerializeToString()).SerializeToString())


def model(name: str, folder: Path, more: str) -> str:
    """Write the text of one model's configuration."""
    return f'config {{ name: "{name}" base_path: "{folder}" model_platform: "tensorflow" {more} }}'


class Asker(threading.Thread):
    """Asks one path again and again over one connection, and counts."""

    def __init__(self, server: Server, path: str) -> None:
        """Start to ask; set `done` to end."""
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.n_answers = self.n_failed = 0
        self.seen: set[bytes] = set()
        self._path = path
        self._connection = http.client.HTTPConnection(*server.rest.split(":"), timeout=60)
        self.start()

    def run(self) -> None:
        """Ask until done."""
        while not self.done.is_set():
            try:
                self._connection.request("POST", self._path, b'{"instances":[0]}')
                response = self._connection.getresponse()
                body = response.read()
                failed = response.status != 200
                if failed:
                    print(f"failed: {self._path} {response.status} {body!r}", file=sys.stderr)
                self.seen.add(body)
            except (OSError, http.client.HTTPException) as exc:
                print(f"failed: {exc!r}", file=sys.stderr)
                failed = True
            self.n_failed += failed
            self.n_answers += 1
        self._connection.close()


def start_wrk(server: Server, path: str, script: Path) -> subprocess.Popen[str]:
    """Ask until SIGINT comes."""
    script.write_text(WRK_SCRIPT)
    load = ["-t1", f"-c{N_CONNECTIONS}", "-d1h", "--timeout=30s", "-s", str(script)]
    return subprocess.Popen(
        ["wrk", *load, f"http://{server.rest}{path}"], stdout=subprocess.PIPE, text=True
    )


def swap_under_load(models: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Publish, remove and reload for that long while requests come."""
    base = folder / "m"
    base.mkdir()
    publish_numbered(models, base, 1)
    server = Server.start(base, folder / "server")
    n_swaps = n_reloads = 0
    with grpc.insecure_channel(server.grpc) as channel:
        reload = channel.unary_unary(RELOAD)

        def configure(stable: int) -> None:
            more = (
                "model_version_policy { all {} }"
                f' version_labels {{ key: "stable" value: {stable} }}'
            )
            labeled = model("labeled", models / "numbered", more)
            reload(reload_request(model("m", base, "") + labeled), timeout=60)

        def is_labeled(version: int) -> bool:
            answer = server.ask("POST", PATHS[1], b'{"instances":[0]}')
            return answer.status == 200 and answer.json == {"predictions": [version]}

        server.wait_for(1)
        configure(1)
        wait_until(lambda: is_labeled(1), "the label")
        askers = [Asker(server, path) for path in PATHS]
        loads = [start_wrk(server, path, folder / "post.lua") for path in PATHS]
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for number in (2, 3, 4, 5):
                publish_numbered(models, base, number)
                for stable in (5, number):
                    configure(stable)
                    wait_until(lambda n=stable: is_labeled(n), "the label to move")
                    n_reloads += 1
                server.wait_for(number)
                n_swaps += 1
            for number in (2, 3, 4, 5):
                shutil.rmtree(base / str(number))
            server.wait_for(5, "END")
            n_swaps += 1
        for load in loads:
            load.send_signal(signal.SIGINT)
        wrks = [json.loads(load.communicate()[0].splitlines()[-1]) for load in loads]
        for asker in askers:
            asker.done.set()
        for asker in askers:
            asker.join()
    server.stop()
    return {
        "requests": sum(a.n_answers for a in askers) + sum(wrk["requests"] for wrk in wrks),
        "failed": sum(a.n_failed for a in askers) + sum(wrk["failed"] for wrk in wrks),
        "longest wait for an answer, ms": round(max(wrk["longest_us"] for wrk in wrks) / 1e3),
        "99 of 100 requests within, ms": round(max(wrk["p99_us"] for wrk in wrks) / 1e3),
        "versions that answered": min(len(asker.seen) for asker in askers),
        "swaps of the version": n_swaps,
        "reloads that moved a label": n_reloads,
    }


def cycle(models: Path, folder: Path) -> list[float]:
    """Load one of two versions and unload the other, in turn; resident MB after each cycle."""
    base = models / "large"
    server = Server.start(base, folder / "server_of_cycles")
    process = psutil.Process(server.process.pid)
    resident_mb = []
    with grpc.insecure_channel(server.grpc) as channel:
        reload = channel.unary_unary(RELOAD)
        server.wait_for(2)
        for number in range(N_FIRST_CYCLES + N_CYCLES):
            wanted = number % 2 + 1
            policy = f"model_version_policy {{ specific {{ versions: {wanted} }} }}"
            reload(reload_request(model("m", base, policy)), timeout=60)
            server.wait_for(wanted)
            server.wait_for(3 - wanted, "END")
            resident_mb.append(process.memory_info().rss / 2**20)
    server.stop()
    return resident_mb[N_FIRST_CYCLES - 1 :]


def main() -> int:
    """Measure, write the table; 1 if a request failed or memory grew too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of the load (default: 60)")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_in_child(write_numbered, f"{folder}/numbered", 5, log_file=folder / "build.log")
        run_in_child(write_large, str(folder), log_file=folder / "build.log")
        counts = swap_under_load(folder, folder, seconds)
        resident_mb = cycle(folder, folder)
    growth_mb = max(resident_mb[1:]) - resident_mb[0]
    rows = "".join(f"| {what} | {count:,} |\n" for what, count in counts.items())
    table = f"""# Requests while versions and labels change

wrk over {N_CONNECTIONS} connections to the latest version and {N_CONNECTIONS} to a label, and one
more each that reads the answers, while versions come and go and the configuration is reloaded over
gRPC. On two cores all of them share the machine with the loads of the versions.

| what | count |
| --- | ---: |
{rows}
Resident memory over {N_CYCLES} cycles that load one version of 16 MB and unload the other:
{resident_mb[0]:.0f} MB before the first, {resident_mb[-1]:.0f} MB after the last, at most
{growth_mb:+.1f} MB on the way ({N_FIRST_CYCLES} cycles ran before).

{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {psutil.cpu_count()} cores,
Python {platform.python_version()}, TensorFlow {version("tensorflow")}.
"""
    print(table)
    Path(__file__).with_suffix(".md").write_text(table)
    return int(counts["failed"] > 0 or growth_mb > MOST_GROWTH_MB)


if __name__ == "__main__":
    sys.exit(main())
