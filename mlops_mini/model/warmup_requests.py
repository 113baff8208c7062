"""Requests that warm a version up: the server runs them before it serves, and nothing else.

The first run of each batch size costs TensorFlow some milliseconds more than later ones. So there
is a request of training rows for each size to which the server pads what it runs together. They lie
where TensorFlow Serving looks for them, too; a digest of the model doesn't count them.

Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.serving.batching import MAX_ROWS
from mlops_mini.wire import ModelSpec, PredictRequest

FILE = "assets.extra/tf_serving_warmup_requests"


def write(folder: Path, inputs: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write requests of 1, 2, 4 rows and so on, up to the largest batch, beside a SavedModel.

    Args:
        folder: The SavedModel; requests that are there are replaced.
        inputs: Rows as its signature `serving_default` takes them, evenly spread ones of which are
            asked about: for each input an array of shape [n_rows, ...], at least one row. Few rows
            are repeated.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    n_rows = min(map(len, inputs.values()), default=0)
    if not n_rows:
        raise InvalidArgumentError("requests to warm a model up need rows: give at least one")
    (folder / FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / FILE)) as file:
        for exponent in range(MAX_ROWS.bit_length()):
            positions = np.linspace(0, n_rows - 1, 1 << exponent).astype(int)
            rows = {name: values[positions] for name, values in inputs.items()}
            request = PredictRequest(model_spec=ModelSpec(name=""), inputs=rows).to_bytes()
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.ParseFromString(request)
            file.write(log.SerializeToString(deterministic=True))
