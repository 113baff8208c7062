"""A traffic policy as Envoy's files: who listens, who is there (CDS), who gets what (RDS).

Envoy watches the last two and takes a file that is renamed into place, without losing a request.

Source:
    https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/api (the names of fields and types).
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlops_mini.rollout.policy import Backend, HeaderRule, TrafficPolicy

Message = dict[str, Any]

ROUTE_CONFIG = "policy"
REQUEST_LOG = "attempts.log"
LOG_FLUSH_S = 0.05
SHADOW_HEADER = "x-shadow"

_TYPE = "type.googleapis.com/envoy."
# The same limits for all: so high that they bind only when something is wrong.
_MAX_REQUESTS = 4096
# A shadow that hangs must not gather open requests: with 4,096 of them Envoy took 250 MiB.
_MAX_SHADOW_REQUESTS = 64
_MAX_HEAP_BYTES = 512 << 20
_MAX_CONNECTIONS = 10_000
_RETRY_REST = "5xx,connect-failure,refused-stream,reset"
_RETRY_GRPC = "unavailable,internal,connect-failure,refused-stream,reset"


def bootstrap(folder: Path, *, host: str = "127.0.0.1", port: int = 0) -> Message:
    """Say where Envoy listens and where it finds the rest.

    Args:
        folder: Where `clusters.json` and `routes.json` are, and where the log of attempts goes.
        host: IP address to listen at, for REST and gRPC alike: Envoy tells them apart.
        port: Port to listen at; 0 for any.

    Returns:
        The bootstrap message; the admin interface is on loopback, at any port.
    """
    log_format = {
        "text_format_source": {
            "inline_string": "%UPSTREAM_CLUSTER_RAW% %RESPONSE_CODE% %GRPC_STATUS_NUMBER% "
            "%COMMON_DURATION(US_TX_BEG:US_RX_END:us)% %REQ(X-REQUEST-ID)% %ROUTE_NAME% "
            "%RESPONSE_FLAGS%\n"
        }
    }
    router = {
        "@type": _TYPE + "extensions.filters.http.router.v3.Router",
        "upstream_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": _TYPE + "extensions.access_loggers.file.v3.FileAccessLog",
                    "path": str(folder / REQUEST_LOG),
                    "log_format": log_format,
                },
            }
        ],
    }
    connection_manager = {
        "@type": _TYPE
        + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "codec_type": "AUTO",
        "rds": {
            "route_config_name": ROUTE_CONFIG,
            "config_source": _watched(folder / "routes.json"),
        },
        # The client's id is kept: labels and shadow pairs are joined by it.
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    listener = {
        "name": "ingress",
        "address": _socket(host, port),
        "enable_reuse_port": False,  # a port that another program has is an error
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": connection_manager,
                    }
                ]
            }
        ],
    }
    return {
        "node": {"id": "mlops-mini", "cluster": "mlops-mini"},
        "admin": {"address": _socket("127.0.0.1", 0)},
        "dynamic_resources": {"cds_config": _watched(folder / "clusters.json")},
        "static_resources": {"listeners": [listener]},
        "overload_manager": {
            "refresh_interval": "0.25s",
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.fixed_heap",
                    "typed_config": {
                        "@type": _TYPE
                        + "extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                        "max_heap_size_bytes": _MAX_HEAP_BYTES,
                    },
                },
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": _TYPE + "extensions.resource_monitors.downstream_connections.v3."
                        "DownstreamConnectionsConfig",
                        "max_active_downstream_connections": _MAX_CONNECTIONS,
                    },
                },
            ],
            "actions": [
                {
                    "name": "envoy.overload_actions.stop_accepting_requests",
                    "triggers": [
                        {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": 0.95}}
                    ],
                }
            ],
        },
    }


def clusters(policy: TrafficPolicy) -> list[Message]:
    """List the backends, each with a cluster for REST and one for gRPC.

    A cluster is named after its version, not after its side: a canary that becomes the stable keeps
    its connections and counters.
    """
    messages = [
        _cluster(policy, backend, protocol, is_shadow=False)
        for backend in (policy.stable, policy.canary)
        if backend is not None
        for protocol in ("rest", "grpc")
    ]
    if policy.canary is not None and policy.mirror_pct:
        messages += [
            _cluster(policy, policy.canary, protocol, is_shadow=True)
            for protocol in ("rest", "grpc")
        ]
    return messages


def clusters_in_use(policy: TrafficPolicy) -> list[str]:
    """List the clusters that get requests, or copies of them."""
    backends = [(policy.stable, False)]
    if policy.canary is not None and policy.weight_pct:
        backends.append((policy.canary, False))
    if policy.canary is not None and policy.mirror_pct:
        backends.append((policy.canary, True))
    return [
        cluster_name(backend, protocol, is_shadow=is_shadow)
        for backend, is_shadow in backends
        for protocol in ("rest", "grpc")
    ]


def routes(policy: TrafficPolicy) -> Message:
    """Say who gets which request: header rules first, then the split by weight."""
    # `:predict`, `/versions/7:predict`, `/metadata` or nothing: but no model with a longer name.
    path = f"/v1/models/{quote(policy.model, safe='').replace('.', '[.]')}([:/].*)?"
    matches: dict[str, Message] = {
        "grpc": {"prefix": "/tensorflow.serving.", "grpc": {}},
        "rest": {"safe_regex": {"regex": path}},
    }
    entries = []
    for protocol, match in matches.items():
        entries += [_rule_route(policy, rule, protocol, match) for rule in policy.header_rules]
        entries.append(
            {
                "name": split_name(policy),
                "match": match,
                "route": _split_action(policy, protocol),
            }
        )
    return {
        "name": ROUTE_CONFIG,
        # Without this a route to a cluster that isn't there is taken, and answers 503.
        "validate_clusters": True,
        "virtual_hosts": [
            {
                "name": "models",
                "domains": ["*"],
                "include_request_attempt_count": True,
                "routes": entries,
            }
        ],
    }


def split_name(policy: TrafficPolicy) -> str:
    """Name the routes that split by weight, so that the log of attempts tells under which one."""
    return f"split-{policy.weight_pct:g}"


def resources(version: str, messages: list[Message], kind: str) -> str:
    """Write a file that Envoy watches.

    Args:
        version: What `config_dump` will name once it is taken.
        messages: Clusters or one route configuration.
        kind: `cluster` or `route`.
    """
    type_url = {
        "cluster": _TYPE + "config.cluster.v3.Cluster",
        "route": _TYPE + "config.route.v3.RouteConfiguration",
    }[kind]
    return json.dumps(
        {
            "version_info": version,
            "resources": [{"@type": type_url, **message} for message in messages],
        },
        indent=1,
    )


def inlined(policy: TrafficPolicy, folder: Path) -> Message:
    """Put everything into one bootstrap, as `envoy --mode validate` can check it."""
    message = bootstrap(folder)
    del message["dynamic_resources"]
    message["static_resources"]["clusters"] = clusters(policy)
    listener = message["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["rds"]
    manager["route_config"] = routes(policy)
    return message


def cluster_name(backend: Backend, protocol: str, *, is_shadow: bool = False) -> str:
    """Name a backend's cluster, such as `v7-rest` or `v7-grpc-shadow`."""
    return f"{backend.name}-{protocol}" + ("-shadow" if is_shadow else "")


