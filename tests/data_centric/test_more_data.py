"""The experiment of more data on a toy problem, and forecasts against curves that are known."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from mlops_mini.data_centric import more_data
from mlops_mini.errors import InvalidArgumentError


def rings(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points inside and outside of a circle: too much for a straight line."""
    x = np.random.default_rng(seed).uniform(-1, 1, size=(n, 2))
    return x, (np.hypot(*x.T) < 0.7).astype(int)


def line(x: np.ndarray, y: np.ndarray, _: int) -> LogisticRegression:
    return LogisticRegression().fit(x, y)


def tree(x: np.ndarray, y: np.ndarray, seed: int) -> DecisionTreeClassifier:
    return DecisionTreeClassifier(min_samples_leaf=3, random_state=seed).fit(x, y)


def test_more_data_helps_the_large_model_and_noise_hurts_it() -> None:
    x, y = rings(2000, 1)
    guessed = np.random.default_rng(2).integers(2, size=2000)
    held_out = rings(2000, 3)

    results = more_data.try_additions(
        {"line": line, "tree": tree},
        rings(100, 0),
        {"real": (x, y), "guessed": (x, guessed)},
        lambda model: {"held out": model.score(*held_out)},
        seeds=(0, 1),
    )

    assert len(results) == 2 * 2 * 2 * 2
    change = results.groupby(["model", "addition", "share"])["change"].mean()
    assert change["tree", "real", 0.8] > 0.02
    assert change["tree", "guessed", 0.8] < -0.05
    assert abs(change["line", "real", 0.8]) < 0.05


def test_impossible_experiments_are_refused() -> None:
    base = rings(100, 0)

    def accuracy(model: object) -> dict[str, float]:
        return {"all": 0.5}

    with pytest.raises(InvalidArgumentError, match="400 are needed"):
        more_data.try_additions({"line": line}, base, {"few": rings(100, 1)}, accuracy)
    with pytest.raises(InvalidArgumentError, match="between 0 and 1"):
        more_data.try_additions({"line": line}, base, {"a": base}, accuracy, shares=(1.0,))


def test_unreadable_images_hide_what_mixes_show_half_of() -> None:
    images = np.zeros((40, 28, 28), np.uint8)
    labels = np.arange(40) % 4
    for image, label in zip(images, labels, strict=True):
        image[7 * label : 7 * label + 7] = 240

    ruined = more_data.unreadable(images, seed=0)
    mixed, given = more_data.mixes(images, labels, among=[0, 1], seed=0)

    assert ruined.shape == images.shape
    assert np.array_equal(ruined, more_data.unreadable(images, seed=0))
    assert not np.array_equal(ruined, more_data.unreadable(images, seed=1))
    assert mixed.shape == (20, 28, 28)
    assert mixed.max() == 120
    assert set(given) == {0, 1}
    with pytest.raises(InvalidArgumentError, match="nothing to mix"):
        more_data.mixes(images, labels, among=[3], seed=0)
    with pytest.raises(InvalidArgumentError, match="divisible by 4"):
        more_data.unreadable(images[:, :27], seed=0)


def test_a_learning_curve_adds_the_first_examples() -> None:
    seen = []

    def fit(x: np.ndarray, y: np.ndarray, seed: int) -> int:
        seen.append(len(x))
        return len(x)

    curve = more_data.learning_curve(
        fit, rings(10, 0), rings(50, 1), lambda n: n / 100, sizes=(0, 20, 50), seeds=(0, 1)
    )

    assert seen == [10, 10, 30, 30, 60, 60]
    assert curve["accuracy"].tolist() == [0.1, 0.1, 0.3, 0.3, 0.6, 0.6]
    with pytest.raises(InvalidArgumentError, match="fewer than 60"):
        more_data.learning_curve(fit, rings(10, 0), rings(50, 1), float, sizes=(0, 60))


def test_forecasts_cover_what_comes() -> None:
    rng = np.random.default_rng(0)
    sizes = np.repeat([0, 150, 300, 600, 1200], 2)
    n_covered, n_sure, n_wrongly_sure = 0, 0, 0
    for _ in range(60):
        c, b, n0 = rng.uniform(0.02, 0.2), rng.uniform(0.2, 0.8), rng.uniform(50, 1500)
        a = rng.uniform(0.2, 0.5) * n0**b

        def true(n: np.ndarray | float, a: float = a, b: float = b, c: float = c, n0: float = n0):
            return 1 - c - a * (n + n0) ** -b

        curve = pd.DataFrame({"n": sizes, "accuracy": true(sizes) + rng.normal(0, 0.01, 10)})
        said = more_data.forecast(curve, n=4800)
        n_covered += said.low <= true(4800.0) + rng.normal(0, 0.01) <= said.high
        n_sure += said.is_sure
        n_wrongly_sure += said.is_sure and true(4800.0) <= true(1200.0)

    assert n_covered >= 47  # 90% of 60 are 54; 47 are three standard deviations less
    assert n_sure > 20
    assert n_wrongly_sure == 0


def test_a_flat_curve_promises_nothing() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 8)
    flat = pd.DataFrame({"n": [0, 0, 300, 300, 600, 600, 1200, 1200], "accuracy": 0.8 + noise})

    said = more_data.forecast(flat, n=4800)

    assert not said.is_sure
    assert abs(said.gain) < 0.03


@pytest.mark.parametrize(
    ("n", "accuracy", "target", "said"),
    [
        ([0, 100, 100], [0.5, 0.6, 0.6], 200, "too few"),
        ([0, 100, 200], [0.5, 0.6, 0.7], 400, "too few"),
        ([], [], 400, "too few"),
        ([0, 100, 200, 300], [0.5, 0.6, 0.7, 1.2], 400, "between 0 and 1"),
        ([0, 100, 200, 300], [0.5, 0.6, 0.7, 0.8], 300, "measure what's below"),
        ([0, 100, 200, 300], [0.5, 0.6, 0.7, 0.8], 3001, "don't trust a curve beyond"),
    ],
)
def test_forecasts_out_of_reach_are_refused(
    n: list[int], accuracy: list[float], target: int, said: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        more_data.forecast(pd.DataFrame({"n": n, "accuracy": accuracy}), n=target)
