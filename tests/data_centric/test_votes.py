"""Three criteria and votes, on toy networks for which the right answer is known."""

import numpy as np
import pytest

from mlops_mini.data_centric import transforms, votes
from mlops_mini.data_centric.transforms import Images
from mlops_mini.errors import InvalidArgumentError

RNG = np.random.default_rng(0)
# Class 1 is bright on the left, class 0 on the right.
LABELS = np.arange(40) % 2
IMAGES = np.where(
    (np.arange(16) < 8)[None, None, :] == (LABELS == 1)[:, None, None], 200, 20
).astype(np.uint8) * np.ones((1, 16, 1), np.uint8)


def sides(images: Images) -> np.ndarray:
    """How bright the right and the left half are: enough to tell the classes apart."""
    x = np.asarray(images, float)
    return np.stack([x[..., 8:].mean(axis=(1, 2)), x[..., :8].mean(axis=(1, 2))], axis=1)


def needs_light(images: Images) -> np.ndarray:
    """A model that says class 0 whenever it's dark."""
    seen = sides(images)
    return np.where(seen.max(axis=1, keepdims=True) < 120, [[1.0, 0.0]], seen)


def noisy(images: np.ndarray) -> np.ndarray:
    noise = RNG.normal(0, 4, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pool() -> dict[str, transforms.Spec]:
    everything = transforms.candidates()
    return {name: everything[name] for name in ("flip", "invert", "darken strong", "darken weak")}


def measure(pool: dict[str, transforms.Spec], **changes: object) -> votes.Measured:
    photos = noisy(np.concatenate([IMAGES, IMAGES // 5, IMAGES // 4]))
    given: dict[str, object] = {
        "model": needs_light, "reader": sides, "features": sides, "photos": photos, **changes
    }  # fmt: skip
    return votes.measure(pool, IMAGES, LABELS, **given)  # type: ignore[arg-type]


def test_the_criteria_tell_hard_from_absurd(pool: dict[str, transforms.Spec]) -> None:
    table = measure(pool).table()

    # In the dark the model is wrong about one class of two; the reader about none.
    assert table.loc["darken strong", ["hard", "readable"]].tolist() == [0.5, 1]
    assert table.loc["darken weak", "hard"] == 0
    assert table.loc["flip", ["hard", "readable"]].tolist() == [1, 0]  # a flip swaps the classes
    assert table.loc["darken strong", "realistic"] > table.loc["invert", "realistic"]
    assert set(table["reader_kind"]) == {"stand-in"}


def test_photos_vote_for_what_resembles_them(pool: dict[str, transforms.Spec]) -> None:
    measured = measure(pool)

    elected = votes.elect(measured, pool, made_from={"training": "digest"})

    assert dict(elected.weights) == {"darken strong": 1.0}
    assert measured.table()["votes"].sum() == pytest.approx(1)


def test_the_same_seed_gives_the_same_votes(pool: dict[str, transforms.Spec]) -> None:
    photos = noisy(np.concatenate([IMAGES, IMAGES // 5]))

    first, second = (measure(pool, photos=photos, seed=5) for _ in range(2))

    assert np.array_equal(first.nearest, second.nearest)
    assert np.array_equal(first.examples, second.examples)


def test_too_few_photos_and_an_empty_pool_are_refused(pool: dict[str, transforms.Spec]) -> None:
    with pytest.raises(InvalidArgumentError, match="3 photos are too few for 3 neighbors"):
        measure(pool, photos=IMAGES[:3])
    with pytest.raises(InvalidArgumentError, match="the pool is empty"):
        measure({})


def test_nothing_to_vote_for_is_said(pool: dict[str, transforms.Spec]) -> None:
    with pytest.raises(InvalidArgumentError, match="both hard for the model and readable"):
        measure(pool, model=sides)  # knows everything that the reader knows
