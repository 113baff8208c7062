"""Fill the placeholders of a compiled pipeline, in constants and in container commands.

Values are written as Kubeflow's launcher writes them: `3` and not `3.0`, `true`, JSON for lists
and dicts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlops_mini.errors import InvalidArgumentError

_PLACEHOLDER = re.compile(r"\{\{\$(.*?)\}\}")
_PART = re.compile(r"""\.(\w+)|\[['"](.*?)['"]\]""")


def text_of(value: Any) -> str:
    """Write a parameter's value as text.

    >>> [text_of(value) for value in (3.0, 0.5, True, "a", ["a", 1])]
    ['3', '0.5', 'true', 'a', '["a", 1]']
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)


def fill(text: str, values: Mapping[str, Any], *, what: str) -> str:
    """Replace each `{{$.a.b['c']}}` by what lies at that path.

    Args:
        text: Text with or without placeholders.
        values: A tree of plain values; `{{$}}` is the whole of what it holds at "".
        what: Where the text stands, for the message.

    Raises:
        InvalidArgumentError: There is nothing at that path.

    >>> fill("x-{{$.inputs.parameters['p']}}", {"inputs": {"parameters": {"p": 1.0}}}, what="'s'")
    'x-1'
    """

    def look_up(match: re.Match[str]) -> str:
        found: Any = values if match[1] else values.get("")
        for name, key in _PART.findall(match[1]):
            if not isinstance(found, Mapping) or (name or key) not in found:
                raise InvalidArgumentError(
                    f"{what} has the placeholder {match[0]}, and there is no {(name or key)!r}; "
                    f"there are {sorted(map(str, found)) if isinstance(found, Mapping) else found}"
                )
            found = found[name or key]
        return text_of(found)

    return _PLACEHOLDER.sub(look_up, text)


def fill_command(elements: Sequence[str], values: Mapping[str, Any], *, what: str) -> list[str]:
    r"""Fill the elements of a container's command, `Concat` and `IfPresent` included.

    Args:
        elements: Strings; one that is JSON with the single key `Concat` or `IfPresent` is such a
            construct of `kfp.dsl`.
        values: As for `fill`.
        what: Whose command it is.

    >>> values = {"inputs": {"parameters": {"x": 2}}}
    >>> concat = '{"Concat": ["--x=", "{{$.inputs.parameters[\'x\']}}"]}'
    >>> optional = '{"IfPresent": {"InputName": "y", "Then": ["--y"], "Else": ["--no-y"]}}'
    >>> fill_command([concat, optional], values, what="task 't'")
    ['--x=2', '--no-y']
    """
    return [text for one in elements for text in _expand(one, values, what)]


def _expand(element: Any, values: Mapping[str, Any], what: str) -> list[str]:
    if isinstance(element, list):
        return [text for one in element for text in _expand(one, values, what)]
    if isinstance(element, str):
        if not element.startswith(('{"Concat"', '{"IfPresent"')):
            return [fill(element, values, what=what)]
        element = json.loads(element)
    if "Concat" in element:
        return ["".join(_expand(element["Concat"], values, what))]
    choice = element["IfPresent"]
    inputs = values["inputs"]
    is_there = any(choice["InputName"] in inputs.get(k, {}) for k in ("parameters", "artifacts"))
    return _expand(choice["Then"] if is_there else choice.get("Else", []), values, what)
