"""Whether a server can serve a model, and answers what the model itself answers.

Metrics judge a model that runs in this process. What users get comes from a server, over the wire:
so the real one is started on the candidate before anybody depends on it.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_mini.errors import MlopsMiniError
from mlops_mini.flights.arrivals import LABEL
from mlops_mini.local_server import LocalServer, Transport
from mlops_mini.model import evaluation, training

_TRANSPORTS: tuple[Transport, ...] = ("rest", "grpc")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingCheck:
    """What came of it.

    Attributes:
        is_servable: Whether all answers are there and right.
        finding: One sentence, with the numbers.
    """

    is_servable: bool
    finding: str


def check(
    model: Path, test_file: Path, *, n_rows: int = 50, tolerance: float = 1e-5
) -> ServingCheck:
    """Start the model server on a model and ask it over REST and gRPC.

    Args:
        model: A SavedModel; it stays where it is.
        test_file: Flights to ask about, as `arrivals.write_examples` writes them.
        n_rows: How many of them, evenly spread; all if there are fewer.
        tolerance: Largest difference between an answer and the model run in this process.

    Returns:
        The finding. A model that does not load, does not answer or answers otherwise is one, not
        an error.
    """
    flights = pd.read_parquet(test_file).drop(columns=["flight_id", LABEL])
    at = np.linspace(0, len(flights) - 1, min(n_rows, len(flights))).astype(int)
    asked = flights.iloc[at]
    differences = {}
    try:
        own = evaluation.predict(model, asked)
        with tempfile.TemporaryDirectory(prefix="serving-check-") as folder:
            versions = Path(folder) / "candidate"
            shutil.copytree(model, versions / "1")
            with LocalServer(versions, Path(folder) / "server") as server:
                server.wait_until_served(1)
                for transport in _TRANSPORTS:
                    with server.client(transport) as client:
                        answer = client.predict(training.as_inputs(asked))["probability"]
                    differences[transport] = float(np.abs(answer - own).max())
    except MlopsMiniError as exc:
        return ServingCheck(is_servable=False, finding=str(exc))
    worst = max(differences, key=lambda transport: differences[transport])
    is_servable = differences[worst] <= tolerance
    return ServingCheck(
        is_servable=is_servable,
        finding=f"{len(asked)} answers over REST and gRPC "
        + (
            f"are the model's own within {tolerance:g}"
            if is_servable
            else f"differ from the model's own by up to {differences[worst]:.2g} over {worst}"
        ),
    )
