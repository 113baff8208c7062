"""Builds the images: the model server, the pipeline's components, and what these stand on.

The base is Debian 12 with Python 3.11: python:3.11-slim-bookworm where a registry can be reached,
else one that mmdebstrap makes of Debian's packages. Components that ask for packages of their own
get an image that has them, under a local name by which `--runner docker` finds it.

Example: python -m tools.image --only server
"""

import argparse
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mlops_mini import containers
from mlops_mini.errors import FailedPreconditionError, MlopsMiniError, NotFoundError
from mlops_mini.runner import environments, spec
from tools import docker_engine

REPOSITORY = Path(__file__).resolve().parents[1]
VERSION = "0.1.0"
SERVER = f"mlops-mini-server:{VERSION}"
COMPONENTS = f"mlops-mini:{VERSION}"
SAGEMAKER = f"mlops-mini-sagemaker:{VERSION}"
PROMETHEUS = f"mlops-mini-prometheus:{VERSION}"
FASTAPI = f"mlops-mini-fastapi:{VERSION}"
OFFICIAL_BASE = "python:3.11-slim-bookworm"
OUR_BASE = f"{containers.LOCAL}/{OFFICIAL_BASE}"
# What our base is as well: the components that are commands name it.
DEBIAN = "debian:12"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
EVERYBODYS = "deb http://deb.debian.org/debian bookworm main"
_LEFT_OUT = ("doc", "man", "locale")
_LISTS = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources")


def base() -> str:
    """Find or get or make the image that all others stand on, and return its name."""
    try:
        return containers.image(OFFICIAL_BASE, OUR_BASE).name
    except NotFoundError:
        pass
    try:
        containers.docker("pull", "--quiet", OFFICIAL_BASE)
    except MlopsMiniError as exc:
        if not shutil.which("mmdebstrap"):
            raise FailedPreconditionError(
                f"{OFFICIAL_BASE} can't be pulled ({exc}), and to make such an image here,"
                " mmdebstrap is missing: apt-get install mmdebstrap"
            ) from exc
    else:
        return OFFICIAL_BASE
    say(f"{OFFICIAL_BASE} can't be pulled: making {OUR_BASE} of Debian's packages")
    with tempfile.TemporaryDirectory() as folder:
        tar = f"{folder}/base.tar"
        subprocess.run(
            [
                "mmdebstrap", "--quiet", "--variant=apt",
                "--include=python3,python3-venv,libstdc++6",
                *(f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in _LEFT_OUT),
                # The machine's own mirror is nobody else's business.
                f"--customize-hook=echo '{EVERYBODYS}' > $1/etc/apt/sources.list",
                "--customize-hook=for each in hostname resolv.conf; do : > $1/etc/$each; done",
                "bookworm", tar, mirror(),
            ],
            check=True,
        )  # fmt: skip
        containers.docker("import", tar, OUR_BASE)
    return OUR_BASE


def mirror() -> str:
    """Read from this machine's own sources where Debian's packages come from."""
    texts = [Path(each).read_text() for each in _LISTS if Path(each).exists()]
    found = re.findall(r"^(?:deb |URIs:)\s*(?:\[.*?\] )?(\S+)", "\n".join(texts), re.MULTILINE)
    return found[0] if found else "http://deb.debian.org/debian"


def build(
    target: str, name: str, *, base_image: str, installs: str = "", folder: str = "docker"
) -> None:
    """Build a target of the Dockerfile in a folder of deploy/."""
    say(f"building {name}")
    with tempfile.NamedTemporaryFile("w", suffix=".list") as apt:
        apt.write(f"deb {mirror()} bookworm main\n")
        apt.flush()
        secrets = [f"--secret=id=apt,src={apt.name}"]
        if CERTIFICATES.exists():
            secrets.append(f"--secret=id=ca,src={CERTIFICATES}")
        built = subprocess.run(
            [
                "docker", "build", "--quiet", f"--file=deploy/{folder}/Dockerfile",
                f"--target={target}", f"--tag={name}", f"--build-arg=BASE={base_image}",
                f"--build-arg=INSTALLS={installs}", *secrets, ".",
            ],
            cwd=REPOSITORY, env={**os.environ, "DOCKER_BUILDKIT": "1"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    if built.returncode:
        raise FailedPreconditionError(f"building {name} failed:\n{built.stderr.strip()}")


def build_all(only: Sequence[str]) -> None:
    """Build what is asked for, and say how large it is."""
    base_image = base()
    made = []
    if "server" in only:
        build("server", SERVER, base_image=base_image)
        made.append(SERVER)
    if "components" in only:
        from mlops_mini.pipeline import definition

        if base_image == OUR_BASE:
            containers.docker("tag", OUR_BASE, f"{containers.LOCAL}/{DEBIAN}")
        build("components", COMPONENTS, base_image=base_image)
        made.append(COMPONENTS)
        for container in spec.load(definition.continuous_training).containers:
            if installs := environments.installs_of(container.get("command", [])):
                name = environments.image_name(container)
                lines = "\n".join(map(shlex.join, installs))
                build("component", name, base_image=base_image, installs=lines)
                made.append(name)
    if "sagemaker" in only:
        build("sagemaker", SAGEMAKER, base_image=base_image)
        made.append(SAGEMAKER)
    if "prometheus" in only:
        build("prometheus", PROMETHEUS, base_image=base_image)
        made.append(PROMETHEUS)
    if "fastapi" in only:
        build("service", FASTAPI, base_image=base_image, folder="fastapi")
        made.append(FASTAPI)
    for name in made:
        size = int(containers.docker("image", "inspect", "--format={{.Size}}", name))
        say(f"{name}: {size / 1e9:.2f} GB")


def say(line: str) -> None:
    """Print a line at once."""
    print(f"image: {line}", flush=True)


def main() -> int:
    """Build; exit 1 with a line if something is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    choices = ("server", "components", "sagemaker", "prometheus", "fastapi")
    usual = choices[:2]
    parser.add_argument(
        "--only", choices=choices, action="append", help=f"else {' and '.join(usual)}"
    )
    only = parser.parse_args().only or usual
    logging.basicConfig(level=logging.WARNING)
    try:
        with docker_engine.running():
            build_all(only)
    except MlopsMiniError as exc:
        print(f"image: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
