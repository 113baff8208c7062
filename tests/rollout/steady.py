"""A release on a cluster without a cluster: looks at counts as steady as a clock.

Run as `python -m tests.rollout.steady FOLDER URL` it carries out the release in the folder, with so
little traffic that it stays at the first step for long.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from mlops_mini.rollout import release
from mlops_mini.rollout.guardrails import Counts, Look
from mlops_mini.rollout.http_api import HttpApi
from mlops_mini.rollout.kubernetes import VirtualServiceRouter
from mlops_mini.rollout.policy import TrafficPolicy
from tests.rollout.cluster import WORKLOAD


@dataclass
class SteadyWatcher:
    """Sees one bad answer in fifty of the stable, and so many in a thousand of the canary."""

    router: VirtualServiceRouter
    n_requests: int = 1000
    bad_in_1000: int = 20
    slow_limits_us: tuple[float, float] | None = None

    def look(self, policy: TrafficPolicy, *, seconds: float) -> Look:
        n_canary = round(self.n_requests * policy.weight_pct / 100)
        n_stable = self.n_requests - n_canary
        bad = (n_canary * self.bad_in_1000 // 1000, n_stable * 20 // 1000)
        canary = policy.canary or policy.stable
        return Look(
            seconds=seconds,
            weight_pct=policy.weight_pct,
            is_healthy=self.router.is_ready(policy.model, canary.name),
            counts={
                "error": Counts(
                    n_canary=n_canary, n_stable=n_stable, bad_canary=bad[0], bad_stable=bad[1]
                )
            },
        )

    def close(self) -> None:
        pass


if __name__ == "__main__":
    router = VirtualServiceRouter(HttpApi(sys.argv[2]), WORKLOAD)
    release.run(Path(sys.argv[1]), router, watcher=SteadyWatcher(router, 10), look_s=0.01)
