"""The servers of the loop's versions."""

import threading
from pathlib import Path

import psutil

from mlops_mini.loop.gateway import Gateway
from tests.serving.servers import publish_numbered, wait_until


def _is_asked(port: int) -> bool:
    own = psutil.Process().net_connections()
    return any(each.raddr and each.raddr.port == port for each in own)


def test_a_server_that_dies_while_it_is_asked_is_started_once_more(
    toy_models: Path, tmp_path: Path
) -> None:
    publish_numbered(toy_models, tmp_path / "models" / "m", 1)
    with Gateway(tmp_path, "m", has_router=False) as gateway:
        port = int(gateway.start(1).rest.rpartition(":")[2])
        first = psutil.Process(gateway.pids["v1"])
        first.suspend()  # so it's alive, and doesn't answer
        backends: list[object] = []
        asking = threading.Thread(target=lambda: backends.append(gateway.start(1)))
        asking.start()
        wait_until(lambda: _is_asked(port), "the question")
        first.kill()
        asking.join(120)

        assert backends
        assert gateway.pids["v1"] != first.pid
        assert gateway.is_alive(1)
