"""One policy, rendered for Envoy and for Istio, sends each request to the same place."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import urllib3

from mlops_mini.errors import UnimplementedError
from mlops_mini.rollout import envoy_config, istio
from mlops_mini.rollout.envoy import Envoy
from mlops_mini.rollout.policy import HeaderRule, TrafficPolicy
from mlops_mini.rollout.routing_table import Request, of_envoy, of_istio
from tests.rollout.backends import FakeVersion, versions
from tests.rollout.cluster import CANARY, V1, WORKLOAD

GRPC = {"content-type": "application/grpc"}
CHOSEN = {"x-user-group": "canary"}
REQUESTS = {
    "predict": Request(path="/v1/models/clothes:predict"),
    "by header": Request(path="/v1/models/clothes:predict", headers=CHOSEN),
    "by another value": Request(
        path="/v1/models/clothes:predict", headers={"x-user-group": "canaries"}
    ),
    "status": Request(path="/v1/models/clothes"),
    "a version": Request(path="/v1/models/clothes/versions/7:predict"),
    "metadata, by header": Request(path="/v1/models/clothes/metadata", headers=CHOSEN),
    "a longer name": Request(path="/v1/models/clothes2:predict"),
    "another model": Request(path="/v1/models/shoes:predict", headers=CHOSEN),
    "gRPC": Request(path="/tensorflow.serving.PredictionService/Predict", headers=GRPC),
    "gRPC, by header": Request(
        path="/tensorflow.serving.PredictionService/Predict", headers=GRPC | CHOSEN
    ),
    "gRPC's path without its type": Request(path="/tensorflow.serving.PredictionService/Predict"),
    "somewhere else": Request(path="/metrics"),
}
POLICIES = {
    "canary": CANARY,
    "all": replace(CANARY, weight_pct=100),
    "none yet": replace(CANARY, weight_pct=0),
    "shadow": replace(CANARY, weight_pct=0, mirror_pct=100),
    "stable": TrafficPolicy(model="clothes", stable=V1),
    "two rules": replace(
        CANARY,
        header_rules=(
            HeaderRule(header="x-user-group", value="canaries", side="stable"),
            *CANARY.header_rules,
        ),
    ),
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_both_renderings_have_the_same_table(policy: TrafficPolicy) -> None:
    routes = envoy_config.routes(policy)
    service = istio.virtual_service(policy, WORKLOAD)

    by_envoy = {name: of_envoy(routes, request) for name, request in REQUESTS.items()}
    by_istio = {name: of_istio(service, request) for name, request in REQUESTS.items()}

    assert by_istio == by_envoy


def test_a_canary_at_30_percent_and_by_header_in_both() -> None:
    for table in (
        lambda request: of_envoy(envoy_config.routes(CANARY), request),
        lambda request: of_istio(istio.virtual_service(CANARY, WORKLOAD), request),
    ):
        assert table(REQUESTS["predict"]) == {"v1-rest": 70, "v2-rest": 30}
        assert table(REQUESTS["by header"]) == {"v2-rest": 100}
        assert table(REQUESTS["gRPC"]) == {"v1-grpc": 70, "v2-grpc": 30}
        assert table(REQUESTS["gRPC, by header"]) == {"v2-grpc": 100}
        assert table(REQUESTS["another model"]) == {}
        assert table(REQUESTS["gRPC's path without its type"]) == {}


def test_a_match_that_ours_never_have_is_refused() -> None:
    service = istio.virtual_service(CANARY, WORKLOAD)
    service["spec"]["http"][0]["match"][0]["method"] = {"exact": "POST"}

    with pytest.raises(UnimplementedError, match="method"):
        of_istio(service, REQUESTS["predict"])


def test_a_real_envoy_does_what_the_table_says(tmp_path: Path) -> None:
    """For REST; the stand-ins for servers don't speak HTTP/2."""
    asked = {name: request for name, request in REQUESTS.items() if not request.is_grpc}
    with versions(FakeVersion("v1"), FakeVersion("v2")) as (v1, v2):
        held = replace(CANARY, stable=v1, canary=v2)
        with Envoy(tmp_path, replace(held, canary=None, weight_pct=0, header_rules=())) as envoy:
            envoy.router.apply(held)
            answers = {name: _ask(envoy, request) for name, request in asked.items()}

    for name, request in asked.items():
        shares = of_envoy(envoy_config.routes(held), request)
        expected = {cluster.removesuffix("-rest") for cluster in shares} or {"404"}
        assert answers[name].keys() == expected, name
    assert 30 < answers["predict"]["v2"] < 92  # of 200 at 30 %: within 5 standard deviations


def _ask(envoy: Envoy, request: Request) -> Counter[str]:
    url = f"http://{envoy.router.address}{request.path}"
    answers: Counter[str] = Counter()
    with urllib3.PoolManager(retries=False, timeout=30) as http_pool:
        for _ in range(200):
            answer = http_pool.request("POST", url, body=b"{}", headers=dict(request.headers))
            answers[answer.data.decode() if answer.status == 200 else str(answer.status)] += 1
    return answers
