"""Does more data hurt? An experiment that answers it for your models, and a forecast from a curve.

The rule says no, unless the model is small or the new data is ambiguous even to people. A rule is a
guess until somebody has tried it: with a large and a small model, with data that's realistic and
with data that nobody could read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data_centric.pilots import Examples
from mlops_mini.errors import InvalidArgumentError

Fit = Callable[[npt.NDArray[np.generic], npt.NDArray[np.generic], int], Any]
Accuracy = Callable[[Any], Mapping[str, float]]
Floats = npt.NDArray[np.float64]

_N_DRAWS = 4_000
_FEWEST_SIZES = 3


def try_additions(
    models: Mapping[str, Fit],
    base: Examples,
    additions: Mapping[str, Examples],
    accuracy: Accuracy,
    *,
    shares: Sequence[float] = (0.5, 0.8),
    seeds: Sequence[int] = (0,),
) -> pd.DataFrame:
    """Train every model with and without every kind of added data, and compare.

    Args:
        models: `fit(inputs, labels, seed)` of each, by name.
        base: Inputs and labels that every training gets.
        additions: By name, inputs and labels to draw from, from the first on.
        accuracy: Of a model, 0 to 1, by what it's judged on, such as "clean" and "photos".
        shares: Which part of the final training data the addition makes up, above 0 and below 1.
        seeds: Each is a training of its own for everything.

    Returns:
        One row for each model, addition, share, seed and test: `model`, `addition`, `share`,
        `seed`, `test`, `before`, the accuracy without the addition, and `change`.

    Raises:
        InvalidArgumentError: A share is impossible, or an addition is too short for it.
    """
    n_base = len(base[0])
    if not all(0 < share < 1 for share in shares):
        raise InvalidArgumentError(f"shares must be between 0 and 1, got {list(shares)}")
    n_added = {share: round(n_base * share / (1 - share)) for share in shares}
    for name, (inputs, _) in additions.items():
        if len(inputs) < max(n_added.values()):
            raise InvalidArgumentError(
                f"{name} has {len(inputs)} examples, but {max(n_added.values())} are needed to make"
                f" up {max(shares):.0%} beside {n_base}"
            )
    rows = []
    for seed in seeds:
        for model, fit in models.items():
            before = pd.Series(accuracy(fit(*base, seed)))
            for addition, (inputs, labels) in additions.items():
                for share, n in n_added.items():
                    more = np.concatenate([base[0], inputs[:n]])
                    fitted = fit(more, np.concatenate([base[1], labels[:n]]), seed)
                    change = pd.Series(accuracy(fitted)) - before
                    rows += [
                        (model, addition, share, seed, test, before[test], change[test])
                        for test in before.index
                    ]
    columns = ["model", "addition", "share", "seed", "test", "before", "change"]
    return pd.DataFrame(rows, columns=columns)


def unreadable(images: npt.NDArray[np.uint8], *, seed: int) -> npt.NDArray[np.uint8]:
    """Ruin images so that nobody can tell what they show: 4 x 4 blocks, blurred, with noise.

    Args:
        images: uint8 of shape [n, height, width], both divisible by 4.
        seed: Of the noise.

    Returns:
        Images of the same shape, whose labels are right but can't be seen any more.

    Raises:
        InvalidArgumentError: The images are of another dtype or shape.
    """
    from scipy import ndimage

    if images.dtype != np.uint8 or images.ndim != 3 or any(n % 4 for n in images.shape[1:]):
        raise InvalidArgumentError(
            "images must be uint8 of shape [n, height, width], divisible by 4, got"
            f" {images.dtype} of {list(images.shape)}"
        )
    n, height, width = images.shape
    blocks = images.reshape(n, 4, height // 4, 4, width // 4).mean(axis=(2, 4))
    large = blocks.repeat(height // 4, axis=1).repeat(width // 4, axis=2)
    blurred = ndimage.gaussian_filter(large, (0, 2, 2))
    noise = np.random.default_rng(seed).normal(0, 25, images.shape)
    return np.asarray(np.clip(blurred + noise, 0, 255).astype(np.uint8))


def mixes(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer],
    *,
    among: Sequence[int],
    seed: int,
) -> Examples:
    """Average pairs of images of different classes, and label each by one of the two at random.

    Args:
        images: uint8 of shape [n, ...].
        labels: Class of each.
        among: Classes to mix.
        seed: Of the pairs and labels.

    Returns:
        As many images as there are of these classes, and their labels: as ambiguous as can be,
        since whoever sees such an image can be right half of the time at best.

    Raises:
        InvalidArgumentError: Fewer than two of these classes occur.
    """
    rng = np.random.default_rng(seed)
    chosen = np.flatnonzero(np.isin(labels, list(among)))
    if len(np.unique(labels[chosen])) < 2:
        raise InvalidArgumentError(f"there's nothing to mix: of {list(among)} fewer than two occur")
    partners = np.array([rng.choice(chosen[labels[chosen] != labels[one]]) for one in chosen])
    mixed = (images[chosen].astype(np.uint16) + images[partners]) // 2
    is_first = rng.random(len(chosen)) < 0.5
    return mixed.astype(images.dtype), np.where(is_first, labels[chosen], labels[partners])


def learning_curve(
    fit: Fit,
    base: Examples,
    extra: Examples,
    accuracy: Callable[[Any], float],
    *,
    sizes: Sequence[int],
    seeds: Sequence[int] = (0,),
) -> pd.DataFrame:
    """Train with more and more examples of one kind, such as those of a slice.

    Args:
        fit: `fit(inputs, labels, seed)` returns a model.
        base: Inputs and labels that every training gets.
        extra: Examples to add, from the first on.
        accuracy: Of a model, 0 to 1, on examples that no training has seen.
        sizes: How many to add, 0 among them.
        seeds: Each is a training of its own for every size.

    Returns:
        One row for each size and seed: `n`, `seed` and `accuracy`.

    Raises:
        InvalidArgumentError: There are fewer extra examples than the largest size.
    """
    if len(extra[0]) < max(sizes):
        raise InvalidArgumentError(
            f"{len(extra[0])} extra examples are fewer than {max(sizes)}: bring more, or leave out"
            " the largest size"
        )
    rows = []
    for n in sizes:
        inputs, labels = (np.concatenate([a, b[:n]]) for a, b in zip(base, extra, strict=True))
        rows += [{"n": n, "seed": s, "accuracy": accuracy(fit(inputs, labels, s))} for s in seeds]
    return pd.DataFrame(rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What more examples are expected to bring.

    Attributes:
        n: How many examples there would be.
        accuracy: Expected, 0 to 1.
        low: A training with so many has at least this accuracy, with the confidence asked for.
        high: At most this.
        gain: Over the largest size that was tried.
        is_sure: Whether even `low` is above the mean at that size.
    """

    n: int
    accuracy: float
    low: float
    high: float
    gain: float
    is_sure: bool


