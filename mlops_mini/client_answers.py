"""The predictions and metadata that a client returns, and how they are read from answers."""

from __future__ import annotations

import base64
import contextlib
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import InternalError, InvalidArgumentError
from mlops_mini.wire import DTYPES

Array = npt.NDArray[Any]

RAW = ("utf-8", "surrogateescape")  # JSON strings of ours may hold any bytes
_NAMES = {key: d.name for d in DTYPES for key in (d.number, f"DT_{d.name.upper()}")}
_NUMPY = {dtype.name: dtype.numpy for dtype in DTYPES}


class Prediction(dict[str, Array]):
    """An answer: one array per output alias.

    Attributes:
        version: The version of the model that answered.
    """

    def __init__(self, outputs: Mapping[str, Array], *, version: int | None) -> None:
        super().__init__(outputs)
        self.version = version


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a signature says about one tensor.

    Attributes:
        dtype: TensorFlow's name of the element type, such as `float` or `string`.
        shape: Sizes, -1 where any will do; None if not even the rank is known.
    """

    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Signature:
    """One way to ask a model: its tensors by alias."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


@dataclass(frozen=True, slots=True)
class Metadata:
    """What one version of a model takes and gives, by name of the signature."""

    version: int
    signatures: Mapping[str, Signature]


@contextlib.contextmanager
def reading(where: str, answer: object) -> Iterator[None]:
    """Read an answer.

    Args:
        where: What was asked, and at which address.
        answer: The answer, to be shown.

    Raises:
        InternalError: Reading failed, since the answer has another form than a model server's.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, InvalidArgumentError) as exc:
        raise InternalError(
            f"{where} answered {reprlib.repr(answer)}, which is no model server's answer ({exc!r});"
            " is another program there?"
        ) from exc


def signatures(signature_defs: Mapping[str, Any]) -> dict[str, Signature]:
    """Read a SignatureDefMap as protobuf JSON prints it, with names or numbers of types."""

    def read(tensors: Mapping[str, Any]) -> dict[str, TensorInfo]:
        read = {}
        for alias, info in tensors.items():
            shape = info.get("tensor_shape", {"dim": []})
            sizes = tuple(int(dim["size"]) for dim in shape["dim"])
            known = None if shape.get("unknown_rank") else sizes
            read[alias] = TensorInfo(_NAMES.get(info["dtype"], "invalid"), known)
        return read

    return {
        name: Signature(read(s["inputs"]), read(s["outputs"])) for name, s in signature_defs.items()
    }


def from_json(value: Any, dtype: str) -> Array:
    """Make an array of JSON's numbers, texts and base64 objects.

    Args:
        value: One value, or nested lists of them.
        dtype: TensorFlow's name of the element type.

    Returns:
        Numbers of that type, or an object array of `bytes`.

    >>> from_json([1.5, 2], "float")
    array([1.5, 2. ], dtype=float32)
    """
    if dtype != "string":
        array = np.array(value, dtype=_NUMPY.get(dtype))
        has_nan = array.dtype.kind == "f" and np.isnan(array).any()
        if has_nan and any(item is None for item in np.array(value, dtype=object).flat):
            raise ValueError("null among numbers")
        return array
    array = np.array(value, dtype=object)
    for index, item in np.ndenumerate(array):
        is_text = isinstance(item, str)
        array[index] = (
            item.encode(*RAW) if is_text else base64.b64decode(item["b64"], validate=True)
        )
    return array
