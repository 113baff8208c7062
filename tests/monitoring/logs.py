"""Logs of a model that was asked: real files, as the model server writes them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_mini.prediction_log import frame
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse, fill_spec
from mlops_mini.wire_messages import EXACT

START = datetime(2026, 3, 1, tzinfo=UTC)
WEEK_S = 7 * 86_400


def record(
    request_id: str,
    at_s: float,
    inputs: Mapping[str, object],
    probability: object,
    *,
    model: str = "churn",
    version: int = 1,
    output: str = "probability",
) -> bytes:
    """Make a framed record: at_s counts seconds from START."""
    spec = ModelSpec(name=model, version=version, signature_name="serving_default")
    arrays = {alias: np.asarray(value) for alias, value in inputs.items()}
    answered = {output: np.atleast_1d(np.float32(probability))}
    log = EXACT["PredictionLog"]()
    log.predict_log.request = PredictRequest(model_spec=spec, inputs=arrays).to_bytes()
    log.predict_log.response = PredictResponse(model_spec=spec, outputs=answered).to_bytes()
    fill_spec(log.log_metadata.model_spec, spec)
    log.log_metadata.request_id = request_id.encode()
    log.log_metadata.time_us = int((START.timestamp() + at_s) * 1e6)
    return frame(bytes(log.SerializeToString()))


def log_file(folder: Path, number: int, end: str = "") -> Path:
    """Name the n-th file of the log `folder / "log"`."""
    return folder / f"log-20260301T0000{number:02}.000042Z-4711.tfrecord{end}"


def write_weeks(
    folder: Path,
    n_weeks: int,
    *,
    n: int = 200,
    seed: int = 0,
    usd_in_week: Mapping[int, float] = {},
) -> tuple[Path, pd.DataFrame]:
    """Write a log of some weeks, one file each, and the labels that will come.

    The probability is right on average: `usd` is 0 to 1 and the chance of the label. In some weeks
    it's sent times a factor.

    Returns:
        The log's prefix, and labels with `request_id`, `label`, `week`.
    """
    rng = np.random.default_rng(seed)
    labels = []
    for week in range(n_weeks):
        usd, records = rng.uniform(0.05, 0.95, n), []
        for i, at_s in enumerate(np.sort(rng.uniform(0, WEEK_S, n))):
            sent = {
                "usd": np.float32([usd[i] * usd_in_week.get(week, 1.0)]),
                "plan": np.array([rng.choice([b"basic", b"gold"])], object),
                "noise": np.float32([rng.normal() + 3 * week]),
            }
            request_id = f"{week}-{i}"
            records.append(record(request_id, week * WEEK_S + at_s, sent, usd[i]))
            labels.append((request_id, float(rng.random() < usd[i]), week))
        log_file(folder, week).write_bytes(b"".join(records))
    return folder / "log", pd.DataFrame(labels, columns=["request_id", "label", "week"])
