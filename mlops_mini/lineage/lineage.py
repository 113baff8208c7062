"""Tell where a version of a model comes from, and what became of it.

All of it is read from files that are there anyway: the version's folder, the record of champions
beside it, the runner's records and what the run's tasks have written. Nothing heavy is imported, so
that the question can be asked at any time, and whatever is missing or was edited is said.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mlops_mini.errors import (
    DataIntegrityError,
    InvalidArgumentError,
    MlopsMiniError,
    NotFoundError,
)
from mlops_mini.model import champions, publish
from mlops_mini.model.champions import Move
from mlops_mini.model.publish import Publication, published_versions
from mlops_mini.runner import artifacts, layout
from mlops_mini.runner.records import Records, RunRecord, TaskRecord

JsonObject = dict[str, Any]

_DONE = ("SUCCEEDED", "CACHED")
# Arguments that say where something lies, or that are told as data, code and parents.
_NOT_PARAMETERS = {
    "baseline", "baseline_digest", "data_digest", "data_folder", "models_folder", "registry",
    "test_period", "train_periods", "use_case_digest", "verdicts_folder", "warm_start",
    "warm_start_digest",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """A month or week of a table, as it arrived.

    Attributes:
        table: Name of the table.
        period: Such as 2013-03; `all` for settings, which are no table.
        role: `trained on`; `judged on`, though a blessed model has learned from it in the end;
            `looked back at` by features of the first rows; or, of settings, `trained with`.
        n_rows: Rows that arrived.
        n_quarantined: Those of them that were set aside.
        digest: Of their contents, however they were stored.
    """

    table: str
    period: str
    role: str
    n_rows: int
    n_quarantined: int
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """An earlier version that a run was given.

    Attributes:
        role: `baseline`, which the candidate was compared with, or `warm start`, from which its
            training went on.
        version: Its number; None if its folder is not named by one.
        folder: Where it is, or was.
        digest: What it answers.
        run_id: The run that published it, empty if that can't be told any more.
    """

    role: str
    version: int | None
    folder: str
    digest: str
    run_id: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """A time during which a version was the champion.

    Attributes:
        since: ISO 8601, UTC.
        until: The same; None if it still is.
        before: The champion before it, None if there was none.
        after: The champion after it, None if there is none yet.
        kind: How it came, as `champions.Move.kind`.
        by: The person who did it, empty if it was the pipeline.
        ended: How it ended; empty if it hasn't.
    """

    since: str
    until: str | None
    before: int | None
    after: int | None
    kind: str
    by: str = ""
    ended: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """Where a version, or the candidate of a run, comes from.

    Attributes:
        model: Name of the model.
        version: Number of the version; None if the run has published none.
        folder: The version's folder, there or not.
        publication: What the folder tells; None if it's gone or tells nothing.
        run: The pipeline's run, None if there's no record of it.
        partitions: The data, in the order in which it was read.
        modules: The digest of each module within reach of the run's components, by name.
        environment: `python` and `packages` that the run worked with.
        parents: Its baseline, and the version that its training went on from.
        verdict: `decision`, `reason`, `rules` (a list of objects) and `thresholds_digest`.
        metrics: AUC, log loss and so on by model: `candidate`, `baseline`, `challenger`.
        services: When it was the champion, oldest first.
        problems: What is missing or was edited, a sentence each.
    """

    model: str
    version: int | None
    folder: Path | None = None
    publication: Publication | None = None
    run: RunRecord | None = None
    partitions: tuple[Partition, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    parents: tuple[Parent, ...] = ()
    verdict: JsonObject = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    services: tuple[Service, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Such as `churn 3`, or the run's id if it has published no version."""
        if self.version is not None:
            return f"{self.model} {self.version}"
        return self.run.id if self.run else self.model

    @property
    def parameters(self) -> JsonObject:
        """The run's arguments, but for data, code, parents and places."""
        given = self.run.arguments if self.run else {}
        return {name: value for name, value in given.items() if name not in _NOT_PARAMETERS}

    def quarantined(self, table: str = "") -> list[dict[str, str]]:
        """Read which rows of the data were set aside.

        Args:
            table: Only those of this table; of all if empty.

        Returns:
            For each rule that a row breaks its `period`, `table`, `row` (from 0), `column`, `rule`
            and `value`.

        Raises:
            NotFoundError: The run's files are gone.
        """
        file = self.artifact("quarantined")
        with file.open(newline="") as lines:
            return [row for row in csv.DictReader(lines) if not table or row["table"] == table]

    def artifact(self, name: str) -> Path:
        """Find a file or folder that one of the run's tasks has written.

        Raises:
            NotFoundError: No task has written one of that name, or it's gone.
        """
        path = _artifact(self.run, name) if self.run else None
        if path is None or not path.exists():
            there = sorted(name for name, _ in artifacts_of(self.run)) if self.run else []
            raise NotFoundError(
                f"no {name} of {self.name} is left{f' at {path}' if path else ''}; its run has"
                f" written {there or 'nothing'}: run it again"
            )
        return path


