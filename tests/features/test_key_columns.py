import numpy as np
import pandas as pd
import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import key_columns


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["A", None, "B"], ["A", None, "B"]),
        (pd.Series(["A", pd.NA], dtype="string"), ["A", None]),
        (pd.Series(["A", None], dtype="category"), ["A", None]),
        ([7, 8], [7, 8]),
        ([7.0, np.nan], [7, None]),
        (pd.Series([7, None], dtype="Int64"), [7, None]),
        ([None, np.nan], [None, None]),
        (pd.Series([np.nan]), [None]),
        ([], []),
    ],
)
def test_keys_are_texts_or_whole_numbers_and_none_for_missing(values, expected):
    found = key_columns.read(pd.Series(values)).tolist()

    assert found == expected
    assert all(value is None or type(value) in (str, int) for value in found)


@pytest.mark.parametrize("odd", [1.5, np.inf, "A"])
def test_anything_else_is_named_with_its_row(odd):
    column = pd.Series([7, odd], index=["x", "y"], name="customer")

    with pytest.raises(InvalidArgumentError, match=f"of customer are no.*{odd}'? in row y: number"):
        key_columns.read(column)


def test_keys_of_rows_are_never_missing():
    with pytest.raises(InvalidArgumentError, match="1 of 2 values of customer are missing"):
        key_columns.read_complete(pd.Series(["A", None], name="customer"))
