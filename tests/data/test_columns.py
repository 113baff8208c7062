import datetime as dt
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlops_mini.data import columns
from mlops_mini.errors import InvalidArgumentError

NEW_YORK = "America/New_York"
INSTANTS = pd.Series(pd.to_datetime(["2013-01-01 05:00", None], utc=True))


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, None], dtype="Int64"),
        pd.Series([1, None], dtype="Float64"),
        pd.Series([1, None], dtype="int8[pyarrow]"),
        pd.Series([1, None], dtype=pd.ArrowDtype(pa.decimal128(5, 2))),
        pd.Series([1, None], dtype="category"),
        pd.Series([1, None], dtype="Int64").astype("category"),
        pd.Series([1, None], dtype="Sparse[float]"),
        pd.Series([1, pd.NA], dtype=object),
        pd.Series([Decimal(1), Decimal("NaN")], dtype=object),
        pd.Series([np.int8(1), None], dtype=object),
        pd.Series([Fraction(1), np.nan], dtype=object),
        pd.Series([np.float32(1), pd.NaT], dtype=object),
    ],
)
def test_numbers_are_plain_whatever_their_dtype(column):
    plain = columns.plain(column.rename("a").set_axis([7, 7]))

    pd.testing.assert_series_equal(plain, pd.Series([1.0, np.nan], index=[7, 7], name="a"))


def test_an_arrow_nan_is_missing():
    column = pd.Series(pd.array(pa.array([1.0, float("nan"), None]), pd.ArrowDtype(pa.float64())))
    assert column.isna().tolist() == [False, False, True]

    assert columns.plain(column).isna().tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", ["Int64", "int64[pyarrow]", object])
def test_whole_numbers_without_gaps_stay_exact(dtype):
    large = [2**53, 2**53 + 1, -(2**63)]

    plain = columns.plain(pd.Series(large, dtype=dtype))

    assert (plain.dtype, plain.tolist()) == (np.int64, large)


def test_numbers_beyond_64_bits_are_as_float64_has_them():
    column = pd.Series([2**64, 10**400, -(10**400)], dtype=object)

    assert columns.plain(column).tolist() == [2.0**64, np.inf, -np.inf]


@pytest.mark.parametrize(
    "dtype", ["string", "string[pyarrow]", pd.ArrowDtype(pa.large_string()), "category", object]
)
def test_texts_are_plain_whatever_their_dtype(dtype):
    plain = columns.plain(pd.Series(["UA", None], dtype=dtype))

    assert (plain.dtype, plain.tolist(), columns.kind(plain)) == (object, ["UA", None], "text")


@pytest.mark.parametrize("dtype", ["boolean", "bool[pyarrow]", "category", object])
def test_truth_values_are_plain_whatever_their_dtype(dtype):
    whole = columns.plain(pd.Series([True, False], dtype=dtype))
    gappy = columns.plain(pd.Series([True, None], dtype=dtype))

    assert (whole.dtype, whole.tolist()) == (bool, [True, False])
    assert (gappy.tolist(), columns.kind(gappy)) == ([True, None], "boolean")


@pytest.mark.parametrize(
    "column",
    [
        INSTANTS,
        INSTANTS.astype(pd.ArrowDtype(pa.timestamp("us", tz="UTC"))),
        INSTANTS.dt.tz_convert(NEW_YORK).astype(object),
        INSTANTS.astype("category"),
        pd.Series([dt.datetime(2013, 1, 1, 5, tzinfo=dt.UTC), pd.NA], dtype=object),
    ],
)
def test_instants_are_plain_whatever_their_dtype(column):
    plain = columns.plain(column)

    assert columns.kind(plain) == "instant"
    assert plain.dt.tz_convert("UTC").tolist() == INSTANTS.tolist()


def test_instants_of_several_zones_become_utc():
    mixed = pd.Series([INSTANTS[0], INSTANTS[0].tz_convert(NEW_YORK)], dtype=object)

    assert str(columns.plain(mixed).dtype) == "datetime64[ns, UTC]"


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pd.Series(["2013"], dtype="timestamp[ns][pyarrow]"), "local time"),
        (pd.Series([np.datetime64("2013-01-01")], dtype=object), "local time"),
        (pd.Series([dt.datetime(9999, 1, 1, tzinfo=dt.UTC)], dtype=object), "instant"),
        (pd.Series([pd.Timestamp("2013"), INSTANTS[0]], dtype=object), "other"),
        (pd.Series([pd.Timedelta(1)], dtype=object), "duration"),
        (pd.Series([None, pd.NA], dtype=object), "empty"),
        (pd.Series([None], dtype=pd.ArrowDtype(pa.null())), "empty"),
        (pd.Series([True, 2], dtype=object), "other"),
        (pd.Series([[1], [2]]), "other"),
        (pd.Series([1j]), "other"),
        (pd.Series([b"UA"]), "other"),
        (pd.Series(pd.period_range("2013", periods=2)), "other"),
    ],
)
def test_every_column_has_a_kind(column, kind):
    assert columns.kind(columns.plain(column)) == kind


def test_a_frame_keeps_its_index_and_two_columns_of_one_name():
    index = pd.Index([1, pd.NA, 1], dtype="Int64")
    frame = pd.DataFrame([[1, "x"]] * 3, columns=["a", "a"], index=index).convert_dtypes()

    plain = columns.plain_frame(frame)

    assert plain.index is not None
    assert plain.index.equals(index)
    assert [str(dtype) for dtype in plain.dtypes] == ["int64", "object"]
    assert list(plain.columns) == ["a", "a"]


def test_a_value_that_is_no_number_is_named_with_its_row():
    column = pd.Series([50, True, "far", None], index=[7, 8, 9, 10], name="distance")

    numbers, is_other = columns.as_numbers(column)

    np.testing.assert_equal(numbers, [50, 1, np.nan, np.nan])
    assert is_other.tolist() == [False, False, True, False]
    with pytest.raises(InvalidArgumentError, match="'distance' holds 'far' in row 9, and 1 of 4"):
        columns.numbers(column)


def test_what_was_given_stays_as_it_is():
    column = pd.Series([1, pd.NA], dtype=object)

    columns.plain(column)

    assert column[1] is pd.NA


def test_columns_that_are_missing_or_there_twice_are_named():
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])

    with pytest.raises(InvalidArgumentError, match=r"keys need the columns \['b'\] too; there are"):
        columns.require(frame, ["b"], "keys")
    with pytest.raises(InvalidArgumentError, match=r"\['a'\] are there more than once"):
        columns.require(frame, ["a"], "keys")
