"""Features of many examples at once, for training and evaluation."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd

from mlops_mini.data import columns, tensors
from mlops_mini.data.table import Prepare
from mlops_mini.features import events, formulas, key_columns, prefix_sums
from mlops_mini.features.feature_set import FeatureSet
from mlops_mini.features.prefix_sums import Queries


def compute(
    rows: pd.DataFrame,
    feature_set: FeatureSet,
    *,
    prepare: Prepare | None = None,
    history: pd.DataFrame | None = None,
    observed: Mapping[str, pd.DataFrame] = MappingProxyType({}),
    counts_own: bool = False,
    due: str | pd.Timedelta | None = None,
) -> pd.DataFrame:
    """Compute the features of examples, each as of the instant of its prediction.

    Features come with their source: without a table of observations there are none of its last
    values, and without `history` no windows. Both may reach beyond the examples: what was not yet
    known when a prediction was due isn't used.

    Args:
        rows: Rows of the set's table, prepared or not, in any order; only its key and its inputs
            are read, so that no outcome can leak in.
        feature_set: Which features.
        prepare: The table's own: derives from the inputs what formulas read.
        history: Events as `events.from_tables` gives them. Windows reach back, so give also what
            came before the first of the examples: `FeatureSet.reach_s` tells how far.
        observed: Rows by table of observations.
        counts_own: Whether an example's own events count among the recent ones. That is a leak: a
            machine that has stopped early has stopped by the minute for which it's predicted. To
            demonstrate it only.
        due: When predictions are due, in place of `FeatureSet.due`.

    Returns:
        One row per example in the given order, the index is its key, columns in the set's order:
        float32 with NaN for missing, strings with the empty string, tensor columns.

    Raises:
        InvalidArgumentError: A column is not there, instants have no time zone, a value of an event
            is no whole number, or a column holds texts for numbers or the other way round; the
            message names it and the row.

    >>> from mlops_mini.features.sources import Feature, Formula
    >>> hot = Formula(compute=lambda machine: machine["temp_c"] > 80)
    >>> machines = FeatureSet(
    ...     of="machines",
    ...     key="machine_id",
    ...     time="seen",
    ...     inputs=["temp_c"],
    ...     features=[Feature(name="hot", group="state", unit="", description="", source=hot)],
    ... )
    >>> compute(pd.DataFrame({"machine_id": ["a", "b"], "temp_c": [70, 90]}), machines)
                hot
    machine_id
    a           0.0
    b           1.0
    """
    columns.require(rows, [feature_set.key], "features")
    own_keys = key_columns.read_complete(rows[feature_set.key])
    examples = formulas.compute(rows, feature_set, prepare)
    features = dict(examples.features)
    present = [each for each in feature_set.observations if each.table in observed]
    if present or (history is not None and feature_set.windows):
        queries = Queries(
            entities=formulas.entities(examples, feature_set),
            at_s=formulas.due_s(examples, feature_set, feature_set.due if due is None else due),
            table=feature_set.of,
            without=None if counts_own else own_keys,
        )
        for observation in present:
            known = events.checked_observations(
                feature_set, observation, observed[observation.table]
            )
            row = prefix_sums.latest_rows(observation, known, queries)
            for latest in feature_set.latest:
                if latest.source.observation == observation:
                    # Row -1, for none, is the NaN at the end.
                    numbers = known[latest.source.value].to_numpy(np.float32)
                    features[latest.name] = np.append(numbers, np.float32(np.nan))[row]
        if history is not None:
            windows = prefix_sums.Windows(events.checked_history(feature_set, history), queries)
            for window in feature_set.windows:
                features[window.name] = windows.values(window.source).astype(np.float32)
    ordered = {
        name: tensors.column(features[name]).array if features[name].ndim > 1 else features[name]
        for name in feature_set.names
        if name in features
    }
    return pd.DataFrame(ordered, index=pd.Index(columns.plain(rows[feature_set.key])))
