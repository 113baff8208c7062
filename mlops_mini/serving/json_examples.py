"""A classify or regress body to serialized `tf.Example`s.

Source: TensorFlow Serving's RESTful API, https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.serving import json_text, json_values


def decode_examples(document: Mapping[str, Any]) -> tuple[bytes | None, list[bytes]]:
    """Turn a parsed classify or regress body into serialized `tf.Example`s.

    Returns:
        The common context, None if there is none, and the examples without it.

    Raises:
        InvalidArgumentError: There are none, or a feature that a `tf.Example` cannot hold.
    """
    context = _example(document["context"]) if "context" in document else None
    listed = document.get("examples")
    problem = ""
    if "examples" not in document:
        problem = "When method is classify, key 'examples' is expected and was not found"
    elif not isinstance(listed, list):
        problem = "Expecting 'examples' value to be an list/array"
    elif not listed:
        problem = "'examples' value is an empty array"
    if problem:
        raise InvalidArgumentError(f"JSON Value: {json_text.show(document)} {problem}")
    return context, [_example(item) for item in document["examples"]]


def _example(item: Any) -> bytes:
    from tensorflow.core.example import example_pb2

    if not isinstance(item, dict):
        raise InvalidArgumentError(
            f"Example must be JSON object but got JSON {json_text.type_name(item)}"
        )
    example = example_pb2.Example()
    for name, content in item.items():
        feature = example.features.feature[name.encode("utf-8", "replace").decode()]
        for value in content if isinstance(content, list) else [content]:
            _add_value(feature, name, value)
    return bytes(example.SerializeToString())


def _add_value(feature: Any, name: str, value: Any) -> None:
    """Add one value; the first one decides for all which of the three lists they go to."""
    kind = feature.WhichOneof("kind")
    if isinstance(value, float):
        fits = "float_list"
    elif isinstance(value, int):
        fits = "int64_list"
    elif isinstance(value, str) or (isinstance(value, dict) and json_values.is_base64(value)):
        fits = "bytes_list"
    else:
        raise InvalidArgumentError(
            f"Feature: {name} has element with unexpected JSON type: {json_text.type_name(value)}"
        )
    if kind not in (None, fits):
        raise InvalidArgumentError(
            f"Unexpected element type in feature: {name} expecting type:"
            f" {kind.removesuffix('_list')}"
        )
    if fits == "int64_list" and value > json_values.INTEGERS["int64"][1]:
        raise InvalidArgumentError(
            f"Feature: {name} has uint64_t element. Only int64_t is supported."
        )
    getattr(feature, fits).value.append(
        json_values.element(value, "string") if fits == "bytes_list" else value
    )
