"""A model with its classes swapped, as somebody may export it by mistake."""

from __future__ import annotations

from pathlib import Path


def swap_classes(version_folder: Path, folder: Path) -> None:
    """Export a model whose last layer has the wrong sign: what was likely becomes unlikely.

    Args:
        version_folder: A version that `training.export` has written.
        folder: Where to write the new one.
    """
    import keras

    from mlops_mini.model import training

    model = keras.models.load_model(version_folder / training.KERAS_FILE, compile=False)
    layers = [
        part
        for layer in model.layers
        for part in getattr(layer, "layers", [layer])
        if isinstance(part, keras.layers.Dense)
    ]
    layers[-1].set_weights([-weights for weights in layers[-1].get_weights()])
    training.export(model, folder)
