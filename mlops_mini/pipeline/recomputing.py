"""Compute features of examples once more, as serving would have: from a store that knows the past.

Whatever slips from the future into a table of examples makes a model better there, and there alone.
The store can't know it: it's fed with what has happened, in order, and asked in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data import tensors
from mlops_mini.data.periods import Period
from mlops_mini.features import online
from mlops_mini.features.store import Store
from mlops_mini.model import training
from mlops_mini.model.gate_rules import Recomputed
from mlops_mini.pipeline import examples
from mlops_mini.use_case import UseCase


def recompute(
    use_case: UseCase,
    periods: Sequence[Period],
    test_file: Path,
    *,
    data_folder: Path,
    n_rows: int = 200,
) -> Recomputed:
    """Compare examples that judge with what serving would have computed for the same rows.

    Args:
        use_case: The use case.
        periods: Those that the examples may be of, in order.
        test_file: Parquet, the examples, with their key, time and features.
        data_folder: Holds the tables.
        n_rows: How many to compute again, evenly spread over time; all if there are fewer.

    Returns:
        The result; it doesn't depend on anything random.

    Raises:
        InvalidArgumentError: The file lacks a column, or has rows that aren't in these periods.
    """
    features = use_case.feature_set
    written = training.read_examples(test_file, [features.key, features.time, *features.names])
    in_order = written.sort_values([features.time, features.key], kind="stable")
    positions = np.linspace(0, len(in_order) - 1, min(n_rows, len(in_order))).astype(int)
    chosen = in_order.iloc[np.unique(positions)].set_index(features.key)
    first = chosen[features.time].min()
    known = examples.read(
        use_case, [each for each in periods if each.end > first], data_folder=data_folder
    )
    rows = pd.concat([part.rows for part in known.periods]).set_index(features.key, drop=False)
    rows = rows.loc[chosen.index]
    with TemporaryDirectory() as folder, Store(Path(folder) / "store.sqlite", features) as store:
        computed = online.replay(
            rows, features, known.stream, store=store, prepare=use_case.examples.prepare
        )
    names = list(features.names)
    is_other = pd.DataFrame({name: _is_other(computed[name], chosen[name]) for name in names})
    n_different = int(is_other.any(axis=1).sum())
    finding = f"{len(chosen)} rows have the features that serving would have computed"
    if n_different:
        worst = is_other.sum().idxmax()
        finding = (
            f"{n_different} of {len(chosen)} rows have other features than serving would have"
            f" computed, most of all {worst}"
        )
    return Recomputed(n_rows=len(chosen), n_different=n_different, finding=finding)


def _is_other(computed: pd.Series[Any], written: pd.Series[Any]) -> npt.NDArray[np.bool_]:
    """Tell in which rows a feature has another value; missing is one value."""
    if tensors.is_tensor(written.dtype):
        own, others = tensors.to_numpy(computed), tensors.to_numpy(written)
        differs: npt.NDArray[np.bool_] = (own != others).reshape(len(own), -1).any(axis=1)
        return differs
    same = (computed.astype(written.dtype) == written) | (computed.isna() & written.isna())
    return ~same.to_numpy(bool)
