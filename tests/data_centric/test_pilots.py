"""What a pilot tells that a table of gaps can't: ease, and what it breaks."""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from mlops_mini.data_centric.pilots import Examples, measured_ease, run_pilots
from mlops_mini.errors import InvalidArgumentError


def slice_of(shift: float, seed: int, n: int = 400) -> Examples:
    """Points whose class depends on the side of a line that's elsewhere in each slice."""
    x = np.random.default_rng(seed).normal(shift, 1, size=(n, 1))
    return x, (x[:, 0] > shift).astype(int)


def fit(
    inputs: npt.NDArray[np.generic], labels: npt.NDArray[np.generic], _: int
) -> LogisticRegression:
    return LogisticRegression(max_iter=200).fit(inputs, labels)


def accuracy(model: LogisticRegression) -> dict[str, float]:
    held_out = {"near": slice_of(0, 1), "far": slice_of(2, 2)}
    right = {name: model.score(*examples) for name, examples in held_out.items()}
    return {**right, "all": float(np.mean(list(right.values())))}


def test_a_pilot_shows_its_own_gain_and_who_pays_for_it() -> None:
    changes = run_pilots(fit, slice_of(0, 3), {"far": slice_of(2, 4)}, accuracy, seeds=(0, 1))

    table = measured_ease(changes, {"far": 0.4})

    assert len(changes) == 2 * 3
    assert table.loc["far", "own"] > 0.1
    assert table.loc["far", "hurt"] == "near"
    assert table.loc["far", "hurt_by"] < -0.1
    assert table.loc["far", "ease"] == pytest.approx(table.loc["far", "own"] / 0.4)


def test_ease_is_per_cost_and_never_negative() -> None:
    changes = pd.DataFrame(
        {
            "pilot": ["a", "a", "a", "b", "b", "b"],
            "seed": 0,
            "slice": ["a", "b", "all"] * 2,
            "change": [0.2, 0.0, 0.1, 0.1, -0.1, 0.0],
        }
    )

    table = measured_ease(changes, {"a": 0.4, "b": 0.0}, cost={"a": 2, "b": 1})

    assert table["ease"].to_dict() == {"a": 0.25, "b": 0}
    assert table.loc["a", "hurt"] == ""


def test_pilots_that_say_nothing_are_refused() -> None:
    base, nothing = slice_of(0, 0), (np.empty((0, 1)), np.empty(0, int))

    with pytest.raises(InvalidArgumentError, match="add no examples"):
        run_pilots(fit, base, {"far": nothing}, accuracy)
    with pytest.raises(InvalidArgumentError, match=r"says nothing of \['dim'\]"):
        run_pilots(fit, base, {"dim": base}, accuracy)
    changes = pd.DataFrame({"pilot": ["a"], "seed": 0, "slice": ["a"], "change": [0.1]})
    with pytest.raises(InvalidArgumentError, match="no gap"):
        measured_ease(changes, {})
