"""A recording stand-in for Kubernetes' API server: enough of it for kubectl and for us.

It keeps what is applied, writes down each write, and misbehaves when told: `server.faults` is taken
one per write, and None is good behavior.
"""

from __future__ import annotations

import http.server
import json
import re
import threading
import time
from collections.abc import Mapping
from typing import Any, Self

import yaml

KINDS = {
    "v1": {"serviceaccounts": "ServiceAccount", "configmaps": "ConfigMap", "services": "Service"},
    "apps/v1": {"deployments": "Deployment"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "networking.istio.io/v1": {
        "destinationrules": "DestinationRule", "gateways": "Gateway",
        "virtualservices": "VirtualService",
    },
}  # fmt: skip
_PATH = re.compile(
    r"/(?:api|apis)/(?P<api>v1|[^/]+/[^/]+)/namespaces/[^/]+/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?"
)
_CONFLICT = (
    'Apply failed with 1 conflict: conflict with "kubectl-edit" using networking.istio.io/v1: '
    ".spec.http"
)


class ApiServer:
    """A running server; `with` ends it.

    Attributes:
        writes: `VERB Kind name` of each write that held, in order; for a virtual service with the
            weight of v2 at its end.
        faults: What to do wrong at the next writes: `conflict`, `forbidden`, `busy`, `slow`,
            `dropped`, `dropped after` (it holds, but the answer is lost), `pruned` (fields are
            left out), or None.
        unready: Names of deployments without ready pods.
        objects: By kind and name.
    """

    def __init__(self) -> None:
        self.writes: list[str] = []
        self.n_attempts = 0
        self.faults: list[str | None] = []
        self.unready: set[str] = set()
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.is_slow_over = threading.Event()
        self.attempted_at: list[float] = []
        self.tokens: list[str | None] = []
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"api": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def put(self, *objects: Mapping[str, Any]) -> None:
        """Put objects there without a write."""
        for one in objects:
            self.objects[one["kind"], one["metadata"]["name"]] = dict(one)

    @property
    def weights(self) -> list[int]:
        """Weights of v2 in the writes of virtual services, in order."""
        return [int(w.rpartition(" ")[2]) for w in self.writes if w.startswith("PATCH Virtual")]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.is_slow_over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def weight_of_v2(service: Mapping[str, Any]) -> int:
    """Read v2's share of a virtual service's last route, which splits REST requests."""
    route = service["spec"]["http"][-1]["route"]
    shares = {part["destination"]["subset"]: part.get("weight", 100) for part in route}
    return int(shares.get("v2", 0))


class _Handler(http.server.BaseHTTPRequestHandler):
    api: ApiServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        match = _PATH.fullmatch(path)
        if match:
            self._get(match, query)
        elif (answer := _discovery(path)) is not None:
            self._answer(200, answer)
        else:
            self._status(404, "not found")

    def _get(self, match: re.Match[str], query: str) -> None:
        kind = KINDS[match["api"]][match["plural"]]
        if match["name"] is not None:
            one = self.api.objects.get((kind, match["name"]))
            if one is None:
                self._status(404, f"{match['plural']} {match['name']!r} not found")
            else:
                self._answer(200, self._with_status(one))
            return
        name = re.search(r"fieldSelector=metadata.name%3D([-a-z0-9]+)", query)
        items = [
            self._with_status(one)
            for (its_kind, its_name), one in self.api.objects.items()
            if its_kind == kind and (name is None or its_name == name[1])
        ]
        if "watch=" in query:
            self._answer(200, None)  # nothing changes while somebody watches
            return
        metadata = {"resourceVersion": "1"}
        self._answer(
            200,
            {"kind": f"{kind}List", "apiVersion": match["api"], "metadata": metadata,
             "items": items},
        )  # fmt: skip

    def _with_status(self, one: dict[str, Any]) -> dict[str, Any]:
        if one["kind"] != "Deployment":
            return one
        n = 0 if one["metadata"]["name"] in self.api.unready else 2
        metadata = {"generation": 1, "resourceVersion": "1", **one["metadata"]}
        status = {
            "observedGeneration": 1, "replicas": n, "updatedReplicas": n, "readyReplicas": n,
            "availableReplicas": n,
        }  # fmt: skip
        spec = {"replicas": 2, **one["spec"]}
        return {**one, "metadata": metadata, "spec": spec, "status": status}

    def do_PATCH(self) -> None:
        match = _PATH.fullmatch(self.path.partition("?")[0])
        body = self.rfile.read(int(self.headers["content-length"]))
        api = self.api
        with api.lock:
            api.n_attempts += 1
            api.attempted_at.append(time.monotonic())
            api.tokens.append(self.headers["authorization"])
            fault = api.faults.pop(0) if api.faults else None
        if fault == "conflict":
            self._status(409, _CONFLICT)
        elif fault == "forbidden":
            self._status(403, 'User "release" cannot patch resource "virtualservices"')
        elif fault == "busy":
            self._status(429, "too many requests", **{"Retry-After": "1"})
        elif fault == "slow":
            api.is_slow_over.wait(60)
            self.close_connection = True
        elif fault == "dropped":
            self.close_connection = True
        else:
            one = yaml.safe_load(body)
            if fault == "pruned":
                one["spec"]["http"][-1].pop("mirrors", None)
            assert match is not None
            assert self.headers["content-type"] == "application/apply-patch+yaml"
            assert "fieldManager=mlops-mini" in self.path
            with api.lock:
                api.put(one)
                written = f"PATCH {one['kind']} {one['metadata']['name']}"
                if one["kind"] == "VirtualService":
                    written += f" {weight_of_v2(one)}"
                api.writes.append(written)
            if fault == "dropped after":
                self.close_connection = True
            else:
                self._answer(200, self._with_status(one))

    def do_DELETE(self) -> None:
        match = _PATH.fullmatch(self.path.partition("?")[0])
        self.rfile.read(int(self.headers["content-length"] or 0))
        assert match is not None
        kind = KINDS[match["api"]][match["plural"]]
        with self.api.lock:
            one = self.api.objects.pop((kind, match["name"]), None)
            if one is not None:
                self.api.writes.append(f"DELETE {kind} {match['name']}")
        if one is None:
            self._status(404, "not found")
        else:
            self._status(200, "deleted")

    def _status(self, status: int, message: str, **headers: str) -> None:
        words = {404: "NotFound", 403: "Forbidden", 409: "Conflict", 429: "TooManyRequests"}
        self._answer(
            status,
            {"kind": "Status", "apiVersion": "v1", "message": message, "code": status,
             "status": "Success" if status == 200 else "Failure",
             "reason": words.get(status, "")},
            **headers,
        )  # fmt: skip

    def _answer(self, status: int, message: Any, **headers: str) -> None:
        data = b"" if message is None else json.dumps(message).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: Any) -> None:
        pass


