"""The values of parameters, and how each becomes what a task is given.

Kubeflow keeps a parameter as a protobuf `Value`: null, text, a number, a bool, a list or a struct.
A number has no type of its own, so 64.0 and 64 are one value, and JSON writes it as 64.
`CONVERSIONS` is the whole table of what may go where; each row cites the Kubeflow source that it
agrees with, at commit 7b70c7b of https://github.com/kubeflow/pipelines, in folder backend/src.

What we do otherwise, each time to refuse what Kubeflow would lose without a word:

- A fraction is no integer as a run's argument or as an output (Kubeflow passes 2.5 on to an `int`).
- An output is checked where it is made, and not only where it is used.
- A loop over a text that holds JSON but no list is an error (there it runs for no item at all).
- Whole numbers beyond 2**53 are kept as they are (there they are rounded).
- Minus zero is zero.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from mlops_mini.errors import InvalidArgumentError

JsonObject = dict[str, Any]

# From here on protobuf's JSON writes a number with an exponent, which Python reads as a float.
_FIRST_WITH_EXPONENT = 1e21
_INT64 = range(-(2**63), 2**63)
_KINDS: tuple[tuple[type, str], ...] = (
    (type(None), "null"), (str, "text"), (bool, "bool"), (list, "list"), (dict, "struct"),
)  # fmt: skip
_BOOLS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


class Source(StrEnum):
    """Where a value comes from."""

    ARGUMENT = "argument of the run"
    DEFAULT = "default"
    CONSTANT = "constant"
    OUTER = "input of the pipeline, loop or condition around the task"
    UPSTREAM = "output of another task"
    ITEM = "item of a loop"
    FIELD = "field of an item"
    STATUS = "final status of a task"
    RETURNED = "returned output"
    FILE = "output file"


INPUTS = (
    Source.DEFAULT, Source.CONSTANT, Source.OUTER, Source.UPSTREAM, Source.ITEM, Source.FIELD,
    Source.STATUS,
)  # fmt: skip
NUMBERS = ("NUMBER_INTEGER", "NUMBER_DOUBLE")
STRUCTS = ("STRUCT", "TASK_FINAL_STATUS", "TASK_CONFIG")
TYPES = ("STRING", *NUMBERS, "BOOLEAN", "LIST", *STRUCTS)


def kind_of(value: Any) -> str:
    """Name the kind of a value: null, text, whole, fraction, not finite, bool, list or struct.

    >>> [kind_of(value) for value in (None, "a", 3.0, 0.5, True, [], {})]
    ['null', 'text', 'whole', 'fraction', 'bool', 'list', 'struct']
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            return "not finite"
        return "whole" if isinstance(value, int) or value.is_integer() else "fraction"
    for cls, kind in _KINDS:
        if isinstance(value, cls):
            return kind
    raise InvalidArgumentError(f"{value!r} is a {type(value).__name__}, and no parameter can be")


def plain(value: Any) -> Any:
    """Write a value as it reads after protobuf's JSON, however deep: whole numbers, sorted keys.

    >>> plain([64.0, {"x": 0.5, "n": 2.0}])
    [64, {'n': 2, 'x': 0.5}]
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < _FIRST_WITH_EXPONENT:
        return int(value)
    if isinstance(value, list):
        return [plain(element) for element in value]
    if isinstance(value, dict):
        return {name: plain(value[name]) for name in sorted(value)}
    return value


def text_of(value: Any) -> str:
    """Write a value as text, as v2/metadata/converter.go, PbValueToText, does.

    Numbers never have an exponent; lists and structs are JSON, see `json_text`.

    >>> [text_of(value) for value in (3.0, 1e-07, True, None, "a", ["a", 1], {"b": "ü", "a": 1e-7})]
    ['3', '0.0000001', 'true', '', 'a', '["a",1]', '{"a":1e-7,"b":"ü"}']
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else f"{value:+f}".replace("inf", "Inf")
    return json_text(value)


