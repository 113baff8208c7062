"""Plain Predict requests straight to numpy; anything else is left to `mlops_mini.wire`.

The calls of one client differ in the numbers of their only tensor. So the bytes before and after
these tell everything else, once a message with them has been read the exact way: the same bytes
around as many numbers are the same request with other numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.wire import ModelSpec, PredictRequest

_MAX_KNOWN = 64  # kinds of messages, of any length
_MAX_AROUND_BYTES = 2**12

Array = npt.NDArray[np.floating]


class FastRequest(NamedTuple):
    """What a plain message asks.

    Attributes:
        spec: The model.
        alias: The only input.
        array: Its numbers, at least one row.
    """

    spec: ModelSpec
    alias: str
    array: Array


class _Known(NamedTuple):
    head: bytes
    tail: bytes
    request: FastRequest


class FastReader:
    """Reads plain messages, and knows the kinds of those that were read before.

    Not for several threads.
    """

    def __init__(self) -> None:
        self._known: dict[int, list[_Known]] = {}  # by the length of the whole message
        self._n_known = 0

    def read(self, data: bytes) -> FastRequest | None:
        """Read a message; None leaves it to the exact reader."""
        for head, tail, (spec, alias, example) in self._known.get(len(data), ()):
            if data.startswith(head) and data.endswith(tail):
                flat = np.frombuffer(data, example.dtype, example.size, len(head))
                return FastRequest(spec, alias, flat.reshape(example.shape))
        return None

    def learn(self, data: bytes, request: PredictRequest) -> None:
        """Remember the kind of a message that the exact reader has read."""
        if request.model_spec is None or request.output_filter or request.unreadable:
            return
        if len(request.inputs) != 1:
            return
        ((alias, array),) = request.inputs.items()
        if array.dtype not in (np.float32, np.float64) or not array.ndim or not array.size:
            return
        # Numbers that stand nowhere else show where they are.
        raw = array.tobytes()
        start = data.find(raw)
        head, tail = data[:start], data[start + len(raw) :]
        if start < 0 or len(head) + len(tail) > _MAX_AROUND_BYTES:
            return
        if not _is_around(head, tail, request, alias, array):
            return
        if self._n_known >= _MAX_KNOWN:
            self._known.clear()
            self._n_known = 0
        self._n_known += 1
        known = _Known(head, tail, FastRequest(request.model_spec, alias, array))
        self._known.setdefault(len(data), []).append(known)


def _is_around(head: bytes, tail: bytes, request: PredictRequest, alias: str, array: Array) -> bool:
    """Say whether these bytes around other numbers make the same request of these."""
    others = (np.frombuffer(array.tobytes(), np.uint8) ^ 0x55).view(array.dtype)
    try:
        again = PredictRequest.from_bytes(head + others.tobytes() + tail)
    except InvalidArgumentError:
        return False
    read = again.inputs.get(alias)
    return (
        again.model_spec == request.model_spec
        and len(again.inputs) == 1
        and not (again.output_filter or again.unreadable)
        and read is not None
        and read.shape == array.shape
        and read.dtype == array.dtype
        and read.tobytes() == others.tobytes()
    )
