"""Run one task of a pipeline: find its result in the cache, or attempt it until it succeeds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mlops_mini import containers
from mlops_mini.errors import MlopsMiniError, UnavailableError
from mlops_mini.runner import (
    artifacts,
    attempts,
    digests,
    environments,
    layout,
    placeholders,
    python_functions,
    values,
)
from mlops_mini.runner.fork_server import ForkServer, remove_container
from mlops_mini.runner.inputs import Readers
from mlops_mini.runner.records import Records, RunRecord, TaskRecord

logger = logging.getLogger(__name__)

JsonObject = dict[str, Any]
Mode = Literal["fork", "inline", "docker"]
DONE = ("SUCCEEDED", "CACHED")


@dataclass(frozen=True, kw_only=True, slots=True)
class Values:
    """What a task is given, or has made.

    Attributes:
        parameters: Plain values by name.
        artifacts: Lists of artifacts by name, as `TaskRecord.outputs` describes them.
        unfilled: Names of parameters with placeholders that only an attempt can fill.
    """

    parameters: JsonObject = field(default_factory=dict)
    artifacts: dict[str, list[JsonObject]] = field(default_factory=dict)
    unfilled: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a task, or a whole DAG, has ended.

    Attributes:
        state: As `TaskRecord.state`.
        values: What it has made, if it succeeded.
        error: The first error, which names the task.
    """

    state: str
    values: Values = field(default_factory=Values)
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """A task whose component is executed.

    Attributes:
        path: As `TaskRecord.path`.
        task: Its entry in the DAG.
        component: The component's definition.
        executor: A container or an importer.
        inputs: What it is given.
        present: Names of those inputs that do not only have their default.
        job: Values of placeholders such as `{{$.pipeline_job_uuid}}`, by name.
        outlives_cancel: True for exit tasks.
    """

    path: str
    task: JsonObject
    component: JsonObject
    executor: JsonObject
    inputs: Values
    present: frozenset[str]
    job: dict[str, str]
    outlives_cancel: bool


