"""Degrees of automation in front of the real model server, with a real queue beside it."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from mlops_mini.automation import dispatch
from mlops_mini.automation.certificates import Scope, certify_threshold
from mlops_mini.automation.dispatch import Case, Dispatcher
from mlops_mini.automation.levels import Level
from mlops_mini.automation.policy import AutomationPolicy, Route
from mlops_mini.client import Client, RestClient
from mlops_mini.data import tensors
from mlops_mini.errors import DataIntegrityError, FailedPreconditionError, InvalidArgumentError
from mlops_mini.local_server import LocalServer
from mlops_mini.photos import camera, datasets
from mlops_mini.review.queue import ReviewQueue
from mlops_mini.triggers.ledger import Ledger
from tests.once import made_once
from tests.serving.servers import run_in_child

pytestmark = pytest.mark.slow
NOW = datetime(2026, 5, 20, tzinfo=UTC)
CLASSES = datasets.CLASSES


def _publish(folder: Path) -> None:
    import pandas as pd

    from mlops_mini.model import training
    from mlops_mini.photos import network

    sample = datasets.fashion_mnist()
    column = pd.DataFrame({"image": tensors.column(sample.train_images[:3000])})
    model = network.train(column, sample.train_labels[:3000], epochs=1)
    training.export(model, folder / "clothes" / "1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    def make(folder: Path) -> None:
        run_in_child(_publish, folder, log_file=folder / "build.log")

    folder = made_once(tmp_path_factory, "clothes", make)
    with LocalServer(folder / "clothes", tmp_path_factory.mktemp("server")) as started:
        yield started


@dataclass
class Desk:
    """A dispatcher with its queue, and pictures whose truth is known."""

    dispatcher: Dispatcher
    queue: ReviewQueue
    images: np.ndarray
    labels: np.ndarray

    def cases(self, start: int, stop: int, *, prefix: str = "") -> list[Case]:
        return [
            Case(id=f"{prefix}{n}", inputs={"image": self.images[n]}) for n in range(start, stop)
        ]

    def audit_all(self, labels: np.ndarray) -> None:
        """Decide what waits, rightly; ids end with the place in `labels`."""
        while (item := self.queue.next_for("ann")) is not None:
            label = CLASSES[labels[int(item.id.split()[-1])]]
            self.queue.decide(item.id, label, annotator="ann")


@pytest.fixture(params=["grpc"])
def client(server: LocalServer, request: pytest.FixtureRequest) -> Iterator[Client]:
    with server.client(request.param) as made:
        yield made


@pytest.fixture
def desk(client: Client, tmp_path: Path) -> Iterator[Desk]:
    sample = datasets.fashion_mnist()
    with ReviewQueue(tmp_path / "q.sqlite", categories=CLASSES, undo_s=0) as queue:
        dispatcher = Dispatcher(
            client, queue, tmp_path / "policy.json", output="probability", now=lambda: NOW,
            timeout_s=60,
        )  # fmt: skip
        yield Desk(dispatcher, queue, sample.test_images, sample.test_labels)


@pytest.fixture
def policy(desk: Desk, client: Client) -> AutomationPolicy:
    """Partial automation, certified on pictures that the model hasn't seen."""
    probabilities = client.predict({"image": desk.images[5000:]}, timeout_s=60)["probability"]
    scores, is_right = probabilities.max(1), probabilities.argmax(1) == desk.labels[5000:]
    scope = Scope(
        model_version=1, data_from=NOW - timedelta(8), data_until=NOW - timedelta(1),
        expires_at=NOW + timedelta(30),
    )  # fmt: skip
    certificate = certify_threshold(
        scores[2000:], is_right[2000:], other_scores=scores[:2000], scope=scope, max_error=0.05
    )
    assert certificate.coverage > 0.3
    return AutomationPolicy(level=Level.PARTIAL, certificates={"": certificate}, audit_share=0.5)


@pytest.mark.parametrize("client", ["rest", "grpc"], indirect=True)
def test_a_sure_answer_is_given_and_the_rest_waits_for_people(desk, policy) -> None:
    desk.dispatcher.set_policy(policy)

    decisions = desk.dispatcher.decide(desk.cases(0, 100))

    automated = [each for each in decisions if each.route is Route.AUTO]
    assert 20 < len(automated) < 95
    assert all(each.answer in CLASSES for each in automated)
    right = [CLASSES[desk.labels[int(each.id)]] == each.answer for each in automated]
    assert np.mean(right) > 0.85
    others = [each for each in decisions if each.route is Route.HUMAN]
    assert len(automated) + len(others) == 100
    assert not any(each.answer for each in others)
    n_audits = sum(each.is_audited for each in decisions)
    assert 0 < n_audits < len(automated)
    assert desk.queue.n_open() == len(others) + n_audits

    assert desk.dispatcher.decide(desk.cases(0, 100)) == decisions  # and nobody is asked twice
    assert desk.queue.n_open() == len(others) + n_audits


@pytest.mark.parametrize(
    ("level", "route", "hint"),
    [
        (Level.HUMAN, Route.HUMAN, False),
        (Level.SHADOW, Route.SHADOW, False),
        (Level.ASSISTED, Route.HINT, True),
    ],
)
def test_below_partial_people_decide_everything(level, route, hint, desk) -> None:
    desk.dispatcher.set_policy(AutomationPolicy(level=level))

    decisions = desk.dispatcher.decide(desk.cases(0, 5))

    assert {each.route for each in decisions} == {route}
    shown = desk.queue.next_for("ann")
    assert bool(shown.answer) == hint
    desk.audit_all(desk.labels)
    answers = [each.answer for each in desk.queue.outcomes()]
    assert all(answers) == (level is not Level.HUMAN)  # which shadow mode is compared by


