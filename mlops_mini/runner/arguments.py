"""Arguments of a run, given from Python: taken where there is one obvious reading, else refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping, Set
from enum import Enum
from typing import Any

import numpy as np

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.runner import values

JsonObject = dict[str, Any]

# Protobuf reads JSON no deeper.
_DEEPEST = 100
_WAYS_OUT: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (Set, "it has no order, and a list has one: give sorted(...)"),
    (
        (bytes, bytearray, memoryview),
        "it is no text: give .decode(), or write a file and read it with dsl.importer",
    ),
    (dt.timedelta, "give .total_seconds()"),
    (Enum, "give its .value or its .name"),
    (complex, "JSON has no such number: give a list of two"),
)


def bind(definitions: Mapping[str, Any], given: Mapping[str, Any], *, what: str) -> JsonObject:
    """Check the arguments of a pipeline against its parameters, and complete them by defaults.

    Besides plain values these are taken: a path (as text), a date or time (as ISO 8601 text), a
    tuple or range (as list), numpy's scalars and arrays (as numbers, bools, texts and lists), a
    dataclass (as struct), a mapping (as struct).

    Args:
        definitions: `inputDefinitions.parameters` of the pipeline.
        given: Arguments by name; None counts as not given.
        what: Who takes them, for messages, such as "pipeline 'nightly'".

    Returns:
        Plain values by name; optional parameters without a value are absent.

    Raises:
        InvalidArgumentError: One is missing, unknown, of the wrong type, or nothing that JSON has.

    >>> from pathlib import Path
    >>> folder = {"folder": {"parameterType": "STRING"}}
    >>> bind(folder, {"folder": Path("/data")}, what="pipeline 'p'")
    {'folder': '/data'}
    >>> bind(folder, {"folder": {"/a", "/b"}}, what="pipeline 'p'")
    ... # doctest: +ELLIPSIS
    Traceback (most recent call last):
    mlops_mini.errors.InvalidArgumentError: parameter 'folder' of pipeline 'p' cannot be ... (set):
    it has no order, and a list has one: give sorted(...)
    """
    if unknown := sorted(set(given) - set(definitions)):
        raise InvalidArgumentError(
            f"{what} takes no {', '.join(map(repr, unknown))}; it takes "
            f"{', '.join(map(repr, definitions)) or 'no parameters'}"
        )
    bound = {}
    for name, value in given.items():
        if value is not None:
            subject = f"parameter {name!r} of {what}"
            parameter_type = definitions[name]["parameterType"]
            bound[name] = values.convert(
                _plain(value, subject), parameter_type, values.Source.ARGUMENT, what=subject
            )
            values.require_literal(bound[name], definitions[name], what=subject)
    return values.complete(definitions, bound, what=what)


def _plain(value: Any, what: str, depth: int = 0) -> Any:
    """Read a Python value as JSON has it."""
    if depth > _DEEPEST:
        raise InvalidArgumentError(
            f"{what.partition('[')[0]} is nested deeper than {_DEEPEST} times, or holds itself"
        )
    for cls, read in _READERS:
        if isinstance(value, cls):
            return read(value, what, depth)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _struct(fields, what, depth)
    return _refuse(value, what)


def _text(value: str, what: str, _depth: int) -> str:
    text = str.__str__(value)
    values.require_json(text, what=what)
    return text


def _float(value: float, what: str, _depth: int) -> float:
    values.require_json(float(value), what=what)
    return float(value)


def _numpy(value: Any, what: str, depth: int) -> Any:
    if np.ma.is_masked(value):
        raise InvalidArgumentError(f"{what} has masked values: fill them, with .filled(0) perhaps")
    if value.dtype.kind == "M" and not np.isnat(value).any():
        return np.datetime_as_string(value).tolist()
    if value.dtype.kind not in "biufUO":
        return _refuse(value, what)
    return _plain(value.tolist(), what, depth)


def _path(value: Any, what: str, depth: int) -> str:
    path = os.fspath(value)
    return _text(path, what, depth) if isinstance(path, str) else _refuse(path, what)


def _date(value: dt.date | dt.time, what: str, _depth: int) -> str:
    # pandas' NaT is a date, and equals nothing.
    return value.isoformat() if value == value else _refuse(value, what)  # noqa: PLR0124


def _list(value: Iterable[Any], what: str, depth: int) -> list[Any]:
    return [_plain(element, f"{what}[{i}]", depth + 1) for i, element in enumerate(value)]


def _struct(value: Mapping[Any, Any], what: str, depth: int) -> JsonObject:
    for name in value:
        if not isinstance(name, str):
            raise InvalidArgumentError(
                f"{what} has the key {name!r} ({type(name).__name__}), and a struct has only "
                "texts as keys: give str(key)"
            )
    return {
        _text(name, what, depth): _plain(field, f"{what}[{name!r}]", depth + 1)
        for name, field in value.items()
    }


# The first that fits reads a value: numpy's float64 is a float, its str_ a str, True an int.
_READERS: tuple[tuple[Any, Callable[[Any, str, int], Any]], ...] = (
    ((type(None), bool), lambda value, _what, _depth: value),
    (str, _text),
    (int, lambda value, _what, _depth: int(value)),
    (float, _float),
    ((np.generic, np.ndarray), _numpy),
    (os.PathLike, _path),
    ((dt.date, dt.time), _date),
    ((list, tuple, range), _list),
    (Mapping, _struct),
)


def _refuse(value: Any, what: str) -> Any:
    way_out = next(
        (way for cls, way in _WAYS_OUT if isinstance(value, cls)),
        "give text, a number, a bool, a list or a dict, or write a file and read it with "
        "dsl.importer",
    )
    shown = " ".join(reprlib.repr(value).split())
    raise InvalidArgumentError(f"{what} cannot be {shown} ({type(value).__name__}): {way_out}")
