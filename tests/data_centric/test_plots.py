"""Pictures of data, by what is drawn where."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mlops_mini.data_centric import more_data, plots, priorities


def test_a_sheet_has_every_image_in_its_place() -> None:
    images = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1) * np.ones((1, 1, 4, 5), np.uint8)

    ax = plots.sheet(Figure().subplots(), images, rows=["a", "b"], columns=["x", "y", "z"])

    paper = np.asarray(ax.images[0].get_array())
    assert paper.shape == (2 * 6, 3 * 7)
    for place, (x, y) in zip(range(6), [(x, y) for y in (0, 1) for x in (0, 1, 2)], strict=True):
        assert (paper[6 * y + 1 : 6 * y + 5, 7 * x + 1 : 7 * x + 6] == place).all()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [round(at) for at in ax.get_xticks()] == [3, 10, 17]


def test_rooms_are_drawn_in_points_and_the_largest_at_the_top() -> None:
    counts = pd.DataFrame(
        {"n": [100, 100, 0], "n_right": [50, 90, 0], "share": [0.2, 0.7, 0.1]},
        index=["tilted", "studio", "nobody knows"],
    )

    ax = plots.rooms(Figure().subplots(), priorities.prioritize(counts))

    assert [label.get_text() for label in ax.get_yticklabels()] == ["studio", "tilted"]
    assert np.round(ax.lines[0].get_xdata(), 1).tolist() == [7.0, 10.0]
    assert len(ax.texts) == 2


def test_the_changes_of_pilots_are_written_in_points() -> None:
    changes = pd.DataFrame(
        {
            "pilot": ["dim", "dim", "dim"],
            "seed": 0,
            "slice": ["all", "dim", "studio"],
            "change": [0.01, 0.2, -0.03],
        }
    )

    ax = plots.pilot_changes(Figure().subplots(), changes)

    assert [label.get_text() for label in ax.get_xticklabels()] == ["dim", "studio", "all"]
    assert [text.get_text() for text in ax.texts] == ["+20", "-3", "+1"]


def test_the_map_separates_what_was_voted_for() -> None:
    table = pd.DataFrame(
        {"hard": [0.5, 0.9], "readable": [0.8, 0.1], "realistic": [0.9, 0.0], "votes": [0.2, 0.0]},
        index=["rotate", "invert"],
    )

    ax = plots.criteria_map(Figure().subplots(), table, named=["rotate"])

    gray, orange = ax.collections
    assert np.round(np.asarray(orange.get_offsets()), 1).tolist() == [[50.0, 80.0]]
    assert np.round(np.asarray(gray.get_offsets()), 1).tolist() == [[90.0, 10.0]]
    assert [text.get_text() for text in ax.texts] == ["rotate"]


def test_a_learning_curve_ends_in_its_forecast() -> None:
    curve = pd.DataFrame({"n": [0, 0, 100, 100], "accuracy": [0.5, 0.52, 0.6, 0.66]})
    expected = more_data.Forecast(n=200, accuracy=0.7, low=0.65, high=0.75, gain=0.07, is_sure=True)

    ax = plots.learning_curve(Figure().subplots(), curve, expected)

    mean, dots, dashed, square = ax.lines
    assert np.round(mean.get_ydata(), 1).tolist() == [51.0, 63.0]
    assert len(dots.get_xdata()) == 4
    assert np.round(dashed.get_ydata(), 1).tolist() == [63.0, 70.0]
    assert list(square.get_xdata()) == [200]
