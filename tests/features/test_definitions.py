from mlops_mini.features.definitions import FEATURES, FLIGHT_COLUMNS, SCHEDULE


def test_the_order_is_the_reference_models():
    names = [feature.name for feature in SCHEDULE]

    assert names == ["carrier", "origin", "dest", "mins", "dow", "distance", "block"]
    assert FEATURES[: len(SCHEDULE)] == SCHEDULE


def test_each_name_is_defined_once_and_numbers_have_units():
    assert len({feature.name for feature in FEATURES}) == len(FEATURES)
    assert all(bool(feature.unit) == (feature.dtype == "float32") for feature in FEATURES)
    assert all(feature.description for feature in FEATURES)


def test_no_formula_reads_an_outcome():
    known = dict.fromkeys((*FLIGHT_COLUMNS, "epoch_day", "shift_min"), 1.0)

    assert not {"dep_delay", "arr_delay", "air_time", "tailnum"} & set(known)
    assert all(feature.formula(known) is not None for feature in SCHEDULE)
