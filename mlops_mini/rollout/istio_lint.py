"""What's wrong with a set of objects although each one fits its schema.

Schemas look at one object at a time. What breaks a release lies between them: a route to a subset
that nobody defines, a selector that selects nothing, a port that the other side calls otherwise.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Object = Mapping[str, Any]

_DURATION = re.compile(r"(\d+(\.\d+)?(h|m|s|ms))+")
_DURATION_FIELDS = {
    "timeout", "perTryTimeout", "connectTimeout", "interval", "baseEjectionTime", "fixedDelay",
    "idleTimeout", "backoff", "ttl", "maxConnectionDuration",
}  # fmt: skip
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e\d+)?")
# https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection
_PORT_PROTOCOLS = {
    "http", "http2", "https", "grpc", "grpc-web", "tcp", "tls", "udp", "mongo", "mysql", "redis",
}  # fmt: skip
_GATEWAY_PROTOCOLS = {"HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "MONGO", "TCP", "TLS"}


def findings(objects: Sequence[Object]) -> list[str]:
    """List what's wrong, in sentences that name the object.

    Args:
        objects: All objects that belong together, as read from YAML; those of other namespaces
            count as missing.

    Returns:
        One sentence per finding, none if all is well.

    >>> gateway = {"kind": "Gateway", "metadata": {"name": "g"}}
    >>> server = {"port": {"number": 80, "protocol": "HTTPP"}, "hosts": ["shop.com"]}
    >>> findings([{**gateway, "spec": {"servers": [server]}}])
    ["Gateway g: port 80 has the protocol 'HTTPP', which Istio doesn't know"]
    """
    by_kind: dict[str, dict[str, Object]] = {}
    for one in objects:
        by_kind.setdefault(one["kind"], {})[one["metadata"]["name"]] = one
    return [
        *_references(by_kind),
        *_selectors(by_kind),
        *_containers(by_kind),
        *_services(by_kind),
        *_gateways(by_kind),
        *_routes(by_kind),
        *(finding for one in objects for finding in _durations(_name(one), one)),
    ]


ByKind = Mapping[str, Mapping[str, Object]]


def _references(by_kind: ByKind) -> Iterator[str]:
    """Check that what's named is there."""
    for deployment in _of(by_kind, "Deployment"):
        pod = _template(deployment)["spec"]
        account = pod.get("serviceAccountName")
        if account and account not in by_kind.get("ServiceAccount", {}):
            yield f"{_name(deployment)}: there is no ServiceAccount {account}"
        for container in pod["containers"]:
            for source in container.get("envFrom", []):
                config = source.get("configMapRef", {}).get("name")
                if config and config not in by_kind.get("ConfigMap", {}):
                    yield f"{_name(deployment)}: there is no ConfigMap {config}"
            volumes = {volume["name"] for volume in pod.get("volumes", [])}
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{_name(deployment)}: there is no volume {mount['name']}"
    for scaler in _of(by_kind, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        if target["name"] not in by_kind.get(target["kind"], {}):
            yield f"{_name(scaler)}: there is no {target['kind']} {target['name']}"


def _selectors(by_kind: ByKind) -> Iterator[str]:
    """Check that selectors select pods."""
    pods = [_labels(_template(one)) for one in _of(by_kind, "Deployment")]
    for deployment in _of(by_kind, "Deployment"):
        selector = deployment["spec"]["selector"]["matchLabels"]
        if not _fits(selector, _labels(_template(deployment))):
            yield f"{_name(deployment)}: its selector {selector} doesn't fit its own pods"
    wanted = [(one, one["spec"]["selector"]) for one in _of(by_kind, "Service")]
    wanted += [
        (one, one["spec"]["selector"]["matchLabels"]) for one in _of(by_kind, "PodDisruptionBudget")
    ]
    wanted += [
        (one, one["spec"]["podSelector"].get("matchLabels", {}))
        for one in _of(by_kind, "NetworkPolicy")
    ]
    wanted += [
        (one, subset["labels"])
        for one in _of(by_kind, "DestinationRule")
        for subset in one["spec"].get("subsets", [])
    ]
    for one, selector in wanted:
        if not any(_fits(selector, labels) for labels in pods):
            yield f"{_name(one)}: no pods have the labels {dict(selector)}"


def _containers(by_kind: ByKind) -> Iterator[str]:
    """Check images, quantities, and the ports of probes."""
    for deployment in _of(by_kind, "Deployment"):
        for container in _template(deployment)["spec"]["containers"]:
            image = container["image"]
            tag = image.rpartition("/")[2].partition(":")[2]
            if "@sha256:" not in image and tag in ("", "latest"):
                yield (
                    f"{_name(deployment)}: the image {image} may be another one tomorrow: give it "
                    "a version's tag, or better a digest"
                )
            for kind, quantities in container.get("resources", {}).items():
                for name, quantity in quantities.items():
                    if not _QUANTITY.fullmatch(str(quantity)):
                        yield f"{_name(deployment)}: {quantity!r} ({kind}, {name}) is no quantity"
            ports = _container_ports(container)
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                for how in ("httpGet", "tcpSocket", "grpc"):
                    port = container.get(probe, {}).get(how, {}).get("port")
                    if port is not None and port not in ports:
                        yield f"{_name(deployment)}: the {probe} asks port {port}, which isn't open"


def _services(by_kind: ByKind) -> Iterator[str]:
    """Check that ports are named after their protocol, and open in the pods."""
    for service in _of(by_kind, "Service"):
        selector = service["spec"]["selector"]
        for port in service["spec"]["ports"]:
            protocol = port.get("appProtocol") or _protocol(port.get("name", ""))
            if protocol not in _PORT_PROTOCOLS:
                yield (
                    f"{_name(service)}: Istio can't tell the protocol of port "
                    f"{port.get('name', port['port'])}: its name should begin with it, as in "
                    "grpc-predict"
                )
            target = port.get("targetPort", port["port"])
            for deployment in _of(by_kind, "Deployment"):
                template = _template(deployment)
                is_open = any(target in _container_ports(c) for c in template["spec"]["containers"])
                if _fits(selector, _labels(template)) and not is_open:
                    yield f"{_name(service)}: {_name(deployment)} has no port {target}"


def _gateways(by_kind: ByKind) -> Iterator[str]:
    """Check the protocols of gateways."""
    for gateway in _of(by_kind, "Gateway"):
        for server in gateway["spec"]["servers"]:
            protocol = server["port"]["protocol"]
            if protocol not in _GATEWAY_PROTOCOLS:
                yield (
                    f"{_name(gateway)}: port {server['port']['number']} has the protocol "
                    f"{protocol!r}, which Istio doesn't know"
                )


def _routes(by_kind: ByKind) -> Iterator[str]:
    """Check gateways, weights and destinations of virtual services."""
    for service in _of(by_kind, "VirtualService"):
        spec = service["spec"]
        open_hosts: set[str] = set()
        for gateway in spec.get("gateways", ["mesh"]):
            if gateway == "mesh":
                continue
            if gateway not in by_kind.get("Gateway", {}):
                yield f"{_name(service)}: there is no Gateway {gateway}"
                continue
            servers = by_kind["Gateway"][gateway]["spec"]["servers"]
            open_hosts |= {host for server in servers for host in server["hosts"]}
        if open_hosts and not open_hosts & {"*", *spec["hosts"]}:
            yield f"{_name(service)}: no gateway lets requests for {spec['hosts']} in"
        for route in spec["http"]:
            weights = [part["weight"] for part in route["route"] if "weight" in part]
            if weights and sum(weights) != 100:
                yield f"{_name(service)}: weights {weights} add up to {sum(weights)}, not to 100"
            for part in (*route["route"], *route.get("mirrors", [])):
                yield from _destination(by_kind, service, part["destination"])


def _destination(by_kind: ByKind, service: Object, destination: Object) -> Iterator[str]:
    host, subset = destination["host"], destination.get("subset")
    name = host.partition(".")[0]
    if name not in by_kind.get("Service", {}):
        yield f"{_name(service)}: there is no Service {name} for the destination {host}"
        return
    ports = {port["port"] for port in by_kind["Service"][name]["spec"]["ports"]}
    number = destination.get("port", {}).get("number")
    if number is not None and number not in ports:
        yield f"{_name(service)}: Service {name} has no port {number}, only {sorted(ports)}"
    subsets = {
        one["name"]
        for rule in _of(by_kind, "DestinationRule")
        if rule["spec"]["host"].partition(".")[0] == name
        for one in rule["spec"].get("subsets", [])
    }
    if subset is not None and subset not in subsets:
        yield (
            f"{_name(service)}: no DestinationRule has the subset {subset} of {host}, so its "
            "requests would be answered with 503"
        )


def _durations(name: str, part: Any) -> Iterator[str]:
    """Check durations, which only the API server would do otherwise."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key in _DURATION_FIELDS and isinstance(value, str):
                if not _DURATION.fullmatch(value) or not re.search("[1-9]", value):
                    yield f"{name}: {key} {value!r} is no duration, such as '2.5s'"
            else:
                yield from _durations(name, value)
    elif isinstance(part, list | tuple):
        for one in part:
            yield from _durations(name, one)


def _of(by_kind: ByKind, kind: str) -> list[Object]:
    return list(by_kind.get(kind, {}).values())


def _name(one: Object) -> str:
    return f"{one['kind']} {one['metadata']['name']}"


def _template(deployment: Object) -> Any:
    return deployment["spec"]["template"]


def _labels(template: Object) -> Mapping[str, str]:
    labels: Mapping[str, str] = template["metadata"].get("labels", {})
    return labels


def _fits(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return selector.items() <= labels.items()


def _container_ports(container: Object) -> set[str | int]:
    ports = container.get("ports", [])
    return {p["containerPort"] for p in ports} | {p["name"] for p in ports if "name" in p}


def _protocol(port_name: str) -> str:
    return "grpc-web" if port_name.startswith("grpc-web") else port_name.partition("-")[0]
