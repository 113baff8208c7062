from typing import Any

import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.rollout import envoy_config
from mlops_mini.rollout.policy import Backend, HeaderRule, TrafficPolicy

V1 = Backend(name="v1", rest="127.0.0.1:8501", grpc="127.0.0.1:8500")
V2 = Backend(name="v2", rest="127.0.0.1:8601", grpc="127.0.0.1:8600")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_pct": -1}, "from 0 to 100"),
        ({"weight_pct": 101}, "from 0 to 100"),
        ({"weight_pct": float("nan")}, "from 0 to 100"),
        ({"weight_pct": 0.001}, "steps of 0.01"),
        ({"mirror_pct": 100.5}, "from 0 to 100"),
        ({"canary": None, "weight_pct": 5}, "no canary"),
        ({"canary": None, "mirror_pct": 5}, "no canary"),
        ({"weight_pct": 5, "mirror_pct": 5}, "needs no copies"),
        ({"canary": V1}, "both v1"),
        ({"sticky_header": "x user"}, "not a name of an HTTP header"),
        ({"timeout_s": 0}, "timeout"),
        ({"timeout_s": float("inf")}, "timeout"),
        ({"per_try_timeout_s": 20}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"model": "a/b"}, "part of a URL"),
        ({"model": ""}, "part of a URL"),
    ],
)
def test_an_impossible_policy_cannot_be_made(change: dict[str, Any], message: str) -> None:
    possible: dict[str, Any] = {"model": "flights", "stable": V1, "canary": V2}
    TrafficPolicy(**possible)

    with pytest.raises(InvalidArgumentError, match=message):
        TrafficPolicy(**{**possible, **change})


def test_a_rule_for_a_canary_that_is_not_there_is_refused() -> None:
    rule = HeaderRule(header="X-Canary", value="always", side="canary")

    with pytest.raises(InvalidArgumentError, match="names the canary, and there is none"):
        TrafficPolicy(model="flights", stable=V1, header_rules=(rule,))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"header": "x:y", "value": "1", "side": "canary"}, "HTTP header"),
        ({"header": "x-y", "value": "", "side": "canary"}, "printable"),
        ({"header": "x-y", "value": "a\nb", "side": "canary"}, "printable"),
        ({"header": "x-y", "value": "1", "side": "v7"}, "'stable' or 'canary'"),
    ],
)
def test_a_rule_that_no_request_can_fit_is_refused(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        HeaderRule(**rule)


@pytest.mark.parametrize(
    "backend",
    [
        {"name": "V 1"},
        {"name": "v1-"},
        {"rest": "localhost:8501"},
        {"rest": "127.0.0.1"},
        {"grpc": "127.0.0.1:0"},
        {"grpc": "127.0.0.1:70000"},
    ],
)
def test_a_backend_that_no_router_can_find_is_refused(backend: dict[str, str]) -> None:
    possible = {"name": "v1", "rest": "127.0.0.1:8501", "grpc": "127.0.0.1:8500"}

    with pytest.raises(InvalidArgumentError, match=r"IP:PORT|lower-case"):
        Backend(**{**possible, **backend})


def test_envoy_needs_the_addresses_that_a_cluster_does_without() -> None:
    nameless = TrafficPolicy(model="flights", stable=Backend(name="v1"))

    with pytest.raises(InvalidArgumentError, match="Envoy needs the rest address of v1"):
        envoy_config.clusters(nameless)