def test_other_photos_break_the_promise_and_the_level_steps_down(desk, policy, tmp_path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    desk.dispatcher = Dispatcher(
        desk.dispatcher._client, desk.queue, tmp_path / "policy.json", output="probability",
        on_alarm=ledger.fire, now=lambda: NOW, timeout_s=60,
    )  # fmt: skip
    desk.dispatcher.set_policy(replace(policy, audit_share=1.0))

    for start in range(0, 400, 200):
        desk.dispatcher.decide(desk.cases(start, start + 200, prefix="clean "))
        desk.audit_all(desk.labels)
        assert desk.dispatcher.watch() is None
    assert desk.dispatcher.policy.level is Level.PARTIAL

    ids = np.arange(1000)
    desk.images = camera.photograph(desk.images[:1000], ids, seed=0, conditions="tilted")
    for start in range(0, 1000, 200):
        desk.dispatcher.decide(desk.cases(start, start + 200, prefix="tilted "))
        desk.audit_all(desk.labels)
        if desk.dispatcher.watch():
            break

    assert desk.dispatcher.policy.level is Level.ASSISTED
    (entry,) = ledger.entries()
    assert (entry.kind, entry.state) == ("degradation", "PENDING")
    assert (entry.reason["version"], entry.reason["max_error"]) == (1, 0.05)
    after = desk.dispatcher.decide(desk.cases(0, 20, prefix="later "))
    assert {each.route for each in after} == {Route.HINT}
    assert dispatch.load(tmp_path / "policy.json") == desk.dispatcher.policy
    # A new certificate isn't held against old audits.
    desk.dispatcher.set_policy(policy)
    assert desk.dispatcher.watch() is None


def test_the_alarm_survives_a_restart(desk, policy, tmp_path) -> None:
    desk.dispatcher.set_policy(policy)
    desk.dispatcher.decide(desk.cases(0, 60))
    desk.audit_all((desk.labels + 1) % 10)  # all wrong

    again = Dispatcher(
        desk.dispatcher._client, desk.queue, tmp_path / "policy.json", output="probability",
        now=lambda: NOW,
    )  # fmt: skip

    assert again.policy == desk.dispatcher.policy
    assert again.watch() is not None
    assert again.policy.level is Level.ASSISTED


def test_when_the_model_is_away_people_decide(desk, policy, tmp_path) -> None:
    with RestClient("127.0.0.1:9", model="clothes", retry_s=0) as nobody:
        away = Dispatcher(
            nobody, desk.queue, tmp_path / "policy.json", output="probability", now=lambda: NOW
        )
        away.set_policy(policy)

        decisions = away.decide(desk.cases(0, 3))

    assert {each.route for each in decisions} == {Route.HUMAN}
    assert "the model is away" in decisions[0].reason
    assert desk.queue.n_open() == 3


def test_when_the_queue_is_away_only_what_needs_nobody_is_answered(desk, policy, tmp_path) -> None:
    desk.dispatcher.set_policy(policy)
    before = desk.dispatcher.decide(desk.cases(0, 50))
    blocker = sqlite3.connect(tmp_path / "q.sqlite", isolation_level=None)
    blocker.execute("alter table item rename to gone")

    during = desk.dispatcher.decide(desk.cases(0, 50))

    blocker.close()
    for old, new in zip(before, during, strict=True):
        if old.route is Route.AUTO and not old.is_audited:
            assert new == old
        else:
            assert new.route is Route.DEFERRED
            assert new.answer == ""
            assert "the queue is away" in new.reason


def test_when_people_are_away_the_queue_fills_and_automation_stops(desk, policy, tmp_path) -> None:
    now_s = [0.0]
    desk.queue._clock = lambda: now_s[0]
    patient = Dispatcher(
        desk.dispatcher._client, desk.queue, tmp_path / "policy.json", output="probability",
        now=lambda: NOW, max_open=100, audits_overdue_s=3600, timeout_s=60,
    )  # fmt: skip
    patient.set_policy(policy)
    routes = [each.route for each in patient.decide(desk.cases(0, 60))]
    assert Route.AUTO in routes

    now_s[0] = 3601.0
    late = patient.decide(desk.cases(60, 70))
    assert {each.route for each in late} == {Route.HUMAN}
    assert "nobody is watching" in late[0].reason

    full = patient.decide(desk.cases(70, 200))
    assert {each.route for each in full} == {Route.DEFERRED}
    assert "ask again later" in full[0].reason


def test_another_version_needs_another_certificate(desk, policy) -> None:
    made = policy.certificates[""]
    other = replace(made, scope=replace(made.scope, model_version=2))
    desk.dispatcher.set_policy(replace(policy, certificates={"": other}))

    decisions = desk.dispatcher.decide(desk.cases(0, 5))

    assert {each.route for each in decisions} == {Route.HUMAN}
    assert decisions[0].reason == "it's for model version 2, not 1"


def test_inputs_that_the_model_refuses_and_another_output_are_errors(desk, policy) -> None:
    desk.dispatcher.set_policy(policy)
    with pytest.raises(InvalidArgumentError):
        desk.dispatcher.decide([Case(id="1", inputs={"image": np.zeros((28, 20), np.uint8)})])
    desk.dispatcher._output = "logits"
    with pytest.raises(FailedPreconditionError, match="'logits' of shape"):
        desk.dispatcher.decide(desk.cases(0, 2))
    assert desk.queue.n_open() == 0
    assert desk.dispatcher.decide([]) == []


def test_a_policy_file_that_holds_something_else_is_named(desk, tmp_path) -> None:
    file = tmp_path / "policy.json"
    assert dispatch.load(file).level is Level.HUMAN
    file.write_text('{"level": "everything"}')
    with pytest.raises(DataIntegrityError, match="holds no policy"):
        dispatch.load(file)
