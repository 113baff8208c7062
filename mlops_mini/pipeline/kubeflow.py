"""Check whether Kubeflow would take a pipeline, and run it there.

`check` is what Kubeflow's API server asks of a pipeline before it stores it, and what its driver
would only find hours later, in the middle of a run.
"""

import copy
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_mini.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    UnavailableError,
    by_code,
)
from mlops_mini.runner import arguments as given_arguments
from mlops_mini.runner import conditions, spec

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['(.*?)'\]\}\}")
_BY_DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
_COMPARISONS = {"==", "!=", "<", "<=", ">", ">="}
# One value of each type that a condition may be given, to try the condition with.
_EXAMPLES: dict[str, Any] = {
    "NUMBER_INTEGER": 0, "NUMBER_DOUBLE": 0.0, "STRING": "0", "BOOLEAN": False, "LIST": [],
    "STRUCT": {},
}  # fmt: skip
_F_STRING = (
    "kfp loses a value that an f-string uses inside a loop, condition or exit handler: give the "
    "value to the task as a parameter of its own, and write the text in the component"
)


def check(package: Path | Any) -> spec.Package:
    """Refuse a pipeline that Kubeflow would refuse, or run otherwise than it reads.

    `root` must be a DAG with tasks. Where artifacts go isn't checked: `defaultPipelineRoot` is only
    in the file if the pipeline names one; otherwise the cluster uses its own.

    A compiled file does not say whether `s == '3'` was `s == 3` in the source, so text that reads
    as a number or a bool is refused in either case. `flag == 1`, which kfp 2.17.0 compiles to
    `flag == false`, can't be seen in a compiled file: give the pipeline itself, and its source is
    checked too (but not the source of pipelines inside it).

    Args:
        package: A compiled YAML or JSON file, or a function decorated with `@dsl.pipeline`.

    Returns:
        The pipeline.

    Raises:
        NotFoundError: There is no such file.
        InvalidArgumentError: Kubeflow would not take it; the message names the task.

    >>> from kfp import dsl
    >>> @dsl.pipeline(name="read-rows")
    ... def read_rows(uri: str):
    ...     dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset)
    >>> check(read_rows).name
    'read-rows'
    """
    from kfp import components as components_of_kfp

    loaded = spec.load(package)
    _check_platform(package, loaded.others)
    root, components = loaded.root, loaded.spec["components"]
    if not _NAME.fullmatch(loaded.name):
        raise InvalidArgumentError(
            f"the pipeline's name {loaded.name!r} must be lower-case letters, digits, '-' and '.', "
            "and begin and end with a letter or digit: rename it"
        )
    if not root.get("dag", {}).get("tasks"):
        raise InvalidArgumentError(f"pipeline {loaded.name!r} has no tasks in its root: add one")
    for dag, component in [("root", root), *components.items()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            try:
                _check_task(task, component, components)
            except InvalidArgumentError as exc:
                raise InvalidArgumentError(
                    f"task {name!r} in {dag} of pipeline {loaded.name!r}: {exc}"
                ) from exc
    try:
        components_of_kfp.load_component_from_text(json.dumps(loaded.spec))
    except Exception as exc:
        raise InvalidArgumentError(
            f"kfp cannot load pipeline {loaded.name!r} ({type(exc).__name__}: {exc}): rename it "
            "if it has the name of one of its components, else compile it anew"
        ) from exc
    if not isinstance(package, Path):
        _check_source(package)
    return loaded


def pinned(package: Path, images: Mapping[str, str]) -> str:
    """Name the images of a pipeline by digest, so that a run tomorrow has those of today.

    Args:
        package: A compiled file.
        images: What each name in it stands for, such as
            `{"mlops-mini:0.1.0": "registry.example/mlops-mini@sha256:..."}`.

    Returns:
        The same pipeline, YAML with the comments at its top.

    Raises:
        NotFoundError: There is no such file.
        InvalidArgumentError: It's no pipeline, an image in it is left without a digest, or a digest
            is malformed.
    """
    import yaml

    loaded = spec.load(package)
    document = copy.deepcopy(loaded.spec)
    for executor in document["deploymentSpec"]["executors"].values():
        if "container" in executor:
            name = executor["container"]["image"]
            executor["container"]["image"] = images.get(name, name)
            if not _BY_DIGEST.fullmatch(executor["container"]["image"]):
                raise InvalidArgumentError(
                    f"image {name} of pipeline {loaded.name!r} is given as"
                    f" {images.get(name)!r}, expected NAME@sha256: and 64 digits: push it to a"
                    " registry, and say which digest it has there"
                )
    lines = package.read_text().splitlines(keepends=True)
    comments = "".join(itertools.takewhile(lambda line: line.startswith("#"), lines))
    text: str = yaml.safe_dump_all([document, *loaded.others])
    return comments + text


def submit(
    package: Path | Any,
    *,
    host: str,
    arguments: Mapping[str, Any] | None = None,
    cron: str | None = None,
    run_name: str | None = None,
    experiment: str = "Default",
    namespace: str = "",
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> str:
    """Run a pipeline on Kubeflow, once or on a schedule.

    The requests are those of `kfp.Client`, which is not used itself, for it waits for ever for a
    server that hangs, hides why it cannot connect, prints, and reads a file in the home.

    Args:
        package: As for `check`, which it must pass.
        host: The API server, such as `http://localhost:8080`.
        arguments: The pipeline's parameters by name. On a schedule Kubeflow fills
            `[[ScheduledTime]]` and `[[RunUUID]]` in texts.
        cron: The schedule; None to run now, once. Six fields, seconds first: `0 30 6 * * *` is half
            past six every day, in UTC unless the cluster is set otherwise. One run at a time, and
            missed ones are not made up for.
        run_name: How the run or the schedule is listed; the pipeline's name if not given.
        experiment: It is listed under this one, which is made if it is not there.
        namespace: Of the user's profile, where Kubeflow has several users.
        headers: Sent along, for example `{"Authorization": "Bearer ..."}`.
        timeout_s: Longest wait for each of the up to three answers, seconds.

    Returns:
        The id of the run, or of the recurring run.

    Raises:
        NotFoundError: There is no such file.
        InvalidArgumentError: The pipeline, an argument, `cron` or the host cannot be right; nothing
            was sent.
        UnavailableError: Nothing answers at the host, or something other than Kubeflow does.
        DeadlineExceededError: The server did not answer in time.
        MlopsMiniError: The server refused, in its own words and under its own code.

    >>> submit(Path("loop.yaml"), host="localhost:8080")
    Traceback (most recent call last):
    mlops_mini.errors.InvalidArgumentError: host 'localhost:8080' must begin with http:// or
    https://, such as 'http://localhost:8080'
    """
    if not host.startswith(("http://", "https://")):
        raise InvalidArgumentError(
            f"host {host!r} must begin with http:// or https://, such as 'http://localhost:8080'"
        )
    if cron is not None and len(cron.split()) != 6 and not cron.startswith("@"):
        raise InvalidArgumentError(
            f"cron {cron!r} has {len(cron.split())} fields; Kubeflow reads six, seconds first, and "
            "takes the first of five for seconds too: write '0 30 6 * * *' for half past six"
        )
    loaded = check(package)
    (platform,) = loaded.others or ({},)
    declared = loaded.root.get("inputDefinitions", {}).get("parameters", {})
    given = {name: value for name, value in (arguments or {}).items() if value is not None}
    bound = given_arguments.bind(declared, given, what=f"pipeline {loaded.name!r}")
    body: dict[str, Any] = {
        "display_name": run_name or loaded.name,
        "pipeline_spec": (
            {"pipeline_spec": loaded.spec, "platform_spec": platform} if platform else loaded.spec
        ),
        "runtime_config": {"parameters": {name: bound[name] for name in given}},
    }
    if cron is not None:
        schedule = {"cron_schedule": {"cron": cron}}
        alone = {"mode": "ENABLE", "max_concurrency": 1, "no_catchup": True}
        body |= {"trigger": schedule, **alone}
    server = _Server(host=host.rstrip("/"), headers=dict(headers or {}), timeout_s=timeout_s)
    body["experiment_id"] = server.experiment(experiment, namespace)
    if cron is None:
        return server.post("runs", body, wanted="run_id")
    return server.post("recurringruns", body, wanted="recurring_run_id")


def _check_platform(package: Path | Any, others: tuple[Any, ...]) -> None:
    """Check what only Kubernetes needs, such as secrets and volumes: one document at most."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    try:
        (platform,) = others or ({},)
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    except (AttributeError, ValueError, json_format.ParseError) as exc:
        raise InvalidArgumentError(
            f"{package} may hold one PlatformSpec beside its PipelineSpec and nothing else, it "
            f"holds {len(others)} more ({exc}): compile it anew"
        ) from exc


def _check_task(
    task: Mapping[str, Any], dag: Mapping[str, Any], components: Mapping[str, Any]
) -> None:
    """Follow all that a task refers to, and try its condition."""
    tasks, name = dag["dag"]["tasks"], task.get("componentRef", {}).get("name")
    if name not in components:
        raise InvalidArgumentError(f"there is no component {name!r}: compile the pipeline anew")
    for other in task.get("dependentTasks", []):
        if other not in tasks:
            raise InvalidArgumentError(f"it waits for {other!r}, which is not beside it")
    inputs = task.get("inputs", {})
    for kind, suffix in (("parameters", "Parameter"), ("artifacts", "Artifact")):
        for key, source in inputs.get(kind, {}).items():
            outer = source.get(f"componentInput{suffix}")
            if outer and outer not in dag.get("inputDefinitions", {}).get(kind, {}):
                raise InvalidArgumentError(
                    f"input {key!r} comes from {outer!r}, which is not there. {_F_STRING}"
                )
            if output := source.get(f"taskOutput{suffix}"):
                producer, made = output.get("producerTask"), output.get(f"output{suffix}Key")
                used = tasks.get(producer, {}).get("componentRef", {}).get("name")
                there = components.get(used, {}).get("outputDefinitions", {}).get(kind, {})
                if made not in there:
                    raise InvalidArgumentError(
                        f"input {key!r} comes from the output {made!r} of {producer!r}, which is "
                        f"not there. {_F_STRING}"
                    )
            constant = json.dumps(source.get("runtimeValue", {}).get("constant", ""))
            lost = [name for name in _PLACEHOLDER.findall(constant) if name not in inputs[kind]]
            if lost or "{{channel:" in constant:
                raise InvalidArgumentError(
                    f"input {key!r} is a text that refers to what is not there: {constant}. "
                    f"{_F_STRING}"
                )
    if condition := task.get("triggerPolicy", {}).get("condition"):
        declared = components[name].get("inputDefinitions", {}).get("parameters", {})
        given = inputs.get("parameters", {}).keys() & declared.keys()
        _check_condition(condition, {key: declared[key]["parameterType"] for key in given})


def _check_condition(condition: str, types: Mapping[str, str]) -> None:
    words = conditions.tokens(condition)
    for at, (_, sign) in enumerate(words):
        if sign not in _COMPARISONS:
            continue
        texts = [word[1:-1] for kind, word in words[at - 1 : at + 2 : 2] if kind == "text"]
        for text in texts:
            if not text.isprintable() or set(text) & set("\\'\""):
                raise InvalidArgumentError(
                    f"condition {condition!r} compares with a text that holds a quote, a backslash "
                    "or a control character, which kfp does not escape: compare with a plain word"
                )
            if _reads_as_number_or_bool(text):
                raise InvalidArgumentError(
                    f"condition {condition!r} compares a string with {text!r}, which is how kfp "
                    f"compiles a comparison of a string with {text}: declare the parameter as the "
                    "type it is, or compare with a word"
                )
        if len(texts) == 2:
            raise InvalidArgumentError(
                f"condition {condition!r} compares two fixed texts: is there a quote in one?"
            )
    conditions.evaluate(condition, {key: _EXAMPLES.get(kind) for key, kind in types.items()})


def _reads_as_number_or_bool(text: str) -> bool:
    """Tell whether the compiler could have made this text from a number or a bool."""
    for made in (int, float):
        try:
            if str(made(text)) == text:
                return True
        except ValueError:
            continue
    return text in {"true", "false"}


def _check_source(pipeline: Any) -> None:
    """Find comparisons of different types, which the compiled pipeline hides."""
    from kfp.compiler import compiler_utils
    from kfp.dsl import pipeline_channel, pipeline_context
    from kfp.dsl.types import type_utils

    channels = [
        pipeline_channel.create_pipeline_channel(
            name=name, channel_type=declared.type, is_artifact_list=declared.is_artifact_list
        )
        for name, declared in (pipeline.component_spec.inputs or {}).items()
    ]
    with pipeline_context.Pipeline(pipeline.name) as source:
        pipeline.pipeline_func(*channels)
    for group in compiler_utils.get_all_groups(source.groups[0]):
        for compared in getattr(group, "conditions", ()):
            sides = (compared.left_operand, compared.right_operand)
            types = [getattr(side, "channel_type", type(side).__name__) for side in sides]
            # NUMBER_INTEGER and NUMBER_DOUBLE may be compared.
            kinds = [
                type_utils.get_parameter_type_name(channel_type).partition("_")[0]
                for channel_type in types
            ]
            if kinds[0] != kinds[1]:
                shown = [getattr(side, "full_name", repr(side)) for side in sides]
                raise InvalidArgumentError(
                    f"pipeline {pipeline.name!r} compares {kinds[0]} with {kinds[1]} in "
                    f"`{shown[0]} {compared.operator} {shown[1]}`, of which kfp makes something "
                    "else: compare with a value of the parameter's own type"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Server:
    """Kubeflow's API server."""

    host: str
    headers: Mapping[str, str]
    timeout_s: float

    def experiment(self, name: str, namespace: str) -> str:
        """Return the id of an experiment, which is made if there is none of this name."""
        same_name = {"operation": 1, "key": "display_name", "stringValue": name}
        query = {"filter": json.dumps({"predicates": [same_name]}), "namespace": namespace}
        if experiments := self._ask("GET", "experiments", fields=query).get("experiments"):
            return str(experiments[0]["experiment_id"])
        new = {"display_name": name, "namespace": namespace}
        return self.post("experiments", new, wanted="experiment_id")

    def post(self, path: str, body: Mapping[str, Any], *, wanted: str) -> str:
        """Make something, and return what the answer holds under the key `wanted`."""
        answer = self._ask("POST", path, json=body)
        if not answer.get(wanted):
            raise UnavailableError(f"POST {path} at {self.host}: no {wanted} in {answer!r:.200}")
        return str(answer[wanted])

    def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        import urllib3

        what, url = f"{method} {path} at {self.host}", f"{self.host}/apis/v2beta1/{path}"
        try:
            # No second try: it could start a second run.
            with urllib3.PoolManager(retries=False, timeout=self.timeout_s) as pool:
                response = pool.request(method, url, headers=self.headers, **content)
        except urllib3.exceptions.ReadTimeoutError as exc:
            raise DeadlineExceededError(
                f"{what}: no answer in {self.timeout_s:g} s; it may have been done all the same: "
                "look there before you submit again"
            ) from exc
        except urllib3.exceptions.HTTPError as exc:
            raise UnavailableError(
                f"{what}: no Kubeflow Pipelines answers there ({exc}): start it, or forward its "
                "port with `kubectl port-forward svc/ml-pipeline 8080:8888 -n kubeflow`"
            ) from exc
        text = response.data.decode(errors="replace")
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        is_object = isinstance(answer, dict)
        if not 200 <= response.status <= 299:
            refusal = answer if is_object else {}
            code = refusal.get("code") or (14 if response.status >= 500 else 9)
            words = refusal.get("message") or refusal.get("error") or text
            raise by_code(code, f"{what}: {response.status} {response.reason}: {words}")
        if not is_object:
            raise UnavailableError(
                f"{what}: answers, but not as Kubeflow's API does ({text[:80]!r}): is it the API "
                "server, or a page to sign in, which `headers` can pass?"
            )
        return dict(answer)
