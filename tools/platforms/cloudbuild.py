"""Cloud Build: the build of deploy/cloudbuild.yaml, read by Google's class and run step by step.

Each step is a container, as with the service: the workspace is a clone of this repository at
`/workspace`, and what's missing of the service stands in: a registry on this machine, a Kubeflow
that only notes what it's sent, a folder in place of a bucket.
"""

import json
import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from mlops_mini.deployment import cloud_build
from mlops_mini.deployment.cloud_build import Step
from mlops_mini.errors import DataIntegrityError, FailedPreconditionError, UnavailableError
from mlops_mini.runner import spec
from tools import docker_engine, image
from tools.platforms import environments, kubeflow_stand_in, registry
from tools.platforms.piece import Piece

FILE = image.REPOSITORY / "deploy" / "cloudbuild.yaml"
# Of each kind of tests some files only: all of them are what `make test` runs.
FEWER_TESTS = {
    "_CODE_TESTS": "tests/deployment/test_cloud_build.py tests/test_errors.py",
    "_DATA_TESTS": "tests/data/test_quarantine.py",
    "_SCHEMA_TESTS": "tests/statistics/test_anomalies.py",
    "_MODEL_TESTS": "tests/model/test_thresholds.py",
}
DOCKER = "gcr.io/cloud-builders/docker"
_WHAT: dict[str, Any] = {
    "name": "Cloud Build",
    "notes_tool": "Cloud Build: CI/CD of the pipeline",
    "our_object": "`deploy/cloudbuild.yaml`, and `deployment.cloud_build`, which checks it",
    "command": "make platforms ONLY=cloudbuild",
}


def run(folder: Path) -> Piece:
    """Read the build strictly, then run its steps in order."""
    build = yaml.safe_load(FILE.read_text())
    facts = _read(build, folder)
    with ExitStack() as stack:
        try:
            stack.enter_context(docker_engine.running())
            address = stack.enter_context(registry.running(folder))
        except UnavailableError as exc:
            return Piece(
                state="skipped", reason=f"the build was read, but {exc}", facts=facts, **_WHAT
            )
        image.build_all(["components"])
        base = image.base()
        kubeflow, posted = stack.enter_context(kubeflow_stand_in.running())
        values = {
            "PROJECT_ID": "local",
            "BUILD_ID": "local-1",
            "_PYTHON": base,
            "_DEBIAN": base,
            "_IMAGE": f"{address}/mlops-mini",
            "_KUBEFLOW": kubeflow,
            **FEWER_TESTS,
        }
        workspace = _clone(folder / "workspace")
        took = {}
        for step in cloud_build.steps(build, values):
            began = time.monotonic()
            _run(step, workspace, base)
            took[step.id] = time.monotonic() - began
        uploaded = _upload(build, workspace, folder / "bucket")
        names = [each["image"] for each in spec.load(folder / "bucket/pipeline.yaml").containers]
    if not all(name.startswith(f"{address}/") and "@sha256:" in name for name in names):
        raise DataIntegrityError(f"images without a digest in our registry: {names}")
    once, scheduled = (path for path, _ in posted)
    facts |= {
        "steps that ran, in order": ", ".join(f"{name} {s:.0f} s" for name, s in took.items()),
        "images in the pipeline by digest": f"{len(names)} of {len(names)}",
        "Kubeflow was sent": f"POST {once}, then POST {scheduled}",
        "uploaded": ", ".join(uploaded),
    }
    return Piece(state="ran", facts=facts, **_WHAT)


def _read(build: dict[str, Any], folder: Path) -> dict[str, str]:
    (folder / "build.json").write_text(json.dumps(build))
    found = environments.ask(environments.made("google-cloud"), "cloudbuild_parse", folder)
    accepted = [name for name, is_refused in found["refused"].items() if not is_refused]
    if not found["is_read"] or accepted or cloud_build.findings(build):
        raise DataIntegrityError(f"read: {found['is_read']}; accepted although wrong: {accepted}")
    return {
        "google-cloud-build": found["version"],
        "the build, as Google's class reads it": f"taken; {len(found['refused'])} broken ones"
        " refused",
    }


def _clone(workspace: Path) -> Path:
    """Copy what git knows of this repository, as it stands now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=image.REPOSITORY, capture_output=True, check=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        source, target = image.REPOSITORY / name, workspace / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return workspace


def _run(step: Step, workspace: Path, base: str) -> None:
    """Run a step as the service does, with this machine's network and certificates.

    Raises:
        FailedPreconditionError: It failed; the message has its last lines.
    """
    flags = [
        "--rm", "--network=host", f"--volume={workspace}:/workspace", f"--workdir={step.folder}",
        *(f"--env={each}" for each in step.environment),
    ]  # fmt: skip
    named, command = step.image, list(step.command)
    if named == DOCKER:
        # Google's builder is an image with the engine's client, and the engine's socket.
        socket = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix(
            "unix://"
        )
        flags += [
            f"--volume={socket}:/var/run/docker.sock",
            f"--volume={shutil.which('docker')}:/usr/bin/docker:ro",
        ]
        named = base
        if not step.has_program:
            command = ["docker", *command]
    elif named == base and image.CERTIFICATES.exists():
        flags += [f"--volume={image.CERTIFICATES}:/run/ca.crt:ro", "--env=PIP_CERT=/run/ca.crt"]
    program, *arguments = command
    ran = subprocess.run(
        ["docker", "run", *flags, f"--entrypoint={program}", named, *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ran.returncode:
        lines = (ran.stdout + ran.stderr).splitlines()[-20:]
        raise FailedPreconditionError(
            f"step {step.id} ended with {ran.returncode}:\n" + "\n".join(lines)
        )


def _upload(build: dict[str, Any], workspace: Path, bucket: Path) -> list[str]:
    """Put the artifacts where the bucket would be."""
    bucket.mkdir()
    paths: list[str] = build["artifacts"]["objects"]["paths"]
    for path in paths:
        shutil.copy2(workspace / path, bucket)
    return paths
