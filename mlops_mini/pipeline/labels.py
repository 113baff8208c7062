"""The labels of a use case's rows: read, and refused if nothing can come of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from mlops_mini.data.columns import shown
from mlops_mini.data.periods import Period
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.use_case import UseCase


def read(use_case: UseCase, rows: pd.DataFrame) -> pd.Series[float]:
    """Read the labels of prepared rows: 1, 0 or the number of a class, or NaN."""
    name, table, classes = use_case.label.name, use_case.examples, list(use_case.label.classes)
    if classes:
        numbers = rows[name].astype(object).map({each: at for at, each in enumerate(classes)})
        labels = numbers.astype("float64")
        is_odd = (rows[name].notna() & labels.isna()).to_numpy()
    else:
        labels = pd.to_numeric(rows[name].astype(object), errors="coerce").astype("float64")
        is_odd = (rows[name].notna() & ~labels.isin([0.0, 1.0])).to_numpy()
    if is_odd.any():
        example = shown(rows[name].iloc[int(np.argmax(is_odd))])
        expected = f"one of {classes}" if classes else "1 or 0"
        raise InvalidArgumentError(
            f"use case {use_case.name}: {name} is {example} in"
            f" {int(is_odd.sum())} of {len(rows)} rows of table {table.name}; a label is"
            f" {expected}, or missing where unknown: have `prepare` make one"
        )
    return labels.set_axis(pd.Index(rows[use_case.feature_set.key]))


def correct(use_case: UseCase, rows: pd.DataFrame, corrections: pd.DataFrame) -> pd.DataFrame:
    """Put the last correction of each label in the place of the one that arrived.

    Args:
        use_case: Its label names the table of corrections.
        rows: Stored rows of the examples' table.
        corrections: Rows of that table.

    Returns:
        The rows, with labels corrected where there's a correction.
    """
    name, key = use_case.label.name, use_case.feature_set.key
    time = use_case.by_name[use_case.label.corrected_in].time
    in_order = corrections.dropna(subset=[name]).sort_values(time, kind="stable")
    last = in_order.drop_duplicates(key, keep="last").set_index(key)[name]
    is_corrected = rows[key].isin(last.index)
    labels = rows[name].mask(is_corrected, rows[key].map(last))
    return rows.assign(**{name: labels})


def check(
    use_case: UseCase,
    labels: pd.Series[float],
    periods: Sequence[Period],
    *,
    to_do: Literal["learn", "judge", ""] = "",
) -> None:
    """Refuse labels that are all missing, or from which nothing can be learned or judged."""
    span = f"{periods[0]} to {periods[-1]}" if len(periods) > 1 else str(periods[0])
    label = use_case.label
    if labels.empty:
        raise InvalidArgumentError(
            f"use case {use_case.name}: no row of {span} has a label, for {label.name} is missing"
            f" in each, and known only {label.matures_after} after a row's time: choose earlier"
            " periods, whose outcomes are known"
        )
    never = [each for at, each in enumerate(label.classes) if to_do and not (labels == at).any()]
    if len(label.classes) > 2 and never:
        other = "train on more periods" if to_do == "learn" else "judge on another period"
        raise InvalidArgumentError(
            f"use case {use_case.name}: {label.name} is never {', '.join(map(repr, never))} in"
            f" {len(labels)} rows of {span}: there's nothing to {to_do} of it; {other}, or take it"
            " out of the classes"
        )
    if to_do and labels.min() == labels.max():
        other = "train on more periods" if to_do == "learn" else "judge on another period"
        raise InvalidArgumentError(
            f"use case {use_case.name}: {label.column} is {labels.iloc[0]:g} in all {len(labels)}"
            f" rows of {span}: there's nothing to {to_do}; {other}, or predict something else"
        )
