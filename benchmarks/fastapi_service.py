"""How a model that isn't TensorFlow's is served by FastAPI, beside our model server with its own.

Boosted trees of scikit-learn behind `deploy/fastapi/service.py` and behind the ten lines that
notebook 10 begins with, and the network of `mlops_mini.model.training` in our model server. All
have learned from the same columns of January's flights, and are asked about the same ones. All
servers are up at once, on the same cores as wrk, and are asked in turn: rounds, of which the
medians count. Prints the tables and writes them to benchmarks/fastapi_service.md.

Example: python -m benchmarks.fastapi_service --rounds 3 --seconds 1
"""

import argparse
import ast
import itertools
import json
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits

from benchmarks.server_peers import Peer, end, noise, start
from benchmarks.server_speed import median
from deploy.fastapi import service, train
from mlops_mini.errors import InternalError, NotFoundError
from mlops_mini.flights import year
from mlops_mini.model import training
from tests.serving.servers import free_ports

CONNECTIONS = (1, 16, 64)
N_ROWS = (1, 100)
TEMPLATE = Path(service.__file__).parent
NOTEBOOK = Path("notebooks/10_serve_other_models_with_fastapi.ipynb")
ROUTE = "/v1/models/flights:predict"
SERVER, SERVICE, TEN_LINES = "model server", "service", "ten lines"


