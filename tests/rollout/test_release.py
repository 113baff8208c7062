import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_mini.errors import (
    AlreadyExistsError,
    DataIntegrityError,
    FailedPreconditionError,
    NotFoundError,
)
from mlops_mini.rollout import release
from mlops_mini.rollout.controller import Phase, Strategy
from mlops_mini.rollout.envoy import Envoy, Router
from mlops_mini.rollout.guardrails import Counts
from mlops_mini.rollout.policy import Backend
from mlops_mini.rollout.release import Release
from tests.rollout.backends import MODEL, FakeVersion, Load, ask, policy
from tests.serving.servers import wait_until

QUICK = Strategy(steps_pct=(10, 50), step_requests=30, watch_looks=2, max_looks=2000)
CONTROLLER = """
import sys
from pathlib import Path
from mlops_mini.rollout import release
from mlops_mini.rollout.envoy import Router
release.run(Path(sys.argv[1]), Router(Path(sys.argv[2])), look_s=0.05)
"""


@pytest.fixture(scope="module")
def stable() -> Iterator[Backend]:
    with FakeVersion("v1", share=0.02) as version:
        yield version.backend


@pytest.fixture(scope="module")
def canary() -> Iterator[Backend]:
    with FakeVersion("v2", share=0.02) as version:
        yield version.backend


@pytest.fixture
def router(tmp_path: Path, stable: Backend) -> Iterator[Router]:
    with Envoy(tmp_path / "envoy", policy(stable)) as running:
        yield running.router


@pytest.fixture
def made(stable: Backend, canary: Backend) -> Release:
    return Release(model=MODEL, stable=stable, canary=canary, strategy=QUICK)


def _n_lost(load: Load) -> int:
    """Count what clients lost: the stable's own failures, three in a row, are one in 100,000."""
    return load.counts.total() - load.counts[200]


def _controller(folder: Path, router: Router) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", CONTROLLER, str(folder), str(router.folder)])


def test_a_healthy_canary_is_promoted_by_what_was_seen_at_the_router(
    tmp_path: Path, router: Router, made: Release
) -> None:
    strategy = replace(QUICK, mirror_pct=100, shadow_requests=50)
    release.start(tmp_path / "r", replace(made, strategy=strategy))

    with Load(router.address) as load:
        end = release.run(tmp_path / "r", router, look_s=0.05)

    assert end.state.phase is Phase.PROMOTED, end.state.reason
    assert _n_lost(load) <= 2
    assert ask(router, 20) == {"v2": 20}
    reasons = [(one["phase"], one["weight_pct"]) for one in release.decisions(tmp_path / "r")]
    assert reasons == [("SHADOW", 0), ("RAMP", 10), ("RAMP", 50), ("PROMOTED", 100)]


def test_a_broken_canary_is_rolled_back_and_no_client_notices(
    tmp_path: Path, router: Router, made: Release
) -> None:
    with FakeVersion("v3", share=0.3) as broken, Load(router.address) as load:
        release.start(tmp_path / "r", replace(made, canary=broken.backend))
        end = release.run(tmp_path / "r", router, look_s=0.05)

    assert end.state.phase is Phase.ROLLED_BACK
    assert end.state.reason.startswith("errors: ")
    assert _n_lost(load) <= 2
    assert ask(router, 20) == {"v1": 20}


def test_a_canary_that_is_killed_is_rolled_back(
    tmp_path: Path, router: Router, made: Release
) -> None:
    strategy = replace(QUICK, steps_pct=(50,), step_requests=100_000)
    with FakeVersion("v3") as dying, Load(router.address) as load:
        release.start(tmp_path / "r", replace(made, canary=dying.backend, strategy=strategy))

        def kill_it(running: Release) -> None:
            if running.state.n_step_requests > 50:
                dying.process.kill()

        end = release.run(tmp_path / "r", router, look_s=0.05, on_look=kill_it)

    assert end.state.phase is Phase.ROLLED_BACK, end.state.reason
    assert _n_lost(load) <= 2


def test_a_controller_that_was_killed_is_followed_by_another_at_the_same_weight(
    tmp_path: Path, router: Router, made: Release
) -> None:
    strategy = replace(QUICK, step_requests=300)
    release.start(tmp_path / "r", replace(made, strategy=strategy))
    with Load(router.address) as load:
        first = _controller(tmp_path / "r", router)
        seen = wait_until(
            lambda: release.read(tmp_path / "r").state.looks[4:], "five looks of the first"
        )
        first.kill()
        first.wait()
        before = release.read(tmp_path / "r").state
        assert ask(router, 200).keys() >= {"v1", "v2"}  # the traffic goes on as it was

        end = release.run(tmp_path / "r", router, look_s=0.05)

    assert seen
    assert before.phase is Phase.RAMP
    assert end.state.looks[: len(before.looks)] == before.looks
    assert end.state.phase is Phase.PROMOTED, end.state.reason
    assert _n_lost(load) <= 2


def test_one_controller_at_a_time(tmp_path: Path, router: Router, made: Release) -> None:
    release.start(tmp_path / "r", made)
    first = _controller(tmp_path / "r", router)
    wait_until(lambda: release.decisions(tmp_path / "r"), "the first to run")

    with pytest.raises(AlreadyExistsError, match="another controller"):
        release.run(tmp_path / "r", router)

    release.order(tmp_path / "r", "abort", "enough")
    assert first.wait(60) == 0
    assert release.read(tmp_path / "r").state.phase is Phase.ABORTED


