"""Many clients at once: all are answered, or told apart from those that aren't."""

import threading

from mlops_mini.loop import traffic
from mlops_mini.loop.world import Request
from tests.rollout.backends import MODEL, FakeVersion


def requests(n: int) -> list[Request]:
    return [Request(id=f"{number}-key", due_s=number, body=b"{}") for number in range(n)]


def test_all_are_answered_each_under_its_id():
    with FakeVersion("v1") as fake:
        answers = traffic.ask(fake.backend.rest, MODEL, requests(200))

    assert sorted(answers) == sorted(request.id for request in requests(200))
    assert {(answer.status, answer.body) for answer in answers.values()} == {(200, b"v1")}


def test_errors_are_answers_too():
    with FakeVersion("v1", share=1.0, status=503) as fake:
        answers = traffic.ask(fake.backend.rest, MODEL, requests(20))

    assert {answer.status for answer in answers.values()} == {503}


def test_what_a_server_that_dies_has_not_answered_is_left_out():
    with FakeVersion("v1", delay_s=0.05) as fake:
        threading.Timer(0.3, fake.process.kill).start()
        answers = traffic.ask(fake.backend.rest, MODEL, requests(2_000))

    assert 0 < len(answers) < 2_000
    assert {answer.status for answer in answers.values()} == {200}


def test_nobody_listens():
    assert traffic.ask("127.0.0.1:9", MODEL, requests(3)) == {}


def test_nothing_to_ask():
    assert traffic.ask("127.0.0.1:9", MODEL, []) == {}
