"""A policy of augmentation: which transforms, how often each, and what data that was found with.

It's a file like the model itself: small, readable, and of no use for other data than it was made
for, which is why it carries the digests of that data.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_mini import files
from mlops_mini.data.integrity import contents_digest
from mlops_mini.data_centric import transforms
from mlops_mini.data_centric.transforms import Images, Spec
from mlops_mini.errors import (
    DataIntegrityError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
)

_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Transforms with weights.

    Attributes:
        transforms: By name, as `transforms.candidates` lists them.
        weights: How often each is used, by name, positive, summing to 1.
        made_from: Digests of the data with which the policy was made, by name: "training", and what
            else there was, such as "deployment".
    """

    transforms: Mapping[str, Spec]
    weights: Mapping[str, float]
    made_from: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.transforms or set(self.transforms) != set(self.weights):
            raise InvalidArgumentError(
                f"a policy needs transforms, each with a weight; got {sorted(self.transforms)} with"
                f" weights for {sorted(self.weights)}"
            )
        weights = list(self.weights.values())
        if not all(weight > 0 for weight in weights) or abs(sum(weights) - 1) > 1e-6:
            raise InvalidArgumentError(f"weights must be positive and sum to 1, got {weights}")
        if "training" not in self.made_from:
            raise InvalidArgumentError('made_from must have the digest of the "training" data')

    def augment(
        self,
        images: Images,
        *,
        seed: int,
        epoch: int = 0,
        rows: npt.NDArray[np.integer] | None = None,
    ) -> Images:
        """Transform each image by a transform of the policy.

        What becomes of an image follows from the seed, the epoch and its row, and from nothing
        else: not from the images around it, nor from who computes it, nor in which order.

        Args:
            images: uint8, or float32 from 0 to 1, of shape [n, height, width] or [n, height, width,
                channels].
            seed: From 0.
            epoch: From 0; another epoch brings other images.
            rows: Which row of the data set each image is, shape [n]; 0 to n - 1 by default.

        Returns:
            A new array of the same shape and dtype.

        Raises:
            InvalidArgumentError: The images are of another dtype, shape or range, or a transform
                doesn't exist.
        """
        transforms.check_images(images)
        rows = np.arange(len(images)) if rows is None else rows
        names = sorted(self.transforms)  # so that the order in the file doesn't matter
        limits = np.cumsum([self.weights[name] for name in names])
        augmented = np.empty_like(images)
        for n, (image, row) in enumerate(zip(images, rows, strict=True)):
            generator = np.random.default_rng([seed, epoch, int(row)])
            at = np.searchsorted(limits, generator.random() * limits[-1], side="right")
            name = names[int(at)]
            augmented[n] = transforms.apply(name, self.transforms[name], image, generator)
        return augmented

    def check_made_for(self, images: Images, labels: npt.ArrayLike) -> None:
        """Refuse the policy for other training data than it was made for.

        Args:
            images: All training images.
            labels: Their labels.

        Raises:
            FailedPreconditionError: The data isn't that of the policy.
        """
        digest = training_digest(images, labels)
        if digest != self.made_from["training"]:
            raise FailedPreconditionError(
                f"the policy was made for the training data {self.made_from['training'][:12]}, but"
                f" this is {digest[:12]}, {len(images)} images: make a policy for it, or take the"
                " data that this one was made for"
            )

    def save(self, path: Path) -> None:
        """Write the policy as JSON, whole or not at all.

        Args:
            path: Where to; a file that's there is replaced.
        """
        with files.whole_file(path) as unfinished:
            unfinished.write_text(json.dumps(self.document(), indent=1) + "\n")

    def document(self) -> dict[str, Any]:
        """Make what JSON can hold of it, as `from_document` reads it."""
        return {
            "format": _FORMAT,
            "library": f"albumentations {transforms.library().__version__}",
            "made_from": dict(self.made_from),
            "transforms": [
                {"name": name, "weight": self.weights[name], "transform": spec}
                for name, spec in self.transforms.items()
            ],
        }


def load(path: Path) -> Policy:
    """Read a policy.

    Args:
        path: The file that `save` wrote.

    Returns:
        The policy.

    Raises:
        NotFoundError: There's no such file.
        DataIntegrityError: It's no policy, or one of another version of albumentations, with which
            the same numbers may mean other images.
    """
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError as exc:
        raise NotFoundError(f"there's no policy at {path}: make one, then save it there") from exc
    except ValueError as exc:
        raise DataIntegrityError(f"{path} is no policy of augmentation: {exc}") from exc
    return from_document(document, name=str(path))


def from_document(document: Any, *, name: str = "it") -> Policy:
    """Make a policy of what a file holds that `save` wrote.

    Args:
        document: The parsed JSON.
        name: Of the file, for messages.

    Raises:
        DataIntegrityError: As `load` does.
    """
    try:
        made_with, number = document["library"], document["format"]
        entries = document["transforms"]
        policy = Policy(
            transforms={entry["name"]: entry["transform"] for entry in entries},
            weights={entry["name"]: entry["weight"] for entry in entries},
            made_from=document["made_from"],
        )
    except (ValueError, KeyError, TypeError, InvalidArgumentError) as exc:
        raise DataIntegrityError(f"{name} is no policy of augmentation: {exc}") from exc
    installed = f"albumentations {transforms.library().__version__}"
    if (made_with, number) != (installed, _FORMAT):
        raise DataIntegrityError(
            f"{name} was made with {made_with}, format {number}, but this is {installed}, format"
            f" {_FORMAT}: make the policy anew"
        )
    return policy


def uniform(pool: Mapping[str, Spec], *, made_from: Mapping[str, str]) -> Policy:
    """Use each transform of a pool as often as any other.

    Args:
        pool: Such as `transforms.candidates`.
        made_from: As for `Policy`.

    Returns:
        The policy.

    Source:
        Müller and Hutter, TrivialAugment, ICCV 2021, which is that simple, and hard to beat.
    """
    return Policy(
        transforms=dict(pool),
        weights=dict.fromkeys(pool, 1 / max(1, len(pool))),
        made_from=made_from,
    )


def training_digest(images: Images, labels: npt.ArrayLike) -> str:
    """Digest training data, to tell whether a policy was made for it.

    Args:
        images: All of them, in their order.
        labels: Likewise.

    Returns:
        SHA-256, 64 hex digits.
    """
    return contents_digest({"images": images, "labels": np.asarray(labels)})
