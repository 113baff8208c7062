"""Remove old versions, runs and what the cache keeps of them, but nothing that's needed.

Needed are the versions that serve, may serve soon or can be rolled back to. Of each version that
stays, everything that explains and reproduces it stays too: its run, the runs whose results that
has taken from the cache, and the versions that it was given. Records of runs are small, and stay.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlops_mini import files
from mlops_mini.errors import AlreadyExistsError, InvalidArgumentError
from mlops_mini.lineage import lineage
from mlops_mini.model import champions
from mlops_mini.model.publish import Publication, published_versions
from mlops_mini.runner import artifacts, layout
from mlops_mini.runner.records import RunRecord

logger = logging.getLogger(__name__)

# A server must never see half a version, so it's renamed before its files go.
_PRUNED = ".pruned-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """What was removed, or would be.

    Attributes:
        versions: Numbers of versions.
        runs: Ids of runs whose files went.
        n_bytes: What their files held.
    """

    versions: tuple[int, ...]
    runs: tuple[str, ...]
    n_bytes: int


def prune(workspace: Path, *, model: str = "", keep: int = 3, is_dry: bool = False) -> Pruned:
    """Remove versions and runs that are no longer needed.

    Args:
        workspace: Folder of models, verdicts and runs.
        model: Name of the model; the only one in the workspace if empty. Runs of other models stay.
        keep: How many of the newest versions stay in any case, at least 1; as many of the newest
            runs stay, too.
        is_dry: Whether to remove nothing, and only tell.

    Raises:
        NotFoundError: There's no such model, or no record of runs.
        InvalidArgumentError: `keep` is below 1.
        DataIntegrityError: A version doesn't tell where it comes from.
    """
    if keep < 1:
        raise InvalidArgumentError(f"keep is {keep}: at least the newest version must stay")
    name = lineage.model_of(workspace, model)
    models, root = workspace / "models" / name, workspace / "runs"
    with lineage.records_of(workspace) as records:
        every = [records.run(run.id) for run in records.runs()]
    runs = {run.id: run for run in every if _is_of(run, models)}
    versions = _versions_needed(models, runs, keep)
    needed = [
        *(run for run in every if not _is_of(run, models)),
        *list(runs.values())[:keep],  # newest first
        *(runs[run] for run in _runs_of(models, versions) if run in runs),
    ]
    kept = {run.id for run in needed} | {
        other for run in needed for other in _taken_from(run, root)
    }
    kept |= {run.id for run in runs.values() if run.state == "RUNNING"}
    folders = {
        each.path: each for each in published_versions(models) if each.version not in versions
    }
    old_runs = [run for run in runs if run not in kept and (root / run).is_dir()]
    n_bytes = sum(_size(folder) for folder in (*folders, *(root / run for run in old_runs)))
    if not is_dry:
        for folder in folders:
            _remove(folder)
        for left in models.glob(f"{_PRUNED}*"):  # by one that was killed
            shutil.rmtree(left)
        old_runs = [run for run in old_runs if _remove_run(root / run)]
    return Pruned(
        versions=tuple(each.version for each in folders.values()),
        runs=tuple(old_runs),
        n_bytes=n_bytes,
    )


def _versions_needed(models: Path, runs: dict[str, RunRecord], keep: int) -> set[int]:
    present = published_versions(models)
    serving = {*champions.aliases(models).values(), *(each.version for each in present[-keep:])}
    back = champions.taken_back(models)
    earlier = [
        move.version
        for move in champions.moves(models)
        if move.version not in serving | back and any(v.version == move.version for v in present)
    ]
    serving |= set(earlier[-1:])  # what a rollback would bring
    # Those that no pipeline has published explain nothing, but somebody has put them there.
    serving |= {each.version for each in present if Publication.read(each.path) is None}
    given = {
        Path(folder)
        for run in _runs_of(models, serving)
        if run in runs
        for folder in (runs[run].arguments.get(name) for name in ("baseline", "warm_start"))
        if folder
    }
    return serving | {each.version for each in present if each.path.resolve() in given}


def _runs_of(models: Path, versions: set[int]) -> Iterator[str]:
    for each in published_versions(models):
        publication = Publication.read(each.path)
        if each.version in versions and publication:
            yield publication.run_id


def _taken_from(run: RunRecord, root: Path) -> Iterator[str]:
    """Tell the runs in whose folders the results of a run lie."""
    for _, artifact in lineage.artifacts_of(run):
        path = artifacts.path_of(artifact["uri"])
        if path.is_relative_to(root.resolve()):
            yield path.relative_to(root.resolve()).parts[0]


def _is_of(run: RunRecord, models: Path) -> bool:
    return Path(str(run.arguments.get("models_folder", ""))) == models.resolve()


def _remove(version_folder: Path) -> None:
    pruned = version_folder.with_name(f"{_PRUNED}{version_folder.name}")
    version_folder.rename(pruned)
    shutil.rmtree(pruned)
    logger.info("pruned: folder=%s", version_folder)


def _remove_run(folder: Path) -> bool:
    """Remove the files of a run, unless a process works at it."""
    try:
        with files.locked(folder / layout.RUN_LOCK, if_taken="a process works at it"):
            shutil.rmtree(folder)
    except AlreadyExistsError:
        return False
    logger.info("pruned: folder=%s", folder)
    return True


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
