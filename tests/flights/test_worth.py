"""What the features are worth to the reference model: orders and margins, not third decimals."""

from benchmarks import reference_model
from benchmarks.features import leak_table, skew_table
from benchmarks.reference_model import ALL, NO_RECENT, NO_WEATHER, SCHEDULE, rows


def test_recent_delays_carry_the_model_and_weather_alone_may_hurt():
    schedule, no_recent, no_weather, everything = (
        reference_model.by_month(reference_model.train(rows(), [1], columns), rows(), columns)
        for columns in (SCHEDULE, NO_RECENT, NO_WEATHER, ALL)
    )
    auc, loss = 0, 1

    assert (no_weather[:, auc] - schedule[:, auc] > 0.05).all()
    assert (everything[:, auc] - no_recent[:, auc] > 0.03).all()
    assert (everything[:, loss] < schedule[:, loss]).all()
    april = reference_model.SPRING.index(4)
    assert no_recent[april, auc] < schedule[april, auc]


def test_a_leak_looks_better_offline_and_is_worse_than_no_delays_when_served():
    table = leak_table()
    honest, _ = table["honest, all features"]
    without, _ = table["schedule + weather, no delays"]

    for name in ("schedule + weather + naive means", "all honest features + naive means"):
        offline, served = table[name]
        assert offline[0] > honest[0] + 0.05
        assert honest[0] > without[0] + 0.03 > served[0] + 0.06
        assert offline[1] < honest[1] < without[1] < served[1]


def test_when_the_store_is_down_a_fallback_model_beats_missing_values():
    auc = {name: scores[0] for name, scores in skew_table().items()}

    missing = auc["feature store down, recent features missing"]
    assert auc["as trained"] > auc["fallback model, no recent features"] + 0.02
    assert auc["fallback model, no recent features"] > missing + 0.1
    assert auc["fallback model, schedule only"] > missing + 0.04
    wrong_units = ("weather in metric units", "mean delays in seconds")
    assert all(auc[name] < auc["as trained"] - 0.01 for name in wrong_units)
