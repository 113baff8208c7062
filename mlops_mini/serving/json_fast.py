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

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from types import NoneType
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import orjson
import simdjson

from mlops_mini.wire import MAX_RANK

Array = npt.NDArray[Any]

MAX_BYTES = 2**19  # of a body: two milliseconds
_MAX_SKELETON_BYTES = 2**17
_MAX_SKELETONS, _MAX_SKELETONS_BYTES = 256, 2**23  # together
_MAX_NAMED_BYTES = 2**16
_NOT_IN_SKELETON = b"0123456789+-.eE \t\r\n"
# The only skeletons that say all: one key with nested lists, and at most the signature's name.
_PLAIN = re.compile(
    rb'\{(?P<before>"signatur_nam":"[^"\\]*",)?"(?P<key>instancs|inputs)":(?P<value>[\[\],]+)'
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
        get: Lists what a mapping has for each of several aliases, by group.
        order: Puts such a list into the order of the signature's inputs.
        n_aliases: How many inputs there are.
    """

    shape: tuple[int, ...] | None
    groups: tuple[tuple[np.dtype[Any], tuple[str, ...]], ...]
    get: Callable[[Any], Sequence[Any]] = tuple
    order: Callable[[Sequence[Any]], Sequence[Any]] = tuple
    n_aliases: int = 1

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
        by_group = [*chain.from_iterable(groups.values())]
        return cls(
            shape=None,
            groups=tuple((k, tuple(v)) for k, v in groups.items()),
            get=itemgetter(*by_group),
            order=itemgetter(*[by_group.index(alias) for alias, *_ in inputs]),
            n_aliases=len(inputs),
        )


class FastRequest(NamedTuple):
    """What a plain body asks.

    Attributes:
        signature_name: As the body says it; empty for the default one.
        is_rows: True for `instances`, False for `inputs`.
        blocks: For one input its array, of doubles, shape [n_rows, ...]; for several one array for
            each of the layout's groups, shape [n_aliases, n_rows], or where there is only one row
            its values.
        n_rows: Rows, at least one.
        n_elements: Values; a text counts as its bytes and one more.
        row_shape: Sizes of a row; of several inputs () for a row of values, None for arrays.
    """

    signature_name: str
    is_rows: bool
    blocks: list[Any]
    n_rows: int
    n_elements: int
    row_shape: tuple[int, ...] | None


# As `FastRequest(...)`, without a call in Python.
_request = cast(
    "Callable[[tuple[Any, ...]], FastRequest]", functools.partial(tuple.__new__, FastRequest)
)


class _Known:
    """What a skeleton tells; `fits` is the last layout that its shape was found to fit."""

    __slots__ = ("fits", "has_name", "is_rows", "key", "row_shape", "shape", "size")

    def __init__(self, key: str, has_name: bool, shape: tuple[int, ...], size: int) -> None:
        self.key = key
        self.is_rows = key == "instances"
        self.has_name = has_name
        self.shape = shape
        self.row_shape = shape[1:]
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
            if not fits(known.shape, layout.shape):
                return None
            known.fits = layout
        block = flat.reshape(known.shape) if known.row_shape else flat
        n_rows = known.shape[0]
        return _request((name, known.is_rows, [block], n_rows, known.size, known.row_shape))

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


def read_numbers(body: bytes) -> FastRequest | None:
    """Read numbers for one input, as a `FastReader` does, of a body that is like none before.

    This takes longer, but little memory: for long bodies.

    >>> read_numbers(b'{"instances": [[1, 2], [3, 4]]}').blocks[0].tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    plain = _PLAIN.fullmatch(body.translate(None, _NOT_IN_SKELETON))
    shape = _regular_shape(plain["value"]) if plain else ()
    if plain is None or not shape or (plain["before"] and plain["after"]):
        return None
    try:
        document: Any = simdjson.Parser().parse(body)
        name = document["signature_name"] if plain["before"] or plain["after"] else ""
        is_rows = plain["key"] == b"instancs"
        values = document["instances" if is_rows else "inputs"]
        flat = np.frombuffer(values.as_buffer(of_type="d"))
    except (ValueError, KeyError, TypeError, RuntimeError):
        return None
    if flat.size != math.prod(shape):
        return None
    block = flat.reshape(shape)
    return FastRequest(name, is_rows, [block], shape[0], flat.size, shape[1:])


def _regular_shape(brackets: bytes) -> tuple[int, ...]:
    """Tell the sizes of nested lists of numbers, () if they have no single shape.

    Args:
        brackets: The lists without their numbers.

    >>> _regular_shape(b"[[,],[,],[,]]"), _regular_shape(b"[[,],[]]")
    ((3, 2), ())
    """
    sizes: list[int] = []
    part, n_levels = b"", len(brackets) - len(brackets.lstrip(b"["))
    if n_levels > MAX_RANK:
        return ()
    for start in range(n_levels, 0, -1):
        end = brackets.find(part + b"]", start)
        if end < 0:
            return ()
        sizes.insert(0, (end - start) // (len(part) + 1) + 1)
        part = b"[" + b",".join([part] * sizes[0]) + b"]"
    return tuple(sizes) if part == brackets else ()


def fits(shape: tuple[int, ...], declared: tuple[int, ...] | None) -> bool:
    """Say whether a shape is what was declared.

    >>> fits((3, 28), (-1, 28)), fits((3,), (-1, 28))
    (True, False)
    """
    if declared is None or len(shape) != len(declared):
        return False
    return all(size in (-1, given) for given, size in zip(shape, declared, strict=True))


def _read_named(body: bytes, layouts: Mapping[str, InputLayout | None]) -> FastRequest | None:
    """Read rows or columns of plain values for several inputs."""
    if len(body) > _MAX_NAMED_BYTES:
        return None
    pieces = body.split(b"NaN")
    if len(pieces) > 1 and b"null" in body:
        return None
    try:
        document = orjson.loads(b"null".join(pieces) if len(pieces) > 1 else body)
        name = document.get("signature_name", "")
        layout = layouts.get(name) if type(name) is str else None
        if layout is None or layout.shape is not None:
            return None
        is_rows = "instances" in document
        values = document["instances" if is_rows else "inputs"]
        n_keys = len(document) + (sum(map(len, values)) if is_rows else len(values))
        # A key came twice, is part of a value, or is none of ours.
        if n_keys != body.count(b":") or len(document) != 1 + ("signature_name" in document):
            return None
        flat, n_rows = (_rows if is_rows else _columns)(values, layout)
        return _blocks(name, is_rows, flat, n_rows, layout, len(pieces) - 1)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _rows(rows: Any, layout: InputLayout) -> tuple[Sequence[Any], int]:
    """List the values of rows by alias, in the layout's order."""
    if type(rows) is not list or {*map(len, rows)} != {layout.n_aliases}:
        raise TypeError
    if len(rows) == 1:
        return layout.get(rows[0]), 1
    by_alias = zip(*map(layout.get, rows), strict=True)
    return [*chain.from_iterable(by_alias)], len(rows)


def _columns(columns: Any, layout: InputLayout) -> tuple[Sequence[Any], int]:
    """List the values of columns in the same order."""
    lists = layout.get(columns)
    if len(columns) != layout.n_aliases or {*map(type, lists)} != {list}:
        raise TypeError
    n_rows = len(lists[0])
    if n_rows == 0 or {*map(len, lists)} != {n_rows}:
        raise TypeError
    return [*chain.from_iterable(lists)], n_rows


def _blocks(
    name: str, is_rows: bool, flat: Sequence[Any], n_rows: int, layout: InputLayout, n_nans: int
) -> FastRequest:
    """Check the types of all values; as many as `n_nans` may be null, and must be.

    Raises:
        TypeError: A value is of another type.
    """
    blocks: list[Any] = []
    n_elements, start = len(flat), 0
    for numpy, aliases in layout.groups:
        stop = start + n_rows * len(aliases)
        own: Any = flat[start:stop]
        start = stop
        if numpy.kind == "O":
            own = [*map(str.encode, own)]
            n_elements += sum(map(len, own))
        else:
            if not {*map(type, own)} <= (_NUMBERS_OR_NONE if n_nans else _NUMBERS):
                raise TypeError
            n_nans -= own.count(None) if n_nans else 0
        if n_rows > 1:
            own = np.array(own, object if numpy.kind == "O" else np.float64).reshape(-1, n_rows)
        blocks.append(own)
    if n_nans:  # one was part of a text
        raise TypeError
    return _request((name, is_rows, blocks, n_rows, n_elements, None if n_rows > 1 else ()))
