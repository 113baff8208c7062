"""How long other answers wait while a server loads, unloads, or reads and writes large messages.

Asks a server for its health every 10 ms during each piece of work, three times, and takes the
median of the longest answers. Prints the table and writes it to benchmarks/server_stalls.md; fails
if what should hold nobody up does so for over 100 ms.

Example: python -m benchmarks.server_stalls
"""

import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from mlops_mini.wire import PREDICT_METHOD
from tests.serving import models
from tests.serving.pulse import Pulse, others_at_work
from tests.serving.servers import (
    Server,
    copy_version,
    predict_request,
    run_in_child,
    wait_until,
)
from tests.serving.test_server_versions import model_list

MOST_S = 0.1
N_ROUNDS = 3
N_NUMBERS = 5_200_000
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def measure(folder: Path) -> dict[str, tuple[float, float]]:
    """Return the longest answer and the time that the work took, seconds, by kind of work."""
    for write in (models.write_toy, models.write_large, models.write_constants):
        run_in_child(write, str(folder / write.__name__), log_file=folder / "build.log")
    base, toy = folder / "other", folder / "toy"
    base.mkdir()
    toy.mkdir()
    copy_version(folder / "write_toy", toy / "1")
    file = folder / "models.config"
    file.write_text(model_list(m=toy, other=base))
    server = Server.start(base, folder / "server", f"--model_config_file={file}")
    channel = grpc.insecure_channel(server.grpc, options=UNLIMITED)
    predict = channel.unary_unary(PREDICT_METHOD)
    body = b'{"inputs":[' + b"0.12345678901234567," * N_NUMBERS + b"0]}"
    message = predict_request("x", np.zeros(5 * N_NUMBERS, np.float32))

    def load(name: str) -> Callable[[], None]:
        def loads() -> None:
            copy_version(folder / name, base / "1")
            wait_until(lambda: "AVAILABLE" in state(server), "the load", timeout_s=120)

        return loads

    def unload() -> None:
        shutil.rmtree(base / "1")
        wait_until(lambda: "END" in state(server), "the unload", timeout_s=120)

    works: list[tuple[str, Callable[[], Any]]] = [
        ("nothing else", lambda: time.sleep(1)),
        ("load of 150 MB in 600 variables", load("write_large")),
        ("unload of it", unload),
        ("load of 150 MB in constants of the graph", load("write_constants")),
        ("unload of those constants", unload),
        ("predict over REST, 100 MB of JSON", lambda: server.predict(body)),
        ("predict over gRPC, 100 MB", lambda: predict(message, timeout=120)),
    ]
    seconds: dict[str, list[tuple[float, float]]] = {}
    try:
        with Pulse(server) as pulse:
            for _ in range(N_ROUNDS):
                for name, work in works:
                    began = time.perf_counter()
                    longest = max(pulse.during(work))
                    took = time.perf_counter() - began
                    seconds.setdefault(name, []).append((longest, took))
                with others_at_work():
                    longest = max(pulse.during(lambda: time.sleep(2)))
                seconds.setdefault("nothing, beside one busy program per core", []).append(
                    (longest, 2)
                )
    finally:
        channel.close()
        server.close()
    medians = {}
    for name, rounds in seconds.items():
        longest, took = zip(*rounds, strict=True)
        medians[name] = statistics.median(longest), statistics.median(took)
    return medians


def state(server: Server) -> str:
    """Describe the versions of the model `other`."""
    return server.ask("GET", "/v1/models/other").body.decode()


def main() -> int:
    """Measure, print and write the table; 1 if somebody was kept waiting."""
    with tempfile.TemporaryDirectory() as name:
        measured = measure(Path(name))
    rows = [
        f"| {what} | {longest * 1000:.0f} | {took:.1f} |"
        for what, (longest, took) in measured.items()
    ]
    lines = [
        "# Other answers while a server is at work",
        "",
        "`/healthz` is asked every 10 ms: the longest wait for an answer during each work, and how",
        f"long that took, medians of {N_ROUNDS} rounds. Server and clients share the cores.",
        "",
        "| work | longest wait, ms | work, s |",
        "| --- | ---: | ---: |",
        *rows,
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {psutil.cpu_count()} cores,",
        f"load average {psutil.getloadavg()[0]:.1f},",
        f"Python {platform.python_version()}, TensorFlow {version('tensorflow')}.",
    ]
    table = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(table)
    print(table)
    late = [
        what
        for what, (longest, _) in measured.items()
        if longest > MOST_S and "constants" not in what and "gRPC" not in what
    ]
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
