"""Train a small network on tabular features and export it with its preprocessing inside.

The model takes the features as they are, strings and numbers with gaps, and does by itself what
everyone who calls it would otherwise have to repeat: that's what keeps training and serving from
drifting apart.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from mlops_mini.data import tensors
from mlops_mini.data.columns import plain
from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.model import warmup_requests
from mlops_mini.model.digest import check_digest

KERAS_FILE = "assets.extra/model.keras"
# Holds the `examples_digest` of what the model has learned from.
LEARNED_FILE = "assets.extra/learned.sha256"
# Beside it lies what a later training of the fallback can start from, in a folder like a version's.
_FALLBACK = "assets.extra/fallback"
FALLBACK_SIGNATURE = "fallback"
HIDDEN_UNITS = (64, 32)
LEARNING_RATE = 5e-3
BATCH_SIZE = 512
# Trained on January and judged on February to May, log loss is the same to .002 after 2 and after
# 10 epochs; without the penalty March gets worse with every epoch, .5185 to .536.
L2_PENALTY = 1e-3
# Beyond what training saw a network only extrapolates: with weather, trained on January and judged
# on July, log loss is .65 without this limit and .60 with it, and the same in months alike.
MAX_DEVIATIONS = 3.0


def as_inputs(features: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
    """Turn features into what a model of `train` takes.

    Args:
        features: One column per feature; numeric columns are numbers, tensor columns tensors, all
            others are categories.

    Returns:
        For each column an array of shape [n_rows]: float32 with NaN where a number is missing, or
        strings with "" where a category is missing; of tensors shape [n_rows, ...], of their dtype.

    >>> as_inputs(pd.DataFrame({"plan": ["basic", None], "calls": [3, None]}))
    {'plan': array(['basic', ''], dtype=object), 'calls': array([ 3., nan], dtype=float32)}
    """
    return {str(name): _as_input(column) for name, column in features.items()}


def _as_input(column: "pd.Series[Any]") -> npt.NDArray[Any]:
    if tensors.is_tensor(column.dtype):
        return tensors.to_numpy(column)
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float32, na_value=np.nan)
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(object)


def read_examples(file: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read some columns of examples.

    Args:
        file: Parquet, one row per example.
        columns: Their names; one that's named twice is read once.

    Returns:
        The columns, in the order in which they're named.

    Raises:
        InvalidArgumentError: The file lacks a column.
    """
    names = list(dict.fromkeys(columns))
    present_names = pq.read_schema(file).names
    if missing_names := [name for name in names if name not in present_names]:
        raise InvalidArgumentError(
            f"{file} has no columns {missing_names}: name others, or write the file with them; it"
            f" has {present_names}"
        )
    return tensors.read_parquet(file, names)


def read_settings(file: Path) -> bytes:
    """Read from examples' metadata how to train on them, JSON; empty if they don't say."""
    return bytes((pq.read_schema(file).metadata or {}).get(b"settings", b""))


def examples_digest(examples: pd.DataFrame, settings: bytes = b"") -> str:
    """Digest what a model learns from, in whatever order its rows come.

    Args:
        examples: Features and labels, one row per example.
        settings: As `read_settings` returns them.

    Returns:
        SHA-256, 64 hex digits.

    >>> calls = pd.DataFrame({"calls": [3, 5, None], "churned": [0, 1, 1]})
    >>> examples_digest(calls) == examples_digest(calls[::-1])
    True
    >>> examples_digest(calls) == examples_digest(calls.assign(churned=[1, 1, 1]))
    False
    """
    columns = {
        name: [cell.tobytes() for cell in tensors.to_numpy(column)]
        if tensors.is_tensor(column.dtype)
        else plain(column).to_numpy()
        for name, column in examples.items()
    }
    rows = pd.util.hash_pandas_object(pd.DataFrame(columns), index=False).to_numpy()
    names = json.dumps([*map(str, examples)]).encode()
    return hashlib.sha256(b"\n".join([names, settings, np.sort(rows).tobytes()])).hexdigest()


