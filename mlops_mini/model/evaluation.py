"""Evaluate an exported model: its answers, and how good they are.

The model is run as it will be served: from its SavedModel, through its signature.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data import tensors
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.model import signatures, training
from mlops_mini.model.digest import check_digest

# Keras' own epsilon, and about what float32 can tell from 1: a sure and wrong answer costs 16.1.
_MIN_PROBABILITY = 1e-7
# A softmax in float32 over many classes sums to 1 within less than this.
_SUM_TOLERANCE = 1e-3
_OVERALL, _ALL = "overall", "all"

SliceMetrics = dict[str, dict[str, "Metrics"]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """How good predictions are on some rows.

    Attributes:
        n_rows: Number of rows.
        auc: Area under the ROC curve, 0 to 1; NaN if all labels are equal, for it has no meaning.
            Of more classes than two, the mean of each class against all others.
        log_loss: Mean negative log likelihood per row, nats.
        base_rate: Share of the rows whose label is 1, 0 to 1. Of more classes than two, the share
            of the most frequent one.
        base_rate_log_loss: Log loss of always predicting the share of each class in these very
            rows, nats: a model must be below it to be of use.
    """

    n_rows: int
    auc: float
    log_loss: float
    base_rate: float
    base_rate_log_loss: float


_NO_METRICS = Metrics(
    n_rows=0, auc=math.nan, log_loss=math.nan, base_rate=math.nan, base_rate_log_loss=math.nan
)


def predict(
    version_folder: Path,
    features: pd.DataFrame,
    *,
    batch_size: int = 8192,
    signature_name: str = signatures.DEFAULT,
) -> npt.NDArray[np.float32]:
    """Run an exported model over rows.

    Args:
        version_folder: A SavedModel whose `serving_default` answers `probability`.
        features: One row per example; columns that the model does not ask for are ignored.
        batch_size: Rows per run; bounds the memory used and does not change the answer. Of tensors
            a sixteenth.
        signature_name: Which of its signatures to run.

    Returns:
        Probability of label 1 for each row, shape [n_rows], 0 to 1; of more classes than two,
        probability of each, shape [n_rows, n_classes].

    Raises:
        NotFoundError: There is no SavedModel in the folder.
        DataIntegrityError: Its files are damaged.
        InvalidArgumentError: The model has no such signature, or it asks for a feature that is not
            there, or is a string instead of a number or the other way round, or a tensor of another
            dtype or shape.
    """
    import tensorflow as tf

    loaded = signatures.load(version_folder)  # its variables live as long as it does
    function = loaded.signatures[signature_name]
    wanted = function.structured_input_signature[1]
    inputs = training.as_inputs(features[[name for name in wanted if name in features]])
    given = {name: signatures.type_of(values) for name, values in inputs.items()}
    unfit = [
        f"{name} ({signatures.type_of(spec)})"
        for name, spec in sorted(wanted.items())
        if given.get(name) != signatures.type_of(spec)
    ]
    if unfit:
        raise InvalidArgumentError(
            f"{version_folder} needs {', '.join(unfit)}; the features are "
            f"{ {str(name): tensors.kind_of(column) for name, column in features.items()} }"
        )
    if any(values.ndim > 1 for values in inputs.values()):
        batch_size = max(1, batch_size // 16)
    starts = range(0, max(len(features), 1), batch_size)
    batches = [
        function(**{n: tf.constant(a[i : i + batch_size]) for n, a in inputs.items()})
        for i in starts
    ]
    return np.concatenate([batch["probability"].numpy() for batch in batches])


def are_probabilities(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell which answers are probabilities, so neither NaN nor outside 0 to 1.

    Args:
        values: Shape [n_rows], or [n_rows, n_classes]: then each row must sum to 1 too.
    """
    with np.errstate(invalid="ignore"):
        is_one = np.asarray((values >= 0) & (values <= 1))
        if is_one.ndim == 1:
            return is_one
        return np.asarray(is_one.all(axis=1) & (abs(values.sum(axis=1) - 1) < _SUM_TOLERANCE))


