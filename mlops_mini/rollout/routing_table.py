"""Who'd answer a request, read from what was rendered: one table from Envoy's files and Istio's.

Only what our renderings use is understood; anything else is an error, and not a guess.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlops_mini.errors import UnimplementedError

Shares = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A request, as far as routes look at it.

    Attributes:
        path: Path of its URL, without a query.
        headers: By name, in lower case.
    """

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_grpc(self) -> bool:
        """Whether its content type says so."""
        return self.headers.get("content-type", "").startswith("application/grpc")


def of_envoy(routes: Mapping[str, Any], request: Request) -> Shares:
    """Tell who gets a request, from Envoy's route configuration.

    Args:
        routes: What `envoy_config.routes` makes.
        request: The request.

    Returns:
        Share of such requests in percent, by cluster (`v7-rest`) in alphabetical order; none if
        nobody gets it. A copy's is called `v7-rest-shadow`.
    """
    (host,) = routes["virtual_hosts"]
    for route in host["routes"]:
        action = route["route"]
        if not _is_envoy_match(route["match"], request):
            continue
        if "cluster" in action:
            return {action["cluster"]: 100.0}
        specifier = action["inline_cluster_specifier_plugin"]["extension"]["typed_config"]
        clusters = specifier["priority_groups"][0]["clusters"]
        shares = {part["cluster_name"]: part["weight"] / 100 for part in clusters}
        for mirror in action.get("request_mirror_policies", []):
            share = mirror["runtime_fraction"]["default_value"]
            shares[mirror["cluster"]] = share["numerator"] / 10_000
        return dict(sorted(shares.items()))
    return {}


def of_istio(virtual_service: Mapping[str, Any], request: Request) -> Shares:
    """Tell who gets a request, from a virtual service.

    Args:
        virtual_service: What `istio.virtual_service` makes.
        request: The request.

    Returns:
        As `of_envoy`, with the same names.

    Raises:
        UnimplementedError: A match says what ours never say.
    """
    for route in virtual_service["spec"]["http"]:
        if not any(_is_match(match, request) for match in route["match"]):
            continue
        shares = {
            _cluster(part["destination"]): float(part.get("weight", 100)) for part in route["route"]
        }
        for mirror in route.get("mirrors", []):
            shares[_cluster(mirror["destination"])] = mirror["percentage"]["value"]
        return {name: share for name, share in sorted(shares.items()) if share}
    return {}


def _is_envoy_match(match: Mapping[str, Any], request: Request) -> bool:
    if "safe_regex" in match:
        is_path = re.fullmatch(match["safe_regex"]["regex"], request.path) is not None
    else:
        is_path = request.path.startswith(match["prefix"])
    return (
        is_path
        and (request.is_grpc or "grpc" not in match)
        and all(
            request.headers.get(header["name"]) == header["string_match"]["exact"]
            for header in match.get("headers", [])
        )
    )


def _is_match(match: Mapping[str, Any], request: Request) -> bool:
    if match.keys() - {"uri", "headers"}:
        raise UnimplementedError(f"a match on {sorted(match)}: only uri and headers are understood")
    headers = match.get("headers", {})
    return _fits(match["uri"], request.path) and all(
        name in request.headers and _fits(wanted, request.headers[name])
        for name, wanted in headers.items()
    )


def _fits(wanted: Mapping[str, str], text: str) -> bool:
    ((how, value),) = wanted.items()
    if how == "regex":
        return re.fullmatch(value, text) is not None
    return text == value if how == "exact" else text.startswith(value)


def _cluster(destination: Mapping[str, Any]) -> str:
    """Name a destination as Envoy's files would: `v7-rest`, `v7-rest-shadow`."""
    version = destination["subset"].removesuffix("-shadow")
    protocol = {8500: "grpc", 8501: "rest"}[destination["port"]["number"]]
    return f"{version}-{protocol}" + ("-shadow" if destination["subset"] != version else "")
