"""Evaluate the condition that a task of a compiled pipeline waits for.

Conditions are written by kfp's compiler in Google's Common Expression Language and evaluated by
Kubeflow's driver. This is the part of the language that a pipeline needs, read strictly: what
cannot be decided is an error and never false, for a condition is often the gate before publishing.

::

    or          and ("||" and)*
    and         comparison ("&&" comparison)*
    comparison  operand [("==" | "!=" | "<" | "<=" | ">" | ">=") operand]
    operand     "!"* (number | "true" | "false" | text | input | call | "(" or ")")
    input       "inputs.parameter_values[" text "]"
    call        ("int" | "double" | "string") "(" or ")"

Both sides of `&&` and `||` are always evaluated, whatever the first one says: the language itself
would let `false && (3 == 'a')` pass. Bools have no order here, as the compiler writes one only for
a bool that was compared with a number. Texts that are numbers have one only where it is that of the
numbers: the compiler makes `row.n > 9.0` a comparison of texts.
"""

import math
import operator
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.runner.values import kind_of, text_of

_MOST_NESTED = 32
_QUOTED = r"'(?:[^'\\\r\n]|\\['\"\\n])*'|\"(?:[^\"\\\r\n]|\\['\"\\n])*\""
_INPUT = rf"inputs\.parameter_values\[\s*({_QUOTED})\s*\]"
_TOKEN = re.compile(
    rf"\s*(?:(?P<input>{_INPUT})|(?P<text>{_QUOTED})"
    r"|(?P<number>-?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<sign>\|\||&&|[=!<>]=|[!<>()]))",
    re.ASCII,
)
_COMPARE = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
# What the language calls a value that `kind_of` calls otherwise.
_KINDS = {"text": "string", "whole": "number", "fraction": "number", "not finite": "number"}
_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_DOUBLE = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def tokens(condition: str) -> list[tuple[str, str]]:
    """Split a condition into its words.

    Args:
        condition: As in `triggerPolicy.condition`.

    Returns:
        The kind of each word (`input`, `text`, `number`, `name` or `sign`) and the word.

    Raises:
        InvalidArgumentError: It holds what is no word.

    >>> tokens("inputs.parameter_values['auc'] >= 0.5")
    [('input', "inputs.parameter_values['auc']"), ('sign', '>='), ('number', '0.5')]
    """
    words, at, end = [], 0, len(condition.rstrip())
    while at < end:
        match = _TOKEN.match(condition, at)
        if match is None:
            raise InvalidArgumentError(
                f"condition {condition!r} cannot be read from {condition[at:].lstrip()[:20]!r} on: "
                "check its quotes; kfp does not escape the text that a parameter is compared with"
            )
        kind = str(match.lastgroup)
        words.append((kind, match[kind]))
        at = match.end()
    return words


def evaluate(condition: str, values: Mapping[str, Any]) -> bool:
    """Evaluate a condition.

    Args:
        condition: As in `triggerPolicy.condition` of a compiled pipeline.
        values: The task's input parameters by name: int, float, bool, str, list or dict; None
            counts as missing.

    Returns:
        Whether the task should run.

    Raises:
        InvalidArgumentError: It cannot be read, names a parameter without a value, compares values
            of different kinds, or NaN with anything, or says neither true nor false.

    >>> evaluate("!(inputs.parameter_values['auc'] > double(1)) && true", {"auc": 0.9})
    True
    >>> evaluate("inputs.parameter_values['auc'] == '0.9'", {"auc": 0.9})
    Traceback (most recent call last):
    mlops_mini.errors.InvalidArgumentError: condition "inputs.parameter_values['auc'] == '0.9'"
    compares number with string (0.9 == '0.9'): give both one type; auc=0.9
    """
    return _Evaluation(condition, values).result()


