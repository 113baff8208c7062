"""The plain cases of a predict body, read straight into arrays; anything else isn't read here.

There are two of them. Numbers for a model with one input, whatever their nesting: simdjson hands
them over as one flat buffer, which doesn't show how they were nested. That is told by the body's
skeleton, what is left of it without digits and blanks, if a body with the same skeleton has been
read the slow way before. And rows or columns of plain values for a model with several inputs:
orjson makes lists of them, and the values of all inputs of one type become one array.

Whatever is broken, ragged, of another type or only unusual is left to `json_request`, which knows
TensorFlow Serving's rules and words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import simdjson

Array = npt.NDArray[Any]

MAX_BYTES = 2**19  # of a body: two milliseconds
_MAX_SKELETON_BYTES = 2**17
_MAX_SKELETONS, _MAX_SKELETONS_BYTES = 256, 2**23  # together
_MAX_NAMED_BYTES = 2**16
_NOT_IN_SKELETON = b"0123456789+-.eE \t\r\n"
# The only skeletons that say all: one key with nested lists, and at most the signature's name.
_PLAIN = re.compile(
    rb'\{(?P<before>"signatur_nam":"[^"\\]*",)?"(?P<key>instancs|inputs)":[\[\],]+'
    rb'(?P<after>(?<=\]),"signatur_nam":"[^"\\]*")?\}'
)
_FLOATS = ("float", "double")
_NUMBERS = {int, float}
_NUMBERS_OR_NONE = {int, float, NoneType}


@dataclass(frozen=True, kw_only=True, slots=True)
class InputLayout:
    """What the inputs of a signature are, as far as a plain body can hold them.

    Attributes:
        shape: The declared sizes of the only input, -1 where any is allowed; None if there are
            several inputs, of which each takes one value for a row.
        groups: The inputs by element type: the type that is fed, and which aliases have it.
    """

    shape: tuple[int, ...] | None
    groups: tuple[tuple[np.dtype[Any], tuple[str, ...]], ...]

    @classmethod
    def of(
        cls, inputs: Sequence[tuple[str, str, np.dtype[Any] | None, tuple[int, ...] | None]]
    ) -> InputLayout | None:
        """Describe inputs that batches can be made of; None if they cannot.

        Args:
            inputs: Of each its alias, element type, numpy type and declared sizes.
        """
        if not inputs or not all(shape and shape[0] == -1 for *_, shape in inputs):
            return None
        if len(inputs) == 1:
            alias, dtype, numpy, shape = inputs[0]
            if dtype not in _FLOATS or numpy is None:
                return None
            return cls(shape=shape, groups=((numpy, (alias,)),))
        groups: dict[np.dtype[Any], list[str]] = {}
        for alias, dtype, numpy, shape in inputs:
            if dtype not in (*_FLOATS, "string") or numpy is None or shape != (-1,):
                return None
            if alias == "b64":  # may be the mark of a text instead
                return None
            groups.setdefault(numpy, []).append(alias)
        return cls(shape=None, groups=tuple((k, tuple(v)) for k, v in groups.items()))

    def to_blocks(self, arrays: Mapping[str, Array]) -> tuple[list[Array], int] | None:
        """Turn one array per alias into blocks and their number of rows; None if they don't fit."""
        if self.shape is not None:
            (array,) = arrays.values()
            is_fit = _fits(array.shape, self.shape) and array.dtype == self.groups[0][0]
            return ([array], len(array)) if is_fit and array.size else None
        shapes = {array.shape for array in arrays.values()}
        if len(shapes) != 1 or len(shape := shapes.pop()) != 1 or not shape[0]:
            return None
        if any(arrays[a].dtype != dtype for dtype, aliases in self.groups for a in aliases):
            return None
        blocks = [np.stack([arrays[a] for a in aliases]) for _, aliases in self.groups]
        return blocks, shape[0]

    def to_arrays(self, blocks: Sequence[Array]) -> dict[str, Array]:
        """Turn blocks into one array per alias, of the type that is fed."""
        if self.shape is not None:
            numpy, (alias,) = self.groups[0]
            return {alias: blocks[0].astype(numpy, copy=False)}
        arrays: dict[str, Array] = {}
        for (numpy, aliases), block in zip(self.groups, blocks, strict=True):
            arrays.update(zip(aliases, block.astype(numpy, copy=False), strict=True))
        return arrays


class FastRequest(NamedTuple):
    """What a plain body asks.

    Attributes:
        signature_name: As the body says it; empty for the default one.
        is_rows: True for `instances`, False for `inputs`.
        blocks: For one input its array, of doubles, shape [n_rows, ...]; for several one array for
            each of the layout's groups, shape [n_aliases, n_rows].
        n_rows: Rows, at least one.
        n_elements: Values; a text counts as its bytes and one more.
    """

    signature_name: str
    is_rows: bool
    blocks: list[Array]
    n_rows: int
    n_elements: int


class _Known:
    """What a skeleton tells; `fits` is the last layout that its shape was found to fit."""

    __slots__ = ("fits", "has_name", "is_rows", "key", "shape", "size")

    def __init__(self, key: str, has_name: bool, shape: tuple[int, ...], size: int) -> None:
        self.key = key
        self.is_rows = key == "instances"
        self.has_name = has_name
        self.shape = shape
        self.size = size
        self.fits: InputLayout | None = None


