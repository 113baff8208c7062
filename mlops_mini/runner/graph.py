"""Walk a pipeline's DAG: what waits for what, which branch is taken, what is repeated.

Each task is a coroutine that waits for those it depends on, so whatever is ready runs. Nothing is
guessed: an input that does not resolve or a condition that cannot be evaluated fails its task.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError
from mlops_mini.runner import conditions, placeholders, values
from mlops_mini.runner.spec import Package
from mlops_mini.runner.tasks import DONE, Leaf, Outcome, TaskRunner, Values
from mlops_mini.runner.values import Source

JsonObject = dict[str, Any]
Outcomes = Mapping[str, asyncio.Future[Outcome]]

_LOST = (
    "kfp loses a loop's item, or a field of it, where an f-string uses it: give it to the task as "
    "a parameter of its own, and write the text in the component"
)
_STATES_OF_STATUS = {"SUCCEEDED": "SUCCEEDED", "CACHED": "SUCCEEDED", "CANCELLED": "CANCELLED"}


class Graph:
    """The DAGs of one run."""

    def __init__(self, package: Package, runner: TaskRunner, *, job: Mapping[str, str]) -> None:
        """Prepare to walk.

        Args:
            package: The pipeline.
            runner: Runs the tasks.
            job: Values of placeholders such as `{{$.pipeline_job_uuid}}`, by name.
        """
        self._package = package
        self._runner = runner
        self._job = job

    async def run(self, component: JsonObject, inputs: Values, *, path: str) -> Outcome:
        """Run a component that is a DAG.

        Args:
            component: Its definition.
            inputs: What it is given.
            path: Its place, "" for the pipeline itself.
        """
        # Filled before any of them runs, so that each finds those it waits for.
        outcomes: dict[str, asyncio.Future[Outcome]] = {}
        tasks = component["dag"]["tasks"]
        # An exit task's own failure must not hide the first one.
        for name in sorted(tasks, key=lambda name: _is_exit(tasks[name])):
            walk = self._task(tasks[name], component, inputs, outcomes, path=f"{path}{name}")
            outcomes[name] = asyncio.ensure_future(walk)
        ended = dict(zip(outcomes, await asyncio.gather(*outcomes.values()), strict=True))
        if failure := _failure(ended.values()):
            return failure
        return Outcome(state="SUCCEEDED", values=_outputs(component, ended))

    async def _task(
        self, task: JsonObject, dag: JsonObject, scope: Values, outcomes: Outcomes, *, path: str
    ) -> Outcome:
        """Wait for what a task needs, then run it, as often as it says."""
        policy = task.get("triggerPolicy", {})
        upstream = [await outcomes[name] for name in _waits_for(task)]
        if policy.get("strategy") != "ALL_UPSTREAM_TASKS_COMPLETED":
            states = {outcome.state for outcome in upstream}
            if not states <= {*DONE, "SKIPPED"}:
                return self._runner.note(path, task, "NOT_TRIGGERED")
            if "SKIPPED" in states:
                return self._runner.note(path, task, "SKIPPED")
        try:
            component = self._package.component(task)
            names = dag.get("inputDefinitions", {}).get("parameters", {})
            scope = replace(scope, parameters=dict.fromkeys(names) | scope.parameters)
            inputs = self._resolve(task, component, scope, outcomes, path=path)
            condition = policy.get("condition")
            if condition and not conditions.evaluate(condition, inputs.parameters):
                return self._runner.note(path, task, "SKIPPED")
            items = values.loop_items(task, {**inputs.parameters, **inputs.artifacts})
        except MlopsMiniError as exc:
            return self._runner.note(path, task, "FAILED", error=str(exc))
        if items is None:
            return await self._once(task, component, inputs, path=path)
        return await self._loop(task, component, inputs, items, path=path)

    async def _once(
        self,
        task: JsonObject,
        component: JsonObject,
        inputs: Values,
        *,
        path: str,
        item: tuple[str, Any] | None = None,
    ) -> Outcome:
        what = f"task {path!r}"
        try:
            definitions = component.get("inputDefinitions", {})
            parameters = dict(inputs.parameters)
            if item:
                parameters[item[0]] = _converted(component, *item, Source.ITEM, path=path)
            present = frozenset(parameters) | {n for n, made in inputs.artifacts.items() if made}
            parameters = values.complete(definitions.get("parameters", {}), parameters, what=what)
            inputs = replace(inputs, parameters=parameters)
            for name, definition in definitions.get("artifacts", {}).items():
                if not inputs.artifacts.get(name) and not (
                    definition.get("isOptional") or definition.get("isArtifactList")
                ):
                    raise InvalidArgumentError(f"{what} needs the artifact {name!r}, and has none")
            executor = {} if "dag" in component else self._package.executor(component)
            for name in parameters if executor else ():
                values.require_json(parameters[name], what=f"input {name!r} of {what}")
        except MlopsMiniError as exc:
            return self._runner.note(path, task, "FAILED", error=str(exc))
        if "dag" in component:
            return await self.run(component, inputs, path=f"{path}/")
        return await self._runner.run(
            Leaf(
                path=path,
                task=task,
                component=component,
                executor=executor,
                inputs=inputs,
                present=present,
                job=self._job_of(path),
                outlives_cancel=_is_exit(task),
            )
        )

    async def _loop(
        self,
        task: JsonObject,
        component: JsonObject,
        inputs: Values,
        items: tuple[str, list[Any]],
        *,
        path: str,
    ) -> Outcome:
        item_input, item_values = items
        limit = task.get("iteratorPolicy", {}).get("parallelismLimit") or len(item_values) or 1
        turns = asyncio.Semaphore(limit)

        async def turn(i: int, value: Any) -> Outcome:
            given, item = inputs, None
            if "artifactIterator" in task:
                given = replace(inputs, artifacts={**inputs.artifacts, item_input: [value]})
            else:
                item = (item_input, value)
            async with turns:
                return await self._once(task, component, given, path=f"{path}[{i}]", item=item)

        ended = await asyncio.gather(*(turn(i, value) for i, value in enumerate(item_values)))
        if failure := _failure(ended):
            return failure
        declared = component.get("outputDefinitions", {})
        values_by_turn = [outcome.values for outcome in ended]
        return Outcome(
            state="SUCCEEDED",
            values=Values(
                parameters={
                    name: [
                        made.parameters[name] for made in values_by_turn if name in made.parameters
                    ]
                    for name in declared.get("parameters", {})
                },
                artifacts={
                    name: [
                        artifact
                        for made in values_by_turn
                        for artifact in made.artifacts.get(name, [])
                    ]
                    for name in declared.get("artifacts", {})
                },
            ),
        )

    def _resolve(
        self,
        task: JsonObject,
        component: JsonObject,
        scope: Values,
        outcomes: Outcomes,
        *,
        path: str,
    ) -> Values:
        """Find the value of each input that a task names; those without a value are left out."""
        artifacts: dict[str, list[JsonObject]] = {}
        for name, source in task.get("inputs", {}).get("artifacts", {}).items():
            if "taskOutputArtifact" in source:
                producer = outcomes[source["taskOutputArtifact"]["producerTask"]].result()
                made = producer.values.artifacts.get(
                    source["taskOutputArtifact"]["outputArtifactKey"]
                )
            else:
                made = scope.artifacts.get(source["componentInputArtifact"])
            if made is not None:
                artifacts[name] = made
        declared = component.get("inputDefinitions", {}).get("parameters", {})
        parameters: JsonObject = {}
        sources: dict[str, Source] = {}
        constants = {}
        unfilled: set[str] = set()
        for name, source in task.get("inputs", {}).get("parameters", {}).items():
            if "runtimeValue" in source:
                constants[name] = values.plain(source["runtimeValue"]["constant"])
                continue
            what = f"input {name!r} of task {path!r}"
            is_text = declared.get(name, {}).get("parameterType") == "STRING"
            value, kind = self._source(source, scope, outcomes, what=what, is_text=is_text)
            if value is None:
                continue
            if "parameterExpressionSelector" in source:
                value = values.select(source["parameterExpressionSelector"], value, what=what)
                kind = Source.FIELD
            parameters[name], sources[name] = value, kind
            if source.get("componentInputParameter") in scope.unfilled:
                unfilled.add(name)
        known = {**self._job_of(path), "inputs": {"parameters": dict(parameters)}}
        for name, constant in constants.items():
            what = f"input {name!r} of task {path!r}"
            parameters[name] = placeholders.fill_all(constant, known, what=what)
            sources[name] = Source.CONSTANT
            if placeholders.names_attempt(constant):
                unfilled.add(name)
        # Its declared type is often a wrong guess, and `values.loop_items` demands a list anyway.
        iterated = task.get("parameterIterator", {}).get("items", {}).get("inputParameter")
        # Constants may refer to inputs that the component doesn't declare; these are dropped here.
        converted = {
            name: value
            if name == iterated
            else _converted(component, name, value, sources[name], path=path)
            for name, value in parameters.items()
            if name in declared
        }
        return Values(
            parameters=converted, artifacts=artifacts, unfilled=frozenset(unfilled & set(declared))
        )

    def _job_of(self, path: str) -> dict[str, str]:
        """Values of the placeholders that name the run and a task of it."""
        return {
            **self._job,
            "pipeline_task_name": path.rsplit("/", 1)[-1],
            # The same again when a run is resumed, and another one in each turn of a loop.
            "pipeline_task_uuid": str(
                uuid.uuid5(uuid.NAMESPACE_URL, f"{self._runner.run_id}/{path}")
            ),
        }

    def _source(
        self, source: JsonObject, scope: Values, outcomes: Outcomes, *, what: str, is_text: bool
    ) -> tuple[Any, Source]:
        """Find a value, None if there is none, and say where it comes from.

        Where an f-string uses the item of a loop, kfp has what is around that loop ask for the item
        as an output of the task that makes the list. As on Kubeflow an empty text stands for it,
        and the loop inside puts its item in that place; other types have nothing that could.
        """
        if "componentInputParameter" in source:
            name = source["componentInputParameter"]
            if name not in scope.parameters:
                is_lost = "-subvar-" in name or name.endswith("-loop-item")
                is_lost = is_lost or f"{name}-loop-item" in scope.parameters
                raise InvalidArgumentError(
                    f"{what} refers to {name!r}, which has no value there; values are "
                    f"{', '.join(map(repr, scope.parameters)) or 'none'}"
                    + (f"; {_LOST}" if is_lost else "")
                )
            return scope.parameters[name], Source.OUTER
        if "taskFinalStatus" in source:
            name = source["taskFinalStatus"]["producerTask"]
            ended = outcomes[name].result()
            status = {
                "state": _STATES_OF_STATUS.get(ended.state, "FAILED"),
                "pipelineJobResourceName": self._runner.run_id,
                "pipelineTaskName": name,
                "error": {"code": 10, "message": ended.error} if ended.error else {},
            }
            return status, Source.STATUS
        output = source["taskOutputParameter"]
        name = output["outputParameterKey"]
        made = outcomes[output["producerTask"]].result().values.parameters
        is_item = name.endswith("-loop-item") and name not in made
        if is_item and is_text:
            return "", Source.UPSTREAM
        if is_item or "-loop-item-subvar-" in name:
            raise InvalidArgumentError(
                f"{what} comes from the output {name!r} of {output['producerTask']!r}, which is "
                f"not there; {_LOST}"
            )
        return made.get(name), Source.UPSTREAM


def _waits_for(task: Mapping[str, Any]) -> list[str]:
    """Name the tasks that a task waits for, those included that kfp only names as its inputs.

    kfp forgets the dependency of a loop whose tasks do not use the item.
    """
    inputs = task.get("inputs", {})
    sources = [*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()]
    producers = (
        source[kind]["producerTask"]
        for source in sources
        for kind in ("taskOutputParameter", "taskOutputArtifact")
        if kind in source
    )
    return list(dict.fromkeys([*task.get("dependentTasks", []), *producers]))


def _failure(ended: Iterable[Outcome]) -> Outcome | None:
    """Sum up tasks of which one has failed; None if none has."""
    outcomes = list(ended)
    states = {outcome.state for outcome in outcomes}
    if states <= {*DONE, "SKIPPED"}:
        return None
    state = "CANCELLED" if "CANCELLED" in states else "FAILED"
    return Outcome(
        state=state, error="; ".join(outcome.error for outcome in outcomes if outcome.error)
    )


def _is_exit(task: Mapping[str, Any]) -> bool:
    """Tell an exit task, which runs after a cancel too, from one that ignores failures."""
    is_last = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
    upstream = task.get("dependentTasks", [])
    return is_last and any(name.startswith("exit-handler-") for name in upstream)


def _converted(component: JsonObject, name: str, value: Any, source: Source, *, path: str) -> Any:
    """Convert an input to the type that its component declares."""
    definition = component.get("inputDefinitions", {}).get("parameters", {}).get(name)
    if definition is None:
        return value
    what = f"input {name!r} of task {path!r}"
    if source is not Source.ITEM:
        values.require_literal(value, definition, what=what)
    return values.convert(value, definition["parameterType"], source, what=what)


def _outputs(component: JsonObject, ended: Mapping[str, Outcome]) -> Values:
    """Gather a DAG's outputs from those of its tasks; of several branches, the one that ran."""
    declared = component["dag"].get("outputs", {})
    parameters, artifacts = {}, {}
    for name, source in declared.get("parameters", {}).items():
        selectors = source.get("valueFromOneof", {}).get("parameterSelectors") or [
            source["valueFromParameter"]
        ]
        for selector in selectors:
            made = ended[selector["producerSubtask"]].values.parameters
            if selector["outputParameterKey"] in made:
                parameters[name] = made[selector["outputParameterKey"]]
    for name, source in declared.get("artifacts", {}).items():
        for selector in source["artifactSelectors"]:
            made_artifacts = ended[selector["producerSubtask"]].values.artifacts
            if selector["outputArtifactKey"] in made_artifacts:
                artifacts[name] = made_artifacts[selector["outputArtifactKey"]]
    return Values(parameters=parameters, artifacts=artifacts)
