"""What is served and who serves it, as Kubernetes' own objects.

Source:
    https://kubernetes.io/docs/reference/kubernetes-api (v1.37). Workload Identity and the driver
    for Cloud Storage are Google's: https://cloud.google.com/kubernetes-engine/docs.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from mlops_mini.errors import InvalidArgumentError

Object = dict[str, Any]

PORTS = {"grpc": 8500, "rest": 8501}
# Istio takes the protocol from the first word of a port's name, and has to guess without it.
PORT_NAMES = {"grpc": "grpc-tf-serving", "rest": "http-tf-serving"}
_HOST = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DRAIN_S = 15  # proxies learn that a pod is going a while after it was told
_METRICS_PORT = 15020  # where Prometheus finds the sidecar's numbers
_GATEWAY_NAMESPACE = "istio-system"


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What a cluster needs to know besides the policy.

    Attributes:
        model_paths: Where each version's model is, by the version's name, such as
            `{"v1": "gs://shop-models/ranking-v1"}`. A server takes the highest number that it finds
            there, so versions mustn't share a path.
        image: Image of the model server, with a tag or a digest.
        host: Name under which clients outside of the cluster ask, such as `ranking.example.com`.
        server: Command in the image. TensorFlow Serving reads buckets itself; for ours the bucket
            is mounted by GKE's driver for Cloud Storage.
        namespace: Where the objects belong.
        google_account: Google service account that may read the bucket, or None if anybody may.
        min_replicas: Pods of a version, at least; above 0.
        max_replicas: Pods of a version, at most.
        cpu: CPU that a pod is promised, such as `1` or `500m`.
        memory: Memory that it's promised and held to, such as `2Gi`.
        tls_secret: Secret with the certificate of `host`; None for plain HTTP.

    Raises:
        InvalidArgumentError: It makes no sense; the message says what to change.
    """

    model_paths: Mapping[str, str]
    image: str
    host: str
    server: Literal["tensorflow_model_server", "mini-model-server"] = "tensorflow_model_server"
    namespace: str = "default"
    google_account: str | None = None
    min_replicas: int = 2
    max_replicas: int = 8
    cpu: str = "1"
    memory: str = "2Gi"
    tls_secret: str | None = None

    def __post_init__(self) -> None:
        if len(set(self.model_paths.values())) < len(self.model_paths):
            raise InvalidArgumentError(
                f"versions share a path, {dict(self.model_paths)}: each server takes the highest "
                "number that it finds there, so give each a path of its own"
            )
        if not _HOST.fullmatch(self.host):
            raise InvalidArgumentError(
                f"host is a DNS name such as ranking.example.com, got {self.host!r}: with '*' the "
                "rules couldn't hold for calls inside the mesh"
            )
        if not 0 < self.min_replicas <= self.max_replicas:
            raise InvalidArgumentError(
                f"min_replicas must be above 0 and at most max_replicas, got {self.min_replicas} "
                f"and {self.max_replicas}"
            )


def configuration(model: str, versions: Sequence[str], workload: Workload) -> tuple[Object, ...]:
    """Render step 1: the service account, and a config map for each version.

    Args:
        model: Name of the model, which the objects take theirs from.
        versions: Names of the versions.
        workload: What the cluster needs to know.
    """
    config_maps = (_config_map(model, version, workload) for version in versions)
    return _service_account(model, workload), *config_maps


def deployment(model: str, versions: Sequence[str], workload: Workload) -> tuple[Object, ...]:
    """Render step 2: the network policy, and what keeps the pods of each version.

    Args:
        model: Name of the model, which the objects take theirs from.
        versions: Names of the versions.
        workload: What the cluster needs to know.
    """
    of_versions = (
        make(model, version, workload)
        for version in versions
        for make in (_deployment, _autoscaler, _disruption_budget)
    )
    return _network_policy(model, workload), *of_versions


def make_object(api: str, kind: str, name: str, workload: Workload, **fields: Any) -> Object:
    """Make an object in the namespace of a workload.

    Args:
        api: Its `apiVersion`.
        kind: Its kind.
        name: Its name.
        workload: Whose namespace it belongs to.
        **fields: Its other parts, such as `spec`; copied, so that no two places share a part: who
            changes one doesn't change another.
    """
    metadata = {"name": name, "namespace": workload.namespace}
    message = {"apiVersion": api, "kind": kind, "metadata": metadata, **fields}
    copied: Object = json.loads(json.dumps(message))
    return copied


def _service_account(app: str, workload: Workload) -> Object:
    account = make_object("v1", "ServiceAccount", app, workload)
    if workload.google_account is not None:
        key = "iam.gke.io/gcp-service-account"
        account["metadata"]["annotations"] = {key: workload.google_account}
    return account


def _config_map(app: str, version: str, workload: Workload) -> Object:
    path = workload.model_paths[version]
    if _is_mounted(version, workload):
        path = "/models/" + path.removeprefix("gs://").partition("/")[2]
    data = {"MODEL_NAME": app, "MODEL_PATH": path}
    return make_object("v1", "ConfigMap", f"{app}-{version}", workload, data=data)


