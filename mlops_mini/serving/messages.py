"""TensorFlow Serving's own messages, read and filled, for the methods that are rare.

Their classes import TensorFlow: every function here expects to run on a worker thread.
"""

from __future__ import annotations

from typing import Any

from mlops_mini.serving import examples
from mlops_mini.wire_messages import parse


def inference_messages(method: str, request_bytes: bytes) -> tuple[Any, Any]:
    """Parse a request of Classify or Regress, and make the response to be filled."""
    from tensorflow_serving.apis import classification_pb2, regression_pb2

    if method == examples.CLASSIFY:
        request = parse(classification_pb2.ClassificationRequest, request_bytes)
        return request, classification_pb2.ClassificationResponse()
    request = parse(regression_pb2.RegressionRequest, request_bytes)
    return request, regression_pb2.RegressionResponse()


def fill_result(target: Any, result: examples.Result) -> None:
    """Fill a ClassificationResult or a RegressionResult."""
    if result.method == examples.REGRESS:
        for value in result.scores.tolist():
            target.regressions.add(value=value)
        return
    for labels, scores in zip(result.labels, result.scores.tolist(), strict=True):
        classified = target.classifications.add()
        for label, score in zip(labels, scores, strict=True):
            # One that is no UTF-8 cannot be a proto string in Python.
            classified.classes.add(label=label.decode("utf-8", "replace"), score=score)
