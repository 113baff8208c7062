import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features.sources import Window
from mlops_mini.flights.definitions import DEPARTURE, SCHEDULED, is_late


@pytest.mark.parametrize(
    "change",
    [
        {"aggregate": "mean"},  # of what?
        {"value": is_late},  # a count has no value
        {"aggregate": "mean", "value": is_late, "less": SCHEDULED},
        {"aggregate": "mean", "value": is_late, "event": SCHEDULED},  # it has no delay
        {"window_s": 0},
    ],
)
def test_a_window_that_makes_no_sense_is_refused(change):
    fields = {"entity": "origin", "event": DEPARTURE, "window_s": 60, "aggregate": "count"}
    Window(**fields, empty=0.0)

    with pytest.raises(InvalidArgumentError, match="no such window"):
        Window(**(fields | {"empty": 0.0} | change))
