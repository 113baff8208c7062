"""Versions that come and go under a running server."""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from google.protobuf.wrappers_pb2 import BytesValue
from tensorflow_serving.config import model_server_config_pb2

from mlops_mini.wire import PREDICT_METHOD, PredictResponse
from tests.serving.servers import Server, predict_request, publish_numbered, wait_until

StartServer = Callable[..., Server]


@pytest.mark.parametrize("is_missing", [True, False])
def test_both_ports_answer_before_there_is_a_model_and_find_it_when_it_appears(
    start_server: StartServer, toy_models: Path, base: Path, is_missing: bool
) -> None:
    if is_missing:
        base.rmdir()
    server = start_server(base)

    answer = server.predict({"instances": [0]})
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(PREDICT_METHOD)(predict_request("x", np.float32([0])), timeout=10)
    assert (answer.status, answer.json) == (
        404,
        {"error": "Servable not found for request: Latest(m)"},
    )
    assert raised.value.details() == "Servable not found for request: Latest(m)"

    base.mkdir(exist_ok=True)
    publish_numbered(toy_models, base, 1)
    server.wait_for(1)
    assert server.predict({"instances": [0]}).json == {"predictions": [1.0]}


def test_a_half_written_version_waits_until_it_is_complete(
    start_server: StartServer, toy_models: Path, base: Path
) -> None:
    publish_numbered(toy_models, base, 1)
    server = start_server(base, "--max_num_load_retries=0")
    server.wait_for(1)

    (base / "2").mkdir()
    shutil.copytree(toy_models / "numbered/2/variables", base / "2/variables")
    server.wait_for(2, "END")
    failed = server.ask("GET", "/v1/models/m/versions/2").json["model_version_status"][0]["status"]
    assert failed["error_code"] == "NOT_FOUND"
    assert "does not appear to contain a SavedModel bundle" in failed["error_message"]
    assert server.predict({"instances": [0]}).json == {"predictions": [1.0]}

    shutil.copy(toy_models / "numbered/2/saved_model.pb", base / "2/saved_model.pb")
    server.wait_for(2)
    assert server.predict({"instances": [0]}).json == {"predictions": [2.0]}


@pytest.mark.parametrize("content", [b"", b"no protobuf \xff\xff", b"\x08\x01"])
def test_a_graph_that_cannot_be_read_takes_nobody_down(
    start_server: StartServer, toy_models: Path, base: Path, content: bytes
) -> None:
    publish_numbered(toy_models, base, 1)
    publish_numbered(toy_models, base, 2)
    (base / "2/saved_model.pb").write_bytes(content)
    server = start_server(base, "--max_num_load_retries=0")
    server.wait_for(1)

    assert server.states() == {2: "END", 1: "AVAILABLE"}
    assert server.predict({"instances": [0]}).json == {"predictions": [1.0]}


def test_cut_variables_end_the_version_with_tensorflows_own_code(
    start_server: StartServer, toy_models: Path, base: Path
) -> None:
    publish_numbered(toy_models, base, 1)
    (base / "1/variables/variables.data-00000-of-00001").write_bytes(b"")
    server = start_server(base, "--max_num_load_retries=0")
    server.wait_for(1, "END")

    status = server.ask("GET", "/v1/models/m").json["model_version_status"][0]["status"]
    assert status["error_code"] in {"DATA_LOSS", "OUT_OF_RANGE"}


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
    assert (ready.status, list(ready.json["models"])) == (503, ["missing"])

    replace_file(file, model_list(m=toy_models / "numbered", toy=toy_models / "toy"))
    wait_until(lambda: server.ask("GET", "/readyz").status == 200, "the toy model")
    assert server.ask("GET", "/v1/models/toy").json["model_version_status"][0]["version"] == "1"

    for broken in ("bogus", ""):
        n_refused = server.log_file.read_text().count("the old one stays")
        replace_file(file, broken)
        wait_until(
            lambda n=n_refused: server.log_file.read_text().count("the old one stays") > n,
            "the broken file to be refused",
        )
        assert server.predict({"instances": [0]}).json == {"predictions": [5.0]}

    replace_file(file, model_list(toy=toy_models / "toy"))
    server.wait_for(5, "END")
    gone = server.predict({"instances": [0]})
    assert (gone.status, gone.json) == (404, {"error": "Servable not found for request: Latest(m)"})
    assert server.ask("GET", "/readyz").status == 200


def test_without_a_poll_a_configuration_file_is_read_once(
    start_server: StartServer, toy_models: Path, base: Path, tmp_path: Path
) -> None:
    publish_numbered(toy_models, base, 1)
    file = tmp_path / "models.config"
    file.write_text(model_list(m=base))
    server = start_server(tmp_path, f"--model_config_file={file}")
    server.wait_for(1)
    replace_file(file, model_list(other=base))
    publish_numbered(toy_models, base, 2)
    server.wait_for(2)  # looks for versions went on meanwhile

    assert server.ask("GET", "/v1/models/other").status == 404


@pytest.mark.parametrize("poll_wait_s", [0, -1])
def test_who_is_not_to_poll_looks_once_or_never(
    start_server: StartServer, toy_models: Path, base: Path, poll_wait_s: int
) -> None:
    publish_numbered(toy_models, base, 1)
    server = start_server(base, f"--file_system_poll_wait_seconds={poll_wait_s}")
    watched = start_server(base)
    if poll_wait_s == 0:
        server.wait_for(1)

    publish_numbered(toy_models, base, 2)
    watched.wait_for(2)

    assert server.states() == ({1: "AVAILABLE"} if poll_wait_s == 0 else {})


def test_no_request_fails_while_the_version_changes(
    start_server: StartServer, toy_models: Path, base: Path
) -> None:
    publish_numbered(toy_models, base, 1)
    server = start_server(base)
    server.wait_for(1)
    done = threading.Event()
    request = predict_request("x", np.float32([0, 0]))

    def over_rest() -> list[float]:
        seen = []
        while not done.is_set():
            answer = server.predict({"instances": [0, 0]})
            assert answer.status == 200, answer.body
            seen.append(answer.json["predictions"][0])
        return seen

    def over_grpc() -> list[float]:
        seen = []
        with grpc.insecure_channel(server.grpc) as channel:
            call = channel.unary_unary(PREDICT_METHOD)
            while not done.is_set():
                answer = PredictResponse.from_bytes(call(request, timeout=30))
                assert answer.outputs["version"][0] == answer.model_spec.version
                seen.append(float(answer.outputs["version"][0]))
        return seen

    with ThreadPoolExecutor(2) as pool:
        askers = [pool.submit(over_rest), pool.submit(over_grpc)]
        try:
            for version in (2, 3, 4):
                publish_numbered(toy_models, base, version)
                server.wait_for(version)
                server.wait_for(version - 1, "END")
            shutil.rmtree(base / "4")  # back to 3
            server.wait_for(4, "END")
        finally:
            done.set()
        seen = [asker.result() for asker in askers]

    assert [set(answers) for answers in seen] == [{1.0, 2.0, 3.0, 4.0}] * 2
    assert min(map(len, seen)) > 100
    assert server.states() == {4: "END", 3: "AVAILABLE", 2: "END", 1: "END"}


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
