"""Pictures of windows show the counts and means that they are drawn for."""

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from mlops_mini.features import plots

AT = pd.Timestamp("2013-03-08 12:00", tz="America/New_York")


@pytest.fixture(autouse=True)
def agg():
    mpl.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def day() -> pd.DataFrame:
    hours = [7, 9, 10, 12, 15]  # 9:00 is just outside of three hours before noon, noon inside
    return pd.DataFrame(
        {
            "kind": "departure",
            "id": range(5),
            "event_utc": [AT.normalize() + pd.Timedelta(hours=hour) for hour in hours],
            "value": [1.0, 2.0, 10.0, 30.0, 500.0],
        }
    )


def texts(*axes) -> list[str]:
    return [text.get_text() for ax in axes for text in ax.texts]


def test_the_averages_say_what_is_known_when_a_prediction_is_due(day):
    _, axes = plt.subplots(2, sharex=True)

    assert plots.known_when(axes, day, at=AT, window_s=3 * 3600, marked={4: "our flight"}) is axes

    assert texts(axes[1]) == [
        "5 departures, mean 109 min",
        "4 departures, mean 11 min",
        "2 departures, mean 20 min",
    ]
    known, unknown = (line.get_ydata().tolist() for line in axes[0].lines[:2])
    assert (known, unknown) == ([1, 2, 10, 30], [500])
    assert "our flight" in texts(axes[0])


def test_a_window_is_the_difference_of_two_running_sums(day):
    _, ax = plt.subplots()

    plots.prefix_sums(ax, day.iloc[::-1], at=AT, window_s=3 * 3600)

    assert "43 - 3 = 40 min\nin 2 departures" in texts(ax)
