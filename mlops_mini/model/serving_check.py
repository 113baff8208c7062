"""Check that the model server can serve a model, and gives the model's own answers.

Metrics judge a model that runs in this process, but users get their answers from a server, over the
wire. So the real server is started on a candidate before anybody depends on it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlops_mini.errors import MlopsMiniError
from mlops_mini.local_server import LocalServer, Transport
from mlops_mini.model import evaluation, training

_TRANSPORTS: tuple[Transport, ...] = ("rest", "grpc")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingCheck:
    """The result of a check.

    Attributes:
        is_servable: Whether the server answered everything as the model itself does.
        finding: One sentence, with the numbers.
    """

    is_servable: bool
    finding: str


def check(
    model: Path,
    test_file: Path,
    *,
    features: Sequence[str],
    n_rows: int = 50,
    tolerance: float = 1e-5,
) -> ServingCheck:
    """Start the model server on a model and ask it over REST and gRPC.

    Args:
        model: A SavedModel; it stays where it is.
        test_file: Parquet, the examples to ask about.
        features: The columns to send, all that the model takes.
        n_rows: How many examples to ask about, evenly spread; all if there are fewer.
        tolerance: Largest allowed difference from the answer of the model run in this process.

    Returns:
        The result. A model that doesn't load, doesn't answer or answers otherwise isn't servable;
        that's no error.

    Raises:
        InvalidArgumentError: The file lacks a feature.
    """
    examples = training.read_examples(test_file, features)
    positions = np.linspace(0, len(examples) - 1, min(n_rows, len(examples))).astype(int)
    asked = examples.iloc[positions]
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
