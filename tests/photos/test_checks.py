import numpy as np
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.photos import camera, checks, datasets


@pytest.fixture(scope="module")
def sample():
    return datasets.fashion_mnist()


def test_the_sample_is_as_images_should_be(sample):
    assert checks.images_are(sample.test_images)
    labels = [datasets.CLASSES[each] for each in sample.test_labels]
    assert checks.labels_are(labels, classes=datasets.CLASSES, n_images=10_000)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda images: images[:0], "there are no images"),
        (lambda images: images / np.float32(255), r"float32 of \[28, 28\], expected uint8"),
        (lambda images: images[:, :20], r"uint8 of \[20, 28\], expected uint8 of \[28, 28\]"),
        (lambda images: images[..., None], r"uint8 of \[28, 28, 1\]"),
        (lambda images: (images / 255).astype(np.uint8), "no pixel is above 1 of 255"),
    ],
)
def test_finds_images_of_another_kind(sample, change, reason):
    result = checks.images_are(change(sample.test_images[:50]))

    assert not result
    result_text = repr(result)
    assert "\n" not in result_text
    with pytest.raises(AssertionError, match=reason):
        assert result, result_text


def test_finds_single_images_that_are_broken(sample):
    images = sample.test_images[:50].copy()
    images[[3, 7]] = 9
    assert checks.images_are(images).rows == (3, 7)

    floats = images / np.float32(255)
    floats[[3, 7], 0, 0] = (np.nan, 1.5)
    result = checks.images_are(floats, dtype="float32")
    assert (result.passed, result.rows) == (False, (3, 7))


def test_finds_labels_that_are_of_no_class_and_classes_without_an_image():
    def judged(labels, n_images=3):
        return repr(checks.labels_are(labels, classes=["Bag", "Coat"], n_images=n_images))

    assert judged(["Bag", "Coat", "Bag"]).startswith("passed")
    assert judged(["Bag", None, "Coat"]).endswith(
        "1 of 3 labels are of no class, such as None at 1"
    )
    assert judged(["Bag", "Bag", "Bag"]) == "FAILED: no image shows 'Coat'"
    assert judged(["Bag", "Coat"]) == "FAILED: there are 2 labels for 3 images"
    assert judged([], 0) == "FAILED: there are 0 labels for 0 images"


def test_finds_a_piece_that_was_photographed_twice(sample):
    pieces = sample.test_images[:1_000]
    first = camera.photograph(pieces, np.arange(1_000), seed=0, conditions="studio")
    again = camera.photograph(pieces[:5], np.arange(5) + 5_000, seed=0, conditions="studio")

    among_themselves = checks.no_near_duplicates(np.concatenate([first, again]))
    between = checks.no_near_duplicates(again, others=first)

    assert {*range(5), *range(1_000, 1_005)} <= set(among_themselves.rows)
    assert between.rows == (0, 1, 2, 3, 4)
    assert checks.no_near_duplicates(first[:200])


def test_one_image_has_none_to_be_like():
    one = np.ones((1, 28, 28), np.uint8)

    assert not checks.no_near_duplicates(one)
    with pytest.raises(InvalidArgumentError, match=r"one shape; got \[28, 28\] and \[20, 28\]"):
        checks.no_near_duplicates(one, others=one[:, :20])
