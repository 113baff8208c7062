"""Containers of a Docker engine: which image a name means, what a container may do, how it ends.

Everything goes through the command `docker`, which knows where the engine is. What it says when
something is missing is turned into one line with the way out.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlops_mini.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    MlopsMiniError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)

# What no container of ours needs: a file system to write to, capabilities, or to gain any.
LOCKED_UP = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
# Where `make image` puts what stands in for an image that no registry was there for.
LOCAL = "mlops-mini.local"

Access = Literal["read", "write"]
# Exit status of `docker run` if there was no container to have one.
NOT_STARTED = 125
_CREATION_S = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image that is on this machine.

    Attributes:
        name: What it was found under.
        digest: Digest of its contents, `sha256:...`: the same name may mean another one tomorrow.
    """

    name: str
    digest: str


def docker(*arguments: str) -> str:
    """Run the command `docker`.

    Args:
        arguments: Such as `"ps", "-q"`.

    Returns:
        What it printed, without white space around it.

    Raises:
        MlopsMiniError: It failed; see `explained`.
    """
    try:
        ran = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as exc:
        raise UnavailableError(
            "there's no command `docker` here: install Docker (on Debian: `apt-get install"
            " docker.io`), or do without containers"
        ) from exc
    if ran.returncode:
        raise explained(ran.stderr)
    return ran.stdout.strip()


def explained(said: str) -> MlopsMiniError:
    """Turn what `docker` says into an error with one line and the way out.

    >>> print(explained("docker: Cannot connect to the Docker daemon at unix:///x.sock. Is the"))
    no Docker engine answers at unix:///x.sock: start Docker, or let DOCKER_HOST say where it is
    """
    if answered := re.search(r"Cannot connect to the Docker daemon at (\S+?)\.?(\s|$)", said):
        return UnavailableError(
            f"no Docker engine answers at {answered[1]}: start Docker, or let DOCKER_HOST say"
            " where it is"
        )
    if "permission denied while trying to connect" in said:
        return PermissionDeniedError(
            "you may not use the Docker engine: join its group (`sudo usermod -aG docker $USER`,"
            " then log in again)"
        )
    if taken := re.search(r"(\S*:\d+)[^\n]*(address already in use|port is already all)", said):
        return AlreadyExistsError(
            f"port {taken[1].rpartition(':')[2]} is taken, perhaps by another container (`docker"
            " ps` lists them): stop it, or take another port"
        )
    if missing := re.search(r"No such (?:image|object): (\S+)", said):
        return _not_found(missing[1])
    if "exec format error" in said:
        return FailedPreconditionError(
            "the image is for another kind of processor: build it here, or pull it with --platform"
        )
    return UnavailableError(f"docker failed: {(said.strip().splitlines() or ['no word'])[-1]}")


def _not_found(name: str) -> NotFoundError:
    return NotFoundError(
        f"image {name} isn't on this machine: `make image` builds ours, and `docker pull {name}`"
        " gets those of others"
    )


def image(*names: str) -> Image:
    """Find an image on this machine; nothing is pulled.

    Args:
        names: Which to look for; the first that is there is taken.

    Returns:
        The image.

    Raises:
        NotFoundError: None of them is there.
        FailedPreconditionError: It's for another kind of processor.
        MlopsMiniError: There's no engine, or it can't be asked.
    """
    for name in names:
        try:
            found = docker("image", "inspect", "--format={{.Id}} {{.Os}}/{{.Architecture}}", name)
        except NotFoundError:
            continue
        digest, platform = found.split()
        here = docker("version", "--format={{.Server.Os}}/{{.Server.Arch}}")
        if platform != here:
            raise FailedPreconditionError(
                f"image {name} is for {platform}, and this machine is {here}: build it here, or"
                f" `docker pull --platform={here} {name}`"
            )
        return Image(name=name, digest=digest)
    raise _not_found(names[0])


def mount(path: Path, access: Access) -> str:
    """Write the flag that shows a container a file or folder, at the path that it has here.

    >>> mount(Path("/data"), "read"), mount(Path("/a,b"), "write")
    ('--mount=type=bind,src=/data,dst=/data,readonly', '--mount=type=bind,"src=/a,b","dst=/a,b"')
    """
    fields = ["type=bind", f"src={path}", f"dst={path}"]
    if access == "read":
        fields.append("readonly")
    quoted = (f'"{field}"' if "," in field else field for field in fields)
    return f"--mount={','.join(quoted)}"


def run_command(
    image_digest: str,
    command: Iterable[str],
    *,
    label: str,
    mounts: Mapping[Path, Access],
    folder: Path,
    variables: Mapping[str, str],
) -> list[str]:
    """Make the command that runs another one in a container, alone with its files.

    It has no network, and the user and group of this process. It can write to what is mounted for
    that and to `/tmp`, which ends with it.

    Args:
        image_digest: See `Image`.
        command: Program and arguments, as in the container.
        label: Finds the container again, see `remove`.
        mounts: What it may read or write.
        folder: Where the command starts.
        variables: Its environment.

    Returns:
        The command: it ends with the container, has its output, and its exit status.
    """
    program, *arguments = command
    return [
        "docker", "run", "--rm", "--pull=never", f"--label={label}", "--network=none",
        *LOCKED_UP, "--tmpfs=/tmp", f"--user={os.getuid()}:{os.getgid()}", f"--workdir={folder}",
        *(mount(path, access) for path, access in mounts.items()),
        *(f"--env={name}={value}" for name, value in variables.items()),
        f"--entrypoint={program}", image_digest, *arguments,
    ]  # fmt: skip


def remove(label: str, *, is_coming: bool = False) -> None:
    """Stop and remove the containers with a label.

    Args:
        label: As `run_command` was given it.
        is_coming: Whether there should be one: whoever was starting it has been killed, and the
            engine may only just be making it.

    Raises:
        MlopsMiniError: The engine can't be asked any more.
    """
    deadline = time.monotonic() + _CREATION_S
    while True:
        if ids := docker("ps", "--all", "--quiet", f"--filter=label={label}").split():
            docker("rm", "--force", *ids)
            return
        if not is_coming or time.monotonic() > deadline:
            return
        time.sleep(0.1)
