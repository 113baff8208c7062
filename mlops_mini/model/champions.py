"""Which version of a model is meant to serve, which did before, and why that changed.

The highest version is not always the right one: a release may be taken back, and then its folder
stays. So each change of the champion is a line in one small file beside the versions. It's the
truth; the registry's alias follows it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mlops_mini import files
from mlops_mini.errors import DataIntegrityError, FailedPreconditionError, NotFoundError
from mlops_mini.model.publish import Publication, published_versions

logger = logging.getLogger(__name__)

Kind = Literal["published", "approved", "rolled back", "reconciled"]

# Model servers ignore names that are not numbers.
_FILE, _LOCK, _CONFIG = ".champions.json", ".champions.lock", ".champion.config"
_SERVED = """\
model_config_list {{
  config {{
    name: {name}
    base_path: {base_path}
    model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: {version} }} }}
  }}
}}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """A change of the champion.

    Attributes:
        at: When, ISO 8601, UTC.
        version: The champion from then on.
        before: The champion until then; None for the first one.
        kind: `published` by a run whose candidate was blessed, `approved` by a person, `rolled
            back` to an earlier version, or `reconciled` because its folder is gone.
        run_id: The run that published `version`.
        by: The person who did it, empty if it was the pipeline.
        reason: Why, in the words of whoever did it.
    """

    at: str
    version: int
    before: int | None
    kind: Kind
    run_id: str = ""
    by: str = ""
    reason: str = ""


def now() -> datetime:
    """Tell the time, in UTC."""
    return datetime.now(UTC)


def moves(model_folder: Path) -> list[Move]:
    """Read all changes of a model's champion, oldest first.

    Args:
        model_folder: Folder of the model's versions; it need not exist yet.

    Raises:
        DataIntegrityError: The file holds something else.
    """
    try:
        lines = json.loads((model_folder / _FILE).read_bytes())
        return [Move(**fields) for fields in lines]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as exc:
        raise DataIntegrityError(
            f"{model_folder / _FILE} does not tell which version is the champion ({exc!r}): remove"
            " it, and `mlops-mini reconcile` makes the newest blessed version the champion"
        ) from exc


def champion(model_folder: Path) -> int | None:
    """Tell the version that is meant to serve, None if none ever was."""
    return next((move.version for move in reversed(moves(model_folder))), None)


def aliases(model_folder: Path) -> dict[str, int]:
    """Tell which version is the `champion` and which the `challenger`, where there is one.

    The challenger is the newest version that was published as one and has never been the champion.
    """
    known = moves(model_folder)
    were = {version for move in known for version in (move.version, move.before)}
    named = {"champion": known[-1].version} if known else {}
    for each in reversed(published_versions(model_folder)):
        publication = Publication.read(each.path)
        if publication and publication.alias == "challenger" and each.version not in were:
            return {**named, "challenger": each.version}
    return named


def versions_by_run(model_folder: Path) -> dict[str, int]:
    """Tell which version each run has published; of those whose folder is gone too, if known."""
    named = {move.run_id: move.version for move in moves(model_folder) if move.run_id}
    present = {
        publication.run_id: each.version
        for each in published_versions(model_folder)
        if (publication := Publication.read(each.path))
    }
    return named | present


def taken_back(model_folder: Path) -> set[int]:
    """Tell which versions were the champion and were rolled back: none is to come again."""
    return {
        move.before
        for move in moves(model_folder)
        if move.kind == "rolled back" and move.before is not None
    }


def promote(
    model_folder: Path, version: int, *, clock: Callable[[], datetime] = now
) -> Move | None:
    """Make a published version the champion, unless it has been before.

    Args:
        model_folder: Folder of the model's versions.
        version: One that tells where it comes from.
        clock: Says the time, with its zone.

    Returns:
        The change; None if the version was the champion before, be it that it still is, that a
        later one has replaced it, or that it was rolled back.

    Raises:
        NotFoundError: There's no such version, or it doesn't tell where it comes from.
    """
    published = _publication(model_folder, version)
    if published is None:
        raise NotFoundError(
            f"version {version} in {model_folder} is not there, or doesn't tell where it comes"
            " from: publish it by a pipeline's run"
        )
    with _owned(model_folder):
        if any(version in {move.version, move.before} for move in moves(model_folder)):
            return None
        return _append(
            model_folder,
            Move(
                at=clock().isoformat(timespec="milliseconds"),
                version=version,
                before=champion(model_folder),
                kind="approved" if published.approved_by else "published",
                run_id=published.run_id,
                by=published.approved_by,
            ),
        )


