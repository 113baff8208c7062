"""Evaluate an exported model, and judge a candidate against its baseline.

The model is run as it will be served: from its SavedModel, through its signature.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.pipeline import training

# Keras' own epsilon, and about what float32 can tell from 1: a sure and wrong answer costs 16.1.
_MIN_PROBABILITY = 1e-7


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """How good predictions are on some rows.

    Attributes:
        n_rows: Number of rows.
        auc: Area under the ROC curve, 0 to 1; NaN where all labels are equal and it has no meaning.
        log_loss: Mean negative log likelihood per row, nats.
        base_rate: Share of the rows whose label is 1, 0 to 1.
        base_rate_log_loss: Log loss of always predicting the base rate of these very rows, nats: a
            model must be below it to be of use.
    """

    n_rows: int
    auc: float
    log_loss: float
    base_rate: float
    base_rate_log_loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the gate says about a candidate.

    Attributes:
        is_blessed: True when the candidate may be published.
        reason: One sentence, with the numbers that decided.
    """

    is_blessed: bool
    reason: str


def predict(
    version_folder: Path, features: pd.DataFrame, *, batch_size: int = 8192
) -> npt.NDArray[np.float32]:
    """Run an exported model over rows.

    Args:
        version_folder: A SavedModel whose `serving_default` answers `probability`.
        features: One row per example; columns that the model does not ask for are ignored.
        batch_size: Rows per run; bounds the memory used and does not change the answer.

    Returns:
        Probability of label 1 for each row, shape [n_rows], 0 to 1.

    Raises:
        NotFoundError: There is no SavedModel in the folder.
        InvalidArgumentError: The model has no such signature, or it asks for a feature that is not
            there or is a string instead of a number or the other way round.
    """
    import tensorflow as tf

    if not (version_folder / "saved_model.pb").is_file():
        raise NotFoundError(f"no SavedModel in {version_folder}: export or publish one there first")
    loaded = tf.saved_model.load(str(version_folder))
    signature = loaded.signatures.get("serving_default")
    if signature is None or "probability" not in signature.structured_outputs:
        raise InvalidArgumentError(
            f"{version_folder} answers no `probability` in a signature `serving_default`: "
            "export it with training.export"
        )
    wanted = signature.structured_input_signature[1]
    inputs = training.as_inputs(features[[name for name in wanted if name in features]])
    unfit = [
        f"{name} ({spec.dtype.name})"
        for name, spec in sorted(wanted.items())
        if name not in inputs or (inputs[name].dtype == object) != (spec.dtype == tf.string)
    ]
    if unfit:
        raise InvalidArgumentError(
            f"{version_folder} needs {', '.join(unfit)}; the features are "
            f"{features.dtypes.astype(str).to_dict()}"
        )
    starts = range(0, max(len(features), 1), batch_size)
    batches = [
        signature(**{n: tf.constant(a[i : i + batch_size]) for n, a in inputs.items()})
        for i in starts
    ]
    return np.concatenate([batch["probability"].numpy() for batch in batches])


def measure(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Metrics:
    """Measure predictions against what came true.

    Args:
        probabilities: Predicted probability of label 1, shape [n_rows], 0 to 1; 0 and 1 themselves
            count as 1e-7 off.
        labels: 0 or 1, shape [n_rows].

    Returns:
        The metrics of these rows.

    Raises:
        InvalidArgumentError: A prediction is NaN or outside 0 to 1, or the labels do not fit.

    >>> metrics = measure([0.1, 0.4, 0.3, 0.8], labels=[0, 0, 1, 1])
    >>> metrics.auc, round(metrics.log_loss, 3), round(metrics.base_rate_log_loss, 3)
    (0.75, 0.511, 0.693)
    """
    import scipy.stats
    import sklearn.metrics

    predicted = np.asarray(probabilities, np.float64)
    if predicted.ndim != 1:
        raise InvalidArgumentError(
            f"probabilities must have shape [n_rows], got {list(predicted.shape)}"
        )
    observed = training.as_labels(labels, n_rows=predicted.size)
    if n_nan := int(np.isnan(predicted).sum()):
        raise InvalidArgumentError(
            f"{n_nan} of {len(predicted)} predictions are NaN: the model, not the rows, is broken"
        )
    if predicted.min() < 0 or predicted.max() > 1:
        raise InvalidArgumentError(
            f"probabilities must be 0 to 1, got {predicted.min():.3g} to {predicted.max():.3g}"
        )
    base_rate = float(observed.mean())
    clipped = predicted.clip(_MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    auc: Any = sklearn.metrics.roc_auc_score(observed, predicted) if 0 < base_rate < 1 else np.nan
    return Metrics(
        n_rows=len(observed),
        auc=float(auc),
        log_loss=float(sklearn.metrics.log_loss(observed, clipped, labels=[0, 1])),
        base_rate=base_rate,
        base_rate_log_loss=float(scipy.stats.entropy([base_rate, 1 - base_rate])),
    )


def judge(candidate: Metrics, baseline: Metrics | None) -> Verdict:
    """Decide whether a candidate may be published.

    It is blessed when its log loss is not above the baseline's on the same rows.

    Args:
        candidate: Metrics of the new model.
        baseline: Metrics of the model that would be replaced; None when there is none yet.

    Returns:
        The verdict and its reason.

    Raises:
        InvalidArgumentError: The two were not measured on the same rows.

    >>> old = measure([0.1, 0.4, 0.3, 0.8], labels=[0, 0, 1, 1])
    >>> judge(measure([0.1, 0.4, 0.2, 0.8], labels=[0, 0, 1, 1]), old)
    Verdict(is_blessed=False, reason="log loss 0.6122 is worse than the baseline's 0.5108")
    """
    if baseline is None:
        return Verdict(
            is_blessed=True,
            reason=f"log loss {candidate.log_loss:.4f}, and no baseline to compare it with "
            f"(always predicting the base rate: {candidate.base_rate_log_loss:.4f})",
        )
    rows = [(metrics.n_rows, metrics.base_rate) for metrics in (candidate, baseline)]
    if rows[0] != rows[1]:
        raise InvalidArgumentError(
            "candidate and baseline must be measured on the same rows, got (n_rows, base_rate) "
            f"{rows[0]} and {rows[1]}"
        )
    is_blessed = candidate.log_loss <= baseline.log_loss
    relation = "not worse" if is_blessed else "worse"
    return Verdict(
        is_blessed=is_blessed,
        reason=f"log loss {candidate.log_loss:.4f} is {relation} than the baseline's "
        f"{baseline.log_loss:.4f}",
    )
