"""Evidence, drawn: which experiments were stopped, and which intervals don't reach zero."""

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from mlops_mini.evidence import intervals, plots


def test_a_path_ends_where_it_first_crosses_and_others_go_on():
    mpl.use("agg")
    _, ax = plt.subplots()
    values = np.array([[0.0, 2.0, 0.0], [0.0, 0.5, 0.9]])

    plots.paths(ax, values, limit=1)

    ends = [line.get_xdata()[-1] for line in ax.lines if len(line.get_xdata()) > 1]
    dots = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
    assert ends[:2] == [2, 3]
    assert dots == [2]
    plt.close("all")


def test_an_interval_that_does_not_reach_zero_stands_out():
    mpl.use("agg")
    _, ax = plt.subplots()
    values, days = np.array([-1.0, -1.1, -0.2, -0.1] * 10), [1, 1, 2, 2] * 10

    drawn = {"by row": intervals.of_mean(values), "by day": intervals.of_mean(values, days)}
    plots.intervals(ax, drawn)

    colors = [line.get_color() for line in ax.lines if len(line.get_xdata()) > 1]
    assert colors[0] != colors[1]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["by row", "by day"]
    assert ax.yaxis_inverted()
    plt.close("all")
