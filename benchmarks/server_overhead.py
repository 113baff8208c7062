"""What it costs a model server to count and to log what it does.

Servers that differ only in their flags are up at once and are asked in turn by wrk (Debian package
wrk): many short rounds, in a changing order. What counts is the median of the rounds' ratios to the
server that does neither; whatever else the machine does hits all of them. A page of metrics is read
every second meanwhile, as Prometheus does four times a minute. Prints the table and writes it to
benchmarks/server_overhead.md; fails if a server answers less than 0.95 of what the first one does.

Example: python -m benchmarks.server_overhead --rounds 20
"""

import argparse
import contextlib
import itertools
import platform
import random
import statistics
import sys
import tempfile
import threading
import urllib.request
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.server_speed import SCRIPT, Measured, bodies, load, write_models
from tests.serving.servers import Server

LEAST_RATIO = 0.95
LOADS = ("half_plus_two", "tabular")  # the least that a request can cost, and an ordinary one
CONNECTIONS = (1, 64)
PATH = "/monitoring/prometheus/metrics"
MONITORING = "--monitoring_config_file={folder}/monitoring.config"
# What each server does beside answering, and its flags; `{folder}` is filled in.
VARIANTS: dict[str, tuple[str, ...]] = {
    "neither": (),
    "metrics": (MONITORING,),
    # A log of 1 % of the requests belongs here, with MONITORING.
}


def scrape(address: str, is_over: threading.Event) -> None:
    """Read the page of metrics every second."""
    while not is_over.wait(1):
        with urllib.request.urlopen(f"http://{address}{PATH}", timeout=60) as answer:
            answer.read()


def measure(
    folder: Path, *, rounds: int, seconds: int
) -> dict[tuple[str, int, str], list[Measured]]:
    """Measure all servers in turn; the results are by load, connections and server."""
    base_paths = write_models(folder, LOADS)
    (folder / "monitoring.config").write_text("prometheus_config { enable: true }")
    config = " ".join(
        f'config {{ name: "{name}" base_path: "{base_paths[name]}" model_platform: "tensorflow" }}'
        for name in LOADS
    )
    (folder / "models.config").write_text(f"model_config_list {{ {config} }}")
    results: dict[tuple[str, int, str], list[Measured]] = {}
    is_over = threading.Event()
    with contextlib.ExitStack() as stack:
        servers = {}
        for name, flags in VARIANTS.items():
            config_flag = f"--model_config_file={folder}/models.config"
            filled = [flag.format(folder=folder) for flag in flags]
            server_folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = Server.start(folder, server_folder, config_flag, *filled)
            stack.callback(server.close)
            servers[name] = psutil.Process(server.process.pid), server.rest
            if MONITORING in flags:
                thread = threading.Thread(target=scrape, args=[server.rest, is_over])
                thread.start()
                stack.callback(thread.join)
                stack.callback(is_over.set)
        scripts = {}
        for name in LOADS:
            (folder / f"{name}.body").write_bytes(bodies()[name][1])
            scripts[name] = folder / f"{name}.lua"
            scripts[name].write_text(SCRIPT.format(body=folder / f"{name}.body"))
        for name, connections, asked in itertools.product(LOADS, CONNECTIONS, servers.values()):
            load(asked, scripts[name], name, connections, 1)
        order = list(servers)
        for _ in range(rounds):
            for name, connections in itertools.product(LOADS, CONNECTIONS):
                random.shuffle(order)
                for label in order:
                    measured = load(servers[label], scripts[name], name, connections, seconds)
                    results.setdefault((name, connections, label), []).append(measured)
    return results


def ratio(first: list[Measured], other: list[Measured], what: str) -> float:
    """Take the median of the rounds' ratios."""
    pairs = zip(first, other, strict=True)
    return statistics.median(getattr(b, what) / getattr(a, what) for a, b in pairs)


def main() -> int:
    """Measure, print and write the table; 1 if it costs too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep the models there")
    options = parser.parse_args()
    before = psutil.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        results = measure(folder, rounds=options.rounds, seconds=options.seconds)
    reference, *others = VARIANTS
    rows, ratios = [], []
    for name, connections, other in itertools.product(LOADS, CONNECTIONS, others):
        first, measured = results[name, connections, reference], results[name, connections, other]
        ratios.append(ratio(first, measured, "requests_s"))
        rows.append(
            f"| {name} | {connections} | {other}"
            f" | {statistics.median(m.requests_s for m in first):,.0f}"
            f" | {statistics.median(m.requests_s for m in measured):,.0f} | {ratios[-1]:.3f}"
            f" | {ratio(first, measured, 'cpu_us'):.3f} |"
        )
    busy = (
        " Others were at work on this machine: the rates say little, the CPU per request more."
        if before > (psutil.cpu_count() or 1)
        else ""
    )
    lines = [
        "# What counting and logging cost",
        "",
        f"REST, wrk on the same cores, {options.rounds} rounds of {options.seconds} s each; ratios",
        "are medians of the rounds' own. `python -m benchmarks.server_overhead` makes this table.",
        "",
        f"| load | connections | with | {reference}, req/s | with it | ratio | CPU ratio |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
        *rows,
        "",
        f"All in all {statistics.geometric_mean(ratios):.3f}.{busy}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {psutil.cpu_count()} cores,",
        f"load average {before:.1f} before and {psutil.getloadavg()[0]:.1f} after,",
        f"Python {platform.python_version()}, TensorFlow {version('tensorflow')}.",
    ]
    text = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(text)
    print(text)
    return 0 if statistics.geometric_mean(ratios) >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
