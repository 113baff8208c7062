"""Releases against a recording API server; no real one can be had here."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlops_mini.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    MlopsMiniError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from mlops_mini.rollout import istio, kubernetes, release
from mlops_mini.rollout.controller import Phase, Strategy
from mlops_mini.rollout.http_api import HttpApi
from mlops_mini.rollout.kubernetes import Kubectl, VirtualServiceRouter, api_in_cluster
from mlops_mini.rollout.release import Release
from tests.rollout.api_server import ApiServer
from tests.rollout.cluster import CANARY, V1, V2, WORKLOAD
from tests.rollout.steady import SteadyWatcher
from tests.serving.servers import wait_until

STRATEGY = Strategy(steps_pct=(10, 50), step_requests=1500, watch_looks=2, max_looks=2000)


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """An API server that has all objects of the canary."""
    with ApiServer() as server:
        server.put(*istio.render(replace(CANARY, weight_pct=0), WORKLOAD).objects)
        yield server


@pytest.fixture
def router(api: ApiServer) -> VirtualServiceRouter:
    return VirtualServiceRouter(HttpApi(api.url, timeout_s=0.5), WORKLOAD)


@pytest.fixture
def made() -> Release:
    return Release(model="clothes", stable=V1, canary=V2, strategy=STRATEGY)


def test_a_change_of_weight_writes_the_virtual_service_and_nothing_else(
    api: ApiServer, router: VirtualServiceRouter
) -> None:
    router.apply(CANARY)

    assert api.writes == ["PATCH VirtualService clothes 30"]
    assert api.objects["VirtualService", "clothes"] == istio.virtual_service(CANARY, WORKLOAD)


@pytest.mark.parametrize(
    ("faults", "weights"),
    [
        (["slow"], [30]),
        (["dropped", "dropped"], [30]),
        (["dropped after"], [30, 30]),  # it can't know that it held, and twice is as good as once
        (["busy"], [30]),
    ],
)
def test_what_may_pass_is_tried_again(
    api: ApiServer, router: VirtualServiceRouter, faults: list[str | None], weights: list[int]
) -> None:
    n_faults = len(faults)
    api.faults = faults

    router.apply(CANARY)

    assert api.weights == weights
    assert api.n_attempts == n_faults + 1


def test_a_busy_server_says_how_long_to_wait(api: ApiServer, router: VirtualServiceRouter) -> None:
    api.faults = ["busy"]

    router.apply(CANARY)

    first, second = api.attempted_at
    assert second - first >= 1


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("conflict", FailedPreconditionError, 'conflict with "kubectl-edit"'),
        ("forbidden", PermissionDeniedError, 'User "release" cannot patch'),
        ("pruned", FailedPreconditionError, "is its Istio older"),
    ],
)
def test_what_will_not_pass_is_said_at_once(
    api: ApiServer,
    router: VirtualServiceRouter,
    fault: str,
    error: type[MlopsMiniError],
    words: str,
) -> None:
    api.faults = [fault]

    with pytest.raises(error, match=words):
        router.apply(replace(CANARY, weight_pct=0, mirror_pct=10))

    assert api.n_attempts == 1


def test_a_server_that_stays_away_is_given_up(api: ApiServer, router: VirtualServiceRouter) -> None:
    api.faults = ["dropped"] * 4

    with pytest.raises(UnavailableError, match="gives no answer"):
        router.apply(CANARY)

    assert api.n_attempts == 4
    assert api.writes == []


def test_no_route_is_written_to_a_subset_that_is_not_there(
    api: ApiServer, router: VirtualServiceRouter
) -> None:
    alone = replace(CANARY, canary=None, weight_pct=0, header_rules=())
    api.put(istio.render(alone, WORKLOAD).interface[1])

    with pytest.raises(FailedPreconditionError, match=r"no subsets \['v2'\]"):
        router.apply(CANARY)

    assert api.n_attempts == 0
    router.apply(alone)
    assert api.weights == [0]


def test_a_canary_gets_nothing_before_its_pods_are_ready(
    api: ApiServer, router: VirtualServiceRouter, made: Release, tmp_path: Path
) -> None:
    release.start(tmp_path, made)
    api.unready = {"clothes-v2"}
    n_waits = 0

    def wait(_seconds: float) -> None:
        nonlocal n_waits
        n_waits += 1
        if n_waits == 5:
            assert api.weights == [0]
            api.unready = set()

    end = release.run(tmp_path, router, watcher=SteadyWatcher(router), sleep=wait)

    assert end.state.phase is Phase.PROMOTED
    assert api.weights == [0, 10, 50, 100]


def test_a_token_is_read_for_each_request(api: ApiServer, tmp_path: Path) -> None:
    """Kubernetes replaces a pod's token every hour."""
    token = tmp_path / "token"
    router = VirtualServiceRouter(HttpApi(api.url, token_file=token), WORKLOAD)
    for text in ("first\n", "second\n"):
        token.write_text(text)
        router.apply(CANARY)

    assert api.tokens == ["Bearer first", "Bearer second"]


def test_outside_of_a_pod_it_says_what_to_do() -> None:
    with pytest.raises(NotFoundError, match="kubectl proxy"):
        api_in_cluster()


def test_in_a_pod_the_api_is_where_kubernetes_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "_IN_POD", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "9")
    (tmp_path / "token").write_text("mine")

    with pytest.raises(UnavailableError, match=r"https://127\.0\.0\.1:9 gives no answer"):
        api_in_cluster().ask("GET", "/version")