def _discovery(path: str) -> Any:
    """Say what kinds there are, as kubectl asks before anything else."""
    if path == "/version":
        return {"major": "1", "minor": "32", "gitVersion": "v1.32.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = [api.split("/") for api in KINDS if "/" in api]
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                {
                    "name": group,
                    "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
                    "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version},
                }
                for group, version in groups
            ],
        }
    if path == "/openapi/v3":
        urls = {_base(api): {"serverRelativeURL": f"/openapi/v3/{_base(api)}"} for api in KINDS}
        return {"paths": urls}
    if path.startswith("/openapi/v3/"):
        return _openapi(path.partition("api/v3/")[2])
    api = path.removeprefix("/apis/").removeprefix("/api/")
    if api not in KINDS:
        return None
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    resources = [
        {"name": plural, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs}
        for plural, kind in KINDS[api].items()
    ]
    return {"kind": "APIResourceList", "groupVersion": api, "resources": resources}


def _base(api: str) -> str:
    return f"apis/{api}" if "/" in api else f"api/{api}"


def _openapi(base: str) -> Any:
    """Say that fields are validated here, which kubectl asks before it leaves that to us."""
    api = base.removeprefix("apis/").removeprefix("api/")
    group, _, version = api.rpartition("/")
    return {
        "openapi": "3.0.0",
        "info": {"title": "a stand-in", "version": "1"},
        "paths": {
            f"/{base}/namespaces/{{namespace}}/{plural}/{{name}}": {
                "patch": {
                    "parameters": [{"name": "fieldValidation", "in": "query"}],
                    "responses": {},
                    "x-kubernetes-group-version-kind": {
                        "group": group, "version": version, "kind": kind,
                    },
                }
            }
            for plural, kind in KINDS[api].items()
        },
    }  # fmt: skip
