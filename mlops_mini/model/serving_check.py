"""Check that the model server can serve a model, gives the model's own answers, and is fast enough.

Metrics judge a model that runs in this process, but users get their answers from a server, over the
wire, and send what the baseline takes. So the real server is started on a candidate before anybody
depends on it.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.errors import DeadlineExceededError, MlopsMiniError
from mlops_mini.local_server import LocalServer, Transport
from mlops_mini.model import evaluation, signatures, training
from mlops_mini.model.signatures import Signature

_KILLED = "was killed by"
_TRANSPORTS: tuple[Transport, ...] = ("rest", "grpc")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingCheck:
    """The result of a check.

    Attributes:
        is_servable: Whether the server answered everything as the model itself does.
        finding: One sentence, with the numbers.
        misfit: What callers of the baseline couldn't send or wouldn't get any more; empty if
            nothing.
        latency_ms: Shortest time of a single prediction over REST, NaN if there was none: what the
            model needs, for what other work on the machine adds differs from one to the next. If
            the client gave up waiting, how long it had waited.
    """

    is_servable: bool
    finding: str
    misfit: str = ""
    latency_ms: float = math.nan


def check(
    model: Path,
    test_file: Path,
    *,
    features: Sequence[str],
    baseline: Path | None = None,
    n_rows: int = 50,
    tolerance: float = 1e-5,
    timeout_s: float = 10.0,
) -> ServingCheck:
    """Start the model server on a model and ask it over REST and gRPC, also for its fallback.

    Args:
        model: A SavedModel; it stays where it is.
        test_file: Parquet, the examples to ask about.
        features: The columns to send, all that the model takes.
        baseline: The version that it would replace; whoever asks that one must be able to ask this.
        n_rows: How many examples to ask about, evenly spread; all if there are fewer.
        tolerance: Largest allowed difference from the answer of the model run in this process.
        timeout_s: Seconds to wait for each answer.

    Returns:
        The result. A model that doesn't load, doesn't answer or answers otherwise isn't servable;
        that's no error.

    Raises:
        InvalidArgumentError: The file lacks a feature.
        NotFoundError: The baseline isn't there.
    """
    how = (model, test_file, features, baseline, n_rows, tolerance, timeout_s)
    checked = _check(*how)
    # Somebody may have killed the server; a model that did does it again.
    return _check(*how) if _KILLED in checked.finding else checked


def _check(
    model: Path,
    test_file: Path,
    features: Sequence[str],
    baseline: Path | None,
    n_rows: int,
    tolerance: float,
    timeout_s: float,
) -> ServingCheck:
    with tempfile.TemporaryDirectory(prefix="serving-check-") as folder:
        versions = Path(folder) / "candidate"
        versions.mkdir()
        (versions / "1").symlink_to(model.resolve())
        # First of all, for what follows starts threads, and then a server can't be a fork any more.
        with LocalServer(versions, Path(folder) / "server", is_awaited=False) as server:
            examples = training.read_examples(test_file, features)
            positions = np.linspace(0, len(examples) - 1, min(n_rows, len(examples))).astype(int)
            return _compare(server, model, examples.iloc[positions], baseline, tolerance, timeout_s)


def _compare(
    server: LocalServer,
    model: Path,
    asked: pd.DataFrame,
    baseline: Path | None,
    tolerance: float,
    timeout_s: float,
) -> ServingCheck:
    """Ask a server that has just been started, and the model in this process, the same."""
    differences: dict[str, float] = {}
    misfit, latency_ms = "", math.nan
    default, fallback = signatures.DEFAULT, training.FALLBACK_SIGNATURE
    taken = signatures.read(baseline)[default] if baseline else None
    try:
        own = {default: evaluation.predict(model, asked)}
        sent = {default: asked}
        described = signatures.read(model)
        if fallback in described:  # whoever has no recent features asks it
            own[fallback] = evaluation.predict(model, asked, signature_name=fallback)
            sent[fallback] = asked[list(described[fallback].inputs)]
        misfit = _misfit(described[default], taken) if taken else ""
        server.wait_until_served(1)
        latency_ms = _latency_ms(server, asked, timeout_s)
        for transport in _TRANSPORTS:
            with server.client(transport) as client:
                for name, inputs in sent.items():
                    answer = client.predict(
                        training.as_inputs(inputs), signature=name, timeout_s=timeout_s
                    )
                    whose = f"{transport}, signature {name}" if name != default else transport
                    differences[whose] = _difference(answer["probability"], own[name])
    except MlopsMiniError as exc:
        return ServingCheck(
            is_servable=False, finding=str(exc), misfit=misfit, latency_ms=latency_ms
        )
    worst = max(differences, key=lambda transport: differences[transport])
    is_servable = differences[worst] <= tolerance
    return ServingCheck(
        is_servable=is_servable,
        misfit=misfit,
        latency_ms=latency_ms,
        finding=f"{len(asked)} answers over REST and gRPC "
        + (
            f"are the model's own within {tolerance:g}"
            if is_servable
            else f"differ from the model's own by up to {differences[worst]:.2g} over {worst}"
        ),
    )


def _misfit(signature: Signature, taken: Signature) -> str:
    """Say what callers of one signature would miss in another."""
    named = {
        "takes": (signature.inputs, taken.inputs),
        "answers": (signature.outputs, taken.outputs),
    }
    for does, (own, wanted) in named.items():
        missing = sorted(set(wanted.items()) - set(own.items()))
        added = sorted(set(own.items()) - set(wanted.items())) if does == "takes" else []
        if missing or added:
            names = ", ".join(f"{name} ({dtype})" for name, dtype in missing) or "nothing else"
            others = ", ".join(f"{name} ({dtype})" for name, dtype in added) or "no such"
            return f"the baseline {does} {names}, where it {does} {others}"
    return ""


def _difference(answer: npt.NDArray[Any], own: npt.NDArray[Any]) -> float:
    """Measure the largest difference; what is no number is as far off as can be."""
    return float(np.nan_to_num(np.abs(answer - own), nan=math.inf).max())


def _latency_ms(server: LocalServer, asked: pd.DataFrame, timeout_s: float) -> float:
    """Measure single predictions over REST, until the client gives up on one."""
    times_s = []
    with server.client("rest") as client:
        for row in range(len(asked)):
            inputs = training.as_inputs(asked.iloc[row : row + 1])
            began = time.perf_counter()
            has_answer = True
            try:
                client.predict(inputs, timeout_s=timeout_s)
            except DeadlineExceededError:
                has_answer = False
            times_s.append(time.perf_counter() - began)
            if not has_answer:
                break
    return 1000 * min(times_s)
