"""Two networks for gray images: one that trains in seconds, and one that's too small."""

from typing import Any

import numpy as np
import numpy.typing as npt

_BATCH_SIZE = 512  # of images that are asked about together


def fit(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer],
    *,
    seed: int,
    n_classes: int = 10,
    epochs: int = 10,
    is_linear: bool = False,
    batch_size: int = 64,
    start: Any = None,
) -> Any:
    """Train a classifier.

    Args:
        images: uint8 of shape [n, height, width].
        labels: Class of each, from 0.
        n_classes: How many classes there are.
        seed: Of Python, numpy and Keras.
        epochs: How often each image is seen.
        is_linear: A logistic regression, instead of a convolutional network: of 28 x 28 pixels and
            10 classes 7,850 weights instead of 105,866.
        batch_size: Images in a step.
        start: An earlier model of this kind to train on, which changes it; a new one by default.

    Returns:
        A Keras model from uint8 images to probabilities of the classes.
    """
    import keras

    keras.utils.set_random_seed(seed)
    model = _new(images.shape[1:], n_classes, is_linear=is_linear) if start is None else start
    rate = 2e-3 if is_linear else 1e-3
    # Without XLA, which on a CPU makes convolutions several times slower.
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(images, labels, epochs=epochs, batch_size=batch_size, verbose=0)
    return model


def _new(shape: tuple[int, ...], n_classes: int, *, is_linear: bool) -> Any:
    import keras
    from keras import layers

    top = layers.Dense(n_classes, activation="softmax")
    if is_linear:
        inner = [layers.Flatten(), top]
    else:
        inner = [
            layers.Reshape((*shape, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.3),
            top,
        ]
    pixels = keras.Input(shape, dtype="uint8")
    return keras.Sequential([pixels, layers.Rescaling(1 / 255), *inner], name="network")


def probabilities(model: Any, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Ask a model.

    Args:
        model: As `fit` returns it.
        images: uint8 of shape [n, height, width].

    Returns:
        Of each class, shape [n, n_classes].
    """
    # `model.predict` would trace every new model, and warn once it has traced five.
    starts = range(0, max(len(images), 1), _BATCH_SIZE)
    batches = [model(images[at : at + _BATCH_SIZE], training=False) for at in starts]
    return np.concatenate([np.asarray(batch) for batch in batches])
