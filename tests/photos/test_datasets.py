import numpy as np
import pytest

from mlops_mini.errors import DataIntegrityError
from mlops_mini.photos import datasets


def test_images_are_a_sample_of_every_class():
    sample = datasets.fashion_mnist()

    assert sample.train_images.shape == (30_000, 28, 28)
    assert sample.train_images.max() == 255
    assert np.bincount(sample.train_labels).min() == 2_945
    assert np.bincount(sample.test_labels).tolist() == [1_000] * 10


def save_images(path, images, **more):
    labels = np.zeros(len(images), np.uint8)
    np.savez(
        path,
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        **more,
    )


def test_refuses_other_arrays_than_images(tmp_path):
    path = tmp_path / "fashion_mnist.npz"

    save_images(path, np.zeros((3, 28, 28), np.float32))
    with pytest.raises(DataIntegrityError, match=r"images float32\(3, 28, 28\).* expected uint8"):
        datasets.fashion_mnist(folder=tmp_path)

    save_images(path, np.zeros((3, 28, 28), np.uint8), more=np.zeros(1))
    with pytest.raises(DataIntegrityError, match="is not the sample as npz"):
        datasets.fashion_mnist(folder=tmp_path)

    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataIntegrityError, match="is not the sample as npz"):
        datasets.fashion_mnist(folder=tmp_path)


def test_a_folder_without_the_sample_has_no_images(tmp_path):
    assert datasets.count_rows(folder=tmp_path) == {}
