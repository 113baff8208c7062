"""Where data and runs are, and who may empty a folder there.

The variables MLOPS_MINI_DATA and MLOPS_MINI_HOME say where. Without them it is `data/` and `runs/`
of the nearest folder, from the current one upward, that has the data as `tools.rebuild_data` writes
it (so notebooks find those of their checkout), else of the current folder. Where the package itself
is installed plays no part.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mlops_mini import files
from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError

DATA, HOME = "MLOPS_MINI_DATA", "MLOPS_MINI_HOME"

_REBUILT = ("checksums.txt", "contents.json")  # side by side only in a data folder of ours


def data_folder() -> Path:
    """Tell the folder of the data, there or not.

    Raises:
        InvalidArgumentError: MLOPS_MINI_DATA is a relative path.
    """
    return _named_by(DATA) or _top() / "data"


def existing_data_folder(folder: Path | str | None = None) -> Path:
    """Find the folder with the data, and make sure that it's there.

    Args:
        folder: The folder itself; without it `data_folder()`.

    Raises:
        NotFoundError: It isn't there.
    """
    path = Path(folder) if folder else data_folder()
    if not path.is_dir():
        raise NotFoundError(
            f"no data folder {path}: name one by --data (folder=) or MLOPS_MINI_DATA, such as data/"
            " in a checkout of mlops_mini, or work below such a checkout"
        )
    return path


def runs_folder() -> Path:
    """Tell the folder that loops, pipelines and notebooks work below, there or not.

    Raises:
        InvalidArgumentError: MLOPS_MINI_HOME is a relative path.
    """
    return _named_by(HOME) or _top() / "runs"


def _named_by(variable: str) -> Path | None:
    chosen = os.environ.get(variable)
    if not chosen:
        return None
    if not Path(chosen).is_absolute():
        raise InvalidArgumentError(
            f"{variable} is {chosen!r}, which is another folder for each working directory:"
            " give an absolute path"
        )
    return Path(chosen)


def _top() -> Path:
    here = _current()
    for folder in (here, *here.parents):
        if all((folder / "data" / name).is_file() for name in _REBUILT):
            return folder
    return here


def _current() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as exc:
        raise NotFoundError("the current folder is gone: change to one that is there") from exc


@contextmanager
def emptied(
    folder: Path, *, mark: str, owner: str, way_out: str, needed: Iterable[Path] = ()
) -> Iterator[Path]:
    """Empty a folder if it is ours, and hold it so that no other process empties it meanwhile.

    Ours is a folder that is not there, that is empty, or that has the mark: a file which this
    function leaves in it, and which is also the lock. Nothing is changed in or beside any other.
    Links in the folder are removed, and what they lead to stays.

    Args:
        folder: The folder, made if it is not there.
        mark: Name of the mark, another for each kind of owner.
        owner: What messages call those whose mark it is, such as "a loop".
        way_out: What messages say to do about a folder that is not ours.
        needed: Paths that must stay: a folder that holds one of them is refused, mark or not.

    Yields:
        The folder, absolute, empty but for its mark.

    Raises:
        FailedPreconditionError: The folder is not ours, is no folder or a link to one, or cannot be
            written; or it is or holds the home, the current folder, this package or what is needed.
        AlreadyExistsError: Another process holds it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     folder, words = Path(name, "runs"), {"owner": "a loop", "way_out": "name another"}
    ...     with emptied(folder, mark=".loop", **words) as own:
    ...         _ = (own / "result").write_text("old")
    ...     with emptied(folder, mark=".loop", **words) as own:
    ...         print([path.name for path in own.iterdir()])
    ['.loop']
    """
    if folder.is_symlink():
        raise FailedPreconditionError(
            f"{folder} is a link, and what it leads to would be emptied: {way_out}"
        )
    with ExitStack() as stack:
        try:
            folder = folder.resolve()
            _check_keeps(folder, needed, way_out)
            is_ours = _is_file(folder / mark)
            _check_ours(folder, mark, is_ours=is_ours, owner=owner, way_out=way_out)
            folder.mkdir(parents=True, exist_ok=True)
            taken = f"another process works in {folder}, as {owner}: wait for its end, or {way_out}"
            stack.enter_context(files.locked(folder / mark, if_taken=taken))
            others = [path for path in folder.iterdir() if path.name != mark]
            if others and not is_ours:  # somebody was quicker than we
                (folder / mark).unlink()
                _check_ours(folder, mark, is_ours=False, owner=owner, way_out=way_out)
            for entry in others:
                _remove(entry)
        except OSError as exc:
            raise FailedPreconditionError(f"{folder} cannot be emptied ({exc}): {way_out}") from exc
        yield folder


def _check_keeps(folder: Path, needed: Iterable[Path], way_out: str) -> None:
    """Refuse a folder with which more would go than a workspace, whatever its mark says."""
    kept = {_current(): "the current folder", Path(__file__).parent: "this package"}
    kept |= {path.resolve(): "what is needed," for path in needed}
    if home := os.environ.get("HOME"):
        kept[Path(home).resolve()] = "the home folder"
    for path, what in kept.items():
        if path.is_relative_to(folder):
            holds = "is" if path == folder else "holds"
            raise FailedPreconditionError(f"{folder} {holds} {what} {path}: {way_out}")


def _check_ours(folder: Path, mark: str, *, is_ours: bool, owner: str, way_out: str) -> None:
    if folder.exists() and not folder.is_dir():
        raise FailedPreconditionError(f"{folder} is a file, not a folder: {way_out}")
    there = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if there and not is_ours:
        raise FailedPreconditionError(
            f"{folder} has no {mark}, the mark of {owner}, so others have put there what it holds"
            f" ({', '.join(there[:3])}{', ...' if there[3:] else ''}): {way_out}"
        )


def _is_file(path: Path) -> bool:
    """Tell whether it is a plain file; a link to one is not."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _remove(entry: Path) -> None:
    """Remove an entry: of a link the link alone, and a folder also where it cannot be written."""
    if entry.is_symlink() or not entry.is_dir():
        entry.unlink()
        return
    entry.chmod(stat.S_IRWXU)
    for inner in entry.iterdir():
        _remove(inner)
    entry.rmdir()
