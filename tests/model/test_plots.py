"""Bars of AUCs say what they show."""

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt

from mlops_mini.model import plots


def test_bars_begin_at_a_coin_and_say_their_auc_the_first_on_top():
    mpl.use("agg")
    _, ax = plt.subplots()

    plots.aucs(ax, pd.Series({"plain": 0.714, "better": 0.758}), colors=["#000000", "#0072B2"])

    assert [text.get_text() for text in ax.texts] == ["0.71", "0.76"]
    assert {patch.get_x() for patch in ax.patches} == {0.5}
    assert ax.yaxis_inverted()
    plt.close("all")
