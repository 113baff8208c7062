"""JSON as TensorFlow Serving reads it, and prints it inside its error messages.

TensorFlow Serving reads with RapidJSON, and so does `parse_exactly`, which gives errors the same
words and offsets. NaN, Inf and Infinity are numbers, text after the first complete value is
ignored, nesting has no limit, strings may hold any bytes (they pass through as surrogate escapes),
and the first of two equal keys counts. Where `python-rapidjson` differs from this, the difference
is made up for here.

Printing follows RapidJSON too: four spaces, arrays of plain values on one line, the shortest
numbers that read back the same. It stops at the first token beyond 256 bytes, and at a NaN or
Infinity, which has no text there.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import rapidjson

from mlops_mini.errors import InvalidArgumentError

_MAX_BYTES = 256
_NOT_FINITE = ("", ", ", ": ")  # what stands before a number that has no text
_INDENT = "    "

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MORE_VALUES = "The document root must not be followed by other values."
# In TensorFlow Serving's release of RapidJSON a control character has no error of its own.
_WORDS = {"Invalid encoding in string.": "Invalid escape character in string."}
_LONG_INTEGER = re.compile(rb"(?<![.0-9])[0-9]{19}")
# Each byte of a body that is not UTF-8 has a character that no text needs.
_STAND_INS = {byte: chr(0x10FF00 + byte) for byte in range(0x80, 0x100)}
_STANDING_IN = re.compile("[\U0010ff80-\U0010ffff]+")
# Containers nested deeper than this are read on their own: RapidJSON's limit here is about 1,000.
_LEVELS = 500
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)


def show(value: Any) -> str:
    r"""Print a parsed JSON value.

    >>> show({"inputs": [1, 2.0, "a"]})
    '{\n    "inputs": [1, 2.0, "a"]\n}'
    """
    written = []
    n_bytes = 0
    for token in _tokens(value, 0):
        written.append(token)
        n_bytes += len(token.encode("utf-8", "surrogateescape"))
        if n_bytes >= _MAX_BYTES or token in _NOT_FINITE:
            break
    return "".join(written)


def type_name(value: Any) -> str:
    """Name a parsed JSON value's type: Null False True Object Array String Number.

    >>> [type_name(value) for value in (None, True, 1.5, [], {})]
    ['Null', 'True', 'Number', 'Array', 'Object']
    """
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return "True" if value else "False"
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def show_shape(shape: Iterable[int]) -> str:
    """Print the sizes of an array.

    >>> show_shape((2, 3))
    '[2,3]'
    """
    return f"[{','.join(map(str, shape))}]"


def _tokens(value: Any, depth: int, before: str = "") -> Iterator[str]:
    """Cut the text of a value into tokens, each with what separates it from the one before."""
    if isinstance(value, Mapping):
        yield before + "{"
        for index, (key, item) in enumerate(value.items()):
            start = ",\n" if index else "\n"
            yield start + _INDENT * (depth + 1) + json.dumps(key, ensure_ascii=False)
            yield from _tokens(item, depth + 1, ": ")
        yield "\n" + _INDENT * depth + "}" if value else "}"
    elif isinstance(value, list):
        yield before + "["
        for index, item in enumerate(value):
            yield from _tokens(item, depth + 1, ", " if index else "")
        yield "]"
    else:
        number = isinstance(value, float)
        yield before + (_number(value) if number else json.dumps(value, ensure_ascii=False))


def _number(value: float) -> str:
    """Print a double as RapidJSON does: plain digits from 1e-6 to below 1e21, else `1.5e30`."""
    if not math.isfinite(value):
        return ""
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if exponent and 0 < int(exponent) < 21:  # zeros behind the digits that are needed
        return mantissa.replace(".", "").ljust(int(exponent) + 1 + (value < 0), "0") + ".0"
    if exponent in ("-05", "-06"):
        return f"{value:.{len(mantissa.replace('.', '').lstrip('-')) - 1 - int(exponent)}f}"
    return f"{mantissa}e{int(exponent)}" if exponent else text


def parse_exactly(body: bytes) -> Any:
    r"""Parse the first value of a body.

    Raises:
        InvalidArgumentError: It is broken, in RapidJSON's words and at its offset.

    >>> parse_exactly(b'{"a": [1, -Inf], "a": 2} and more')
    {'a': [1, -inf]}
    """
    if not body:
        raise InvalidArgumentError("JSON Parse error: The document is empty")
    n_mark_bytes = len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0
    text = body[n_mark_bytes:]
    restore = _as_64_bits if _LONG_INTEGER.search(text) else None
    try:
        text.decode()
        is_utf8 = True
    except UnicodeDecodeError:
        text = text.decode("latin-1").translate(_STAND_INS).encode()
        is_utf8, restore = False, _as_sent
    try:
        try:
            return _parse_value(text, restore)
        except RecursionError:
            return _DeepParser(text, restore).parse()
    except _BrokenJsonError as exc:
        offset = exc.offset if is_utf8 else len(text[: exc.offset].decode())
        raise InvalidArgumentError(
            f"JSON Parse error: {exc} at offset: {n_mark_bytes + offset}"
        ) from exc


class _BrokenJsonError(Exception):
    """Why a text cannot be parsed, in RapidJSON's words; `offset` is in bytes."""

    def __init__(self, words: str, offset: int) -> None:
        super().__init__(words)
        self.offset = offset


