"""Tests that stay valid however often one looks: e-processes on counts.

Counts come in looks, such as one every second. After each look a test gives the logarithm of its
e-value: the evidence so far against the null hypothesis. While that hypothesis is true, the chance
that e *ever* reaches 1 / alpha is at most alpha (Ville's inequality), so that one may look after
each look, and stop or go on as one likes. A p-value has no such property: looked at 200 times, a
z-test at 5 % gives a false alarm in every third experiment.

Tests of several metrics are combined by `mean_of`, since an average of e-values is an e-value, or
each is held to its share of alpha.

Source:
    Ramdas, Grünwald, Vovk, Shafer: Game-theoretic statistics and safe anytime-valid inference,
    Statistical Science 2023, https://arxiv.org/abs/2210.01948.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import special

from mlops_mini.errors import InvalidArgumentError

Floats = npt.NDArray[np.float64]

_RATIOS = np.geomspace(1.05, 20, 24)  # how much worse the treatment might be
_PAIRED_RATIOS = np.geomspace(1.05, 10, 24)
_BETTER_RATIOS = np.geomspace(0.3, 1.4, 24)


@dataclass(frozen=True, kw_only=True, slots=True)
class Looks:
    """Counts of a treatment and a control, look by look.

    Each is an array of whole numbers of shape [..., n_looks]; what stands before the last axis are
    experiments of their own, as in a simulation.

    Attributes:
        n_treatment: Trials of the treatment in each look.
        n_control: Trials of the control in each look.
        bad_treatment: Bad events among the treatment's trials.
        bad_control: Bad events among the control's trials.
    """

    n_treatment: npt.NDArray[np.int64]
    n_control: npt.NDArray[np.int64]
    bad_treatment: npt.NDArray[np.int64]
    bad_control: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        for field in fields(self):
            counts = np.asarray(getattr(self, field.name))
            if counts.dtype.kind not in "iu" and not np.array_equal(counts, np.rint(counts)):
                raise InvalidArgumentError(f"{field.name} must be whole numbers, got {counts}")
            if counts.ndim == 0 or (counts < 0).any():
                raise InvalidArgumentError(
                    f"{field.name} must be an array with a count per look, 0 or more, got {counts}"
                )
            object.__setattr__(self, field.name, counts.astype(np.int64))
        shapes = {field.name: getattr(self, field.name).shape for field in fields(self)}
        if len(set(shapes.values())) > 1:
            raise InvalidArgumentError(f"all counts need one value per look, got shapes {shapes}")

    def since(self, look: int) -> "Looks":
        """Return the looks from one on, the first being 0."""
        return Looks(
            **{field.name: getattr(self, field.name)[..., look:] for field in fields(self)}
        )


def two_by_two(looks: Looks) -> Floats:
    """Test whether a bad event is likelier under the treatment: the default for proportions.

    Before each look both probabilities are estimated from the looks before it, and the look is
    judged by them; the first one only teaches. A rate that both share may drift, and so may the
    share of the treatment.

    Args:
        looks: Counts, with at most as many bad events as trials.

    Returns:
        Log e after each look, shape [..., n_looks]. Null hypothesis: in no look is a bad event
        likelier under the treatment.

    Raises:
        InvalidArgumentError: There are more bad events than trials.

    Source:
        Turner, Ly, Grünwald: Generic E-variables for exact sequential k-sample tests, JSPI 2024,
        https://arxiv.org/abs/2106.02693.

    >>> looks = Looks(
    ...     n_treatment=np.array([50, 52, 47]),
    ...     n_control=np.array([450, 448, 453]),
    ...     bad_treatment=np.array([1, 3, 2]),
    ...     bad_control=np.array([5, 4, 6]),
    ... )
    >>> two_by_two(looks).round(3)
    array([0.   , 1.129, 1.949])
    """
    n_treatment, n_control = looks.n_treatment, looks.n_control
    bad_treatment, bad_control = looks.bad_treatment, looks.bad_control
    if (bad_treatment > n_treatment).any() or (bad_control > n_control).any():
        raise InvalidArgumentError(
            "a look has more bad events than trials: count what failed among the trials too, or "
            "use rate_ratio, which needs no denominator"
        )
    rate_control = np.clip((_before(bad_control) + 0.18) / (_before(n_control) + 0.36), 1e-4, 0.999)
    rate_treatment = np.maximum(
        (_before(bad_treatment) + 2 * rate_control) / (_before(n_treatment) + 2), rate_control
    )
    rate_both = (n_treatment * rate_treatment + n_control * rate_control) / np.maximum(
        n_treatment + n_control, 1
    )
    rate_both = np.where(n_treatment + n_control > 0, rate_both, rate_control)
    return np.cumsum(
        bad_treatment * np.log(rate_treatment / rate_both)
        + (n_treatment - bad_treatment) * np.log((1 - rate_treatment) / (1 - rate_both))
        + bad_control * np.log(rate_control / rate_both)
        + (n_control - bad_control) * np.log((1 - rate_control) / (1 - rate_both)),
        axis=-1,
    )


def rate_ratio(looks: Looks, *, null_ratio: float = 1.0, ratios: Floats = _RATIOS) -> Floats:
    """Test whether bad events come at a higher rate under the treatment, per trial.

    Bad events needn't be among the trials: those may be any measure of exposure. Each look is
    judged with the split it really had, and given the number of its bad events.

    Args:
        looks: Counts.
        null_ratio: The largest ratio of the two rates that is still no evidence, above 0.
        ratios: The ratios among which the evidence is divided, all on one side of `null_ratio`:
            above it for "worse than that", below it for "better than that".

    Returns:
        Log e after each look, shape [..., n_looks]. Null hypothesis: in each look the treatment's
        rate is at most `null_ratio` times the control's (at least, if `ratios` are below it).

    Raises:
        InvalidArgumentError: `ratios` are on both sides of `null_ratio`, or one isn't above 0.

    Source:
        Lindon, Malek: Anytime-valid inference for multinomial count data, NeurIPS 2022,
        https://arxiv.org/abs/2011.03567; the conditional form for two Poisson counts.

    >>> looks = Looks(
    ...     n_treatment=np.array([50, 52, 47]),
    ...     n_control=np.array([450, 448, 453]),
    ...     bad_treatment=np.array([1, 3, 2]),
    ...     bad_control=np.array([5, 4, 6]),
    ... )
    >>> rate_ratio(looks).round(3)
    array([-0.426,  1.353,  1.948])
    """
    on_one_side = (ratios > null_ratio).all() or (ratios < null_ratio).all()
    if null_ratio <= 0 or (ratios <= 0).any() or not on_one_side:
        raise InvalidArgumentError(
            f"ratios must be above 0 and all on one side of the null ratio {null_ratio}, got "
            f"{ratios.min():.3g} to {ratios.max():.3g}"
        )
    n_both = looks.n_treatment + looks.n_control
    share = (looks.n_treatment / np.maximum(n_both, 1))[..., None]
    bad_treatment = np.where(looks.n_treatment > 0, looks.bad_treatment, 0)[..., None]
    bad_both = np.where(n_both > 0, looks.bad_treatment + looks.bad_control, 0)[..., None]
    # The share of the treatment among bad events is `share * r / (1 - share + share * r)`.
    log_e_by_ratio = bad_treatment * np.log(ratios / null_ratio) + bad_both * np.log(
        (1 - share + share * null_ratio) / (1 - share + share * ratios)
    )
    return mean_of(np.cumsum(log_e_by_ratio, axis=-2), axis=-1)


def not_worse(looks: Looks, *, margin: float) -> Floats:
    """Test whether the treatment is less than `margin` times as bad: what a promotion rests on.

    Args:
        looks: Counts.
        margin: Ratio of the rates of bad events that mustn't be reached, above 1.4.

    Returns:
        Log e after each look, shape [..., n_looks]. Null hypothesis: the treatment's rate is
        `margin` times the control's, or more.

    Raises:
        InvalidArgumentError: The margin isn't above 1.4, the largest ratio that is looked for.

    >>> looks = Looks(
    ...     n_treatment=np.array([500, 500]),
    ...     n_control=np.array([500, 500]),
    ...     bad_treatment=np.array([10, 9]),
    ...     bad_control=np.array([11, 10]),
    ... )
    >>> not_worse(looks, margin=3).round(2)
    array([3.06, 6.13])
    """
    return rate_ratio(looks, null_ratio=margin, ratios=_BETTER_RATIOS)


def mcnemar(only_treatment_bad: npt.ArrayLike, only_control_bad: npt.ArrayLike) -> Floats:
    """Test whether the treatment is worse on the same examples, which both were given.

    Pairs on which both are bad, or neither, say nothing.

    Args:
        only_treatment_bad: Pairs in each look on which only the treatment is bad, [..., n_looks].
        only_control_bad: Pairs in each look on which only the control is bad, [..., n_looks].

    Returns:
        Log e after each look, shape [..., n_looks]. Null hypothesis: a pair that tells them apart
        speaks against the treatment with a probability of at most 1/2.

    Source:
        McNemar 1947, made sequential as `rate_ratio`.

    >>> mcnemar([5, 4, 7], [2, 3, 1]).round(3)
    array([ 0.374, -0.067,  1.68 ])
    """
    bad_treatment, bad_control = np.asarray(only_treatment_bad), np.asarray(only_control_bad)
    looks = Looks(
        n_treatment=np.ones_like(bad_treatment),
        n_control=np.ones_like(bad_control),
        bad_treatment=bad_treatment,
        bad_control=bad_control,
    )
    return rate_ratio(looks, ratios=_PAIRED_RATIOS)


def above_rate(
    n_events: npt.ArrayLike,
    n_trials: npt.ArrayLike,
    *,
    max_rate: float,
    rates: Floats | None = None,
) -> Floats:
    """Test whether events, such as disagreements of two models, are more frequent than allowed.

    Args:
        n_events: Events in each look, shape [..., n_looks].
        n_trials: Trials in each look, shape [..., n_looks].
        max_rate: Largest share of trials with an event that is allowed, between 0 and 1.
        rates: The shares among which the evidence is divided, all between `max_rate` and 1; by
            default 24, from a sixth above it up to 60 %, or halfway to 1.

    Returns:
        Log e after each look, shape [..., n_looks]. Null hypothesis: an event has at most the
        probability `max_rate`.

    Raises:
        InvalidArgumentError: `max_rate` or one of `rates` isn't in its range, or there are more
            events than trials.

    >>> above_rate([8, 11, 14], [50, 50, 50], max_rate=0.12).round(3)
    array([-1.204,  0.393,  4.151])
    """
    if not 0 < max_rate < 1:
        raise InvalidArgumentError(f"max_rate must be between 0 and 1, got {max_rate}")
    events, trials = np.cumsum(n_events, axis=-1), np.cumsum(n_trials, axis=-1)
    if (np.asarray(n_events) > np.asarray(n_trials)).any():
        raise InvalidArgumentError(
            f"a look has more events than trials: {np.asarray(n_events)} of {np.asarray(n_trials)}"
        )
    halfway = (1 + max_rate) / 2
    if rates is None:
        rates = np.linspace(min(max_rate * 7 / 6, halfway), max(0.6, halfway), 24)
    if not ((rates > max_rate) & (rates < 1)).all():
        raise InvalidArgumentError(f"rates must be between {max_rate} and 1, got {rates}")
    log_e_by_rate = events[..., None] * np.log(rates / max_rate) + (trials - events)[
        ..., None
    ] * np.log((1 - rates) / (1 - max_rate))
    return mean_of(log_e_by_rate, axis=-1)


def sample_ratio(
    n_treatment: npt.ArrayLike, n_control: npt.ArrayLike, share: npt.ArrayLike
) -> Floats:
    """Test whether the treatment gets the share of trials that it was meant to get.

    If not, something routes, loses or counts trials differently, and no other comparison of the two
    can be trusted. Trials have to be split independently: where all requests of a user go one way,
    count users.

    Args:
        n_treatment: Trials of the treatment in each look, shape [..., n_looks].
        n_control: Trials of the control in each look, shape [..., n_looks].
        share: Intended share of the treatment in each look, 0 to 1, shape [n_looks]. Looks with
            a share of 0 or 1, where nothing is split at random, are left out.

    Returns:
        Log e after each look, shape [..., n_looks]. Null hypothesis: each trial goes to the
        treatment with the probability `share`. An alarm at e >= 1,000 is usual.

    Source:
        Lindon, Malek: Anytime-valid inference for multinomial count data, NeurIPS 2022,
        https://arxiv.org/abs/2011.03567; a segment of its own for each share, prior weight 100.

    >>> sample_ratio([125, 75], [375, 425], [0.25, 0.25]).round(3)
    array([-0.899,  5.203])
    """
    treatment, both = np.asarray(n_treatment), np.add(n_treatment, n_control)
    shares = np.broadcast_to(np.asarray(share, float), both.shape[-1:])
    log_e = np.zeros(both.shape)
    for start, stop in pairwise([0, *(np.flatnonzero(np.diff(shares)) + 1), len(shares)]):
        if start:
            log_e[..., start:] = log_e[..., start - 1 : start]
        if start < stop and 0 < shares[start] < 1:
            x = np.cumsum(treatment[..., start:stop], axis=-1)
            n = np.cumsum(both[..., start:stop], axis=-1)
            a, b = 100 * shares[start], 100 * (1 - shares[start])
            log_e[..., start:stop] += special.betaln(a + x, b + n - x) - special.betaln(a, b)
            log_e[..., start:stop] -= x * np.log(a / 100) + (n - x) * np.log(b / 100)
    return log_e


def mean_of(log_e: npt.ArrayLike, *, weights: npt.ArrayLike | None = None, axis: int = 0) -> Floats:
    """Average e-values of several tests: again an e-value, for "none of the hypotheses is false".

    Args:
        log_e: Log e of each test along `axis`.
        weights: One weight per test, summing to 1; equal weights by default.
        axis: Where the tests stand.

    Returns:
        Log of the average, without `axis`.

    >>> mean_of([[0.0, 3.0], [0.0, 0.0]]).round(2)  # the strong one loses little
    array([0.  , 2.36])
    """
    values = np.asarray(log_e, float)
    n_tests = values.shape[axis]
    shares = np.full(n_tests, 1 / n_tests) if weights is None else np.asarray(weights, float)
    if shares.shape != (n_tests,) or not np.isclose(shares.sum(), 1):
        raise InvalidArgumentError(f"{n_tests} tests need weights that sum to 1, got {shares}")
    shape = [1] * values.ndim
    shape[axis] = n_tests
    return np.asarray(special.logsumexp(values, axis=axis, b=shares.reshape(shape)))


def late_changes(
    test: Callable[[Looks], Floats], looks: Looks, *, every: int = 10, n_starts: int = 20
) -> Floats:
    """Average a test with copies that start later, so that a change that comes late is seen sooner.

    A test remembers how good the treatment was before it broke, and needs long to unlearn it.

    Args:
        test: `two_by_two`, or another function of looks.
        looks: Counts.
        every: Looks between the starts of two copies.
        n_starts: Number of copies, the test itself included.

    Returns:
        Log e after each look, shape [..., n_looks]; the null hypothesis is the test's.

    >>> healthy, broken = np.full(100, 1), np.full(10, 5)
    >>> looks = Looks(
    ...     n_treatment=np.full(110, 50),
    ...     n_control=np.full(110, 50),
    ...     bad_treatment=np.concatenate([healthy, broken]),
    ...     bad_control=np.full(110, 2),
    ... )
    >>> bool(late_changes(two_by_two, looks)[-1] > two_by_two(looks)[-1] + 1)
    True
    """
    n_looks = looks.n_treatment.shape[-1]
    copies = np.zeros((n_starts, *looks.n_treatment.shape))
    for copy, start in enumerate(range(0, min(n_starts * every, n_looks), every)):
        copies[copy, ..., start:] = test(looks.since(start))
    return mean_of(copies)


def ratio_interval(looks: Looks, *, alpha: float = 0.05) -> tuple[float, float]:
    """Bound the ratio of the two rates of bad events, treatment to control.

    Args:
        looks: Counts of one experiment, shape [n_looks].
        alpha: Chance that an interval ever misses the true ratio, if that stays the same; 0 to 1.

    Returns:
        Smallest and largest ratio that isn't rejected, by steps of 5 %: from 0 (nothing that is
        below 1/50 was rejected) to infinity (nothing above 50).

    Raises:
        InvalidArgumentError: The looks belong to several experiments.

    >>> looks = Looks(
    ...     n_treatment=np.array([1000]),
    ...     n_control=np.array([1000]),
    ...     bad_treatment=np.array([60]),
    ...     bad_control=np.array([30]),
    ... )
    >>> [round(bound, 2) for bound in ratio_interval(looks)]
    [1.0, 4.32]
    """
    if looks.n_treatment.ndim != 1:
        raise InvalidArgumentError(
            f"an interval is of one experiment, got counts of shape {looks.n_treatment.shape}"
        )
    if not looks.n_treatment.size:
        return 0.0, float("inf")
    candidates = np.exp(np.arange(-80, 81) * np.log(1.05))
    limit = np.log(2 / alpha)
    kept = [
        ratio
        for ratio in candidates
        if rate_ratio(looks, null_ratio=ratio, ratios=ratio * _RATIOS)[-1] < limit
        and rate_ratio(looks, null_ratio=ratio, ratios=ratio / _RATIOS)[-1] < limit
    ]
    if not kept:  # the rates have changed so much that no one ratio fits them
        return 0.0, float("inf")
    return (
        0.0 if kept[0] == candidates[0] else float(kept[0]),
        float("inf") if kept[-1] == candidates[-1] else float(kept[-1]),
    )


def _before(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sum the looks before each look."""
    return np.cumsum(counts, axis=-1) - counts
