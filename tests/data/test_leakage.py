import numpy as np
import pandas as pd
import pytest

from mlops_mini.data import checks, leakage
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.flights import airports, datasets, times

SEASONS = {"winter": ("2013-01", "2013-02", "2013-03"), "summer": ("2013-06", "2013-07", "2013-08")}


def window_mean(flights, entity, event_utc, value, hours):
    """Mean of values of an entity's events in the hours up to each prediction, the slow way."""
    means = pd.Series(np.nan, index=flights.index)
    for rows in flights.groupby(entity).groups.values():
        events = pd.DataFrame({"at": flights.loc[rows, event_utc], "value": value.loc[rows]})
        events = events.dropna().sort_values("at")
        total = np.concatenate([[0.0], events["value"].cumsum()])
        due = flights.loc[rows, "pred_utc"]
        high = events["at"].searchsorted(due, "right")
        low = events["at"].searchsorted(due - pd.Timedelta(hours=hours), "right")
        with np.errstate(invalid="ignore"):
            means.loc[rows] = (total[high] - total[low]) / (high - low)
    return means


@pytest.fixture(scope="module", params=SEASONS)
def season(request):
    flights = pd.concat([datasets.flights(month) for month in SEASONS[request.param]])
    flights = flights.set_index("flight_id")
    return flights.join(times.derive_utc(flights, airports.zones()))


@pytest.fixture(scope="module")
def late(season):
    return (season["arr_delay"] > 15).astype(float).where(season["arr_delay"].notna())


@pytest.fixture(scope="module")
def honest(season, late):
    schedule = season[["carrier", "origin", "dest", "sched_dep_time", "distance", "block_min"]]
    departed, arrived = season["dep_delay"], season["arr_delay"]
    return schedule.assign(
        org_dep_mean_1h=window_mean(season, "origin", "dep_utc", departed, 1),
        org_dep_mean_3h=window_mean(season, "origin", "dep_utc", departed, 3),
        car_dep_mean_3h=window_mean(season, "carrier", "dep_utc", departed, 3),
        car_dep_mean_24h=window_mean(season, "carrier", "dep_utc", departed, 24),
        car_late_mean_6h=window_mean(season, "carrier", "arr_utc", late, 6),
        dst_arr_mean_24h=window_mean(season, "dest", "arr_utc", arrived, 24),
    )


@pytest.fixture(scope="module")
def naive(season):
    """Means over the whole local date of a flight, later flights and its own outcome included."""
    date = ["year", "month", "day"]
    return pd.DataFrame(
        {
            "origin": season.groupby([*date, "origin"])["dep_delay"].transform("mean"),
            "carrier": season.groupby([*date, "carrier"])["dep_delay"].transform("mean"),
            "dest": season.groupby([*date, "dest"])["arr_delay"].transform("mean"),
        }
    )


@pytest.fixture(scope="module")
def local_time(season):
    return season["pred_utc"].dt.tz_convert(airports.NEW_YORK)


def test_honest_features_do_not_leak(honest, late, local_time):
    assert checks.no_leakage_column(honest, late, predicted_at=local_time)


def test_each_naive_daily_mean_leaks(naive, late, local_time):
    found = checks.no_leakage_column(naive, late, predicted_at=local_time)

    assert not found
    assert found.columns == ("origin", "carrier", "dest")
    assert found.reason.startswith("origin: at dawn it knows the day's labels")


def test_auc_alone_cannot_tell_a_naive_mean_from_an_honest_one(naive, honest, late):
    naive_auc = leakage.auc_alone(naive["origin"], late)
    honest_auc = leakage.auc_alone(honest["org_dep_mean_3h"], late)

    assert abs(naive_auc - honest_auc) < 0.05


def test_dawn_tells_them_far_apart(naive, honest, late, local_time):
    leaky = [leakage.foresight(naive[name], late, local_time) for name in naive]
    fair = [leakage.foresight(honest[name], late, local_time) for name in honest.columns[3:]]

    assert min(leaky) > 0.8
    assert max(fair) < 0.6


def test_a_tail_number_leaks_cancellation(season, honest, local_time):
    is_canceled = season["dep_delay"].isna().astype(float)

    found = checks.no_leakage_column(honest.join(season["tailnum"]), is_canceled)

    assert found.columns == ("tailnum",)
    assert found.reason == ("tailnum: that it is missing tells the label, gain 1.00, at most 0.95")


