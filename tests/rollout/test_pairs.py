import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mlops_mini.client import GrpcClient, RestClient
from mlops_mini.prediction_log import Record
from mlops_mini.rollout import pairs, release
from mlops_mini.rollout.controller import Phase, Strategy
from mlops_mini.rollout.envoy import Envoy
from mlops_mini.rollout.guardrails import ERRORS, Counts, Guardrail
from mlops_mini.rollout.pairs import LoggedPairs
from mlops_mini.rollout.policy import Backend, TrafficPolicy
from mlops_mini.rollout.release import Release
from tests.serving.servers import Launcher, wait_until
from tests.serving.test_server_request_log import config_text


@pytest.fixture(scope="module")
def versions(
    toy_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[Backend, Path]]]:
    """Three servers with a log: two of version 1, one of version 2, by name; each with its log."""
    servers, made = [], {}
    for name, version in (("v1", 1), ("same", 1), ("v2", 2)):
        folder = tmp_path_factory.mktemp(name)
        base = folder / "m"
        base.mkdir()
        (base / str(version)).symlink_to(toy_models / "numbered" / str(version))
        (folder / "models.config").write_text(config_text(folder / "log", {"m": base}))
        flag = f"--model_config_file={folder}/models.config"
        server = Launcher().serve(folder / "server", flag)
        server.opened()
        servers.append(server)
        made[name] = Backend(name=name, rest=server.rest, grpc=server.grpc), folder / "log"
    yield made
    for server in servers:
        server.close()


def _has_other_number(stable: Record, canary: Record) -> bool:
    assert stable.inputs["x"].tolist() == canary.inputs["x"].tolist()  # it's the same request
    return stable.outputs["version"].tolist() != canary.outputs["version"].tolist()


def ask(address: str, n_requests: int) -> None:
    """Ask by REST and by gRPC in turn, each request about other numbers."""
    clients = RestClient(address, model="m"), GrpcClient(address, model="m")
    for number in range(n_requests):
        clients[number % 2].predict({"x": np.float32([number])})
    for client in clients:
        client.close()


@pytest.mark.parametrize(("canary", "n_different"), [("same", 0), ("v2", 40)])
def test_copies_are_paired_with_their_requests_by_rest_and_grpc(
    versions: dict[str, tuple[Backend, Path]], canary: str, n_different: int, tmp_path: Path
) -> None:
    stable, stable_log = versions["v1"]
    source = LoggedPairs(stable_log, versions[canary][1], differs=_has_other_number)
    source()
    before = source.n_pairs
    policy = TrafficPolicy(model="m", stable=stable, canary=versions[canary][0], mirror_pct=100)
    seen = Counts()
    with Envoy(tmp_path / "envoy", policy) as running:
        ask(running.router.address, 40)

        def all_seen() -> bool:
            nonlocal seen
            counts = source()["differs"]
            seen = Counts(
                n_canary=seen.n_canary + counts.n_canary,
                bad_canary=seen.bad_canary + counts.bad_canary,
            )
            return source.n_pairs - before >= 40

        wait_until(all_seen, "all pairs in the logs")

    assert seen == Counts(n_canary=40, bad_canary=n_different)


def test_a_shadow_with_other_answers_is_stopped_before_a_user_has_one(
    versions: dict[str, tuple[Backend, Path]], tmp_path: Path
) -> None:
    (stable, stable_log), (canary, canary_log) = versions["v1"], versions["v2"]
    differs = Guardrail(name="answers", metrics=("differs",), test="disagreement", max_rate=0.12)
    strategy = Strategy(mirror_pct=100, shadow_requests=400, guardrails=(ERRORS, differs))
    made = Release(model="m", stable=stable, canary=canary, strategy=strategy)
    release.start(tmp_path / "release", made)
    source = LoggedPairs(stable_log, canary_log, differs=_has_other_number)
    source()  # what other tests have asked
    is_over = threading.Event()
    with Envoy(tmp_path / "envoy", TrafficPolicy(model="m", stable=stable)) as running:

        def clients() -> None:
            while not is_over.is_set():
                ask(running.router.address, 10)

        asking = threading.Thread(target=clients)
        asking.start()
        try:
            end = release.run(tmp_path / "release", running.router, look_s=0.1, sources=[source])
        finally:
            is_over.set()
            asking.join(60)

    assert end.state.phase is Phase.ROLLED_BACK
    assert end.state.reason.startswith("answers: ")
    assert {look.weight_pct for look in end.state.looks} == {0.0}  # no user was sent to it


def _record(**outputs: list[object]) -> Record:
    return Record(
        method="predict", request_id="1", time_s=0.0, model="m", version=1, signature_name="",
        sampling_rate=1.0, inputs={}, outputs={k: np.array(v) for k, v in outputs.items()},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("stable", "canary", "is_other"),
    [
        ([[0.2, 0.8]], [[0.4, 0.6]], False),
        ([[0.2, 0.8]], [[0.6, 0.4]], True),
        ([[0.2, 0.8], [0.9, 0.1]], [[0.2, 0.8], [0.1, 0.9]], True),
        ([[0.4]], [[0.45]], False),
        ([[0.4]], [[0.5]], True),
        ([0.4, 0.7], [0.1, 0.9], False),
    ],
)
def test_the_usual_difference_is_another_class(
    stable: list[object], canary: list[object], is_other: bool
) -> None:
    assert pairs.other_class(_record(y=stable), _record(y=canary)) is is_other


def test_a_log_that_is_not_there_yet_has_no_pairs(tmp_path: Path) -> None:
    source = LoggedPairs(tmp_path / "a", tmp_path / "b")

    assert source() == {"differs": Counts()}
