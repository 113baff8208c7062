"""The only door to the library of augmentations, and a pool of candidates to choose from.

The library is albumentations 2.0.8, the last one under the MIT license. Its successor,
AlbumentationsX, is AGPL or commercial, is imported by the same name, and overwrites it.
"""

import os
import random
import threading
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError

# A transform as the library writes it to JSON.
Spec = dict[str, Any]
Images = npt.NDArray[np.generic]

_SUCCESSOR = "albumentationsx"
_STRENGTHS = ("weak", "middle", "strong")
_per_thread = threading.local()


def library() -> Any:
    """Import albumentations, without asking the network and without a word.

    Returns:
        The module.

    Raises:
        FailedPreconditionError: It isn't installed, or AlbumentationsX is.
    """
    try:
        version = metadata.version(_SUCCESSOR)
    except metadata.PackageNotFoundError:
        pass
    else:
        raise FailedPreconditionError(
            f"{_SUCCESSOR} {version} is installed. It's under the AGPL or a commercial license and"
            " overwrites the files of albumentations, which is under MIT: `pip uninstall"
            f" {_SUCCESSOR} albumentations`, then `pip install albumentations==2.0.8`"
        )
    # Or the import would ask PyPI for the latest version, and warn where nobody answers.
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    try:
        import albumentations
    except ModuleNotFoundError as exc:
        raise FailedPreconditionError(
            f"{exc.name} isn't installed: `pip install albumentations==2.0.8`"
        ) from exc
    return albumentations


def candidates() -> dict[str, Spec]:
    """List transforms that somebody might want to train with, good, useless and absurd ones.

    Returns:
        68 transforms of gray images by name, such as "rotate weak", as `apply` takes them.

    Raises:
        FailedPreconditionError: As for `library`.
    """
    a = library()

    def light(low: float, high: float) -> Any:
        """Multiply by 1 + a number between these."""
        return a.RandomBrightnessContrast(brightness_limit=(0, 0), contrast_limit=(low, high), p=1)

    def dark(share: float) -> Any:
        return light(-share, -share * 0.6)

    def dark_noise(share: float) -> Any:
        return a.Sequential([dark(share), a.GaussNoise(std_range=(0.01, 0.04), p=1)], p=1)

    by_strength: dict[str, tuple[Callable[[Any], Any], tuple[Any, Any, Any]]] = {
        "rotate": (lambda s: a.Rotate((-s, s), p=1), (10, 25, 45)),
        "perspective": (lambda s: a.Perspective((s, s), p=1), (0.06, 0.12, 0.2)),
        "shear": (lambda s: a.Affine(shear=(-s, s), p=1), (8, 18, 35)),
        "shift": (lambda s: a.Affine(translate_percent=(-s, s), p=1), (0.05, 0.12, 0.25)),
        "scale": (lambda s: a.Affine(scale=(1 - s, 1 + s), p=1), (0.1, 0.25, 0.5)),
        "elastic": (lambda s: a.ElasticTransform(alpha=s, sigma=5, p=1), (15, 50, 150)),
        "grid distortion": (lambda s: a.GridDistortion(distort_limit=s, p=1), (0.15, 0.35, 0.7)),
        "gaussian blur": (
            lambda s: a.GaussianBlur(blur_limit=0, sigma_limit=(s * 0.7, s), p=1),
            (0.8, 1.5, 3),
        ),
        "motion blur": (lambda s: a.MotionBlur(blur_limit=(s, s), p=1), (3, 7, 13)),
        "downscale": (lambda s: a.Downscale((s, s), p=1), (0.6, 0.35, 0.15)),
        "sharpen": (lambda s: a.Sharpen(alpha=(s, s), p=1), (0.4, 0.7, 1)),
        "gaussian noise": (lambda s: a.GaussNoise(std_range=(s, s), p=1), (0.04, 0.12, 0.3)),
        "shot noise": (lambda s: a.ShotNoise(scale_range=(s, s), p=1), (0.05, 0.2, 0.6)),
        "darken": (dark, (0.3, 0.6, 0.9)),
        "dark and noise": (dark_noise, (0.5, 0.8, 0.93)),
        "gamma": (lambda s: a.RandomGamma((100, 100 * s), p=1), (1.2, 2, 4)),
        "jpeg": (lambda s: a.ImageCompression(quality_range=(s, s), p=1), (70, 35, 8)),
        "dropout": (
            lambda s: a.CoarseDropout((1, 1), (s, s), (s, s), p=1),
            (0.25, 0.4, 0.65),
        ),
        "grid dropout": (lambda s: a.GridDropout(ratio=s, p=1), (0.2, 0.4, 0.6)),
        "solarize": (lambda s: a.Solarize((s, s), p=1), (0.8, 0.5, 0.2)),
        "posterize": (lambda s: a.Posterize(num_bits=s, p=1), (4, 2, 1)),
    }
    pool = {
        f"{name} {strength}": make(value)
        for name, (make, values) in by_strength.items()
        for strength, value in zip(_STRENGTHS, values, strict=True)
    }
    pool |= {
        "flip": a.HorizontalFlip(p=1),
        "vertical flip": a.VerticalFlip(p=1),
        "transpose": a.Transpose(p=1),
        "invert": a.InvertImg(p=1),
        "equalize": a.Equalize(p=1),
    }
    return {name: a.to_dict(transform)["transform"] for name, transform in pool.items()}


