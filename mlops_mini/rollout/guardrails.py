"""What a canary must not be worse in than the stable, judged after every look.

A look is what was seen between two glances at the router. A guardrail is a kind of bad event
(failed, slow, wrong, answered differently) with the test that compares its frequency. All tests are
e-processes, so that one may look as often as one likes; see `mlops_mini.evidence.eprocesses`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.evidence import eprocesses
from mlops_mini.evidence.eprocesses import Floats, Looks

Test = Literal["proportion", "latency", "paired", "disagreement"]

SLOW_P50, SLOW_P95 = "slow_p50", "slow_p95"

_SLOW_P50_RATIOS = np.geomspace(1.02, 2, 24)  # half of all requests are above it: 2 is the most
_MAX_SAMPLE_RATIO_LOG_E = math.log(1000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """One metric's counts in one look, of first attempts only.

    Attributes:
        n_canary: Requests of the canary; for pairs, the mirrored requests.
        n_stable: Requests of the stable; for pairs, the same.
        bad_canary: Bad events of the canary; for pairs, those where only the canary was bad, or for
            disagreements all of them.
        bad_stable: Bad events of the stable; for pairs, those where only the stable was bad.
    """

    n_canary: int = 0
    n_stable: int = 0
    bad_canary: int = 0
    bad_stable: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What was seen between two glances.

    Attributes:
        seconds: How long that was.
        weight_pct: The canary's intended share of the requests meanwhile, percent.
        is_healthy: Whether the canary passes its health checks.
        counts: By metric: `error` is counted by the router, `slow_p50` and `slow_p95` come from
            its log, others, such as `wrong`, from labels. A label belongs to the look in which
            it arrives, and so does the request that it's for: labels of one side may be faster.
    """

    seconds: float
    weight_pct: float
    is_healthy: bool = True
    counts: Mapping[str, Counts] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Guardrail:
    """A kind of bad event, and how its frequency is compared.

    Attributes:
        name: What messages call it.
        metrics: The metrics of a look that it reads: one; the two of `latency`; or an overall one
            and one for each class, half of the evidence being about the former.
        test: `proportion` compares two shares, `latency` how many are slower than the stable's
            median and 95 % quantile, `paired` who is worse on the same requests, `disagreement`
            whether more pairs differ than is allowed.
        max_rate: For `disagreement`: the share of pairs that may differ, between 0 and 1.
        margin: How many times as frequent bad events must not be for a promotion, above 1.4; None
            if the guardrail has no say in it.
        is_late: Whether its counts go on after the promotion, as labels do.
    """

    name: str
    metrics: tuple[str, ...]
    test: Test = "proportion"
    max_rate: float | None = None
    margin: float | None = None
    is_late: bool = False

    def __post_init__(self) -> None:
        if not self.metrics or (self.test == "latency") != (self.metrics == (SLOW_P50, SLOW_P95)):
            raise InvalidArgumentError(
                f"guardrail {self.name}: latency reads {SLOW_P50} and {SLOW_P95}, any other test "
                f"at least one metric of its own, got {self.metrics}"
            )
        if (self.test == "disagreement") != (self.max_rate is not None):
            raise InvalidArgumentError(
                f"guardrail {self.name}: max_rate is for disagreements, and they need it"
            )


