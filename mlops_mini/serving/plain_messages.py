"""Predict messages of plain tensors as bytes, without a protobuf message in between.

All that messages of one kind share, from the model to the shapes, is written once; then only the
values come in. Plain are floats, doubles and texts; the rest is left to `mlops_mini.wire`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_mini import wire
from mlops_mini.wire import DType, ModelSpec, PredictRequest, PredictResponse

_FIELDS = {"float": 5, "double": 6, "string": 8}  # of a TensorProto
_BYTES, _VARINT = 2, 0  # wire types
_OUTPUTS, _INPUTS = 1, 2  # fields of the two messages

Array = npt.NDArray[Any]


def are_plain(arrays: Iterable[Array]) -> bool:
    """Say whether messages of these can be written here."""
    return all(array.dtype.char in "fdO" for array in arrays)


def write_request(spec: ModelSpec, inputs: Mapping[str, Array]) -> bytes:
    """Serialize a PredictRequest with typed fields; the arguments are those of the message.

    >>> message = write_request(ModelSpec(name="m"), {"x": np.array([b"some text"], object)})
    >>> wire.PredictRequest.from_bytes(message).inputs["x"]
    array([b'some text'], dtype=object)
    """
    return b"".join([_asked(spec), *[_entry(_INPUTS, alias, a) for alias, a in inputs.items()]])


def write_response(spec: ModelSpec, aliases: Sequence[str], arrays: Sequence[Array]) -> bytes:
    """Serialize a PredictResponse with typed fields.

    >>> outputs = [np.float32([[0.5], [2]])]
    >>> message = write_response(ModelSpec(name="m", version=3), ["y"], outputs)
    >>> wire.PredictResponse.from_bytes(message).outputs["y"].tolist()
    [[0.5], [2.0]]
    """
    entries = [_entry(_OUTPUTS, alias, a) for alias, a in zip(aliases, arrays, strict=True)]
    return b"".join([_answered(spec), *entries])


@functools.lru_cache(256)
def _asked(spec: ModelSpec) -> bytes:
    return PredictRequest(model_spec=spec, inputs={}).to_bytes()


@functools.lru_cache(256)
def _answered(spec: ModelSpec) -> bytes:
    return PredictResponse(model_spec=spec, outputs={}).to_bytes()


def _entry(number: int, alias: str, array: Array) -> bytes:
    """Write one tensor with its alias, in that field of a message."""
    char, shape = array.dtype.char, array.shape
    if char != "O":
        return _head(number, alias, char, shape) + array.tobytes()
    key, tensor = _start(alias, char, shape)
    texts = [field(_FIELDS["string"], text) for text in array.flat]
    return field(number, key + field(2, tensor + b"".join(texts)))


@functools.lru_cache(1024)
def _head(number: int, alias: str, char: str, shape: tuple[int, ...]) -> bytes:
    """Write all of a tensor of numbers that comes before them."""
    key, tensor = _start(alias, char, shape)
    n_bytes = math.prod(shape) * np.dtype(char).itemsize
    tensor += _length(_FIELDS[_dtype(char).name], n_bytes)
    value = _length(2, len(tensor) + n_bytes) + tensor
    return _length(number, len(key) + len(value) + n_bytes) + key + value


@functools.lru_cache(1024)
def _start(alias: str, char: str, shape: tuple[int, ...]) -> tuple[bytes, bytes]:
    """Write what an entry of a map begins with: its key, and the type and shape of a tensor."""
    dims = b"".join(field(2, _tag(1, _VARINT) + _varint(size)) for size in shape)
    tensor = _tag(1, _VARINT) + _varint(_dtype(char).number) + field(2, dims)
    return field(1, alias.encode()), tensor


def _dtype(char: str) -> DType:
    return next(dtype for dtype in wire.DTYPES if dtype.numpy == np.dtype(char))


def field(number: int, content: bytes) -> bytes:
    r"""Write a field of bytes, a text or a message, whose number is 15 at most.

    >>> field(1, b"abc")
    b'\n\x03abc'
    """
    return _length(number, len(content)) + content


@functools.lru_cache(4096)
def _length(number: int, n_bytes: int) -> bytes:
    return _tag(number, _BYTES) + _varint(n_bytes)


def _tag(number: int, wire_type: int) -> bytes:
    return bytes([number << 3 | wire_type])


def _varint(number: int) -> bytes:
    return wire.varints([number])
