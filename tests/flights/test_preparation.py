import numpy as np
import pandas as pd

from mlops_mini.flights.features import FEATURES
from mlops_mini.flights.preparation import prepare


def test_flights_that_never_arrived_have_no_label(january):
    late = prepare(january)["late"]

    assert late.isna().sum() == january["arr_delay"].isna().sum() == 606
    assert round(late.mean(), 3) == 0.227
    assert round((january["arr_delay"] > 15).mean(), 3) == 0.222  # the trap
    assert late.index.equals(january.index)


def test_late_is_more_than_15_minutes(january):
    flights = january.head(4).assign(arr_delay=[15.0, 16.0, -86.0, np.nan])

    assert prepare(flights)["late"].fillna(-1).tolist() == [0, 1, 0, -1]


def test_what_is_known_before_departure_gives_no_outcome(january):
    known = january[list(FEATURES.inputs)]

    added = set(prepare(known)) - set(known)

    assert added == {"sched_dep_utc", "epoch_day", "shift_min", "hours"}
    pd.testing.assert_frame_equal(
        prepare(known)[sorted(added)], prepare(january)[sorted(added)], check_like=True
    )