@pytest.mark.parametrize("outcome", ["dep_delay", "arr_delay"])
def test_an_outcome_leaks(season, late, outcome):
    found = checks.no_leakage_column(season[["distance", outcome]], late)

    assert found.columns == (outcome,)
    assert "its values tell the label, AUC" in found.reason


def test_labels_made_of_missing_delays_are_found_by_what_is_missing(season, late):
    wrong = (season["arr_delay"] > 15).astype(float)  # NaN > 15 is False
    inputs = season[["distance", "air_time"]]

    found = checks.no_leakage_column(inputs, wrong)

    assert wrong.mean() < late.mean()
    assert found.columns == ("air_time",)
    assert "that it is missing tells the label" in found.reason
    assert checks.no_leakage_column(inputs, late)


def test_a_text_that_tells_the_label_leaks():
    label = pd.Series(np.arange(400) % 3 == 0).astype(float)
    status = label.map({1.0: "canceled", 0.0: "landed"})

    assert leakage.auc_alone(status, label) == 1.0


def test_a_text_of_one_row_each_tells_nothing():
    label = pd.Series(np.arange(400) % 3 == 0).astype(float)
    name = pd.Series([f"flight {row}" for row in range(400)])

    assert leakage.auc_alone(name, label) == 0.5


def test_a_few_rows_without_value_prove_nothing():
    label = pd.Series([1.0] * 50 + [0.0] * 50)
    column = pd.Series([np.nan] * 20 + [1.0] * 80)

    assert leakage.presence_gain(column, label) == (0.25, "there")


def test_only_one_label_tells_nothing():
    column, label = pd.Series([1.0, 2.0, 3.0]), pd.Series([0.0, 0.0, np.nan])

    assert leakage.auc_alone(column, label) == 0.5
    assert leakage.presence_gain(column, label)[0] == 0


def test_foresight_needs_three_weeks():
    at = pd.Series(pd.date_range("2013-01-01", periods=20 * 24, freq="h", tz=airports.NEW_YORK))
    day = at.dt.dayofyear.astype(float)
    label = (day > 10).astype(float)

    assert leakage.foresight(day, label, at) == 0
    again = at + pd.Timedelta(days=20)
    longer = pd.concat([at, again], ignore_index=True)
    doubled = longer.dt.dayofyear.astype(float)
    assert leakage.foresight(doubled, (doubled > 10).astype(float), longer) > 0.7


def test_rows_of_another_order_are_refused(season, late):
    with pytest.raises(InvalidArgumentError, match="same rows in the same order"):
        checks.no_leakage_column(season[["distance"]], late.iloc[::-1])


ROWS = np.arange(40)
IS_LATE = pd.Series(ROWS % 2 == 0)
LABELS = {
    "truth values": IS_LATE,
    "texts": IS_LATE.map({True: "yes", False: "no"}),
    "other numbers": IS_LATE.map({True: 2, False: 1}),
    "nullable": IS_LATE.astype("boolean").mask(ROWS > 37),
    "arrow": IS_LATE.astype("int64[pyarrow]").mask(ROWS > 37),
    "categories": IS_LATE.map({True: "late", False: "in time"}).astype("category"),
    "objects": IS_LATE.astype(object).mask(ROWS > 37, other=None),
}


@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
def test_a_column_that_is_the_label_leaks_whatever_its_classes(label):
    column = pd.DataFrame({"copy": label, "honest": ROWS // 2 % 5})

    found = checks.no_leakage_column(column, label)

    assert (found.passed, found.columns) == (False, ("copy",))
    assert "its values tell the label, AUC 1.000" in found.reason


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (pd.Series(ROWS / 7), r"'late' has 40 different values \(0.0, 0.14"),
        (pd.Series(list("abca") * 10), r"'late' has 3 different values \('a', 'b', 'c', ...\)"),
        (pd.Series(["a", 1] * 20), "'late' holds values that are no two classes, such as"),
        (pd.Series([1.0] * 40), "40 rows of one class and 0 of the other"),
        (pd.Series([1.0] + [0.0] * 39), "1 rows of one class and 39 of the other"),
        (pd.Series([np.nan] * 40), "0 rows of one class and 0 of the other"),
        (pd.Series([None] * 40, dtype="Int64"), "0 rows of one class and 0 of the other"),
    ],
)
def test_a_label_that_is_no_two_classes_is_refused(label, message):
    with pytest.raises(InvalidArgumentError, match=message):
        checks.no_leakage_column(label.to_frame("copy"), label.rename("late"))


