from dataclasses import replace
from typing import Any

import pytest
import yaml

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.rollout import istio, kustomize
from mlops_mini.rollout.istio_lint import findings
from mlops_mini.rollout.policy import Backend, HeaderRule, TrafficPolicy
from mlops_mini.rollout.workload import Workload
from tests.rollout.cluster import CANARY, V1, WORKLOAD, schema_errors

POLICIES = {
    "canary": CANARY,
    "stable": TrafficPolicy(model="clothes", stable=V1),
    "shadow": replace(CANARY, weight_pct=0, mirror_pct=12.5, header_rules=()),
    "sticky": replace(CANARY, sticky_header="x-user", retries=0),
    "stable by header": replace(
        CANARY, header_rules=(HeaderRule(header="x-old", value="1", side="stable"),)
    ),
}
WORKLOADS = {
    "TensorFlow Serving": WORKLOAD,
    "our server": replace(WORKLOAD, server="mini-model-server", image="mlops-mini:0.1.0"),
    "TLS, no account": replace(WORKLOAD, tls_secret="clothes-tls", google_account=None),
    "a path in the image": replace(
        WORKLOAD, server="mini-model-server", model_paths={"v1": "/opt/1", "v2": "/opt/2"}
    ),
}


def of_kind(objects: Any, kind: str, name: str | None = None) -> Any:
    (found,) = (
        one for one in objects if one["kind"] == kind and name in (None, one["metadata"]["name"])
    )
    return found


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_all_objects_fit_strict_schemas_and_pass_the_lint(
    policy: TrafficPolicy, workload: Workload
) -> None:
    objects = istio.render(policy, workload).objects

    assert schema_errors(objects) == []
    assert findings(objects) == []
    assert {one["metadata"]["namespace"] for one in objects} == {"shop"}


def test_the_three_steps_come_in_a_safe_order() -> None:
    rendering = istio.render(CANARY, WORKLOAD)

    kinds = [one["kind"] for one in rendering.objects]
    assert kinds == [
        "ServiceAccount", "ConfigMap", "ConfigMap",
        "NetworkPolicy",
        "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget",
        "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget",
        "Service", "DestinationRule", "Gateway", "VirtualService",
    ]  # fmt: skip


def test_the_config_map_points_to_the_bucket_and_the_account_may_read_it() -> None:
    objects = istio.render(CANARY, WORKLOAD).objects

    assert of_kind(objects, "ConfigMap", "clothes-v2")["data"] == {
        "MODEL_NAME": "clothes",
        "MODEL_PATH": "gs://shop-models/clothes-v2",
    }
    account = of_kind(objects, "ServiceAccount")
    assert account["metadata"]["annotations"] == {
        "iam.gke.io/gcp-service-account": "model-reader@shop-project.iam.gserviceaccount.com"
    }
    pod = of_kind(objects, "Deployment", "clothes-v2")["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "clothes"
    assert pod["containers"][0]["envFrom"] == [{"configMapRef": {"name": "clothes-v2"}}]


def test_our_server_gets_the_bucket_as_a_folder_and_is_asked_whether_it_is_ready() -> None:
    """It refuses gs://, and says more about itself than TensorFlow Serving."""
    objects = istio.render(CANARY, WORKLOADS["our server"]).objects

    pod = of_kind(objects, "Deployment", "clothes-v2")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == "models")
    assert volume["csi"]["volumeAttributes"]["bucketName"] == "shop-models"
    assert pod["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    assert of_kind(objects, "ConfigMap", "clothes-v2")["data"]["MODEL_PATH"] == "/models/clothes-v2"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_pods_ask_for_a_proxy_beside_them() -> None:
    """The looks of a release are made of what it counts."""
    objects = istio.render(CANARY, WORKLOAD).objects

    labels = of_kind(objects, "Deployment", "clothes-v2")["spec"]["template"]["metadata"]["labels"]
    assert labels == {"app": "clothes", "version": "v2", "sidecar.istio.io/inject": "true"}


def test_the_autoscaler_alone_says_how_many_pods_there_are() -> None:
    objects = istio.render(CANARY, WORKLOAD).objects

    assert "replicas" not in of_kind(objects, "Deployment", "clothes-v2")["spec"]


def test_what_a_header_decides_is_not_retried_elsewhere() -> None:
    (grpc, _, rest, _) = istio.virtual_service(CANARY, WORKLOAD)["spec"]["http"]

    assert grpc["retries"] == rest["retries"] == {"attempts": 0}
    assert [part["destination"]["subset"] for part in rest["route"]] == ["v2"]


def test_a_shadow_gets_copies_through_small_limits_of_its_own() -> None:
    objects = istio.render(POLICIES["shadow"], WORKLOAD).objects

    for route in of_kind(objects, "VirtualService")["spec"]["http"]:
        (mirror,) = route["mirrors"]
        assert mirror["destination"]["subset"] == "v2-shadow"
        assert mirror["percentage"] == {"value": 12.5}
    subset = of_kind(objects, "DestinationRule")["spec"]["subsets"][-1]
    assert subset["trafficPolicy"]["connectionPool"]["http"]["http2MaxRequests"] == 64


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("canary", ["Istio tries again on the version that has just failed"]),
        ("stable", []),
        ("shadow", ["tries again", "-shadow to the Host"]),
        ("sticky", ["whatever x-user says"]),
    ],
)
def test_what_istio_cannot_say_is_said_in_words(policy: str, words: list[str]) -> None:
    lossy = istio.render(POLICIES[policy], WORKLOAD).lossy

    assert len(lossy) == len(words)
    assert all(word in sentence for word, sentence in zip(words, lossy, strict=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight_pct": 0.5}, "whole percentages"),
        ({"model": "Clothes"}, "Clothes-v1 isn't a name for Kubernetes"),
        ({"stable": Backend(name="v7")}, "where is the model of v7"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(change: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        istio.render(replace(CANARY, **change), WORKLOAD)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_paths": {"v1": "gs://b/m", "v2": "gs://b/m"}}, "a path of its own"),
        ({"host": "*"}, "calls inside the mesh"),
        ({"min_replicas": 9}, "at most max_replicas"),
    ],
)
def test_a_workload_that_makes_no_sense_is_refused(change: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        replace(WORKLOAD, **change)


def test_the_files_are_the_objects_a_base_and_what_a_canary_changes() -> None:
    texts = kustomize.files(CANARY, WORKLOAD)

    stable = replace(CANARY, canary=None, weight_pct=0, header_rules=())
    base = [
        one
        for name, text in texts.items()
        if name.startswith("base/") and "kustomization" not in name
        for one in yaml.safe_load_all(text)
    ]
    assert base == list(istio.render(stable, WORKLOAD).objects)
    changed = list(yaml.safe_load_all(texts["overlays/canary/3-interface.yaml"]))
    assert [one["kind"] for one in changed] == ["DestinationRule", "VirtualService"]
    assert not any("&id" in text for text in texts.values())
    assert not [name for name in kustomize.files(stable, WORKLOAD) if "canary" in name]
