"""JSON bodies of requests to numpy and examples, in TensorFlow Serving's rules and words.

Predict has two forms: rows (`instances`, one element an example) and columns (`inputs`, one tensor
a name). The shape comes from the JSON alone: what a signature declares is never checked here, only
names and element types are.

Source: TensorFlow Serving's RESTful API, https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError, UnimplementedError
from mlops_mini.serving import json_text
from mlops_mini.wire import DTYPES, NotQuickError

Array = npt.NDArray[Any]

_NUMPY = {dtype.name: dtype.numpy for dtype in DTYPES}
_MAX_RANK = 64  # numpy's; TensorFlow's is 254
_MAX_QUICK_VALUES = 2**12  # one by one: some milliseconds
_FLOATS = ("float", "double")
# An integer token must lie in this range; it is then cut to the type without a check.
_INTEGERS = {
    **dict.fromkeys(("int32", "int16", "int8", "uint8"), (-(2**31), 2**31 - 1)),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedRequest:
    """What a predict body asks for.

    Attributes:
        is_rows: True for `instances`, False for `inputs`.
        inputs: One array per input alias; strings are object arrays of `bytes`.
    """

    is_rows: bool
    inputs: Mapping[str, Array]


def parse_object(body: bytes, *, quick: bool = False) -> dict[str, Any]:
    """Parse a request body that must be a JSON object.

    NaN, Inf, Infinity and text after the first complete value are accepted, any nesting, and bytes
    that are no UTF-8; the first of two equal keys counts.

    Args:
        body: What was sent.
        quick: Raise `wire.NotQuickError` if it takes long for its size.

    Raises:
        InvalidArgumentError: With the text and offset of TensorFlow Serving's own parser.

    >>> parse_object(b'{"instances": [1.5, NaN]} and more')
    {'instances': [1.5, nan]}
    """
    document = json_text.parse(body, quick=quick)
    if not isinstance(document, dict):
        raise InvalidArgumentError(f"JSON Value: {json_text.show(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """Return the signature a body asks for, empty for the default one.

    Raises:
        InvalidArgumentError: Its name is no string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise InvalidArgumentError(
            f"JSON Value: {json_text.show(document)} not formatted correctly."
            " 'signature_name' key must be a string value."
        )
    return name


