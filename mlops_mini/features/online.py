"""Features of one example, for a request to the model while it serves."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data import tensors
from mlops_mini.data.table import Prepare, duration
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import events, formulas, key_columns
from mlops_mini.features.events import StreamEvent
from mlops_mini.features.feature_set import FeatureSet
from mlops_mini.features.store import Store

Value: TypeAlias = float | str | npt.NDArray[Any]


def compute(
    row: Mapping[Any, Any],
    feature_set: FeatureSet,
    *,
    prepare: Prepare | None = None,
    store: Store | None = None,
    at: datetime | None = None,
) -> dict[str, Value]:
    """Compute the features of one example when its prediction is due.

    The values are those that `offline.compute` gives for the same row, bit for bit, once the store
    knows all that had happened by then. Whoever asks a model server calls this to make the request;
    `Store.as_of` tells how far the store is.

    Args:
        row: The set's inputs, as the table has them. Values may be missing (None, NaN or pd.NA);
            what else it holds is not read, but for its key: with it the example's own events do not
            count.
        feature_set: Which features.
        prepare: The table's own: derives from the inputs what formulas read.
        store: Where last observations and windows come from; without it there are none of these.
        at: As of when, usually now; without it when the set says that a prediction is due.

    Returns:
        Value by feature, in the set's order: numbers that float32 can hold, NaN for missing,
        strings, empty for missing, and arrays.

    Raises:
        InvalidArgumentError: An input or the example's instant is not there, a formula can't be
            computed, or `at` has no time zone.
        FailedPreconditionError: The store has forgotten what was before `at`.
        UnavailableError: The store does not answer. What to do is the caller's decision: ask a
            fallback model that needs no recent features, rather than send missing ones.

    >>> from mlops_mini.features.sources import Feature, Formula
    >>> load = Formula(compute=lambda machine: machine["watts"] / 1000)
    >>> machines = FeatureSet(
    ...     of="machines",
    ...     key="machine_id",
    ...     time="seen",
    ...     inputs=["watts"],
    ...     features=[Feature(name="load", group="", unit="kW", description="", source=load)],
    ... )
    >>> compute({"machine_id": "a", "watts": 2500}, machines)
    {'load': 2.5}
    """
    missing_inputs = [name for name in feature_set.inputs if name not in row]
    if missing_inputs:
        raise InvalidArgumentError(f"features need {missing_inputs} too; there is {sorted(row)}")
    names = [name for name in (feature_set.key, *feature_set.inputs) if name in row]
    one_row = pd.DataFrame({name: [row[name]] for name in names})
    return next(requests(one_row, feature_set, prepare=prepare, store=store, at=at))


def requests(
    rows: pd.DataFrame,
    feature_set: FeatureSet,
    *,
    prepare: Prepare | None = None,
    store: Store | None = None,
    at: datetime | None = None,
) -> Iterator[dict[str, Value]]:
    """Compute the features of one example after the other, and prepare all of them at once.

    Args:
        rows: As `offline.compute` takes them; the key may be missing.
        feature_set: As in `compute`, like the others.
        prepare: The table's own.
        store: Read when an example's turn comes, so that a replay may apply events in between.
        at: One instant for all.

    Yields:
        What `compute` returns, row by row.

    Raises:
        InvalidArgumentError: As in `compute`, like the others.
        FailedPreconditionError: The store has forgotten.
        UnavailableError: The store does not answer.
    """
    examples = formulas.compute(rows, feature_set, prepare)
    values = _records(examples.features, len(rows))
    if store is None:
        yield from values
        return
    entities = formulas.entities(examples, feature_set)
    whose = _records({str(name): entities[name] for name in entities}, len(rows))
    own_keys = [None] * len(rows)
    if feature_set.key in rows:
        own_keys = key_columns.read(rows[feature_set.key]).tolist()
    if at is None:
        due_s = formulas.due_s(examples, feature_set, feature_set.due).tolist()
        instants = [datetime.fromtimestamp(instant_s, UTC) for instant_s in due_s]
    else:
        instants = [at] * len(rows)
    for row, own_key in enumerate(own_keys):
        reading = store.read(whose[row], at=instants[row], without=own_key)
        recent = {name: float(np.float32(value)) for name, value in reading.features.items()}
        known = values[row] | recent
        yield {name: known[name] for name in feature_set.names}


def replay(
    rows: pd.DataFrame,
    feature_set: FeatureSet,
    stream: Sequence[StreamEvent],
    *,
    store: Store,
    prepare: Prepare | None = None,
    told_every: str = "1s",
) -> pd.DataFrame:
    """Live through a while again: examples ask when they're due, a store is told what happens.

    Args:
        rows: As `offline.compute` takes them.
        feature_set: Which features.
        stream: As `events.stream` gives it, from as far back as the features look.
        store: Is told, and read.
        prepare: The table's own.
        told_every: How often the store is told, such as `1h`: at 12:59 it then knows what was known
            at 12:00.

    Returns:
        What `offline.compute` returns: the same values, if the store is told often enough.

    Raises:
        InvalidArgumentError: As in `compute`, like the others; or `told_every` is no duration.
        FailedPreconditionError: The store has forgotten.
        UnavailableError: The store does not answer.
    """
    step_s = int(duration(told_every, "told_every").total_seconds())
    examples = formulas.compute(rows, feature_set, prepare)
    due_s = formulas.due_s(examples, feature_set, feature_set.due)
    order = np.argsort(due_s, kind="stable")
    answers = requests(rows.iloc[order], feature_set, prepare=prepare, store=store)
    served = []
    for instant_s in due_s[order].tolist():
        told = datetime.fromtimestamp(instant_s - instant_s % step_s, UTC)
        if told != store.as_of:
            store.apply(events.between(stream, store.as_of, told), up_to=told)
        served.append(next(answers))
    dtypes = {f.name: np.float32 for f in feature_set.features if f.dtype == "float32"}
    answered = pd.DataFrame(served, columns=list(feature_set.names), index=order).astype(dtypes)
    for feature in feature_set.features:
        if feature.dtype == "tensor" and served:
            stacked = np.stack(answered[feature.name].to_list())
            answered[feature.name] = tensors.column(stacked).array
    return answered.sort_index().set_index(pd.Index(rows[feature_set.key]))


def _records(columns_by_name: Mapping[str, Any], n_rows: int) -> list[dict[str, Any]]:
    """Turn columns into one dict per row, of plain Python values and arrays."""
    lists = [
        list(values) if values.ndim > 1 else values.tolist() for values in columns_by_name.values()
    ]
    if not lists:
        return [{} for _ in range(n_rows)]
    return [dict(zip(columns_by_name, row, strict=True)) for row in zip(*lists, strict=True)]