def check_images(images: Images) -> None:
    """Refuse images that no transform takes.

    Args:
        images: uint8, 0 to 255, or float32, 0 to 1, of shape [n, height, width] or [n, height,
            width, channels].

    Raises:
        InvalidArgumentError: They're of another dtype, shape or range.
    """
    if images.ndim not in (3, 4) or images.dtype.name not in ("uint8", "float32"):
        raise InvalidArgumentError(
            "images must be uint8 or float32 of shape [n, height, width] or [n, height, width,"
            f" channels], got {images.dtype} of {list(images.shape)}"
        )
    if images.dtype == np.float32 and images.size and not (images.min() >= 0 and images.max() <= 1):
        raise InvalidArgumentError(
            f"float32 images must be between 0 and 1, got {images.min()} to {images.max()}: divide"
            " by 255"
        )


def apply(name: str, spec: Spec, image: Images, generator: np.random.Generator) -> Images:
    """Transform one image, with nothing random but what comes out of a generator.

    Safe in threads: each has its own transforms.

    Args:
        name: What to call the transform in messages.
        spec: The transform, as `candidates` lists them.
        image: uint8 or float32 of shape [height, width] or [height, width, channels].
        generator: Draws what the transform leaves to chance.

    Returns:
        A new image of the same shape and dtype.

    Raises:
        InvalidArgumentError: There's no such transform, or it changes the shape.
    """
    transform = _made(name, spec)
    seed = int(generator.integers(2**63))
    transform.set_random_state(generator, random.Random(seed))  # noqa: S311
    gray = image[..., None] if image.ndim == 2 else image
    changed = np.asarray(transform(image=np.ascontiguousarray(gray))["image"])
    if changed.size != image.size or changed.dtype != image.dtype:
        raise InvalidArgumentError(
            f"{name} makes {changed.dtype} of {list(changed.shape)} out of {image.dtype} of"
            f" {list(image.shape)}: only transforms that keep both can be used"
        )
    return changed.reshape(image.shape)


def _made(name: str, spec: Spec) -> Any:
    """Make the transform, once in each thread: it holds random state."""
    made = _per_thread.__dict__.setdefault("made", {})
    known = made.get(name)
    if known is None or known[0] != spec:
        a = library()
        try:
            made[name] = known = (spec, a.from_dict({"transform": spec}))
        except (KeyError, TypeError, ValueError) as exc:
            raise InvalidArgumentError(
                f"{name!r} is no transform of albumentations {a.__version__}: {exc}"
            ) from exc
    return known[1]
