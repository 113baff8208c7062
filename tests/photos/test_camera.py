import multiprocessing

import numpy as np
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.photos import camera, datasets

IDS = np.arange(1_000)


@pytest.fixture(scope="module")
def images():
    return datasets.fashion_mnist().test_images[:1_000]


def test_conditions_have_their_shares():
    drawn = camera.draw_conditions(np.arange(5_000), seed=1)

    shares = {name: float((drawn == name).mean()) for name in camera.CONDITIONS}
    assert shares == pytest.approx(camera.CONDITIONS, abs=0.02)


def test_a_photo_depends_on_its_id_and_the_seed_alone(images):
    together = camera.photograph(images, IDS, seed=3)

    backwards = camera.photograph(images[::-1], IDS[::-1], seed=3)
    alone = camera.photograph(images[5:6], [5], seed=3)
    assert (together == backwards[::-1]).all()
    assert (together[5] == alone[0]).all()
    assert (together != camera.photograph(images, IDS, seed=4)).any()
    assert (together != camera.photograph(images, IDS + 1, seed=3)).any()


def test_a_condition_that_is_given_has_the_same_details(images):
    drawn = camera.draw_conditions(IDS, seed=3)
    as_drawn = camera.photograph(images, IDS, seed=3)

    all_tilted = camera.photograph(images, IDS, seed=3, conditions="tilted")

    is_tilted = drawn == "tilted"
    assert (as_drawn[is_tilted] == all_tilted[is_tilted]).all()
    assert (camera.photograph(images, IDS, seed=3, conditions=drawn) == as_drawn).all()


def test_another_process_takes_the_same_photos(images):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        other = pool.apply(camera.photograph, (images[:50], IDS[:50]), {"seed": 3})

    assert (other == camera.photograph(images[:50], IDS[:50], seed=3)).all()


def test_each_condition_does_what_its_name_says(images):
    taken = {
        name: camera.photograph(images, IDS, seed=3, conditions=name).astype(float)
        for name in camera.CONDITIONS
    }
    clean = images.astype(float)
    change = {name: np.abs(photos - clean).mean() for name, photos in taken.items()}
    sharpness = {name: np.abs(np.diff(photos, axis=2)).mean() for name, photos in taken.items()}

    assert change["studio"] < 2.5  # of 255, the chip's noise alone
    assert min(change[name] for name in ("tilted", "dim", "shaky", "covered")) > 10
    assert 0.1 < taken["dim"].mean() / clean.mean() < 0.4
    assert sharpness["shaky"] < 0.7 * sharpness["studio"]
    # A finger covers a part; the rest stays as it is.
    assert (np.abs(taken["covered"] - clean) < 12).mean() > 0.7


def test_what_was_given_stays_as_it_was(images):
    before = images.copy()

    photos = camera.photograph(images, IDS, seed=3)

    assert (images == before).all()
    assert (photos.dtype, photos.shape) == (np.uint8, images.shape)


def test_no_pictures_give_no_photos():
    none = np.zeros((0, 28, 28), np.uint8)

    assert camera.photograph(none, [], seed=3).shape == (0, 28, 28)
    assert camera.draw_conditions([], seed=3).shape == (0,)


@pytest.mark.parametrize(
    ("given", "ids", "conditions", "message"),
    [
        (np.zeros((2, 28, 28), np.float32), [1, 2], None, r"\[2, 28, 28\].*float32"),
        (np.zeros((2, 32, 32), np.uint8), [1, 2], None, r"\[2, 28, 28\].*\[2, 32, 32\]"),
        (np.zeros((2, 28, 28), np.uint8), [1], None, r"\[1, 28, 28\], one for each id"),
        (np.zeros((1, 28, 28), np.uint8), [-1], None, "whole numbers from 0"),
        (np.zeros((1, 28, 28), np.uint8), ["a"], None, "whole numbers from 0"),
        (np.zeros((1, 28, 28), np.uint8), [1], "dark", r"\['dark'\] of them unknown.*'dim'"),
        (np.zeros((2, 28, 28), np.uint8), [1, 2], ["dim"], "1 conditions for 2 photos"),
    ],
)
def test_refuses_what_no_camera_takes(given, ids, conditions, message):
    with pytest.raises(InvalidArgumentError, match=message):
        camera.photograph(given, ids, seed=0, conditions=conditions)