class FastReader:
    """Reads plain bodies, and knows the skeletons of those that were read before.

    Not for several threads.
    """

    def __init__(self) -> None:
        self._parser = simdjson.Parser()
        self._shapes: dict[bytes, _Known] = {}
        self._n_bytes = 0

    def read(self, body: bytes, layouts: Mapping[str, InputLayout | None]) -> FastRequest | None:
        """Read a body; None leaves it to the exact reader.

        Args:
            body: What was sent.
            layouts: The inputs of each signature; under "" those of the default one.
        """
        layout = layouts.get("")
        if layout is not None and layout.shape is None:
            return _read_named(body, layouts)
        known = self._shapes.get(body.translate(None, _NOT_IN_SKELETON))
        if known is None or len(body) > MAX_BYTES:
            return None
        name = ""
        try:
            document: Any = self._parser.parse(body)
            if known.has_name:
                name = document["signature_name"]
            flat = np.frombuffer(document[known.key].as_buffer(of_type="d"))
        except (ValueError, KeyError, TypeError, RuntimeError):
            self._parser = simdjson.Parser()  # the old one may be held by what has failed
            return None
        layout = layouts.get(name)
        if layout is None or flat.size != known.size:
            return None
        if layout is not known.fits:
            if not _fits(known.shape, layout.shape):
                return None
            known.fits = layout
        block = flat.reshape(known.shape)
        return FastRequest(name, known.is_rows, [block], known.shape[0], known.size)

    def learn(self, body: bytes, shape: tuple[int, ...]) -> None:
        """Remember the skeleton of a body that the exact reader has found to be of this shape."""
        skeleton = body.translate(None, _NOT_IN_SKELETON)
        plain = _PLAIN.fullmatch(skeleton)
        if not shape or 0 in shape or plain is None or len(skeleton) > _MAX_SKELETON_BYTES:
            return
        if plain["before"] and plain["after"]:  # of equal keys the first counts
            return
        self._n_bytes += len(skeleton)
        if len(self._shapes) >= _MAX_SKELETONS or self._n_bytes > _MAX_SKELETONS_BYTES:
            self._shapes.clear()
            self._n_bytes = len(skeleton)
        key = "instances" if plain["key"] == b"instancs" else "inputs"
        has_name = bool(plain["before"] or plain["after"])
        self._shapes[skeleton] = _Known(key, has_name, shape, math.prod(shape))


def _fits(shape: tuple[int, ...], declared: tuple[int, ...] | None) -> bool:
    """Say whether a shape is what was declared.

    >>> _fits((3, 28), (-1, 28)), _fits((3,), (-1, 28))
    (True, False)
    """
    if declared is None or len(shape) != len(declared):
        return False
    return all(size in (-1, given) for given, size in zip(shape, declared, strict=True))


def _read_named(body: bytes, layouts: Mapping[str, InputLayout | None]) -> FastRequest | None:
    """Read rows or columns of plain values for several inputs."""
    n_nans = body.count(b"NaN")
    if len(body) > _MAX_NAMED_BYTES or (n_nans and b"null" in body):
        return None
    try:
        document = orjson.loads(body.replace(b"NaN", b"null") if n_nans else body)
        name = document.get("signature_name", "")
        layout = layouts.get(name) if type(name) is str else None
        if layout is None or layout.shape is not None or not _has_keys(document):
            return None
        is_rows = "instances" in document
        values = document["instances" if is_rows else "inputs"]
        n_keys = len(document) + (sum(map(len, values)) if is_rows else len(values))
        if n_keys != body.count(b":"):  # a key came twice, or is part of a value
            return None
        read = _rows if is_rows else _columns
        columns, n_rows = read(values, layout)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    blocks = []
    n_elements = sum([len(flat) for flat in columns])
    for (numpy, _), flat in zip(layout.groups, columns, strict=True):
        kinds = {*map(type, flat)}
        if numpy.kind == "O":
            if kinds != {str}:
                return None
            block = np.empty(len(flat), object)
            block[:] = texts = [*map(str.encode, flat)]
            n_elements += sum(map(len, texts))
        else:
            if not kinds <= (_NUMBERS_OR_NONE if n_nans else _NUMBERS):
                return None
            n_nans -= flat.count(None) if n_nans else 0
            block = np.array(flat, np.float64)
        blocks.append(block.reshape(-1, n_rows))
    if n_nans:  # one was part of a text
        return None
    return FastRequest(name, is_rows, blocks, n_rows, n_elements)


def _has_keys(document: Mapping[str, Any]) -> bool:
    return len(document) == 1 + ("signature_name" in document)


def _rows(rows: Any, layout: InputLayout) -> tuple[list[list[Any]], int]:
    n_aliases = sum([len(aliases) for _, aliases in layout.groups])
    if type(rows) is not list or not rows or {*map(len, rows)} != {n_aliases}:
        raise TypeError
    if len(rows) == 1:
        row = rows[0]
        return [[row[alias] for alias in aliases] for _, aliases in layout.groups], 1
    return [[row[alias] for alias in aliases for row in rows] for _, aliases in layout.groups], len(
        rows
    )


def _columns(columns: Any, layout: InputLayout) -> tuple[list[list[Any]], int]:
    lists = [[columns[alias] for alias in aliases] for _, aliases in layout.groups]
    if {type(column) for group in lists for column in group} != {list}:
        raise TypeError
    sizes = {len(column) for group in lists for column in group}
    if len(sizes) != 1 or not (n_rows := sizes.pop()) or len(columns) != sum(map(len, lists)):
        raise TypeError
    return [[*chain.from_iterable(group)] for group in lists], n_rows
