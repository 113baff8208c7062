"""TensorFlow Serving's messages for pytest's process, which never imports TensorFlow.

Their generated modules import TensorFlow; a child process that has it writes their descriptors to a
file, and this process makes message classes of its own from it.
"""

import importlib
from pathlib import Path
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
)

_MODULES = (
    "classification",
    "get_model_metadata",
    "get_model_status",
    "inference",
    "model_management",
    "predict",
    "prediction_log",
    "regression",
)
_REQUESTS = {  # gRPC method: service, request, response
    "Predict": ("PredictionService", "PredictRequest", "PredictResponse"),
    "Classify": ("PredictionService", "ClassificationRequest", "ClassificationResponse"),
    "Regress": ("PredictionService", "RegressionRequest", "RegressionResponse"),
    "MultiInference": ("PredictionService", "MultiInferenceRequest", "MultiInferenceResponse"),
    "GetModelMetadata": (
        "PredictionService", "GetModelMetadataRequest", "GetModelMetadataResponse",
    ),
    "GetModelStatus": ("ModelService", "GetModelStatusRequest", "GetModelStatusResponse"),
    "HandleReloadConfigRequest": (
        "ModelService", "ReloadConfigRequest", "ReloadConfigResponse",
    ),
}  # fmt: skip


def write_descriptors(file: Path) -> None:
    """Write the descriptors of all messages and of what they import; needs TensorFlow."""
    found: dict[str, Any] = {}

    def add(descriptor: Any) -> None:
        for dependency in descriptor.dependencies:
            add(dependency)
        found.setdefault(descriptor.name, descriptor)  # after what it depends on

    for name in _MODULES:
        add(importlib.import_module(f"tensorflow_serving.apis.{name}_pb2").DESCRIPTOR)
    collected = descriptor_pb2.FileDescriptorSet()
    for descriptor in found.values():
        descriptor.CopyToProto(collected.file.add())
    file.write_bytes(collected.SerializeToString())


class Protos:
    """Message classes made from a file of descriptors, and protobuf JSON in both directions."""

    def __init__(self, file: Path) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        for described in descriptor_pb2.FileDescriptorSet.FromString(file.read_bytes()).file:
            self._pool.AddSerializedFile(described.SerializeToString())

    def message(self, name: str, fields: Any = None) -> Any:
        """Make a message of package `tensorflow.serving` from its protobuf JSON."""
        full = name if "." in name else f"tensorflow.serving.{name}"
        made = message_factory.GetMessageClass(self._pool.FindMessageTypeByName(full))()
        return json_format.ParseDict(fields or {}, made, descriptor_pool=self._pool)

    def to_json(self, message: Any) -> Any:
        return json_format.MessageToDict(
            message, preserving_proto_field_name=True, descriptor_pool=self._pool
        )

    def request(self, method: str, fields: Any) -> bytes:
        """Serialize a request of a gRPC method."""
        return bytes(self.message(_REQUESTS[method][1], fields).SerializeToString())

    def response(self, method: str, data: bytes) -> Any:
        """Read a response of a gRPC method as protobuf JSON."""
        message = self.message(_REQUESTS[method][2])
        message.ParseFromString(data)
        return self.to_json(message)


def path(method: str) -> str:
    """Name a method as gRPC does."""
    return f"/tensorflow.serving.{_REQUESTS[method][0]}/{method}"
