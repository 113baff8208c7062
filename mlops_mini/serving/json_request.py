"""A predict body to numpy, in TensorFlow Serving's rules.

Predict has two forms: rows (`instances`, one element an example) and columns (`inputs`, one tensor
a name). Nearly all bodies are strict JSON in which the values of an input have one shape and one
type; these are read here, level by level. For any other `json_text` and `json_values` are asked,
which know every exception and every error.

Source: TensorFlow Serving's RESTful API, https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError
from mlops_mini.serving import json_text, json_values
from mlops_mini.wire import DTYPES, MAX_RANK, NotQuickError

Array = npt.NDArray[Any]

_NUMPY = {dtype.name: dtype.numpy for dtype in DTYPES}
# What `quick` allows: some milliseconds.
_MAX_QUICK_CONTAINERS = 2**14
_MAX_QUICK_BYTES = 2**14  # of a body that orjson does not read
_MAX_QUICK_VALUES = 2**12  # read one by one


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedRequest:
    """What a predict body asks for.

    Attributes:
        is_rows: True for `instances`, False for `inputs`.
        inputs: One array per input alias; strings are object arrays of `bytes`.
    """

    is_rows: bool
    inputs: Mapping[str, Array]


def read_predict(
    body: bytes | memoryview, signatures: Mapping[str, Mapping[str, str]], *, quick: bool = False
) -> tuple[str, DecodedRequest | MlopsMiniError | None]:
    """Turn a predict body into arrays, as the signature that it asks for has them.

    Args:
        body: The body.
        signatures: Element types as in `decode_predict`, by signature; empty stands for the
            default one.
        quick: Raise `NotQuickError` where it takes more than some milliseconds.

    Returns:
        The signature asked for, and what it is asked; or why that does not fit; or None if there is
        no such signature, or it has no inputs.

    Raises:
        InvalidArgumentError: As `parse_object` and `signature_name` do: which model is asked does
            not matter then.

    >>> read_predict(b'{"instances": [1, 2]}', {"": {"x": "float"}})[1].inputs["x"]
    array([1., 2.], dtype=float32)
    """
    document = parse_object(bytes(body), quick=quick)
    name = signature_name(document)
    dtypes = signatures.get(name)
    if not dtypes:
        return name, None
    try:
        return name, decode_predict(document, dtypes, quick=quick)
    except MlopsMiniError as exc:
        return name, exc


def parse_object(body: bytes, *, quick: bool = False) -> dict[str, Any]:
    """Parse a request body that must be a JSON object.

    NaN, Inf, Infinity and text after the first complete value are accepted, any nesting, and bytes
    that are no UTF-8; the first of two equal keys counts.

    Args:
        body: What was sent.
        quick: Raise `wire.NotQuickError` if it takes long for its size.

    Raises:
        InvalidArgumentError: With the text and offset of TensorFlow Serving's own parser.

    >>> parse_object(b'{"instances": [1.5, NaN]} and more')
    {'instances': [1.5, nan]}
    """
    document = parse(body, quick=quick)
    if not isinstance(document, dict):
        raise InvalidArgumentError(f"JSON Value: {json_text.show(document)} Is not object")
    return document


def parse(body: bytes, *, quick: bool = False) -> Any:
    r"""Parse the first value of a body.

    Args:
        body: What was sent.
        quick: Raise `NotQuickError` rather than make very many objects and lists, or read a long
            body in the slow way.

    Raises:
        InvalidArgumentError: It is broken, in RapidJSON's words and at its offset.

    >>> parse(b'{"a": [1, -Inf], "a": 2} and more')
    {'a': [1, -inf]}
    """
    if quick and body.count(b"[") + body.count(b"{") > _MAX_QUICK_CONTAINERS:
        raise NotQuickError
    # orjson doesn't know NaN, but is fast: it is given null instead, if the body has no null.
    n_nans = body.count(b"NaN")
    if not (n_nans and b"null" in body):
        with contextlib.suppress(orjson.JSONDecodeError, RecursionError):
            value = orjson.loads(body.replace(b"NaN", b"null") if n_nans else body)
            # As many nulls as there were NaNs: none of these was part of a string.
            if _has_all_keys(value, body) and (not n_nans or n_nans == _fill_nulls(value)):
                return value
    if quick and len(body) > _MAX_QUICK_BYTES:
        raise NotQuickError
    return json_text.parse_exactly(body)


def _has_all_keys(value: Any, body: bytes) -> bool:
    """Say whether no key came twice: of equal keys orjson keeps the last without a word.

    Every colon in a body follows a key or is part of a string. If the value has fewer, a key came
    twice. If a string may hold a colon that was written as an escape, the count says nothing, and
    the exact parser has to decide.
    """
    n_colons = body.count(b":")
    if isinstance(value, dict) and len(value) == n_colons:
        return True
    if rb"\u003" in body:
        return False
    level = [value]
    while level:
        kinds = {*map(type, level)}
        inner: list[Any] = []
        if dict in kinds:
            objects = [item for item in level if type(item) is dict]
            n_colons -= sum(map(len, objects))
            n_colons -= "".join(chain.from_iterable(objects)).count(":")
            inner += chain.from_iterable(map(dict.values, objects))
        if list in kinds:
            inner += chain.from_iterable([item for item in level if type(item) is list])
        if str in kinds:
            n_colons -= "".join([item for item in level if type(item) is str]).count(":")
        level = inner
    return n_colons == 0


def _fill_nulls(value: Any) -> int:
    """Put NaN in the place of each null in an object or a list, and count them."""
    n_nulls = 0
    level = [value] if isinstance(value, (dict, list)) else []
    while level:
        inner: list[Any] = []
        for item in level:
            values = item.values() if isinstance(item, dict) else item
            if None in values:
                pairs = item.items() if isinstance(item, dict) else enumerate(item)
                nulls = [key for key, part in pairs if part is None]
                n_nulls += len(nulls)
                for key in nulls:
                    item[key] = math.nan
            inner += [part for part in values if type(part) in (dict, list)]
        level = inner
    return n_nulls


def signature_name(document: Mapping[str, Any]) -> str:
    """Return the signature a body asks for, empty for the default one.

    Raises:
        InvalidArgumentError: Its name is no string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise InvalidArgumentError(
            f"JSON Value: {json_text.show(document)} not formatted correctly."
            " 'signature_name' key must be a string value."
        )
    return name


