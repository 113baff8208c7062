"""Paths of evidence say which experiments were stopped."""

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from mlops_mini.evidence import plots


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
