"""Versions that come and go under a running server."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format
from google.protobuf.wrappers_pb2 import BytesValue
from tensorflow_serving.config import model_server_config_pb2

from mlops_mini.serving import server
from mlops_mini.serving.models import Models
from tests.serving.servers import Server, wait_until

StartServer = Callable[..., Server]


def model_list(**folders: Path) -> str:
    """Write a configuration file's text: models by name."""
    models = (
        f'config {{ name: "{name}" base_path: "{folder}" model_platform: "tensorflow" }}'
        for name, folder in folders.items()
    )
    return f"model_config_list {{ {', '.join(models)} }}"


def replace_file(file: Path, text: str) -> None:
    file.with_suffix(".new").write_text(text)
    file.with_suffix(".new").rename(file)


def test_a_configuration_file_that_changes_is_applied_and_a_broken_one_is_not(
    start_server: StartServer, toy_models: Path, tmp_path: Path
) -> None:
    file = tmp_path / "models.config"
    file.write_text(model_list(m=toy_models / "numbered", missing=tmp_path / "missing"))
    server = start_server(
        tmp_path, f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1"
    )
    server.wait_for(5)  # the missing one holds up nobody
    ready = server.ask("GET", "/readyz")
    is_ready = {name: model["ready"] for name, model in ready.json["models"].items()}
    assert (ready.status, is_ready) == (503, {"m": True, "missing": False})

    replace_file(file, model_list(m=toy_models / "numbered", toy=toy_models / "toy"))
    wait_until(lambda: server.ask("GET", "/readyz").status == 200, "the toy model")
    assert server.ask("GET", "/v1/models/toy").json["model_version_status"][0]["version"] == "1"

    refused = "the configuration file is not applied, the old one stays: "
    for broken in ("bogus", ""):
        n_refused = server.err.count(refused)
        replace_file(file, broken)
        wait_until(lambda n=n_refused: server.err.count(refused) > n, "it to be refused")
        assert server.predict({"instances": [0]}).json == {"predictions": [5.0]}

    replace_file(file, model_list(toy=toy_models / "toy"))
    server.wait_for(5, "END")
    gone = server.predict({"instances": [0]})
    assert (gone.status, gone.json["error"]) == (404, "Servable not found for request: Latest(m)")
    assert server.ask("GET", "/readyz").status == 200


def test_a_broken_configuration_file_is_one_line_however_often_it_is_looked_at(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "models.config"
    models = Models(lambda *_: pytest.fail("nothing is loaded"))

    async def look(*texts: str) -> None:
        problem = ""
        for text in texts:
            file.write_text(text)
            _, problem = await server._apply_again(models, file, [], problem)

    good = "model_config_list {}"
    with caplog.at_level(logging.ERROR):
        asyncio.run(look("bogus", "bogus", "bogus", "", "", good, "bogus", "bogus"))

    words = [message.removeprefix("the configuration file is not applied, the old one stays: ")
             for message in caplog.messages]  # fmt: skip
    bogus = (
        f"Invalid protobuf file: '{file}' (Error parsing text-format"
        ' tensorflow.serving.ModelServerConfig: 1:1 : Message type "tensorflow.serving.'
    )
    assert [word.startswith(bogus) for word in words] == [True, False, True]
    assert words[1].startswith("Cannot transition to requested config.")


def reload_request(models: str) -> bytes:
    """Write a ReloadConfigRequest, whose field 1 is the configuration, from text."""
    config = text_format.Parse(models, model_server_config_pb2.ModelServerConfig())
    return BytesValue(value=config.SerializeToString()).SerializeToString()


def test_no_request_fails_over_twenty_reloads_that_swap_version_and_label(
    start_server: StartServer, toy_models: Path
) -> None:
    server = start_server(toy_models / "numbered")
    server.wait_for(5)
    done = threading.Event()

    def ask(target: str) -> list[float]:
        seen = []
        while not done.is_set():
            answer = server.predict({"instances": [0]}, target)
            assert answer.status == 200, answer.body
            seen.append(answer.json["predictions"][0])
        return seen

    with grpc.insecure_channel(server.grpc) as channel, ThreadPoolExecutor(2) as pool:

        def swap_to(version: int) -> None:
            config = model_list(m=toy_models / "numbered").replace(
                "} }",
                f"model_version_policy {{ specific {{ versions: {version} }} }}"
                f' version_labels {{ key: "stable" value: {version} }} }} }}',
            )
            reload = channel.unary_unary(
                "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
            )
            reload(reload_request(config), timeout=30)
            server.wait_for(version)

        swap_to(4)
        askers = [pool.submit(ask, target) for target in ("", "/labels/stable")]
        try:
            for number in range(20):
                swap_to(5 - number % 2)
                server.wait_for(4 + number % 2, "END")
        finally:
            done.set()
        latest, labeled = (asker.result() for asker in askers)

    assert set(latest) == set(labeled) == {4.0, 5.0}
    assert len(latest) + len(labeled) > 200
