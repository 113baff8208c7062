"""Read a compiled Kubeflow pipeline: strictly, for what is not understood must not be run.

A pipeline is a `PipelineSpec`, as `kfp.compiler` writes it and Kubeflow's API server reads it
(https://github.com/kubeflow/pipelines, api/v2alpha1/pipeline_spec.proto). This module knows the
document and the types of its parameters, and nothing about running it.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_mini.errors import InvalidArgumentError, NotFoundError

JsonObject = dict[str, Any]

_SCHEMA_VERSION = "2.1.0"
_KINDS: dict[str, tuple[type, ...]] = {
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "STRING": (str,),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
    "TASK_FINAL_STATUS": (dict,),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A compiled pipeline.

    Attributes:
        name: `pipelineInfo.name`.
        spec: The `PipelineSpec` as plain values.
        digest: sha256 of the spec; equal for equal pipelines, wherever the file lies.
        others: What else the file holds: at most a `PlatformSpec`, which only Kubeflow needs.
    """

    name: str
    spec: JsonObject
    digest: str
    others: tuple[Any, ...] = ()

    @property
    def root(self) -> JsonObject:
        """The component that the run itself is."""
        return dict(self.spec["root"])

    def component(self, task: Mapping[str, Any]) -> JsonObject:
        """Look up the component that a task runs."""
        return dict(self.spec["components"][task["componentRef"]["name"]])

    def executor(self, component: Mapping[str, Any]) -> JsonObject:
        """Look up how a component that is no DAG is executed: a container or an importer."""
        return dict(self.spec["deploymentSpec"]["executors"][component["executorLabel"]])


def load(package: Path | Any) -> Package:
    """Read a compiled pipeline.

    Args:
        package: A YAML or JSON file that kfp's compiler wrote, or a function decorated with
            `@dsl.pipeline`, which is compiled in memory.

    Raises:
        NotFoundError: There is no such file.
        InvalidArgumentError: It is no pipeline, has a field that this version of the specification
            does not know, or asks for an artifact from outside.
    """
    import yaml

    if not isinstance(package, Path):
        where, text = f"pipeline {getattr(package, 'name', package)!r}", _compile(package)
    elif package.is_file():
        where, text = str(package), package.read_text()
    else:
        raise NotFoundError(
            f"no pipeline in {package}: compile one, for example with `mlops-mini pipeline compile`"
        )
    try:
        documents = list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as exc:
        raise InvalidArgumentError(f"{where} is not YAML: {exc}") from exc
    specs = [found for found in documents if isinstance(found, dict) and "pipelineInfo" in found]
    if len(specs) != 1:
        raise InvalidArgumentError(
            f"{where} must hold one document with `pipelineInfo`, it holds {len(specs)}: compile "
            "a pipeline with kfp.compiler"
        )
    spec = specs[0]
    _check(spec, where)
    canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return Package(
        name=spec["pipelineInfo"]["name"],
        spec=spec,
        digest=hashlib.sha256(canonical.encode()).hexdigest(),
        others=tuple(found for found in documents if found is not spec and found is not None),
    )


def typed(value: Any, parameter_type: str, *, what: str) -> Any:
    """Check a parameter's value against its declared type.

    Args:
        value: A plain value; a whole float passes as integer, as it does in a protobuf.
        parameter_type: As the specification calls it, such as `NUMBER_INTEGER`.
        what: Whose value it is, for the message.

    Returns:
        The value, an int where an integer is declared and a float where a double is.

    Raises:
        InvalidArgumentError: The value is of another type.

    >>> typed(3.0, "NUMBER_INTEGER", what="argument 'n'")
    3
    >>> typed("3", "NUMBER_INTEGER", what="argument 'n'")
    Traceback (most recent call last):
    mlops_mini.errors.InvalidArgumentError: argument 'n' must be NUMBER_INTEGER, got '3' (str)
    """
    if parameter_type == "NUMBER_INTEGER" and isinstance(value, float) and value.is_integer():
        return int(value)
    kinds = _KINDS.get(parameter_type)
    if kinds is None:
        raise InvalidArgumentError(
            f"{what} is declared as {parameter_type}, which this runner does not know; it knows "
            f"{', '.join(_KINDS)}"
        )
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise InvalidArgumentError(
            f"{what} must be {parameter_type}, got {value!r} ({type(value).__name__})"
        )
    if parameter_type == "NUMBER_DOUBLE":
        return float(value)  # type: ignore[arg-type]
    return value


def parse(text: str, parameter_type: str, *, what: str) -> Any:
    """Read a parameter that a component wrote into a file, as Kubeflow's launcher does.

    >>> parse("[1, 2]", "LIST", what="output 'ids'"), parse("0.5", "NUMBER_DOUBLE", what="output")
    ([1, 2], 0.5)
    """
    if parameter_type == "STRING":
        return text
    try:
        value = json.loads(text.lower() if parameter_type == "BOOLEAN" else text)
    except ValueError as exc:
        raise InvalidArgumentError(f"{what} must be {parameter_type}, got {text!r}") from exc
    return typed(value, parameter_type, what=what)


