"""How many requests a model server has answered, how many not, and how long they took.

The request log has only what was answered, so errors and times come from the server's page of
metrics, whose counters only grow, and start anew with the server.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_SERIES = re.compile(
    r"^:tensorflow:serving:(request_count|request_latency_bucket)\{([^}]*)\} (\S+)", re.MULTILINE
)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """Requests, since a server began or within a window.

    Attributes:
        n_requests: How many.
        n_errors: How many of them ended with another status than OK.
        n_below_us: By latency in microseconds, as text, how many took at most so long.
    """

    n_requests: int = 0
    n_errors: int = 0
    n_below_us: Mapping[str, int] = field(default_factory=dict)

    @property
    def error_rate(self) -> float:
        """Share of errors, 0 to 1; NaN without requests."""
        return self.n_errors / self.n_requests if self.n_requests else math.nan

    def latency_ms(self, share: float) -> float:
        """Find within how many milliseconds that share of the answers came, at most.

        Returns:
            The upper edge of the bucket, which overstates; NaN if nothing was answered.

        >>> Traffic(n_requests=9, n_below_us={"1000": 8, "2000": 9, "+Inf": 9}).latency_ms(0.5)
        1.0
        """
        edges = sorted(
            (float(edge.replace("+Inf", "inf")), n) for edge, n in self.n_below_us.items()
        )
        n_all = max((n for _, n in edges), default=0)
        return next((edge / 1e3 for edge, n in edges if n_all and n >= share * n_all), math.nan)


def parse(text: str, *, model: str) -> Traffic:
    """Read a page of metrics, as TensorFlow Serving and our server write it.

    Args:
        text: The page.
        model: Whose requests.

    >>> parse(':tensorflow:serving:request_count{model_name="m",status="OK"} 3', model="m")
    Traffic(n_requests=3, n_errors=0, n_below_us={})
    """
    n_by_status, n_below_us = Counter[str](), Counter[str]()
    for name, inner, value in _SERIES.findall(text):
        labels = dict(_LABEL.findall(inner))
        if labels.get("model_name") != model:
            continue
        if name == "request_count":
            n_by_status[labels["status"]] += int(float(value))
        else:
            n_below_us[labels["le"]] += int(float(value))
    n_requests = n_by_status.total()
    return Traffic(
        n_requests=n_requests,
        n_errors=n_requests - n_by_status["OK"],
        n_below_us=dict(n_below_us),
    )


def difference(before: Traffic | None, now: Traffic) -> Traffic:
    """Tell what has happened between two scrapes; a server that has restarted began at zero."""
    if before is None or before.n_requests > now.n_requests:
        return now
    return _combined(now, before, -1)


def add(a: Traffic, b: Traffic) -> Traffic:
    """Add up two spans."""
    return _combined(a, b, 1)


def _combined(a: Traffic, b: Traffic, sign: int) -> Traffic:
    edges: Iterable[str] = [*a.n_below_us, *(e for e in b.n_below_us if e not in a.n_below_us)]
    return Traffic(
        n_requests=a.n_requests + sign * b.n_requests,
        n_errors=a.n_errors + sign * b.n_errors,
        n_below_us={e: a.n_below_us.get(e, 0) + sign * b.n_below_us.get(e, 0) for e in edges},
    )
