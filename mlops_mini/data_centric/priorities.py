"""Where to work: the gap between people and the model, times the share of the data it concerns.

The rule fits on a napkin, and a table of it lies easily: with a few hundred labeled examples, which
category comes first is partly luck. So every gap comes with an interval, and every rank with the
probability that it's the true one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.errors import InvalidArgumentError

Kind = Literal["published", "recorded", "stand-in"]
# Without people, the label itself is what the model is compared with.
LABEL = "the label"
_N_DRAWS = 20_000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Human:
    """How often people are right, slice by slice, and what this rests on.

    Attributes:
        counts: `n_right` of `n` answers, indexed by slice; slices without answers may be missing.
        kind: "published" by somebody else, "recorded" from people here, or a "stand-in": another
            model in their place, which says nothing about people.
    """

    counts: pd.DataFrame
    kind: Kind

    def __post_init__(self) -> None:
        _check_counts(self.counts)
        if self.kind not in get_args(Kind):
            raise InvalidArgumentError(
                f"human accuracy of kind {self.kind!r}: say what it is, one of {get_args(Kind)}"
            )


def count_slices(rows: pd.DataFrame, tags: Sequence[str], *, is_right: str) -> pd.DataFrame:
    """Count how often the model is right in each slice.

    Args:
        rows: One row per example.
        tags: Columns to slice by. Each value of a column is a slice named "column=value"; a column
            of booleans is one slice with the column's name, of the rows where it's true. Rows where
            a tag is missing belong to no slice of that tag.
        is_right: Column that says whether the model is right, missing where nobody knows yet.

    Returns:
        Indexed by slice: `n` judged rows, `n_right` of them, and `share`, 0 to 1, of all rows. Tags
        may overlap, as for a photo that's both dark and blurred. Then shares add up to more than 1,
        and rooms for improvement must not be added up at all.

    Raises:
        InvalidArgumentError: There are no rows, or a column isn't there.

    >>> rows = pd.DataFrame({"light": ["dim", "day", "day"], "tilted": [True, True, False]})
    >>> count_slices(rows.assign(ok=[False, True, None]), ["light", "tilted"], is_right="ok")
               n  n_right     share
    light=day  1        1  0.666667
    light=dim  1        0  0.333333
    tilted     2        1  0.666667
    """
    if missing_columns := [name for name in [*tags, is_right] if name not in rows]:
        raise InvalidArgumentError(f"rows have no columns {missing_columns}, but {list(rows)}")
    if rows.empty:
        raise InvalidArgumentError("there are no rows to count: label some first")
    members: dict[str, npt.NDArray[np.bool_]] = {}
    for tag in tags:
        column = rows[tag]
        if pd.api.types.is_bool_dtype(column):
            members[tag] = column.to_numpy(bool, na_value=False)
            continue
        for value in sorted(column.dropna().unique(), key=str):
            members[f"{tag}={value}"] = (column == value).to_numpy(bool, na_value=False)
    right = rows[is_right].astype("boolean")
    judged, known_right = right.notna().to_numpy(), right.fillna(value=False).to_numpy(bool)
    return pd.DataFrame(
        {
            name: {
                "n": int((inside & judged).sum()),
                "n_right": int((inside & known_right).sum()),
                "share": float(inside.mean()),
            }
            for name, inside in members.items()
        }
    ).T.astype({"n": int, "n_right": int})


def prioritize(
    counts: pd.DataFrame,
    *,
    human: Human | None = None,
    importance: Mapping[str, float] | None = None,
    ease: Mapping[str, float] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank slices by what working on each could bring.

    The room for improvement is max(0, human - model) x share, and the priority is room x importance
    x ease. Shares are taken as known, since all traffic is usually tagged, not only what's labeled.

    Args:
        counts: `n`, `n_right` and `share`, 0 to 1, indexed by slice, as `count_slices` makes them.
        human: How often people are right. Without it, the model's error counts as the gap.
        importance: What a gained example of a slice is worth, 0 or more, 1 where it's left out.
        ease: How much of the gap can be closed, 0 to 1, 1 where it's left out; `measured_ease`
            gets it from a pilot.
        confidence: Of the gap's interval, and of saying that one slice comes before another.
        seed: Of the draws.

    Returns:
        Indexed by slice, largest priority first, slices without a known gap last: `n`, `share`,
        `model` and `human` accuracy, `human_kind`, `gap` with `gap_low` and `gap_high`, `room`,
        `priority`, `p_best`, the probability that no other slice has a larger one, and `tie_group`.
        In each group, no slice is surely behind the first.

    Raises:
        InvalidArgumentError: Counts don't fit, a share or an ease isn't between 0 and 1, or a
            number is for a slice that isn't there.

    Source:
        Course notes, "Focus more on the data than the model". Intervals: Newcombe 1998, method 10,
        for the difference; Wilson's where the label counts as right. Probabilities: independent
        draws from Jeffreys' Beta(k + 1/2, n - k + 1/2). Both take people and model as independent,
        so they are on the safe side if both are judged on the same examples.

    >>> counts = pd.DataFrame({"n": [600, 40], "n_right": [564, 20], "share": [0.9, 0.1]})
    >>> table = prioritize(counts.set_axis(["day", "dim"]), importance={"dim": 2})
    >>> table[["gap", "room", "priority", "tie_group"]].round(3)
          gap   room  priority  tie_group
    dim  0.50  0.050     0.100        1.0
    day  0.06  0.054     0.054        2.0
    """
    _check_counts(counts)
    shares = counts["share"].to_numpy(float)
    if not ((shares >= 0) & (shares <= 1)).all():
        raise InvalidArgumentError(
            f"shares must be between 0 and 1, got {counts['share'].tolist()}"
        )
    worth = _weights("importance", importance, counts.index)
    closable = _weights("ease", ease, counts.index)
    if (closable > 1).any():
        raise InvalidArgumentError(f"ease must be between 0 and 1, got {dict(ease or {})}")
    people = human.counts.reindex(counts.index)[["n", "n_right"]].fillna(0) if human else None
    table = pd.DataFrame(
        {
            "n": counts["n"],
            "share": shares,
            "model": _accuracy(counts),
            "human": 1.0 if people is None else _accuracy(people),
            "human_kind": human.kind if human else LABEL,
        },
        index=counts.index,
    )
    table["gap"] = table["human"] - table["model"]
    for name in table.index[table["gap"].notna()]:
        limits = _gap_limits(
            counts.loc[name], None if people is None else people.loc[name], confidence
        )
        table.loc[name, ["gap_low", "gap_high"]] = limits
    table["room"] = table["gap"].clip(lower=0) * shares
    table["priority"] = table["room"] * worth * closable

    rng = np.random.default_rng(seed)
    gaps = (1.0 if people is None else _draws(people, rng)) - _draws(counts, rng)
    draws = np.clip(gaps, 0, None) * shares * worth * closable
    known = table["gap"].notna().to_numpy()
    draws[:, ~known] = -1  # behind everything
    is_best = draws == draws.max(axis=1, keepdims=True)
    p_best = (is_best / is_best.sum(axis=1, keepdims=True)).mean(axis=0)
    table["p_best"] = np.where(known, p_best, np.nan)
    order = np.argsort(-table["priority"].fillna(-1).to_numpy(), kind="stable")
    table = table.iloc[order].copy()
    groups = _tie_groups(draws[:, order[: known.sum()]], confidence)
    table["tie_group"] = pd.Series(groups, index=table.index[: known.sum()], dtype=float)
    return table