def bind(definitions: Mapping[str, Any], given: Mapping[str, Any], *, what: str) -> dict[str, Any]:
    """Complete parameters with their defaults and check their types.

    Args:
        definitions: `inputDefinitions.parameters` of the component that takes them.
        given: Values by name; None counts as not given.
        what: Who takes them, for messages, such as "task 'train'".

    Returns:
        The value of each parameter that has one; optional ones without a value are absent.

    Raises:
        InvalidArgumentError: One is missing, unknown, or of the wrong type.
    """
    if unknown := sorted(set(given) - set(definitions)):
        raise InvalidArgumentError(
            f"{what} takes no {', '.join(map(repr, unknown))}; it takes "
            f"{', '.join(map(repr, definitions)) or 'no parameters'}"
        )
    bound = {}
    for name, definition in definitions.items():
        value = given.get(name)
        if value is None:
            value = definition.get("defaultValue")
        if value is not None:
            of = f"parameter {name!r} of {what}"
            bound[name] = typed(value, definition["parameterType"], what=of)
        elif not definition.get("isOptional"):
            raise InvalidArgumentError(
                f"{what} needs a value for {name!r} ({definition['parameterType']}), and has none"
            )
    return bound


def _compile(pipeline: Any) -> str:
    from kfp import compiler

    if not hasattr(pipeline, "pipeline_spec"):
        raise InvalidArgumentError(
            f"{pipeline!r} is no pipeline: give a compiled file or a function decorated with "
            "@dsl.pipeline"
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(file))
        return file.read_text()


def _check(spec: JsonObject, where: str) -> None:
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    try:
        known = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as exc:
        raise InvalidArgumentError(
            f"{where} does not keep to Kubeflow's PipelineSpec: {exc}; compile it with this "
            "environment's kfp"
        ) from exc
    if strange := _unread(spec, json_format.MessageToDict(known)):
        raise InvalidArgumentError(
            f"{where} spells {strange!r} otherwise than kfp's compiler does, and a runner that "
            "overlooked it would run another pipeline: compile it with this environment's kfp"
        )
    version = spec.get("schemaVersion")
    if version != _SCHEMA_VERSION:
        raise InvalidArgumentError(
            f"{where} has schemaVersion {version!r}, this runner reads {_SCHEMA_VERSION}: compile "
            "it anew"
        )
    missing = [
        name
        for name in ("root", "components", "deploymentSpec")
        if not isinstance(spec.get(name), dict)
    ]
    if missing or not spec["pipelineInfo"].get("name"):
        raise InvalidArgumentError(f"{where} lacks {missing or 'a name'}: compile it anew")
    artifacts = spec["root"].get("inputDefinitions", {}).get("artifacts", {})
    if outside := [name for name, got in artifacts.items() if not got.get("isOptional")]:
        raise InvalidArgumentError(
            f"{where} takes the artifacts {outside} from outside, and a run has only parameters to "
            "give: read them with dsl.importer"
        )


def _unread(given: Any, read: Any) -> str:
    """Find a name that protobuf reads under another, as `trigger_policy` for `triggerPolicy`."""
    if isinstance(given, dict) and isinstance(read, dict):
        # What has its default value is not in `read`.
        absent = [name for name in given if name not in read]
        lost = [str(name) for name in absent if given[name] or given[name] is None]
        return next(
            filter(None, [*lost, *(_unread(given[n], of) for n, of in read.items() if n in given)]),
            "",
        )
    if isinstance(given, list) and isinstance(read, list):
        return next(filter(None, map(_unread, given, read)), "")
    return ""


def loop_items(task: JsonObject, inputs: Mapping[str, Any]) -> tuple[str, list[Any]] | None:
    """Find over what a task is repeated: the input that takes an item, and the items.

    Args:
        task: A task of a DAG.
        inputs: Its parameters and artifact lists by name.

    Returns:
        None for a task that runs once.

    Raises:
        InvalidArgumentError: The input over which it is repeated has no value.
    """
    for kind, source in (
        ("parameterIterator", "inputParameter"),
        ("artifactIterator", "inputArtifact"),
    ):
        if iterator := task.get(kind):
            items = iterator["items"]
            if "raw" in items:
                found = json.loads(items["raw"])
            elif (found := inputs.get(items[source])) is None:
                raise InvalidArgumentError(
                    f"it loops over {items[source]!r}, which has no value: give it a list"
                )
            return str(iterator["itemInput"]), list(found)
    return None


def select(expression: str, value: Any, *, what: str) -> Any:
    """Take a field of a loop's item: `parseJson(string_value)["m"]`.

    >>> select('parseJson(string_value)["m"]', {"m": 1}, what="input 's'")
    1
    """
    if not re.fullmatch(r'parseJson\(string_value\)(\["[^"]*"\])+', expression):
        raise InvalidArgumentError(f"{what} uses {expression!r}, which this runner cannot read")
    for key in re.findall(r'\["([^"]*)"\]', expression):
        if not isinstance(value, dict) or key not in value:
            raise InvalidArgumentError(f"{what} asks for field {key!r} of {value!r}")
        value = value[key]
    return value
