import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_mini.errors import DataIntegrityError, InvalidArgumentError
from mlops_mini.flights import datasets
from mlops_mini.statistics import mergeable

EXACT = ("kind", "n_missing", "n_present", "level", "n_fractional", "n_characters")
ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-3, 3).map(float)),
        st.one_of(st.none(), st.sampled_from(["UA", "B6", "", "ä"]), st.text(max_size=3)),
    ),
    max_size=40,
)


def of(frame):
    return mergeable.add(mergeable.create(), frame)


def table(rows):
    numbers, texts = zip(*rows, strict=True) if rows else ((), ())
    return pd.DataFrame(
        {"number": pd.Series(numbers, dtype=float), "text": pd.Series(texts, dtype=object)}
    )


def assert_same(a, b, *, rel=1e-9):
    assert a.n_rows == b.n_rows
    assert set(a.columns) == set(b.columns)
    for name, column in a.columns.items():
        other = b.columns[name]
        assert [getattr(column, field) for field in EXACT] == [
            getattr(other, field) for field in EXACT
        ]
        assert (column.minimum, column.maximum) == (other.minimum, other.maximum)
        pd.testing.assert_series_equal(column.counts, other.counts)
        scale = max(abs(column.minimum), abs(column.maximum)) if column.n_finite else 0.0
        assert column.mean == pytest.approx(other.mean, rel=rel, abs=rel * scale)
        assert column.squares == pytest.approx(
            other.squares, rel=rel, abs=rel * max(column.n_finite, 1) * scale**2
        )


@given(a=ROWS, b=ROWS)
def test_merging_is_commutative(a, b):
    a, b = of(table(a)), of(table(b))

    assert_same(mergeable.merge(a, b), mergeable.merge(b, a))


@given(a=ROWS, b=ROWS, c=ROWS)
def test_merging_is_associative(a, b, c):
    a, b, c = of(table(a)), of(table(b)), of(table(c))

    assert_same(
        mergeable.merge(mergeable.merge(a, b), c), mergeable.merge(a, mergeable.merge(b, c))
    )


@given(rows=ROWS)
def test_an_empty_batch_changes_nothing(rows):
    counted = of(table(rows))

    assert_same(mergeable.add(counted, table([])), counted, rel=0)
    assert_same(mergeable.merge(mergeable.create(), counted), counted, rel=0)


@given(rows=ROWS, cuts=st.lists(st.integers(0, 40), max_size=5))
def test_any_partition_counts_as_the_whole(rows, cuts):
    whole = table(rows)
    in_parts = mergeable.create()
    for low, high in zip([0, *sorted(cuts)], [*sorted(cuts), 40], strict=True):
        in_parts = mergeable.add(in_parts, whole.iloc[low:high])

    assert_same(in_parts, of(whole))


@settings(max_examples=8)
@given(n_parts=st.integers(1, 9), seed=st.integers(0, 999))
def test_any_partition_counts_as_the_whole_beyond_the_limit_of_memory(n_parts, seed):
    rng = np.random.default_rng(seed)
    whole = pd.DataFrame(
        {
            "number": rng.normal(size=40_000) * 10.0 ** rng.integers(-3, 6, size=40_000),
            "text": rng.integers(0, 60_000, size=40_000).astype(str),
        }
    )
    in_parts = mergeable.create()
    for part in np.array_split(rng.permutation(40_000), n_parts):
        in_parts = mergeable.add(in_parts, whole.iloc[part])

    assert_same(in_parts, of(whole))
    for column in in_parts.columns.values():
        assert column.level > 0
        assert 1_000 < len(column.counts) <= mergeable.MAX_DISTINCT


def test_months_merge_into_the_year(year):
    in_months = mergeable.create()
    for _, month in year.groupby("month"):
        in_months = mergeable.add(in_months, month)

    assert_same(in_months, of(year))
    assert in_months.columns["arr_delay"].n_missing == 9_430
    assert in_months.columns["tailnum"].n_missing == 2_512
    assert in_months.columns["distance"].counts[17] == 1


def test_numbers_agree_with_pandas():
    weather = datasets.weather()
    counted = of(weather)

    assert counted.n_rows == 26_115
    for name in ("temp", "wind_speed", "wind_gust", "precip", "pressure"):
        column, values = counted.columns[name], weather[name].dropna()
        assert (column.n_present, column.n_missing) == (len(values), weather[name].isna().sum())
        assert (column.minimum, column.maximum) == (values.min(), values.max())
        assert column.mean == pytest.approx(values.mean(), rel=1e-12)
        assert column.std == pytest.approx(values.std(ddof=0), rel=1e-12)
        assert column.n_distinct == values.nunique()
        shares = np.linspace(0, 1, 41)
        np.testing.assert_allclose(column.quantiles(shares), values.quantile(shares), rtol=1e-14)


