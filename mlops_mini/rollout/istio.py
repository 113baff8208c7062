"""A traffic policy as objects of Kubernetes and Istio, in three steps: model, servers, interface.

Each step may only be written when the one before it is there: a route to a subset that doesn't
exist answers 503, and a subset without ready pods does, too.

Source:
    https://istio.io/latest/docs/reference/config/networking (networking.istio.io/v1).
"""

import re
from dataclasses import dataclass
from urllib.parse import quote

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.rollout.policy import Backend, HeaderRule, TrafficPolicy
from mlops_mini.rollout.workload import (
    PORTS,
    Object,
    Workload,
    configuration,
    deployment,
    make_object,
    service,
    service_host,
)

_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_API = "networking.istio.io/v1"
_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,reset,5xx"
_MAX_SHADOW_REQUESTS = 64  # as in Envoy's files: a shadow that hangs must not gather requests
_CONNECT_TIMEOUT = "0.25s"


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
    >>> policy = TrafficPolicy(model="ranking", stable=v1, canary=v2, weight_pct=30)
    >>> paths = {"v1": "gs://shop/v1", "v2": "gs://shop/v2"}
    >>> workload = Workload(model_paths=paths, image="tensorflow/serving:2.8.0", host="c.shop.com")
    >>> [part["kind"] for part in render(policy, workload).interface]
    ['Service', 'DestinationRule', 'Gateway', 'VirtualService']
    """
    _check_names(policy, workload)
    versions = [backend.name for backend in (policy.stable, policy.canary) if backend is not None]
    app = policy.model
    return Rendering(
        configuration=configuration(app, versions, workload),
        deployment=deployment(app, versions, workload),
        interface=(
            service(app, workload),
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
        "hosts": [workload.host, service_host(policy.model, workload)],
        "gateways": [policy.model, "mesh"],
        "http": routes,
    }
    return make_object(
        "networking.istio.io/v1", "VirtualService", policy.model, workload, spec=spec
    )


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
        "host": service_host(policy.model, workload),
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
    return make_object(
        "networking.istio.io/v1", "DestinationRule", policy.model, workload, spec=spec
    )


def _gateway(app: str, workload: Workload) -> Object:
    server: Object = {
        "port": {"number": 80, "name": "http", "protocol": "HTTP"},
        "hosts": [workload.host],
    }
    if workload.tls_secret is not None:
        server["port"] = {"number": 443, "name": "https", "protocol": "HTTPS"}
        server["tls"] = {"mode": "SIMPLE", "credentialName": workload.tls_secret}
    spec = {"selector": {"istio": "ingressgateway"}, "servers": [server]}
    return make_object(_API, "Gateway", app, workload, spec=spec)


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
    host = service_host(policy.model, workload)
    return {"host": host, "subset": subset, "port": {"number": PORTS[protocol]}}


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
