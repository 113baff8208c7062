"""Which augmentations are worth training with: three criteria, and the votes of real photos.

An augmented example is worth something if it's hard for the model, realistic, and easy for people.
Each is measured for every candidate on the same images. But examples that meet all three may still
be the wrong ones: what counts is what the deployment is full of. So each photo from there, without
any label, votes for the transform whose hard and readable examples it resembles most.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data_centric import transforms
from mlops_mini.data_centric.policy import Policy
from mlops_mini.data_centric.priorities import Kind
from mlops_mini.data_centric.transforms import Images, Spec
from mlops_mini.errors import InvalidArgumentError

Floats = npt.NDArray[np.float32]
Booleans = npt.NDArray[np.bool_]
# Takes images, returns one row for each: probabilities of the classes, or features.
Network = Callable[[Images], npt.NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What was measured of every candidate's examples.

    Attributes:
        names: Of the candidates.
        examples: What each makes of the same images, shape [n_candidates, n_images, ...].
        is_hard: The model is wrong, shape [n_candidates, n_images].
        is_realistic: As near to a photo as its k-th neighbor among the photos, likewise.
        is_readable: Whoever reads in place of people still sees the right class, likewise.
        nearest: For each photo the candidate of the nearest example that's hard and readable, shape
            [n_photos].
        reader_kind: What "readable" rests on, as in `priorities.Kind`.
    """

    names: tuple[str, ...]
    examples: Images
    is_hard: Booleans
    is_realistic: Booleans
    is_readable: Booleans
    nearest: npt.NDArray[np.str_]
    reader_kind: Kind

    def table(self) -> pd.DataFrame:
        """Lay the three criteria and the votes out.

        Returns:
            Indexed by candidate, most votes first: the shares `hard`, `realistic`, `readable` and
            `all_three` of its examples, its `votes`, a share of the photos, and `reader_kind`.
        """
        votes = pd.Series(self.nearest).value_counts(normalize=True)
        table = pd.DataFrame(
            {
                "hard": self.is_hard.mean(axis=1),
                "realistic": self.is_realistic.mean(axis=1),
                "readable": self.is_readable.mean(axis=1),
                "all_three": (self.is_hard & self.is_realistic & self.is_readable).mean(axis=1),
                "votes": votes.reindex(list(self.names)).fillna(0).to_numpy(),
                "reader_kind": self.reader_kind,
            },
            index=pd.Index(self.names, name="candidate"),
        )
        return table.sort_values("votes", ascending=False, kind="stable")


def measure(
    pool: Mapping[str, Spec],
    images: Images,
    labels: npt.ArrayLike,
    photos: Images,
    *,
    model: Network,
    reader: Network,
    features: Network,
    reader_kind: Kind = "stand-in",
    k: int = 3,
    seed: int = 0,
) -> Measured:
    """Make examples with every candidate, measure the three criteria, and let the photos vote.

    Args:
        pool: Candidates by name, such as `transforms.candidates`.
        images: Labeled training images, a few hundred.
        labels: Class of each, a whole number.
        photos: Unlabeled photos from the deployment, about a thousand.
        model: Probabilities of the model that's to get better.
        reader: Probabilities by whoever reads in place of people.
        features: What images are compared by, such as the last hidden layer of the reader
            (`last_hidden`); pixels work less well.
        reader_kind: What the reader is.
        k: How many neighbors make up a photo's surroundings.
        seed: Of what transforms leave to chance.

    Returns:
        Examples, criteria and votes.

    Raises:
        InvalidArgumentError: The pool is empty, there are fewer photos than that takes, or no
            example of any candidate is both hard and readable.

    Source:
        Course notes, "Focus more on the data than the model". Realistic: the precision of
        Kynkäänniemi et al., Improved precision and recall metric, NeurIPS 2019.
    """
    from sklearn.metrics import pairwise_distances
    from sklearn.neighbors import NearestNeighbors

    if not pool:
        raise InvalidArgumentError("the pool is empty: give candidates")
    if len(photos) <= k:
        raise InvalidArgumentError(
            f"{len(photos)} photos are too few for {k} neighbors of each: bring a few hundred"
        )
    transforms.check_images(images)
    known = np.asarray(labels)
    of_photos = np.asarray(features(photos), np.float32)
    center, spread = of_photos.mean(axis=0), of_photos.std(axis=0)
    spread = np.where(spread > 0, spread, 1)
    of_photos = (of_photos - center) / spread
    radius = NearestNeighbors(n_neighbors=k + 1).fit(of_photos).kneighbors()[0][:, k - 1]

    names = tuple(pool)
    made: dict[str, list[Any]] = {"examples": [], "hard": [], "readable": [], "realistic": []}
    smallest = np.full(len(photos), np.inf)
    nearest = np.zeros(len(photos), dtype=int)
    for place, name in enumerate(names):
        generators = [np.random.default_rng([seed, row]) for row in range(len(images))]
        examples = np.stack(
            [
                transforms.apply(name, pool[name], image, generator)
                for image, generator in zip(images, generators, strict=True)
            ]
        )
        is_hard = np.argmax(model(examples), axis=1) != known
        is_readable = np.argmax(reader(examples), axis=1) == known
        of_examples = (np.asarray(features(examples), np.float32) - center) / spread
        distances = pairwise_distances(of_photos, of_examples)
        made["examples"].append(examples)
        made["hard"].append(is_hard)
        made["readable"].append(is_readable)
        made["realistic"].append((distances <= radius[:, None]).any(axis=0))
        if (is_hard & is_readable).any():
            own = distances[:, is_hard & is_readable].min(axis=1)
            nearest = np.where(own < smallest, place, nearest)
            smallest = np.minimum(own, smallest)
    if np.isinf(smallest).any():
        raise InvalidArgumentError(
            "no example of any candidate is both hard for the model and readable, so there's"
            " nothing to vote for: give other candidates, or more images"
        )
    return Measured(
        names=names,
        examples=np.stack(made["examples"]),
        is_hard=np.stack(made["hard"]),
        is_realistic=np.stack(made["realistic"]),
        is_readable=np.stack(made["readable"]),
        nearest=np.array(names)[nearest],
        reader_kind=reader_kind,
    )


def elect(
    measured: Measured,
    pool: Mapping[str, Spec],
    *,
    made_from: Mapping[str, str],
    top: int = 12,
) -> Policy:
    """Make a policy of the candidates with most votes, each as often as it was voted for.

    Args:
        measured: As `measure` returns it.
        pool: The same candidates.
        made_from: As for `Policy`.
        top: How many candidates at most; those without votes are never among them.

    Returns:
        The policy.
    """
    votes = measured.table()["votes"].head(top)
    votes = votes[votes > 0]
    weights = {str(name): float(weight) for name, weight in (votes / votes.sum()).items()}
    return Policy(
        transforms={name: pool[name] for name in weights}, weights=weights, made_from=made_from
    )


def last_hidden(model: Any) -> Network:
    """Make features of a Keras classifier: what comes out of its last hidden layer.

    Args:
        model: Sequential, with the classifying layer at its end.

    Returns:
        A function of images of shape [n, ...] that returns float32 of shape [n, n_units].
    """
    import keras

    hidden = keras.Model(model.inputs, model.layers[-2].output)
    return lambda images: hidden.predict(images, batch_size=512, verbose=0)
