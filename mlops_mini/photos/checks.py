"""Unit tests of image data, to call from your own pytest: `assert checks.images_are(...)`.

They answer as `mlops_mini.data.checks` do: a result that's true only if the check has looked and
found nothing, and that shows its reason when an assertion fails.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data.check_results import CheckResult
from mlops_mini.errors import InvalidArgumentError

_SHOWN = 5


def images_are(
    images: npt.NDArray[Any], *, shape: Sequence[int] = (28, 28), dtype: str = "uint8"
) -> CheckResult:
    """Check shape and dtype, and that pixels use the range that the dtype has.

    Args:
        images: Shape [n_images, ...].
        shape: What each must have.
        dtype: What all must have. Whole numbers go from 0 to the dtype's largest, floats from 0 to
            1.

    Returns:
        The result, with the positions of images that are NaN or out of range somewhere; images of
        one brightness all over; and, as a whole, images whose brightest pixel is 1 of 255: somebody
        has scaled them, and cut them to whole numbers.

    >>> images_are(np.random.default_rng(0).random((2, 28, 28)))
    FAILED: images are float64 of [28, 28], expected uint8 of [28, 28]
    """
    if not len(images):
        return CheckResult(passed=False, reason="there are no images")
    if images.dtype != dtype or images.shape[1:] != tuple(shape):
        reason = (
            f"images are {images.dtype} of {list(images.shape[1:])}, expected {dtype} of"
            f" {list(shape)}"
        )
        return CheckResult(passed=False, reason=reason)
    flat = images.reshape(len(images), -1)
    is_whole = images.dtype.kind in "iu"
    largest = np.iinfo(images.dtype).max if is_whole else 1
    if is_whole and flat.max() <= 1:
        reason = f"no pixel is above 1 of {largest}: scaled to 0 to 1, and cut to whole numbers?"
        return CheckResult(passed=False, reason=reason)
    is_within = np.asarray(((flat >= 0) & (flat <= largest)).all(axis=1))
    if not is_within.all():
        return _bad(~is_within, f"are NaN somewhere, or not in 0 to {largest}")
    return _bad(np.ptp(flat, axis=1) == 0, "are of one brightness all over")


def labels_are(labels: Sequence[Any], *, classes: Sequence[Any], n_images: int) -> CheckResult:
    """Check that each image has a label, each label is a class, and each class has an image.

    Args:
        labels: One per image.
        classes: All that there are.
        n_images: How many images there are.

    Returns:
        The result, with the positions of labels that are missing or of no class.

    >>> labels_are(["Bag", "Hat"], classes=["Bag", "Coat"], n_images=2)
    FAILED: 1 of 2 labels are of no class, such as 'Hat' at 1
    """
    if not n_images or len(labels) != n_images:
        reason = f"there are {len(labels)} labels for {n_images} images"
        return CheckResult(passed=False, reason=reason)
    given = pd.Series(list(labels), dtype=object)
    is_odd = ~given.isin(list(classes)).to_numpy()
    if is_odd.any():
        at = int(np.argmax(is_odd))
        reason = (
            f"{int(is_odd.sum())} of {n_images} labels are of no class, such as {given[at]!r} at"
            f" {at}"
        )
        return CheckResult(passed=False, reason=reason, rows=tuple(np.flatnonzero(is_odd).tolist()))
    if never := [each for each in classes if not (given == each).any()]:
        reason = f"no image shows {', '.join(map(repr, never))}"
        return CheckResult(passed=False, reason=reason)
    return CheckResult(passed=True, reason=f"all {n_images} labels are of {len(classes)} classes")


def no_near_duplicates(
    images: npt.NDArray[Any],
    *,
    others: npt.NDArray[Any] | None = None,
    max_correlation: float = 0.995,
) -> CheckResult:
    """Check that no image is nearly another one: the same photo again, sharper, lighter or noisier.

    Near duplicates in a training set count twice; between training and test sets, they are answers
    that were learned by heart.

    Args:
        images: Shape [n_images, ...].
        others: Images among which to look, such as those trained on; without them the same.
        max_correlation: Of the pixels of two images, up to 1. Of 6,000 pieces of Fashion-MNIST, one
            in a thousand has another one above .993; photographed twice in good light, a piece has
            .996 or more.

    Returns:
        The result, with the positions of images that are nearly another one.

    Raises:
        InvalidArgumentError: The two have other shapes, or the limit isn't between 0 and 1.

    >>> photo = np.random.default_rng(0).random((28, 28))
    >>> no_near_duplicates(np.stack([photo, 1 - photo, 0.5 * photo]))
    FAILED: 2 of 3 images are nearly another one, such as 0 and 2 (correlation 1.000)
    """
    from sklearn.neighbors import NearestNeighbors

    if not 0 < max_correlation < 1 or (others is not None and others.shape[1:] != images.shape[1:]):
        raise InvalidArgumentError(
            f"max_correlation is {max_correlation}, above 0 and below 1, and images to compare have"
            f" one shape; got {list(images.shape[1:])}"
            + ("" if others is None else f" and {list(others.shape[1:])}")
        )
    is_own = others is None
    among = images if others is None else others
    if len(images) < 1 or len(among) < 1 + is_own:
        return CheckResult(passed=False, reason="there are no two images to compare")
    neighbors = NearestNeighbors(n_neighbors=1).fit(_standardized(among))
    distance, nearest = neighbors.kneighbors(None if is_own else _standardized(images))
    correlation = 1 - distance[:, 0] ** 2 / 2
    is_near = correlation > max_correlation
    if not is_near.any():
        return CheckResult(passed=True, reason=f"none of {len(images)} images is nearly another")
    at = int(np.argmax(correlation))
    reason = (
        f"{int(is_near.sum())} of {len(images)} images are nearly another one, such as {at} and"
        f" {nearest[at, 0]} (correlation {correlation[at]:.3f})"
    )
    return CheckResult(passed=False, reason=reason, rows=tuple(np.flatnonzero(is_near).tolist()))


def _standardized(images: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Give each image mean 0 and length 1, so that distances tell correlations."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    centered = flat - flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centered, axis=1, keepdims=True)
    unit: npt.NDArray[np.float64] = centered / np.where(lengths > 0, lengths, 1)
    return unit


def _bad(is_bad: npt.NDArray[np.bool_], fault: str) -> CheckResult:
    if not is_bad.any():
        return CheckResult(passed=True, reason=f"all {len(is_bad)} images are as expected")
    rows = np.flatnonzero(is_bad).tolist()
    more = ", ..." if len(rows) > _SHOWN else ""
    reason = (
        f"{len(rows)} of {len(is_bad)} images {fault}: {', '.join(map(str, rows[:_SHOWN]))}{more}"
    )
    return CheckResult(passed=False, reason=reason, rows=tuple(rows))