def as_labels(labels: npt.ArrayLike, n_rows: int, *, n_classes: int = 2) -> npt.NDArray[np.float64]:
    """Check that there is one label, such as 0 or 1, for each row.

    Args:
        labels: Shape [n_rows]; of two classes, 1 is the event whose probability is predicted.
        n_rows: Number of rows that the labels belong to, by position.
        n_classes: How many classes there are, numbered from 0.

    Returns:
        The labels as floats, shape [n_rows].

    Raises:
        InvalidArgumentError: There are no rows, or more or fewer labels than rows; or a label is
            missing, or the number of no class.

    >>> as_labels([0, 1, float("nan")], n_rows=3)
    Traceback (most recent call last):
    mlops_mini.errors.InvalidArgumentError: 1 of 3 labels are missing: keep only rows with a label
    """
    values = np.asarray(labels, np.float64)
    if n_rows == 0 or values.shape != (n_rows,):
        raise InvalidArgumentError(
            f"need one label for each row, and some rows; got {n_rows} rows and labels of shape "
            f"{list(values.shape)}"
        )
    if n_missing := int(np.isnan(values).sum()):
        raise InvalidArgumentError(
            f"{n_missing} of {n_rows} labels are missing: keep only rows with a label"
        )
    if others := sorted(set(np.unique(values).tolist()) - set(range(n_classes))):
        expected = "0 or 1" if n_classes == 2 else f"0 to {n_classes - 1}"
        raise InvalidArgumentError(f"labels must be {expected}, got also {others[:3]}")
    return values


def train(
    features: pd.DataFrame,
    labels: npt.ArrayLike,
    *,
    seed: int = 0,
    epochs: int = 5,
    parent: Path | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Any:
    """Train a classifier of two hidden layers, from scratch or on from an earlier one.

    Categories are one-hot encoded, unseen ones share a place of their own. Numbers are standardized
    with the mean and deviation of those present, and held within 3 deviations; a missing one counts
    as the mean, and a column that never varies has no effect.

    Args:
        features: One row per example; string columns are categories ("" is missing), numeric ones
            numbers (NaN is missing).
        labels: 0 or 1, or the number of one of several classes, from 0; shape [n_rows], in the
            order of the rows of `features`.
        seed: Seeds Python, NumPy and TensorFlow, for the whole process: on one machine the same
            rows and seed give the same model.
        epochs: Passes over the rows.
        parent: An export to start from (warm start). Its weights are trained on, with a fresh
            optimizer; its preprocessing stays as it is, means, deviations and vocabulary, so that
            what the weights have learned keeps its meaning. A category that the first training
            hadn't seen stays unseen.
        on_epoch: Called after each pass with its number, from 1, and the mean loss (log loss plus
            weight penalty).

    Returns:
        A `keras.Model` from a dict of the raw features, each of shape [batch], to the dict
        `{"probability": ...}`, float32 of shape [batch], 0 to 1: that the label is 1. With more
        classes than two of shape [batch, n_classes], each row summing to 1.

    Raises:
        InvalidArgumentError: There is nothing to learn from: no rows or columns, a missing label, a
            class without a row, an infinite number, or no epoch; or a feature is a tensor; or the
            parent takes other features or tells other classes.
        NotFoundError: The parent has no Keras model.
    """
    import keras

    inputs, targets = _checked(features, labels, epochs)
    n_classes = max(2, int(targets.max()) + 1)
    keras.utils.set_random_seed(seed)
    preprocessing, core = (
        _parts_of(parent, inputs, n_classes) if parent else _new_parts(inputs, n_classes)
    )
    matrix = preprocessing({name: keras.ops.convert_to_tensor(a) for name, a in inputs.items()})
    loss = "binary_crossentropy" if n_classes == 2 else "sparse_categorical_crossentropy"
    core.compile(keras.optimizers.Adam(LEARNING_RATE), loss, jit_compile=False)

    callbacks = []
    if on_epoch:
        report = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: on_epoch(epoch + 1, logs["loss"])
        )
        callbacks.append(report)
    core.fit(
        np.asarray(matrix),
        targets,
        batch_size=BATCH_SIZE,
        epochs=epochs,
        verbose=0,
        callbacks=callbacks,
    )
    fields = {
        name: keras.Input((), name=name, dtype=tensor.dtype)
        for name, tensor in preprocessing.input.items()
    }
    return keras.Model(fields, {"probability": core(preprocessing(fields))})


