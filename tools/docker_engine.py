"""Lends a Docker engine: the one that answers, else one of our own while somebody needs it.

Debian's engine starts in half a second, but only where it's installed and we're root, as in a
container of continuous integration. It then lives in `.cache/docker`, where images stay for the
next time, and its sockets in a temporary folder, for their paths must be short. It ends with the
last process that uses it, however that ends.

Example: python -m tools.docker_engine docker ps
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mlops_mini import containers
from mlops_mini.errors import MlopsMiniError, UnavailableError

FOLDER = Path(__file__).resolve().parents[1] / ".cache" / "docker"
# Addresses of its own, since the usual ones may be those of the machine's network.
BRIDGE = "172.30.99.1/24"
KEPT_CACHE = "6GB"
_START_S, _END_S = 60.0, 300.0  # removing layers of the build cache may take minutes


def _answers() -> bool:
    try:
        containers.docker("version")
    except MlopsMiniError:
        return False
    return True


def missing() -> str:
    """Say in one line why no engine can be started here; empty if one can."""
    if not shutil.which("dockerd", path="/usr/sbin:/usr/bin"):
        return (
            "no Docker engine answers, and none is installed (on Debian: apt-get install docker.io)"
        )
    if os.getuid() != 0:
        return "no Docker engine answers, and only root can start one"
    return ""


@contextlib.contextmanager
def running(folder: Path = FOLDER) -> Iterator[None]:
    """Have an engine that the command `docker` finds, in this process and its children.

    Args:
        folder: Of an engine of our own: its images and its log.

    Raises:
        UnavailableError: None answers, and none can be started.
    """
    if _answers():
        yield
        return
    if why := missing():
        raise UnavailableError(why)
    folder.mkdir(parents=True, exist_ok=True)
    before = {name: os.environ.get(name) for name in ("DOCKER_HOST", "PATH")}
    sockets = _sockets(folder)
    # Debian's client belongs to Debian's engine; an earlier one on the path may not know BuildKit.
    os.environ["PATH"] = f"/usr/bin:{os.environ['PATH']}"
    os.environ["DOCKER_HOST"] = f"unix://{sockets}/docker.sock"
    try:
        with (folder / "users.lock").open("w") as users:
            fcntl.flock(users, fcntl.LOCK_SH)
            with (folder / "start.lock").open("w") as start:
                fcntl.flock(start, fcntl.LOCK_EX)
                if not _answers():
                    _start(folder)
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})


def _sockets(folder: Path) -> Path:
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"mlops-mini-docker-{digest}"


def _start(folder: Path) -> None:
    with (folder / "log.txt").open("ab") as log:
        # It outlives this process if others use the engine, too, so it's nobody's child.
        keeper = [sys.executable, "-m", "tools.docker_engine", "--keep", str(folder)]
        subprocess.run(
            ["sh", "-c", '"$@" &', "sh", *keeper],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            cwd=Path(__file__).parents[1], check=True,
        )  # fmt: skip
    deadline = time.monotonic() + _START_S
    while not _answers():
        if time.monotonic() > deadline:
            raise UnavailableError(f"the Docker engine didn't start: see {folder}/log.txt")
        time.sleep(0.1)


def _wait_for_its_end(folder: Path) -> None:
    """Wait until an engine of ours has ended, unless others use it."""
    deadline = time.monotonic() + _END_S
    while _sockets(folder).exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def _keep(folder: Path) -> int:
    """Be the parent of an engine until nobody uses it any more."""
    sockets = _sockets(folder)
    sockets.mkdir(exist_ok=True)
    (sockets / "pid").unlink(missing_ok=True)  # of one that was killed
    engine = subprocess.Popen(
        [
            "dockerd", f"--data-root={folder}/data", f"--exec-root={sockets}/exec",
            f"--pidfile={sockets}/pid", f"--host=unix://{sockets}/docker.sock", f"--bip={BRIDGE}",
        ],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    with (folder / "users.lock").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        with contextlib.suppress(MlopsMiniError):
            containers.docker("builder", "prune", "--force", f"--keep-storage={KEPT_CACHE}")
        engine.terminate()
        status = engine.wait()
    shutil.rmtree(sockets, ignore_errors=True)
    return status


def main(arguments: list[str]) -> int:
    """Run a command with an engine, or without one where none can be had."""
    if arguments[:1] == ["--keep"]:
        return _keep(Path(arguments[1]))
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(running())
        except UnavailableError as exc:
            sys.stderr.write(f"{exc}; what needs one is skipped\n")
        status = subprocess.run(arguments, check=False).returncode
    _wait_for_its_end(FOLDER)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