def model_of(workspace: Path, model: str = "") -> str:
    """Find the model of a workspace.

    Args:
        workspace: Folder of models, verdicts and runs.
        model: Its name; the only one if empty.

    Raises:
        NotFoundError: There's none, or none of that name.
        InvalidArgumentError: There are several, and none is named.
    """
    folder = workspace / "models"
    there = (
        sorted(path.name for path in folder.iterdir() if _is_model(path)) if folder.is_dir() else []
    )
    if model in there:
        return model
    if model or not there:
        raise NotFoundError(
            f"no model {model or 'at all'} in {folder}; there are {there or 'none'}: name a"
            " workspace by --workspace, and a model there by --model"
        )
    if len(there) > 1:
        raise InvalidArgumentError(
            f"there are several models in {folder}, {there}: name one by --model"
        )
    return there[0]


def of_version(workspace: Path, version: int, *, model: str = "") -> Lineage:
    """Tell where a version comes from.

    Args:
        workspace: Folder of models, verdicts and runs.
        version: The version's number. It may be deleted by now.
        model: Name of the model; the only one in the workspace if empty.

    Raises:
        NotFoundError: There never was such a version, as far as the workspace tells.
    """
    name = model_of(workspace, model)
    models = workspace / "models" / name
    folder = next(
        (each.path for each in reversed(published_versions(models)) if each.version == version),
        None,
    )
    problems: list[str] = []
    publication, run_id = None, ""
    with _noted(problems):
        run_id = _recorded_run(workspace, name, version)
    if folder is None:
        if not run_id:
            there = [each.version for each in published_versions(models)]
            raise NotFoundError(
                f"no version {version} of {name} was ever published in {workspace}; there are"
                f" {there or 'none'}"
            )
        problems.append(f"the folder of version {version} is gone from {models}")
    else:
        with _noted(problems):
            publication = Publication.read(folder)
        if publication is None and not run_id:
            problems.append(
                f"version {version} doesn't tell where it comes from: no pipeline has published it"
            )
    if publication and folder:
        with _noted(problems):
            problems += [
                f"{file} in version {version} was edited after it was published: {what}"
                for file, what in publish.changed_files(folder).items()
            ]
    return _lineage(
        workspace,
        model=name,
        version=version,
        folder=folder or models / str(version),
        publication=publication,
        run_id=publication.run_id if publication else run_id,
        problems=problems,
    )


def of_run(workspace: Path, run_id: str) -> Lineage:
    """Tell where the candidate of a run comes from, published or not.

    Raises:
        NotFoundError: There's no record of such a run.
    """
    with records_of(workspace) as records:
        run = records.run(run_id)
    models = Path(str(run.arguments.get("models_folder", "")))
    version = champions.versions_by_run(models).get(run_id)
    if version is not None:
        return of_version(workspace, version, model=models.name)
    return _lineage(workspace, model=models.name, version=None, run_id=run_id, problems=[])


def find(workspace: Path, name: str, *, model: str = "") -> Lineage:
    """Tell where a version comes from if the name is a number, else the candidate of a run."""
    if name.isascii() and name.isdigit():
        return of_version(workspace, int(name), model=model)
    return of_run(workspace, name)


def task_of(run: RunRecord, component: str) -> TaskRecord | None:
    """Find the task of a run that has executed a component, if it has succeeded."""
    done = [task for task in run.tasks.values() if task.state in _DONE]
    return next((task for task in reversed(done) if task.component == component), None)


def _lineage(
    workspace: Path,
    *,
    model: str,
    version: int | None,
    run_id: str,
    problems: list[str],
    folder: Path | None = None,
    publication: Publication | None = None,
) -> Lineage:
    models = workspace / "models" / model
    known: JsonObject = {"run": None}
    if run_id:
        with _noted(problems), records_of(workspace) as records:
            run = records.run(run_id)
            known = {
                "run": run,
                "modules": records.snapshot(run.code_digest),
                "environment": records.snapshot(run.environment_digest),
            }
    if run := known["run"]:
        problems += _broken_artifacts(run)
        readers = {
            "partitions": _partitions, "parents": _parents, "verdict": _verdict,
            "metrics": _metrics,
        }  # fmt: skip
        for what, read in readers.items():
            with _noted(problems):
                known[what] = read(run)
    with _noted(problems):
        known["services"] = _services(champions.moves(models), version)
    return Lineage(
        model=model,
        version=version,
        folder=folder,
        publication=publication,
        problems=tuple(dict.fromkeys(problems)),
        **known,
    )


@contextmanager
def records_of(workspace: Path) -> Iterator[Records]:
    """Open the records of a workspace's runs; asking makes none.

    Raises:
        NotFoundError: There are none.
    """
    file = workspace / "runs" / layout.RUNS
    if not file.is_file():
        raise NotFoundError(f"no records of runs in {file.parent}: they were deleted or moved")
    records = Records(file, clock=champions.now)
    try:
        yield records
    finally:
        records.close()


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """Note what can't be read as a problem, and go on."""
    try:
        yield
    except (MlopsMiniError, OSError) as exc:
        problems.append(str(exc))


