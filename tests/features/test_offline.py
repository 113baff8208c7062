import numpy as np
import pandas as pd
import pytest

from mlops_mini.data import datasets
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import offline
from mlops_mini.features.definitions import FEATURES


@pytest.fixture(scope="module")
def january():
    return datasets.flights("2013-01")


def test_columns_index_and_types_are_those_of_the_definitions(january):
    features = offline.compute(january)

    assert features.columns.tolist() == [feature.name for feature in FEATURES]
    assert features.index.tolist() == january["flight_id"].tolist()
    assert [features[feature.name].dtype for feature in FEATURES] == [
        np.dtype("float32" if feature.dtype == "float32" else object) for feature in FEATURES
    ]


def test_a_flight_known_by_heart():
    flights = datasets.flights("2013-03").set_index("flight_id", drop=False)

    features = offline.compute(flights).loc[142789]

    assert features.to_dict() == {
        "carrier": "F9",
        "origin": "LGA",
        "dest": "DEN",
        "mins": 17 * 60 + 30,
        "dow": 4,  # 8 March 2013 was a Friday
        "distance": 1620,
        "block": 120 + 147,  # 17:30 to 19:57, two hours west
    }


def test_outcomes_change_nothing(january):
    outcomes = dict.fromkeys(("dep_delay", "arr_delay", "air_time", "tailnum"), np.nan)

    features = offline.compute(january.assign(**outcomes))

    pd.testing.assert_frame_equal(features, offline.compute(january))
    pd.testing.assert_frame_equal(features, offline.compute(january.drop(columns=list(outcomes))))


def test_missing_is_nan_or_empty(january):
    flights = january.head(3).assign(carrier=["UA", None, "AA"], distance=[np.nan, 5.0, 6.0])
    flights["dest"] = ["XXX", "IAH", None]

    features = offline.compute(flights)

    assert features["carrier"].tolist() == ["UA", "", "AA"]
    assert features["dest"].tolist() == ["XXX", "IAH", ""]
    assert features["distance"].isna().tolist() == [True, False, False]
    assert features["block"].isna().tolist() == [True, False, True]


def test_order_of_rows_changes_no_value(january):
    shuffled = january.sample(frac=1.0, random_state=0)

    pd.testing.assert_frame_equal(offline.compute(shuffled).sort_index(), offline.compute(january))


def test_a_missing_column_is_named(january):
    with pytest.raises(InvalidArgumentError, match=r"need the columns \['dest'\] too"):
        offline.compute(january.drop(columns="dest"))
    with pytest.raises(InvalidArgumentError, match=r"labels need the columns \['arr_delay'\] too"):
        offline.labels(january.drop(columns="arr_delay"))


def test_flights_that_never_arrived_have_no_label(january):
    late = offline.labels(january)

    assert late.isna().sum() == january["arr_delay"].isna().sum() == 606
    assert round(late.mean(), 3) == 0.227
    assert round((january["arr_delay"] > 15).mean(), 3) == 0.222  # the trap
    assert late.index.tolist() == january["flight_id"].tolist()


def test_late_is_more_than_15_minutes():
    flights = pd.DataFrame({"flight_id": [1, 2, 3, 4], "arr_delay": [15.0, 16.0, -86.0, np.nan]})

    assert offline.labels(flights).fillna(-1).tolist() == [0, 1, 0, -1]
