"""The phones in the stores: what their cameras make of a clean picture.

Each photo is taken under one of five conditions. Everything about it follows from a seed and from
the photo's own id, whatever else is photographed with it and in whichever order. None of this code
comes from a library of augmentations: a model that's trained with one must not have seen the test.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mlops_mini.errors import InvalidArgumentError

# Share of all photos, by condition.
CONDITIONS = {"studio": 0.30, "tilted": 0.20, "dim": 0.20, "shaky": 0.15, "covered": 0.15}
SHAPE = (28, 28)
_READ_NOISE = 0.008
_DIM_READ_NOISE = 0.02
_FULL_SCALE_ELECTRONS = 60
_CENTER = (np.array(SHAPE) - 1) / 2

Pixels = npt.NDArray[np.float64]


def draw_conditions(ids: npt.ArrayLike, *, seed: int) -> npt.NDArray[np.str_]:
    """Draw the condition under which each photo is taken.

    Args:
        ids: Whole numbers from 0, shape [n].
        seed: From 0. Another one is another day in the same stores.

    Returns:
        Names from `CONDITIONS`, shape [n], with the shares given there.

    Raises:
        InvalidArgumentError: An id or the seed is no whole number from 0.

    >>> draw_conditions([0, 1, 2, 3], seed=0).tolist()
    ['dim', 'covered', 'studio', 'covered']
    """
    at = np.array([_generator(each, seed, 0).random() for each in _checked_ids(ids, seed)])
    limits = np.cumsum(list(CONDITIONS.values()))[:-1]
    return np.array(list(CONDITIONS))[np.searchsorted(limits, at, side="right")]


def photograph(
    images: npt.NDArray[np.uint8],
    ids: npt.ArrayLike,
    *,
    seed: int,
    conditions: str | Sequence[str] | npt.NDArray[np.str_] | None = None,
) -> npt.NDArray[np.uint8]:
    """Take photos of clean pictures.

    Args:
        images: uint8 of shape [n, 28, 28], 0 is the background and 255 the brightest.
        ids: Of the photos, whole numbers from 0, shape [n].
        seed: From 0.
        conditions: One name from `CONDITIONS` for all photos, or one for each, shape [n]; those of
            `draw_conditions` by default. A photo has the same details of its condition either way.

    Returns:
        The photos, uint8 of shape [n, 28, 28], a new array.

    Raises:
        InvalidArgumentError: The images have another dtype or shape, there are more or fewer ids
            or conditions, or one of these doesn't exist.

    >>> white = np.full((2, 28, 28), 255, np.uint8)
    >>> [int(photo.mean()) for photo in photograph(white, [7, 8], seed=0, conditions="dim")]
    [27, 54]
    """
    known = _checked_ids(ids, seed)
    if images.dtype != np.uint8 or images.shape != (len(known), *SHAPE):
        raise InvalidArgumentError(
            f"the camera takes uint8 images of shape [{len(known)}, 28, 28], one for each id; got"
            f" {images.dtype} of {list(images.shape)}"
        )
    if conditions is None:
        conditions = draw_conditions(known, seed=seed)
    names = [conditions] * len(known) if isinstance(conditions, str) else list(map(str, conditions))
    unknown = sorted(set(names) - set(CONDITIONS))
    if len(names) != len(known) or unknown:
        raise InvalidArgumentError(
            f"{len(names)} conditions for {len(known)} photos, {unknown or 'none'} of them unknown:"
            f" give one for each, from {list(CONDITIONS)}"
        )
    photos = np.empty_like(images)
    for i, (image, each, name) in enumerate(zip(images, known, names, strict=True)):
        generator = _generator(each, seed, 1)
        taken = _TAKE[name](image / 255, generator)
        taken = taken + generator.normal(0, _READ_NOISE, SHAPE)
        photos[i] = np.rint(taken.clip(0, 1) * 255)
    return photos


def _checked_ids(ids: npt.ArrayLike, seed: int) -> npt.NDArray[Any]:
    known = np.asarray(ids)
    known = known if known.size else known.astype(np.int64)
    if known.ndim != 1 or known.dtype.kind not in "iu" or (known < 0).any() or seed < 0:
        raise InvalidArgumentError(
            f"ids are whole numbers from 0, shape [n], and so is the seed; got {known.dtype} of"
            f" {list(known.shape)}, seed {seed}"
        )
    return known


def _generator(photo_id: Any, seed: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, int(photo_id), stream])


def _studio(image: Pixels, _: np.random.Generator) -> Pixels:
    return image


def _tilted(image: Pixels, generator: np.random.Generator) -> Pixels:
    """Turn by 12 to 40 degrees to either side, from a little closer or further off."""
    angle = np.deg2rad(generator.uniform(12, 40)) * generator.choice([-1, 1])
    scale, shear = generator.uniform(0.85, 1.1), generator.uniform(-0.1, 0.1)
    shift = generator.normal(0, 1, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    to_source = turn @ np.array([[1, shear], [0, 1]]) / scale
    offset = _CENTER - to_source @ (_CENTER + shift)
    return np.asarray(ndimage.affine_transform(image, to_source, offset, order=1))


def _dim(image: Pixels, generator: np.random.Generator) -> Pixels:
    """Expose for a twelfth to two fifths of the time, so that photons and the chip's noise show."""
    exposure = np.exp(generator.uniform(np.log(0.08), np.log(0.4)))
    electrons = generator.poisson(image * exposure * _FULL_SCALE_ELECTRONS)
    noise = generator.normal(0, _DIM_READ_NOISE, SHAPE)
    return np.asarray(electrons / _FULL_SCALE_ELECTRONS + noise)


def _shaky(image: Pixels, generator: np.random.Generator) -> Pixels:
    """Blur along the path of a hand that trembles up to 4.5 pixels away from the middle."""
    path = np.cumsum(generator.normal(0, 1, (48, 2)), axis=0)
    path -= path.mean(axis=0)
    reach = np.hypot(*path.T).max()
    cells = np.rint(path / reach * generator.uniform(2, 4.5)).astype(int) + 5
    kernel = np.zeros((11, 11))
    np.add.at(kernel, tuple(cells.T), 1 / len(cells))
    return np.asarray(ndimage.convolve(image, kernel, mode="constant"))


def _covered(image: Pixels, generator: np.random.Generator) -> Pixels:
    """Let a finger or a hand enter from one side, 5 to 12 pixels deep and 6 to 11 wide."""
    depth, width = generator.integers(5, 13), generator.uniform(6, 11)
    middle, side = generator.uniform(5, 22), int(generator.integers(4))
    across, along = np.mgrid[: SHAPE[0], : SHAPE[1]]
    radius = width / 2
    beyond = np.clip(along - (depth - radius), 0, None)  # of where the fingertip's arc begins
    is_finger = np.hypot(beyond, across - middle) <= radius
    texture = ndimage.gaussian_filter(generator.normal(0, 1, SHAPE), 1.5)
    skin = generator.uniform(0.35, 0.8) + 0.25 * texture
    covered = np.where(np.rot90(is_finger, side), skin, image)
    return np.asarray(covered)


_TAKE: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "studio": _studio,
    "tilted": _tilted,
    "dim": _dim,
    "shaky": _shaky,
    "covered": _covered,
}
