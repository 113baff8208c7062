"""The environments of pieces: libraries that can't live beside those of the working environment."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlops_mini.errors import FailedPreconditionError

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache" / "environments"
INSIDE = Path(__file__).with_name("inside")
_LAST_LINES = 15


def made(name: str) -> Path:
    """Make an environment of `environments/NAME.txt`, unless it's there, and return its folder."""
    folder = CACHE / name
    lock = f"environments/{name}.txt"
    run([sys.executable, "tools/set_up.py", str(folder), "--lock", lock])
    return folder


def run(command: list[str], *, more: Mapping[str, str] | None = None) -> str:
    """Run a command at the repository's root, and return what it printed.

    Raises:
        FailedPreconditionError: It failed; the message has its last lines.
    """
    ran = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, **(more or {})}, check=False, text=True,
        stdin=subprocess.DEVNULL, capture_output=True,
    )  # fmt: skip
    if ran.returncode:
        lines = (ran.stdout + ran.stderr).splitlines()[-_LAST_LINES:]
        raise FailedPreconditionError(
            f"`{' '.join(command)}` ended with {ran.returncode}:\n" + "\n".join(lines)
        )
    return ran.stdout


def ask(
    environment: Path, script: str, folder: Path, *arguments: str, sees_package: bool = False
) -> dict[str, Any]:
    """Run one of our scripts in an environment, and return what it found out.

    Args:
        environment: As `made` returns it.
        script: Its name in `inside/`. It's given the folder and the arguments, and writes
            `found.json` into the folder.
        folder: Where it works.
        arguments: Whatever else it wants.
        sees_package: Whether it imports mlops_mini.
    """
    more = {"PYTHONPATH": str(REPOSITORY) if sees_package else "", "PYTHONWARNINGS": "ignore"}
    python = str(environment / "bin" / "python")
    run([python, str(INSIDE / f"{script}.py"), str(folder), *arguments], more=more)
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def require(holds: bool, otherwise: str) -> None:
    """Fail a piece unless something holds.

    Raises:
        FailedPreconditionError: It doesn't.
    """
    if not holds:
        raise FailedPreconditionError(otherwise)


def size_mb(folder: Path) -> str:
    """Say how large a folder is."""
    n_bytes = sum(file.lstat().st_size for file in folder.rglob("*"))
    return f"{n_bytes / 1e6:,.0f} MB"
