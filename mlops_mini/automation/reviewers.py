"""Simulated people, for lessons and tests: nobody has labeled anything."""

import numpy as np
import numpy.typing as npt

from mlops_mini.errors import InvalidArgumentError

Labels = npt.NDArray[np.int64]
_SHARPENING = 1.5  # power of the probabilities: people hardly ever err where it's easy


def decide(views: npt.ArrayLike, truth: npt.ArrayLike, *, accuracy: float, seed: int) -> Labels:
    """Decide as a person might who is right about a share of the items, and errs on hard ones.

    Args:
        views: How each item looks: probabilities of the categories, such as another network's,
            shape [n, n_categories].
        truth: Place of the true category, shape [n].
        accuracy: Share of items that are decided rightly, about, 0 to 1.
        seed: Of the errors.

    Returns:
        Place of the category that the person names, shape [n].

    Raises:
        InvalidArgumentError: Nobody errs as often who sees that much.

    >>> views = np.array([[0.9, 0.1]] * 500 + [[0.5, 0.5]] * 500)
    >>> wrong = decide(views, np.zeros(1000, int), accuracy=0.8, seed=0) != 0
    >>> bool(wrong[:500].sum() < wrong[500:].sum())
    True
    """
    sharp = np.asarray(views, np.float64) ** _SHARPENING
    sharp /= sharp.sum(axis=1, keepdims=True)
    true = np.asarray(truth, np.int64)
    often = np.mean(1 - sharp[np.arange(true.size), true])
    share = (1 - accuracy) / often if often else np.inf
    if not 0 <= share <= 1:
        raise InvalidArgumentError(
            f"accuracy is {accuracy}: with these views it's {1 - often:.2f} to 1"
        )
    rng = np.random.default_rng(seed)
    guesses = (sharp.cumsum(axis=1) > rng.random(true.size)[:, None]).argmax(axis=1)
    return np.where(rng.random(true.size) < share, guesses, true)


def follow_hints(
    decided: Labels, hints: npt.ArrayLike, scores: npt.ArrayLike, *, trust: float, seed: int,
    min_score: float = 0.9,
) -> Labels:  # fmt: skip
    """Decide again, having seen the model's answers: some that differ are followed.

    Args:
        decided: What the person would have said without them, shape [n].
        hints: The model's answers, shape [n].
        scores: Its confidence, 0 to 1, shape [n].
        trust: Share of the confident hints that are followed against the person's own view.
        seed: Of which.
        min_score: A hint counts as confident from here on.

    >>> follow_hints(np.array([1, 1]), [2, 2], [0.95, 0.5], trust=1, seed=0)
    array([2, 1])
    """
    answers = np.asarray(hints, np.int64)
    is_moved = np.random.default_rng(seed).random(decided.size) < trust
    return np.where(is_moved & (np.asarray(scores) > min_score), answers, decided)