def json_text(value: Any) -> str:
    r"""Write a value as compact JSON, letter for letter as Go does: keys sorted, `<>&` escaped.

    >>> json_text({"b": [1.0, 1.5e-7, None], "a": "ü<"})
    '{"a":"ü\\u003c","b":[1,1.5e-7,null]}'
    """
    if isinstance(value, dict):
        pairs = [(name, value[name]) for name in sorted(value)]
        return (
            "{" + ",".join(f"{json_text(name)}:{json_text(field)}" for name, field in pairs) + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, float):
        return _json_number(value)
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _json_number(value: float) -> str:
    if not math.isfinite(value):
        raise InvalidArgumentError(f"JSON has no number for {value}")
    if value and not 1e-6 <= abs(value) < _FIRST_WITH_EXPONENT:
        # 1e-07 in Python is 1e-7 there.
        return re.sub(r"e([+-])0+", r"e\1", repr(value))
    return text_of(value)


def _number_file(text: str) -> Any:
    """Read a number as Go's ParseFloat does; None if it is none."""
    text = text.strip()
    is_hex = re.fullmatch(r"[+-]?0x[0-9a-f.]+p[+-]?[0-9]+", text, re.IGNORECASE)
    try:
        # Python also reads the digits of other scripts.
        value = float.fromhex(text) if is_hex else float(text if text.isascii() else "")
    except (ValueError, OverflowError):
        return None
    if "_" in text:
        return None
    # Neither `1_000` nor what is too large for a double is a number there.
    is_named = re.fullmatch(r"[+-]?(inf|infinity)|nan", text, re.IGNORECASE)
    return plain(value) if is_named or math.isfinite(value) else None


def _integer_file(text: str) -> int | None:
    text = text.strip()
    is_integer = re.fullmatch(r"[+-]?0*\d{1,19}", text, re.ASCII) and int(text) in _INT64
    return int(text) if is_integer else None


def _json_file(text: str, kind: type = object) -> Any:
    """Read JSON as protobuf does: each name once, all numbers finite, all texts Unicode.

    Returns:
        The value, None if there is no JSON or its value is of another kind.
    """

    def struct(pairs: list[tuple[str, Any]]) -> JsonObject:
        read = dict(pairs)
        if len(read) < len(pairs):
            raise InvalidArgumentError("a name is there twice")
        return read

    try:
        read = json.loads(text, object_pairs_hook=struct)
        require_json(read, what="it")
    except (ValueError, RecursionError, InvalidArgumentError):
        return None
    return read if isinstance(read, kind) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """One row of the table: what becomes of a value.

    Attributes:
        sources: Where it comes from.
        parameter_types: What takes it, as `parameterType` of the specification says.
        kinds: What it is, see `kind_of`.
        becomes: Makes the value that is handed on; None: it cannot be read.
        cited: File and function of Kubeflow, in folder backend/src.
    """

    sources: tuple[Source, ...]
    parameter_types: tuple[str, ...]
    kinds: tuple[str, ...]
    becomes: Callable[[Any], Any]
    cited: str


_RESOLVE = "v2/driver/resolve.go: resolveInputs, handleParamTypeValidationAndConversion"
_TO_TEXT = f"{_RESOLVE}; v2/metadata/converter.go: PbValueToText"
_API = "apiserver/template/v2_template.go: validatePipelineJobInputs"
_OUTPUT = "v2/component/launcher_v2.go: getExecutorOutputFile"
_ARGUMENT_OR_RETURNED = (Source.ARGUMENT, Source.RETURNED)
_API_OR_OUTPUT = f"{_API}, for arguments; {_OUTPUT}, for what is returned"
_FILE = (
    "v2/component/launcher_v2.go: collectOutputParameters; v2/metadata/converter.go: TextToPbValue"
)

