"""A sample of Fashion-MNIST, read and checked; `README.md` of the data has source and license."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlops_mini import files, workspace
from mlops_mini.errors import DataIntegrityError

FILE = "fashion_mnist.npz"

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FashionMnist:
    """A sample of Fashion-MNIST: photos of clothes, and what they show.

    Attributes:
        train_images: The first 30,000 of the training set, uint8 of shape (30000, 28, 28), 0 is the
            background and 255 the brightest.
        train_labels: Class of each, uint8 0 to 9, an index into `CLASSES`.
        test_images: The whole test set, uint8 of shape (10000, 28, 28).
        test_labels: Class of each, uint8 0 to 9.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


def fashion_mnist(*, folder: Path | str | None = None) -> FashionMnist:
    """Load the sample of Fashion-MNIST.

    Args:
        folder: The data folder; without it `workspace.data_folder()`.

    Returns:
        Images and labels, fresh arrays.

    Raises:
        NotFoundError: The folder or the file is not there.
        DataIntegrityError: The file is not what its checksum says, or its arrays are others.

    >>> sample = fashion_mnist()
    >>> sample.train_images.shape, CLASSES[sample.train_labels[0]]
    ((30000, 28, 28), 'Ankle boot')
    """
    path = files.checked_path(_data_folder(folder), FILE)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            sample = FashionMnist(**arrays)
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as exc:
        raise DataIntegrityError(
            f"{path} is not the sample as npz ({str(exc).partition(chr(10))[0]}); get it back with"
            " `git checkout -- data` or `python -m tools.rebuild_data`"
        ) from exc
    for images, labels in (
        (sample.train_images, sample.train_labels),
        (sample.test_images, sample.test_labels),
    ):
        kind = (images.dtype.name, images.shape, labels.dtype.name)
        if kind != ("uint8", (len(labels), 28, 28), "uint8"):
            raise DataIntegrityError(
                f"{path} has images {images.dtype}{images.shape} with labels"
                f" {labels.dtype}{labels.shape}, expected uint8 of (n, 28, 28) with (n,);"
                " write it again"
            )
    return sample


def count_rows(*, folder: Path | str | None = None) -> dict[str, int]:
    """Read and check the sample, and count its images.

    Args:
        folder: The data folder; without it `workspace.data_folder()`.

    Returns:
        Images by file; none if it is not there.

    Raises:
        DataIntegrityError: The file is not what its checksum says, or its arrays are others.

    >>> count_rows()
    {'fashion_mnist.npz': 40000}
    """
    if not (_data_folder(folder) / FILE).is_file():
        return {}
    sample = fashion_mnist(folder=folder)
    return {FILE: len(sample.train_labels) + len(sample.test_labels)}


def _data_folder(folder: Path | str | None) -> Path:
    return Path(folder) if folder else workspace.data_folder()