def test_rounded_numbers_stay_within_the_stated_error():
    values = pd.Series(np.random.default_rng(0).lognormal(sigma=3, size=200_000))
    column = of(values.to_frame("value")).columns["value"]

    shares = np.linspace(0.001, 0.999, 500)
    exact = values.quantile(shares).to_numpy()
    assert 0 < column.relative_error < 0.01
    short_by = 1 - column.quantiles(shares) / exact
    assert short_by.min() >= -1e-12
    assert short_by.max() <= column.relative_error
    assert column.counts.sum() == 200_000
    assert column.mean == pytest.approx(values.mean(), rel=1e-12)


def test_small_whole_numbers_stay_exact_beyond_the_limit_of_memory():
    delays = np.repeat(np.arange(-60, 600), 5)
    column = of(pd.DataFrame({"value": np.concatenate([delays, np.linspace(0, 1, 99_999)])}))

    counts = column.columns["value"].counts
    assert column.columns["value"].level > 0
    assert (counts.reindex(np.arange(2, 600)) == 5).all()
    assert (counts.reindex(np.arange(-60, -1)) == 5).all()


def test_of_too_many_texts_a_sample_stays_with_all_its_rows():
    texts = pd.Series(np.arange(100_000).astype(str))
    column = of(pd.concat([texts, texts, texts]).to_frame("id")).columns["id"]

    assert column.level == 3
    assert (column.counts == 3).all()
    assert column.n_distinct == pytest.approx(100_000, rel=0.03)
    assert (column.n_present, column.n_characters) == (300_000, 3 * texts.str.len().sum())


def test_whole_numbers_are_whole_whatever_their_dtype():
    frame = pd.DataFrame(
        {
            "int": pd.Series([1, 2, 3], dtype="int16"),
            "with_null": [1.0, None, 3.0],
            "nullable": pd.Series([1, None, 3], dtype="Int64"),
            "bool": [True, False, True],
            "fraction": [1.0, 2.5, 3.0],
            "infinite": [1.0, math.inf, -math.inf],
        }
    )

    found = of(frame).columns

    assert {name: column.n_fractional for name, column in found.items()} == {
        "int": 0, "with_null": 0, "nullable": 0, "bool": 0, "fraction": 1, "infinite": 2,
    }  # fmt: skip
    assert found["nullable"].n_missing == 1
    assert (found["infinite"].mean, found["infinite"].n_finite) == (1.0, 1)
    assert found["bool"].counts.to_dict() == {0.0: 1, 1.0: 2}


def test_texts_are_counted_whatever_their_dtype():
    texts = pd.Series(["a", None, "b", "a"])
    frame = pd.DataFrame({"o": texts, "s": texts.astype("string"), "c": texts.astype("category")})

    for column in of(frame).columns.values():
        assert (column.kind, column.n_missing) == ("text", 1)
        assert column.counts.to_dict() == {"a": 2, "b": 1}


def test_instants_are_counted_as_seconds():
    instants = pd.Series(pd.to_datetime(["2013-01-01T00:00Z", None, "2013-01-01T01:00Z"]))

    column = of(instants.to_frame("time_hour")).columns["time_hour"]

    assert column.counts.index.tolist() == [1_356_998_400, 1_357_002_000]
    assert (column.n_missing, column.n_fractional) == (1, 0)


def test_a_column_that_a_batch_lacks_is_missing_in_its_rows():
    counted = mergeable.add(of(pd.DataFrame({"a": [1, 2]})), pd.DataFrame({"b": ["x"]}))

    assert {name: (c.n_present, c.n_missing) for name, c in counted.columns.items()} == {
        "a": (2, 1),
        "b": (1, 2),
    }


def test_an_empty_column_takes_either_kind():
    empty = pd.DataFrame({"a": [None, None], "b": [math.nan, math.nan]})
    full = pd.DataFrame({"a": [1.5], "b": ["x"]})

    for counted in (mergeable.add(of(empty), full), mergeable.add(of(full), empty)):
        assert [column.kind for column in counted.columns.values()] == ["number", "text"]
        assert [column.n_missing for column in counted.columns.values()] == [2, 2]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.Series([[1], [2]]), r"'a' is object, with \[1\] in row 0"),
        (pd.Series(["x", 1]), "'a' is object, with 1 in row 1"),
        (pd.to_datetime(pd.Series(["2013-01-01"])), "'a' is datetime64.* with a time zone"),
        (pd.Series([1j]), "'a' is complex128"),
    ],
)
def test_other_columns_are_refused(column, message):
    with pytest.raises(InvalidArgumentError, match=message):
        of(column.to_frame("a"))


def test_columns_of_one_name_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"\['a'\] are there more than once"):
        of(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_text_and_numbers_do_not_merge():
    with pytest.raises(DataIntegrityError, match=r"'a' holds number in one part \(2 rows\)"):
        mergeable.add(of(pd.DataFrame({"a": [1, 2]})), pd.DataFrame({"a": ["x"]}))


def test_a_batch_and_what_was_counted_stay_as_they_are():
    batch = pd.DataFrame({"a": [3.0, -0.0, 1.0]})
    counted = of(batch)
    before = counted.columns["a"].counts.copy()

    mergeable.add(counted, batch)

    assert batch["a"].tolist() == [3.0, 0.0, 1.0]
    pd.testing.assert_series_equal(counted.columns["a"].counts, before)