def _cluster(policy: TrafficPolicy, backend: Backend, protocol: str, *, is_shadow: bool) -> Message:
    host, _, port = getattr(backend, protocol).partition(":")
    name = cluster_name(backend, protocol, is_shadow=is_shadow)
    limit = _MAX_SHADOW_REQUESTS if is_shadow else _MAX_REQUESTS
    check: Message = {
        "timeout": "0.5s",
        "interval": "1s",
        "no_traffic_interval": "1s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
    }
    if protocol == "rest":
        check["http_health_check"] = {"path": f"/v1/models/{quote(policy.model, safe='')}"}
    else:
        check["tcp_health_check"] = {}
    message: Message = {
        "name": name,
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "connect_timeout": "0.25s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _socket(host, int(port))}}]},
            ],
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": limit,
                    "max_pending_requests": limit,
                    "max_requests": limit,
                    # The default of 3 lets failures through to clients.
                    "max_retries": 1024,
                }
            ]
        },
        "health_checks": [check],
        # One host per cluster: with panic routing off, an ejected one would be answered with a 503
        # that Envoy doesn't retry.
        "common_lb_config": {"healthy_panic_threshold": {"value": 50}},
        "outlier_detection": {
            "consecutive_5xx": 5,
            "consecutive_gateway_failure": 5,
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 3,
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_percent": 100,
        },
    }
    if protocol == "grpc":
        options = _TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions"
        message["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    return message


def _rule_route(policy: TrafficPolicy, rule: HeaderRule, protocol: str, match: Message) -> Message:
    header = {"name": rule.header, "string_match": {"exact": rule.value}}
    backend = policy.canary if rule.side == "canary" else policy.stable
    assert backend is not None  # noqa: S101 a policy is checked when it is made
    return {
        "match": {**match, "headers": [header]},
        "route": {
            "cluster": cluster_name(backend, protocol),
            "timeout": f"{policy.timeout_s:g}s",
        },
    }


def _split_action(policy: TrafficPolicy, protocol: str) -> Message:
    """Split by weight; an attempt after the first goes to the stable alone."""
    stable = cluster_name(policy.stable, protocol)
    split = [{"cluster_name": stable, "weight": round((100 - policy.weight_pct) * 100)}]
    if policy.canary is not None:
        canary = cluster_name(policy.canary, protocol)
        split.append({"cluster_name": canary, "weight": round(policy.weight_pct * 100)})
    action: Message = {
        "timeout": f"{policy.timeout_s:g}s",
        "retry_policy": {
            "retry_on": _RETRY_GRPC if protocol == "grpc" else _RETRY_REST,
            "num_retries": policy.retries,
            "per_try_timeout": f"{policy.per_try_timeout_s:g}s",
            "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.01s"},
            # Without it the second attempt would go to the canary again.
            "refresh_cluster_on_retry": True,
        },
        "inline_cluster_specifier_plugin": {
            "extension": {
                "name": "envoy.router.cluster_specifier_plugin.priority_group",
                "typed_config": {
                    "@type": _TYPE + "extensions.router.cluster_specifiers.priority_group.v3."
                    "PriorityGroupClusterSpecifier",
                    "priority_groups": [
                        {"name": "split", "clusters": [part for part in split if part["weight"]]},
                        {"name": "stable", "clusters": [{"cluster_name": stable, "weight": 1}]},
                    ],
                },
            }
        },
    }
    if policy.sticky_header is not None:
        action["hash_policy"] = [{"header": {"header_name": policy.sticky_header}}]
        specifier = action["inline_cluster_specifier_plugin"]["extension"]["typed_config"]
        specifier["use_hash_policy"] = True
    if policy.canary is not None and policy.mirror_pct:
        action["request_mirror_policies"] = [
            {
                "cluster": cluster_name(policy.canary, protocol, is_shadow=True),
                "runtime_fraction": {
                    "default_value": {
                        "numerator": round(policy.mirror_pct * 10_000),
                        "denominator": "MILLION",
                    }
                },
                "disable_shadow_host_suffix_append": True,
                "request_headers_mutations": [
                    {
                        "append": {
                            "header": {"key": SHADOW_HEADER, "value": "1"},
                            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                        }
                    }
                ],
            }
        ]
    return action


def _watched(path: Path) -> Message:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def _socket(host: str, port: int) -> Message:
    return {"socket_address": {"address": host, "port_value": port}}
