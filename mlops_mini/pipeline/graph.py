"""Walk a pipeline's DAG: what waits for what, which branch is taken, what is repeated.

Each task is a coroutine that waits for those it depends on, so whatever is ready runs. Nothing is
guessed: an input that does not resolve or a condition that cannot be evaluated fails its task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError
from mlops_mini.pipeline import conditions, placeholders, spec
from mlops_mini.pipeline.spec import Package
from mlops_mini.pipeline.tasks import DONE, Leaf, Outcome, TaskRunner, Values

JsonObject = dict[str, Any]
Outcomes = Mapping[str, asyncio.Future[Outcome]]

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
        named = task["componentRef"]["name"].removeprefix("comp-")
        policy = task.get("triggerPolicy", {})
        upstream = [await outcomes[name] for name in task.get("dependentTasks", [])]
        if policy.get("strategy") != "ALL_UPSTREAM_TASKS_COMPLETED":
            states = {outcome.state for outcome in upstream}
            if not states <= {*DONE, "SKIPPED"}:
                return self._runner.note(path, named, "NOT_TRIGGERED")
            if "SKIPPED" in states:
                return self._runner.note(path, named, "SKIPPED")
        try:
            component = self._package.component(task)
            names = dag.get("inputDefinitions", {}).get("parameters", {})
            scope = replace(scope, parameters=dict.fromkeys(names) | scope.parameters)
            inputs = self._resolve(task, component, scope, outcomes, path=path)
            condition = policy.get("condition")
            if condition and not conditions.evaluate(condition, inputs.parameters):
                return self._runner.note(path, named, "SKIPPED")
            items = spec.loop_items(task, {**inputs.parameters, **inputs.artifacts})
        except MlopsMiniError as exc:
            return self._runner.note(path, named, "FAILED", error=str(exc))
        if items is None:
            return await self._once(task, component, inputs, path=path)
        return await self._loop(task, component, inputs, items, path=path)

    async def _once(
        self, task: JsonObject, component: JsonObject, inputs: Values, *, path: str
    ) -> Outcome:
        what = f"task {path!r}"
        try:
            definitions = component.get("inputDefinitions", {})
            inputs = replace(
                inputs,
                parameters=spec.bind(
                    definitions.get("parameters", {}), inputs.parameters, what=what
                ),
            )
            for name, definition in definitions.get("artifacts", {}).items():
                if not inputs.artifacts.get(name) and not (
                    definition.get("isOptional") or definition.get("isArtifactList")
                ):
                    raise InvalidArgumentError(f"{what} needs the artifact {name!r}, and has none")
        except MlopsMiniError as exc:
            named = task["componentRef"]["name"].removeprefix("comp-")
            return self._runner.note(path, named, "FAILED", error=str(exc))
        if "dag" in component:
            return await self.run(component, inputs, path=f"{path}/")
        executor = self._package.executor(component)
        return await self._runner.run(
            Leaf(
                path=path,
                task=task,
                component=component,
                executor=executor,
                inputs=inputs,
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
        item_input, values = items
        limit = task.get("iteratorPolicy", {}).get("parallelismLimit") or len(values) or 1
        turns = asyncio.Semaphore(limit)

        async def turn(i: int, value: Any) -> Outcome:
            given = (
                replace(inputs, artifacts={**inputs.artifacts, item_input: [value]})
                if "artifactIterator" in task
                else replace(inputs, parameters={**inputs.parameters, item_input: value})
            )
            async with turns:
                return await self._once(task, component, given, path=f"{path}[{i}]")

        ended = await asyncio.gather(*(turn(i, value) for i, value in enumerate(values)))
        if failure := _failure(ended):
            return failure
        declared = component.get("outputDefinitions", {})
        made = [outcome.values for outcome in ended]
        return Outcome(
            state="SUCCEEDED",
            values=Values(
                parameters={
                    name: [one.parameters[name] for one in made if name in one.parameters]
                    for name in declared.get("parameters", {})
                },
                artifacts={
                    name: [artifact for one in made for artifact in one.artifacts.get(name, [])]
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
        declared = component.get("inputDefinitions", {})
        artifacts: dict[str, list[JsonObject]] = {}
        for name, source in task.get("inputs", {}).get("artifacts", {}).items():
            if "taskOutputArtifact" in source:
                producer = outcomes[source["taskOutputArtifact"]["producerTask"]].result()
                found = producer.values.artifacts.get(
                    source["taskOutputArtifact"]["outputArtifactKey"]
                )
            else:
                found = scope.artifacts.get(source["componentInputArtifact"])
            if found is not None:
                artifacts[name] = found
        parameters: JsonObject = {}
        constants = {}
        for name, source in task.get("inputs", {}).get("parameters", {}).items():
            what = f"input {name!r} of task {path!r}"
            if "runtimeValue" in source:
                constants[name] = source["runtimeValue"]["constant"]
                continue
            value = self._source(source, scope, outcomes, what=what)
            if value is not None and "parameterExpressionSelector" in source:
                value = spec.select(source["parameterExpressionSelector"], value, what=what)
            if value is not None:
                parameters[name] = value
        values = {**self._job, "inputs": {"parameters": parameters}, "pipeline_task_name": path}
        for name, constant in constants.items():
            what = f"input {name!r} of task {path!r}"
            parameters[name] = _filled(constant, values, what=what)
        # Constants refer to inputs that the component itself may not declare.
        known = declared.get("parameters", {})
        kept = {name: value for name, value in parameters.items() if name in known}
        return Values(parameters=kept, artifacts=artifacts)

    def _source(self, source: JsonObject, scope: Values, outcomes: Outcomes, *, what: str) -> Any:
        if "componentInputParameter" in source:
            name = source["componentInputParameter"]
            if name not in scope.parameters:
                raise InvalidArgumentError(
                    f"{what} refers to {name!r}, which has no value there; values are "
                    f"{', '.join(map(repr, scope.parameters)) or 'none'}"
                )
            return scope.parameters[name]
        if "taskFinalStatus" in source:
            name = source["taskFinalStatus"]["producerTask"]
            ended = outcomes[name].result()
            return {
                "state": _STATES_OF_STATUS.get(ended.state, "FAILED"),
                "pipelineJobResourceName": self._runner.run_id,
                "pipelineTaskName": name,
                "error": {"code": 10, "message": ended.error} if ended.error else {},
            }
        output = source["taskOutputParameter"]
        producer = outcomes[output["producerTask"]].result()
        return producer.values.parameters.get(output["outputParameterKey"])


def _failure(ended: Iterable[Outcome]) -> Outcome | None:
    """Sum up tasks of which one has failed; None if none has."""
    outcomes = list(ended)
    states = {outcome.state for outcome in outcomes}
    if states <= {*DONE, "SKIPPED"}:
        return None
    state = "CANCELLED" if "CANCELLED" in states else "FAILED"
    return Outcome(state=state, error="; ".join(one.error for one in outcomes if one.error))


def _is_exit(task: Mapping[str, Any]) -> bool:
    """Tell an exit task, which runs after a cancel too, from one that ignores failures."""
    is_last = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
    upstream = task.get("dependentTasks", [])
    return is_last and any(name.startswith("exit-handler-") for name in upstream)


def _filled(constant: Any, values: Mapping[str, Any], *, what: str) -> Any:
    if isinstance(constant, str):
        return placeholders.fill(constant, values, what=what)
    if isinstance(constant, list):
        return [_filled(one, values, what=what) for one in constant]
    if isinstance(constant, dict):
        return {name: _filled(one, values, what=what) for name, one in constant.items()}
    return constant


def _outputs(component: JsonObject, ended: Mapping[str, Outcome]) -> Values:
    """Gather a DAG's outputs from those of its tasks; of several branches, the one that ran."""
    declared = component["dag"].get("outputs", {})
    parameters, artifacts = {}, {}
    for name, source in declared.get("parameters", {}).items():
        selectors = source.get("valueFromOneof", {}).get("parameterSelectors") or [
            source["valueFromParameter"]
        ]
        for one in selectors:
            made = ended[one["producerSubtask"]].values.parameters
            if one["outputParameterKey"] in made:
                parameters[name] = made[one["outputParameterKey"]]
    for name, source in declared.get("artifacts", {}).items():
        for one in source["artifactSelectors"]:
            found = ended[one["producerSubtask"]].values.artifacts
            if one["outputArtifactKey"] in found:
                artifacts[name] = found[one["outputArtifactKey"]]
    return Values(parameters=parameters, artifacts=artifacts)