def train_from_files(
    train_files: Sequence[Path],
    folder: Path,
    *,
    label: str,
    features: Sequence[str],
    train: Callable[..., Any] = train,
    seed: int = 0,
    epochs: int = 5,
    parent: Path | None = None,
    parent_digest: str = "",
    fallback: Sequence[str] = (),
) -> None:
    """Train on examples in files and export the model, with requests that warm a server up.

    Args:
        train_files: Parquet, one row per example. What the first one's metadata hold as `settings`,
            JSON, is given to `train`.
        folder: Where to write the SavedModel.
        label: The column that's predicted, 0 or 1 or the number of a class in each row.
        features: The columns that the model takes; it never sees any other.
        train: Makes the model, called as the default is.
        seed: As `train` takes it.
        epochs: As `train` takes it.
        parent: As `train` takes it.
        parent_digest: The parent's `model_digest` when it was chosen.
        fallback: Features that a second model learns from alone, for when the others can't be had;
            it goes on from the parent's, if that has one of the same features. None if empty.

    Raises:
        InvalidArgumentError: As `train` does; or a file lacks a column.
        NotFoundError: The parent isn't there.
        DataIntegrityError: The parent has another digest by now.
    """
    if parent:
        check_digest(parent, parent_digest)
    parts = [read_examples(file, [*features, label]) for file in train_files]
    examples = pd.concat(parts, ignore_index=True)

    settings = read_settings(train_files[0])
    more = {"settings": json.loads(settings)} if settings else {}

    def trained(names: Sequence[str], start: Path | None) -> Any:
        rows = examples[list(names)]
        return train(rows, examples[label], seed=seed, epochs=epochs, parent=start, **more)

    before = parent / _FALLBACK if parent and (parent / _FALLBACK).is_dir() else None
    export(
        trained(features, parent), folder, fallback=trained(fallback, before) if fallback else None
    )
    (folder / LEARNED_FILE).write_text(examples_digest(examples, settings) + "\n")
    warmup_requests.write(folder, as_inputs(examples[list(features)]))


def export(model: Any, folder: Path, *, fallback: Any = None) -> None:
    """Write a model as a TensorFlow SavedModel that needs no code of ours.

    Its signature `serving_default` takes each raw feature by name, string or float32 of shape
    [batch], or a tensor, and answers `probability`, float32 of shape [batch], or, with more classes
    than two, [batch, n_classes]. The Keras model lies beside it in
    `assets.extra/`, which servers do not read, so that a later training can start from it.

    Args:
        model: As `train` returns it.
        folder: Where to write; what an earlier export left there is replaced.
        fallback: A second model, which takes fewer features; it answers under the signature
            `fallback`, so that each version has the one that belongs to it.
    """
    import keras

    kept = {KERAS_FILE: model}
    if fallback is None:
        model.export(str(folder), format="tf_saved_model", verbose=False)
    else:
        kept[f"{_FALLBACK}/{KERAS_FILE}"] = fallback
        archive = keras.export.ExportArchive()
        for name, part in (("serving_default", model), (FALLBACK_SIGNATURE, fallback)):
            archive.track(part)
            specs = {
                field: keras.InputSpec(shape=tensor.shape, dtype=tensor.dtype, name=field)
                for field, tensor in part.input.items()
            }
            archive.add_endpoint(name, part.call, [specs])
        archive.write_out(str(folder), verbose=False)
    with warnings.catch_warnings():  # TensorFlow's variables do not know NumPy 2's copy yet
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        for name, part in kept.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            part.save(folder / name)


def _checked(
    features: pd.DataFrame, labels: npt.ArrayLike, epochs: int
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.float64]]:
    if epochs < 1 or features.columns.empty:
        raise InvalidArgumentError(
            f"need at least 1 epoch and 1 feature, got {epochs} and {len(features.columns)}"
        )
    largest = np.nanmax(np.asarray(labels, np.float64), initial=1.0)
    n_classes = int(largest) + 1 if largest == np.floor(largest) else 2
    targets = as_labels(labels, len(features), n_classes=n_classes)
    if targets.min() == targets.max():
        raise InvalidArgumentError(
            f"all {len(targets)} labels are {targets[0]:.0f}: training needs both classes"
        )
    if missing_classes := sorted(set(range(n_classes)) - set(targets.tolist())):
        raise InvalidArgumentError(
            f"no label of {len(targets)} is {missing_classes[0]}, of the classes 0 to"
            f" {n_classes - 1}: training needs rows of each"
        )
    inputs = as_inputs(features)
    if arrays := [name for name, values in inputs.items() if values.ndim > 1]:
        raise InvalidArgumentError(
            f"{arrays} are tensors, of which this network knows nothing: give the use case a"
            " `train` of its own"
        )
    infinite = [name for name, a in inputs.items() if a.dtype != object and np.isinf(a).any()]
    if infinite:
        raise InvalidArgumentError(f"infinite values in {infinite}: mark missing ones with NaN")
    return inputs, targets


