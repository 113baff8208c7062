"""A registry of images on this machine, for only a push gives an image its digest by name."""

import contextlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from mlops_mini import containers
from mlops_mini.errors import UnavailableError

_START_S = 30.0
_CONFIG = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}/images}}}}
http: {{addr: "{address}"}}
"""


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run Debian's registry, with its images in a folder; the engine forgets them at the end.

    Yields:
        Its address, such as `127.0.0.1:40001`.

    Raises:
        UnavailableError: It isn't installed, or doesn't start.
    """
    if not shutil.which("docker-registry"):
        raise UnavailableError(
            "there's no registry of images here (on Debian: apt-get install docker-registry)"
        )
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    (folder / "registry.yaml").write_text(_CONFIG.format(folder=folder, address=address))
    with (folder / "registry.log").open("wb") as log:
        command = ["docker-registry", "serve", str(folder / "registry.yaml")]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait_for(address, process)
            yield address
        finally:
            process.terminate()
            process.wait()
            _forget(address)


def pushed(name: str, registry: str) -> str:
    """Push an image, and return its name by digest.

    Args:
        name: Of an image on this machine, such as `mlops-mini:0.1.0`.
        registry: Address of the registry.
    """
    there = f"{registry}/{name.rpartition('/')[2]}"
    containers.docker("tag", name, there)
    containers.docker("push", "--quiet", there)
    digests = containers.docker("image", "inspect", '--format={{join .RepoDigests " "}}', there)
    return next(each for each in digests.split() if each.startswith(f"{registry}/"))


def _forget(address: str) -> None:
    """Remove the names that images have in a registry that's gone; their other ones stay."""
    form = "--format={{.Repository}}:{{.Tag}}"
    names = containers.docker("image", "ls", form, f"--filter=reference={address}/*").split()
    if names:
        containers.docker("image", "rm", *names)


def _wait_for(address: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/v2/", timeout=5):
                return
        except (urllib.error.URLError, OSError) as exc:
            if process.poll() is not None or time.monotonic() > deadline:
                raise UnavailableError(f"the registry at {address} doesn't start ({exc})") from exc
        time.sleep(0.05)
