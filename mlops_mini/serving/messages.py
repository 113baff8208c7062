"""TensorFlow Serving's own messages, read and filled, for the methods that are rare.

Their classes import TensorFlow: every function here expects to run on a worker thread.
"""

from __future__ import annotations

from typing import Any

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.serving import examples
from mlops_mini.serving.servables import Servable
from mlops_mini.wire import ModelSpec


def inference_messages(method: str, request_bytes: bytes) -> tuple[Any, Any]:
    """Parse a request of Classify or Regress, and make the response to be filled."""
    from tensorflow_serving.apis import classification_pb2, regression_pb2

    if method == examples.CLASSIFY:
        request = parse(classification_pb2.ClassificationRequest, request_bytes)
        return request, classification_pb2.ClassificationResponse()
    request = parse(regression_pb2.RegressionRequest, request_bytes)
    return request, regression_pb2.RegressionResponse()


def parse(message_class: Any, data: bytes) -> Any:
    """Parse a message; raise `InvalidArgumentError` for what is none."""
    from google.protobuf.message import DecodeError

    try:
        return message_class.FromString(data)
    except DecodeError as exc:
        name = message_class.DESCRIPTOR.name
        raise InvalidArgumentError(f"these {len(data)} bytes are not a {name}") from exc


def read_spec(request: Any) -> ModelSpec | None:
    """Read the model_spec of any of TensorFlow Serving's own messages; None if it has none."""
    if not request.HasField("model_spec"):
        return None
    spec = request.model_spec
    return ModelSpec(
        name=spec.name,
        version=spec.version.value if spec.HasField("version") else None,
        version_label=spec.version_label,
        signature_name=spec.signature_name,
    )


def fill_spec(target: Any, name: str, servable: Servable, signature_name: str) -> None:
    """Echo the model's name, the version that answers and the signature; never the label."""
    target.name, target.signature_name = name, signature_name
    target.version.value = servable.version


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


def as_content(response_bytes: bytes) -> bytes:
    """Rewrite typed fields of a PredictResponse as content: of strings lengths, then bytes."""
    import tensorflow as tf
    from google.protobuf import wrappers_pb2
    from tensorflow_serving.apis import predict_pb2

    response = predict_pb2.PredictResponse.FromString(response_bytes)
    for tensor in response.outputs.values():
        if tensor.string_val:
            # The wrapper's one field is a varint behind a byte of tag; 0 is left out.
            sizes = [wrappers_pb2.UInt64Value(value=len(item)) for item in tensor.string_val]
            lengths = [size.SerializeToString()[1:] or b"\0" for size in sizes]
            tensor.tensor_content = b"".join([*lengths, *tensor.string_val])
        else:
            tensor.tensor_content = tf.make_ndarray(tensor).tobytes()
        for field, _ in tensor.ListFields():
            if field.name.endswith("_val"):
                tensor.ClearField(field.name)
    return bytes(response.SerializeToString())
