"""Looks made of Istio's counters, asked from a real Prometheus that has their recorded series.

There is no Istio here: the series are written by hand, in its names and labels, one sample every
15 s as Prometheus would scrape them.
"""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mlops_mini.errors import UnavailableError
from mlops_mini.rollout.controller import Phase, Strategy
from mlops_mini.rollout.guardrails import Counts
from mlops_mini.rollout.http_api import HttpApi
from mlops_mini.rollout.istio_metrics import IstioWatcher
from mlops_mini.rollout.policy import TrafficPolicy
from mlops_mini.rollout.release import Release, run, start
from tests.rollout.cluster import CANARY, V1, V2
from tests.serving.servers import free_ports, wait_until

BEGIN = 1_767_225_600  # 2026-01-01 00:00 UTC
SCRAPE_S = 15
pytestmark = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("prometheus")),
    reason="promtool and prometheus aren't installed: apt-get install prometheus",
)


def series(
    counts: Sequence[int],
    version: str = "v1",
    *,
    code: int = 200,
    grpc: str = "",
    pod: str = "a",
    reporter: str = "destination",
    service: str = "clothes",
    first: int = 0,
) -> list[str]:
    """Write one counter: a value per scrape, from the `first` one."""
    labels = {
        "reporter": reporter, "destination_service_name": service,
        "destination_service_namespace": "shop", "destination_version": version,
        "response_code": str(code), "grpc_response_status": grpc,
        "request_protocol": "grpc" if grpc else "http", "pod": f"{service}-{version}-{pod}",
    }  # fmt: skip
    text = ",".join(f'{name}="{value}"' for name, value in labels.items() if value)
    return [
        f"istio_requests_total{{{text}}} {count} {BEGIN + (first + n) * SCRAPE_S}"
        for n, count in enumerate(counts)
    ]


RECORDED = [
    # Two pods of the stable; the second one restarts after the second scrape.
    *series([1000, 1400, 1800, 2200]),
    *series([5, 5, 9, 12], code=503),
    *series([700, 1000, 300, 600], pod="b"),
    # The canary fails, is asked again by the proxy, and fails again: six attempts.
    *series([0, 60, 130, 190], "v2"),
    *series([2, 6, 8], "v2", code=503, first=1),
    # gRPC fails with a status of its own, under code 200.
    *series([0, 5, 10, 15], "v2", grpc="0"),
    *series([0, 3, 3, 3], "v2", grpc="14"),
    # A client's mistake counts on both sides.
    *series([0, 0, 1, 1], "v2", code=400),
    # What must not be counted: who asked saw no failure at all; another service; another version.
    *series([1700, 2405, 2110, 2812], reporter="source"),
    *series([0, 74, 150, 217], "v2", reporter="source"),
    *series([1, 900, 1800, 2700], "v2", service="shoes"),
    *series([50, 60, 70, 80], "v0"),
]


