"""What became of requests on a cluster: what Istio counts, read from Prometheus.

Istio counts twice. The caller's proxy (`reporter="source"`) knows final answers: a failure that a
retry has mended isn't among them. The model server's proxy (`reporter="destination"`) has every
attempt, so that's what is read here.

Source:
    https://istio.io/latest/docs/reference/config/metrics (istio_requests_total and its labels).
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from mlops_mini.errors import UnavailableError
from mlops_mini.rollout.guardrails import Counts, Look
from mlops_mini.rollout.http_api import HttpApi
from mlops_mini.rollout.policy import TrafficPolicy

Labels = frozenset[tuple[str, str]]


class IstioWatcher:
    """Makes looks of Istio's counters; what `release.run` wants as its `watcher`.

    The first look under a policy counts nothing: until the next scrapes, the counters still have
    requests of the policy before. So looks should be at least two scrapes apart.

    Attributes:
        slow_limits_us: None: latencies aren't judged here.
    """

    def __init__(
        self,
        prometheus: HttpApi,
        *,
        model: str,
        namespace: str,
        is_ready: Callable[[str, str], bool],
        now: Callable[[], float] = time.time,
    ) -> None:
        """Ask nothing yet.

        Args:
            prometheus: The Prometheus that scrapes the pods of the namespace.
            model: Name of the model, which is the service's too.
            namespace: Where the service is.
            is_ready: Tells whether a model's version has pods that are ready.
            now: Time of the question, seconds since 1970.
        """
        self._prometheus, self._model, self._namespace = prometheus, model, namespace
        self._is_ready, self._now = is_ready, now
        self._before: dict[Labels, float] = {}
        self._policy: TrafficPolicy | None = None
        self.slow_limits_us: tuple[float, float] | None = None

    def look(self, policy: TrafficPolicy, *, seconds: float) -> Look:
        """Count the attempts since the last look.

        Args:
            policy: What has held meanwhile.
            seconds: How long it was.

        Returns:
            The look, with the metric `error` unless the policy is new: answers other than 2xx, and
            gRPC statuses other than 0. A retried request counts once per attempt.

        Raises:
            UnavailableError: Prometheus doesn't answer, or knows no requests to the stable.
        """
        after = self._read()
        if not any(_version(labels) == policy.stable.name for labels in after):
            raise UnavailableError(
                f"Prometheus knows no requests to {policy.stable.name} of {self._model}: does it "
                f"scrape the pods of {self._namespace}, and is there any traffic?"
            )
        before, self._before = self._before, after
        counts = {"error": _difference(policy, before, after)} if policy == self._policy else {}
        self._policy = policy
        version = (policy.canary or policy.stable).name
        return Look(
            seconds=seconds,
            weight_pct=policy.weight_pct,
            is_healthy=self._is_ready(self._model, version),
            counts=counts,
        )

    def close(self) -> None:
        """Close its connections."""
        self._prometheus.close()

    def _read(self) -> dict[Labels, float]:
        """Read the counters, one per pod, asker and kind of answer."""
        query = (
            'istio_requests_total{reporter="destination",'
            f'destination_service_namespace="{self._namespace}",'
            f'destination_service_name="{self._model}"}}'
        )
        asked = urlencode({"query": query, "time": f"{self._now():.3f}"})
        answer = self._prometheus.ask("GET", f"/api/v1/query?{asked}")
        return {
            frozenset(one["metric"].items()): float(one["value"][1])
            for one in answer["data"]["result"]
        }


def _difference(
    policy: TrafficPolicy, before: Mapping[Labels, float], after: Mapping[Labels, float]
) -> Counts:
    """Count the attempts between two readings, by version."""
    n, bad = Counter[str](), Counter[str]()
    for labels, value in after.items():
        old = before.get(labels, 0)
        n_attempts = round(value - old if value >= old else value)  # else the pod has restarted
        n[_version(labels)] += n_attempts
        bad[_version(labels)] += n_attempts * _is_bad(dict(labels))
    stable, canary = policy.stable.name, policy.canary.name if policy.canary else ""
    return Counts(
        n_canary=n[canary], n_stable=n[stable], bad_canary=bad[canary], bad_stable=bad[stable]
    )


def _version(labels: Labels) -> str:
    return dict(labels).get("destination_version", "")


def _is_bad(labels: Mapping[str, Any]) -> bool:
    is_answer = labels.get("response_code", "")[:1] == "2"
    return not is_answer or labels.get("grpc_response_status", "") not in ("", "0")
