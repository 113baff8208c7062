"""Training-serving skew, row by row: features that were sent against those computed afterwards.

Two columns may have the same distribution and still differ in every row: because a feature store is
an hour late, say, or two columns have changed places. So each request of the log is compared with
the features that training would learn from for the same request, computed later from all records.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.monitoring import inputs
from mlops_mini.prediction_log import Record

_KEY = ["request_id", "row"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnSkew:
    """How often a feature had another value when it was sent.

    Attributes:
        column: Its name.
        share: Of the rows that were compared, 0 to 1.
        example: The first such row, in words; empty if there's none.
    """

    column: str
    share: float
    example: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSkew:
    """What was sent against what was computed afterwards.

    Attributes:
        columns: All that were computed, those that differ most often first.
        n_rows: Rows that were compared.
        n_different: Those of them in which any feature differs.
        n_unknown: Rows of the log for which nothing was computed.
    """

    columns: tuple[ColumnSkew, ...]
    n_rows: int
    n_different: int
    n_unknown: int


def compare(
    records: Iterable[Record],
    computed: pd.DataFrame,
    *,
    model: str,
    rtol: float = 0.0,
    n_batch: int = 5_000,
) -> RowSkew:
    """Compare what a model was sent with the same features computed afterwards.

    Args:
        records: Such as a `prediction_log.Reader`. Records of other models don't count, and a
            request that comes again doesn't either.
        computed: Column `request_id`, the features, and `row` of the request, 0 if left out. An
            image is compared by the columns that `inputs.table` has for it.
        model: Whose records.
        rtol: Relative difference of two numbers that still counts as none; by default they must be
            the same, as sent or rounded to float32.
        n_batch: Records in memory.

    Returns:
        The shares. A missing number equals a missing one, and a missing text an empty one.

    Raises:
        InvalidArgumentError: There's no request id, or a row was computed twice.

    >>> def asked(request_id: str, watts: float) -> Record:
    ...     return Record(
    ...         method="predict", request_id=request_id, time_s=0, model="m", version=1,
    ...         signature_name="", sampling_rate=1, inputs={"watts": np.float32([watts])},
    ...         outputs={"probability": np.float32([0.5])},
    ...     )
    >>> computed = pd.DataFrame({"request_id": ["a", "b"], "watts": [0.1, 2.0]})
    >>> (watts,) = compare([asked("a", 0.1), asked("b", 1)], computed, model="m").columns
    >>> watts.share, watts.example
    (0.5, 'request b: 1.0 was sent, 2.0 computed')
    """
    if "request_id" not in computed:
        raise InvalidArgumentError(f"no request_id among {list(computed)}: add that column")
    table = computed if "row" in computed else computed.assign(row=0)
    keys = pd.MultiIndex.from_frame(table[_KEY].astype({"request_id": str, "row": int}))
    if not keys.is_unique:
        twice = keys[keys.duplicated()][0]
        raise InvalidArgumentError(f"request {twice[0]}, row {twice[1]}, was computed twice")
    names = [str(name) for name in table if name not in _KEY]
    is_other = {name: np.zeros(len(table), bool) for name in names}
    examples: dict[str, str] = {}
    is_compared, n_unknown = np.zeros(len(table), bool), 0
    ours = (record for record in records if record.model == model)
    while batch := list(islice(ours, n_batch)):
        asked = [(each.request_id, row) for each in batch for row in range(inputs.count_rows(each))]
        places = keys.get_indexer(
            pd.MultiIndex.from_arrays([*zip(*asked, strict=True)] or [[], []])
        )
        n_unknown += int((places < 0).sum())
        places, first = np.unique(places, return_index=True)
        places, first = places[places >= 0], first[places >= 0]
        is_new = ~is_compared[places]
        places, first = places[is_new], first[is_new]
        is_compared[places] = True
        sent = inputs.table(batch).reindex(columns=names).iloc[first]
        for name in names:
            wanted = table[name].iloc[places]
            differs = _differs(sent[name], wanted, rtol)
            is_other[name][places] = differs
            if differs.any() and name not in examples:
                i = int(differs.argmax())
                examples[name] = (
                    f"request {asked[first[i]][0]}: {sent[name].iloc[i]!s} was sent,"
                    f" {wanted.iloc[i]!s} computed"
                )
    n_rows = int(is_compared.sum())
    columns = [
        ColumnSkew(
            column=name,
            share=float(is_other[name].sum() / max(n_rows, 1)),
            example=examples.get(name, ""),
        )
        for name in names
    ]
    return RowSkew(
        columns=tuple(sorted(columns, key=lambda column: -column.share)),
        n_rows=n_rows,
        n_different=int(np.any([*is_other.values()], axis=0).sum()),
        n_unknown=n_unknown,
    )


def _differs(sent: pd.Series[Any], computed: pd.Series[Any], rtol: float) -> npt.NDArray[np.bool_]:
    """Tell in which rows two columns differ; missing is one value."""
    if not all(pd.api.types.is_numeric_dtype(each) for each in (sent, computed)):
        texts = [np.where(each.isna(), "", each.astype(str)) for each in (sent, computed)]
        return np.asarray(texts[0] != texts[1])
    numbers, wanted = (each.to_numpy(np.float64, na_value=np.nan) for each in (sent, computed))
    with np.errstate(over="ignore"):
        rounded = wanted.astype(np.float32).astype(np.float64)
    is_near = np.isclose(numbers, rounded, rtol=rtol, atol=0, equal_nan=True)
    return np.asarray(~(is_near | (numbers == wanted)))
