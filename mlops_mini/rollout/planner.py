"""How many requests a release needs before its evidence can decide, and how long that takes."""

import math
from dataclasses import dataclass

from mlops_mini.errors import InvalidArgumentError


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What it takes to find that a canary is worse.

    Attributes:
        bad_events: Bad events of both sides together.
        requests: Requests of both sides together.
        canary_requests: Requests that the canary answers, or pairs if requests are mirrored.
        hours: Hours until then at the given traffic.
    """

    bad_events: float
    requests: float
    canary_requests: float
    hours: float

    def sentence(self) -> str:
        """Say it in a sentence, rounded to two digits."""
        return (
            f"this needs about {_rounded(self.canary_requests):,} canary requests "
            f"({_rounded(self.requests):,} in all): at your traffic {_duration(self.hours)}"
        )


def plan(
    *,
    bad_rate: float,
    ratio: float,
    weight_pct: float,
    requests_per_s: float,
    alpha: float = 0.05,
    max_hours: float = 24 * 14,
) -> Plan:
    """Count the requests that find a canary whose bad events are `ratio` times as frequent.

    Args:
        bad_rate: Share of the stable's requests that end badly, between 0 and 1.
        ratio: How many times as frequent they'd be with the canary, above 1.
        weight_pct: The canary's share of the requests, percent, between 0 and 100.
        requests_per_s: Requests per second of both sides together.
        alpha: Chance of a false alarm, between 0 and 1.
        max_hours: Hours that one is willing to wait.

    Returns:
        The plan. It fits rates up to about 2 %. Above that the test for proportions needs fewer
        requests, down to three quarters at 30 %.

    Raises:
        InvalidArgumentError: The traffic can't prove it in time; or an argument is out of range.

    Source:
        Expected growth of the rate-ratio e-process: (ln(1 / alpha) + 1) / KL(share || weight).

    >>> print(plan(bad_rate=0.01, ratio=1.5, weight_pct=10, requests_per_s=1.3).sentence())
    this needs about 4,200 canary requests (42,000 in all): at your traffic 8.9 h
    """
    weight = weight_pct / 100
    _check(0 < alpha < 1, "alpha", "between 0 and 1", alpha)
    _check(0 < bad_rate < 1, "bad_rate", "between 0 and 1", bad_rate)
    _check(ratio > 1, "ratio", "above 1", ratio)
    _check(0 < weight < 1, "weight_pct", "between 0 and 100", weight_pct)
    _check(bad_rate * ratio <= 1, "ratio", f"at most 1 / {bad_rate:g}", ratio)
    share = weight * ratio / (1 - weight + weight * ratio)
    bad_events = (math.log(1 / alpha) + 1) / _divergence(share, weight)
    requests = bad_events / (bad_rate * (1 - weight + weight * ratio))
    return _in_time(bad_events, requests, weight * requests, requests_per_s, max_hours)


def plan_paired(
    *,
    only_canary_bad: float,
    only_stable_bad: float,
    mirror_pct: float,
    requests_per_s: float,
    alpha: float = 0.05,
    max_hours: float = 24 * 14,
) -> Plan:
    """Count the mirrored requests with a label that find a canary that is wrong more often.

    Args:
        only_canary_bad: Share of requests on which only the canary would be wrong, 0 to 1.
        only_stable_bad: Share on which only the stable is wrong, below `only_canary_bad`.
        mirror_pct: Share of the requests that is mirrored, percent, above 0.
        requests_per_s: Requests per second, with a label at some time.
        alpha: Chance of a false alarm, between 0 and 1.
        max_hours: Hours that one is willing to wait.

    Returns:
        The plan; its bad events are pairs that tell the two apart.

    Raises:
        InvalidArgumentError: The traffic can't prove it in time; or an argument is out of range.

    >>> pairs = plan_paired(
    ...     only_canary_bad=0.05, only_stable_bad=0.03, mirror_pct=100, requests_per_s=10
    ... )
    >>> round(pairs.canary_requests / 50, 1)  # in looks of 50 mirrored requests
    31.6
    """
    _check(0 < only_stable_bad < 1, "only_stable_bad", "between 0 and 1", only_stable_bad)
    _check(only_stable_bad < only_canary_bad < 1, "only_canary_bad", "larger", only_canary_bad)
    _check(0 < mirror_pct <= 100, "mirror_pct", "above 0 and at most 100", mirror_pct)
    _check(0 < alpha < 1, "alpha", "between 0 and 1", alpha)
    discordant = only_canary_bad + only_stable_bad
    pairs = (math.log(1 / alpha) + 1) / _divergence(only_canary_bad / discordant, 0.5) / discordant
    requests = pairs / (mirror_pct / 100)
    return _in_time(pairs * discordant, requests, pairs, requests_per_s, max_hours)


def _in_time(
    bad_events: float,
    requests: float,
    canary_requests: float,
    requests_per_s: float,
    max_hours: float,
) -> Plan:
    _check(requests_per_s > 0, "requests_per_s", "above 0", requests_per_s)
    plan = Plan(
        bad_events=bad_events,
        requests=requests,
        canary_requests=canary_requests,
        hours=requests / requests_per_s / 3600,
    )
    if plan.hours > max_hours:
        raise InvalidArgumentError(
            f"the traffic can't prove this within {_duration(max_hours)}: {plan.sentence()}. Give "
            "the canary a larger share, or look for a larger difference"
        )
    return plan


def _divergence(a: float, b: float) -> float:
    """Kullback-Leibler divergence of two coins, nats."""
    return a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b))


def _check(holds: bool, name: str, wanted: str, value: float) -> None:
    if not holds:
        raise InvalidArgumentError(f"{name} must be {wanted}, got {value:g}")


def _rounded(count: float) -> int:
    """Round up to two digits."""
    step: int = 10 ** max(math.floor(math.log10(max(count, 1))) - 1, 0)
    return math.ceil(count / step) * step


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.2g} s"
    if hours < 1:
        return f"{hours * 60:.2g} min"
    return f"{hours:.2g} h" if hours < 100 else f"{hours / 24:.0f} days"
