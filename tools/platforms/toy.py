"""A model that takes a moment to make, and containers that are asked over REST."""

import http.client
import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from mlops_mini import containers
from mlops_mini.errors import DeadlineExceededError, FailedPreconditionError
from tools import image

_WRITE = """
import sys, tensorflow as tf
class Model(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def __call__(self, x):
        return {"y": x / 2 + 2}
tf.saved_model.save(Model(), sys.argv[1])
"""
_READY_S = 120.0


def write_half_plus_two(version_folder: Path) -> None:
    """Write the model that adds 2 to the half of its input, by the image that has TensorFlow."""
    base = version_folder.parent
    base.mkdir(parents=True, exist_ok=True)
    containers.docker(
        "run", "--rm", "--network=none", f"--user={os.getuid()}:{os.getgid()}",
        containers.mount(base, "write"), containers.image(image.COMPONENTS).digest,
        "python3", "-c", _WRITE, str(version_folder),
    )  # fmt: skip


def ask(
    address: str, method: str, path: str, body: str = "", content_type: str = ""
) -> tuple[int, str]:
    """Ask once; status 0 if nobody answers."""
    with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        try:
            headers = {"Content-Type": content_type} if content_type else {}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""


def seconds_until(is_ready: Callable[[], bool], container: str) -> float:
    """Wait until a container is ready, and return how long that took.

    Raises:
        FailedPreconditionError: It has ended.
        DeadlineExceededError: It isn't ready in time.
    """
    began = time.monotonic()
    while not is_ready():
        if containers.docker("inspect", "--format={{.State.Running}}", container) != "true":
            log = containers.docker("logs", container)
            raise FailedPreconditionError(f"the container has ended: {log[-500:]}")
        if time.monotonic() > began + _READY_S:
            raise DeadlineExceededError(f"the container isn't ready in {_READY_S:.0f} s")
        time.sleep(0.05)
    return time.monotonic() - began
