"""The whole server as a process: start, stop, and what must not end it."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from mlops_mini.wire import PREDICT_METHOD, PredictResponse
from tests.serving.servers import (
    Server,
    predict_request,
    start_main,
    wait_until,
)

StartServer = Callable[..., Server]

SCRIPT = str(Path(sys.executable).with_name("mini-model-server"))
SLOW_STEPS = 800_000  # of the slow model: a second or two


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_the_script_serves_and_stops(toy_models: Path, tmp_path: Path) -> None:
    address_file = tmp_path / "addresses.json"
    argv = [
        SCRIPT, "--rest_api_port=0", "--port=0", f"--address_file={address_file}", "--color=red",
        "--rest_api_timeout_ms=9",
        f"--model_base_path={toy_models / 'numbered'}", "--model_name=m",
    ]  # fmt: skip
    # Whoever sets this wants native logs; a test before this one may have imported TensorFlow here.
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    with (
        (tmp_path / "err").open("w") as log,
        subprocess.Popen(argv, stdout=log, stderr=log, env=env) as run,
    ):
        wait_until(address_file.exists, "the address file")
        server = Server(run, tmp_path)
        with grpc.insecure_channel(server.grpc) as channel:  # while TensorFlow is being imported
            ask = channel.unary_unary("/tensorflow.serving.PredictionService/GetModelMetadata")
            with pytest.raises(grpc.RpcError, match="Missing ModelSpec"):
                ask(b"", timeout=60)
            names = ProtoReflectionDescriptorDatabase(channel).get_services()
        server.wait_for(5)
        answer = server.predict({"instances": [0]}).json
        run.terminate()
        status = run.wait(120)

    assert answer == {"predictions": [5.0]}
    assert "tensorflow.serving.ModelService" in names
    assert status == 0
    written = server.log_file.read_text()
    assert "unknown argument: --color=red\n" in written
    assert "--rest_api_timeout_ms=9: did you mean --rest_api_timeout_in_ms?\n" in written
    # Nothing of TensorFlow's own, neither while it is imported nor after.
    assert not re.search(
        r"^([IWEF]\d{4} |WARNING: All log)|rebuild TensorFlow", written, re.MULTILINE
    )
    for line in (
        f"model_name: m model_base_path: {toy_models / 'numbered'}",
        f"Running gRPC ModelServer at {server.grpc} ...",
        f"Exporting HTTP/REST API at:localhost:{server.rest.split(':')[1]} ...",
        "Successfully loaded servable version {name: m version: 5}",
        "NET_LOG: Entering the event loop ...",
    ):
        assert line in written
    assert list(tmp_path.glob(".addresses*")) == []


def test_a_start_that_fails_late_ends_with_its_reason_and_no_traceback(tmp_path: Path) -> None:
    entry = 'config { name: "a" base_path: "/a" model_platform: "pytorch" }'
    file = tmp_path / "models.config"
    file.write_text(f"model_config_list {{ {entry} }}")
    argv = [f"--model_config_file={file}", "--port=0", f"--address_file={tmp_path / 'a'}"]
    ended = subprocess.run([SCRIPT, *argv], capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 255
    assert ended.stdout.endswith("Model a requests unsupported platform pytorch\n")
    assert "Traceback" not in ended.stderr


def test_a_unix_socket_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    process = start_main(
        ["--model_base_path=/a", "--port=0", "--grpc_socket_path=/no/such/m.sock"], tmp_path / "log"
    )
    process.join(60)

    assert process.exitcode == 255
    assert "cannot listen on unix:/no/such/m.sock" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("flag", ["port", "rest_api_port"])
def test_a_taken_port_ends_the_start_with_a_reason(
    flag: str, taken_port: int, base: Path, tmp_path: Path
) -> None:
    other = {"port": "rest_api_port", "rest_api_port": "port"}[flag]
    argv = [f"--model_base_path={base}", f"--{flag}={taken_port}", f"--{other}=0"]
    process = start_main([*argv, f"--address_file={tmp_path / 'a'}"], tmp_path / "log")
    process.join(60)

    assert process.exitcode == 255
    words = f"Failed to start server. Error: UNAVAILABLE: cannot listen on 127.0.0.1:{taken_port}"
    assert words in (tmp_path / "log").read_text()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("--strict_start", "No versions of servable"),
        ("--file_system_poll_wait_seconds=-1", "Adding/updating models."),
    ],
)
def test_a_start_that_still_waits_can_be_stopped(
    base: Path, tmp_path: Path, flag: str, line: str
) -> None:
    argv = [f"--model_base_path={base}", flag, "--port=0", f"--address_file={base}/a"]
    process = start_main(argv, tmp_path / "log")
    wait_for_line(tmp_path / "log", line)
    process.terminate()
    process.join(60)

    assert process.exitcode == 0
    assert not (base / "a").exists()


def test_flags_that_do_nothing_yet_are_warned_about_one_a_line(
    start_server: StartServer, toy_models: Path
) -> None:
    server = start_server(
        toy_models / "numbered", "--num_unload_threads=2", "--mixed_precision=bfloat16"
    )

    lines = [line for line in server.log_file.read_text().splitlines() if " W --" in line]
    assert [line.split(" W ")[1] for line in lines] == [
        "--num_unload_threads is accepted, and does nothing here",
        "--mixed_precision is accepted, and does nothing here",
    ]


def test_an_address_file_that_cannot_be_written_ends_the_start(base: Path, tmp_path: Path) -> None:
    argv = [f"--model_base_path={base}", "--port=0", f"--address_file={tmp_path}/no/such/folder"]
    process = start_main(argv, tmp_path / "log")
    process.join(60)

    assert process.exitcode == 255
    assert "FAILED_PRECONDITION: --address_file=" in (tmp_path / "log").read_text()


def test_sigterm_lets_the_request_in_flight_finish(
    start_server: StartServer, toy_models: Path
) -> None:
    server = start_server(toy_models / "slow", "--drain_timeout_s=120")
    server.wait_for(1)
    request = predict_request("n", np.int32([SLOW_STEPS]))
    with (
        socket.create_connection(server.rest.split(":"), timeout=30),  # idle, holds up nobody
        grpc.insecure_channel(server.grpc) as channel,
        ThreadPoolExecutor(2) as pool,
    ):
        call = channel.unary_unary(PREDICT_METHOD)
        over_rest = pool.submit(server.predict, {"instances": [SLOW_STEPS]})
        over_grpc = pool.submit(call, request, timeout=60)
        wait_until(lambda: _are_two_at_work(server), "two runs under way")
        status = server.stop(signal.SIGTERM)

        assert over_rest.result().json == {"predictions": [SLOW_STEPS]}
        answer = PredictResponse.from_bytes(over_grpc.result())
    assert answer.outputs["y"].tolist() == [SLOW_STEPS]
    assert status == 0
    assert server.log_file.read_text().endswith("stopped\n")


def test_sigterm_does_not_wait_longer_than_it_is_told(
    start_server: StartServer, toy_models: Path
) -> None:
    server = start_server(toy_models / "slow", "--drain_timeout_s=0")
    server.wait_for(1)
    n_threads = _n_threads(server)
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary(PREDICT_METHOD).future(
            predict_request("n", np.int32([60 * SLOW_STEPS])), timeout=60
        )
        wait_until(lambda: _n_threads(server) > n_threads, "a run under way")
        status = server.stop(signal.SIGTERM)
        error = call.exception(timeout=60)

    assert status == 0
    assert error.code() == grpc.StatusCode.UNAVAILABLE  # its run was not waited for


def test_a_run_over_its_limit_is_ended_and_the_server_goes_on(
    start_server: StartServer, toy_models: Path
) -> None:
    server = start_server(toy_models / "slow", "--rest_api_timeout_in_ms=1000")
    server.wait_for(1)

    answer = server.predict({"instances": [60 * SLOW_STEPS]})

    assert (answer.status, answer.json) == (504, {"error": "Timed out waiting for notification"})
    assert server.predict({"instances": [1]}).json == {"predictions": [1]}


def test_a_slow_request_does_not_stop_the_others(
    start_server: StartServer, toy_models: Path
) -> None:
    server = start_server(toy_models / "slow")
    server.wait_for(1)
    n_threads = _n_threads(server)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.predict, {"instances": [SLOW_STEPS]})
        wait_until(lambda: _n_threads(server) > n_threads, "a run under way")
        quick = server.predict({"instances": [1]})
        was_waiting = not slow.done()

        assert quick.json == {"predictions": [1]}
        assert was_waiting
        assert slow.result().status == 200


@pytest.mark.parametrize("shape", [[], [1], [1, 4, 4], [1, 1, 4, 4, 1]])
def test_a_wrong_rank_for_a_convolution_is_refused_and_the_server_lives(
    convolution_server: Server, shape: list[int]
) -> None:
    image = np.ones(shape, np.float32)

    answer = convolution_server.predict({"inputs": image.tolist()})
    with grpc.insecure_channel(convolution_server.grpc) as channel:
        call = channel.unary_unary(PREDICT_METHOD)
        with pytest.raises(grpc.RpcError) as raised:
            call(predict_request("x", image), timeout=30)

    text = f"convolution input must be 4-dimensional: [{','.join(map(str, shape))}]"
    assert (answer.status, answer.json["error"]) == (400, text)
    assert raised.value.details() == text
    good = convolution_server.predict({"instances": np.ones([1, 4, 4, 1]).tolist()})
    assert good.json == {"predictions": [100.0]}


@pytest.fixture(scope="module")
def convolution_server(
    toy_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    server = Server.start(toy_models / "convolution", tmp_path_factory.mktemp("convolution"))
    server.wait_for(1)
    yield server
    server.close()


def test_fifty_connections_at_once_are_answered(toy_server: Server) -> None:
    bodies = [{"instances": [number]} for number in range(50)]

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(toy_server.predict, bodies))

    assert [answer.json["predictions"] for answer in answers] == [
        [0.5 * number + 2] for number in range(50)
    ]


def wait_for_line(log: Path, words: str) -> None:
    wait_until(lambda: log.exists() and words in log.read_text(), f"{words!r} in {log}")


def _are_two_at_work(server: Server) -> bool:
    """Say whether two threads compute all the time: both runs have begun, and neither has ended."""
    for _ in range(5):
        states = []
        for task in _tasks(server):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                states.append(task.read_text().rpartition(")")[2][1])
        if states.count("R") < 2:
            return False
        time.sleep(0.005)  # between two looks; nothing is waited for
    return True


def _tasks(server: Server) -> list[Path]:
    return list(Path(f"/proc/{server.process.pid}/task").glob("*/stat"))


def _n_threads(server: Server) -> int:
    """Count threads: a request that finds no idle worker makes a new one when its run begins."""
    return len(_tasks(server))
