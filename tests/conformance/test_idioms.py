"""How clients wait for TensorFlow Serving: an open port, and the words for a missing model.

The servers are started with TensorFlow Serving's flags alone, and are asked once, not again.
"""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.conformance.grpc_cases import floats
from tests.conformance.protos import Protos
from tests.conformance.served import Served
from tests.serving.servers import Launcher, Server, free_ports, wait_until

BODY = json.dumps({"instances": [0]})


@dataclass
class Started:
    """A server that may not listen yet."""

    process: Server
    rest: str
    grpc: str


Start = Callable[..., Started]


@pytest.fixture
def start(launcher: Launcher, tmp_path: Path) -> Iterator[Start]:
    started: list[Server] = []

    def launch(*flags: str) -> Started:
        rest, port = free_ports(2)
        ports = (f"--port={port}", f"--rest_api_port={rest}")
        started.append(launcher.start(tmp_path / f"started_{len(started)}", *ports, *flags))
        return Started(started[-1], f"127.0.0.1:{rest}", f"127.0.0.1:{port}")

    yield launch
    for server in started:
        server.close()


@pytest.fixture
def flags(table_models: Path) -> tuple[str, ...]:
    return (f"--model_base_path={table_models}/numbered", "--model_name=m")


def wait_for_port(address: str, process: Server) -> None:
    host, port = address.split(":")

    def is_open() -> bool:
        assert process.process.is_alive(), process.err
        with suppress(OSError), socket.create_connection((host, int(port)), 5):
            return True
        return False

    wait_until(is_open, f"the port, see {process.folder}", timeout_s=60)


def test_who_waits_for_the_rest_port_is_answered(
    start: Start, flags: tuple[str, ...], serving_protos: Protos
) -> None:
    server = start(*flags)
    wait_for_port(server.rest, server.process)

    with closing(Served(server.rest, server.grpc, serving_protos)) as served:
        answer = served.ask("POST", "/v1/models/m:predict", BODY)
        status = served.ask("GET", "/v1/models/m")

    assert (answer.status, answer.json) == (200, {"predictions": [4.0]})
    assert status.json["model_version_status"][0]["state"] == "AVAILABLE"


def test_who_waits_for_the_grpc_channel_is_answered(
    start: Start, flags: tuple[str, ...], serving_protos: Protos
) -> None:
    server = start(*flags)

    with closing(Served(server.rest, server.grpc, serving_protos)) as served:
        grpc.channel_ready_future(served.channel).result(timeout=60)
        request = {"model_spec": {"name": "m"}, "inputs": {"x": floats(0)}}
        code, message, _ = served.call("Predict", request)

    assert (code, message) == ("OK", "")


def test_who_asks_for_a_missing_model_until_it_is_not_found_is_answered(
    start: Start, flags: tuple[str, ...], serving_protos: Protos
) -> None:
    server = start(*flags)

    def is_up() -> bool:  # in the words that TensorFlow Serving's own tests look for
        with closing(Served(server.rest, server.grpc, serving_protos)) as served:
            return "Servable" in served.call("Predict", {"model_spec": {"name": "no"}})[1]

    wait_until(is_up, f"the words, see {server.process.folder}", timeout_s=60, pace_s=0.05)
    with closing(Served(server.rest, server.grpc, serving_protos)) as served:
        request = {"model_spec": {"name": "m"}, "inputs": {"x": floats(0)}}
        code, message, _ = served.call("Predict", request)

    assert (code, message) == ("OK", "")


def config(folders: dict[str, Path]) -> str:
    entries = [
        f'config {{ name: "{name}" base_path: "{folder}" model_platform: "tensorflow" }}'
        for name, folder in folders.items()
    ]
    return f"model_config_list {{ {' '.join(entries)} }}"


def test_models_that_cannot_be_loaded_keep_no_port_closed(
    launcher: Launcher, start: Start, table_models: Path, tmp_path: Path, serving_protos: Protos
) -> None:
    if not launcher.is_ours:
        pytest.skip("TensorFlow Serving ends, or waits for ever")
    broken, empty, half = (tmp_path / name for name in ("broken", "empty", "half"))
    (broken / "1").mkdir(parents=True)
    (broken / "1" / "saved_model.pb").write_bytes(b"no protobuf \xff\xff")
    empty.mkdir()
    (half / "1").mkdir(parents=True)
    file = tmp_path / "models.config"
    good = table_models / "numbered"
    folders = {"m": good, "broken": broken, "empty": empty, "half": half, "gone": tmp_path / "gone"}
    file.write_text(config(folders))
    server = start(f"--model_config_file={file}")
    wait_for_port(server.rest, server.process)

    with closing(Served(server.rest, server.grpc, serving_protos)) as served:
        assert served.ask("POST", "/v1/models/m:predict", BODY).json == {"predictions": [4.0]}
        ready = served.ask("GET", "/readyz")

    assert ready.status == 503
    reasons = {name: model.get("reason", "") for name, model in ready.json["models"].items()}
    assert reasons.pop("m") == ""
    assert reasons["broken"].startswith("version 1 cannot be loaded: Can't parse ")
    assert reasons["empty"].startswith("No versions of servable empty found under base path ")
    assert reasons["half"] == "version 1 waits: it is an empty folder"
    assert reasons["gone"].startswith("Could not find base path ")


def test_ports_open_at_once_for_those_who_ask_for_it(
    launcher: Launcher, start: Start, tmp_path: Path, table_models: Path, serving_protos: Protos
) -> None:
    if not launcher.is_ours:
        pytest.skip("this flag is ours alone")
    (tmp_path / "m").mkdir()
    never = "--file_system_poll_wait_seconds=-1"  # as TensorFlow Serving, which then waits for ever
    base = ("--model_name=m", f"--model_base_path={tmp_path}/m", never)
    early, late = start(*base, "--open_ports_early"), start(*base)
    wait_for_port(early.rest, early.process)

    with closing(Served(early.rest, early.grpc, serving_protos)) as served:
        ready = served.ask("GET", "/readyz")
        answer = served.ask("POST", "/v1/models/m:predict", BODY)

    assert ready.json["models"]["m"]["reason"] == "its versions are being loaded"
    assert (answer.status, answer.json["error"]) == (
        404,
        "Servable not found for request: Latest(m)",
    )
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(late.rest.split(":")[1])))
