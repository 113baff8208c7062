"""A traffic policy as objects of Kubernetes and Istio, in three steps: model, servers, interface.

Each step may only be written when the one before it is there: a route to a subset that doesn't
exist answers 503, and a subset without ready pods does, too.

Source:
    https://kubernetes.io/docs/reference/kubernetes-api (core objects, v1.37),
    https://istio.io/latest/docs/reference/config/networking (networking.istio.io/v1).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.rollout.policy import Backend, HeaderRule, TrafficPolicy

Object = dict[str, Any]

PORTS = {"grpc": 8500, "rest": 8501}
# Istio takes the protocol from the first word of a port's name, and has to guess without it.
PORT_NAMES = {"grpc": "grpc-tf-serving", "rest": "http-tf-serving"}
_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_HOST = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,reset,5xx"
_MAX_SHADOW_REQUESTS = 64  # as in Envoy's files: a shadow that hangs must not gather requests
_CONNECT_TIMEOUT = "0.25s"
_DRAIN_S = 15  # proxies learn that a pod is going a while after it was told
_METRICS_PORT = 15020  # where Prometheus finds the sidecar's numbers
_GATEWAY_NAMESPACE = "istio-system"


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What a cluster needs to know besides the policy.

    Attributes:
        model_paths: Where each version's model is, by the version's name, such as
            `{"v1": "gs://shop-models/clothes-v1"}`. A server takes the highest number that it finds
            there, so versions mustn't share a path.
        image: Image of the model server, with a tag or a digest.
        host: Name under which clients outside of the cluster ask, such as `clothes.example.com`.
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
                f"host is a DNS name such as clothes.example.com, got {self.host!r}: with '*' the "
                "rules couldn't hold for calls inside the mesh"
            )
        if not 0 < self.min_replicas <= self.max_replicas:
            raise InvalidArgumentError(
                f"min_replicas must be above 0 and at most max_replicas, got {self.min_replicas} "
                f"and {self.max_replicas}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendering:
    """Objects in the order in which they may be written.

    Attributes:
        configuration: Step 1, what is served, and who may read it: service account, config maps.
        deployment: Step 2, who serves: network policy; deployment, autoscaler and disruption budget
            of each version.
        interface: Step 3, how it's reached: service, destination rule, gateway, virtual service.
        lossy: What the policy says and Istio can't, in words.
    """

    configuration: tuple[Object, ...]
    deployment: tuple[Object, ...]
    interface: tuple[Object, ...]
    lossy: tuple[str, ...]

    @property
    def objects(self) -> tuple[Object, ...]:
        """All of them."""
        return (*self.configuration, *self.deployment, *self.interface)


def render(policy: TrafficPolicy, workload: Workload) -> Rendering:
    """Render a policy.

    Args:
        policy: Who gets which version.
        workload: What the cluster needs to know besides.

    Returns:
        The objects, and what they can't say.

    Raises:
        InvalidArgumentError: A name isn't one for Kubernetes, a version has no path, or a weight
            isn't a whole percentage.

    >>> v1, v2 = Backend(name="v1"), Backend(name="v2")
    >>> policy = TrafficPolicy(model="clothes", stable=v1, canary=v2, weight_pct=30)
    >>> paths = {"v1": "gs://shop/v1", "v2": "gs://shop/v2"}
    >>> workload = Workload(model_paths=paths, image="tensorflow/serving:2.8.0", host="c.shop.com")
    >>> [part["kind"] for part in render(policy, workload).interface]
    ['Service', 'DestinationRule', 'Gateway', 'VirtualService']
    """
    _check_names(policy, workload)
    versions = [backend.name for backend in (policy.stable, policy.canary) if backend is not None]
    app = policy.model
    return Rendering(
        configuration=(
            _service_account(app, workload),
            *(_config_map(app, version, workload) for version in versions),
        ),
        deployment=(
            _network_policy(app, workload),
            *(
                make(app, version, workload)
                for version in versions
                for make in (_deployment, _autoscaler, _disruption_budget)
            ),
        ),
        interface=(
            _service(app, workload),
            _destination_rule(policy, workload),
            _gateway(app, workload),
            virtual_service(policy, workload),
        ),
        lossy=tuple(_lossy(policy)),
    )


def virtual_service(policy: TrafficPolicy, workload: Workload) -> Object:
    """Render who gets which request: all that changes while a release goes on.

    Args:
        policy: Who gets which version.
        workload: Its host and namespace are used.
    """
    # As in Envoy's files: no model with a longer name, and gRPC is told by its content type.
    path = f"/v1/models/{quote(policy.model, safe='').replace('.', '[.]')}([:/].*)?"
    matches: dict[str, Object] = {
        "grpc": {
            "uri": {"prefix": "/tensorflow.serving."},
            "headers": {"content-type": {"prefix": "application/grpc"}},
        },
        "rest": {"uri": {"regex": path}},
    }
    routes = []
    for protocol, match in matches.items():
        routes += [
            _rule_route(policy, rule, protocol, match, workload) for rule in policy.header_rules
        ]
        routes.append(_split_route(policy, protocol, match, workload))
    spec = {
        "hosts": [workload.host, _service_host(policy.model, workload)],
        "gateways": [policy.model, "mesh"],
        "http": routes,
    }
    return _object("networking.istio.io/v1", "VirtualService", policy.model, workload, spec=spec)


def _check_names(policy: TrafficPolicy, workload: Workload) -> None:
    for backend in (policy.stable, policy.canary):
        if backend is None:
            continue
        if not _LABEL.fullmatch(f"{policy.model}-{backend.name}"):
            raise InvalidArgumentError(
                f"{policy.model}-{backend.name} isn't a name for Kubernetes: use up to 63 lower-"
                "case letters, digits and hyphens for model and version together"
            )
        if backend.name not in workload.model_paths:
            raise InvalidArgumentError(
                f"where is the model of {backend.name}? model_paths has "
                f"{sorted(workload.model_paths)}"
            )
    if policy.weight_pct % 1:
        raise InvalidArgumentError(
            f"Istio's weights are whole percentages, so weight_pct can't be {policy.weight_pct:g}"
        )


def _object(api: str, kind: str, name: str, workload: Workload, **fields: Any) -> Object:
    metadata = {"name": name, "namespace": workload.namespace}
    message = {"apiVersion": api, "kind": kind, "metadata": metadata, **fields}
    # A copy in which no two places share a part: who changes one doesn't change another.
    copied: Object = json.loads(json.dumps(message))
    return copied


def _service_account(app: str, workload: Workload) -> Object:
    account = _object("v1", "ServiceAccount", app, workload)
    if workload.google_account is not None:
        key = "iam.gke.io/gcp-service-account"
        account["metadata"]["annotations"] = {key: workload.google_account}
    return account


def _config_map(app: str, version: str, workload: Workload) -> Object:
    path = workload.model_paths[version]
    if _is_mounted(version, workload):
        path = "/models/" + path.removeprefix("gs://").partition("/")[2]
    data = {"MODEL_NAME": app, "MODEL_PATH": path}
    return _object("v1", "ConfigMap", f"{app}-{version}", workload, data=data)


def _deployment(app: str, version: str, workload: Workload) -> Object:
    labels = {"app": app, "version": version}
    pod_metadata: Object = {"labels": labels}
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
    deployment = _object("apps/v1", "Deployment", f"{app}-{version}", workload, spec=spec)
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
    return _object("autoscaling/v2", "HorizontalPodAutoscaler", name, workload, spec=spec)


def _disruption_budget(app: str, version: str, workload: Workload) -> Object:
    labels = {"app": app, "version": version}
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
    return _object("policy/v1", "PodDisruptionBudget", f"{app}-{version}", workload, spec=spec)


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
    return _object("networking.k8s.io/v1", "NetworkPolicy", app, workload, spec=spec)


def _service(app: str, workload: Workload) -> Object:
    ports = [
        {"name": name, "port": PORTS[protocol], "targetPort": name}
        for protocol, name in PORT_NAMES.items()
    ]
    # All versions: which one is asked is the virtual service's business.
    spec = {"selector": {"app": app}, "ports": ports}
    return _object("v1", "Service", app, workload, spec=spec)


def _destination_rule(policy: TrafficPolicy, workload: Workload) -> Object:
    subsets: list[Object] = [{"name": policy.stable.name, "labels": _version(policy.stable)}]
    if policy.canary is not None:
        http = {
            "http1MaxPendingRequests": _MAX_SHADOW_REQUESTS,
            "http2MaxRequests": _MAX_SHADOW_REQUESTS,
        }
        # A subset's pool replaces the rule's as a whole.
        limits = {"connectionPool": {"tcp": {"connectTimeout": _CONNECT_TIMEOUT}, "http": http}}
        subsets += [
            {"name": policy.canary.name, "labels": _version(policy.canary)},
            {
                "name": _shadow(policy.canary),
                "labels": _version(policy.canary),
                "trafficPolicy": limits,
            },
        ]
    spec = {
        "host": _service_host(policy.model, workload),
        "trafficPolicy": {
            "connectionPool": {"tcp": {"connectTimeout": _CONNECT_TIMEOUT}},
            "loadBalancer": {"simple": "LEAST_REQUEST"},
            "outlierDetection": {
                "consecutive5xxErrors": 5,
                "interval": "1s",
                "baseEjectionTime": "5s",
                "maxEjectionPercent": 100,
                # With 0, ejected pods would be answered for with a 503 that isn't retried.
                "minHealthPercent": 50,
            },
        },
        "subsets": subsets,
    }
    return _object("networking.istio.io/v1", "DestinationRule", policy.model, workload, spec=spec)


def _gateway(app: str, workload: Workload) -> Object:
    server: Object = {
        "port": {"number": 80, "name": "http", "protocol": "HTTP"},
        "hosts": [workload.host],
    }
    if workload.tls_secret is not None:
        server["port"] = {"number": 443, "name": "https", "protocol": "HTTPS"}
        server["tls"] = {"mode": "SIMPLE", "credentialName": workload.tls_secret}
    spec = {"selector": {"istio": "ingressgateway"}, "servers": [server]}
    return _object("networking.istio.io/v1", "Gateway", app, workload, spec=spec)


def _rule_route(
    policy: TrafficPolicy, rule: HeaderRule, protocol: str, match: Object, workload: Workload
) -> Object:
    backend = policy.canary if rule.side == "canary" else policy.stable
    assert backend is not None  # noqa: S101 a policy is checked when it is made
    headers = {**match.get("headers", {}), rule.header: {"exact": rule.value}}
    return {
        "match": [{**match, "headers": headers}],
        "route": [{"destination": _destination(policy, backend.name, protocol, workload)}],
        "timeout": f"{policy.timeout_s:g}s",
        "retries": {"attempts": 0},  # unless it's said, Istio tries three times
    }


def _split_route(policy: TrafficPolicy, protocol: str, match: Object, workload: Workload) -> Object:
    stable: Object = {"destination": _destination(policy, policy.stable.name, protocol, workload)}
    route: Object = {
        "match": [match],
        "route": [stable],
        "timeout": f"{policy.timeout_s:g}s",
        "retries": {
            "attempts": policy.retries,
            "perTryTimeout": f"{policy.per_try_timeout_s:g}s",
            "retryOn": _RETRY_ON,
        },
    }
    if policy.canary is not None:
        weight = round(policy.weight_pct)
        stable["weight"] = 100 - weight
        destination = _destination(policy, policy.canary.name, protocol, workload)
        route["route"].append({"destination": destination, "weight": weight})
    if policy.canary is not None and policy.mirror_pct:
        shadow = _destination(policy, _shadow(policy.canary), protocol, workload)
        route["mirrors"] = [{"destination": shadow, "percentage": {"value": policy.mirror_pct}}]
    return route


def _destination(policy: TrafficPolicy, subset: str, protocol: str, workload: Workload) -> Object:
    host = _service_host(policy.model, workload)
    return {"host": host, "subset": subset, "port": {"number": PORTS[protocol]}}


def _service_host(app: str, workload: Workload) -> str:
    return f"{app}.{workload.namespace}.svc.cluster.local"


def _version(backend: Backend) -> dict[str, str]:
    return {"version": backend.name}


def _shadow(backend: Backend) -> str:
    return f"{backend.name}-shadow"


def _lossy(policy: TrafficPolicy) -> list[str]:
    """Say what Istio can't express."""
    said = []
    if policy.canary is not None and policy.retries:
        said.append(
            f"retries: Istio tries again on the version that has just failed, never on another "
            f"one, so clients see what {policy.canary.name} fails {policy.retries + 1} times "
            "in a row; with Envoy's files the stable would answer"
        )
    if policy.sticky_header is not None:
        said.append(
            f"sticky_header: Istio draws the version anew for each request, whatever "
            f"{policy.sticky_header} says; its consistent hash only chooses a pod of a version"
        )
    if policy.mirror_pct:
        said.append(
            "mirror_pct: Istio adds -shadow to the Host of a copy, which can't be turned off, and "
            "can't give the copy a header of its own: a server that wants to know looks at the Host"
        )
    return said
