"""Fill the placeholders of a compiled pipeline: in arguments, commands and importers' metadata.

The set is the one that `kfp.dsl` documents (sdk/python/kfp/dsl/__init__.py and placeholders.py of
https://github.com/kubeflow/pipelines); values are written as Kubeflow's launcher writes them
(backend/src/v2/component/launcher_v2.go, getPlaceholders).

| Placeholder | Value |
|---|---|
| `{{$}}` | the task's executor input, as JSON |
| `{{$.inputs.parameters['x']}}` | the parameter, see `values.text_of` |
| `{{$.inputs.artifacts['x'].uri}}`, `.path`, `.name` | of the artifact, the first one of a list |
| `{{$.inputs.artifacts['x'].metadata}}`, `.metadata['k']` | all of it as JSON; one entry |
| `{{$.inputs.artifacts['x']}}` | a list of artifacts, as the executor input holds it |
| `{{$.outputs.parameters['x'].output_file}}` | the file for the parameter |
| `{{$.outputs.artifacts['x'].uri}}` and so on | as for inputs |
| `{{$.outputs.output_file}}` | the file for the executor output |
| `{{$.pipeline_job_name}}`, `..._job_uuid`, `..._job_resource_name` | the run's id |
| `{{$.pipeline_job_create_time_utc}}`, `..._job_schedule_time_utc` | when the run began |
| `{{$.pipeline_root}}` | the run's folder |
| `{{$.pipeline_task_name}}`, `{{$.pipeline_task_uuid}}` | the task's name in its DAG, its id |

Behind any of them `.json_escape[n]` escapes its text n times, so that it fits into a JSON string.
A number is the same text in every command. Kubeflow's driver, which since March 2026 fills those
elements of a command that name no output (backend/src/v2/driver/util.go, pbValueToString), writes
1e-05 and 1.2345675e+06 there, and its launcher 0.00001 and 1234567.5, as we do.

What starts with `{{$` and is none of these stays as it is, as on Kubeflow: it may be a shell's or
another program's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.runner import layout
from mlops_mini.runner.values import text_of

JsonObject = dict[str, Any]

_PLACEHOLDER = re.compile(
    r"""\{\{\$((?:\.\w+|\['[^']*'\]|\["[^"]*"\])*?)(?:\.json_escape\[(\d)\])?\}\}"""
)
_PART = re.compile(r"""\.(\w+)|\['([^']*)'\]|\["([^"]*)"\]""")
_OF_ATTEMPT = re.compile(
    r"\{\{\$(?:\}\}|\.(?:outputs|json_escape|outputMetadataUri)\b|\.inputs\.artifacts\b)"
)


def fill(text: str, known: Mapping[str, Any], *, what: str) -> str:
    r"""Replace each placeholder of a text whose value is known.

    Args:
        text: Text with or without placeholders.
        known: A tree of plain values, such as `of_attempt` lays out; where a placeholder ends at a
            branch that holds something at "", that is its value. Placeholders outside of the tree
            stay as they are.
        what: Where the text stands, for the message.

    Raises:
        InvalidArgumentError: There are such values, and this one is not among them.

    >>> known = {"inputs": {"parameters": {"p": 1e-7, "q": 'say "hi"'}}}
    >>> fill("x-{{$.inputs.parameters['p']}} {{$.pipeline_job_uuid}}", known, what="'s'")
    'x-0.0000001 {{$.pipeline_job_uuid}}'
    >>> print(fill("{{$.inputs.parameters['q'].json_escape[1]}}", known, what="'s'"))
    say \"hi\"
    """

    def look_up(match: re.Match[str]) -> str:
        parts = ["".join(part) for part in _PART.findall(match[1])]
        if parts[:1] == ["workspace_path"]:
            raise InvalidArgumentError(
                f"{what} has the placeholder {match[0]}, and here tasks share no workspace, for "
                "nothing could tell what is in it: pass artifacts on"
            )
        if parts[:1] == ["outputMetadataUri"]:
            parts = ["outputs", "output_file"]
        if not parts and "" not in known:
            return match[0]
        value: Any = known
        for i, name in enumerate(parts):
            if not isinstance(value, Mapping) or name not in value:
                if i == 0 or (i == 1 and parts[0] in {"inputs", "outputs"}):
                    return match[0]
                there = sorted(map(str, value)) if isinstance(value, Mapping) else repr(value)
                raise InvalidArgumentError(
                    f"{what} has the placeholder {match[0]}, and there is no {name!r}; there "
                    f"are {there}"
                )
            value = value[name]
        written = text_of(value.get("", value) if isinstance(value, Mapping) else value)
        for _ in range(int(match[2] or 0)):
            written = json.dumps(written, ensure_ascii=False)[1:-1]
        return written

    return _PLACEHOLDER.sub(look_up, text)


def fill_all(value: Any, known: Mapping[str, Any], *, what: str) -> Any:
    r"""Replace the placeholders of all texts in a value, keys included: in the texts, not in JSON.

    >>> known = {"inputs": {"parameters": {"p": 'a", "who": "b'}}}
    >>> fill_all({"who": ["{{$.inputs.parameters['p']}}", 3]}, known, what="the metadata")
    {'who': ['a", "who": "b', 3]}
    """
    if isinstance(value, str):
        return fill(value, known, what=what)
    if isinstance(value, list):
        return [fill_all(element, known, what=what) for element in value]
    if isinstance(value, dict):
        return {
            fill(name, known, what=what): fill_all(field, known, what=what)
            for name, field in value.items()
        }
    return value


def names_attempt(value: Any) -> bool:
    """Tell whether a value's placeholders can only be filled once an attempt has its folder.

    >>> names_attempt(["{{$.pipeline_job_uuid}}"]), names_attempt({"a": ["{{$}}"]})
    (False, True)
    """
    return bool(_OF_ATTEMPT.search(value if isinstance(value, str) else json.dumps(value)))


def named_of(known: Mapping[str, str], text: str) -> dict[str, str]:
    """Keep those values that some placeholder of a text asks for.

    >>> named_of({"pipeline_root": "/runs", "pipeline_job_name": "x"}, "{{$.pipeline_root}}/a")
    {'pipeline_root': '/runs'}
    """
    return {name: value for name, value in known.items() if f"{{{{$.{name}" in text}


def of_attempt(executor_input: JsonObject, job: Mapping[str, str]) -> JsonObject:
    """Lay out an executor input as placeholders name it.

    Args:
        executor_input: As Kubeflow's `ExecutorInput`, in JSON.
        job: Values of the run and the task, such as `pipeline_job_name`.
    """
    outputs = executor_input["outputs"]
    files = outputs.get("parameters", {})
    return {
        **job,
        "": executor_input,
        "inputs": {
            "parameters": executor_input["inputs"].get("parameterValues", {}),
            "artifacts": _artifacts(executor_input["inputs"]),
        },
        "outputs": {
            "parameters": {k: {"output_file": v["outputFile"]} for k, v in files.items()},
            "artifacts": _artifacts(outputs),
            "output_file": outputs["outputFile"],
        },
    }


def _artifacts(side: JsonObject) -> JsonObject:
    """Lay lists of artifacts out: the fields of the first one, and at "" the whole list."""
    laid_out = {}
    for name, listed in side.get("artifacts", {}).items():
        first = dict(next(iter(listed["artifacts"]), {}))
        if uri := first.get("uri"):
            first["path"] = layout.mounted(uri)
        laid_out[name] = {**first, "": listed}
    return laid_out


def fill_command(
    elements: Sequence[str], known: Mapping[str, Any], *, present: Collection[str], what: str
) -> list[str]:
    r"""Fill the elements of a container's command, `Concat` and `IfPresent` included.

    Args:
        elements: Strings; one that is JSON with the single key `Concat` or `IfPresent` is such a
            construct of `kfp.dsl`.
        known: As for `fill`.
        present: Names of the inputs that were given. One that only has its default was not
            (backend/src/v2/driver/util.go, resolveCondition).
        what: Whose command it is, for the message.

    >>> known = {"inputs": {"parameters": {"x": 2, "y": "default"}}}
    >>> concat = '{"Concat": ["--x=", "{{$.inputs.parameters[\'x\']}}"]}'
    >>> optional = '{"IfPresent": {"InputName": "y", "Then": ["--y"], "Else": ["--no-y"]}}'
    >>> fill_command([concat, optional], known, present={"x"}, what="task 't'")
    ['--x=2', '--no-y']
    """
    return [text for element in elements for text in _expand(element, known, present, what)]


def _expand(
    element: Any, known: Mapping[str, Any], present: Collection[str], what: str
) -> list[str]:
    if isinstance(element, list):
        return [text for part in element for text in _expand(part, known, present, what)]
    if isinstance(element, str):
        if not element.startswith(('{"Concat"', '{"IfPresent"')):
            return [fill(element, known, what=what)]
        element = json.loads(element)
    if "Concat" in element:
        return ["".join(_expand(element["Concat"], known, present, what))]
    choice = element["IfPresent"]
    chosen = choice["Then"] if choice["InputName"] in present else choice.get("Else", [])
    return _expand(chosen, known, present, what)