def _is_model(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".")


def _recorded_run(workspace: Path, model: str, version: int) -> str:
    """Find the run that has published a version without asking its folder; empty if none has."""
    models = workspace / "models" / model
    for move in champions.moves(models):
        if move.version == version and move.run_id:
            return move.run_id
    for file in (workspace / "verdicts").glob("*.json"):
        said = json.loads(file.read_text())
        if said.get("version") == version:
            with records_of(workspace) as records:
                run = records.run(said["run_id"])
            if Path(str(run.arguments.get("models_folder"))).name == model:
                return run.id
    return ""


def artifacts_of(run: RunRecord) -> Iterator[tuple[str, JsonObject]]:
    """List what the tasks of a run have made, by name; two tasks may use the same name."""
    for task in run.tasks.values():
        if task.state in _DONE:
            yield from task.outputs.get("artifacts", {}).items()


def _artifact(run: RunRecord, name: str) -> Path | None:
    """Find the artifact of that name; of several the one that was made last."""
    uris = [artifact["uri"] for each, artifact in artifacts_of(run) if each == name]
    return artifacts.path_of(uris[-1]) if uris else None


def _json_of(run: RunRecord, component: str, name: str) -> Any:
    """Read a JSON artifact of a component; None if it has written none, or it's gone."""
    task = task_of(run, component)
    artifact = task.outputs["artifacts"].get(name) if task else None
    if artifact is None:
        return None
    try:
        return json.loads(artifacts.path_of(artifact["uri"]).read_bytes())
    except FileNotFoundError:
        return None  # told by `_broken_artifacts`
    except ValueError as exc:
        raise DataIntegrityError(f"{artifact['uri']} is no JSON any more ({exc})") from exc


def _broken_artifacts(run: RunRecord) -> list[str]:
    """Say which files of a run's tasks are gone, or are no longer what the tasks have written."""
    broken: dict[str, str] = {}
    for task in run.tasks.values():
        for name, artifact in task.outputs.get("artifacts", {}).items():
            if not artifacts.is_unchanged(artifact):
                path = artifacts.path_of(artifact["uri"])
                what = "was edited since" if path.exists() else "is gone"
                broken[artifact["uri"]] = f"{name}, which {task.name} has written, {what}: {path}"
    return list(broken.values())


def _partitions(run: RunRecord) -> tuple[Partition, ...]:
    roles = {"all": "trained with", run.arguments.get("test_period"): "judged on"}
    roles |= dict.fromkeys(run.arguments.get("train_periods", []), "trained on")
    return tuple(
        Partition(**each, role=roles.get(each["period"], "looked back at"))
        for each in _json_of(run, "validate", "partitions") or []
    )


def _parents(run: RunRecord) -> tuple[Parent, ...]:
    parents = []
    for role, argument in (("baseline", "baseline"), ("warm start", "warm_start")):
        if folder := run.arguments.get(argument):
            known = Publication.read(Path(folder))
            name = Path(folder).name
            parents.append(
                Parent(
                    role=role,
                    version=int(name) if name.isdigit() else None,
                    folder=folder,
                    digest=run.arguments[f"{argument}_digest"],
                    run_id=known.run_id if known else "",
                )
            )
    return tuple(parents)


def _verdict(run: RunRecord) -> JsonObject:
    """Read the gate's verdict: its file, or what the task has answered where there is none."""
    task = task_of(run, "gate")
    if task is None:
        return {}
    said = dict(task.outputs["parameters"])
    whole = _json_of(run, "gate", "verdict") or {}
    decision = said.get("decision") or ("blessed" if said.get("blessed") else "refused")
    return {"decision": decision, "reason": said.get("reason", ""), "rules": [], **whole}


def _metrics(run: RunRecord) -> dict[str, dict[str, float | None]]:
    measured = {}
    for component in ("evaluate", "score"):
        for who, report in (_json_of(run, component, "metrics") or {}).items():
            if report:
                name = "challenger" if component == "score" else who
                measured[name] = report["overall"]["all"]
    return measured


def _services(moves: list[Move], version: int | None) -> tuple[Service, ...]:
    services = []
    for move, following in zip_longest(moves, moves[1:]):
        if move.version == version:
            services.append(
                Service(
                    since=move.at,
                    until=following.at if following else None,
                    before=move.before,
                    after=following.version if following else None,
                    kind=move.kind,
                    by=move.by,
                    ended=_ended(following) if following else "",
                )
            )
    return tuple(services)


def _ended(following: Move) -> str:
    because = f": {following.reason}" if following.reason else ""
    by = f" by {following.by}" if following.by else ""
    how = {"rolled back": "rolled back", "reconciled": "lost"}.get(following.kind, "replaced")
    return f"{how}{by}{because}"
