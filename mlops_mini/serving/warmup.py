"""Warm-up: requests that were written beside a version are run before it is served.

Nothing else is run. What a request of that signature would have to wait for is made as well: the
ways to call it. Which runs are short, and whether batches change an answer, is still learned from
real requests: these few say little of either, and the publisher has chosen them.

Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mlops_mini.errors import InvalidArgumentError, UnimplementedError, by_code
from mlops_mini.serving import example_methods, request_checks, servables
from mlops_mini.serving.servables import CLASSIFY, REGRESS, Servable
from mlops_mini.wire import PredictRequest

logger = logging.getLogger(__name__)

_FILE = Path("assets.extra", "tf_serving_warmup_requests")
_MAX_RECORDS = 1000
_METHODS = {"classify_log": CLASSIFY, "regress_log": REGRESS}


def has_requests(path: Path) -> bool:
    """Say whether there are requests to run beside a version."""
    return (path / _FILE).is_file()


def run(
    servable: Servable, path: Path, *, n_iterations: int, timeout_s: float | None = None
) -> int:
    """Run the requests in `assets.extra/tf_serving_warmup_requests`.

    Args:
        servable: The version that was just loaded.
        path: Its folder.
        n_iterations: How often each request is run; below 1 means once.
        timeout_s: The longest run of a request that says nothing else, seconds; None for no limit.

    Returns:
        How many requests there are.

    Raises:
        MlopsMiniError: The file is broken, or a request fails: the version must not be served.
    """
    file = path / _FILE
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    n_records = 0
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(file)):
            try:
                log = prediction_log_pb2.PredictionLog.FromString(record)
            except DecodeError as exc:
                shown = record.decode("utf-8", "replace")
                raise InvalidArgumentError(
                    f"Failed to parse warmup record: {shown} from {file}"
                ) from exc
            for _ in range(max(n_iterations, 1)):
                _run_record(servable, log, timeout_s)
            n_records += 1
            if n_records > _MAX_RECORDS:
                raise InvalidArgumentError(
                    f"Number of warmup records exceeds the maximum ({_MAX_RECORDS}) at {file}"
                )
    except tf.errors.DataLossError as exc:
        raise by_code(
            exc.error_code,
            f"{exc.message}. Please verify your warmup data is in TFRecord format.",
        ) from exc
    logger.info(
        "Finished reading warmup data for model at %s. Number of warmup records read: %d.",
        file,
        n_records,
    )
    return n_records


def _run_record(servable: Servable, log: Any, timeout_s: float | None) -> None:
    kind = log.WhichOneof("log_type")
    if kind is None:
        return
    request: Any = getattr(getattr(log, kind), "request", None)
    if kind == "predict_log":
        parsed = PredictRequest.from_bytes(request.SerializeToString())
        checked = request_checks.check_run(
            servable,
            request.model_spec.signature_name,
            parsed.inputs,
            unreadable=parsed.unreadable,
            output_filter=parsed.output_filter,
        )
        # On this thread, as the event loop makes short runs.
        servable.run(checked.signature.inputs, checked.outputs, checked.arrays, timeout_ms=None)
        if not parsed.output_filter:
            checked.signature.costs.is_warm = True
            for limit_s in (None, timeout_s):
                servable.prepare(checked.signature, servables.limit_ms(limit_s))
    elif kind in _METHODS:
        example_methods.classify_or_regress(
            servable,
            _METHODS[kind],
            request.model_spec.signature_name,
            example_methods.serialized_examples(request.input),
            timeout_ms=0,
        )
    elif kind == "multi_inference_log":
        example_methods.multi_inference(servable, request, timeout_ms=0)
    else:
        number = log.DESCRIPTOR.fields_by_name[kind].number
        raise UnimplementedError(f"Unsupported log_type for warmup: {number}")
