"""The records of all runs and their tasks, in one SQLite file."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlops_mini import files
from mlops_mini.errors import NotFoundError
from mlops_mini.runner import layout

JsonObject = dict[str, Any]

_SCHEMA = """
create table if not exists run (
    id text primary key, pipeline text not null, spec_digest text not null,
    arguments text not null, state text not null, reason text not null,
    started_at text not null, ended_at text
) strict;
create table if not exists snapshot (digest text primary key, content text not null) strict;
create table if not exists task (
    run_id text not null references run, path text not null, component text not null,
    key text not null, state text not null, attempt integer not null,
    inputs text not null, outputs text not null, error text not null, cached_from text not null,
    folder text not null, started_at text not null, ended_at text,
    primary key (run_id, path)
) strict;
create index if not exists task_by_key on task (key) where state = 'SUCCEEDED';
"""
_JSON = ("arguments", "inputs", "outputs", "trigger", "release")
# Added to the table `run`, for the first workspaces have it without them.
_ADDED = {
    "code_digest": "text not null default ''",
    "environment_digest": "text not null default ''",
    "git_commit": "text not null default ''",
    "trigger": "text not null default '{}'",
    "release": "text not null default '{}'",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRecord:
    """One task of a run.

    Attributes:
        run_id: The run that it belongs to.
        path: Where in the pipeline, such as `exit-handler-1/for-loop-2[0]/train`.
        component: Name of the component.
        key: Digest of everything that its result depends on.
        state: RUNNING, SUCCEEDED, CACHED, FAILED, SKIPPED (its condition is false), NOT_TRIGGERED
            (something that it needs has failed) or CANCELLED.
        attempt: Number of the newest attempt, from 1; 0 if there was none.
        inputs: `parameters` and `artifacts` as given.
        outputs: `parameters` and `artifacts` as made; an artifact has `uri`, `type`, `metadata`,
            `digest` (what it means) and `files_digest` (what its files hold).
        error: Why it failed.
        cached_from: `run/path` of the task whose result was taken.
        folder: Holds the outputs of the newest attempt, and its log.
        started_at: ISO 8601, UTC.
        ended_at: ISO 8601, UTC; None while it runs.
    """

    run_id: str
    path: str
    component: str
    state: str
    key: str = ""
    attempt: int = 0
    inputs: JsonObject = field(default_factory=dict)
    outputs: JsonObject = field(default_factory=dict)
    error: str = ""
    cached_from: str = ""
    folder: str = ""
    started_at: str = ""
    ended_at: str | None = None

    @property
    def log_file(self) -> Path:
        """What the newest attempt has printed."""
        return Path(self.folder) / layout.LOG

    @property
    def name(self) -> str:
        """The path without exit handlers and conditions, for people to read."""
        return re.sub(r"(exit-handler|condition|condition-branches)-\d+/", "", self.path)

    @property
    def elapsed_s(self) -> float:
        """Seconds from start to end, 0 while it runs."""
        if not (self.started_at and self.ended_at):
            return 0.0
        start, end = map(datetime.fromisoformat, (self.started_at, self.ended_at))
        return (end - start).total_seconds()

    def parameter(self, name: str = "Output") -> Any:
        """Return an output that is a value; a component with one result calls it `Output`."""
        return self.outputs["parameters"][name]

    def artifact(self, name: str) -> Path:
        """Find the file or folder of an output that is an artifact."""
        return Path(self.outputs["artifacts"][name]["uri"])


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """One run of a pipeline.

    Attributes:
        id: Unique under one root.
        pipeline: Its name.
        spec_digest: Digest of the compiled pipeline.
        arguments: Parameters as they were given.
        state: RUNNING, SUCCEEDED, FAILED or CANCELLED. The record of one that was killed still says
            RUNNING; the runner tells it by its lock, and shows INTERRUPTED: it can be resumed.
        reason: The first error; empty unless it failed.
        started_at: ISO 8601, UTC.
        ended_at: ISO 8601, UTC; None while it runs.
        code_digest: Of the code within reach of its components, as it was when the run began or was
            resumed; `Records.snapshot` has the modules.
        environment_digest: Of Python and all installed packages; `Records.snapshot` has them.
        git_commit: What `git describe` says of the folder that the run began in, empty outside of a
            checkout.
        trigger: Why it began: `kind`, `key` and `reason`; empty if nobody has said.
        release: What became of the version that it published, as `mlops-mini release start
            --version` notes it; empty as long as nothing has.
        tasks: By path, in the order in which they began.
    """

    id: str
    pipeline: str
    spec_digest: str
    arguments: JsonObject
    state: str
    reason: str = ""
    started_at: str
    ended_at: str | None = None
    code_digest: str = ""
    environment_digest: str = ""
    git_commit: str = ""
    trigger: JsonObject = field(default_factory=dict)
    release: JsonObject = field(default_factory=dict)
    tasks: dict[str, TaskRecord] = field(default_factory=dict)

    @property
    def states(self) -> dict[str, str]:
        """State by the name of the task, in the order in which they began."""
        return {task.name: task.state for task in self.tasks.values()}

    def task(self, name: str) -> TaskRecord:
        """Look up a task by its name, which leaves out exit handlers and conditions.

        Raises:
            NotFoundError: The run has no such task.
        """
        by_name = {task.name: task for task in self.tasks.values()}
        if name not in by_name:
            raise NotFoundError(f"run {self.id!r} has no task {name!r}, it has {sorted(by_name)}")
        return by_name[name]


class Records:
    """The runs under one root; any number of processes may use them at once."""

    def __init__(self, file: Path, *, clock: Callable[[], datetime]) -> None:
        """Open them.

        Args:
            file: Made if it is not there.
            clock: Says the time, with its zone.
        """
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        # SQLite waits for no lock while a file changes its journal mode.
        with files.locked(file.with_suffix(".lock")), self._connect() as connection:
            connection.execute("pragma journal_mode = wal")
            connection.executescript(_SCHEMA)
            present = {row["name"] for row in connection.execute("pragma table_info(run)")}
            for column, type_ in _ADDED.items():
                if column not in present:
                    connection.execute(f"alter table run add column {column} {type_}")

    def close(self) -> None:
        """Close the file, which the next call opens again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def now(self) -> str:
        """The clock's time as it is written down."""
        return self._clock().astimezone(UTC).isoformat(timespec="milliseconds")

    def save_run(self, run: RunRecord) -> RunRecord:
        """Write a run, over an older state of it; without its tasks."""
        values = {
            column.name: getattr(run, column.name)
            for column in fields(run)
            if column.name != "tasks"
        }
        self._write("run", values)
        return run

    def save_task(self, task: TaskRecord) -> None:
        """Write a task, over an older state of it."""
        self._write("task", asdict(task))

    def run(self, run_id: str) -> RunRecord:
        """Read one run and its tasks.

        Raises:
            NotFoundError: There is no such run.
        """
        rows = self._read("select * from run where id = ?", run_id)
        if not rows:
            there = [run.id for run in self.runs()]
            raise NotFoundError(
                f"no run {run_id!r} in {self._file}; there are {', '.join(there[:10]) or 'none'}"
            )
        tasks = self._read("select * from task where run_id = ? order by rowid", run_id)
        by_path = {row["path"]: TaskRecord(**row) for row in tasks}
        return replace(RunRecord(**rows[0]), tasks=by_path)

    def has_run(self, run_id: str) -> bool:
        """Tell whether there is a run of this id."""
        return bool(self._read("select 1 from run where id = ?", run_id))

    def runs(self) -> list[RunRecord]:
        """Read all runs, newest first, without their tasks."""
        rows = self._read("select * from run order by rowid desc")
        return [RunRecord(**row) for row in rows]

    def save_snapshot(self, digest: str, content: JsonObject) -> None:
        """Keep what a digest in a run's record stands for, once for all runs."""
        with self._connect() as connection:
            row = (digest, json.dumps(content, sort_keys=True))
            connection.execute("insert or ignore into snapshot values (?, ?)", row)

    def snapshot(self, digest: str) -> JsonObject:
        """Read what was saved under a digest; empty if nothing was."""
        rows = self._read("select content from snapshot where digest = ?", digest)
        return dict(json.loads(rows[0]["content"])) if rows else {}

    def with_key(self, key: str) -> list[TaskRecord]:
        """Find finished tasks with the same key, newest first."""
        rows = self._read(
            "select * from task where key = ? and state = 'SUCCEEDED' order by ended_at desc", key
        )
        return [TaskRecord(**row) for row in rows]

    def _write(self, table: str, values: JsonObject) -> None:
        names = ", ".join(values)
        marks = ", ".join("?" * len(values))
        updates = ", ".join(f"{name} = excluded.{name}" for name in values)
        texts = [json.dumps(v) if name in _JSON else v for name, v in values.items()]
        keys = "id" if table == "run" else "run_id, path"
        with self._connect() as connection:
            connection.execute(
                f"insert into {table} ({names}) values ({marks})"  # noqa: S608 - names are our own
                f" on conflict ({keys}) do update set {updates}",
                texts,
            )

    def _read(self, query: str, *values: str) -> list[JsonObject]:
        with self._connect() as connection:
            rows = connection.execute(query, values).fetchall()
        return [
            {name: json.loads(v) if name in _JSON else v for name, v in dict(row).items()}
            for row in rows
        ]

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """Hold the one connection, in a transaction; threads take turns."""
        with self._lock:
            if self._connection is None:
                connection = sqlite3.connect(self._file, timeout=60, check_same_thread=False)
                connection.row_factory = sqlite3.Row
                # A commit outlives this process, if not a power failure, and need not wait.
                connection.execute("pragma synchronous = normal")
                # Whoever forgets to close it leaves no warning.
                weakref.finalize(self, connection.close)
                self._connection = connection
            with self._connection as connection:
                yield connection
