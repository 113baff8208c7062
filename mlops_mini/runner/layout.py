"""Paths of the files of runs and attempts, laid out so that no user's name collides with ours.

::

    ROOT/runs.sqlite, runs.lock, fork_server.log
    ROOT/RUN/.lock
    ROOT/RUN/TASK/attempt-1/job.json, result.json, log.txt, imports.txt, container, work/, ...
    ROOT/RUN/TASK/attempt-1/artifacts/OUTPUT, executor_output.json
    ROOT/RUN/TASK/attempt-1/parameters/OUTPUT
"""

from __future__ import annotations

import re
from pathlib import Path

from mlops_mini.errors import InvalidArgumentError

RUNS, FORK_SERVER_LOG = "runs.sqlite", "fork_server.log"
# Also those that SQLite and locks make beside them; a disk may not tell `Runs` from `runs`.
_OWN_IN_ROOT = ("runs.", "fork_server.")
RUN_LOCK = ".lock"
JOB, RESULT, LOG, WORK = "job.json", "result.json", "log.txt", "work"
IMPORTS = "imports.txt"
# There while an attempt has a container, which no signal to its process reaches.
CONTAINER = "container"
_EXECUTOR_OUTPUT = "executor_output.json"
# Where Kubeflow's launcher mounts what is not a file of the machine.
_MOUNTS = {"gs://": "/gcs/", "minio://": "/minio/", "s3://": "/s3/"}


def check_run_id(run_id: str) -> None:
    """Refuse what cannot name the folder of a run.

    Raises:
        InvalidArgumentError: It has other letters than a folder's name should, or is ours.

    >>> check_run_id("judged-on-2013-03")
    >>> check_run_id("runs.sqlite")
    Traceback (most recent call last):
    mlops_mini.errors.InvalidArgumentError: 'runs.sqlite' cannot name a run: names that begin with \
'runs.' or 'fork_server.' are those of the runner's own files
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", run_id):
        raise InvalidArgumentError(
            f"{run_id!r} cannot name a run, which names a folder: use at most 128 letters, digits, "
            "and . _ -, a letter or digit first"
        )
    if run_id.lower().startswith(_OWN_IN_ROOT):
        raise InvalidArgumentError(
            f"{run_id!r} cannot name a run: names that begin with "
            f"{' or '.join(map(repr, _OWN_IN_ROOT))} are those of the runner's own files"
        )


def mounted(uri: str) -> str:
    """Return the path at which a task finds an artifact, as the launcher and kfp know it.

    See backend/src/v2/component/launcher_v2.go, LocalPathForURI, of
    https://github.com/kubeflow/pipelines, and `Model.path` of kfp.

    >>> [mounted(uri) for uri in ("s3://bucket/rows.csv", "oci://registry/model", "/rows.csv")]
    ['/s3/bucket/rows.csv', '/oci/registry_model/models', '/rows.csv']
    """
    for prefix, mount in _MOUNTS.items():
        if uri.startswith(prefix):
            return mount + uri.removeprefix(prefix)
    if uri.startswith("oci://"):
        return f"/oci/{uri.removeprefix('oci://').replace('/', '_')}/models"
    return uri


def container_label(attempt: Path) -> str:
    """Return the label by which the container of an attempt is found."""
    return f"mlops-mini.attempt={attempt}"


def executor_output(attempt: Path) -> Path:
    """Return the file that kfp's executor writes; `dsl.get_uri` names files beside it."""
    return attempt / "artifacts" / _EXECUTOR_OUTPUT


def artifact(attempt: Path, name: str) -> Path:
    """Return the path at which an attempt makes an output artifact.

    Raises:
        InvalidArgumentError: The name would lead elsewhere.
    """
    return attempt / "artifacts" / _checked(name)


def parameter(attempt: Path, name: str) -> Path:
    """Return the file to which an attempt may write an output parameter.

    Raises:
        InvalidArgumentError: The name would lead elsewhere.
    """
    return attempt / "parameters" / _checked(name)


def _checked(name: str) -> str:
    if name in {"", ".", "..", _EXECUTOR_OUTPUT} or "/" in name or "\0" in name:
        raise InvalidArgumentError(f"{name!r} cannot name an output, which names a file: rename it")
    return name