def train_both(folder: Path) -> tuple[list[dict[str, object]], dict[str, float]]:
    """Train and write both models; return flights to ask about, and log losses of February."""
    january, february = year.read(["2013-01"]), year.read(["2013-02"])
    columns = list(service.Flight.model_fields)
    trees = train.train(["2013-01"])
    train.publish(trees, folder / "trees" / "flights")
    network = training.train(january.features[columns], january.late)
    training.export(network, folder / "network" / "flights" / "1")
    asked = february.features[columns]
    answers = {
        "trees": trees.predict_proba(asked)[:, 1],
        "network": network.predict(training.as_inputs(asked), verbose=0)["probability"],
    }
    whole = asked.dropna().astype({"mins": int, "dow": int})
    rows = [{str(name): value for name, value in row.items()} for row in whole.to_dict("records")]
    losses = {name: float(log_loss(february.late, p)) for name, p in answers.items()}
    return rows[:: len(rows) // max(N_ROWS)], losses


def ten_lines() -> str:
    """Read the ten lines from the notebook that explains them."""
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        for node in ast.parse("".join(cell["source"])).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ten_lines":
                return str(ast.literal_eval(node.value))
    raise NotFoundError(f"no cell of {NOTEBOOK} assigns ten_lines")


def start_all(folder: Path, rows: list[dict[str, object]]) -> dict[str, Peer]:
    """Start the three servers."""
    bodies = {f"{n} rows": json.dumps({"instances": rows[:n]}).encode() for n in N_ROWS}
    alone = {"1 rows": json.dumps(rows[0]).encode()}
    python, (port_1, port_2, port_3, port_4) = sys.executable, free_ports(4)
    (folder / "ten_lines.py").write_text(ten_lines())
    flags = ["--model_name=flights"]
    trees, network = folder / "trees" / "flights", folder / "network" / "flights"
    commands = {
        SERVER: [
            *(python, "-m", "mlops_mini.serving.server", *flags, f"--port={port_1}"),
            *(f"--model_base_path={network}", f"--rest_api_port={port_2}"),
        ],
        SERVICE: [
            *(python, str(TEMPLATE / "service.py"), *flags),
            *(f"--model_base_path={trees}", f"--rest_api_port={port_3}"),
        ],
        TEN_LINES: [
            *(python, str(folder / "ten_lines.py")),
            *(str(trees / "1" / service.MODEL_FILE), str(port_4)),
        ],
    }
    places = {SERVER: (port_2, ROUTE), SERVICE: (port_3, ROUTE), TEN_LINES: (port_4, "/predict")}
    peers: dict[str, Peer] = {}
    try:
        for name, command in commands.items():
            sent = alone if name == TEN_LINES else bodies
            file = name.replace(" ", "_")
            peers[name] = start(command, folder, file, *places[name], "1 rows", sent)
    except BaseException:
        end(peers.values())
        raise
    return peers


def measure(folder: Path, peers: dict[str, Peer], *, rounds: int, seconds: int) -> None:
    """Ask all of them in turn."""
    for n_rows, peer in itertools.product(N_ROWS, peers.values()):
        if f"{n_rows} rows" in peer.bodies:
            peer.measure(folder, f"{n_rows} rows", 8, 1)  # to warm it up
            peer.results.clear()
    for _ in range(rounds):
        for n_rows, connections in itertools.product(N_ROWS, CONNECTIONS):
            for peer in peers.values():
                if f"{n_rows} rows" in peer.bodies:
                    peer.measure(folder, f"{n_rows} rows", connections, seconds)
    for peer in peers.values():
        peer.pss_mb = peer.process.memory_full_info().pss / 2**20


def predict_ms(base_path: Path) -> float:
    """Measure what the trees themselves take for a flight, median of 200."""
    model, took_ms = service.Model(base_path), []
    with threadpool_limits(1):  # as in the service
        for _ in range(200):
            began = time.perf_counter()
            model.predict([service.EXAMPLE])
            took_ms.append(1e3 * (time.perf_counter() - began))
    return float(np.median(took_ms))


def table_lines(peers: dict[str, Peer]) -> list[str]:
    """Write both tables."""
    lines = [
        "| rows | connections | server | req/s | CPU ms | p50 ms | p99 ms |",
        "| ---: | ---: | :--- | ---: | ---: | ---: | ---: |",
    ]
    for n_rows, connections in itertools.product(N_ROWS, CONNECTIONS):
        for name, peer in peers.items():
            if rounds := peer.results.get((f"{n_rows} rows", connections)):
                lines.append(
                    f"| {n_rows} | {connections} | {name} | {median(rounds, 'requests_s'):,.0f} |"
                    f" {median(rounds, 'cpu_us') / 1e3:.2f} | {median(rounds, 'p50_ms'):.2f} |"
                    f" {median(rounds, 'p99_ms'):.2f} |"
                )
    lines += ["", "| server | start s | memory MB |", "| :--- | ---: | ---: |"]
    lines += [
        f"| {name} | {peer.start_s:.1f} | {peer.pss_mb:.0f} |" for name, peer in peers.items()
    ]
    return lines


def main() -> int:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--no-table", action="store_true", help="print only")
    options = parser.parse_args()
    before = psutil.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows, losses = train_both(folder)
        peers = start_all(folder, rows)
        try:
            one = peers[SERVICE].ask("1 rows")
            if not np.allclose(one, peers[TEN_LINES].ask("1 rows"), atol=1e-9):
                raise InternalError("the service and the ten lines answer differently")
            measure(folder, peers, rounds=options.rounds, seconds=options.seconds)
        finally:
            end(peers.values())
        alone_ms = predict_ms(folder / "trees" / "flights")
    libraries = ("tensorflow", "scikit-learn", "fastapi", "uvicorn", "pydantic")
    lines = [
        "# A FastAPI service beside the model server",
        "",
        "Whether a flight will be late, from the same ten columns. Boosted trees of scikit-learn",
        "answer in the service (`deploy/fastapi/service.py`) and in the ten lines of notebook 10,",
        "which take one flight at a time; a network of Keras answers in the model server. wrk on",
        f"the same cores, medians of {options.rounds} interleaved rounds of {options.seconds} s.",
        "CPU is what a server used for a request; its start is that to the first answer.",
        "",
        *table_lines(peers),
        "",
        f"The trees alone, without a server, take {alone_ms:.1f} ms for a flight. Having learned",
        "from January, their log loss in February is",
        f"{losses['trees']:.3f}, and the network's {losses['network']:.3f}.",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {psutil.cpu_count()} cores,",
        f"load average {before:.1f} before and {psutil.getloadavg()[0]:.1f} after; between rounds",
        f"of one measurement, requests per second differ by {noise({'': peers}):.0%} (median).",
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in libraries)
        + ".",
    ]
    text = "\n".join(lines) + "\n"
    if not options.no_table:
        Path(__file__).with_suffix(".md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
