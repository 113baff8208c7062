"""JSON as TensorFlow Serving reads it, and prints it inside its error messages.

Both are RapidJSON's ways. Reading: NaN, Inf and Infinity are numbers, text after the first complete
value is ignored, nesting has no limit, strings may hold any bytes (they pass through as surrogate
escapes), and of two equal keys the first counts. Printing: four spaces, arrays of plain values on
one line, shortest numbers that read back the same, and nothing after the first token beyond 256
bytes, nor after a NaN or Infinity, which has no text there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from mlops_mini.errors import InvalidArgumentError

_MAX_BYTES = 256
# What `quick` allows: some milliseconds.
_MAX_QUICK_CONTAINERS = 2**14
_MAX_QUICK_BYTES = 2**13  # in the slow way, which takes up to 2 us a byte
_NOT_FINITE = ("", ", ", ": ")  # what stands before a number that has no text
_INDENT = "    "
_BLANKS = re.compile(r"[ \n\r\t]*")
_UNESCAPED = re.compile(r'[^"\\\x00-\x1f]*')
_HEX = re.compile(r"[0-9A-Fa-f]{4}")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]*)?")
# Some items of a list, each with its comma: short numbers, words, and texts of plain characters.
_PLAIN_ITEMS = re.compile(
    r"""(?:(?:-?(?:0|[1-9][0-9]{0,17}+)(?![0-9])(?:\.[0-9]{1,50}+)?(?:[eE][+-]?[0-9]{1,2})?
    |"[ !\#-\[\]-~]*+"|true|false|null)[\ \n\r\t]*+,[\ \n\r\t]*+){1,4096}+""",
    re.VERBOSE,
)
_WORDS = {
    "true": True, "false": False, "null": None, "NaN": math.nan, "-NaN": math.nan,
    "Infinity": math.inf, "Inf": math.inf, "-Infinity": -math.inf, "-Inf": -math.inf,
}  # fmt: skip
_ESCAPES = {
    '"': b'"', "\\": b"\\", "/": b"/", "b": b"\b", "f": b"\f", "n": b"\n", "r": b"\r",
    "t": b"\t",
}  # fmt: skip
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CLOSING: dict[type, tuple[str, str]] = {
    dict: ("}", "an object member"),
    list: ("]", "an array element"),
}


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
    """Parse as `parse` does, whatever the body: slower, in time linear in its length."""
    if not body:
        raise InvalidArgumentError("JSON Parse error: The document is empty")
    text = body.decode("latin-1")  # so that a position is an offset in bytes
    position = _skip(text, 3 if body.startswith(_BYTE_ORDER_MARK) else 0)
    if text[position : position + 1] in ("", "\0"):
        raise _error("The document is empty.", position)
    containers: list[Any] = []
    keys: list[str] = []  # of the value that comes next, one for each object that is open
    while True:
        value, position = _value(text, position)
        is_open = isinstance(value, (dict, list))
        if is_open:
            position = _skip(text, position)
            is_open = text[position : position + 1] != _CLOSING[type(value)][0]
            if is_open:
                containers.append(value)
            else:
                position += 1
        while not is_open:
            if not containers:
                return value
            value, position, is_open = _put(containers, keys, value, _skip(text, position), text)
        if isinstance(containers[-1], dict):
            key, position = _key(text, position)
            keys.append(key)
        elif run := _PLAIN_ITEMS.match(text, position):
            # What every parser reads alike is left to the fastest one.
            containers[-1].extend(orjson.loads(f"[{run.group().rstrip()[:-1]}]"))
            position = run.end()


def _put(
    containers: list[Any], keys: list[str], value: Any, position: int, text: str
) -> tuple[Any, int, bool]:
    """Put a complete value into the innermost container; say whether that waits for another."""
    container = containers[-1]
    if isinstance(container, dict):
        container.setdefault(keys.pop(), value)
    else:
        container.append(value)
    closing, what = _CLOSING[type(container)]
    mark = text[position : position + 1]
    if mark == ",":
        return None, _skip(text, position + 1), True
    if mark != closing:
        raise _error(f"Missing a comma or '{closing}' after {what}.", position)
    return containers.pop(), position + 1, False


def _skip(text: str, position: int) -> int:
    return _BLANKS.match(text, position).end()  # type: ignore[union-attr] # matches anything


def _key(text: str, position: int) -> tuple[str, int]:
    if text[position : position + 1] != '"':
        raise _error("Missing a name for object member.", position)
    key, position = _string(text, position)
    position = _skip(text, position)
    if text[position : position + 1] != ":":
        raise _error("Missing a colon after a name of object member.", position)
    return key, _skip(text, position + 1)


def _value(text: str, position: int) -> tuple[Any, int]:
    """Read a plain value, or open a container, and return what comes behind it."""
    first = text[position : position + 1]
    if first == "{":
        return {}, position + 1
    if first == "[":
        return [], position + 1
    if first == '"':
        return _string(text, position)
    if number := _NUMBER.match(text, position):
        return _number_of(number), number.end()
    for word, meaning in _WORDS.items():
        end = position + len(word)
        # Behind Inf an i must go on to Infinity, which is longer and came first.
        if text.startswith(word, position) and not (word[-1] == "f" and text[end : end + 1] == "i"):
            return meaning, end
    # RapidJSON has taken what still could have become a word.
    here = text[position : position + len("-Infinity")]
    n_taken = max(_common(word, here) for word in _WORDS)
    raise _error("Invalid value.", position + n_taken)


def _common(word: str, text: str) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(word, text, strict=False)) if a != b),
        min(len(word), len(text)),
    )


def _number_of(match: re.Match[str]) -> int | float:
    fraction, exponent = match.groups()
    if fraction == ".":
        raise _error("Miss fraction part in number.", match.end(1))
    if exponent and not exponent[-1].isdigit():
        raise _error("Miss exponent in number.", match.end())
    if not (fraction or exponent):
        digits = match.group()
        # No integer of 64 bits has more than 20 characters; what none of them holds is a double.
        if len(digits) <= 20 and -(2**63) <= int(digits) < 2**64:
            return int(digits)
    value = float(match.group())
    if math.isinf(value):
        raise _error("Number too big to be stored in double.", match.start())
    return value


def _string(text: str, position: int) -> tuple[str, int]:
    """Read a string from its opening quotation mark on."""
    parts = []
    position += 1
    while True:
        end = _UNESCAPED.match(text, position).end()  # type: ignore[union-attr] # matches anything
        parts.append(text[position:end].encode("latin-1"))
        mark = text[end : end + 1]
        if mark == '"':
            return b"".join(parts).decode("utf-8", "surrogateescape"), end + 1
        if mark in ("", "\0"):
            raise _error("Missing a closing quotation mark in string.", end)
        if mark != "\\":
            raise _error("Invalid escape character in string.", end)
        escaped = text[end + 1 : end + 2]
        if escaped == "u":
            part, position = _code_point(text, end)
        elif escaped in _ESCAPES:
            part, position = _ESCAPES[escaped], end + 2
        else:
            raise _error("Invalid escape character in string.", end)
        parts.append(part)


def _code_point(text: str, position: int) -> tuple[bytes, int]:
    r"""Read `\uXXXX`, or two of them that make a pair of surrogates."""

    def half(at: int) -> int:
        digits = _HEX.match(text, at + 2)
        if digits is None:
            raise _error("Incorrect hex digit after \\u escape in string.", position)
        return int(digits.group(), 16)

    point, end = half(position), position + 6
    if 0xD800 <= point <= 0xDFFF:
        low = half(end) if point <= 0xDBFF and text.startswith("\\u", end) else 0
        if not 0xDC00 <= low <= 0xDFFF:
            raise _error("The surrogate pair in string is invalid.", position)
        point, end = 0x10000 + ((point - 0xD800) << 10) + low - 0xDC00, end + 6
    return chr(point).encode(), end


def _error(text: str, offset: int) -> InvalidArgumentError:
    return InvalidArgumentError(f"JSON Parse error: {text} at offset: {offset}")