def worst_slices(
    rows: pd.DataFrame,
    tags: Sequence[str],
    *,
    loss: str,
    k: int = 5,
    min_rows: int = 100,
    max_tags: int = 2,
) -> pd.DataFrame:
    """Search all slices and their intersections for those that are large and bad at once.

    Args:
        rows: One row per example.
        tags: Columns to slice by. A missing value counts as a value of its own.
        loss: Column with what each row costs, 0 or more, such as 1 where the model is wrong.
        k: How many slices to return at most.
        min_rows: The fewest rows of a slice that's looked at.
        max_tags: How many tags may be combined.

    Returns:
        Worst first: `slice`, such as "light=dim & kind=boot", `n`, `mean_loss` and SliceLine's
        `score`, which is above 0 where a slice is worse than all rows on average. Empty if none is.
        Having looked at so many slices, the worst of them looks worse than it is: count it anew
        on other rows.

    Raises:
        InvalidArgumentError: A column isn't there, or a loss is negative or missing.

    Source:
        Sagadeeva and Boehm, SliceLine, SIGMOD 2021, with alpha .95, by the package sliceline.

    >>> rows = pd.DataFrame({"light": ["dim", "day"] * 200, "wrong": [1, 0] * 200})
    >>> worst_slices(rows, ["light"], loss="wrong", min_rows=50)["slice"].tolist()
    ['light=dim']
    """
    from sliceline.slicefinder import Slicefinder

    if missing_columns := [name for name in [*tags, loss] if name not in rows]:
        raise InvalidArgumentError(f"rows have no columns {missing_columns}, but {list(rows)}")
    losses = rows[loss].to_numpy(float, na_value=np.nan)
    if not (losses >= 0).all():
        raise InvalidArgumentError(
            f"{loss} must be 0 or more in every row: leave out rows without a label, and shift"
            " a loss that may be negative"
        )
    columns = ["slice", "n", "mean_loss", "score"]
    varying = [tag for tag in tags if len(rows[tag].unique()) > 1]  # others say nothing
    if not varying or not losses.any() or len(rows) < min_rows:
        return pd.DataFrame(columns=columns)
    values = rows[varying].astype(object).where(rows[varying].notna(), "missing").astype(str)
    finder = Slicefinder(alpha=0.95, k=k, max_l=max_tags, min_sup=min_rows, verbose=False)
    finder.fit(values.to_numpy(object), losses)
    found = [
        {
            "slice": " & ".join(
                f"{tag}={value}"
                for tag, value in zip(varying, chosen, strict=True)
                if value is not None
            ),
            "n": int(statistics["slice_size"]),
            "mean_loss": statistics["slice_average_error"],
            "score": statistics["slice_score"],
        }
        for chosen, statistics in zip(
            finder.top_slices_, finder.top_slices_statistics_, strict=True
        )
    ]
    return pd.DataFrame(found, columns=columns)


