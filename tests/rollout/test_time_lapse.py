"""A time-lapse sends what clients would have asked, and knows who answered."""

from mlops_mini.rollout.controller import Phase, Strategy
from mlops_mini.rollout.envoy import Envoy
from mlops_mini.rollout.release import Release
from mlops_mini.rollout.time_lapse import USER_HEADER, TimeLapse
from tests.rollout.backends import MODEL, FakeVersion, policy, versions

STRATEGY = Strategy(
    steps_pct=(20, 50), mirror_pct=100, shadow_requests=60, step_requests=10,
    watch_looks=1, sticky_header=USER_HEADER,
)  # fmt: skip


def body(_number: int) -> str:
    return "{}"


def test_the_same_requests_go_the_same_way_and_a_second_is_as_many_as_told(tmp_path):
    with (
        versions(FakeVersion("v1"), FakeVersion("v2", share=1.0, status=400)) as (stable, canary),
        Envoy(tmp_path / "envoy", policy(stable)) as envoy,
    ):
        new = Release(model=MODEL, stable=stable, canary=canary, strategy=STRATEGY)
        seen = []
        for name in ("once", "again"):
            with TimeLapse(envoy.router, model=MODEL, body=body, requests_per_s=30) as traffic:
                ended = traffic.run(tmp_path / name, new)
                seen.append((ended.state.reason, traffic.answered_by, traffic.statuses))

    assert ended.state.phase is Phase.ROLLED_BACK
    assert seen[0] == seen[1]
    assert set(seen[0][1]) == {"v1"}  # it failed in the shadow, where nobody saw it
    assert set(seen[0][2]) == {200}


def test_it_says_who_answered_and_what(tmp_path):
    with (
        versions(FakeVersion("v1"), FakeVersion("v2", share=1.0, status=400)) as (stable, canary),
        Envoy(tmp_path / "envoy", policy(stable)) as envoy,
        TimeLapse(envoy.router, model=MODEL, body=body, requests_per_s=40) as traffic,
    ):
        envoy.router.apply(policy(stable, canary, weight_pct=50, sticky_header=USER_HEADER))
        traffic.sleep(1)

    assert traffic.last == range(40)
    by_version = dict(zip(traffic.answered_by, traffic.statuses, strict=True))
    assert by_version == {"v1": 200, "v2": 400}
