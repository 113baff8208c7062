import math

import pandas as pd
import pytest
from matplotlib.figure import Figure

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.statistics import distances, drift
from mlops_mini.statistics.drift import ColumnDrift, DriftReport
from tests.statistics.test_mergeable import of


def moved(name, psi, threshold=math.nan):
    return ColumnDrift(
        column=name,
        psi=psi,
        jensen_shannon=0.0,
        l_infinity=math.nan,
        ks=0.0,
        importance=math.nan,
        threshold=threshold,
    )


REPORT = DriftReport(
    columns=(moved("temp", 8.2, 4.5), moved("pressure", 1.6, 3.1), moved("precip", 0.0, 0.1))
)


def artists(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def test_drift_draws_into_the_axes_it_is_given():
    ax = Figure().subplots()

    assert drift.plot(REPORT, ax) is ax

    assert [label.get_text() for label in ax.get_yticklabels()] == ["temp", "pressure", "precip"]
    assert ax.get_xlabel() == "population stability index (no unit, log scale)"
    assert ax.yaxis_inverted()
    assert ax.get_title() == ""


def test_what_has_moved_is_told_by_shape_not_by_color_alone():
    drawn = artists(drift.plot(REPORT, Figure().subplots()))

    filled, hollow = drawn["above its threshold"], drawn["not above"]
    assert (filled.get_xdata().tolist(), filled.get_ydata().tolist()) == ([8.2], [0])
    assert (hollow.get_xdata().tolist(), hollow.get_ydata().tolist()) == ([1.6, 1e-4], [1, 2])
    assert filled.get_markerfacecolor() != hollow.get_markerfacecolor()
    assert drawn["threshold"].get_xdata().tolist() == [4.5, 3.1, 0.1]


def test_without_thresholds_none_are_drawn():
    report = DriftReport(columns=(moved("temp", 8.2),))

    assert set(artists(drift.plot(report, Figure().subplots()))) == {
        "above its threshold",
        "not above",
    }


def test_only_the_first_columns_are_drawn():
    ax = drift.plot(REPORT, Figure().subplots(), n_columns=2)

    assert [label.get_text() for label in ax.get_yticklabels()] == ["temp", "pressure"]


def test_an_empty_report_cannot_be_drawn():
    with pytest.raises(InvalidArgumentError, match="no column to draw"):
        drift.plot(DriftReport(columns=()), Figure().subplots())


def test_the_bins_of_a_column_are_drawn_with_their_part_of_the_psi():
    ax = Figure().subplots()
    then = of(pd.DataFrame({"delay": range(100)})).columns["delay"]
    now = of(pd.DataFrame({"delay": [*range(50), *range(50)]})).columns["delay"]

    assert drift.plot_bins(then, now, ax) is ax

    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert (labels[0], labels[-1], len(ax.patches)) == ("lower", "missing", 22)
    terms = [float(text.get_text()) for text in ax.texts]
    assert sum(terms) == pytest.approx(distances.psi(then, now), abs=0.05)
