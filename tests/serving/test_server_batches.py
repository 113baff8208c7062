"""A real server whose requests come at the same time: no answer may be another's, or differ."""

import http.client
import json
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlops_mini.wire import PREDICT_METHOD, PredictResponse
from tests.serving.servers import Server, predict_request

N_THREADS = 8


@pytest.fixture(scope="module")
def server(toy_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server.start(toy_models / "batched", tmp_path_factory.mktemp("server"))
    yield server
    server.close()


def ask_at_once(server: Server, work: Callable[[Callable[[Any], Any], int], None]) -> None:
    """Call a function on several threads, each with a connection of its own and its number."""
    problems: list[BaseException] = []

    def go(number: int) -> None:
        with closing(http.client.HTTPConnection(server.rest, timeout=60)) as connection:

            def ask(document: Any) -> Any:
                connection.request("POST", "/v1/models/m:predict", json.dumps(document))
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())

            try:
                work(ask, number)
            except BaseException as exc:  # noqa: BLE001 - raised below
                problems.append(exc)

    threads = [threading.Thread(target=go, args=[number]) for number in range(N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def test_each_of_many_mixed_requests_gets_its_own_answer(server: Server) -> None:
    def work(ask: Callable[[Any], Any], number: int) -> None:
        rng = random.Random(number)
        for _ in range(500):
            rows = [rng.randint(-1000, 1000) / 4 for _ in range(rng.choice([1, 1, 1, 2, 3, 9, 30]))]
            key, answers = rng.choice([("instances", "predictions"), ("inputs", "outputs")])
            assert ask({key: rows}) == (200, {answers: [2 * row for row in rows]})

    ask_at_once(server, work)


def test_a_bad_request_among_others_fails_alone(server: Server) -> None:
    def work(ask: Callable[[Any], Any], number: int) -> None:
        for n in range(300):
            is_bad = number == 0 and n % 3 == 0
            status, answer = ask({"instances": [2e6 if is_bad else n]})
            if is_bad:
                assert (status, "too big" in answer["error"]) == (400, True)
            else:
                assert (status, answer) == (200, {"predictions": [2.0 * n]})

    ask_at_once(server, work)


def test_rows_of_any_width_may_come_at_the_same_time(server: Server) -> None:
    def work(ask: Callable[[Any], Any], number: int) -> None:
        for n in range(200):
            rows = [[float(n)] * (1 + (number + n) % 3)]
            answer = ask({"signature_name": "any_width", "instances": rows})
            assert answer == (200, {"predictions": [[x + 1 for x in rows[0]]]})

    ask_at_once(server, work)


@pytest.mark.parametrize(
    ("signature", "row", "answers"),
    [
        ("mixing_text", lambda n: f"text {n}", lambda n: f"text {n}1"),
        ("mixing_whole", lambda n: 2**60 + n, lambda _: 0),
        ("mixing_shapes", lambda n: {"m": [n * 1.0] * (1 + n % 2), "n": n}, lambda n: n * 1.0),
    ],
)
def test_texts_integers_and_several_shapes_come_together_too(
    server: Server, signature: str, row: Callable[[int], Any], answers: Callable[[int], Any]
) -> None:
    # These models mix rows: once their requests have shared a batch, the log says that none will.
    found_out = f"requests of signature {signature} of {{name: m version: 1}} will run one by one"

    def work(ask: Callable[[Any], Any], number: int) -> None:
        for n in range(number, 1000 * N_THREADS, N_THREADS):
            body = {"signature_name": signature, "instances": [row(n)]}
            assert ask(body) == (200, {"predictions": [answers(n)]})
            if found_out in server.err:
                return
        raise AssertionError(f"{signature} was not batched")

    ask_at_once(server, work)


@pytest.mark.parametrize(
    ("signature", "row", "answers"),
    [
        ("text", lambda n: f"text {n}", lambda n: f"TEXT {n}"),
        ("whole", lambda n: 2**60 + n, lambda n: 2**60 + n + 1),
        (
            "two_shapes",
            lambda n: {"m": [n * 1.0] * (1 + n % 2), "n": 1},
            lambda n: n * (1 + n % 2) + 1.0,
        ),
    ],
)
def test_each_text_integer_and_shape_gets_its_own_answer(
    server: Server, signature: str, row: Callable[[int], Any], answers: Callable[[int], Any]
) -> None:
    def work(ask: Callable[[Any], Any], number: int) -> None:
        for n in range(number, 200 * N_THREADS, N_THREADS):
            body = {"signature_name": signature, "instances": [row(n)]}
            assert ask(body) == (200, {"predictions": [answers(n)]})

    ask_at_once(server, work)
    assert f"requests of signature {signature} of" not in server.err


def test_a_model_that_mixes_rows_is_not_batched(server: Server) -> None:
    def work(ask: Callable[[Any], Any], number: int) -> None:
        for n in range(200):
            rows = [float(number), n, n + 2.0]
            mean = sum(rows) / 3
            status, answer = ask({"signature_name": "mixing", "instances": rows})
            assert status == 200
            assert answer["predictions"] == pytest.approx([row - mean for row in rows], abs=1e-4)

    ask_at_once(server, work)


def test_a_counter_counts_every_request_and_random_output_differs(server: Server) -> None:
    counted: list[float] = []
    drawn: list[float] = []

    def work(ask: Callable[[Any], Any], number: int) -> None:
        for _ in range(100):
            for name, values in (("counting", counted), ("random", drawn)):
                _, answer = ask({"signature_name": name, "instances": [float(number * 0)]})
                values.extend(answer["predictions"])

    ask_at_once(server, work)

    # Two runs at a time may both count and then read the same; a batch would count once for all.
    assert max(counted) == len(counted) == 100 * N_THREADS
    assert len(set(drawn)) > 99 * N_THREADS


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    head = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n%b\r\n"
    bodies = [json.dumps({"instances": [float(n)]}).encode() for n in range(50)]
    requests = [
        head % (len(body), b"Connection: close\r\n" * (body == bodies[-1])) + body
        for body in bodies
    ]
    host, port = server.rest.split(":")

    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"".join(requests))
        with connection.makefile("rb") as file:
            answers = re.findall(rb'"predictions": \[([0-9.]+)\]', file.read())

    assert [float(answer) for answer in answers] == [2.0 * n for n in range(50)]


def test_grpc_calls_at_the_same_time_get_their_own_answers(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        predict = channel.unary_unary(PREDICT_METHOD)
        for round_number in range(20):
            first = float(1000 * round_number)
            calls = [
                predict.future(predict_request("x", np.float32([first + n] * (1 + n % 3))))
                for n in range(50)
            ]
            for n in (7, 8):
                calls[n].cancel()  # while its batch waits, or runs
            for n, call in enumerate(calls):
                if n in (7, 8):
                    continue
                outputs = PredictResponse.from_bytes(call.result(timeout=60)).outputs
                assert outputs["y"].tolist() == [2 * (first + n)] * (1 + n % 3)


def test_a_bad_grpc_call_among_others_fails_alone(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        predict = channel.unary_unary(PREDICT_METHOD)
        for _ in range(10):
            calls = [
                predict.future(predict_request("x", np.float32([2e6 if n == 3 else n])))
                for n in range(20)
            ]
            codes = [call.code() for call in calls]
            assert codes == [
                grpc.StatusCode.INVALID_ARGUMENT if n == 3 else grpc.StatusCode.OK
                for n in range(20)
            ]


def test_a_deadline_inside_a_batch_ends_one_call(server: Server) -> None:
    """A client whose time is over may still be handed an answer that has just come."""
    codes = set()
    with grpc.insecure_channel(server.grpc) as channel:
        predict = channel.unary_unary(PREDICT_METHOD)
        for _ in range(10):
            late = predict.future(predict_request("x", np.float32([1])), timeout=1e-6)
            calls = [predict.future(predict_request("x", np.float32([n]))) for n in range(20)]
            codes.add(late.code())
            answers = [PredictResponse.from_bytes(call.result(timeout=60)) for call in calls]
            assert [a.outputs["y"].tolist() for a in answers] == [[2.0 * n] for n in range(20)]
    assert grpc.StatusCode.DEADLINE_EXCEEDED in codes
    assert codes <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.OK}


def test_calls_that_are_cancelled_leave_nothing_behind(server: Server) -> None:
    request = predict_request("x", np.float32([1]))
    with grpc.insecure_channel(server.grpc) as channel:
        predict = channel.unary_unary(PREDICT_METHOD)
        for _ in range(50):
            predict.future(request).cancel()
        for _ in range(100):
            assert PredictResponse.from_bytes(predict(request)).outputs["y"].tolist() == [2]
