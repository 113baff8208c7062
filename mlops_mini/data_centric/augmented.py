"""Training data that's augmented while a Keras model learns from it.

A `PyDataset` is asked for batches by threads or processes, in any order. With a seeded library of
augmentations inside, threads get other images than one worker does, and processes get the *same*
images in every epoch. Here each image follows from the seed, the epoch and its row alone.
"""

import math

import keras
import numpy as np
import numpy.typing as npt

from mlops_mini.data_centric.policy import Policy
from mlops_mini.data_centric.transforms import Images
from mlops_mini.errors import InvalidArgumentError

Batch = tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]


class AugmentedDataset(keras.utils.PyDataset):  # type: ignore[misc]
    """Each epoch has every image as it is, if wanted, and once as a policy changes it.

    Attributes:
        epoch: Which one the next batches belong to. Keras counts it up, also once before `fit`
            begins, so its first epoch is number 1. Set it to go on where you stopped.

    >>> from mlops_mini.data_centric import policy, transforms
    >>> images, labels = np.zeros((6, 28, 28), np.uint8), np.arange(6)
    >>> made_from = {"training": policy.training_digest(images, labels)}
    >>> flips = {"flip": transforms.candidates()["flip"]}
    >>> rule = policy.uniform(flips, made_from=made_from)
    >>> dataset = AugmentedDataset(images, labels, rule, seed=0, batch_size=4)
    >>> len(dataset), dataset[2][0].shape
    (3, (4, 28, 28))
    """

    def __init__(
        self,
        images: Images,
        labels: npt.ArrayLike,
        policy: Policy,
        *,
        seed: int,
        batch_size: int = 64,
        keep_originals: bool = True,
        workers: int = 1,
        use_multiprocessing: bool = False,
    ) -> None:
        """Check that the policy was made for this data.

        Args:
            images: uint8, or float32 from 0 to 1, of shape [n, height, width] or [n, height, width,
                channels].
            labels: Of any kind that the model takes, shape [n, ...].
            policy: Made for these images and labels.
            seed: Of the order of the images and of what the policy does.
            batch_size: From 1.
            keep_originals: Whether an epoch has the images as they are, too, so twice as many.
            workers: Threads or processes that compute batches; 0 and 1 mean none.
            use_multiprocessing: Processes instead of threads.

        Raises:
            FailedPreconditionError: The policy was made for other data.
            InvalidArgumentError: There are no images, or not one label for each.
        """
        super().__init__(workers=workers, use_multiprocessing=use_multiprocessing)
        known = np.asarray(labels)
        if not len(images) or len(known) != len(images) or batch_size < 1:
            raise InvalidArgumentError(
                f"{len(images)} images, {len(known)} labels, batches of {batch_size}: give at least"
                " one image, as many labels, and batches of 1 or more"
            )
        policy.check_made_for(images, known)
        self.epoch = 0
        self._images, self._labels, self._policy = images, known, policy
        self._seed, self._batch_size = seed, batch_size
        self._n_rows = len(images) * (2 if keep_originals else 1)
        self._n_originals = len(images) if keep_originals else 0

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return math.ceil(self._n_rows / self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        """Compute a batch of the current epoch.

        Args:
            index: Of the batch, from 0.

        Returns:
            Images and labels of `batch_size` rows; the last batch may have fewer.
        """
        order = np.random.default_rng([self._seed, self.epoch]).permutation(self._n_rows)
        chosen = order[index * self._batch_size : (index + 1) * self._batch_size]
        rows = chosen % len(self._images)
        is_augmented = chosen >= self._n_originals
        batch = self._images[rows]
        batch[is_augmented] = self._policy.augment(
            batch[is_augmented], seed=self._seed, epoch=self.epoch, rows=rows[is_augmented]
        )
        return batch, self._labels[rows]

    def on_epoch_end(self) -> None:
        """Go on to the next epoch; Keras calls it."""
        self.epoch += 1
