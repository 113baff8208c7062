"""Our HTTP edge beside uvicorn's: one model server behind either, and behind neither.

Both edges stand before the same objects, which read a body, batch it, run it and write the answer.
Ours keeps all its limits. Behind uvicorn an ASGI application of a few lines does what is needed and
nothing else. They are up at once, on the same cores as wrk (Debian package wrk), and are asked in
turn. Prints the table and writes it to benchmarks/http_edge.md; fails if ours answers less than 1.3
times the requests of uvicorn's, for then it isn't worth its lines.

Example: python -m benchmarks.http_edge --rounds 5 --seconds 2
"""

import argparse
import asyncio
import functools
import platform
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import psutil
import uvloop

from benchmarks import server_speed
from benchmarks.server_speed import Measured, median
from mlops_mini.serving import http_protocol, servables
from mlops_mini.serving.example_methods import ExampleMethods
from mlops_mini.serving.http_answers import Answer
from mlops_mini.serving.http_requests import Taker
from mlops_mini.serving.model_config import ModelConfig
from mlops_mini.serving.model_service import ModelService
from mlops_mini.serving.models import Models
from mlops_mini.serving.predict import Predictor
from mlops_mini.serving.rest_api import RestApi
from mlops_mini.serving.workers import Workers

GOAL = 1.3
MODEL, CONNECTIONS = "cnn", 64
PATH = f"/v1/models/{MODEL}:predict"
_ANSWER_HEADERS = [(b"content-type", b"application/json")]


class FutureReply:
    """Hands an answer to whoever awaits it."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def send_json(self, body: bytes) -> None:
        """Answer 200 with this body."""
        self.answer.set_result((200, body))

    def send(self, answer: Answer) -> None:
        """Answer anything."""
        self.answer.set_result((answer.status, answer.body))


async def asgi(
    take: Taker, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[..., Any]
) -> None:
    """Answer predict requests of one model under ASGI."""
    if scope["type"] != "http":
        return
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    reply = FutureReply()
    status, text = 500, b""
    if take(body, reply, False):
        status, text = await reply.answer
    length = (b"content-length", b"%d" % len(text))
    headers = [*_ANSWER_HEADERS, length]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def serve(edge: str, base_path: str, address_file: Path) -> None:
    """Serve one model behind one edge until the process is ended."""
    models = Models(_load)
    await asyncio.to_thread(
        models.replace, [ModelConfig(name=MODEL, base_path=base_path)], timeout_s=120
    )
    workers = Workers(psutil.cpu_count() or 1)
    rest = RestApi(
        models=models,
        workers=workers,
        predictor=Predictor(models.by_name, workers),
        examples=ExampleMethods(models.by_name),
        model_service=ModelService(models),
    )
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listening.getsockname()[1]
    take = rest.find_taker("POST", PATH.encode(), {})
    if take is None:
        raise SystemExit(f"nobody takes {PATH}")
    for _ in range(100):  # the first runs teach how long a run takes
        body = server_speed.bodies()[MODEL][1]
        await rest.respond("POST", PATH.encode(), {}, body)
    if edge == "ours":
        await http_protocol.serve(rest.respond, listening, find_taker=rest.find_taker)
        server: Awaitable[Any] = asyncio.Event().wait()
    else:
        import uvicorn

        config = uvicorn.Config(
            functools.partial(asgi, take),
            interface="asgi3",
            http="httptools",
            log_level="error",
            access_log=False,
        )
        server = uvicorn.Server(config).serve([listening])
    unfinished = address_file.with_suffix(".unfinished")
    unfinished.write_bytes(orjson.dumps({"rest": f"127.0.0.1:{port}"}))
    unfinished.rename(address_file)
    await server


def _load(name: str, folder: Path, version_number: int) -> servables.Servable:
    return servables.load(folder, name=name, version=version_number, intra_op_threads=1)


def measure(folder: Path, rounds: int, seconds: int) -> dict[str, list[Measured]]:
    """Ask both edges in turn."""
    base_path = server_speed.write_models(folder, [MODEL])[MODEL]
    script = server_speed.write_script(folder, MODEL, server_speed.bodies()[MODEL][1])
    results: dict[str, list[Measured]] = {"ours": [], "uvicorn": []}
    servers = {}
    try:
        for edge in results:
            arguments = ("serve", edge, str(base_path), str(folder / f"{edge}.json"))
            servers[edge] = server_speed.start(folder, edge, "benchmarks.http_edge", *arguments)
            server_speed.load(servers[edge], script, PATH, CONNECTIONS, 2)
        for _ in range(rounds):
            for edge, measured in results.items():
                measured.append(
                    server_speed.load(servers[edge], script, PATH, CONNECTIONS, seconds)
                )
    finally:
        for process, _ in servers.values():
            process.kill()
            process.wait()
    return results


def main() -> int:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    before = psutil.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), options.rounds, options.seconds)
    speeds = {edge: median(measured, "requests_s") for edge, measured in results.items()}
    ratio = speeds["ours"] / speeds["uvicorn"]
    lines = [
        "# Our HTTP edge beside uvicorn's",
        "",
        f"The CNN, one image in a request, {CONNECTIONS} connections, wrk on the same cores;",
        f"medians of {options.rounds} interleaved rounds of {options.seconds} s. The same objects",
        "read, batch, run and write behind both; ours keeps all its limits.",
        "",
        "| edge | requests/s | CPU us per request | p50, p99 ms |",
        "| --- | ---: | ---: | ---: |",
        *[
            f"| {edge} | {speeds[edge]:,.0f} | {median(one, 'cpu_us'):.0f} |"
            f" {median(one, 'p50_ms'):.2f}, {median(one, 'p99_ms'):.2f} |"
            for edge, one in results.items()
        ],
        "",
        f"Ours answers {ratio:.2f} times as many requests; below {GOAL} it would have to go.",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {psutil.cpu_count()} cores,",
        f"load average {before:.1f} before and {psutil.getloadavg()[0]:.1f} after,",
        f"Python {platform.python_version()}, uvicorn {version('uvicorn')}.",
    ]
    text = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(text)
    print(text)
    return int(ratio < GOAL)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(*sys.argv[2:4], Path(sys.argv[4])))  # type: ignore[call-arg]
    else:
        sys.exit(main())