class TaskRunner:
    """Runs the tasks of one run; lives in the thread of its event loop."""

    def __init__(
        self,
        run: RunRecord,
        *,
        folder: Path,
        records: Records,
        forks: ForkServer,
        mode: Mode,
        n_workers: int,
        environments_root: Path,
        volumes: Mapping[str, containers.Access],
        on_task: Callable[[TaskRecord], None],
    ) -> None:
        """Prepare to run tasks.

        Args:
            run: The run, with the tasks that an earlier process has recorded.
            folder: Of the run.
            records: Where tasks are recorded.
            forks: Starts attempts.
            mode: Where attempts run.
            n_workers: Most tasks at the same time.
            environments_root: See `environments.python_of`.
            volumes: See `Runner`.
            on_task: Told of each change of a task's state.
        """
        self.run_id = run.id
        self.cancel, self.abort = asyncio.Event(), asyncio.Event()
        self._newest = dict(run.tasks)
        self._folder = folder
        self._records = records
        self._forks = forks
        self._mode = mode
        self._workers = asyncio.Semaphore(1 if mode == "inline" else n_workers)
        self._readers = Readers()
        self._environments_root = environments_root
        self._volumes = volumes
        self._on_task = on_task

    def note(self, path: str, task: JsonObject, state: str, *, error: str = "") -> Outcome:
        """Record a task that was not executed."""
        now = self._records.now()
        self._save(
            TaskRecord(
                run_id=self.run_id, path=path, component=_component_of(task), state=state,
                error=error, started_at=now, ended_at=now,
            )
        )  # fmt: skip
        return Outcome(state=state, error=f"task {path!r} failed: {error}" if error else "")

    async def run(self, leaf: Leaf) -> Outcome:
        """Run a task to its end.

        Returns:
            The outcome: a failure of any kind is an outcome too, and raises nothing.
        """
        stop = self.abort if leaf.outlives_cancel else self.cancel
        before = self._newest.get(leaf.path)
        async with self._workers:
            if stop.is_set():
                return Outcome(state="CANCELLED")
            record = TaskRecord(
                run_id=self.run_id,
                path=leaf.path,
                component=_component_of(leaf.task),
                state="RUNNING",
                inputs={"parameters": leaf.inputs.parameters, "artifacts": leaf.inputs.artifacts},
                started_at=self._records.now(),
                attempt=before.attempt if before else 0,
            )
            try:
                if "importer" in leaf.executor:
                    record = await asyncio.to_thread(self._import, record, leaf)
                else:
                    record = await self._run_container(record, leaf, stop, before)
            except (MlopsMiniError, OSError) as exc:
                newest = self._newest.get(leaf.path, record)
                record = replace(
                    record, state="FAILED", error=str(exc),
                    attempt=newest.attempt, folder=newest.folder,
                )  # fmt: skip
            if record.ended_at is None:
                record = replace(record, ended_at=self._records.now())
            self._save(record)
        if record.state not in DONE:
            error = f"task {leaf.path!r} failed: {record.error}" if record.error else ""
            return Outcome(state=record.state, error=error)
        made = record.outputs["artifacts"].items()
        values = Values(
            parameters=record.outputs["parameters"],
            artifacts={name: [artifact] for name, artifact in made},
        )
        return Outcome(state=record.state, values=values)

    async def _run_container(
        self, record: TaskRecord, leaf: Leaf, stop: asyncio.Event, before: TaskRecord | None
    ) -> TaskRecord:
        container = leaf.executor["container"]
        installs = environments.installs_of(container.get("command", []))
        image = None
        if self._mode == "docker":
            image = await asyncio.to_thread(environments.image_of, container)
        is_ours = python_functions.is_python(container) and not installs and not image
        source = python_functions.source_of(container)
        reach = digests.reach(source if is_ours else "")
        caching = leaf.task.get("cachingOptions", {})
        named = {
            name: [artifact["digest"] for artifact in given]
            for name, given in leaf.inputs.artifacts.items()
        }
        key = digests.key_of(
            {
                "cache_key": caching.get("cacheKey", ""),
                "executor": [source, container.get("args", []), container.get("env", [])],
                "outputs": leaf.component.get("outputDefinitions", {}),
                "image": image.digest if image else container["image"],
                "parameters": leaf.inputs.parameters,
                "artifacts": named,
                **_asked_by_command(leaf),
                "library": reach.digest,
                "environment": digests.installed_digest()
                if is_ours
                else environments.digest_of(installs),
            }
        )
        # What runs inline may be older than the files that the key was made of, for this process
        # has imported it long ago: its results are kept for its own run, and no other takes them.
        record = replace(record, key=f"inline {key}" if self._mode == "inline" else key)
        # An exit task comes after all others, so it runs anew when any of them has.
        is_kept = (
            before
            and before.state in DONE
            and before.key == record.key
            and not leaf.outlives_cancel
        )
        if before and is_kept and await asyncio.to_thread(is_intact, before):
            return before
        if caching.get("enableCache"):
            for earlier in self._records.with_key(key):
                if await asyncio.to_thread(is_intact, earlier):
                    return replace(
                        record,
                        state="CACHED",
                        outputs=earlier.outputs,
                        cached_from=f"{earlier.run_id}/{earlier.path}",
                        folder=earlier.folder,
                    )
                logger.warning(
                    "%s: its files in %s have changed since it ran", leaf.path, earlier.folder
                )
            # Here is work to do, which mostly needs what it can reach. What is never taken from the
            # cache runs every time, and must not wait for what it only might import.
            reach = replace(reach, at_once=reach.installed)
        python = ""
        if image:
            python = "python3"
        elif python_functions.is_python(container) and installs:
            (self._folder / leaf.path).mkdir(parents=True, exist_ok=True)
            log_file = self._folder / leaf.path / "environment.log"
            # Tasks that need the same one wait for each other.
            async with self._without_worker():
                made = await asyncio.to_thread(
                    environments.python_of,
                    installs,
                    root=self._environments_root,
                    log_file=log_file,
                )
            python = str(made)
        policy = leaf.task.get("retryPolicy", {})
        for n_tried in range(int(policy.get("maxRetryCount", 0)) + 1):
            if n_tried:
                async with self._without_worker():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), backoff_s(policy, n_tried))
                if stop.is_set():
                    return replace(record, state="CANCELLED")
            self._readers.begin(leaf.path, leaf.inputs.artifacts)
            record = await self._attempt(record, leaf, python, image, reach, stop)
            if record.state != "FAILED":
                break
            logger.warning("%s: attempt %d failed: %s", leaf.path, record.attempt, record.error)
        return record

    @contextlib.asynccontextmanager
    async def _without_worker(self) -> AsyncIterator[None]:
        """Lend this task's worker to other tasks in the meantime."""
        self._workers.release()
        try:
            yield
        finally:
            await self._workers.acquire()

    async def _attempt(
        self,
        record: TaskRecord,
        leaf: Leaf,
        python: str,
        image: containers.Image | None,
        reach: digests.Reach,
        stop: asyncio.Event,
    ) -> TaskRecord:
        final = self._folder / leaf.path / f"attempt-{record.attempt + 1}"
        unfinished = final.with_name(f"{final.name}.unfinished")
        for left_by_a_killed_run in final.parent.glob("*.unfinished"):
            remove_container(left_by_a_killed_run)
            # Who was writing there may just be dying.
            shutil.rmtree(left_by_a_killed_run, ignore_errors=True)
        unfinished.mkdir(parents=True)
        attempts.prepare(
            unfinished,
            task=f"task {leaf.path!r}",
            container=leaf.executor["container"],
            component=leaf.component,
            parameters=leaf.inputs.parameters,
            inputs=leaf.inputs.artifacts,
            unfilled=leaf.inputs.unfilled,
            present=leaf.present,
            job=leaf.job,
            python=python,
            image=image.digest if image else "",
            mounts=self._mounts(leaf.inputs),
        )
        record = replace(
            record, state="RUNNING", attempt=record.attempt + 1, folder=str(unfinished), error=""
        )
        self._save(record)
        result = await self._result(unfinished, reach, stop)
        if edited := await self._readers.end(leaf.path, leaf.inputs.artifacts):
            result = {"error": "; ".join(filter(None, [edited, result["error"]]))}
        if result["error"]:
            failed = unfinished.rename(final.with_name(f"{final.name}.failed"))
            record = replace(record, folder=str(failed))
            if stop.is_set():
                return replace(record, state="CANCELLED")
            error = result["error"].replace(str(unfinished), str(failed))
            return replace(record, state="FAILED", error=error)
        # Made visible by one rename, before the record says that it is there.
        unfinished.rename(final)
        there, here = (json.dumps(str(folder))[1:-1] for folder in (unfinished, final))
        made = json.loads(json.dumps(result).replace(there, here))
        outputs = {"parameters": made["parameters"], "artifacts": made["artifacts"]}
        return replace(record, state="SUCCEEDED", outputs=outputs, folder=str(final))

    async def _result(self, folder: Path, reach: digests.Reach, stop: asyncio.Event) -> JsonObject:
        status = 0
        if self._mode == "inline":
            (folder / layout.WORK).mkdir()
            with contextlib.chdir(folder / layout.WORK):
                attempts.run(folder)
        else:
            try:
                status = await self._fork(folder, reach, stop)
                if status == 0 and not (folder / layout.RESULT).exists():
                    # The component has ended its process, and meant well: os._exit(0).
                    status = await self._fork(folder, reach, stop)
            except UnavailableError as exc:
                return {"error": str(exc)}
        if (folder / layout.RESULT).exists():
            return dict(json.loads((folder / layout.RESULT).read_text()))
        if status < 0:
            name = signal.Signals(-status).name
            why = "; the system does that when memory is full" if status == -signal.SIGKILL else ""
            return {"error": f"its process was killed by {name}{why}"}
        return {"error": f"its process exited {status}"}

    async def _fork(self, folder: Path, reach: digests.Reach, stop: asyncio.Event) -> int:
        ended = asyncio.wrap_future(
            self._forks.start(folder, at_once=reach.at_once, later=reach.installed - reach.at_once)
        )
        stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            self._forks.kill(folder)
        while not ended.done():
            # Again and again, for it may not have had a process yet.
            self._forks.kill(folder)
            await asyncio.wait({ended}, timeout=0.05)
        return ended.result()

    def _mounts(self, inputs: Values) -> dict[str, containers.Access]:
        """List what a container is shown: its input artifacts, and the folders it was named."""
        mounts: dict[str, containers.Access] = {}
        for many in inputs.artifacts.values():
            for artifact in many:
                mounts[str(artifacts.path_of(artifact["uri"]))] = "read"
        for name, access in self._volumes.items():
            if value := inputs.parameters.get(name):
                # SQLite makes files beside its own.
                file = value.removeprefix("sqlite:///")
                folder = Path(file) if file == value else Path(file).parent
                if access == "write":
                    folder.mkdir(parents=True, exist_ok=True)
                mounts[str(folder)] = access
        return {path: access for path, access in mounts.items() if Path(path).exists()}

    def _import(self, record: TaskRecord, leaf: Leaf) -> TaskRecord:
        importer = leaf.executor["importer"]
        source = importer["artifactUri"]
        uri = source.get("constant") or leaf.inputs.parameters[source["runtimeParameter"]]
        name = next(iter(leaf.component["outputDefinitions"]["artifacts"]))
        known = {**leaf.job, "inputs": {"parameters": leaf.inputs.parameters}}
        metadata = placeholders.fill_all(
            values.plain(importer.get("metadata", {})), known, what=f"task {leaf.path!r}"
        )
        uri = artifacts.imported(uri, metadata, task=f"task {leaf.path!r}")
        made = artifacts.describe(
            uri, type_=importer["typeSchema"], metadata=metadata, is_read=False
        )
        return replace(
            record, state="SUCCEEDED", outputs={"parameters": {}, "artifacts": {name: made}}
        )

    def _save(self, record: TaskRecord) -> None:
        self._records.save_task(record)
        self._newest[record.path] = record
        self._on_task(record)


