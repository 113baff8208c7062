"""TensorFlow Serving's Predict messages and their tensors, without TensorFlow.

A message is first read with the fast classes of `wire_messages`, in which packed numbers are bytes:
numpy then takes them as they are. If a sender did not pack, the length is wrong, and the message is
read again with the exact classes.

Source: tensorflow/core/framework/tensor.proto, tensorflow_serving/apis/*.proto.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.wire_messages import EXACT, FAST, parse

PREDICT_METHOD = "/tensorflow.serving.PredictionService/Predict"

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class DType:
    """One of TensorFlow's element types.

    Attributes:
        number: Its value in the enum `tensorflow.DataType`.
        name: TensorFlow's lower-case name, such as `float` or `int64`.
        numpy: The numpy type of the same width; `object` (of `bytes`) for strings.
        field: The typed field of a TensorProto that carries it.
    """

    number: int
    name: str
    numpy: np.dtype[Any]
    field: str


DTYPES: tuple[DType, ...] = tuple(
    DType(number, name, np.dtype(numpy), field)
    for number, name, numpy, field in (
        (1, "float", np.float32, "float_val"),
        (2, "double", np.float64, "double_val"),
        (3, "int32", np.int32, "int_val"),
        (4, "uint8", np.uint8, "int_val"),
        (5, "int16", np.int16, "int_val"),
        (6, "int8", np.int8, "int_val"),
        (7, "string", np.object_, "string_val"),
        (8, "complex64", np.complex64, "scomplex_val"),
        (9, "int64", np.int64, "int64_val"),
        (10, "bool", np.bool_, "bool_val"),
        (14, "bfloat16", ml_dtypes.bfloat16, "half_val"),
        (17, "uint16", np.uint16, "int_val"),
        (18, "complex128", np.complex128, "dcomplex_val"),
        (19, "half", np.float16, "half_val"),
        (22, "uint32", np.uint32, "uint32_val"),
        (23, "uint64", np.uint64, "uint64_val"),
    )
)
BY_NUMBER = {dtype.number: dtype for dtype in DTYPES}
_BY_NUMPY = {dtype.numpy: dtype for dtype in DTYPES}
# What a typed field that is read the exact way holds, where that is not the tensor's own type.
_CARRIERS: dict[str, type[np.generic]] = {
    "scomplex_val": np.float32,
    "dcomplex_val": np.float64,
    "int_val": np.int64,
    "half_val": np.int64,
}
# A shape takes a few bytes and may ask for all of the memory. This is gRPC's limit for a message.
_MAX_TENSOR_BYTES = 2**31 - 1
MAX_RANK = 64  # numpy's; TensorFlow's is 254
# Texts are handed to TensorFlow one by one, and no other thread runs meanwhile: 50 ns each.
_MAX_REPEATED_TEXTS = 2**18
_MAX_COUNTED_TEXTS = 2**15  # more make a long message, whatever they hold
_MAX_VARINT_BYTES = 5  # TensorFlow reads lengths of 32 bits
_AS_BYTES = ("float_val", "double_val", "scomplex_val", "dcomplex_val")
# What `quick` allows: some milliseconds.
_MAX_QUICK_TENSORS = 256
_MAX_QUICK_PADDING_BYTES = 2**20


class NotQuickError(Exception):
    """Reading this takes longer than most messages of its size; nothing is wrong with it.

    The event loop asks for a quick answer, since others wait meanwhile. It gets this error instead,
    and has the message read again on a worker thread.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """Which model, version and signature a request means.

    Attributes:
        name: Name of the servable.
        version: Exact version, if one is asked for.
        version_label: Label, such as `canary`, if one is asked for instead.
        signature_name: Empty means `serving_default`.
    """

    name: str
    version: int | None = None
    version_label: str = ""
    signature_name: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictRequest:
    """A Predict request in numpy terms.

    Attributes:
        model_spec: None when the sender left it out.
        inputs: One array per input alias. Strings are object arrays of `bytes`.
        output_filter: Aliases of the outputs wanted; empty means all.
        unreadable: Aliases of received inputs that cannot become an array; they are not in
            `inputs`. The receiver decides which error is reported first.
    """

    model_spec: ModelSpec | None
    inputs: Mapping[str, Array]
    output_filter: Sequence[str] = ()
    unreadable: Sequence[str] = ()

    def to_bytes(self, *, as_content: bool = True) -> bytes:
        """Serialize, numbers as `tensor_content`, which every server reads fastest, or typed."""
        request = FAST["PredictRequest"](output_filter=self.output_filter)
        if self.model_spec is not None:
            fill_spec(request.model_spec, self.model_spec)
        for alias, array in self.inputs.items():
            _fill_tensor(request.inputs[alias], array, as_content=as_content)
        return bytes(request.SerializeToString())

    @classmethod
    def from_bytes(cls, data: bytes, *, quick: bool = False) -> PredictRequest:
        """Parse what any client sent.

        Args:
            data: The message.
            quick: Raise `NotQuickError` rather than read very many tensors, or a few bytes that
                ask for a large array.

        Raises:
            InvalidArgumentError: Not a PredictRequest.
        """
        request, inputs, unreadable = _parse(data, "PredictRequest", "inputs", quick=quick)
        return cls(
            model_spec=read_spec(request),
            inputs=inputs,
            output_filter=tuple(request.output_filter),
            unreadable=unreadable,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictResponse:
    """A Predict response in numpy terms.

    Attributes:
        model_spec: The name asked for, the version that answered, the signature used.
        outputs: One array per output alias.
    """

    model_spec: ModelSpec
    outputs: Mapping[str, Array]

    def to_bytes(self, *, as_content: bool = False) -> bytes:
        """Serialize with typed fields, which clients may read directly, or as `tensor_content`."""
        response = FAST["PredictResponse"]()
        fill_spec(response.model_spec, self.model_spec)
        for alias, array in self.outputs.items():
            tensor = response.outputs[alias]
            _fill_tensor(tensor, array, as_content=as_content)
            if as_content and tensor.string_val:  # of strings the lengths, then the bytes
                lengths = varints(list(map(len, tensor.string_val)))
                tensor.tensor_content = lengths + b"".join(tensor.string_val)
                tensor.ClearField("string_val")
        return bytes(response.SerializeToString())

    @classmethod
    def from_bytes(cls, data: bytes) -> PredictResponse:
        """Parse what any server answered.

        Raises:
            InvalidArgumentError: Not a PredictResponse, or a tensor that cannot become an array.

        >>> spec = ModelSpec(name="m", version=3)
        >>> sent = PredictResponse(model_spec=spec, outputs={"y": np.float32([0.5, 2.0])})
        >>> PredictResponse.from_bytes(sent.to_bytes()).outputs["y"]
        array([0.5, 2. ], dtype=float32)
        """
        response, outputs, unreadable = _parse(data, "PredictResponse", "outputs", quick=False)
        if unreadable:
            raise InvalidArgumentError(f"tensor parsing error: {unreadable[0]}")
        return cls(model_spec=read_spec(response) or ModelSpec(name=""), outputs=outputs)


def fill_spec(target: Any, spec: ModelSpec) -> None:
    """Write which model is meant into a message's `model_spec`."""
    target.name, target.version_label = spec.name, spec.version_label
    target.signature_name = spec.signature_name
    if spec.version is not None:
        target.version.value = spec.version


def read_spec(source: Any) -> ModelSpec | None:
    """Read which model is meant from a message; None if it has no `model_spec`."""
    if not source.HasField("model_spec"):
        return None
    spec = source.model_spec
    return ModelSpec(
        name=spec.name,
        version=spec.version.value if spec.HasField("version") else None,
        version_label=spec.version_label,
        signature_name=spec.signature_name,
    )


def n_bytes(arrays: Mapping[str, Array]) -> int:
    """Count the bytes of numbers and texts, as a message holds them.

    >>> n_bytes({"x": np.float32([1, 2]), "s": np.array([b"abc"], object)})
    19
    """
    return sum(array.nbytes + text_bytes(array) for array in arrays.values())


def text_bytes(array: Array) -> int:
    """Count the bytes of texts, 0 for numbers; of very many texts only some are counted."""
    is_text = array.dtype.char == "O"
    return sum(map(len, islice(array.flat, _MAX_COUNTED_TEXTS))) if is_text else 0


def _fill_tensor(target: Any, array: Array, *, as_content: bool) -> None:
    values = np.asarray(array)
    if values.dtype.kind in "SU":
        values = values.astype(object)
    dtype = _BY_NUMPY.get(values.dtype)
    if dtype is None:
        sendable = sorted({str(known.numpy) for known in DTYPES})
        raise InvalidArgumentError(
            f"an array of dtype {values.dtype} cannot be sent; convert it to one of {sendable}"
        )
    target.dtype = dtype.number
    target.tensor_shape.SetInParent()
    for size in values.shape:
        target.tensor_shape.dim.add(size=size)
    if dtype.name == "string":
        target.string_val.extend(_as_bytes(item) for item in values.flat)
    elif as_content or dtype.field in _AS_BYTES:
        setattr(target, "tensor_content" if as_content else dtype.field, values.tobytes())
    elif dtype.field == "half_val":
        target.half_val.extend(values.view(np.uint16).ravel().tolist())
    else:
        getattr(target, dtype.field).extend(values.ravel().tolist())


def _as_bytes(item: Any) -> bytes:
    """Encode an item of a string tensor, which must be text or bytes."""
    if isinstance(item, bytes):
        return item
    try:
        return str.encode(item)
    except (TypeError, UnicodeEncodeError) as exc:
        raise InvalidArgumentError(f"{item!r} cannot be sent as text: {exc}") from exc


def _parse(
    data: bytes, name: str, tensors: str, *, quick: bool
) -> tuple[Any, dict[str, Array], list[str]]:
    """Parse with the fast classes, and again with the exact ones if a sender did not pack."""
    parsed = parse(FAST[name], data)
    if quick and len(getattr(parsed, tensors)) > _MAX_QUICK_TENSORS:
        raise NotQuickError
    arrays = {alias: _read_full(tensor) for alias, tensor in getattr(parsed, tensors).items()}
    unread = [alias for alias, array in arrays.items() if array is None]
    if unread:
        exact = getattr(parse(EXACT[name], data), tensors)
        arrays.update({alias: _read_exact(exact[alias], quick=quick) for alias in unread})
    readable = {alias: array for alias, array in arrays.items() if array is not None}
    return parsed, readable, sorted(arrays.keys() - readable.keys())


def _read_full(tensor: Any) -> Array | None:
    """Read a well-formed tensor of full length; None asks for the exact way."""
    dtype = BY_NUMBER.get(tensor.dtype)
    shape = _read_shape(tensor, dtype) if dtype else None
    if dtype is None or shape is None:
        return None
    n_values, content = math.prod(shape), tensor.tensor_content
    if content and dtype.name in ("string", "bool"):
        return None
    given = content or getattr(tensor, dtype.field)
    if content or dtype.field in _AS_BYTES:
        is_full = len(given) == n_values * dtype.numpy.itemsize
        return np.frombuffer(given, dtype.numpy).reshape(shape) if is_full else None
    return _read_field(tensor, dtype).reshape(shape) if len(given) == n_values else None


def _read_shape(tensor: Any, dtype: DType) -> list[int] | None:
    """Read the sizes; None if no array can have them."""
    if len(tensor.tensor_shape.dim) > MAX_RANK:  # `unknown_rank` is ignored: a scalar
        return None
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    n_bytes = math.prod(max(size, 1) for size in shape) * dtype.numpy.itemsize
    return shape if min(shape, default=0) >= 0 and n_bytes <= _MAX_TENSOR_BYTES else None


def _read_exact(tensor: Any, *, quick: bool) -> Array | None:
    """Read any tensor as `tf.io.parse_tensor` would: short lists repeat their last value."""
    dtype = BY_NUMBER.get(tensor.dtype)
    shape = _read_shape(tensor, dtype) if dtype else None
    if dtype is None or shape is None:
        return None
    n_values = math.prod(shape)
    if tensor.tensor_content:
        content = _read_content(tensor.tensor_content, dtype, n_values)
        return None if content is None else content.reshape(shape)
    flat = _read_field(tensor, dtype)
    n_missing = n_values - len(flat)
    if n_missing <= 0:
        return flat[:n_values].reshape(shape)
    if dtype.name == "string" and n_missing > _MAX_REPEATED_TEXTS:
        return None
    last = flat[-1] if len(flat) else (b"" if dtype.name == "string" else 0)
    if len(flat) <= 1:  # a view that repeats one value takes no memory, whatever the shape
        return np.broadcast_to(np.array(last, dtype.numpy), shape)
    if quick and n_missing * dtype.numpy.itemsize > _MAX_QUICK_PADDING_BYTES:
        raise NotQuickError
    padded = np.full(n_values, last, dtype.numpy)
    padded[: len(flat)] = flat
    return padded.reshape(shape)


def _read_field(tensor: Any, dtype: DType) -> Array:
    """Read the typed field of a tensor, as many values as were sent."""
    given: Sequence[Any] = getattr(tensor, dtype.field)
    if dtype.name == "string":
        texts = np.empty(len(given), dtype=object)
        texts[:] = given
        return texts
    flat = np.array(given, _CARRIERS.get(dtype.field, dtype.numpy))
    if dtype.numpy.kind == "c":
        # pairs of real and imaginary part; half a pair is dropped
        flat = flat[: len(flat) // 2 * 2].view(dtype.numpy)
    if dtype.field == "half_val":
        flat = flat.astype(np.uint16).view(dtype.numpy)
    return flat.astype(dtype.numpy, copy=False)


def _read_content(content: bytes, dtype: DType, n_values: int) -> Array | None:
    if not n_values:
        return np.empty(0, dtype.numpy)  # for no values any content will do
    if dtype.name == "string":
        return _read_string_content(content, n_values)
    is_odd_bool = dtype.name == "bool" and content.strip(b"\0\1")
    if is_odd_bool or len(content) != n_values * dtype.numpy.itemsize:
        return None
    return np.frombuffer(content, dtype.numpy)


def _read_string_content(content: bytes, n_values: int) -> Array | None:
    """Read the varint lengths, then the bytes, of a string tensor's content."""
    if n_values > len(content):  # each length takes a byte at least
        return None
    raw = np.frombuffer(content, np.uint8)
    # A varint ends with a byte below 0x80, and the lengths come first.
    ends = np.flatnonzero(raw < 0x80)[:n_values]
    if len(ends) < n_values:
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])
    widths = ends - starts + 1
    if widths.max() > _MAX_VARINT_BYTES:
        return None
    lengths = np.zeros(n_values, np.uint32)
    for index in range(int(widths.max())):
        has_byte = widths > index
        lengths[has_byte] |= (raw[starts[has_byte] + index] & np.uint32(0x7F)) << np.uint32(
            7 * index
        )
    stops = int(ends[-1]) + 1 + np.cumsum(lengths, dtype=np.int64)
    if stops[-1] != len(content):
        return None
    values = np.full(n_values, b"", dtype=object)
    is_long = lengths > 0
    bounds = zip((stops - lengths)[is_long].tolist(), stops[is_long].tolist(), strict=True)
    values[is_long] = [content[start:stop] for start, stop in bounds]
    return values


def varints(numbers: Sequence[int]) -> bytes:
    r"""Write numbers as protobuf does, seven bits a byte, the lowest first.

    >>> varints([1, 200])
    b'\x01\xc8\x01'
    """
    if max(numbers) < 0x80:
        return bytes(numbers)
    written = bytearray()
    for number in numbers:
        rest = number
        while rest >= 0x80:
            written.append(rest & 0x7F | 0x80)
            rest >>= 7
        written.append(rest)
    return bytes(written)
