"""Classes of TensorFlow Serving's messages, made without TensorFlow.

The messages are described a second time, in a descriptor pool of our own: with the same field
numbers but in another package, so the classes never clash with those of `tensorflow-serving-api`,
and each side reads what the other has written. There are two sets of classes:

- `EXACT` describes every field as it is.
- `FAST` declares repeated floats and doubles as `bytes`: packed numbers and a byte string look the
  same on the wire, and numpy reads bytes without a walk through Python numbers. This fits nearly
  all senders; a few don't pack.

Source: tensorflow/core/framework/tensor.proto, tensorflow_serving/apis/*.proto.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, wrappers_pb2

from mlops_mini.errors import InvalidArgumentError

_FieldProto = descriptor_pb2.FieldDescriptorProto
_SCALAR_TYPES = dict(_FieldProto.Type.items())  # such as `TYPE_FLOAT`
_INT64_VALUE = ".google.protobuf.Int64Value"


class _Field(NamedTuple):
    """One field of a message.

    Attributes:
        name: Its name.
        number: Its number on the wire.
        type: A scalar type of protobuf's, in lower case, or the name of a message.
        is_repeated: Whether it may come many times.
        is_map: Whether it is a map from strings to `type`.
    """

    name: str
    number: int
    type: str
    is_repeated: bool = False
    is_map: bool = False


_MODEL_SPEC = _Field("model_spec", 1, "ModelSpec")
# The enum DataType is read as the int32 that it is on the wire.
_MESSAGES: dict[str, tuple[_Field, ...]] = {
    "Dim": (_Field("size", 1, "int64"), _Field("name", 2, "string")),
    "TensorShapeProto": (
        _Field("dim", 2, "Dim", is_repeated=True),
        _Field("unknown_rank", 3, "bool"),
    ),
    "TensorProto": (
        _Field("dtype", 1, "int32"),
        _Field("tensor_shape", 2, "TensorShapeProto"),
        _Field("version_number", 3, "int32"),
        _Field("tensor_content", 4, "bytes"),
        _Field("float_val", 5, "float", is_repeated=True),
        _Field("double_val", 6, "double", is_repeated=True),
        _Field("int_val", 7, "int32", is_repeated=True),
        _Field("string_val", 8, "bytes", is_repeated=True),
        _Field("scomplex_val", 9, "float", is_repeated=True),
        _Field("int64_val", 10, "int64", is_repeated=True),
        _Field("bool_val", 11, "bool", is_repeated=True),
        _Field("dcomplex_val", 12, "double", is_repeated=True),
        _Field("half_val", 13, "int32", is_repeated=True),
        _Field("uint32_val", 16, "uint32", is_repeated=True),
        _Field("uint64_val", 17, "uint64", is_repeated=True),
    ),
    "ModelSpec": (
        _Field("name", 1, "string"),
        _Field("version", 2, _INT64_VALUE),
        _Field("signature_name", 3, "string"),
        _Field("version_label", 4, "string"),
    ),
    "PredictRequest": (
        _MODEL_SPEC,
        _Field("inputs", 2, "TensorProto", is_map=True),
        _Field("output_filter", 3, "string", is_repeated=True),
    ),
    "PredictResponse": (
        _Field("outputs", 1, "TensorProto", is_map=True),
        _Field("model_spec", 2, "ModelSpec"),
    ),
    "GetModelStatusRequest": (_MODEL_SPEC,),
    "ModelVersionStatus": (_Field("version", 1, "int64"), _Field("state", 2, "int32")),
    "GetModelStatusResponse": (
        _Field("model_version_status", 1, "ModelVersionStatus", is_repeated=True),
    ),
    "GetModelMetadataRequest": (
        _MODEL_SPEC,
        _Field("metadata_field", 2, "string", is_repeated=True),
    ),
    "Any": (_Field("type_url", 1, "string"), _Field("value", 2, "bytes")),
    "GetModelMetadataResponse": (_MODEL_SPEC, _Field("metadata", 2, "Any", is_map=True)),
    "TensorInfo": (
        _Field("name", 1, "string"),
        _Field("dtype", 2, "int32"),
        _Field("tensor_shape", 3, "TensorShapeProto"),
    ),
    "SignatureDef": (
        _Field("inputs", 1, "TensorInfo", is_map=True),
        _Field("outputs", 2, "TensorInfo", is_map=True),
    ),
    "SignatureDefMap": (_Field("signature_def", 1, "SignatureDef", is_map=True),),
    # Examples are read as the bytes that they are, labels too: a label needn't be UTF-8.
    "ExampleList": (_Field("examples", 1, "bytes", is_repeated=True),),
    "ExampleListWithContext": (
        _Field("examples", 1, "bytes", is_repeated=True),
        _Field("context", 2, "bytes"),
    ),
    "Input": (
        _Field("example_list", 1, "ExampleList"),
        _Field("example_list_with_context", 2, "ExampleListWithContext"),
    ),
    # ClassificationRequest and RegressionRequest, which are the same on the wire.
    "ExamplesRequest": (_MODEL_SPEC, _Field("input", 2, "Input")),
    "InferenceTask": (_MODEL_SPEC, _Field("method_name", 2, "string")),
    "MultiInferenceRequest": (
        _Field("tasks", 1, "InferenceTask", is_repeated=True),
        _Field("input", 2, "Input"),
    ),
    "Class": (_Field("label", 1, "bytes"), _Field("score", 2, "float")),
    "Classifications": (_Field("classes", 1, "Class", is_repeated=True),),
    "ClassificationResult": (_Field("classifications", 1, "Classifications", is_repeated=True),),
    "Regression": (_Field("value", 1, "float"),),
    "RegressionResult": (_Field("regressions", 1, "Regression", is_repeated=True),),
    "ClassificationResponse": (
        _Field("result", 1, "ClassificationResult"),
        _Field("model_spec", 2, "ModelSpec"),
    ),
    "RegressionResponse": (
        _Field("result", 1, "RegressionResult"),
        _Field("model_spec", 2, "ModelSpec"),
    ),
    "InferenceResult": (
        _MODEL_SPEC,
        _Field("classification_result", 2, "ClassificationResult"),
        _Field("regression_result", 3, "RegressionResult"),
    ),
    "MultiInferenceResponse": (_Field("results", 1, "InferenceResult", is_repeated=True),),
    "SamplingConfig": (_Field("sampling_rate", 1, "double"),),
    "LogMetadata": (
        _MODEL_SPEC,
        _Field("sampling_config", 2, "SamplingConfig"),
        _Field("saved_model_tags", 3, "string", is_repeated=True),
        _Field("timestamp_secs", 4, "int64"),
        # Ours. Other readers skip fields that they don't know.
        _Field("request_id", 1001, "bytes"),
        _Field("time_us", 1002, "int64"),
    ),
    # PredictLog, ClassifyLog and the others, with both messages as they came and went.
    "ExchangeLog": (_Field("request", 1, "bytes"), _Field("response", 2, "bytes")),
    "PredictionLog": (
        _Field("log_metadata", 1, "LogMetadata"),
        _Field("classify_log", 2, "ExchangeLog"),
        _Field("regress_log", 3, "ExchangeLog"),
        _Field("multi_inference_log", 4, "ExchangeLog"),
        _Field("predict_log", 6, "ExchangeLog"),
    ),
    "ProfileOptions": (
        _Field("host_tracer_level", 2, "uint32"),
        _Field("device_tracer_level", 3, "uint32"),
        _Field("python_tracer_level", 4, "uint32"),
        _Field("duration_ms", 9, "uint64"),
    ),
    "ProfileRequest": (
        _Field("opts", 4, "ProfileOptions"),
        _Field("repository_root", 5, "string"),
        _Field("session_id", 6, "string"),
        _Field("host_name", 7, "string"),
    ),
    "ProfileResponse": (_Field("empty_trace", 7, "bool"),),
    "TerminateRequest": (_Field("session_id", 1, "string"),),
}


def _message_classes(package: str, *, packed_as_bytes: bool) -> dict[str, Any]:
    """Make the classes of `_MESSAGES`, by name.

    Args:
        package: The protobuf package they are in.
        packed_as_bytes: Declare repeated floats and doubles as `bytes`.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto",
        package=package,
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    for message_name, fields in _MESSAGES.items():
        described = file.message_type.add(name=message_name)
        for field in fields:
            if packed_as_bytes and field.is_repeated and field.type in ("float", "double"):
                _describe(field._replace(type="bytes", is_repeated=False), described, package)
            else:
                _describe(field, described, package)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in _MESSAGES
    }