def test_a_missing_kubectl_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="kubectl isn't installed"):
        Kubectl(command=f"{tmp_path}/kubectl").apply(istio.render(CANARY, WORKLOAD))


def test_a_good_canary_is_ramped_and_promoted(
    api: ApiServer, router: VirtualServiceRouter, made: Release, tmp_path: Path
) -> None:
    release.start(tmp_path, made)

    end = release.run(tmp_path, router, watcher=SteadyWatcher(router), look_s=0.001)

    assert end.state.phase is Phase.PROMOTED, end.state.reason
    assert api.writes == [f"PATCH VirtualService clothes {weight}" for weight in (0, 10, 50, 100)]
    (rest,) = {
        part["destination"]["subset"]
        for route in api.objects["VirtualService", "clothes"]["spec"]["http"]
        for part in route["route"]
    }
    assert rest == "v2"


def test_a_bad_canary_is_rolled_back(
    api: ApiServer, router: VirtualServiceRouter, made: Release, tmp_path: Path
) -> None:
    release.start(tmp_path, made)

    end = release.run(
        tmp_path, router, watcher=SteadyWatcher(router, bad_in_1000=200), look_s=0.001
    )

    assert end.state.phase is Phase.ROLLED_BACK
    assert end.state.reason.startswith("errors: ")
    assert api.weights == [0, 10, 0]


def test_a_canary_whose_pods_go_is_rolled_back(
    api: ApiServer, router: VirtualServiceRouter, made: Release, tmp_path: Path
) -> None:
    release.start(tmp_path, made)

    def kill_pods(running: Release) -> None:
        if running.state.weight_pct(STRATEGY) == 50:
            api.unready = {"clothes-v2"}

    end = release.run(
        tmp_path, router, watcher=SteadyWatcher(router), look_s=0.001, on_look=kill_pods
    )

    assert end.state.phase is Phase.ROLLED_BACK
    assert end.state.reason == "the canary fails its health checks"
    assert api.weights == [0, 10, 50, 0]


def test_a_lost_connection_does_not_stop_a_rollback(
    api: ApiServer, router: VirtualServiceRouter, made: Release, tmp_path: Path
) -> None:
    release.start(tmp_path, made)
    api.faults = [None, None, "dropped", "dropped", "dropped", "dropped", "busy"]

    end = release.run(
        tmp_path, router, watcher=SteadyWatcher(router, bad_in_1000=200), look_s=0.001
    )

    assert end.state.phase is Phase.ROLLED_BACK
    assert api.weights == [0, 10, 0]


def test_somebody_else_s_routes_pause_it_and_it_says_whose(
    api: ApiServer, router: VirtualServiceRouter, made: Release, tmp_path: Path
) -> None:
    release.start(tmp_path, made)
    api.faults = [None, *["conflict"] * 30]
    reasons = []

    def no_wait(_seconds: float) -> None:
        state = release.read(tmp_path).state
        if state.phase is Phase.PAUSED and not reasons:
            reasons.append(state.reason)
            api.faults = []  # who has done it gives way
            release.order(tmp_path, "abort", "it wasn't ours")

    end = release.run(tmp_path, router, watcher=SteadyWatcher(router), sleep=no_wait)

    assert end.state.phase is Phase.ABORTED
    assert "kubectl-edit" in reasons[0]
    assert api.weights == [0, 0]


def test_a_controller_that_was_killed_is_followed_by_another_at_the_same_weight(
    api: ApiServer, router: VirtualServiceRouter, made: Release, tmp_path: Path
) -> None:
    release.start(tmp_path, made)
    first = subprocess.Popen([sys.executable, "-m", "tests.rollout.steady", str(tmp_path), api.url])
    try:
        wait_until(lambda: release.read(tmp_path).state.n_phase_looks > 3 and api.weights[1:],
                   "looks at the first step")  # fmt: skip
    finally:
        first.kill()
        first.wait()
    before = release.read(tmp_path)
    n_written = len(api.writes)

    end = release.run(tmp_path, router, watcher=SteadyWatcher(router), look_s=0.001)

    assert before.state.phase is Phase.RAMP
    assert end.state.looks[: len(before.state.looks)] == before.state.looks
    assert end.state.phase is Phase.PROMOTED
    assert api.weights[:n_written] == [0, 10]
    assert api.weights[n_written:] == [10, 50, 100]


def test_a_router_without_a_log_needs_a_watcher(
    router: VirtualServiceRouter, made: Release, tmp_path: Path
) -> None:
    release.start(tmp_path, made)

    with pytest.raises(InvalidArgumentError, match="give a watcher"):
        release.run(tmp_path, router)


def test_versions_on_a_cluster_have_no_addresses_and_survive_the_file(
    made: Release, tmp_path: Path
) -> None:
    nameless: dict[str, Any] = {"rest": "", "grpc": ""}
    named = replace(made, stable=replace(V1, **nameless), canary=replace(V2, **nameless))
    release.start(tmp_path, named)

    assert release.read(tmp_path) == named


def test_the_example_of_the_page_is_right_up_to_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its lines run here but those that need a cluster."""
    page = (Path(__file__).parents[2] / "docs" / "releases.md").read_text()
    code = page.partition("## On Kubernetes")[2].partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}

    before, _, after = code.partition('Kubectl("--context=shop").apply')
    exec(before, names)
    exec("made.policy\n" + after.partition("\n\n")[2].partition("ended =")[0], names)

    assert release.read(tmp_path / "runs/release") == names["made"]
