"""Mistakes that people make, one at a time; schemas find few of them."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from mlops_mini.rollout import istio
from mlops_mini.rollout.istio_lint import findings
from tests.rollout.cluster import CANARY, WORKLOAD, schema_errors


def broken(change: Callable[[dict[str, Any]], None]) -> list[Any]:
    """Render, and change one thing; objects are found by kind, the canary's for a version."""
    objects = deepcopy(list(istio.render(CANARY, WORKLOAD).objects))
    change({one["kind"]: one["spec"] for one in objects if "spec" in one})
    return objects


def split(specs: dict[str, Any]) -> Any:
    """The route that splits REST requests."""
    return specs["VirtualService"]["http"][-1]


def server(specs: dict[str, Any]) -> Any:
    return specs["Deployment"]["template"]["spec"]["containers"][0]


# The first four break a schema. The others fit, and would be taken by `kubectl apply`.
SCHEMA_MUTATIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "weight as text": lambda s: split(s)["route"][1].update(weight="30"),
    "misspelled field": lambda s: split(s)["retries"].update(perTryTimout="1s"),
    "unknown field": lambda s: split(s).update(fallback="v1"),
    "port as text": lambda s: split(s)["route"][0]["destination"]["port"].update(number="8501"),
}
LINT_MUTATIONS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "weights 80 and 30": (
        lambda s: split(s)["route"][0].update(weight=80),
        "weights [80, 30] add up to 110",
    ),
    "a subset that isn't there": (
        lambda s: split(s)["route"][1]["destination"].update(subset="v3"),
        "no DestinationRule has the subset v3",
    ),
    "a subset renamed": (
        lambda s: s["DestinationRule"]["subsets"][1].update(name="canary"),
        "no DestinationRule has the subset v2",
    ),
    "selector": (
        lambda s: s["Deployment"]["selector"]["matchLabels"].update(version="v3"),
        "Deployment clothes-v2: its selector",
    ),
    "timeout in words": (
        lambda s: split(s).update(timeout="10 seconds"),
        "timeout '10 seconds' is no duration",
    ),
    "protocol": (
        lambda s: s["Gateway"]["servers"][0]["port"].update(protocol="HTTPP"),
        "the protocol 'HTTPP'",
    ),
    # Beyond the ten: more of what the lab's files and real outages have.
    "port name as in the lab": (
        lambda s: s["Service"]["ports"][0].update(name="tf-serving-grpc", targetPort=8500),
        "can't tell the protocol of port tf-serving-grpc",
    ),
    "service port": (
        lambda s: s["Service"]["ports"][1].update(port=80),
        "Service clothes has no port 8501",
    ),
    "target port": (
        lambda s: s["Service"]["ports"][1].update(targetPort=9000),
        "has no port 9000",
    ),
    "service's selector": (
        lambda s: s["Service"]["selector"].update(app="shoes"),
        "Service clothes: no pods have the labels",
    ),
    "subset's labels": (
        lambda s: s["DestinationRule"]["subsets"][1]["labels"].update(version="2"),
        "DestinationRule clothes: no pods have the labels",
    ),
    "host": (
        lambda s: split(s)["route"][0]["destination"].update(host="shoes.shop.svc.cluster.local"),
        "there is no Service shoes",
    ),
    "gateway": (
        lambda s: s["VirtualService"].update(gateways=["front", "mesh"]),
        "there is no Gateway front",
    ),
    "gateway's host": (
        lambda s: s["Gateway"]["servers"][0].update(hosts=["shoes.example.com"]),
        "no gateway lets requests for",
    ),
    "config map": (
        lambda s: server(s)["envFrom"][0]["configMapRef"].update(name="clothes"),
        "there is no ConfigMap clothes",
    ),
    "service account": (
        lambda s: s["Deployment"]["template"]["spec"].update(serviceAccountName="reader"),
        "there is no ServiceAccount reader",
    ),
    "volume": (
        lambda s: server(s)["volumeMounts"][0].update(name="scratch"),
        "there is no volume scratch",
    ),
    "autoscaler": (
        lambda s: s["HorizontalPodAutoscaler"]["scaleTargetRef"].update(name="clothes"),
        "there is no Deployment clothes",
    ),
    "probe": (
        lambda s: server(s)["readinessProbe"]["httpGet"].update(port=8080),
        "the readinessProbe asks port 8080",
    ),
    "quantity": (
        lambda s: server(s)["resources"]["limits"].update(memory="2 GB"),
        "'2 GB' (limits, memory) is no quantity",
    ),
    "image": (
        lambda s: server(s).update(image="registry:5000/tensorflow/serving"),
        "may be another one tomorrow",
    ),
}


@pytest.mark.parametrize("change", SCHEMA_MUTATIONS.values(), ids=SCHEMA_MUTATIONS)
def test_schemas_catch_what_one_object_says_of_itself(
    change: Callable[[dict[str, Any]], Any],
) -> None:
    assert len(schema_errors(broken(change))) >= 1


@pytest.mark.parametrize(("change", "words"), LINT_MUTATIONS.values(), ids=LINT_MUTATIONS)
def test_the_lint_catches_what_schemas_let_pass(
    change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    objects = broken(change)

    assert schema_errors(objects) == []
    assert any(words in finding for finding in findings(objects)), findings(objects)
