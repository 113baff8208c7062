"""Read a compiled Kubeflow pipeline: strictly, for what is not understood must not be run.

A pipeline is a `PipelineSpec`, as `kfp.compiler` writes it and Kubeflow's API server reads it
(https://github.com/kubeflow/pipelines, api/v2alpha1/pipeline_spec.proto). This module knows the
document, and nothing about running it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_mini.errors import InvalidArgumentError, NotFoundError

JsonObject = dict[str, Any]

_SCHEMA_VERSION = "2.1.0"


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

    @property
    def containers(self) -> list[JsonObject]:
        """What the executors run, but for importers, which run nothing."""
        executors = self.spec["deploymentSpec"]["executors"].values()
        return [executor["container"] for executor in executors if "container" in executor]

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
    specs = [
        document
        for document in documents
        if isinstance(document, dict) and "pipelineInfo" in document
    ]
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
        others=tuple(
            document for document in documents if document is not spec and document is not None
        ),
    )


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
