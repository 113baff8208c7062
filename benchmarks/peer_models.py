"""What the peers of `server_peers` have in common: a SavedModel, and JSON to its inputs and back.

Runs in their environment, without ours.
"""

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf


class Model:
    """A SavedModel's default signature, called with arrays by name."""

    def __init__(self, folder: str) -> None:
        """Load it; with a thread inside each operation, as ours."""
        tf.config.threading.set_intra_op_parallelism_threads(1)
        self._loaded = tf.saved_model.load(folder)
        self._signature = self._loaded.signatures["serving_default"]
        specs = self._signature.structured_input_signature[1]
        self.dtypes = {name: spec.dtype.as_numpy_dtype for name, spec in specs.items()}

    def inputs(self, document: dict[str, Any]) -> dict[str, np.ndarray]:
        """Make arrays of `inputs` (columns) or `instances` (rows)."""
        columns: Any = document.get("inputs")
        rows = document.get("instances")
        if columns is None and len(self.dtypes) == 1:
            columns = dict.fromkeys(self.dtypes, rows)
        elif columns is None:
            columns = {name: [row[name] for row in rows] for name in self.dtypes}
        return {name: np.array(columns[name], dtype) for name, dtype in self.dtypes.items()}

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Make one run."""
        tensors = {name: tf.constant(array) for name, array in inputs.items()}
        return {name: tensor.numpy() for name, tensor in self._signature(**tensors).items()}


def answer(document: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    """Write outputs as our server does."""
    lists = [np.asarray(array).tolist() for array in outputs.values()]
    return {"predictions" if document.get("instances") is not None else "outputs": lists[0]}