CONVERSIONS: tuple[Conversion, ...] = tuple(
    Conversion(sources=sources, parameter_types=types, kinds=kinds, becomes=becomes, cited=cited)
    for sources, types, kinds, becomes, cited in (
        # What a task, a nested pipeline, a loop or a condition is given.
        (INPUTS, ("STRING",), ("text",), str, _RESOLVE),
        (
            INPUTS,
            ("STRING",),
            ("whole", "fraction", "not finite", "bool", "list", "struct"),
            text_of,
            _TO_TEXT,
        ),
        ((Source.CONSTANT, Source.ITEM), ("STRING",), ("null",), text_of, _TO_TEXT),
        (INPUTS, NUMBERS, ("whole", "fraction", "not finite"), plain, _RESOLVE),
        (INPUTS, ("BOOLEAN",), ("bool",), bool, _RESOLVE),
        (INPUTS, ("LIST",), ("list",), plain, _RESOLVE),
        (INPUTS, STRUCTS, ("struct",), plain, _RESOLVE),
        # What a run is given, and what a task has made in `executor_output.json`.
        (_ARGUMENT_OR_RETURNED, ("STRING",), ("text",), str, _API_OR_OUTPUT),
        (_ARGUMENT_OR_RETURNED, ("NUMBER_INTEGER",), ("whole",), plain, _API_OR_OUTPUT),
        (_ARGUMENT_OR_RETURNED, ("NUMBER_DOUBLE",), ("whole", "fraction"), plain, _API_OR_OUTPUT),
        (_ARGUMENT_OR_RETURNED, ("BOOLEAN",), ("bool",), bool, _API_OR_OUTPUT),
        (_ARGUMENT_OR_RETURNED, ("LIST",), ("list",), plain, _API_OR_OUTPUT),
        (_ARGUMENT_OR_RETURNED, ("STRUCT",), ("struct",), plain, _API_OR_OUTPUT),
        (
            (Source.RETURNED,),
            ("STRING",),
            ("whole", "fraction", "bool", "list", "struct"),
            text_of,
            f"{_OUTPUT}; made text where it is used: {_TO_TEXT}",
        ),
        # What a task has written to a parameter's own file.
        ((Source.FILE,), ("STRING",), ("text",), str, _FILE),
        ((Source.FILE,), ("NUMBER_INTEGER",), ("text",), _integer_file, _FILE),
        ((Source.FILE,), ("NUMBER_DOUBLE",), ("text",), _number_file, _FILE),
        ((Source.FILE,), ("BOOLEAN",), ("text",), lambda text: _BOOLS.get(text.strip()), _FILE),
        ((Source.FILE,), ("LIST",), ("text",), lambda text: plain(_json_file(text, list)), _FILE),
        ((Source.FILE,), ("STRUCT",), ("text",), lambda text: plain(_json_file(text, dict)), _FILE),
    )
)
_ROWS = {
    (source, parameter_type, kind): row
    for row in CONVERSIONS
    for source in row.sources
    for parameter_type in row.parameter_types
    for kind in row.kinds
}


def convert(value: Any, parameter_type: str, source: Source, *, what: str) -> Any:
    """Convert a value to what a parameter takes, as the table says.

    Args:
        value: Plain: None, a str, number, bool, list or dict.
        parameter_type: As the specification calls it, such as `NUMBER_INTEGER`.
        source: Where the value comes from.
        what: Whose value it is, for the message.

    Returns:
        The value; in it whole numbers are ints.

    Raises:
        InvalidArgumentError: The parameter does not take such a value.

    >>> convert({"v": [1.0, 2.0]}, "STRING", Source.FIELD, what="input 's'")
    '{"v":[1,2]}'
    >>> convert("3", "NUMBER_INTEGER", Source.ITEM, what="input 'n'")
    Traceback (most recent call last):
    mlops_mini.errors.InvalidArgumentError: input 'n' must be NUMBER_INTEGER, got '3' (str)
    """
    if parameter_type not in TYPES:
        raise InvalidArgumentError(
            f"{what} is declared as {parameter_type}, which this runner does not know; it knows "
            f"{', '.join(TYPES)}"
        )
    row = _ROWS.get((source, parameter_type, kind_of(value)))
    converted = None if row is None else row.becomes(value)
    if converted is None:
        raise InvalidArgumentError(
            f"{what} must be {parameter_type}, got {value!r} ({type(value).__name__})"
        )
    if source is Source.RETURNED:
        require_json(converted, what=what)
    return converted


def require_literal(value: Any, definition: Mapping[str, Any], *, what: str) -> None:
    """Refuse what is none of the values that a definition lists as the only ones.

    Kubeflow does so in common/util/validate_literal.go, ValidateLiteralParameter, for arguments of
    a run and for inputs of a task, though not for items of a loop and not for defaults.

    Args:
        value: Plain, before it is converted.
        definition: Of the parameter; without `literals` it takes any value.
        what: Whose value it is, for the message.

    >>> require_literal("c", {"literals": ["a", "b"]}, what="input 'x'")
    Traceback (most recent call last):
    mlops_mini.errors.InvalidArgumentError: input 'x' must be "a" or "b", got "c"
    """
    allowed = [json_text(literal) for literal in definition.get("literals", [])]
    if allowed and json_text(value) not in allowed:
        raise InvalidArgumentError(f"{what} must be {' or '.join(allowed)}, got {json_text(value)}")