def _component_of(task: JsonObject) -> str:
    return str(task["componentRef"]["name"].removeprefix("comp-"))


def _asked_by_command(leaf: Leaf) -> JsonObject:
    """Return what else the command of a container depends on, for its key; {} for a function."""
    container = leaf.executor["container"]
    if python_functions.is_python(container):
        return {}
    command = python_functions.source_of(container)
    asked: JsonObject = {}
    if job := placeholders.named_of(leaf.job, command):
        asked["job"] = job
    if "IfPresent" in command:
        asked["present"] = sorted(leaf.present)
    return asked


def is_intact(record: TaskRecord) -> bool:
    """Tell whether a task's artifacts still are what it has made."""
    return all(map(artifacts.is_unchanged, record.outputs["artifacts"].values()))


def backoff_s(policy: Mapping[str, Any], n_tried: int) -> float:
    """Seconds to wait before another attempt.

    Args:
        policy: `retryPolicy` of a task.
        n_tried: Attempts so far, from 1.

    >>> policy = {"backoffDuration": "2s", "backoffFactor": 3.0, "backoffMaxDuration": "10s"}
    >>> [backoff_s(policy, n) for n in (1, 2, 3)]
    [2.0, 6.0, 10.0]
    """
    first, most = (
        float(str(policy.get(name, default)).removesuffix("s"))
        for name, default in (("backoffDuration", "0s"), ("backoffMaxDuration", "3600s"))
    )
    return min(first * float(policy.get("backoffFactor", 2.0)) ** (n_tried - 1), most)