def forecast(curve: pd.DataFrame, *, n: int, confidence: float = 0.9, seed: int = 0) -> Forecast:
    """Say what accuracy to expect with more examples than were tried.

    The error is taken to fall as c + a (n + n0)^-b. Every c, b and n0 of a grid counts as far as it
    fits, so the interval covers how the curve may go on, and not only how it wiggles.

    Args:
        curve: `n` and `accuracy`, as `learning_curve` returns them; at least three sizes, and
            better two seeds for each.
        n: Size to forecast; ten times the largest one tried at most.
        confidence: Of the interval.
        seed: Of its draws.

    Returns:
        The forecast. It's about more of the *same* examples: another source is another curve.

    Raises:
        InvalidArgumentError: There are too few sizes, an accuracy isn't between 0 and 1, or `n` is
            out of reach.

    Source:
        The form: Hestness et al., Deep learning scaling is predictable, empirically, 2017. Weights:
        the likelihood of a grid point with the noise integrated out under Jeffreys' prior.

    >>> sizes = np.array([0, 300, 600, 1200])
    >>> curve = pd.DataFrame({"n": sizes, "accuracy": 1 - 8 * (sizes + 400.0) ** -0.4})
    >>> round(forecast(curve, n=2400).accuracy, 2)
    0.66
    """
    sizes, errors = curve["n"].to_numpy(float), 1 - curve["accuracy"].to_numpy(float)
    largest = sizes.max() if len(sizes) else 0
    if len(np.unique(sizes)) < _FEWEST_SIZES or len(sizes) <= _FEWEST_SIZES:
        raise InvalidArgumentError(
            f"{len(np.unique(sizes))} sizes and {len(sizes)} trainings are too few for a curve: try"
            f" at least {_FEWEST_SIZES} sizes and {_FEWEST_SIZES + 1} trainings"
        )
    if not ((errors >= 0) & (errors <= 1)).all():
        raise InvalidArgumentError("accuracies must be between 0 and 1")
    if not largest < n <= 10 * largest:
        raise InvalidArgumentError(
            f"{n} examples aren't between {largest:.0f}, the most that were tried, and ten times as"
            " many: measure what's below, and don't trust a curve beyond"
        )
    floors = np.linspace(0, errors.min(), 12)
    slopes = np.linspace(0, 1.5, 16)
    starts = np.geomspace(max(largest / 30, 1), 10 * largest, 16)
    c, b, n0 = (grid.ravel() for grid in np.meshgrid(floors, slopes, starts))
    shapes = (sizes[:, None] + n0) ** -b
    # The scale that fits best, for each point of the grid.
    scale = np.clip(((errors[:, None] - c) * shapes).sum(0) / (shapes**2).sum(0), 0, None)
    squares = ((errors[:, None] - c - scale * shapes) ** 2).sum(0)
    n_free = len(sizes) - 1
    log_weight = -n_free / 2 * np.log(squares + 1e-9)
    weight = np.exp(log_weight - log_weight.max())
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(weight), size=_N_DRAWS, p=weight / weight.sum())
    spread = np.sqrt(squares[drawn] / rng.chisquare(n_free, _N_DRAWS))
    expected = c[drawn] + scale[drawn] * (n + n0[drawn]) ** -b[drawn]
    accuracies = 1 - (expected + spread * rng.normal(size=_N_DRAWS)).clip(0, 1)
    low, high = np.quantile(accuracies, [(1 - confidence) / 2, (1 + confidence) / 2])
    now = float(1 - errors[sizes == largest].mean())
    accuracy = float(1 - expected.mean())
    return Forecast(
        n=n, accuracy=accuracy, low=float(low), high=float(high), gain=accuracy - now,
        is_sure=bool(low > now),
    )  # fmt: skip
