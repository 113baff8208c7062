"""The values of a predict body read one by one, with TensorFlow Serving's words for what is wrong.

Here comes what `json_request` cannot read in one go: values that are wrong, or right and unusual.
The shape comes from the JSON alone: what a signature declares is never checked, only names and
element types are.

Source: TensorFlow Serving's RESTful API, https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Iterator, Mapping
from typing import Any

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError, UnimplementedError
from mlops_mini.serving import json_text
from mlops_mini.serving.json_text import show_shape

FLOATS = ("float", "double")
# An integer token must lie in this range; it is then cut to the type without a check.
INTEGERS = {
    **dict.fromkeys(("int32", "int16", "int8", "uint8"), (-(2**31), 2**31 - 1)),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}


class _Column:
    """The values of one input, gathered element by element."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.values: list[Any] = []
        self.shape: list[int] | None = None

    def add(self, value: Any) -> None:
        shape = _shape_of(value)
        _flatten(value, shape, self.dtype, self.values)
        if self.shape is None:
            self.shape = shape
        size, first_size = math.prod(shape), math.prod(self.shape)
        if size != first_size:
            raise InvalidArgumentError(f"Expecting tensor size: {first_size} but got: {size}")
        if shape != self.shape:
            raise InvalidArgumentError(
                f"Expecting shape {show_shape(self.shape)} but got: {show_shape(shape)}"
            )


def read_rows(
    rows: list[Any], dtypes: Mapping[str, str]
) -> Iterator[tuple[str, list[Any], list[int]]]:
    """Read the rows of a body.

    Args:
        rows: The elements of `instances`, at least one.
        dtypes: TensorFlow's name of the element type of each input alias, such as `float`.

    Yields:
        For each input that is given, its alias, its values and their shape.

    Raises:
        InvalidArgumentError: Names, nesting or types do not fit.
    """
    columns = {alias: _Column(dtype) for alias, dtype in sorted(dtypes.items())}
    if is_named(rows[0]):
        _add_named_rows(rows, columns)
    else:
        # The first of several inputs gets them; that the others are missing is said later.
        columns = {alias: columns[alias] for alias in sorted(columns)[:1]}
        _add_plain_rows(rows, *columns.values())
    for alias, column in columns.items():
        yield alias, column.values, [len(rows), *(column.shape or [])]


def _add_plain_rows(rows: list[Any], column: _Column) -> None:
    for index, row in enumerate(rows):
        if is_named(row):
            raise InvalidArgumentError(
                f"Expecting value/list but got object at item {index} of input list"
            )
        try:
            column.add(row)
        except MlopsMiniError as exc:
            raise InvalidArgumentError(
                f"Failed to process element: {index} of 'instances' list. Error: {_status(exc)}"
            ) from exc


def _add_named_rows(rows: list[Any], columns: Mapping[str, _Column]) -> None:
    for index, row in enumerate(rows):
        if not is_named(row):
            raise InvalidArgumentError(
                f"Expecting object but got list at item {index} of input list"
            )
        for key, value in row.items():
            try:
                if key not in columns:
                    raise InvalidArgumentError(f"JSON object: does not have named input: {key}")
                columns[key].add(value)
            except MlopsMiniError as exc:
                raise InvalidArgumentError(
                    f"Failed to process element: {index} key: {key} of 'instances' list."
                    f" Error: {_status(exc)}"
                ) from exc
        if len(row) != len(columns):
            raise InvalidArgumentError(
                f"Failed to process element: {index} of 'instances' list. JSON object:"
                f" {json_text.show(row)} keys must be equal to: {','.join(columns)}"
            )


def read_columns(
    columns: Mapping[str, Any], dtypes: Mapping[str, str]
) -> Iterator[tuple[str, list[Any], list[int]]]:
    """Read the columns of a body; arguments, results and errors are as in `read_rows`.

    Raises:
        InvalidArgumentError: As in `read_rows`, or an input is missing.
        UnimplementedError: JSON has no form for the type.
    """
    for alias, dtype in sorted(dtypes.items()):
        if alias not in columns:
            raise InvalidArgumentError(f"Missing named input: {alias} in 'inputs' object.")
        column = _Column(dtype)
        column.add(columns[alias])
        yield alias, column.values, column.shape or []


def is_named(value: Any) -> bool:
    """True for an object that names inputs, False for values, lists and base64 objects."""
    return isinstance(value, dict) and not is_base64(value)


def is_base64(value: dict[str, Any]) -> bool:
    """Say whether an object is base64 text: its sole key is `b64`, with a string."""
    return len(value) == 1 and isinstance(value.get("b64"), str)


def _shape_of(value: Any) -> list[int]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _flatten(value: Any, shape: list[int], dtype: str, flat: list[Any]) -> None:
    """Add the values of nested lists, however deep, to a flat one."""
    open_lists = [iter([value])]
    while open_lists:
        level = len(open_lists) - 1
        for item in open_lists[-1]:
            if not isinstance(item, list):
                if level != len(shape):
                    raise InvalidArgumentError(
                        f"JSON Value: {json_text.show(item)} found at incorrect level: {level + 1}"
                        f" in the JSON DOM. Expected at level: {len(shape)}"
                    )
                flat.append(element(item, dtype))
                continue
            if level >= len(shape):
                raise InvalidArgumentError(
                    f"Encountered list at unexpected level: {level} expected < {len(shape)}"
                )
            if len(item) != shape[level]:
                raise InvalidArgumentError(
                    f"Encountered list at unexpected size: {len(item)} at level: {level}"
                    f" expected size: {shape[level]}"
                )
            open_lists.append(iter(item))
            break
        else:
            open_lists.pop()


def element(value: Any, dtype: str) -> Any:
    """Return one value as an array of that type holds it; texts as `bytes`.

    Raises:
        InvalidArgumentError: It is not of that type.
        UnimplementedError: JSON has no form for the type.
    """
    kind = type(value)
    fits = False
    if dtype in FLOATS:
        fits = kind is float or kind is int
    elif dtype in INTEGERS:
        low, high = INTEGERS[dtype]
        fits = kind is int and low <= value <= high
    elif dtype == "bool":
        fits = kind is bool
    elif dtype == "string":
        if kind is dict:
            return _from_base64(value)
        fits = kind is str
        value = value.encode("utf-8", "surrogateescape") if fits else value
    elif kind is not dict:
        raise UnimplementedError(
            f"Conversion of JSON Value: {json_text.show(value)} to type: {dtype}"
        )
    if not fits:
        raise InvalidArgumentError(
            f"JSON Value: {json_text.show(value)} Type: {json_text.type_name(value)}"
            f" is not of expected type: {dtype}"
        )
    return value


def _from_base64(value: dict[str, Any]) -> bytes:
    if not is_base64(value):
        raise InvalidArgumentError(
            f"JSON Value: {json_text.show(value)} not formatted correctly for base64 data"
        )
    text = "".join(value["b64"].split())
    bare = text.rstrip("=")
    padded = bare + "=" * (-len(bare) % 4)
    try:
        return binascii.a2b_base64(padded if text in (bare, padded) else "=", strict_mode=True)
    except ValueError as exc:
        raise InvalidArgumentError("Unable to base64 decode") from exc


def _status(exc: MlopsMiniError) -> str:
    name = "UNIMPLEMENTED" if isinstance(exc, UnimplementedError) else "INVALID_ARGUMENT"
    return f"{name}: {exc}"
