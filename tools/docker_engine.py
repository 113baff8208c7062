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
import signal
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
    if not shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin"):
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
    os.environ["PATH"] = f"/usr/bin:{os.environ['PATH']}:/usr/sbin"
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
    sockets = _sockets(folder)
    sockets.mkdir(exist_ok=True)
    with (folder / "log.txt").open("wb") as log:
        # It outlives this process if others use the engine, too, so it's nobody's child.
        keeper = [sys.executable, "-m", "tools.docker_engine", "--keep", str(folder)]
        subprocess.run(
            ["sh", "-c", '"$@" &', "sh", *keeper],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            cwd=Path(__file__).parents[1], check=True,
        )  # fmt: skip
    deadline = time.monotonic() + _START_S
    while not _answers():
        if not sockets.exists() or time.monotonic() > deadline:
            last_line = (folder / "log.txt").read_text().strip().rpartition("\n")[2]
            raise UnavailableError(f"the Docker engine didn't start: {last_line}")
        time.sleep(0.1)


def _wait_for_its_end(folder: Path) -> None:
    """Wait until an engine of ours has ended, unless others use it."""
    deadline = time.monotonic() + _END_S
    while _sockets(folder).exists() and time.monotonic() < deadline:
        if _is_used(folder):
            return
        time.sleep(0.1)


def _is_used(folder: Path) -> bool:
    with (folder / "users.lock").open("w") as users:
        for mode in (fcntl.LOCK_EX, fcntl.LOCK_SH):  # users share it; its keeper doesn't
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(users, mode | fcntl.LOCK_NB)
                return mode == fcntl.LOCK_SH
    return False


def _keep(folder: Path) -> int:
    """Be the parent of an engine until nobody uses it any more, or it has ended by itself."""
    sockets = _sockets(folder)
    (sockets / "pid").unlink(missing_ok=True)  # of one that was killed
    engine = subprocess.Popen(
        [
            "dockerd", f"--data-root={folder}/data", f"--exec-root={sockets}/exec",
            f"--pidfile={sockets}/pid", f"--host=unix://{sockets}/docker.sock", f"--bip={BRIDGE}",
        ],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    with (folder / "users.lock").open("w") as users:
        while engine.poll() is None:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _prune()
                engine.terminate()
                engine.wait()
            time.sleep(0.2)
        for mounted in sockets.glob("exec/netns/*"):  # with --network=host
            subprocess.run(["umount", str(mounted)], check=False)
        shutil.rmtree(sockets)
    return engine.returncode


def _prune() -> None:
    """Remove images that another one of their name has replaced, and what building leaves."""
    with contextlib.suppress(MlopsMiniError):
        containers.docker("image", "prune", "--force")
        containers.docker("builder", "prune", "--force", f"--keep-storage={KEPT_CACHE}")


def listed() -> set[str]:
    """Name the containers, networks and volumes that the engine has."""
    containers_there = containers.docker("ps", "--all", "--format=container {{.Names}}")
    networks = containers.docker("network", "ls", "--format=network {{.Name}}")
    volumes = containers.docker("volume", "ls", "--format=volume {{.Name}}")
    return {*containers_there.splitlines(), *networks.splitlines(), *volumes.splitlines()}


def run_and_look(command: list[str]) -> int:
    """Run a command with the engine there is, and name what it leaves in it.

    Args:
        command: Program and arguments.

    Returns:
        Its exit status; 1 if that's 0 and something is left.
    """
    before = listed()
    status = subprocess.run(command, check=False).returncode
    if left := sorted(listed() - before):
        sys.stderr.write(f"left in the Docker engine: {', '.join(left)}\n")
    return status or int(bool(left))


def main(arguments: list[str]) -> int:
    """Run a command with an engine, or without one where none can be had."""
    if arguments[:1] == ["--keep"]:
        return _keep(Path(arguments[1]))
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(running(FOLDER))
        except UnavailableError as exc:
            sys.stderr.write(f"{exc}; what needs one is skipped\n")
            return subprocess.run(arguments, check=False).returncode
        status = run_and_look(arguments)
    _wait_for_its_end(FOLDER)
    return status


if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the command; we end after it
    sys.exit(main(sys.argv[1:]))
