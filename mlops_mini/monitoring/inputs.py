"""Makes tables of what a model was asked, whether it was numbers, texts or images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data import tensors
from mlops_mini.prediction_log import Record

_N_IMAGE_AXES = (3, 4)  # [n, height, width] and [n, height, width, channels]


def table(records: Sequence[Record]) -> pd.DataFrame:
    """Make one table of the inputs of some records.

    Args:
        records: All of one model; a request has one row or more.

    Returns:
        One row per row that was asked, in order; one column per input that's a number or a text per
        row. An image becomes the columns of `describe_images`, after the input's name; of other
        inputs with several numbers per row there's nothing. What a request didn't send is missing.
    """
    n_rows = [count_rows(record) for record in records]
    aliases = sorted({alias for record in records for alias in record.inputs})
    columns: dict[str, npt.NDArray[np.generic]] = {}
    for alias in aliases:
        arrays = [record.inputs.get(alias) for record in records]
        plain = [a for a in arrays if a is not None and a.shape == (1,) and a.dtype != object]
        if len(plain) == len(arrays):
            columns[alias] = np.concatenate(plain)  # as nearly always, and ten times as quick
            continue
        parts = [_columns(alias, array, n) for array, n in zip(arrays, n_rows, strict=True)]
        for name in sorted({name for part in parts for name in part}):
            missing = [part.get(name) for part in parts]
            columns[name] = np.concatenate(
                [
                    np.full(n, np.nan) if values is None else values
                    for values, n in zip(missing, n_rows, strict=True)
                ]
            )
    return pd.DataFrame(columns, index=range(sum(n_rows)))


def of_features(features: pd.DataFrame) -> pd.DataFrame:
    """Make the same table of features that a model has learned from, to compare with.

    Args:
        features: One row per example.

    Returns:
        The features; of each that's an image the columns of `describe_images` instead.
    """
    arrays = [name for name, column in features.items() if tensors.is_tensor(column.dtype)]
    described = {
        column: values
        for name in arrays
        for column, values in _columns(
            str(name), tensors.to_numpy(features[name]), len(features)
        ).items()
    }
    return features.drop(columns=arrays).assign(**described)


def count_rows(record: Record) -> int:
    """Count the rows that a request asked about: those of its answer, 1 if it can't be told."""
    sizes = {array.shape[0] for array in record.outputs.values() if array.ndim}
    return sizes.pop() if len(sizes) == 1 else 1


def describe_images(images: npt.ArrayLike) -> dict[str, npt.NDArray[np.float64]]:
    """Describe images by numbers that move when a camera, a light or a preprocessing changes.

    Args:
        images: Any scale, shape [n, height, width] or [n, height, width, channels].

    Returns:
        Each of shape [n], in the images' own unit: `brightness`, the mean; `contrast`, the standard
        deviation; `edges`, the mean step between neighbors; and `balance`, by how much the left
        half is brighter than the right one, which shows a picture that has slipped.

    >>> dark = np.zeros((1, 4, 4))
    >>> dark[:, :, :2] = 1.0
    >>> {name: values.round(2).tolist() for name, values in describe_images(dark).items()}
    {'brightness': [0.5], 'contrast': [0.5], 'edges': [0.17], 'balance': [1.0]}
    """
    pixels = np.asarray(images, np.float64)
    if pixels.ndim == max(_N_IMAGE_AXES):
        pixels = pixels.mean(axis=3)
    half = pixels.shape[2] // 2
    steps = [np.abs(np.diff(pixels, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
    return {
        "brightness": pixels.mean(axis=(1, 2)),
        "contrast": pixels.std(axis=(1, 2)),
        "edges": (steps[0] + steps[1]) / 2,
        "balance": pixels[:, :, :half].mean(axis=(1, 2)) - pixels[:, :, half:].mean(axis=(1, 2)),
    }


def _columns(
    alias: str, array: npt.NDArray[np.generic] | None, n_rows: int
) -> dict[str, npt.NDArray[np.generic]]:
    """Make the columns of one input of one record; none if it doesn't fit."""
    if array is None or not array.ndim or array.shape[0] != n_rows:
        return {}
    if array.ndim in _N_IMAGE_AXES and min(array.shape[1:3]) > 1:
        described = describe_images(array)
        return {f"{alias} {name}": values for name, values in described.items()}
    if array.size != n_rows:
        return {}
    flat = array.reshape(n_rows)
    if flat.dtype != object:
        return {alias: flat}
    texts = np.empty(n_rows, object)
    texts[:] = [
        each.decode("utf-8", "backslashreplace") if isinstance(each, bytes) else each
        for each in flat
    ]
    return {alias: texts}
