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
    """Read the labels of prepared rows: 1, 0 or NaN."""
    name, table = use_case.label.name, use_case.examples
    labels = pd.to_numeric(rows[name].astype(object), errors="coerce").astype("float64")
    is_odd = (rows[name].notna() & ~labels.isin([0.0, 1.0])).to_numpy()
    if is_odd.any():
        example = shown(rows[name].iloc[int(np.argmax(is_odd))])
        raise InvalidArgumentError(
            f"use case {use_case.name}: {name} is {example} in"
            f" {int(is_odd.sum())} of {len(rows)} rows of table {table.name}; a label is 1 or 0, or"
            " missing where unknown: have `prepare` make one"
        )
    return labels.set_axis(pd.Index(rows[use_case.feature_set.key]))


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
    if to_do and labels.min() == labels.max():
        other = "train on more periods" if to_do == "learn" else "judge on another period"
        raise InvalidArgumentError(
            f"use case {use_case.name}: {label.name} is {labels.iloc[0]:g} in all {len(labels)}"
            f" rows of {span}: there's nothing to {to_do}; {other}, or predict something else"
        )