def log_loss_per_row(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Compute the loss of each prediction.

    Args:
        probabilities: Predicted probability of label 1, shape [n_rows], 0 to 1; of more classes
            than two, the probability of each, shape [n_rows, n_classes]. 0 and 1 themselves count
            as 1e-7 off.
        labels: 0 or 1, or the number of a class, shape [n_rows].

    Returns:
        Negative log likelihood of each label, nats, shape [n_rows].

    Raises:
        InvalidArgumentError: A prediction is NaN or outside 0 to 1, or those of a row don't sum to
            1, or the labels don't fit.

    >>> log_loss_per_row([0.5, 0.5, 0.9], labels=[0, 1, 1]).round(3).tolist()
    [0.693, 0.693, 0.105]
    >>> log_loss_per_row([[0.5, 0.25, 0.25], [0.9, 0.1, 0.0]], labels=[2, 0]).round(3).tolist()
    [1.386, 0.105]
    """
    predicted = np.asarray(probabilities, np.float64)
    if predicted.ndim not in (1, 2) or predicted.shape[1:] in ((0,), (1,), (2,)):
        raise InvalidArgumentError(
            "probabilities must have shape [n_rows], or [n_rows, n_classes] of more classes than"
            f" two, got {list(predicted.shape)}"
        )
    n_classes = n_classes_of(predicted)
    observed = training.as_labels(labels, n_rows=len(predicted), n_classes=n_classes)
    if n_nan := int(np.isnan(predicted).sum()):
        raise InvalidArgumentError(
            f"{n_nan} of {predicted.size} predictions are NaN: the model, not the rows, is broken"
        )
    if predicted.min() < 0 or predicted.max() > 1:
        raise InvalidArgumentError(
            f"probabilities must be 0 to 1, got {predicted.min():.3g} to {predicted.max():.3g}"
        )
    if n_odd := int((~are_probabilities(predicted)).sum()):
        raise InvalidArgumentError(
            f"probabilities of {n_odd} of {len(predicted)} rows don't sum to 1 over the classes"
        )
    clipped = predicted.clip(_MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    if n_classes > 2:
        of_observed = clipped[np.arange(len(clipped)), observed.astype(int)]
    else:
        of_observed = np.where(observed == 1, clipped, 1 - clipped)
    losses: npt.NDArray[np.float64] = -np.log(of_observed)
    return losses


def n_classes_of(probabilities: npt.NDArray[Any]) -> int:
    """Tell by the shape of predictions how many classes they are about."""
    return 2 if probabilities.ndim == 1 else int(probabilities.shape[1])


def auc(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
    """Compute the area under the ROC curve, 0 to 1; NaN if all labels are equal.

    Of more classes than two, it's the mean of those of each class against all others, for the
    classes that some labels are of.

    >>> auc(np.array([0.1, 0.4, 0.3, 0.8]), np.array([0, 0, 1, 1]))
    0.75
    >>> auc(np.array([[0.6, 0.2, 0.2], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3]]), np.array([0, 1, 2]))
    0.9166666666666666
    """
    import scipy.stats

    if probabilities.ndim > 1:
        there = np.unique(labels).astype(int)
        return float(np.mean([auc(probabilities[:, each], labels == each) for each in there]))
    n_positive = int(labels.sum())
    n_negative = len(labels) - n_positive
    if not n_positive or not n_negative:
        return math.nan
    ranks = scipy.stats.rankdata(probabilities)
    n_ordered = ranks[labels == 1].sum() - n_positive * (n_positive + 1) / 2
    return float(n_ordered / (n_positive * n_negative))


def measure(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Metrics:
    """Measure predictions against what came true.

    Args:
        probabilities: As `log_loss_per_row` takes them.
        labels: As it takes them.

    Returns:
        The metrics of these rows.

    Raises:
        InvalidArgumentError: As `log_loss_per_row` does.

    >>> metrics = measure([0.1, 0.4, 0.3, 0.8], labels=[0, 0, 1, 1])
    >>> metrics.auc, round(metrics.log_loss, 3), round(metrics.base_rate_log_loss, 3)
    (0.75, 0.511, 0.693)
    """
    import scipy.stats

    losses = log_loss_per_row(probabilities, labels)
    predicted, observed = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    shares = np.bincount(observed.astype(int), minlength=2) / len(observed)
    is_binary = predicted.ndim == 1
    return Metrics(
        n_rows=len(observed),
        auc=auc(predicted, observed),
        log_loss=float(losses.mean()),
        base_rate=float(observed.mean() if is_binary else shares.max()),
        base_rate_log_loss=float(scipy.stats.entropy(shares)),
    )


def measure_slices(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, slices: Mapping[str, "pd.Series[Any]"]
) -> SliceMetrics:
    """Measure predictions slice by slice.

    Args:
        probabilities: As `log_loss_per_row` takes them.
        labels: As it takes them.
        slices: The columns to slice by, by name: one value per row, by position. If a column is
            categorical, each of its categories is a slice, even one without a row.

    Returns:
        Metrics by column and value, sorted by value or in the order of the categories. A slice
        without a row has `n_rows` 0 and NaN for the rest.

    Raises:
        InvalidArgumentError: As `measure` does; or a column has more or fewer rows.

    >>> plan = pd.Series(pd.Categorical(["basic", "basic", "pro"], ["basic", "pro", "trial"]))
    >>> by_plan = measure_slices([0.1, 0.4, 0.3], [0, 1, 1], {"plan": plan})["plan"]
    >>> {value: (metrics.n_rows, metrics.auc) for value, metrics in by_plan.items()}
    {'basic': (2, 1.0), 'pro': (1, nan), 'trial': (0, nan)}
    """
    predicted, observed = np.asarray(probabilities), np.asarray(labels)
    metrics: SliceMetrics = {}
    for name, values in slices.items():
        if len(values) != len(predicted):
            raise InvalidArgumentError(
                f"{name} slices {len(values)} rows, there are {len(predicted)} predictions"
            )
        texts = values.to_numpy(str)
        dtype = values.dtype
        is_in_slice = {
            str(value): texts == str(value)
            for value in (
                dtype.categories if isinstance(dtype, pd.CategoricalDtype) else np.unique(texts)
            )
        }
        metrics[name] = {
            value: measure(predicted[is_in], observed[is_in]) if is_in.any() else _NO_METRICS
            for value, is_in in is_in_slice.items()
        }
    return metrics


def evaluate(
    model: Path,
    test_file: Path,
    metrics_file: Path,
    predictions_file: Path,
    *,
    key: str,
    label: str,
    slices: Sequence[str],
    features: Sequence[str],
    baseline: Path | None = None,
    baseline_digest: str = "",
) -> Metrics:
    """Measure a candidate and its baseline on the same examples, overall and by slice.

    Args:
        model: The candidate, a SavedModel.
        test_file: Parquet, one row per example.
        metrics_file: Gets the metrics as JSON: of `candidate` and of `baseline` (null if there is
            none), by `overall` and by each of `slices`, and there by value (overall: `all`); NaN is
            null.
        predictions_file: Gets a parquet file of the key and the probabilities that `candidate`,
            `baseline` and the candidate's `fallback` answer, one row per example, in order; without
            a baseline or a fallback there's no such column.
        key: The column that tells examples apart.
        label: The column that's predicted, 0 or 1 or the number of a class in each row.
        slices: The columns to slice by, as `measure_slices` does.
        features: The columns that the models may read.
        baseline: The version that would be replaced, if there is one.
        baseline_digest: Its `model_digest` when it was chosen.

    Returns:
        The candidate's metrics overall. If one of its answers is no probability, they're all NaN.

    Raises:
        NotFoundError: A model isn't there.
        DataIntegrityError: The baseline has another digest by now.
        InvalidArgumentError: The file lacks a column or has two rows of one key; or a model needs
            another feature.
    """
    if baseline:
        check_digest(baseline, baseline_digest)
    examples = _read(test_file, key, [label, *slices, *features])

    folders = {"candidate": model} | ({"baseline": baseline} if baseline else {})
    predictions = {
        name: predict(folder, examples[list(features)]) for name, folder in folders.items()
    }
    reports: dict[str, SliceMetrics | None] = {"baseline": None}
    for name, probabilities in predictions.items():
        if name == "candidate" and not are_probabilities(probabilities).all():
            # That's for the gate to refuse.
            reports[name] = {
                _OVERALL: {_ALL: dataclasses.replace(_NO_METRICS, n_rows=len(examples))}
            }
        else:
            reports[name] = _report(probabilities, examples, label=label, slices=slices)
    if training.FALLBACK_SIGNATURE in signatures.read(model):
        predictions[training.FALLBACK_SIGNATURE] = predict(
            model, examples[list(features)], signature_name=training.FALLBACK_SIGNATURE
        )
    columns = {
        name: tensors.column(values).array if values.ndim > 1 else values
        for name, values in predictions.items()
    }
    tensors.write_parquet(examples[[key]].assign(**columns), predictions_file)
    _write(reports, metrics_file)
    return overall(metrics_file)["candidate"]


def score(
    predictions_file: Path,
    test_file: Path,
    metrics_file: Path,
    *,
    key: str,
    label: str,
    slices: Sequence[str],
) -> Metrics:
    """Measure predictions that were made elsewhere, as `evaluate` measures those of a candidate.

    Args:
        predictions_file: Parquet with the key and `probability`, in any order.
        test_file: Parquet, one row per example.
        metrics_file: Gets the metrics as JSON, those of a `candidate` alone.
        key: The column that tells examples apart.
        label: The column that's predicted, 0 or 1 in each row.
        slices: The columns to slice by, as `measure_slices` does.

    Returns:
        The metrics overall.

    Raises:
        InvalidArgumentError: There isn't exactly one prediction for each example; or a file lacks a
            column or has two rows of one key.
    """
    examples = _read(test_file, key, [label, *slices])
    predictions = _read(predictions_file, key, ["probability"]).set_index(key)["probability"]
    if set(predictions.index) != set(examples[key]):
        raise InvalidArgumentError(
            f"{predictions_file} has {len(predictions)} predictions for other examples than the"
            f" {len(examples)} of {test_file}: predict each {key} there once"
        )
    probabilities = tensors.to_numpy(predictions.loc[examples[key]])
    report = _report(probabilities, examples, label=label, slices=slices)
    _write({"candidate": report}, metrics_file)
    return report[_OVERALL][_ALL]


def overall(metrics_file: Path) -> dict[str, Metrics]:
    """Read the metrics on all examples from what `evaluate` or `score` has written, by model."""
    reports = json.loads(metrics_file.read_text(), object_hook=_with_nan)
    return {name: Metrics(**report[_OVERALL][_ALL]) for name, report in reports.items() if report}


def _read(file: Path, key: str, columns: Sequence[str]) -> pd.DataFrame:
    """Read columns of a file in which each row has a key of its own."""
    rows = training.read_examples(file, [key, *columns])
    if n_repeated := int(rows[key].duplicated().sum()):
        raise InvalidArgumentError(
            f"{n_repeated} of {len(rows)} rows in {file} repeat the {key} of another row and would"
            f" count twice: keep one row for each {key}"
        )
    return rows


def _report(
    probabilities: npt.ArrayLike, examples: pd.DataFrame, *, label: str, slices: Sequence[str]
) -> SliceMetrics:
    if _OVERALL in slices:
        raise InvalidArgumentError(
            f"a column named {_OVERALL!r} can't be a slice, for the metrics of all rows have that"
            " name: rename the column"
        )
    whole = pd.Series(pd.Categorical([_ALL] * len(examples), [_ALL]))
    columns = {_OVERALL: whole, **{name: examples[name] for name in slices}}
    return measure_slices(probabilities, examples[label], columns)


def _write(reports: Mapping[str, SliceMetrics | None], metrics_file: Path) -> None:
    """Write metrics as JSON that any reader takes, so without NaN."""
    text = json.dumps(reports, default=_without_nan, indent=2, allow_nan=False)
    metrics_file.write_text(text + "\n")


def _without_nan(metrics: Metrics) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in asdict(metrics).items()}


def _with_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: math.nan if value is None and name != "baseline" else value
        for name, value in values.items()
    }