class _Decoder(rapidjson.Decoder):
    """Keeps the first of equal keys."""

    def start_object(self) -> list[tuple[str, Any]]:
        return []

    def end_object(self, members: list[tuple[str, Any]]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, member in members:
            value.setdefault(key, member)
        return value


_DECODER = _Decoder(number_mode=rapidjson.NM_NAN)


def _parse_value(text: bytes, restore: Callable[[Any], Any] | None) -> Any:
    """Parse the first value of a text.

    Args:
        text: UTF-8.
        restore: Is given every key and plain value, and returns what they stand for.

    Raises:
        RecursionError: It is nested too deeply.
    """
    try:
        # First with C's own numbers: they are not exact, but their errors are the original's.
        rapidjson.loads(text, number_mode=rapidjson.NM_NAN | rapidjson.NM_NATIVE)
    except rapidjson.JSONDecodeError as exc:
        offset, _, words = str(exc).removeprefix("Parse error at offset ").partition(": ")
        if words != _MORE_VALUES:
            raise _BrokenJsonError(_WORDS.get(words, words), int(offset)) from exc
        text = text[: int(offset)]
    value = _DECODER(text)
    return _replace_all(value, restore) if restore else value


def _replace_all(value: Any, restore: Callable[[Any], Any]) -> Any:
    root = [value]
    waiting: list[Any] = [root]
    while waiting:
        container = waiting.pop()
        is_object = isinstance(container, dict)
        values = list(container.values() if is_object else container)
        waiting += [inner for inner in values if isinstance(inner, (dict, list))]
        if is_object:
            keys = list(map(restore, container))
            container.clear()
            container.update(zip(keys, map(restore, values), strict=True))
        else:
            container[:] = map(restore, values)
    return root[0]


def _as_64_bits(value: Any) -> Any:
    """Turn an integer that 64 bits cannot hold into a double."""
    is_too_large = type(value) is int and not -(2**63) <= value < 2**64
    return float(value) if is_too_large else value


def _as_sent(value: Any) -> Any:
    """Turn stand-ins in a string into the bytes that were sent; otherwise as `_as_64_bits`."""
    if isinstance(value, str):
        return _STANDING_IN.sub(_sent_bytes, value)
    return _as_64_bits(value)


def _sent_bytes(stand_ins: re.Match[str]) -> str:
    sent = bytes(ord(character) - 0x10FF00 for character in stand_ins[0])
    return sent.decode("utf-8", "surrogateescape")


class _DeepParser:
    """Parses a value however deeply it is nested.

    RapidJSON itself has no limit, but the code that makes Python's objects calls itself for each
    level. So every 500 levels a container is parsed on its own, the inner ones first, and in the
    text around it a short string stands for it.
    """

    def __init__(self, text: bytes, restore: Callable[[Any], Any] | None) -> None:
        self._whole = text
        self._restore = restore
        self._mark = secrets.token_hex(8)  # no sender can have written it
        self._values: dict[str, Any] = {}
        self._errors: list[_BrokenJsonError] = []
        # Of each container that is open and will be parsed on its own: its text so far, and where
        # in the whole text the parts of this begin.
        self._texts, self._parts = [bytearray()], [[(0, 0)]]
        self._n_read = 0

    def parse(self) -> Any:
        """Return the first value, or raise the error that comes first in the text."""
        depth = 0
        for match in _STRING_OR_BRACKET.finditer(self._whole):
            if match[0] in (b"[", b"{"):
                if depth and depth % _LEVELS == 0:
                    self._read(match.start())
                    self._texts.append(bytearray())
                    self._parts.append([(0, match.start())])
                depth += 1
            elif match[0] in (b"]", b"}"):
                depth -= 1
                if depth <= 0:
                    self._whole = self._whole[: match.end()]  # the rest is ignored
                    break
                if depth % _LEVELS == 0:
                    self._close(match.end())
        while len(self._texts) > 1:  # the containers that do not end
            self._close(len(self._whole))
        self._read(len(self._whole))
        value = self._parse_innermost()
        if self._errors:
            raise min(self._errors, key=lambda error: error.offset)
        return value

    def _read(self, end: int) -> None:
        self._texts[-1] += self._whole[self._n_read : end]
        self._n_read = end

    def _close(self, end: int) -> None:
        self._read(end)
        stand_in = f"{self._mark}{len(self._values)}"
        self._values[stand_in] = self._parse_innermost()
        self._texts[-1] += f'"{stand_in}"'.encode()
        self._parts[-1].append((len(self._texts[-1]), end))

    def _parse_innermost(self) -> Any:
        text, parts = self._texts.pop(), self._parts.pop()
        try:
            return _parse_value(bytes(text), self._restored)
        except _BrokenJsonError as exc:
            begin, begin_in_whole = parts[bisect_right(parts, (exc.offset, math.inf)) - 1]
            offset = begin_in_whole + exc.offset - begin
            self._errors.append(_BrokenJsonError(str(exc), offset))
            return None

    def _restored(self, value: Any) -> Any:
        if isinstance(value, str) and value in self._values:
            return self._values[value]
        return self._restore(value) if self._restore else value