def test_one_row_cannot_tell_and_no_row_or_column_fails():
    one = pd.DataFrame({"a": [1.0]})
    with pytest.raises(InvalidArgumentError, match="at least 2 of each"):
        checks.no_leakage_column(one, pd.Series([1]))

    assert not checks.no_leakage_column(one.iloc[:0], pd.Series([1]).iloc[:0])
    assert not checks.no_leakage_column(pd.DataFrame(index=IS_LATE.index), IS_LATE)


def test_codes_that_tell_the_label_leak_without_an_order():
    code = pd.Series(np.random.default_rng(0).integers(0, 10, 5_000))
    label = code.isin([1, 4, 7])
    assert leakage.auc_alone(code, label) < 0.6

    for column in (code, code.astype("category"), code.astype(str)):
        assert not checks.no_leakage_column(column.to_frame("code"), label)
    band = pd.Series(np.random.default_rng(0).normal(size=5_000))
    assert not checks.no_leakage_column(band.to_frame("band"), band.abs() < 0.5)


def test_texts_leak_in_rows_that_alternate():
    status = IS_LATE.map({True: "canceled", False: "landed"})

    assert leakage.auc_alone(status, IS_LATE) == 1.0


def test_a_small_table_leaks_by_what_is_missing():
    column = pd.DataFrame({"tailnum": [None, None, "N1", "N2", "N3"]})

    found = checks.no_leakage_column(column, pd.Series([1, 1, 0, 0, 0]))

    assert found.reason.startswith("tailnum: that it is missing tells the label, gain 1.00")


def test_a_column_without_values_is_no_innocent_one():
    column = pd.DataFrame({"gone": np.full(40, np.nan), "constant": 1.0})

    found = checks.no_leakage_column(column, IS_LATE)

    assert found.columns == ("gone",)
    assert found.reason.startswith("gone: it has no value where the label is known")


def test_rows_may_share_labels_and_lack_them():
    index = pd.Index([7, pd.NA] * 20, dtype="Int64")
    column = pd.DataFrame({"copy": IS_LATE.to_numpy(float)}, index=index)

    assert not checks.no_leakage_column(column, IS_LATE.set_axis(index))


def test_infinite_values_are_ranked():
    column = pd.Series(np.where(IS_LATE, np.inf, -np.inf)).to_frame("a")

    assert not checks.no_leakage_column(column, IS_LATE)


def test_too_few_days_for_foresight_are_refused(season, late, local_time):
    is_early = season["day"] < 4
    rows = season.loc[is_early, ["distance"]]

    with pytest.raises(InvalidArgumentError, match="spans 9 days with labels, expected at least"):
        checks.no_leakage_column(rows, late[is_early], predicted_at=local_time[is_early])
    with pytest.raises(InvalidArgumentError, match="expected the instants of the predictions"):
        checks.no_leakage_column(rows, late[is_early], predicted_at=rows["distance"])


@pytest.mark.parametrize(
    "limit", [{"max_auc": np.nan}, {"max_auc": 1.1}, {"max_foresight": np.nan}]
)
def test_a_limit_that_nothing_can_break_is_refused(limit):
    with pytest.raises(InvalidArgumentError, match=r"expected .5 to 1, and 0 to 1"):
        checks.no_leakage_column(IS_LATE.to_frame("a"), IS_LATE, **limit)


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow"])
def test_a_season_leaks_alike_whatever_its_dtypes(season, late, local_time, backend):
    columns = season[["distance", "carrier", "arr_delay", "air_time"]]
    plain = checks.no_leakage_column(columns, late, predicted_at=local_time)

    converted = checks.no_leakage_column(
        columns.convert_dtypes(dtype_backend=backend),
        late.convert_dtypes(dtype_backend=backend),
        predicted_at=local_time.convert_dtypes(dtype_backend=backend),
    )

    assert (converted, plain.columns) == (plain, ("arr_delay",))


@pytest.mark.parametrize("dtype", ["datetime64[ns]", "timedelta64[ns]", "category", "Int64"])
def test_a_label_that_nobody_knows_is_refused_whatever_its_dtype(dtype):
    label = pd.Series([None] * 4, dtype=dtype, name="late")

    assert leakage.two_classes(label).isna().all()
    with pytest.raises(InvalidArgumentError, match="label 'late' has 0 rows of one class and 0"):
        checks.no_leakage_column(pd.DataFrame({"a": range(4)}), label)


def test_of_no_rows_nothing_is_gained():
    nothing = pd.Series([], dtype=float)

    assert leakage.presence_gain(nothing, nothing) == (0.0, "missing")
