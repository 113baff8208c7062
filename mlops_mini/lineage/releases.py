"""Note in a version's lineage what has become of its release.

A release knows only addresses, and a lineage only folders. So whoever starts a release may say
which version of a workspace its canary is, and the record of the run that published it is told
when the release begins and each time that it's left.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from mlops_mini import files
from mlops_mini.errors import NotFoundError
from mlops_mini.lineage import lineage
from mlops_mini.rollout import release

_OF = "of_version.json"


def check(workspace: Path, version: int, *, model: str) -> str:
    """Find the run whose record will be told.

    Args:
        workspace: Folder of models, verdicts and runs.
        version: The canary's number there.
        model: Name of the model.

    Returns:
        The run's id.

    Raises:
        NotFoundError: There's no such version, or no record of the run that published it.
    """
    run = lineage.of_version(workspace, version, model=model).run
    if run is None:
        raise NotFoundError(
            f"no run of version {version} of {model} is on record in {workspace}, so its release"
            " can't be noted there: name another workspace"
        )
    return run.id


def begin(folder: Path, workspace: Path, version: int) -> None:
    """Remember whose release a folder holds, and note that it has begun.

    Args:
        folder: The release's folder, where `release.start` has written one.
        workspace: Folder of models, verdicts and runs.
        version: The canary's number there.

    Raises:
        NotFoundError: As `check` raises it.
    """
    run_id = check(workspace, version, model=release.read(folder).model)
    with files.whole_file(folder / _OF) as unfinished:
        unfinished.write_text(json.dumps({"workspace": str(workspace.resolve()), "run": run_id}))
    note(folder)


def forget(folder: Path) -> None:
    """Forget whose release a folder has held, before another one is started in it."""
    (folder / _OF).unlink(missing_ok=True)


def note(folder: Path) -> None:
    """Note where a release is, and why, if somebody has said whose it is.

    Raises:
        NotFoundError: The run's record is gone.
    """
    try:
        of = json.loads((folder / _OF).read_text())
    except FileNotFoundError:
        return
    made = release.read(folder)
    said = {
        "as": made.canary.name,
        "beside": made.stable.name,
        "phase": str(made.state.phase),
        "reason": made.state.reason,
    }
    with lineage.records_of(Path(of["workspace"])) as records:
        records.save_run(replace(records.run(of["run"]), release=said))