class _Evaluation:
    """One pass over a condition's words, which are evaluated as they are read."""

    def __init__(self, condition: str, values: Mapping[str, Any]) -> None:
        self._condition = condition
        self._values = values
        self._words = [*tokens(condition), ("end", "")]
        self._at = 0
        self._nested = 0

    def result(self) -> bool:
        value = self._or()
        if self._words[self._at][0] != "end":
            self._fail(f"goes on after its end, with {self._words[self._at][1]!r}")
        return self._bool(value, "as a whole")

    def _or(self) -> Any:
        value = self._and()
        while self._next("||"):
            value = self._bool(value, "left of ||") | self._bool(self._and(), "right of ||")
        return value

    def _and(self) -> Any:
        value = self._comparison()
        while self._next("&&"):
            right = self._bool(self._comparison(), "right of &&")
            value = self._bool(value, "left of &&") & right
        return value

    def _comparison(self) -> Any:
        left = self._operand()
        sign = self._words[self._at][1]
        if not self._next(*_COMPARE):
            return left
        right = self._operand()
        kinds = _kind(left), _kind(right)
        compared = f"({reprlib.repr(left)} {sign} {reprlib.repr(right)})"
        if kinds[0] != kinds[1]:
            self._fail(f"compares {kinds[0]} with {kinds[1]} {compared}: give both one type")
        if kinds[0] in {"list", "struct"} or (kinds[0] == "bool" and sign not in {"==", "!="}):
            self._fail(f"compares two values of kind {kinds[0]} by {sign} {compared}")
        if any(isinstance(value, float) and math.isnan(value) for value in (left, right)):
            self._fail(f"compares with NaN {compared}, which is neither true nor false")
        holds = _COMPARE[sign](left, right)
        if kinds[0] == "string" and sign not in {"==", "!="}:
            as_numbers = _as_numbers(left, sign, right)
            if as_numbers not in {None, holds}:
                self._fail(f"compares numbers as text {compared}, where '10' is less than '9'")
        return holds

    def _operand(self) -> Any:
        negations = 0
        while self._next("!"):
            negations += 1
        value = self._plain()
        if negations:
            value = self._bool(value, "after !") ^ bool(negations % 2)
        return value

    def _plain(self) -> Any:
        kind, word = self._words[self._at]
        self._at += 1
        if kind == "number":
            return self._number(word)
        if kind == "text":
            return _unquoted(word)
        if kind == "input":
            return self._value(_unquoted(word[word.index("[") + 1 : -1].strip()))
        if word in {"true", "false"}:
            return word == "true"
        if word in _CONVERSIONS and self._next("("):
            return self._convert(word, self._in_parentheses())
        if word == "(":
            return self._in_parentheses()
        return self._fail(f"has {word!r} in place of a value" if word else "ends too early")

    def _in_parentheses(self) -> Any:
        self._nested += 1
        if self._nested > _MOST_NESTED:
            self._fail(f"is nested deeper than {_MOST_NESTED} times")
        value = self._or()
        if not self._next(")"):
            word = self._words[self._at][1]
            self._fail("lacks a ')' before " + (repr(word) if word else "its end"))
        self._nested -= 1
        return value

    def _next(self, *signs: str) -> bool:
        """Step over the next word if it is one of these signs."""
        kind, word = self._words[self._at]
        is_sign = kind == "sign" and word in signs
        self._at += is_sign
        return is_sign

    def _value(self, name: str) -> Any:
        value = self._values.get(name)
        if value is None:
            there = ", ".join(map(repr, sorted(self._values))) or "none"
            self._fail(f"needs the parameter {name!r}, which has no value; there are: {there}")
        return value

    def _number(self, word: str) -> int | float:
        value = (_to_int if word.lstrip("-").isdigit() else float)(word)
        if value is None or math.isinf(value):
            self._fail(f"holds {word:.40}, which is too large for an int64 or a double")
        return value

    def _convert(self, function: str, value: Any) -> Any:
        kind, converted = _kind(value), None
        if kind in {"number", "string"} or (kind, function) == ("bool", "string"):
            converted = _CONVERSIONS[function](value)
        if converted is None:
            self._fail(f"cannot make {function} of the {kind} {reprlib.repr(value)}")
        return converted

    def _bool(self, value: Any, where: str) -> bool:
        if isinstance(value, bool):
            return value
        return self._fail(f"must be true or false {where}, is {_kind(value)} {reprlib.repr(value)}")

    def _fail(self, what: str) -> NoReturn:
        names = dict.fromkeys(
            _unquoted(word[word.index("[") + 1 : -1].strip())
            for kind, word in self._words
            if kind == "input"
        )
        shown = ", ".join(
            f"{name}={reprlib.repr(self._values[name])}" for name in names if name in self._values
        )
        raise InvalidArgumentError(
            f"condition {self._condition!r} {what}" + (f"; {shown}" if shown else "")
        )


def _kind(value: Any) -> str:
    kind = kind_of(value)
    return _KINDS.get(kind, kind)


def _to_int(value: Any) -> int | None:
    """As the language does it: a double loses its fraction, text must be digits."""
    if isinstance(value, str):
        value = int(value) if _INTEGER.fullmatch(value) else math.nan
    return int(value) if -(2**63) <= value < 2**63 else None


def _to_double(value: Any) -> float | None:
    if isinstance(value, str) and not _DOUBLE.fullmatch(value):
        return None
    return float(value)


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "int": _to_int,
    "double": _to_double,
    "string": text_of,
}


def _as_numbers(left: str, sign: str, right: str) -> bool | None:
    """Compare two texts as numbers; None if they are not both numbers."""
    first, second = _to_double(left), _to_double(right)
    if first is None or second is None:
        return None
    return bool(_COMPARE[sign](first, second))


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text[1:-1])
