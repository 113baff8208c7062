"""Where components find their packages: environments that are made once, or images.

An environment's folder is named by the digest of what is installed into it, so components that ask
for the same packages share one, and other versions mean another. Nothing is installed at run time
once it is there.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlops_mini import containers, files
from mlops_mini.errors import UnavailableError
from mlops_mini.runner import digests
from mlops_mini.runner.spec import Package

logger = logging.getLogger(__name__)

_COMPLETE = ".complete"


def default_root() -> Path:
    """Return `.cache/environments` of the repository, else of the user's cache folder."""
    repository = Path(__file__).resolve().parents[2]
    # Not pyproject.toml, which careless packages leave in site-packages.
    if (repository / "tools" / "set_up.py").is_file():
        return repository / ".cache" / "environments"
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "mlops_mini" / "environments"


def installs_of(command: Sequence[str]) -> list[list[str]]:
    r"""Read what a compiled component would install by pip before it runs.

    Args:
        command: `container.command` of an executor.

    Returns:
        The arguments of each `pip install`, in order; empty for a component that needs nothing.

    >>> installs_of(["sh", "-c", 'python3 -m pip install --quiet numpy==2.1 && "$0" "$@"'])
    [['numpy==2.1']]
    """
    if list(command[:2]) != ["sh", "-c"] or "pip install" not in "".join(command[2:3]):
        return []
    installs = []
    for part in command[2].split("&&"):
        _, is_install, arguments = part.partition("pip install")
        if is_install:
            words = shlex.split(arguments)
            quiet = {"--quiet", "--no-warn-script-location"}
            installs.append([word for word in words if word not in quiet])
    return installs


def digest_of(installs: Sequence[Sequence[str]]) -> str:
    """Digest what an environment of these installs would be on this machine."""
    machine = [platform.system(), platform.machine()]
    return digests.key_of({"installs": installs, "python": sys.version, "machine": machine})


def image_name(container: Mapping[str, Any]) -> str:
    """Name the image that a component runs in, with what it would install already in it.

    Args:
        container: Of its executor.

    >>> image_name({"image": "python:3.11"})
    'python:3.11'
    """
    image = str(container["image"])
    installs = installs_of(container.get("command", []))
    if not installs:
        return image
    digest = digests.key_of({"image": image, "installs": installs})
    return f"{containers.LOCAL}/component:{digest[:12]}"


def image_of(container: Mapping[str, Any]) -> containers.Image:
    """Find the image of a component on this machine, or what `make image` made in its place.

    Raises:
        NotFoundError: It isn't there; nothing is pulled, for a run needs no network.
    """
    name = image_name(container)
    return containers.image(name, f"{containers.LOCAL}/{name}")


def python_of(installs: Sequence[Sequence[str]], *, root: Path, log_file: Path) -> Path:
    """Return the interpreter of an environment, which is made if it is not there.

    Args:
        installs: As `installs_of` returns them.
        root: Folder of environments; several processes may use it at once.
        log_file: Receives what pip says.

    Raises:
        UnavailableError: pip could not install them.
    """
    folder = root / f"component-{digest_of(installs)[:12]}"
    python = folder / "bin" / "python"
    root.mkdir(parents=True, exist_ok=True)
    with files.locked(root / f"{folder.name}.lock") as lock:
        if (folder / _COMPLETE).exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        names = sorted({re.split(r"[<>=!~; @\[]", requirement)[0] for requirement in installs[0]})
        logger.warning("making an environment, once, with %s", ", ".join(names))
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        commands = [
            [sys.executable, "-m", "venv", str(folder)],
            *([*pip, *arguments] for arguments in installs),
        ]
        # A package that is found on our own path would not be installed.
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with log_file.open("ab") as log:
            for command in commands:
                # Should we be killed, the lock is held until pip has ended too.
                done = subprocess.run(
                    command, stdout=log, stderr=log, env=env, pass_fds=[lock], check=False
                )
                if done.returncode:
                    raise UnavailableError(
                        f"`{' '.join(command)}` failed (log: {log_file}): an environment is made "
                        "once, with a network or a local package index; then none is needed"
                    )
        (folder / _COMPLETE).touch()
    return python


def prepare(package: Package, *, root: Path | None = None) -> list[Path]:
    """Make every environment that a pipeline needs, so that its runs need no network.

    Args:
        package: The compiled pipeline.
        root: As for `python_of`; the default place if None.

    Returns:
        The interpreters.
    """
    root = root or default_root()
    root.mkdir(parents=True, exist_ok=True)
    commands = [container.get("command", []) for container in package.containers]
    needed = [installs for command in commands if (installs := installs_of(command))]
    return [
        python_of(installs, root=root, log_file=root / "environments.log") for installs in needed
    ]