ERRORS = Guardrail(name="errors", metrics=("error",), margin=2.0)
LATENCY = Guardrail(name="latency", metrics=(SLOW_P50, SLOW_P95), test="latency")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What a guardrail says so far.

    Attributes:
        guardrail: Its name.
        log_e: Evidence that the canary is worse.
        limit: The alarm's limit of `log_e`.
        log_e_promotion: Evidence that it isn't `margin` times as bad, or None if that isn't asked.
        counts: All counts of its first metric together.
        max_rate: For disagreements: the share of pairs that may differ, between 0 and 1.
    """

    guardrail: str
    log_e: float
    limit: float
    log_e_promotion: float | None
    counts: Counts
    max_rate: float | None = None

    @property
    def is_alarm(self) -> bool:
        """Whether the canary has been shown to be worse."""
        return self.log_e >= self.limit

    def sentence(self) -> str:
        """Say what was counted, how strong the evidence is, and what it would take for an alarm."""
        c = self.counts
        if self.max_rate is None:
            counted = (
                f"{c.bad_canary:,} of {c.n_canary:,} on the canary,"
                f" {c.bad_stable:,} of {c.n_stable:,} on the stable"
            )
        else:
            counted = (
                f"{c.bad_canary:,} of {c.n_canary:,} differ from what the stable answered, and"
                f" at most {100 * self.max_rate:g} % may"
            )
        return (
            f"{self.guardrail}: {counted}; evidence e = {e_value(self.log_e)}, alarm at"
            f" {e_value(self.limit)}"
        )


def judge(
    looks: Sequence[Look], guardrails: Sequence[Guardrail], *, alpha: float = 0.05
) -> list[Evidence]:
    """Weigh what has been seen.

    Args:
        looks: All looks since the canary came, in order.
        guardrails: What to judge; each is held to its share of `alpha`.
        alpha: Chance that a canary that's no worse is ever rejected, between 0 and 1.

    Returns:
        One piece of evidence per guardrail, in their order.

    >>> look = Look(
    ...     seconds=1,
    ...     weight_pct=10,
    ...     counts={"error": Counts(n_canary=50, n_stable=450, bad_canary=9, bad_stable=4)},
    ... )
    >>> for evidence in judge([look, look], [ERRORS]):
    ...     print(evidence.sentence())
    errors: 18 of 100 on the canary, 8 of 900 on the stable; evidence e = 10^6, alarm at 20
    """
    if not 0 < alpha < 1:
        raise InvalidArgumentError(f"alpha must be between 0 and 1, got {alpha}")
    limit = math.log(len(guardrails) / alpha) if guardrails else math.inf
    return [_weigh(looks, guardrail, limit) for guardrail in guardrails]


def promotion_limit(beta: float) -> float:
    """Log of the e-value at which a canary is shown to be no worse.

    Args:
        beta: Chance of promoting one that is `margin` times as bad, between 0 and 1.
    """
    return math.log(1 / beta)


def split_is_off(looks: Sequence[Look], *, metric: str = "error") -> bool:
    """Tell whether the canary gets another share of the requests than it was meant to get.

    Args:
        looks: All looks since the canary came.
        metric: Whose requests to count: of users, where the split is sticky.

    Returns:
        True at an e-value of 1,000: then nothing that compares the two sides can be trusted.
    """
    if not looks:
        return False
    counts = _looks(looks, metric)
    log_e = eprocesses.sample_ratio(
        counts.n_treatment, counts.n_control, [look.weight_pct / 100 for look in looks]
    )
    return bool(log_e[-1] >= _MAX_SAMPLE_RATIO_LOG_E)


def ratio_interval(
    looks: Sequence[Look], metric: str, *, alpha: float = 0.05
) -> tuple[float, float]:
    """Bound how many times as frequent a metric's bad events are on the canary.

    Args:
        looks: All looks since the canary came.
        metric: Such as `error`.
        alpha: Chance that the interval ever misses the ratio, between 0 and 1.

    Returns:
        Smallest and largest ratio that can't be ruled out.
    """
    return eprocesses.ratio_interval(_looks(looks, metric), alpha=alpha)


def label_looks(
    is_canary: npt.ArrayLike, is_wrong: npt.ArrayLike, classes: npt.ArrayLike, *, n_per_look: int
) -> list[Look]:
    """Make looks of labels in the order in which they arrive.

    Args:
        is_canary: Whether the canary answered, one value per label.
        is_wrong: Whether the answer was wrong, one value per label.
        classes: The label itself.
        n_per_look: Labels in a look; what's left over at the end is dropped.

    Returns:
        Looks with the metrics `wrong`, and `wrong: boots` for each class.

    >>> looks = label_looks([True, False], [True, True], ["bag", "boots"], n_per_look=2)
    >>> looks[0].counts["wrong: boots"]
    Counts(n_canary=0, n_stable=1, bad_canary=0, bad_stable=1)
    """
    canary, wrong, labels = np.asarray(is_canary), np.asarray(is_wrong), np.asarray(classes)
    masks = {"wrong": np.full(len(labels), fill_value=True)}
    masks |= {f"wrong: {name}": labels == name for name in sorted(set(labels.tolist()))}
    looks = []
    for start in range(0, len(labels) - n_per_look + 1, n_per_look):
        part = np.s_[start : start + n_per_look]
        counts = {}
        for name, mask in masks.items():
            of_canary, of_stable = mask[part] & canary[part], mask[part] & ~canary[part]
            counts[name] = Counts(
                n_canary=int(of_canary.sum()),
                n_stable=int(of_stable.sum()),
                bad_canary=int((of_canary & wrong[part]).sum()),
                bad_stable=int((of_stable & wrong[part]).sum()),
            )
        weight_pct = 100 * float(canary.mean())
        looks.append(Look(seconds=1, weight_pct=weight_pct, counts=counts))
    return looks


def log_e_by_look(looks: Sequence[Look], guardrail: Guardrail) -> Floats:
    """Tell how the evidence of a guardrail grew.

    Args:
        looks: All looks, in order.
        guardrail: What to judge.

    Returns:
        Log e after each look, shape [n_looks].
    """
    by_metric = [_looks(looks, metric) for metric in guardrail.metrics]
    if guardrail.test == "latency":
        p50, p95 = by_metric
        return eprocesses.mean_of(
            [eprocesses.rate_ratio(p50, ratios=_SLOW_P50_RATIOS), eprocesses.rate_ratio(p95)]
        )
    log_e = [_test(one, guardrail) for one in by_metric]
    if len(log_e) == 1:
        return log_e[0]
    n_classes = len(log_e) - 1
    return eprocesses.mean_of(log_e, weights=[0.5, *[0.5 / n_classes] * n_classes])


def e_value(log_e: float) -> str:
    """Write an e-value as people read it: two digits, and a power of ten beyond a million.

    >>> e_value(3.0), e_value(30.0)
    ('20', '10^13')
    """
    if log_e > math.log(1e6):
        return f"10^{log_e / math.log(10):.0f}"
    e = math.exp(log_e)
    return f"{e:.2g}" if e < 100 else f"{round(e, 1 - math.floor(math.log10(e))):,.0f}"


def _test(looks: Looks, guardrail: Guardrail) -> Floats:
    if guardrail.test == "paired":
        return eprocesses.mcnemar(looks.bad_treatment, looks.bad_control)
    if guardrail.max_rate is not None:
        return eprocesses.above_rate(
            looks.bad_treatment, looks.n_treatment, max_rate=guardrail.max_rate
        )
    return eprocesses.two_by_two(looks)


def _weigh(looks: Sequence[Look], guardrail: Guardrail, limit: float) -> Evidence:
    counts = _looks(looks, guardrail.metrics[0])
    promotion = None
    if guardrail.margin is not None:
        promotion = _last(eprocesses.not_worse(counts, margin=guardrail.margin))
    return Evidence(
        guardrail=guardrail.name,
        log_e=_last(log_e_by_look(looks, guardrail)),
        limit=limit,
        log_e_promotion=promotion,
        counts=Counts(
            n_canary=int(counts.n_treatment.sum()),
            n_stable=int(counts.n_control.sum()),
            bad_canary=int(counts.bad_treatment.sum()),
            bad_stable=int(counts.bad_control.sum()),
        ),
        max_rate=guardrail.max_rate,
    )


def _looks(looks: Sequence[Look], metric: str) -> Looks:
    nothing = Counts()
    counts = [look.counts.get(metric, nothing) for look in looks]
    return Looks(
        n_treatment=np.array([c.n_canary for c in counts], int),
        n_control=np.array([c.n_stable for c in counts], int),
        bad_treatment=np.array([c.bad_canary for c in counts], int),
        bad_control=np.array([c.bad_stable for c in counts], int),
    )


def _last(log_e: Floats) -> float:
    return float(log_e[-1]) if len(log_e) else 0.0