def test_orders_reach_a_running_release_and_give_their_reasons(
    tmp_path: Path, router: Router, made: Release
) -> None:
    release.start(tmp_path / "r", made)
    running = threading.Thread(
        target=release.run, args=(tmp_path / "r", router), kwargs={"look_s": 0.02}
    )
    running.start()

    def phase() -> Phase:
        return release.read(tmp_path / "r").state.phase

    wait_until(lambda: phase() is Phase.RAMP, "the ramp")
    release.order(tmp_path / "r", "pause", "lunch")
    wait_until(lambda: phase() is Phase.PAUSED, "the pause")
    with pytest.raises(FailedPreconditionError, match="PAUSED"):
        release.order(tmp_path / "r", "pause", "again")
    release.order(tmp_path / "r", "resume", "back")
    wait_until(lambda: phase() is Phase.RAMP, "the ramp again")
    release.order(tmp_path / "r", "promote", "the fair begins")
    running.join(60)

    assert not running.is_alive() or phase() is Phase.PROMOTED
    release.order(tmp_path / "r", "abort", "it rains")
    running.join(60)
    assert phase() is Phase.ABORTED
    assert [one["reason"] for one in release.decisions(tmp_path / "r")][1:] == [
        "an operator: lunch",
        "an operator: back",
        "an operator: the fair begins",
        "an operator: it rains",
    ]


def test_a_newer_version_waits_or_replaces_the_one_under_way(
    tmp_path: Path, router: Router, made: Release
) -> None:
    release.start(tmp_path / "r", made)
    first = _controller(tmp_path / "r", router)
    wait_until(lambda: release.read(tmp_path / "r").state.phase is Phase.RAMP, "the ramp")
    with FakeVersion("v3") as newer:
        newest = replace(made, canary=newer.backend)
        with pytest.raises(AlreadyExistsError, match="v2 is RAMP"):
            release.start(tmp_path / "r", newest)

        release.start(tmp_path / "r", newest, replaces=True)

        assert first.wait(60) == 0
        assert ask(router, 30) == {"v1": 30}  # nobody got the old canary any more
        assert release.read(tmp_path / "r").canary.name == "v3"


def test_labels_come_in_through_sources(tmp_path: Path, router: Router, made: Release) -> None:
    from mlops_mini.rollout.guardrails import ERRORS, Guardrail

    wrong = Guardrail(name="wrong answers", metrics=("wrong",))
    strategy = replace(QUICK, guardrails=(ERRORS, wrong))
    release.start(tmp_path / "r", replace(made, strategy=strategy))
    labels = Counts(n_canary=20, n_stable=200, bad_canary=9, bad_stable=20)

    end = release.run(tmp_path / "r", router, look_s=0.02, sources=[lambda: {"wrong": labels}])

    assert end.state.phase is Phase.ROLLED_BACK
    assert end.state.reason.startswith("wrong answers: ")


def test_when_nothing_can_be_seen_it_pauses_and_is_never_promoted(
    tmp_path: Path, stable: Backend, made: Release
) -> None:
    release.start(tmp_path / "r", made)
    with Envoy(tmp_path / "envoy", policy(stable)) as running:
        router = running.router

        def stop_envoy(seen: Release) -> None:
            if seen.state.phase is Phase.RAMP:
                running.close()

        thread = threading.Thread(
            target=release.run,
            args=(tmp_path / "r", router),
            kwargs={"look_s": 0.02, "on_look": stop_envoy},
        )
        thread.start()
        wait_until(lambda: release.read(tmp_path / "r").state.phase is Phase.PAUSED, "the pause")
        assert "nothing has been seen" in release.read(tmp_path / "r").state.reason
        assert running.keep_running()
        release.order(tmp_path / "r", "abort", "no more")
        thread.join(60)

    assert release.read(tmp_path / "r").state.phase is Phase.ABORTED


def test_orders_without_a_controller_change_the_state(tmp_path: Path, made: Release) -> None:
    release.start(tmp_path, made)

    release.order(tmp_path, "abort", "never mind")

    assert release.read(tmp_path).state.phase is Phase.ABORTED
    with pytest.raises(FailedPreconditionError, match="over"):
        release.order(tmp_path, "abort", "again")
    release.start(tmp_path, made)  # what is over is in nobody's way
    assert release.read(tmp_path).state.phase is Phase.PENDING


def test_a_folder_without_a_release_or_with_a_damaged_one_is_said(
    tmp_path: Path, made: Release
) -> None:
    with pytest.raises(NotFoundError, match="start one"):
        release.read(tmp_path)
    release.start(tmp_path, made)
    file = tmp_path / "release.json"
    good = file.read_text()
    for text in ("{", good[:-40], good.replace("PENDING", "ASLEEP"), "[]", "{}"):
        file.write_text(text)
        with pytest.raises(DataIntegrityError, match=r"damaged|format"):
            release.read(tmp_path)
    file.write_text(good.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(DataIntegrityError, match="another version"):
        release.read(tmp_path)


def test_the_state_survives_the_file(tmp_path: Path, made: Release) -> None:
    release.start(tmp_path, made)

    assert release.read(tmp_path) == made
    assert json.loads((tmp_path / "release.json").read_text())["format_version"] == 1


def test_a_controller_that_is_stopped_holds_nothing_back(
    tmp_path: Path, router: Router, made: Release
) -> None:
    """Its death by SIGTERM leaves the lock free."""
    release.start(tmp_path / "r", made)
    first = _controller(tmp_path / "r", router)
    wait_until(lambda: release.decisions(tmp_path / "r"), "the first to run")
    os.kill(first.pid, signal.SIGTERM)
    first.wait()

    release.order(tmp_path / "r", "abort", "it is gone")

    assert release.read(tmp_path / "r").state.phase is Phase.ABORTED