def roll_back(
    model_folder: Path,
    version: int,
    *,
    by: str = "",
    reason: str = "",
    clock: Callable[[], datetime] = now,
) -> Move:
    """Take the champion back: the one before it serves again, and its folder stays.

    Doing it again changes nothing, for it's said which version is taken back.

    Args:
        model_folder: Folder of the model's versions.
        version: The champion that's taken back.
        by: Who does it.
        reason: Why.
        clock: Says the time, with its zone.

    Returns:
        The change; if the version was taken back before, that change.

    Raises:
        FailedPreconditionError: The version isn't the champion, or nothing is left to go back to.
    """
    with _owned(model_folder):
        known = moves(model_folder)
        for move in known:
            if move.kind == "rolled back" and move.before == version:
                return move
        current = champion(model_folder)
        if current != version:
            raise FailedPreconditionError(
                f"version {version} in {model_folder} is not the champion, which is"
                f" {current or 'none yet'}: only the champion can be rolled back"
            )
        earlier = [move.version for move in known]
        target = _newest(model_folder, earlier, without=taken_back(model_folder) | {version})
        if target is None:
            raise FailedPreconditionError(
                f"no version before {version} is left in {model_folder} to go back to: publish"
                " another one"
            )
        published = _publication(model_folder, target)
        return _append(
            model_folder,
            Move(
                at=clock().isoformat(timespec="milliseconds"),
                version=target,
                before=version,
                kind="rolled back",
                run_id=published.run_id if published else "",
                by=by,
                reason=reason,
            ),
        )


def reconcile(model_folder: Path, *, clock: Callable[[], datetime] = now) -> list[Move]:
    """Mend what a publisher that was killed, or somebody who deleted a folder, has left.

    A version that was published by a run and never became the champion becomes it now, if it's
    newer than all that did. If the champion's folder is gone, the newest blessed version that's
    there, and was not rolled back, takes its place.

    Args:
        model_folder: Folder of the model's versions; it need not exist yet.
        clock: Says the time, with its zone.

    Returns:
        What has changed; nothing when it's called again.
    """
    were = [each for move in moves(model_folder) for each in (move.version, move.before or 0)]
    late: list[Move] = []
    for each in published_versions(model_folder):
        published = Publication.read(each.path)
        if published and published.alias == "champion" and each.version > max(were, default=-1):
            late += filter(None, [promote(model_folder, each.version, clock=clock)])
    current = champion(model_folder)
    if current is None or _publication(model_folder, current):
        return late
    with _owned(model_folder):
        present = [each.version for each in published_versions(model_folder)]
        target = _newest(model_folder, present, without=taken_back(model_folder))
        published = _publication(model_folder, target) if target is not None else None
        if target is None or published is None:
            logger.warning("no version is left to be the champion: folder=%s", model_folder)
            return late
        instead = Move(
            at=clock().isoformat(timespec="milliseconds"),
            version=target,
            before=current,
            kind="reconciled",
            run_id=published.run_id,
            reason=f"the folder of version {current} is gone",
        )
        return [*late, _append(model_folder, instead)]


def serving_config(model_folder: Path) -> Path | None:
    """Write the file by which a model server serves the champion and no other version.

    It's what `--model_config_file` takes, here and in TensorFlow Serving, and it's written anew
    with each change of the champion: a server that looks at it again and again follows.

    Args:
        model_folder: Folder of the model's versions; its name is the model's.

    Returns:
        The file; None if there is no champion yet.
    """
    version = champion(model_folder)
    if version is None:
        return None
    folder = model_folder.resolve()
    file, words = folder / _CONFIG, {"name": folder.name, "base_path": str(folder)}
    text = _SERVED.format(version=version, **{key: json.dumps(word) for key, word in words.items()})
    if not file.is_file() or file.read_text() != text:  # a folder may be read-only to servers
        with files.whole_file(file) as unfinished:
            unfinished.write_text(text)
    return file


def _newest(model_folder: Path, versions: list[int], *, without: set[int]) -> int | None:
    """Find the last of some versions that is there and tells where it comes from."""
    for version in reversed(versions):
        if version not in without and _publication(model_folder, version):
            return version
    return None


def _publication(model_folder: Path, version: int) -> Publication | None:
    for each in published_versions(model_folder):
        if each.version == version:
            return Publication.read(each.path)
    return None


def _append(model_folder: Path, move: Move) -> Move:
    lines = [asdict(each) for each in [*moves(model_folder), move]]
    with files.whole_file(model_folder / _FILE) as unfinished:
        unfinished.write_text(json.dumps(lines, indent=2) + "\n")
    serving_config(model_folder)
    logger.info("champion: version=%d before=%s kind=%s", move.version, move.before, move.kind)
    return move


@contextmanager
def _owned(model_folder: Path) -> Iterator[None]:
    """Hold the right to change the champion; others wait."""
    with files.locked(model_folder / _LOCK):
        yield