def steady() -> list[str]:
    """A release of 100 scrapes: 1,000 requests each, one in fifty fails on both sides."""
    n = 100
    return [
        *series([980 * k // 2 for k in range(n)], service="boots"),
        *series([20 * k // 2 for k in range(n)], service="boots", code=503),
        *series([980 * k // 2 for k in range(n)], "v2", service="boots"),
        *series([20 * k // 2 for k in range(n)], "v2", service="boots", code=503),
    ]


@dataclass
class Clock:
    now: float = BEGIN

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prometheus")
    recorded = folder / "recorded.txt"
    lines = ["# TYPE istio_requests_total counter", *RECORDED, *steady(), "# EOF", ""]
    recorded.write_text("\n".join(lines))
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", recorded, folder / "data"],
        check=True,
        capture_output=True,
    )
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 15s}\n")
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = [
        "prometheus", f"--config.file={folder}/prometheus.yml", f"--web.listen-address={address}",
        f"--storage.tsdb.path={folder}/data", "--storage.tsdb.retention.time=100y",
        "--log.level=warn",
    ]  # fmt: skip
    with ExitStack() as stack, (folder / "log").open("w") as log:
        process = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
        stack.callback(process.kill)

        def is_ready() -> bool:
            try:
                HttpApi(f"http://{address}", tries=1).ask("GET", "/api/v1/status/buildinfo")
            except UnavailableError:
                return False
            return True

        wait_until(is_ready, f"Prometheus, see {folder}/log", pace_s=0.1)
        yield f"http://{address}"


def watcher(url: str, clock: Clock, model: str = "clothes") -> IstioWatcher:
    return IstioWatcher(
        HttpApi(url),
        model=model,
        namespace="shop",
        is_ready=lambda _model, version: version != "v9",
        now=lambda: clock.now,
    )


def test_every_attempt_is_counted_at_its_destination(prometheus: str) -> None:
    clock = Clock()
    seen = watcher(prometheus, clock)
    assert seen.look(CANARY, seconds=SCRAPE_S).counts == {}  # from here on it's this policy's

    looks = []
    for _ in range(3):
        clock.sleep(SCRAPE_S)
        looks.append(seen.look(CANARY, seconds=SCRAPE_S))
    seen.close()

    assert [look.counts["error"] for look in looks] == [
        Counts(n_canary=70, n_stable=700, bad_canary=5, bad_stable=0),
        Counts(n_canary=80, n_stable=704, bad_canary=5, bad_stable=4),
        Counts(n_canary=67, n_stable=703, bad_canary=2, bad_stable=3),
    ]
    assert {look.weight_pct for look in looks} == {30}
    assert all(look.is_healthy for look in looks)


def test_who_asks_would_have_seen_no_failure(prometheus: str) -> None:
    """The query that many examples have is blind to retries."""
    query = 'sum(istio_requests_total{reporter="source",response_code=~"5.*"}) or vector(0)'
    answer = HttpApi(prometheus).ask("GET", f"/api/v1/query?query={query}&time={BEGIN + 45}")

    assert answer["data"]["result"][0]["value"][1] == "0"


def test_what_was_counted_under_the_old_policy_is_left_out(prometheus: str) -> None:
    clock = Clock()
    seen = watcher(prometheus, clock)
    seen.look(CANARY, seconds=SCRAPE_S)
    clock.sleep(2 * SCRAPE_S)
    larger = replace(CANARY, weight_pct=50)
    assert seen.look(larger, seconds=SCRAPE_S).counts == {}
    clock.sleep(SCRAPE_S)

    assert seen.look(larger, seconds=SCRAPE_S).counts["error"].n_canary == 67


def test_pods_that_are_not_ready_are_not_healthy(prometheus: str) -> None:
    seen = watcher(prometheus, Clock())
    other = TrafficPolicy(model="clothes", stable=V1, canary=replace(V2, name="v9"))

    assert not seen.look(other, seconds=15).is_healthy


@pytest.mark.parametrize(
    ("moment", "model", "words"),
    [
        (BEGIN + 30, "shirts", "knows no requests to v1 of shirts"),
        (BEGIN + 3600, "clothes", "is there any traffic"),  # nothing has been scraped for an hour
    ],
)
def test_nothing_to_see_is_an_error_and_not_a_zero(
    prometheus: str, moment: float, model: str, words: str
) -> None:
    seen = watcher(prometheus, Clock(moment), model)

    with pytest.raises(UnavailableError, match=words):
        seen.look(CANARY, seconds=15)


def test_a_prometheus_that_is_gone_is_an_error() -> None:
    seen = IstioWatcher(
        HttpApi("http://127.0.0.1:9", tries=1), model="m", namespace="n", is_ready=lambda *_: True
    )

    with pytest.raises(UnavailableError, match="gives no answer"):
        seen.look(CANARY, seconds=15)


def test_a_release_is_promoted_by_what_prometheus_has(prometheus: str, tmp_path: Path) -> None:
    """An A/B test with half of the requests each, over recorded time."""
    clock = Clock()
    strategy = Strategy(steps_pct=(50,), step_requests=1000, watch_looks=0)
    made = Release(model="boots", stable=V1, canary=V2, strategy=strategy)
    start(tmp_path, made)
    applied = []

    class RecordingRouter:
        def apply(self, policy: TrafficPolicy) -> None:
            applied.append((policy.stable.name, policy.weight_pct))

    end = run(
        tmp_path,
        RecordingRouter(),
        watcher=watcher(prometheus, clock, "boots"),
        look_s=SCRAPE_S,
        sleep=clock.sleep,
    )

    assert end.state.phase is Phase.PROMOTED, end.state.reason
    assert applied == [("v1", 0), ("v1", 50), ("v2", 0)]
    (evidence,) = end.evidence()
    assert evidence.counts.bad_canary == evidence.counts.n_canary // 50
