"""Bars of AUCs say what they show, and dots which rules are broken."""

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt

from mlops_mini.model import plots
from mlops_mini.model.gate import Verdict
from mlops_mini.model.gate_rules import RuleResult


def test_bars_begin_at_a_coin_and_say_their_auc_the_first_on_top():
    mpl.use("agg")
    _, ax = plt.subplots()

    plots.aucs(ax, pd.Series({"plain": 0.714, "better": 0.758}), colors=["#000000", "#0072B2"])

    assert [text.get_text() for text in ax.texts] == ["0.71", "0.76"]
    assert {patch.get_x() for patch in ax.patches} == {0.5}
    assert ax.yaxis_inverted()
    plt.close("all")


def test_each_broken_rule_is_a_dot_and_a_large_one_if_no_other_is_broken():
    mpl.use("agg")
    _, ax = plt.subplots()

    def refused(*rules: str) -> Verdict:
        results = [RuleResult(rule=rule, verdict="fail") for rule in (*rules, *rules)]
        results.append(RuleResult(rule="AUC", verdict="pass"))
        return Verdict(decision="refused", is_blessed=False, reason="", rules=tuple(results))

    plots.failed_rules(ax, {"noise": refused("log loss", "slice"), "leak": refused("coverage")})

    assert [text.get_text() for text in ax.get_xticklabels()] == ["log loss", "slice", "coverage"]
    assert [list(line.get_xdata()) for line in ax.lines] == [[0, 1], [2]]
    sizes = [line.get_markersize() for line in ax.lines]
    assert sizes[1] > sizes[0]
    plt.close("all")
