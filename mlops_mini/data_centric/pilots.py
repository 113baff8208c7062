"""How easy a slice is to improve: measured by a small pilot, which also shows what it breaks.

A pilot costs an hour: a few hundred more examples of one slice, one more training. It answers what
no table of gaps can: how much of the gap such data closes, and which other slices pay for it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.errors import InvalidArgumentError

ALL = "all"

Model = TypeVar("Model")
Examples = tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]


def run_pilots(
    fit: Callable[[npt.NDArray[np.generic], npt.NDArray[np.generic], int], Model],
    base: Examples,
    extra: Mapping[str, Examples],
    accuracy: Callable[[Model], Mapping[str, float]],
    *,
    seeds: Sequence[int] = (0,),
) -> pd.DataFrame:
    """Train once without and once with a little more data of each slice, and compare.

    Args:
        fit: `fit(inputs, labels, seed)` returns a model.
        base: Inputs and labels that every training gets.
        extra: Inputs and labels that the pilot of each slice adds.
        accuracy: Of a model, 0 to 1, by slice; "all" is that of everything together. Always judge
            on the same examples, which no training has seen.
        seeds: Each is a training of its own for the base and for each pilot. Two seeds differ, and
            a change smaller than their difference is none.

    Returns:
        One row for each pilot, seed and slice: `pilot`, `seed`, `slice` and `change`, in accuracy.

    Raises:
        InvalidArgumentError: There's nothing to add for a slice, or no "all" or no accuracy of a
            pilot's own slice.

    >>> x, y = np.arange(4), np.arange(4) % 2
    >>> changes = run_pilots(
    ...     lambda inputs, labels, seed: len(inputs), (x, y), {"dim": (x, y)},
    ...     lambda model: {"dim": model / 10, "all": model / 20},
    ... )
    >>> changes.pivot(index="pilot", columns="slice", values="change")
    slice  all  dim
    pilot
    dim    0.2  0.4
    """
    if empty := sorted(name for name, (inputs, _) in extra.items() if not len(inputs)):
        raise InvalidArgumentError(
            f"the pilots of {empty} add no examples: give each a few hundred"
        )
    changes = []
    for seed in seeds:
        before = pd.Series(accuracy(fit(*base, seed)))
        if missing := sorted({*extra, ALL} - set(before.index)):
            raise InvalidArgumentError(
                f"accuracy says nothing of {missing}, but of {list(before.index)}"
            )
        for pilot, added in extra.items():
            inputs, labels = (np.concatenate(pair) for pair in zip(base, added, strict=True))
            change = pd.Series(accuracy(fit(inputs, labels, seed))) - before
            changes.append(
                change.rename_axis("slice")
                .reset_index(name="change")
                .assign(pilot=pilot, seed=seed)
            )
    return pd.concat(changes, ignore_index=True)[["pilot", "seed", "slice", "change"]]


def measured_ease(
    changes: pd.DataFrame,
    gap: Mapping[str, float],
    *,
    cost: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Turn the changes of pilots into the ease that `priorities.prioritize` takes.

    Args:
        changes: As `run_pilots` returns them.
        gap: Between people and model, in accuracy, by slice, from the table of priorities.
        cost: Of each pilot, in any unit, 1 where it's left out.

    Returns:
        Indexed by slice, easiest first: `own` and `total` change in accuracy, the mean over seeds;
        `hurt`, the slice that loses most, "" if none does, and `hurt_by`, its change; and `ease`, 0
        to 1: the share of the gap that the pilot closed, divided by its cost in units of the
        cheapest pilot's.

    Raises:
        InvalidArgumentError: There's no gap for a slice, or a cost isn't positive.

    >>> changes = pd.DataFrame(
    ...     {"pilot": "dim", "seed": 0, "slice": ["dim", "day", "all"], "change": [0.1, -0.02, 0]}
    ... )
    >>> measured_ease(changes, {"dim": 0.4})
           own  total hurt  hurt_by  ease
    pilot
    dim    0.1    0.0  day    -0.02  0.25
    """
    mean = changes.pivot_table("change", "pilot", "slice")
    if missing := sorted(set(mean.index) - set(gap)):
        raise InvalidArgumentError(
            f"there's no gap for the pilots of {missing}, only {sorted(gap)}"
        )
    costs = pd.Series({name: (cost or {}).get(name, 1.0) for name in mean.index})
    if not (costs > 0).all():
        raise InvalidArgumentError(f"a pilot's cost must be above 0, got {costs.to_dict()}")
    gaps = pd.Series({name: gap[name] for name in mean.index})
    own = pd.Series({name: mean.loc[name, name] for name in mean.index})
    closed = (own / gaps.where(gaps > 0)).clip(0, 1).fillna(0)
    others = mean.drop(columns=ALL)
    worst = others.min(axis=1)
    table = pd.DataFrame(
        {
            "own": own,
            "total": mean[ALL],
            "hurt": others.idxmin(axis=1).where(worst < 0, ""),
            "hurt_by": worst.clip(upper=0),
            "ease": closed / (costs / costs.min()),
        }
    )
    return table.rename_axis("pilot").sort_values("ease", ascending=False)
