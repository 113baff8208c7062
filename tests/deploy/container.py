"""Containers of images that serve models, as tests look at them."""

import http.client
import json
import subprocess
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from mlops_mini import containers
from tests.serving.servers import wait_until

HARDENED = [*containers.LOCKED_UP, "--memory=2g"]


@dataclass
class Container:
    """A container that runs, or has ended."""

    id: str

    def address(self, port: int) -> str:
        return containers.docker("port", self.id, str(port)).splitlines()[0]

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask over REST; status 0 as long as nobody answers."""
        with closing(http.client.HTTPConnection(self.address(8501), timeout=60)) as connection:
            try:
                connection.request(
                    "GET" if body is None else "POST", path, body and json.dumps(body)
                )
                response = connection.getresponse()
                text = response.read().decode()
            except (OSError, http.client.HTTPException):
                return 0, None
        return response.status, json.loads(text) if text.startswith("{") else text

    def predict(self, model: str, rows: list[float], which: str = "") -> list[float]:
        path = f"/v1/models/{model}{which}:predict"
        status, answer = self.ask(path, {"instances": rows})
        assert status == 200, answer
        return answer["predictions"]

    def wait_until_ready(self) -> None:
        def look() -> bool:
            assert self.inspect("{{.State.Running}}") == "true", self.log()
            return self.ask("/readyz")[0] == 200

        wait_until(look, "the first model", pace_s=0.1)

    def inspect(self, form: str) -> str:
        return containers.docker("inspect", f"--format={form}", self.id)

    def log(self) -> str:
        ran = subprocess.run(
            ["docker", "logs", self.id], capture_output=True, text=True, check=True
        )
        return ran.stdout + ran.stderr

    def sh(self, script: str) -> subprocess.CompletedProcess[str]:
        command = ["docker", "exec", self.id, "sh", "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=False)
