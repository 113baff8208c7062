"""Run a Kubeflow pipeline on this machine, as strictly as production needs it.

What is here is the life of a run: begin, resume, cancel, end. `graph` decides what runs when,
`tasks` how one task comes to its result, `attempts` executes it.
"""

import asyncio
import logging
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from mlops_mini import containers, files
from mlops_mini.errors import (
    AbortedError,
    AlreadyExistsError,
    FailedPreconditionError,
    InternalError,
)
from mlops_mini.runner import arguments as given_arguments
from mlops_mini.runner import (
    digests,
    environments,
    layout,
    python_functions,
    spec,
    write_errors,
)
from mlops_mini.runner.fork_server import ForkServer
from mlops_mini.runner.graph import Graph
from mlops_mini.runner.records import Records, RunRecord, TaskRecord
from mlops_mini.runner.tasks import Mode, Outcome, TaskRunner, Values

logger = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


def _n_cpus() -> int:
    """Count the cores that this process may use, which a container or `taskset` may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Runner:
    """Runs pipelines under one root folder; closing it ends the processes that it keeps warm.

    >>> import tempfile
    >>> from kfp import dsl
    >>> @dsl.component(base_image="python:3.11", install_kfp_package=False)
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> @dsl.pipeline(name="twice")
    ... def twice(x: int = 1):
    ...     double(x=double(x=x).output)
    >>> with Runner(Path(tempfile.mkdtemp())) as runner:
    ...     first, second = (runner.run(twice, {"x": 5}) for _ in range(2))
    >>> first.tasks["double-2"].outputs["parameters"], second.tasks["double-2"].state
    ({'Output': 20}, 'CACHED')
    """

    def __init__(
        self,
        root: Path,
        *,
        n_workers: int | None = None,
        mode: Mode = "fork",
        on_task: Callable[[TaskRecord], None] = lambda _task: None,
        environments_root: Path | None = None,
        volumes: Mapping[str, containers.Access] | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        """Open a root; no process starts yet.

        Args:
            root: Receives `runs.sqlite` and a folder per run; made if it is not there. Several
                runners, of several processes, may share it.
            n_workers: Most tasks at the same time; as many as cores that this process may
                use if None.
            mode: `fork` runs each task in a process of its own, forked from one that has imported
                what the task needs; `inline` in this process, one at a time, for a debugger;
                `docker` in a container of its own, of the image that the component names.
            on_task: Told of each change of a task, in another thread than the caller's.
            environments_root: See `environments.default_root`.
            volumes: Parameters of components that name a folder, and whether containers may read
                or also write it. They see nothing else of this machine but their own files.
            clock: Says the time, with its zone.

        Raises:
            PermissionDeniedError: The root cannot be written; other reasons have other errors.
            DataIntegrityError: `runs.sqlite` holds something else.
        """
        self.root = root.resolve()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._records = Records(self.root / layout.RUNS, clock=clock)
        except (OSError, sqlite3.DatabaseError) as exc:
            raise write_errors.explained(exc, what="a runner", root=self.root) from exc
        self._forks = ForkServer(self.root / layout.FORK_SERVER_LOG)
        self._n_workers = n_workers or _n_cpus()
        self._mode = mode
        self._on_task = on_task
        self._environments_root = environments_root or environments.default_root()
        self._volumes = volumes or {}

    def warm_up(self) -> None:
        """Begin to import what tasks mostly need, TensorFlow among it, for those that will come."""
        self._forks.warm_up()

    def run(
        self,
        package: Path | Any,
        arguments: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        trigger: Mapping[str, Any] | None = None,
    ) -> RunRecord:
        """Run a pipeline to its end.

        Args:
            package: See `spec.load`.
            arguments: Values of its parameters, see `arguments.bind`; those with defaults may be
                left out.
            run_id: Names the run, and its folder; made from the pipeline and the time if None.
            trigger: Why it runs: `kind`, `key` and `reason`, for the record.

        Returns:
            The run, which has succeeded.

        Raises:
            InvalidArgumentError: The pipeline or an argument is not what it should be; nothing ran.
            AlreadyExistsError: There is such a run, or another process works at it.
            AbortedError: The run has failed or was canceled; the message says where and what now.
            ResourceExhaustedError: The disk is full; other reasons have other errors.
        """
        loaded = spec.load(package)
        definitions = loaded.root.get("inputDefinitions", {}).get("parameters", {})
        bound = given_arguments.bind(definitions, arguments or {}, what=f"pipeline {loaded.name!r}")
        now = self._records.now()
        # Sorts by time, and two of one second differ.
        made = f"{loaded.name[:90]}-{now[:19].replace(':', '')}-{secrets.token_hex(2)}"
        run_id = run_id or made
        layout.check_run_id(run_id)
        run = RunRecord(
            id=run_id,
            pipeline=loaded.name,
            spec_digest=loaded.digest,
            arguments=bound,
            state="RUNNING",
            started_at=now,
            trigger=dict(trigger or {}),
        )
        return self._work(run, loaded, is_new=True)

    def resume(self, run_id: str, package: Path | Any) -> RunRecord:
        """Go on with a run that was killed, canceled, or has failed, under the same id.

        Tasks that have succeeded are kept, if their artifacts are as they were made and nothing
        that they depend on has changed; all others run.

        Args:
            run_id: The run.
            package: The pipeline, which must be the one that it was begun with.

        Returns:
            The run, which has succeeded; one that had succeeded before is returned as it is.

        Raises:
            NotFoundError: There is no such run.
            FailedPreconditionError: The pipeline has changed.
            AlreadyExistsError: Another process works at it.
            AbortedError: It has failed again, or was canceled.
        """
        run = self.show(run_id)
        loaded = spec.load(package)
        if loaded.digest != run.spec_digest:
            raise FailedPreconditionError(
                f"the pipeline {loaded.name!r} is not the one that run {run_id!r} began with: "
                "start a new run, which takes from the cache what is still right"
            )
        return self._work(run, loaded, is_new=False)

    def runs(self) -> list[RunRecord]:
        """List all runs under this root, newest first, without their tasks.

        Returns:
            Those that say RUNNING, and at which no process works any more, as INTERRUPTED.
        """
        return [self._as_it_is(run) for run in self._records.runs()]

    def show(self, run_id: str) -> RunRecord:
        """Read one run with its tasks, INTERRUPTED like those of `runs`.

        Raises:
            NotFoundError: There is no such run.
        """
        return self._as_it_is(self._records.run(run_id))

    def close(self) -> None:
        """End the processes that are kept warm."""
        self._forks.close()
        self._records.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _as_it_is(self, run: RunRecord) -> RunRecord:
        """Show as INTERRUPTED a run that is recorded as RUNNING and at which no process works."""
        lock = self.root / run.id / layout.RUN_LOCK
        if run.state != "RUNNING" or files.is_locked(lock):
            return run
        # It may have ended just now.
        newest = self._records.run(run.id)
        if newest.state != "RUNNING":
            return newest if run.tasks else replace(newest, tasks={})
        return replace(
            run,
            state="INTERRUPTED",
            reason=f"its process ended before the run; --resume {run.id} goes on with it",
            tasks={
                path: replace(task, state="INTERRUPTED") if task.state == "RUNNING" else task
                for path, task in run.tasks.items()
            },
        )

    def _work(self, run: RunRecord, package: spec.Package, *, is_new: bool) -> RunRecord:
        try:
            with self._own(run.id) as folder:
                # Looked up once nobody else works at it.
                if not is_new:
                    run = self.show(run.id)
                    if run.state == "SUCCEEDED":
                        return run
                    run = replace(run, state="RUNNING", reason="", ended_at=None)
                elif self._records.has_run(run.id):
                    raise AlreadyExistsError(
                        f"there is a run {run.id!r}: resume it, or name another"
                    )
                run = self._with_surroundings(run, package)
                self._records.save_run(run)
                outcome = self._walk(run, package, folder)
                state = "SUCCEEDED" if outcome.state in {"SUCCEEDED", "CACHED"} else outcome.state
                run = replace(run, state=state, reason=outcome.error, ended_at=self._records.now())
                self._records.save_run(run)
        except (OSError, sqlite3.DatabaseError) as exc:
            raise write_errors.explained(
                exc, what=f"run {run.id!r}", root=self.root, then="resume it"
            ) from exc
        ended = self.show(run.id)
        if state != "SUCCEEDED":
            what = "failed" if state == "FAILED" else "was canceled"
            logs = [
                str(task.log_file)
                for task in ended.tasks.values()
                if task.state == "FAILED" and task.folder and task.log_file.exists()
            ]
            raise AbortedError(
                f"run {run.id!r} {what}{': ' + run.reason if run.reason else ''}"
                f"{' (log: ' + ', '.join(logs) + ')' if logs else ''}; mend it and resume the run"
                " under this id, or start a new one: what has succeeded is kept"
            )
        return ended

    def _with_surroundings(self, run: RunRecord, package: spec.Package) -> RunRecord:
        """Note the code and the packages that a run works with, from now on."""
        sources = [
            python_functions.source_of(container)
            for container in package.containers
            if python_functions.is_python(container)
        ]
        # Each with its own imports, for one that does not parse must not hide the others'.
        modules = {
            name: digest
            for source in sources
            for name, digest in digests.reach(source).modules.items()
        }
        environment = dict(digests.installed())
        if self._mode == "docker":
            images = map(environments.image_of, package.containers)
            environment = {image.name: image.digest for image in images}
        code_digest = digests.key_of(modules)
        self._records.save_snapshot(code_digest, modules)
        self._records.save_snapshot(digests.key_of(environment), environment)
        return replace(
            run,
            code_digest=code_digest,
            environment_digest=digests.key_of(environment),
            git_commit=digests.git_commit(),
        )

    def _walk(self, run: RunRecord, package: spec.Package, folder: Path) -> Outcome:
        """Walk the pipeline in a thread with an event loop of its own; a Ctrl-C cancels it."""
        ready: Future[tuple[asyncio.AbstractEventLoop, TaskRunner]] = Future()

        async def walk() -> Outcome:
            tasks = TaskRunner(
                run,
                folder=folder,
                records=self._records,
                forks=self._forks,
                mode=self._mode,
                n_workers=self._n_workers,
                environments_root=self._environments_root,
                volumes=self._volumes,
                on_task=self._on_task,
            )
            ready.set_result((asyncio.get_running_loop(), tasks))
            job = {
                "pipeline_job_uuid": run.id,
                "pipeline_job_name": run.id,
                "pipeline_job_resource_name": run.id,
                "pipeline_job_create_time_utc": run.started_at,
                "pipeline_job_schedule_time_utc": run.started_at,
                "pipeline_root": str(folder),
            }
            graph = Graph(package, tasks, job=job)
            return await graph.run(package.root, Values(parameters=run.arguments), path="")

        with ThreadPoolExecutor(1, thread_name_prefix=f"run {run.id}") as pool:
            ended = pool.submit(lambda: asyncio.run(walk()))
            either: list[Future[Any]] = [ready, ended]
            n_interrupts = 0
            while not ended.done():
                try:
                    wait([ended])
                except KeyboardInterrupt:
                    n_interrupts += 1
                    logger.warning("canceling run %s", run.id)
                    wait(either, return_when=FIRST_COMPLETED)
                    if ready.done():
                        loop, tasks = ready.result()
                        # The second one does not even wait for exit tasks.
                        event = tasks.cancel if n_interrupts == 1 else tasks.abort
                        with suppress(RuntimeError):  # The loop has just ended.
                            loop.call_soon_threadsafe(event.set)
        fault = ended.exception()
        if fault is None:
            return ended.result()
        if isinstance(fault, (OSError, sqlite3.DatabaseError)):
            raise fault
        raise InternalError(f"run {run.id!r} ended by our own fault: {fault!r}") from fault

    @contextmanager
    def _own(self, run_id: str) -> Iterator[Path]:
        """Make a run's folder and hold it, so that two processes never work at one run."""
        folder = self.root / run_id
        folder.mkdir(exist_ok=True)
        taken = f"another process works at run {run_id!r}: wait for it, or start another run"
        with files.locked(folder / layout.RUN_LOCK, if_taken=taken):
            yield folder
