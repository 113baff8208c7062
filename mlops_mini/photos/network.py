"""A small convolutional network that tells what a photo shows, with its preprocessing inside."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data_centric import networks, policy
from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.model import training
from mlops_mini.photos.camera import SHAPE
from mlops_mini.photos.datasets import CLASSES

# A pass over a few thousand photos teaches less than one over a month of flights.
_PASSES_PER_EPOCH = 2


def train(
    features: pd.DataFrame,
    labels: npt.ArrayLike,
    *,
    seed: int = 0,
    epochs: int = 5,
    parent: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Any:
    """Train the network, from scratch or on from an earlier one.

    Two convolutions of 3x3 with 16 and 32 filters, each followed by max pooling, then 64 units;
    105,866 weights. Trained on 10,000 clean pictures it's right about 87 % of others.

    Args:
        features: The one column `image`, uint8[28,28].
        labels: Index into `CLASSES` of each row, shape [n_rows].
        seed: Seeds Python, NumPy and TensorFlow, for the whole process.
        epochs: Each is two passes over the rows.
        parent: An export of this network to start from.
        settings: A policy of augmentation, as `data_centric.policy` writes it: each photo is
            trained on as it is, and once more as the policy changes it. Which data it was made with
            isn't checked, since photos go on arriving every week.

    Returns:
        A `keras.Model` from `{"image": ...}`, uint8 of shape [batch, 28, 28], to
        `{"probability": ...}`, float32 of shape [batch, 10].

    Raises:
        InvalidArgumentError: Images have another shape or dtype, a label is missing or of no class,
            a class has no row, or there's no epoch.
        NotFoundError: The parent has no Keras model.
        DataIntegrityError: The settings are no policy, or one of another version of the library.
    """
    import keras

    images = training.as_inputs(features).get("image", np.empty(0))
    if list(features) != ["image"] or images.dtype != np.uint8 or images.shape[1:] != SHAPE:
        raise InvalidArgumentError(
            f"the network learns from the one feature image, uint8[28,28]; got {list(features)}"
            f" with {images.dtype}{list(images.shape[1:])}"
        )
    targets = training.as_labels(labels, len(images), n_classes=len(CLASSES))
    if never := [name for at, name in enumerate(CLASSES) if not (targets == at).any()]:
        raise InvalidArgumentError(
            f"none of {len(targets)} photos shows {', '.join(map(repr, never))}: training needs"
            " some of each class"
        )
    if epochs < 1:
        raise InvalidArgumentError(f"need at least 1 epoch, got {epochs}")
    if settings is not None:
        chosen = policy.from_document(settings, name="the policy in the data folder")
        images = np.concatenate([images, chosen.augment(images, seed=seed)])
        targets = np.concatenate([targets, targets])
    network = networks.fit(
        images,
        targets.astype(np.int64),
        seed=seed,
        n_classes=len(CLASSES),
        epochs=_PASSES_PER_EPOCH * epochs,
        start=_of_parent(parent) if parent else None,
    )
    image = keras.Input(SHAPE, name="image", dtype="uint8")
    return keras.Model({"image": image}, {"probability": network(image)})


def _of_parent(parent: Path) -> Any:
    import keras

    file = parent / training.KERAS_FILE
    if not file.is_file():
        raise NotFoundError(
            f"no Keras model to start from in {parent}: it has no {training.KERAS_FILE}; name a"
            " version that training.export has written, or train from scratch"
        )
    return keras.models.load_model(file, compile=False).get_layer("network")