def _describe(field: _Field, message_type: Any, package: str) -> None:
    """Add a field to the description of a message."""
    is_many = field.is_repeated or field.is_map
    described = message_type.field.add(
        name=field.name,
        number=field.number,
        label=_FieldProto.LABEL_REPEATED if is_many else _FieldProto.LABEL_OPTIONAL,
    )
    scalar_type = _SCALAR_TYPES.get(f"TYPE_{field.type.upper()}")
    if scalar_type is not None:
        described.type = scalar_type
        return
    described.type = _FieldProto.TYPE_MESSAGE
    described.type_name = field.type if field.type[0] == "." else f".{package}.{field.type}"
    if field.is_map:
        entry = message_type.nested_type.add(name=f"{_camel_case(field.name)}Entry")
        entry.options.map_entry = True
        _describe(_Field("key", 1, "string"), entry, package)
        _describe(_Field("value", 2, field.type), entry, package)
        described.type_name = f".{package}.{message_type.name}.{entry.name}"


def _camel_case(name: str) -> str:
    """Write a field's name as protobuf writes it in the name of a map's entries.

    >>> _camel_case("signature_def")
    'SignatureDef'
    """
    return "".join(map(str.capitalize, name.split("_")))


FAST = _message_classes("mlops_mini.wire", packed_as_bytes=True)
EXACT = _message_classes("mlops_mini.wire.exact", packed_as_bytes=False)


def parse(message_class: Any, data: bytes) -> Any:
    """Parse a message; raise `InvalidArgumentError` for what is none."""
    try:
        return message_class.FromString(data)
    except message.DecodeError as exc:
        name = message_class.DESCRIPTOR.name
        raise InvalidArgumentError(f"these {len(data)} bytes are not a {name}") from exc
