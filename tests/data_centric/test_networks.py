"""The two networks that pilots and experiments train."""

import numpy as np
import pytest

from mlops_mini.data_centric import networks, votes


@pytest.mark.slow
def test_both_learn_and_the_same_seed_gives_the_same_model() -> None:
    rng = np.random.default_rng(0)
    classes = np.arange(120) % 3
    images = rng.integers(0, 60, (120, 28, 28), dtype=np.uint8)
    for image, its_class in zip(images, classes, strict=True):
        image[9 * its_class : 9 * its_class + 9] += 180

    for is_linear, n_weights in ((True, 2_355), (False, 105_411)):
        first, again = (
            networks.fit(
                images, classes, seed=1, n_classes=3, epochs=8, is_linear=is_linear, batch_size=16
            )
            for _ in range(2)
        )
        answers = networks.probabilities(first, images)

        assert first.count_params() == n_weights
        assert answers.shape == (120, 3)
        assert (answers.argmax(axis=1) == classes).mean() > 0.9
        assert np.array_equal(answers, networks.probabilities(again, images))
    assert votes.last_hidden(first)(images).shape == (120, 64)