def decode_predict(
    document: Mapping[str, Any], dtypes: Mapping[str, str], *, quick: bool = False
) -> DecodedRequest:
    """Turn a parsed predict body into arrays.

    Args:
        document: The body, with one of the keys `instances` and `inputs`.
        dtypes: TensorFlow's name of the element type of each input alias, such as `float`.
        quick: Raise `wire.NotQuickError` rather than look at very many values one by one, to say
            which of them is wrong.

    Raises:
        InvalidArgumentError: Names, nesting or types do not fit.
        UnimplementedError: JSON has no form for the type (columns only; in rows it is wrapped).

    >>> decode_predict({"instances": [[1, 2], [3, 4]]}, {"x": "float"}).inputs["x"].shape
    (2, 2)
    """
    if "instances" in document and "inputs" in document:
        raise InvalidArgumentError(
            f"JSON Value: {json_text.show(document)} Not formatted correctly expecting only one of"
            " 'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        rows = _checked_rows(document["instances"], document, dtypes)
        arrays = _regular_rows(rows, dtypes)
        if arrays is None:
            _check_few_values(rows, quick=quick)
            arrays = _decode_rows(rows, dtypes)
        return DecodedRequest(is_rows=True, inputs=arrays)
    if "inputs" in document:
        columns = _columns(document["inputs"], dtypes)
        arrays = _regular_columns(columns, dtypes)
        if arrays is None:
            _check_few_values(columns, quick=quick)
            arrays = _decode_columns(columns, dtypes)
        return DecodedRequest(is_rows=False, inputs=arrays)
    raise InvalidArgumentError("Missing 'inputs' or 'instances' key")


def _checked_rows(rows: Any, document: Mapping[str, Any], dtypes: Mapping[str, str]) -> list[Any]:
    if not isinstance(rows, list):
        raise InvalidArgumentError(
            f"JSON Value: {json_text.show(document)} Expecting 'instances' to be an list/array"
        )
    if not rows:
        raise InvalidArgumentError(
            f"JSON Value: {json_text.show(document)} No values in 'instances' array"
        )
    if not isinstance(rows[0], dict) and len(dtypes) > 1:
        raise InvalidArgumentError(
            "instances is a plain list, but expecting list of objects as multiple input tensors"
            " required as per tensorinfo_map"
        )
    return rows


def _columns(inputs: Any, dtypes: Mapping[str, str]) -> dict[str, Any]:
    if _is_named(inputs):
        return dict(inputs)
    if len(dtypes) > 1:
        raise InvalidArgumentError(
            "inputs is a plain value/list, but expecting an object as multiple input tensors"
            " required as per tensorinfo_map"
        )
    return {next(iter(dtypes)): inputs}


def _check_few_values(values: Any, *, quick: bool) -> None:
    """Raise `NotQuickError` if there are many values and no time."""
    n_values, waiting = 0, [values]
    while quick and waiting:
        value = waiting.pop()
        n_values += 1
        if isinstance(value, (dict, list)):
            if n_values + len(waiting) + len(value) > _MAX_QUICK_VALUES:
                raise NotQuickError
            waiting += value.values() if isinstance(value, dict) else value


# The common way: all values of an input have one shape and one type, which is found level by level.
# It knows no error: whatever is not regular goes the other way, value by value.


def _regular_rows(rows: list[Any], dtypes: Mapping[str, str]) -> dict[str, Array] | None:
    if not _is_named(rows[0]):
        if len(dtypes) > 1:
            return None
        return _regular_columns({next(iter(dtypes)): rows}, dtypes)
    aliases = dtypes.keys()
    if aliases == {"b64"} or {*map(type, rows)} != {dict}:
        return None
    if not all(row.keys() == aliases for row in rows):
        return None
    return _regular_columns({alias: [row[alias] for row in rows] for alias in aliases}, dtypes)


def _regular_columns(
    columns: Mapping[str, Any], dtypes: Mapping[str, str]
) -> dict[str, Array] | None:
    arrays = {}
    for alias, dtype in sorted(dtypes.items()):
        array = _regular(columns[alias], dtype) if alias in columns else None
        if array is None:
            return None
        arrays[alias] = array
    return arrays


def _regular(value: Any, dtype: str) -> Array | None:
    level: list[Any] = [value]
    shape: list[int] = []
    while level and type(level[0]) is list:
        sizes = {*map(len, level)} if {*map(type, level)} == {list} else ()
        if len(sizes) != 1 or len(shape) == _MAX_RANK:
            return None
        shape += sizes
        level = list(chain.from_iterable(level))
    kinds = {*map(type, level)}
    if dtype in _FLOATS:
        fits = kinds <= {int, float}
    elif dtype in _INTEGERS:
        low, high = _INTEGERS[dtype]
        fits = kinds <= {int} and (not level or (low <= min(level) and max(level) <= high))
    elif dtype == "bool":
        fits = kinds <= {bool}
    elif dtype == "string" and kinds == {str}:
        level, fits = [text.encode("utf-8", "surrogateescape") for text in level], True
    else:
        fits = dtype == "string" and kinds <= {str, dict}
        try:
            level = [_element(item, dtype) for item in level] if fits else level
        except InvalidArgumentError:
            fits = False
    return _to_array(level, dtype, shape) if fits else None


class _Column:
    """The values of one input, gathered element by element."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.values: list[Any] = []
        self.shape: list[int] | None = None

    def add(self, value: Any) -> None:
        shape = _shape_of(value)
        _flatten(value, shape, self.dtype, self.values)
        if self.shape is None:
            self.shape = shape
        size, first_size = math.prod(shape), math.prod(self.shape)
        if size != first_size:
            raise InvalidArgumentError(f"Expecting tensor size: {first_size} but got: {size}")
        if shape != self.shape:
            raise InvalidArgumentError(
                f"Expecting shape {_show_shape(self.shape)} but got: {_show_shape(shape)}"
            )


def _decode_rows(rows: list[Any], dtypes: Mapping[str, str]) -> dict[str, Array]:
    columns = {alias: _Column(dtype) for alias, dtype in sorted(dtypes.items())}
    if _is_named(rows[0]):
        _add_named_rows(rows, columns)
    else:
        # Of several inputs the first one gets them; that the others are missing is said later.
        columns = {alias: columns[alias] for alias in sorted(columns)[:1]}
        _add_plain_rows(rows, *columns.values())
    return {
        alias: _to_array(column.values, column.dtype, [len(rows), *(column.shape or [])])
        for alias, column in columns.items()
    }


def _add_plain_rows(rows: list[Any], column: _Column) -> None:
    for index, row in enumerate(rows):
        if _is_named(row):
            raise InvalidArgumentError(
                f"Expecting value/list but got object at item {index} of input list"
            )
        try:
            column.add(row)
        except MlopsMiniError as exc:
            raise InvalidArgumentError(
                f"Failed to process element: {index} of 'instances' list. Error: {_status(exc)}"
            ) from exc


def _add_named_rows(rows: list[Any], columns: Mapping[str, _Column]) -> None:
    for index, row in enumerate(rows):
        if not _is_named(row):
            raise InvalidArgumentError(
                f"Expecting object but got list at item {index} of input list"
            )
        for key, value in row.items():
            try:
                if key not in columns:
                    raise InvalidArgumentError(f"JSON object: does not have named input: {key}")
                columns[key].add(value)
            except MlopsMiniError as exc:
                raise InvalidArgumentError(
                    f"Failed to process element: {index} key: {key} of 'instances' list."
                    f" Error: {_status(exc)}"
                ) from exc
        if len(row) != len(columns):
            raise InvalidArgumentError(
                f"Failed to process element: {index} of 'instances' list. JSON object:"
                f" {json_text.show(row)} keys must be equal to: {','.join(columns)}"
            )


def _decode_columns(columns: Mapping[str, Any], dtypes: Mapping[str, str]) -> dict[str, Array]:
    arrays = {}
    for alias, dtype in sorted(dtypes.items()):
        if alias not in columns:
            raise InvalidArgumentError(f"Missing named input: {alias} in 'inputs' object.")
        column = _Column(dtype)
        column.add(columns[alias])
        arrays[alias] = _to_array(column.values, dtype, column.shape or [])
    return arrays


def decode_examples(document: Mapping[str, Any]) -> list[bytes]:
    """Turn a parsed classify or regress body into serialized `tf.Example`s; imports TensorFlow.

    Raises:
        InvalidArgumentError: There are none, or a feature that a `tf.Example` cannot hold.
    """
    context = _example(document["context"]) if "context" in document else b""
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
    return [context + _example(item) for item in document["examples"]]


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
    elif isinstance(value, str) or (isinstance(value, dict) and _is_base64(value)):
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
    if fits == "int64_list" and value > _INTEGERS["int64"][1]:
        raise InvalidArgumentError(
            f"Feature: {name} has uint64_t element. Only int64_t is supported."
        )
    getattr(feature, fits).value.append(
        _element(value, "string") if fits == "bytes_list" else value
    )


def _is_named(value: Any) -> bool:
    """True for an object that names inputs, False for values, lists and base64 objects."""
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: dict[str, Any]) -> bool:
    return len(value) == 1 and isinstance(value.get("b64"), str)


def _shape_of(value: Any) -> list[int]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _flatten(value: Any, shape: list[int], dtype: str, flat: list[Any]) -> None:
    """Add the values of nested lists, however deep, to a flat one."""
    open_lists = [iter([value])]
    while open_lists:
        level = len(open_lists) - 1
        for item in open_lists[-1]:
            if not isinstance(item, list):
                if level != len(shape):
                    raise InvalidArgumentError(
                        f"JSON Value: {json_text.show(item)} found at incorrect level: {level + 1}"
                        f" in the JSON DOM. Expected at level: {len(shape)}"
                    )
                flat.append(_element(item, dtype))
                continue
            if level >= len(shape):
                raise InvalidArgumentError(
                    f"Encountered list at unexpected level: {level} expected < {len(shape)}"
                )
            if len(item) != shape[level]:
                raise InvalidArgumentError(
                    f"Encountered list at unexpected size: {len(item)} at level: {level}"
                    f" expected size: {shape[level]}"
                )
            open_lists.append(iter(item))
            break
        else:
            open_lists.pop()


def _element(value: Any, dtype: str) -> Any:
    kind = type(value)
    fits = False
    if dtype in _FLOATS:
        fits = kind is float or kind is int
    elif dtype in _INTEGERS:
        low, high = _INTEGERS[dtype]
        fits = kind is int and low <= value <= high
    elif dtype == "bool":
        fits = kind is bool
    elif dtype == "string":
        if kind is dict:
            return _from_base64(value)
        fits = kind is str
        value = value.encode("utf-8", "surrogateescape") if fits else value
    elif kind is not dict:
        raise UnimplementedError(
            f"Conversion of JSON Value: {json_text.show(value)} to type: {dtype}"
        )
    if not fits:
        raise InvalidArgumentError(
            f"JSON Value: {json_text.show(value)} Type: {json_text.type_name(value)}"
            f" is not of expected type: {dtype}"
        )
    return value


def _from_base64(value: dict[str, Any]) -> bytes:
    if not _is_base64(value):
        raise InvalidArgumentError(
            f"JSON Value: {json_text.show(value)} not formatted correctly for base64 data"
        )
    text = "".join(value["b64"].split())
    bare = text.rstrip("=")
    padded = bare + "=" * (-len(bare) % 4)
    try:
        return binascii.a2b_base64(padded if text in (bare, padded) else "=", strict_mode=True)
    except ValueError as exc:
        raise InvalidArgumentError("Unable to base64 decode") from exc


def _to_array(values: list[Any], dtype: str, shape: list[int]) -> Array:
    if len(shape) > _MAX_RANK:
        raise InvalidArgumentError(
            f"tensors have at most {_MAX_RANK} dimensions here, got {len(shape)}"
        )
    if dtype in _FLOATS:
        with np.errstate(over="ignore"):  # 1e39 becomes Infinity
            flat = np.array(values, np.float64).astype(_NUMPY[dtype])
    elif dtype in _INTEGERS:
        wide = np.int64 if _INTEGERS[dtype][0] < 0 else np.uint64
        flat = np.array(values, wide).astype(_NUMPY[dtype])
    else:
        flat = np.empty(len(values), _NUMPY.get(dtype, object))
        flat[:] = values
    return flat.reshape(shape)


def _status(exc: MlopsMiniError) -> str:
    name = "UNIMPLEMENTED" if isinstance(exc, UnimplementedError) else "INVALID_ARGUMENT"
    return f"{name}: {exc}"


def _show_shape(shape: list[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