def _check_counts(counts: pd.DataFrame) -> None:
    if missing_columns := {"n", "n_right"} - set(counts):
        raise InvalidArgumentError(f"counts have no columns {sorted(missing_columns)}")
    if not counts.index.is_unique:
        raise InvalidArgumentError(f"each slice must be there once, got {list(counts.index)}")
    is_possible = (counts["n_right"] >= 0) & (counts["n_right"] <= counts["n"])
    if not is_possible.all():
        raise InvalidArgumentError(
            f"n_right must be between 0 and n, not so in {counts[~is_possible].to_dict('index')}"
        )


def _weights(what: str, given: Mapping[str, float] | None, slices: pd.Index) -> Floats:
    """Lay weights out in the order of the slices, 1 where none is given."""
    given = given or {}
    if unknown := sorted(set(given) - set(slices)):
        raise InvalidArgumentError(
            f"{what} is for slices {unknown}, which aren't in {list(slices)}"
        )
    weights = np.array([given.get(name, 1.0) for name in slices], dtype=float)
    if not (weights >= 0).all():
        raise InvalidArgumentError(f"{what} must be 0 or more, got {dict(given)}")
    return weights


def _accuracy(counts: pd.DataFrame) -> pd.Series:
    return counts["n_right"] / counts["n"].where(counts["n"] > 0)


def _gap_limits(
    model: pd.Series, people: pd.Series | None, confidence: float
) -> tuple[float, float]:
    from statsmodels.stats import proportion

    alpha = 1 - confidence
    if people is None:
        low, high = proportion.proportion_confint(
            model["n_right"], model["n"], alpha=alpha, method="wilson"
        )
        return 1 - high, 1 - low
    low, high = proportion.confint_proportions_2indep(
        people["n_right"],
        people["n"],
        model["n_right"],
        model["n"],
        method="newcomb",
        compare="diff",
        alpha=alpha,
    )
    return low, high


def _draws(counts: pd.DataFrame, rng: np.random.Generator) -> Floats:
    """Draw accuracies that agree with the counts, shape [_N_DRAWS, n_slices]."""
    right, n = counts["n_right"].to_numpy(float), counts["n"].to_numpy(float)
    return rng.beta(right + 0.5, n - right + 0.5, size=(_N_DRAWS, len(counts)))


def _tie_groups(draws: Floats, confidence: float) -> list[int]:
    """Number groups of slices, given in order, whose first isn't surely ahead of the others."""
    groups: list[int] = []
    leader = 0
    for row in range(draws.shape[1]):
        is_ahead = (draws[:, leader] > draws[:, row]).mean() >= confidence
        if is_ahead:
            leader = row
        groups.append(groups[-1] + is_ahead if groups else 1)
    return groups
