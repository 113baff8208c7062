"""Artifacts as files: where a component opens one, what it holds, and whether it is as it was."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.runner import digests, layout

JsonObject = dict[str, Any]

# In the metadata of `dsl.importer`: what is there need not be a file of this machine.
REMOTE = "mlops_mini_remote"


def path_of(uri: str) -> Path:
    """Return the path at which a component that is given this address opens the artifact."""
    return Path(layout.mounted(uri))


def imported(uri: str, metadata: Mapping[str, Any], *, task: str) -> str:
    """Find what `dsl.importer` names, at the path where its readers open it.

    Args:
        uri: An address, or a path; a relative one is taken from the current folder.
        metadata: Of the importer. With `mlops_mini_remote` true nothing is looked for: its readers
            take the address to a client of their own.
        task: Who asks, for the message.

    Returns:
        The address that readers are given: an absolute path for a relative one and for `file://`,
        which kfp's `Artifact.path` would not read.

    Raises:
        InvalidArgumentError: The address is empty, or a file of another machine's.
        NotFoundError: There is nothing.

    >>> imported("gs://bucket/rows.csv", {REMOTE: True}, task="task 'importer'")
    'gs://bucket/rows.csv'
    """
    if not uri:
        raise InvalidArgumentError(f"{task} imports from an empty address: give it one")
    if metadata.get(REMOTE) is True:
        return uri
    parts = urlsplit(uri)
    if parts.scheme == "file" and "://" in uri:
        if parts.netloc not in {"", "localhost"}:
            raise InvalidArgumentError(
                f"{task} imports {uri}, a file of the machine {parts.netloc!r}: after file:// "
                "comes an absolute path, as in file:///data/rows.csv"
            )
        uri = unquote(parts.path)
    path = path_of(uri)
    if path.exists():
        return uri if "://" in uri else str(path.absolute())
    if "://" not in uri:
        raise NotFoundError(f"{task} imports {path.absolute()}, and there is nothing")
    raise NotFoundError(
        f"{task} imports {uri}, which cannot be looked at from here: a component would open {path},"
        f" and there is nothing. Mount it there, or, if its readers fetch it themselves by "
        f"its uri, say so in the importer: metadata={{{REMOTE!r}: True}}"
    )


def describe(
    uri: str, *, type_: JsonObject, metadata: JsonObject, is_read: bool = True
) -> JsonObject:
    """Digest an artifact: what its files hold, and what it means.

    Args:
        uri: A path, or an address that can only be named.
        type_: `schemaTitle` and `schemaVersion`.
        metadata: Stands for the content where there is no file.
        is_read: Whether to read models, which needs TensorFlow; else only their files count.
    """
    path = path_of(uri)
    digest = of_files = files_digest(uri, metadata)
    if is_read and (path / "saved_model.pb").is_file():
        from mlops_mini.model.digest import model_digest

        # Exports of the same weights differ in their files, and are the same model.
        digest = model_digest(path)
    return {
        "uri": uri,
        "type": type_,
        "metadata": metadata,
        "digest": digest,
        "files_digest": of_files,
    }


def files_digest(uri: str, metadata: JsonObject) -> str:
    """Digest what an artifact's files hold; its address or metadata where there is no file."""
    return digests.content_digest(path_of(uri), {"uri": uri} if "://" in uri else metadata)


def is_unchanged(artifact: Mapping[str, Any]) -> bool:
    """Tell whether an artifact, as `describe` describes it, still holds what it held."""
    digest = files_digest(artifact["uri"], artifact["metadata"])
    return bool(digest == artifact["files_digest"])


def changed(artifacts: Mapping[str, Iterable[JsonObject]]) -> dict[str, str]:
    """Find the inputs that are no longer what was given.

    Args:
        artifacts: Lists of artifacts by the name of the input.

    Returns:
        Names of the inputs by address, for those that have changed.
    """
    return {
        artifact["uri"]: name
        for name, many in artifacts.items()
        for artifact in many
        if not is_unchanged(artifact)
    }


def protect(uri: str, *, within: Path) -> None:
    """Make the files of an artifact read-only, which only root can overlook.

    Folders stay as they are, so that whoever made them can remove them. So do files that are not
    ours alone: links, files with a second name, and whatever lies elsewhere.

    Args:
        uri: Of the artifact.
        within: Folder of the attempt that has made it.
    """
    path = path_of(uri)
    if not path.is_relative_to(within):
        return
    walked = (Path(folder, name) for folder, _, files in os.walk(path) for name in files)
    for file in walked if path.is_dir() and not path.is_symlink() else [path]:
        if file.is_symlink() or not file.is_file():
            continue
        status = file.stat()
        if status.st_nlink == 1:
            file.chmod(stat.S_IMODE(status.st_mode) & ~0o222)
