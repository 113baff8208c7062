"""A real server with TensorFlow Serving's batching flags, and without batches."""

import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlops_mini.wire import PredictResponse
from tests.serving.servers import Server, predict_request, start_main, wait_until

PREDICT = "/tensorflow.serving.PredictionService/Predict"
StartServer = Callable[..., Server]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers with batching parameters, and ends them with the test."""
    started: list[Server] = []

    def start(base: Path, parameters: str | None, *flags: str) -> Server:
        if parameters is not None:
            (tmp_path / "parameters").write_text(parameters)
            flags = (
                "--enable_batching",
                f"--batching_parameters_file={tmp_path}/parameters",
                *flags,
            )
        started.append(Server.start(base, tmp_path / f"server_{len(started)}", *flags))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture(scope="module")
def limited(toy_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Waits a second for rows, unless it has four; other tests may ask it at the same time."""
    folder = tmp_path_factory.mktemp("limited")
    parameters = folder / "parameters"
    parameters.write_text("max_batch_size { value: 4 } batch_timeout_micros { value: 200000 }")
    flags = ("--enable_batching", f"--batching_parameters_file={parameters}")
    server = Server.start(toy_models / "batched", folder, *flags)
    yield server
    server.close()


def at_once(asks: Sequence[Callable[[], Any]]) -> list[Any]:
    """Call functions on a thread each; return what they return."""
    answers: dict[int, Any] = {}

    def call(index: int) -> None:
        answers[index] = asks[index]()

    threads = [threading.Thread(target=call, args=[index]) for index in range(len(asks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[index] for index in range(len(asks))]


def ask(server: Server, *rows: Any, signature: str = "") -> Callable[[], Any]:
    body = {"signature_name": signature, "instances": [*rows]}

    def go() -> Any:
        answer = server.predict(body)
        return answer.status, answer.json.get("error", answer.json.get("predictions"))

    return go


def test_requests_share_a_run_and_each_gets_its_rows(limited: Server) -> None:
    count = [ask(limited, 0.0, signature="counting") for _ in range(4)]

    answers = at_once(count)

    # The counter counts runs: whoever asks for batches gets them, of any model.
    counts = [rows[0] for _, rows in answers]
    assert [status for status, _ in answers] == [200] * 4
    assert len(set(counts)) < 4
    assert at_once([ask(limited, float(n)) for n in range(8)]) == [
        (200, [2.0 * n]) for n in range(8)
    ]


def test_one_bad_example_fails_alone(limited: Server) -> None:
    good, bad, other = at_once([ask(limited, 1.0), ask(limited, 2e6), ask(limited, 3.0)])

    assert (good, other) == ((200, [2.0]), (200, [6.0]))
    assert bad[0] == 400
    assert "too big" in bad[1]


def test_other_inner_shapes_and_types_at_the_same_time_are_all_answered(limited: Server) -> None:
    widths = [ask(limited, [1.0] * n, signature="any_width") for n in (1, 2, 3)]
    texts = [ask(limited, text, signature="text") for text in ("a", "b")]
    numbers = [ask(limited, 2**60 + n, signature="whole") for n in (0, 1)]
    rows = [{"m": [1.0] * n, "n": n} for n in (1, 2)]
    named = [ask(limited, row, signature="two_shapes") for row in rows]

    answers = at_once([*widths, *texts, *numbers, *named])

    assert answers == [
        *((200, [[2.0] * n]) for n in (1, 2, 3)),
        (200, ["A"]), (200, ["B"]),
        (200, [2**60 + 1]), (200, [2**60 + 2]),
        (200, [2.0]), (200, [4.0]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (
            {"instances": [1.0] * 5}, 400,
            "Task size 5 is larger than maximum input batch size 4",
        ),
        (
            {"inputs": 1.0}, 400,
            "Batching Run() input tensors must have at least one dimension",
        ),
        (
            {"signature_name": "two_shapes", "inputs": {"m": [[1.0]], "n": [1, 2]}}, 400,
            "Batching Run() input tensors must have equal 0th-dimension size",
        ),
        (
            {"signature_name": "scalar", "inputs": [1.0]}, 400,
            "Batched output tensor has 0 dimensions",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_batched_is_refused_in_tensorflow_servings_words(
    limited: Server, body: Any, status: int, words: str
) -> None:
    answer = limited.predict(body)

    assert (answer.status, answer.json["error"]) == (status, words)


def test_a_batch_of_no_rows_is_answered_at_once(limited: Server) -> None:
    answer = limited.predict({"inputs": []})

    assert (answer.status, answer.json) == (200, {"outputs": []})


def test_a_full_queue_answers_503_and_unavailable(
    start_server: StartServer, toy_models: Path
) -> None:
    server = start_server(
        toy_models / "slow",
        "max_batch_size { value: 1 } max_enqueued_batches { value: 1 }"
        " num_batch_threads { value: 1 }",
    )
    words = (
        "The batch scheduling queue to which this task was submitted is full; currently 1 batches"
        " enqueued and max_enqueued_batches is 1"
    )

    def over_grpc() -> Any:
        request = predict_request("n", np.int32([100_000]))
        with grpc.insecure_channel(server.grpc) as channel:
            try:
                channel.unary_unary(PREDICT)(request)
            except grpc.RpcError as exc:
                return exc.code(), exc.details()  # type: ignore[attr-defined]

    def refused(ask: Callable[[], Any], refusal: Any) -> bool:
        return refusal in at_once([ask] * 4)

    rest = ask(server, 100_000)
    wait_until(lambda: refused(rest, (503, words)), "a request that finds the queue full")
    unavailable = (grpc.StatusCode.UNAVAILABLE, words)
    wait_until(lambda: refused(over_grpc, unavailable), "a call that finds the queue full")


def test_deadlines_and_a_client_that_cancels_leave_the_rest_of_a_batch_alone(
    start_server: StartServer, toy_models: Path
) -> None:
    server = start_server(
        toy_models / "slow",
        "max_batch_size { value: 3 } batch_timeout_micros { value: 1000000 }",
    )

    def request(n: int) -> bytes:
        return predict_request("n", np.int32([n]))

    with grpc.insecure_channel(server.grpc) as channel:
        predict = channel.unary_unary(PREDICT)
        late = predict.future(request(1), timeout=0.2)
        code = late.exception().code()
        assert code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
        cancelled = predict.future(request(100_000))
        asked = [predict.future(request(n)) for n in (1, 2, 3, 4)]
        cancelled.cancel()
        outputs = [PredictResponse.from_bytes(call.result()).outputs["y"] for call in asked]

    assert [output.tolist() for output in outputs] == [[1], [2], [3], [4]]


def test_a_version_has_its_own_parameters_or_is_not_batched(
    start_server: StartServer, toy_models: Path, base: Path
) -> None:
    for version in (1, 2):
        shutil.copytree(toy_models / "batched" / "1", base / str(version))
    (base / "2" / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    config = base / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{base}" model_platform:'
        ' "tensorflow" model_version_policy { all {} } } }'
    )
    server = start_server(
        base,
        "max_batch_size { value: 1 }",
        "--enable_per_model_batching_parameters",
        f"--model_config_file={config}",
    )
    server.wait_for(2)

    body = {"instances": [1.0, 2.0, 3.0]}
    assert server.predict(body, "/versions/1").status == 200
    assert "than maximum input batch size 2" in server.predict(body, "/versions/2").json["error"]


def test_a_version_with_parameters_that_cannot_be_is_not_served(
    start_server: StartServer, toy_models: Path, base: Path
) -> None:
    shutil.copytree(toy_models / "batched" / "1", base / "1")
    (base / "1" / "batching_params.pbtxt").write_text("max_batch_size { value: 0 }")
    server = start_server(base, "", "--enable_per_model_batching_parameters")

    report = server.ask("GET", "/readyz").body.decode()

    assert "max_batch_size must be positive; was 0" in report


def test_no_batching_means_a_run_for_each_request(
    start_server: StartServer, toy_models: Path
) -> None:
    server = start_server(toy_models / "batched", None, "--enable_batching=false")

    asks = [ask(server, float(n), signature="mixing") for n in range(8)] * 10

    assert at_once(asks) == [(200, [0.0])] * 80
    # Not even a first batch was tried.
    assert "one by one" not in server.err


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("max_batch: 3", "INVALID_ARGUMENT: Invalid protobuf file: '"),
        (
            "num_batch_threads { value: 0 }",
            "INVALID_ARGUMENT: num_batch_threads must be positive; w",
        ),
        (
            "max_batch_size { value: 4 } allowed_batch_sizes: 8",
            (
                "INVALID_ARGUMENT: Last entry in allowed_batch_sizes must match max_batch_size;"
                " last entry was 8; expected 4"
            ),
        ),
        (None, "parameters; No such file or directory"),
    ],
)
def test_parameters_that_cannot_be_end_the_start(
    tmp_path: Path, base: Path, parameters: str | None, words: str
) -> None:
    if parameters is not None:
        (tmp_path / "parameters").write_text(parameters)
    argv = ["--enable_batching", f"--batching_parameters_file={tmp_path}/parameters"]
    process = start_main([*argv, f"--model_base_path={base}"], tmp_path / "log", tmp_path / "out")
    process.join(60)

    assert process.exitcode == 255
    assert re.search(
        f"^Failed to start server. Error: .*{re.escape(words)}", (tmp_path / "out").read_text()
    )