def require_json(value: Any, *, what: str) -> None:
    """Refuse what JSON cannot carry, however deep: NaN, infinity, and texts that are no Unicode.

    A task is given its values as JSON.

    >>> require_json([1.0, {"loss": float("nan")}], what="input 'x'")
    Traceback (most recent call last):
    mlops_mini.errors.InvalidArgumentError: input 'x' holds nan, which JSON, and so Kubeflow, cannot
    carry: leave it out, or pass it on as text or in an artifact's file
    """
    if isinstance(value, dict):
        require_json([*value, *value.values()], what=what)
    elif isinstance(value, list):
        for element in value:
            require_json(element, what=what)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            raise InvalidArgumentError(
                f"{what} holds {value!a}, which is no Unicode text, and JSON, and so Kubeflow, "
                "cannot carry it: rename the file, or read the text by its real encoding"
            ) from exc
    elif kind_of(value) == "not finite":
        raise InvalidArgumentError(
            f"{what} holds {value}, which JSON, and so Kubeflow, cannot carry: leave it out, or "
            "pass it on as text or in an artifact's file"
        )


def complete(definitions: Mapping[str, Any], given: Mapping[str, Any], *, what: str) -> JsonObject:
    """Complete a component's parameters with their defaults.

    Kubeflow does so in v2/driver/resolve.go, resolveInputs, for nested pipelines, and in
    v2/component/launcher_v2.go, addDefaultParams, for containers.

    Args:
        definitions: `inputDefinitions.parameters` of the component.
        given: Converted values by name.
        what: Who takes them, for messages, such as "task 'train'".

    Returns:
        The value of each parameter that has one; optional ones without a value are absent. What is
        given and not declared is kept.

    Raises:
        InvalidArgumentError: One that is not optional has no value.
    """
    completed = dict(given)
    for name, definition in definitions.items():
        if name in given:
            continue
        parameter_type, default = definition["parameterType"], definition.get("defaultValue")
        if default is not None:
            subject = f"parameter {name!r} of {what}"
            completed[name] = convert(default, parameter_type, Source.DEFAULT, what=subject)
        elif not definition.get("isOptional"):
            raise InvalidArgumentError(
                f"{what} needs a value for {name!r} ({parameter_type}), and has none"
            )
    return completed


def loop_items(task: JsonObject, inputs: Mapping[str, Any]) -> tuple[str, list[Any]] | None:
    """Find what a task loops over: the input that takes an item, and the items.

    Kubeflow does so in v2/driver/dag.go, DAG, and v2/driver/util.go, getItems: a text is read as
    JSON.

    Args:
        task: A task of a DAG.
        inputs: Its parameters and artifact lists by name.

    Returns:
        None for a task that runs once.

    Raises:
        InvalidArgumentError: The input over which it is repeated has no value, or is no list.
    """
    for kind, source in (
        ("parameterIterator", "inputParameter"),
        ("artifactIterator", "inputArtifact"),
    ):
        if iterator := task.get(kind):
            items = iterator["items"]
            if "raw" in items:
                value = json.loads(items["raw"])
            elif (value := inputs.get(items[source])) is None:
                raise InvalidArgumentError(
                    f"it loops over {items[source]!r}, which has no value: give it a list"
                )
            given = value
            if isinstance(value, str):
                value = _json_file(value)
            if not isinstance(value, list):
                raise InvalidArgumentError(f"it loops over {given!r}, which is no list")
            return str(iterator["itemInput"]), value
    return None


def select(expression: str, value: Any, *, what: str) -> Any:
    """Take a field of a loop's item: `parseJson(string_value)["m"]`.

    Kubeflow does so in v2/expression/expression.go, Select: every value can be read as its text.

    >>> select('parseJson(string_value)["m"]', {"m": 1}, what="input 's'")
    1
    >>> select('parseJson(string_value)["m"]', '{"m":1}', what="input 's'")
    1
    """
    if not re.fullmatch(r'parseJson\(string_value\)(\["[^"]*"\])+', expression):
        raise InvalidArgumentError(f"{what} uses {expression!r}, which this runner cannot read")
    if isinstance(value, str):
        parsed = _json_file(value)
        value = value if parsed is None else parsed
    for key in re.findall(r'\["([^"]*)"\]', expression):
        if not isinstance(value, dict) or key not in value:
            raise InvalidArgumentError(f"{what} asks for field {key!r} of {value!r}")
        value = value[key]
    return value
