import pandas as pd

from mlops_mini.flights import times
from mlops_mini.flights.features import (
    FEATURES,
    RECENT,
    SCHEDULE,
    WEATHER,
    is_late,
)


def test_the_order_is_the_reference_models():
    assert list(FEATURES.names) == [
        "carrier", "origin", "dest", "mins", "dow", "distance", "block",
        "temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib",
        "org_dep_n_1h", "org_dep_mean_1h", "org_dep_n_3h", "org_dep_mean_3h", "car_dep_mean_3h",
        "car_dep_mean_24h", "car_late_n_6h", "car_late_mean_6h", "dst_arr_mean_24h", "org_overdue",
    ]  # fmt: skip


def test_each_name_is_defined_once_and_numbers_have_units():
    assert len(set(FEATURES.names)) == len(FEATURES.features)
    assert all(bool(feature.unit) == (feature.dtype == "float32") for feature in FEATURES.features)
    assert all(feature.description for feature in FEATURES.features)


def test_each_feature_is_in_the_group_of_its_source():
    groups = {"schedule": SCHEDULE, "weather": WEATHER, "recent": RECENT}

    assert sum(map(len, groups.values())) == len(FEATURES.features) == 25
    assert all(feature.group == name for name, group in groups.items() for feature in group)


def test_no_input_is_an_outcome():
    assert not {"dep_delay", "arr_delay", "air_time", "tailnum"} & set(FEATURES.inputs)


def test_predictions_are_due_an_hour_before_departure():
    assert pd.Timedelta(FEATURES.due) == -times.HORIZON
    assert FEATURES.reach_s == 24 * 3600


def test_windows_are_as_long_as_their_names_say():
    hours = {feature.name: feature.source.window_s // 3600 for feature in RECENT}

    assert hours.pop("org_overdue") == 3
    assert all(name.endswith(f"_{n}h") for name, n in hours.items())


def test_late_is_more_than_15_minutes():
    assert [bool(is_late(delay)) for delay in (15, 16, -86, float("nan"))] == [0, 1, 0, 0]
