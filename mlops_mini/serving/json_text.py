"""Values printed as TensorFlow Serving prints them inside its error messages.

It prints with RapidJSON's PrettyWriter: four spaces, arrays of plain values on one line, shortest
numbers that read back the same, and nothing after the first token beyond 256 bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

_MAX_BYTES = 256
_INDENT = "    "


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
        if n_bytes >= _MAX_BYTES:
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


def _tokens(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield "{"
        for index, (key, item) in enumerate(value.items()):
            yield ",\n" if index else "\n"
            yield _INDENT * (depth + 1) + json.dumps(key, ensure_ascii=False) + ": "
            yield from _tokens(item, depth + 1)
        yield "\n" + _INDENT * depth + "}" if value else "}"
    elif isinstance(value, list):
        yield "["
        for index, item in enumerate(value):
            if index:
                yield ", "
            yield from _tokens(item, depth + 1)
        yield "]"
    elif isinstance(value, float):
        yield _number(value)
    else:
        yield json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """Print a double as RapidJSON does: plain digits from 1e-6 to below 1e21, else `1.5e30`."""
    if not math.isfinite(value):
        return json.dumps(value)
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if exponent and 0 < int(exponent) < 21:
        return f"{value:.1f}"
    if exponent in ("-05", "-06"):
        return f"{value:.{len(mantissa.replace('.', '').lstrip('-')) - 1 - int(exponent)}f}"
    return f"{mantissa}e{int(exponent)}" if exponent else text