def _parts_of(parent: Path, inputs: dict[str, npt.NDArray[Any]], n_classes: int) -> tuple[Any, Any]:
    """Load preprocessing and network of an earlier model."""
    import keras

    if not (parent / KERAS_FILE).is_file():
        raise NotFoundError(
            f"no Keras model to start from in {parent}: it has no {KERAS_FILE}; name a version that"
            " training.export has written, or train from scratch"
        )
    model = keras.models.load_model(parent / KERAS_FILE, compile=False)
    takes = {name: tensor.dtype == "string" for name, tensor in model.input.items()}
    given = {name: values.dtype == object for name, values in inputs.items()}
    if takes != given:
        raise InvalidArgumentError(
            f"{parent} takes {sorted(takes)}, the features are {sorted(given)} (numbers and texts"
            " must agree too): train from scratch"
        )
    network = model.get_layer("network")
    n_known = network.output.shape[1] if network.output.ndim > 1 else 2
    if n_known != n_classes:
        raise InvalidArgumentError(
            f"{parent} tells {n_known} classes, the labels have {n_classes}: train from scratch"
        )
    return model.get_layer("preprocessing"), network


def _new_parts(inputs: dict[str, npt.NDArray[Any]], n_classes: int) -> tuple[Any, Any]:
    preprocessing = _preprocessing(inputs)
    return preprocessing, _core(preprocessing.output.shape[1], n_classes)


def _preprocessing(inputs: dict[str, npt.NDArray[Any]]) -> Any:
    """Make the model from raw features to the matrix [batch, width] that the network sees."""
    import keras

    numbers = [name for name, values in inputs.items() if values.dtype != object]
    categories = [name for name in inputs if name not in numbers]
    fields = {
        name: keras.Input((), name=name, dtype="float32" if name in numbers else "string")
        for name in inputs
    }
    encoded = []
    for name in categories:
        values, counts = np.unique(inputs[name], return_counts=True)
        by_frequency_then_name = values[np.argsort(-counts, kind="stable")].tolist()
        lookup = keras.layers.StringLookup(vocabulary=by_frequency_then_name, output_mode="one_hot")
        encoded.append(lookup(fields[name]))
    if numbers:
        seen = pd.DataFrame({name: inputs[name] for name in numbers}, dtype=np.float64)
        varies = seen.max() > seen.min()
        standardize = keras.layers.Normalization(
            mean=seen.mean().fillna(0).to_list(),
            # An infinite variance makes 0 of whatever such a column holds when serving.
            variance=seen.var(ddof=0).where(varies, np.inf).to_list(),
        )
        raw = keras.ops.stack([fields[name] for name in numbers], axis=-1)  # noqa: PD013
        z = standardize(raw)
        known = keras.ops.where(keras.ops.isnan(z), 0.0, z)
        encoded.append(keras.ops.clip(known, -MAX_DEVIATIONS, MAX_DEVIATIONS))
    return keras.Model(fields, keras.ops.concatenate(encoded, axis=-1), name="preprocessing")


def _core(width: int, n_classes: int) -> Any:
    """Make the network proper, from [batch, width] to [batch], or [batch, n_classes]."""
    import keras

    penalty = keras.regularizers.L2(L2_PENALTY)
    last = [
        keras.layers.Dense(1, "sigmoid", kernel_regularizer=penalty),
        keras.layers.Reshape(()),
    ]
    if n_classes > 2:
        last = [keras.layers.Dense(n_classes, "softmax", kernel_regularizer=penalty)]
    return keras.Sequential(
        [
            keras.Input((width,)),
            *(keras.layers.Dense(n, "relu", kernel_regularizer=penalty) for n in HIDDEN_UNITS),
            *last,
        ],
        name="network",
    )