def _deployment(app: str, version: str, workload: Workload) -> Object:
    labels = {"app": app, "version": version}
    # Without a proxy beside it, a pod's attempts are counted by nobody.
    pod_metadata: Object = {"labels": {**labels, "sidecar.istio.io/inject": "true"}}
    volumes: list[Object] = [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]
    mounts: list[Object] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 the pod's own
    if _is_mounted(version, workload):
        bucket = workload.model_paths[version].removeprefix("gs://").partition("/")[0]
        attributes = {"bucketName": bucket, "mountOptions": "implicit-dirs"}
        driver = {"driver": "gcsfuse.csi.storage.gke.io", "readOnly": True}
        volumes.append({"name": "models", "csi": {**driver, "volumeAttributes": attributes}})
        mounts.append({"name": "models", "mountPath": "/models", "readOnly": True})
        pod_metadata["annotations"] = {"gke-gcsfuse/volumes": "true"}
    container = {
        "name": "model-server",
        "image": workload.image,
        "command": [workload.server],
        "args": [
            f"--port={PORTS['grpc']}",
            f"--rest_api_port={PORTS['rest']}",
            "--model_name=$(MODEL_NAME)",
            "--model_base_path=$(MODEL_PATH)",
        ],
        "envFrom": [{"configMapRef": {"name": f"{app}-{version}"}}],
        "ports": [
            {"name": PORT_NAMES[protocol], "containerPort": port}
            for protocol, port in PORTS.items()
        ],
        **_probes(app, workload),
        "lifecycle": {"preStop": {"sleep": {"seconds": _DRAIN_S}}},
        "resources": {
            "requests": {"cpu": workload.cpu, "memory": workload.memory},
            "limits": {"memory": workload.memory},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    pod = {
        "serviceAccountName": app,
        "automountServiceAccountToken": False,  # nothing in it talks to Kubernetes
        "terminationGracePeriodSeconds": 3 * _DRAIN_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65534,
            "runAsGroup": 65534,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    spec = {  # no `replicas`: the autoscaler sets them, and we'd set them back
        "selector": {"matchLabels": labels},
        "template": {"metadata": pod_metadata, "spec": pod},
    }
    deployment = make_object("apps/v1", "Deployment", f"{app}-{version}", workload, spec=spec)
    deployment["metadata"]["labels"] = labels
    return deployment


def _is_mounted(version: str, workload: Workload) -> bool:
    path = workload.model_paths[version]
    return workload.server == "mini-model-server" and path.startswith("gs://")


def _probes(app: str, workload: Workload) -> Object:
    """Make probes that mean what they say.

    TensorFlow Serving answers the status of a model whatever it is, but opens no port before the
    first load; our server has a path for each question.
    """
    status = f"/v1/models/{quote(app)}"
    is_ours = workload.server == "mini-model-server"
    port = PORT_NAMES["rest"]
    ready = {"path": "/readyz" if is_ours else status, "port": port}
    alive = {"path": "/healthz" if is_ours else status, "port": port}
    return {
        "startupProbe": {"httpGet": ready, "periodSeconds": 5, "failureThreshold": 60},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 5, "timeoutSeconds": 2},
        "livenessProbe": {"httpGet": alive, "periodSeconds": 10, "timeoutSeconds": 5},
    }


def _autoscaler(app: str, version: str, workload: Workload) -> Object:
    name = f"{app}-{version}"
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": workload.min_replicas,
        "maxReplicas": workload.max_replicas,
        "metrics": [
            {
                "type": "Resource",
                "resource": {
                    "name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 70},
                },
            }
        ],
    }
    return make_object("autoscaling/v2", "HorizontalPodAutoscaler", name, workload, spec=spec)


def _disruption_budget(app: str, version: str, workload: Workload) -> Object:
    labels = {"app": app, "version": version}
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
    return make_object("policy/v1", "PodDisruptionBudget", f"{app}-{version}", workload, spec=spec)


def _network_policy(app: str, workload: Workload) -> Object:
    gateways = {"matchLabels": {"kubernetes.io/metadata.name": _GATEWAY_NAMESPACE}}
    requests = {
        "from": [{"namespaceSelector": gateways}, {"podSelector": {}}],
        "ports": [{"protocol": "TCP", "port": port} for port in PORTS.values()],
    }
    scrapes = {
        "from": [{"namespaceSelector": {}}],
        "ports": [{"protocol": "TCP", "port": _METRICS_PORT}],
    }
    spec = {
        "podSelector": {"matchLabels": {"app": app}},
        "policyTypes": ["Ingress"],
        "ingress": [requests, scrapes],
    }
    return make_object("networking.k8s.io/v1", "NetworkPolicy", app, workload, spec=spec)


def service(app: str, workload: Workload) -> Object:
    """Render the name that stays in front of all pods, of whichever version.

    Args:
        app: Name of the model.
        workload: What the cluster needs to know.
    """
    ports = [
        {"name": name, "port": PORTS[protocol], "targetPort": name}
        for protocol, name in PORT_NAMES.items()
    ]
    # All versions: which one is asked is the virtual service's business.
    spec = {"selector": {"app": app}, "ports": ports}
    return make_object("v1", "Service", app, workload, spec=spec)


def service_host(app: str, workload: Workload) -> str:
    """Tell the name of the service inside of the cluster."""
    return f"{app}.{workload.namespace}.svc.cluster.local"
