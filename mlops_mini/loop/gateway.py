"""Who answers: a model server per version, and Envoy in front of them.

Where there's no Envoy for a platform, the server of the stable version is asked directly, and a new
version replaces it without a release.
"""

from __future__ import annotations

import json
import logging
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from mlops_mini.errors import UnavailableError
from mlops_mini.local_server import LocalServer
from mlops_mini.rollout.envoy import Envoy, Router
from mlops_mini.rollout.policy import Backend, TrafficPolicy

logger = logging.getLogger(__name__)

_ONE_VERSION = """\
model_config_list {{
  config {{
    name: {name}
    base_path: {base_path}
    model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: {version} }} }}
    logging_config {{
      log_collector_config {{ type: "tfrecord" filename_prefix: {log} }}
      sampling_config {{ sampling_rate: 1.0 }}
    }}
  }}
}}
"""


class Gateway:
    """The servers of a loop and their router; they end with the `with`, or with us."""

    def __init__(self, workspace: Path, model: str, *, has_router: bool | None = None) -> None:
        """Start nothing yet.

        Args:
            workspace: The loop's.
            model: Name of the model, whose versions are in `models/MODEL` of the workspace.
            has_router: Whether requests go through Envoy; if it's there for this platform if None.
        """
        self._workspace, self._model = workspace.resolve(), model
        self._servers: dict[int, LocalServer] = {}
        self._envoy: Envoy | None = None
        self.has_router = find_spec("envoy") is not None if has_router is None else has_router

    @property
    def router(self) -> Router:
        """Tells Envoy who gets what.

        Raises:
            UnavailableError: There is no Envoy.
        """
        if self._envoy is None:
            raise UnavailableError("there is no Envoy for this platform")
        return self._envoy.router

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name: `v1`, `v2`, ... and `envoy`."""
        pids = {f"v{version}": server.process.pid for version, server in self._servers.items()}
        return pids | ({"envoy": self._envoy.pid} if self._envoy else {})

    def log(self, version: int) -> Path:
        """Tell the prefix of a version's request log."""
        return self._workspace / "logs" / f"v{version}"

    def prepare(self, version: int) -> None:
        """Begin to start the server of a version, if it doesn't run.

        Of one that isn't there yet, too: the server imports TensorFlow meanwhile, and loads the
        version as soon as it's published.
        """
        server = self._servers.get(version)
        if server is not None and is_alive(server):
            return
        if server:
            server.close()
        folder = self._workspace / "servers" / f"v{version}"
        folder.mkdir(parents=True, exist_ok=True)
        models = self._workspace / "models" / self._model
        words = {
            "name": self._model, "base_path": str(models), "log": str(self.log(version)),
        }  # fmt: skip
        config = folder / "models.config"
        config.write_text(
            _ONE_VERSION.format(version=version, **{k: json.dumps(v) for k, v in words.items()})
        )
        self._servers[version] = LocalServer(
            models, folder, flags=[f"--model_config_file={config}"], is_awaited=False
        )

    def start(self, version: int) -> Backend:
        """Start the server of a version, if it doesn't run, and wait until it answers.

        One that dies meanwhile is started once more.

        Raises:
            UnavailableError: It has died again.
            DeadlineExceededError: It doesn't load the version in time.
        """
        for is_last in (False, True):
            self.prepare(version)
            server = self._servers[version]
            try:
                server.wait_until_served(version)
            except UnavailableError:
                if is_last or is_alive(server):
                    raise
            else:
                break
        return Backend(name=f"v{version}", rest=server.address("rest"), grpc=server.address("grpc"))

    def serve(self, version: int) -> str:
        """Have a version answer all requests.

        Returns:
            Where to ask, `IP:PORT`.
        """
        backend = self.start(version)
        if not self.has_router:
            return backend.rest
        policy = TrafficPolicy(model=self._model, stable=backend)
        if self._envoy is None:
            folder = self._workspace / "envoy"
            shutil.rmtree(folder, ignore_errors=True)  # it knows servers that are gone
            self._envoy = Envoy(folder, policy)
        self._envoy.keep_running()
        self._envoy.router.apply(policy)
        return self._envoy.router.address

    def is_alive(self, version: int) -> bool:
        """Tell whether the server of a version runs."""
        server = self._servers.get(version)
        return server is not None and is_alive(server)

    def keep_router_running(self) -> bool:
        """Start Envoy anew, at the same address, if it has died, and tell whether it had."""
        return self._envoy is not None and self._envoy.keep_running()

    def stop(self, version: int) -> None:
        """Stop the server of a version."""
        if server := self._servers.pop(version, None):
            server.close()

    def close(self) -> None:
        """End all processes."""
        if self._envoy is not None:
            self._envoy.close()
        for version in list(self._servers):
            self.stop(version)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def is_alive(server: LocalServer) -> bool:
    """Tell whether a server's process runs."""
    try:
        server.process.check_alive()
    except UnavailableError as exc:
        logger.warning("%s", exc)
        return False
    return True
