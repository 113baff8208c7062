"""What follows from an example's own columns: offline and online compute it here, with one code."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data import columns, table, tensors
from mlops_mini.data.table import Prepare
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import key_columns
from mlops_mini.features.feature_set import FeatureSet, offset
from mlops_mini.features.instants import Seconds, seconds
from mlops_mini.features.sources import Feature, Formula


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """What is known of some examples when their predictions are due.

    Attributes:
        columns: The inputs of their feature set, and what was derived from these; rows numbered
            from 0.
        features: Values of each formula, in order, shape [n]: float32 with NaN for missing, or
            texts, empty for missing; of a tensor shape [n, ...].
    """

    columns: pd.DataFrame
    features: dict[str, npt.NDArray[Any]]


def compute(rows: pd.DataFrame, feature_set: FeatureSet, prepare: Prepare | None) -> Examples:
    """Compute the features that are formulas.

    Args:
        rows: Any rows of the table, prepared or not: only the set's inputs are read.
        feature_set: Which features.
        prepare: The table's own: derives further columns from these inputs.

    Raises:
        InvalidArgumentError: A column is not there, an example has no instant, `prepare` changes
            the rows, or a formula can't be computed; the message names the column or the feature.
    """
    columns.require(rows, feature_set.inputs, "features")
    known = columns.plain_frame(rows[list(feature_set.inputs)].reset_index(drop=True))
    for name in feature_set.inputs:
        # A single row is to give what it gives among others, whatever stands for missing in it.
        dtype = known[name].dtype
        keeps = isinstance(dtype, pd.DatetimeTZDtype) or tensors.is_tensor(dtype)
        if known[name].isna().all() and not keeps:
            known[name] = np.nan
    if prepare is not None:
        known = table.prepared(prepare, known, feature_set.of)
    _require_instants(known, feature_set)
    return Examples(
        columns=known,
        features={f.name: _values(f, known) for f in feature_set.formulas},
    )


def due_s(examples: Examples, feature_set: FeatureSet, due: str | pd.Timedelta) -> Seconds:
    """Tell when predictions are due, seconds since 1970-01-01 UTC, shape [n]."""
    columns.require(examples.columns, [feature_set.time], "instants of predictions")
    return seconds(examples.columns[feature_set.time] + offset(due))


def entities(examples: Examples, feature_set: FeatureSet) -> pd.DataFrame:
    """Read by which keys events and observations of examples are looked up, one column each."""
    columns.require(examples.columns, feature_set.entities, "recent features")
    found = examples.columns
    return pd.DataFrame({name: key_columns.read(found[name]) for name in feature_set.entities})


def _require_instants(known: pd.DataFrame, feature_set: FeatureSet) -> None:
    if feature_set.time not in known:
        return
    is_missing = known[feature_set.time].isna()
    if is_missing.any():
        row = int(np.argmax(is_missing))
        inputs = {name: known[name].iloc[row] for name in feature_set.inputs}
        raise InvalidArgumentError(
            f"{int(is_missing.sum())} of {len(known)} rows have no {feature_set.time}, such as row"
            f" {row} with {inputs}: correct such rows, or leave them out"
        )


def _values(feature: Feature[Formula], known: pd.DataFrame) -> npt.NDArray[Any]:
    try:
        result = feature.source.compute({str(name): known[name] for name in known})
    except KeyError as exc:
        raise InvalidArgumentError(
            f"feature {feature.name!r} reads the column {exc}, which is neither an input nor"
            f" derived from the inputs; there are {list(known)}"
        ) from exc
    except (AttributeError, TypeError, ValueError) as exc:
        raise InvalidArgumentError(
            f"feature {feature.name!r} can't be computed ({exc}): check the columns that it reads"
        ) from exc
    values = pd.Series(result, index=known.index, name=feature.name)
    if feature.dtype == "tensor":
        if not tensors.is_tensor(values.dtype):
            raise InvalidArgumentError(
                f"feature {feature.name!r} is a tensor, and its column is {values.dtype}: make one"
                " with tensors.column"
            )
        return tensors.to_numpy(values)
    if feature.dtype == "string":
        return columns.texts(values).fillna("").to_numpy(object)
    return columns.numbers(values).astype(np.float32)