def decode_predict(
    document: Mapping[str, Any], dtypes: Mapping[str, str], *, quick: bool = False
) -> DecodedRequest:
    """Turn a parsed predict body into arrays.

    Args:
        document: The body, with one of the keys `instances` and `inputs`.
        dtypes: TensorFlow's name of the element type of each input alias, such as `float`.
        quick: Raise `wire.NotQuickError` rather than look at very many values one by one, to say
            which of them is wrong.

    Raises:
        InvalidArgumentError: Names, nesting or types do not fit.
        UnimplementedError: JSON has no form for the type (columns only; in rows it is wrapped).

    >>> decode_predict({"instances": [[1, 2], [3, 4]]}, {"x": "float"}).inputs["x"].shape
    (2, 2)
    """
    if "instances" in document and "inputs" in document:
        raise InvalidArgumentError(
            f"JSON Value: {json_text.show(document)} Not formatted correctly expecting only one of"
            " 'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        rows = _checked_rows(document["instances"], document, dtypes)
        arrays = _regular_rows(rows, dtypes)
        if arrays is None:
            _check_few_values(rows, quick=quick)
            arrays = _arrays(json_values.read_rows(rows, dtypes), dtypes)
        return DecodedRequest(is_rows=True, inputs=arrays)
    if "inputs" in document:
        columns = _columns(document["inputs"], dtypes)
        arrays = _regular_columns(columns, dtypes)
        if arrays is None:
            _check_few_values(columns, quick=quick)
            arrays = _arrays(json_values.read_columns(columns, dtypes), dtypes)
        return DecodedRequest(is_rows=False, inputs=arrays)
    raise InvalidArgumentError("Missing 'inputs' or 'instances' key")


def _checked_rows(rows: Any, document: Mapping[str, Any], dtypes: Mapping[str, str]) -> list[Any]:
    if not isinstance(rows, list):
        raise InvalidArgumentError(
            f"JSON Value: {json_text.show(document)} Expecting 'instances' to be an list/array"
        )
    if not rows:
        raise InvalidArgumentError(
            f"JSON Value: {json_text.show(document)} No values in 'instances' array"
        )
    if not isinstance(rows[0], dict) and len(dtypes) > 1:
        raise InvalidArgumentError(
            "instances is a plain list, but expecting list of objects as multiple input tensors"
            " required as per tensorinfo_map"
        )
    return rows


def _columns(inputs: Any, dtypes: Mapping[str, str]) -> dict[str, Any]:
    if _is_named(inputs):
        return dict(inputs)
    if len(dtypes) > 1:
        raise InvalidArgumentError(
            "inputs is a plain value/list, but expecting an object as multiple input tensors"
            " required as per tensorinfo_map"
        )
    return {next(iter(dtypes)): inputs}


def _is_named(value: Any) -> bool:
    """Say whether a value names inputs: an object, and not a base64 text."""
    return isinstance(value, dict) and ("b64" not in value or json_values.is_named(value))


def _check_few_values(values: Any, *, quick: bool) -> None:
    """Raise `NotQuickError` if there are many values and no time."""
    n_values, waiting = 0, [values]
    while quick and waiting:
        value = waiting.pop()
        n_values += 1
        if isinstance(value, (dict, list)):
            if n_values + len(waiting) + len(value) > _MAX_QUICK_VALUES:
                raise NotQuickError
            waiting += value.values() if isinstance(value, dict) else value


def _regular_rows(rows: list[Any], dtypes: Mapping[str, str]) -> dict[str, Array] | None:
    """Read rows in which the values of each input have one shape and one type; None for others."""
    if not _is_named(rows[0]):
        if len(dtypes) > 1:
            return None
        return _regular_columns({next(iter(dtypes)): rows}, dtypes)
    aliases = dtypes.keys()
    if aliases == {"b64"} or {*map(type, rows)} != {dict}:
        return None
    if not all(row.keys() == aliases for row in rows):
        return None
    return _regular_columns({alias: [row[alias] for row in rows] for alias in aliases}, dtypes)


def _regular_columns(
    columns: Mapping[str, Any], dtypes: Mapping[str, str]
) -> dict[str, Array] | None:
    arrays = {}
    for alias, dtype in sorted(dtypes.items()):
        array = _regular(columns[alias], dtype) if alias in columns else None
        if array is None:
            return None
        arrays[alias] = array
    return arrays


def _regular(value: Any, dtype: str) -> Array | None:
    """Read nested lists level by level; None if they have no single shape, or wrong values."""
    level: list[Any] = [value]
    shape: list[int] = []
    while level and type(level[0]) is list:
        sizes = {*map(len, level)} if {*map(type, level)} == {list} else ()
        if len(sizes) != 1 or len(shape) == MAX_RANK:
            return None
        shape += sizes
        level = list(chain.from_iterable(level))
    kinds = {*map(type, level)}
    if dtype in json_values.FLOATS:
        fits = kinds <= {int, float}
    elif dtype in json_values.INTEGERS:
        low, high = json_values.INTEGERS[dtype]
        fits = kinds <= {int} and (not level or (low <= min(level) and max(level) <= high))
    elif dtype == "bool":
        fits = kinds <= {bool}
    elif dtype == "string" and kinds == {str}:
        level, fits = [text.encode("utf-8", "surrogateescape") for text in level], True
    else:
        fits = dtype == "string" and kinds <= {str, dict}
        try:
            level = [json_values.element(item, dtype) for item in level] if fits else level
        except InvalidArgumentError:
            fits = False
    return _to_array(level, dtype, shape) if fits else None


def _arrays(
    inputs: Iterable[tuple[str, list[Any], list[int]]], dtypes: Mapping[str, str]
) -> dict[str, Array]:
    return {alias: _to_array(values, dtypes[alias], shape) for alias, values, shape in inputs}


def _to_array(values: list[Any], dtype: str, shape: list[int]) -> Array:
    if len(shape) > MAX_RANK:
        raise InvalidArgumentError(
            f"tensors have at most {MAX_RANK} dimensions here, got {len(shape)}"
        )
    if dtype in json_values.FLOATS:
        with np.errstate(over="ignore"):  # 1e39 becomes Infinity
            flat = np.array(values, np.float64).astype(_NUMPY[dtype])
    elif dtype in json_values.INTEGERS:
        wide = np.int64 if json_values.INTEGERS[dtype][0] < 0 else np.uint64
        flat = np.array(values, wide).astype(_NUMPY[dtype])
    else:
        flat = np.empty(len(values), _NUMPY.get(dtype, object))
        flat[:] = values
    return flat.reshape(shape)
