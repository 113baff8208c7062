from dataclasses import replace

import pytest

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features.sources import Window
from tests.features.toys import JOBS, PLANNED, STARTED, is_long


@pytest.mark.parametrize(
    "change",
    [
        {"value": is_long},  # a count has no value
        {"aggregate": "mean", "value": is_long, "less": PLANNED},
        {"aggregate": "mean", "value": is_long, "event": PLANNED},  # it has no value
        {"aggregate": "mean", "event": PLANNED},
        {"window_s": 0},
    ],
)
def test_a_window_that_makes_no_sense_is_refused(change):
    fields = {"entity": "line", "event": STARTED, "window_s": 60, "aggregate": "count"}
    Window(**fields, empty=0.0)

    with pytest.raises(InvalidArgumentError, match="there can't be a window with the"):
        Window(**(fields | {"empty": 0.0} | change))


def test_only_a_formula_gives_strings():
    with pytest.raises(InvalidArgumentError, match="'line_n_1h' is a string, and its source is a"):
        replace(JOBS.windows[0], dtype="string")
