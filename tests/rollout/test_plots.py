"""Pictures of a release show what was meant, what was seen, and the alarm's line."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

from mlops_mini.rollout import plots
from mlops_mini.rollout.guardrails import ERRORS, Counts, Look, label_looks

LOOKS = [
    Look(seconds=1, weight_pct=10, counts={"error": Counts(n_canary=20, n_stable=80, bad_canary=k)})
    for k in (2, 8, 8)
]


@pytest.fixture
def ax():
    mpl.use("agg")
    yield plt.subplots()[1]
    plt.close("all")


def test_weights_show_what_was_meant_and_what_came(ax):
    promoted = Look(seconds=1, weight_pct=100)  # nobody is compared any more

    plots.weights(ax, [*LOOKS, promoted])

    meant, got = ax.lines
    assert meant.get_ydata().tolist() == [10, 10, 10, 100]
    assert np.array_equal(got.get_ydata(), [20, 20, 20, np.nan], equal_nan=True)


def test_evidence_crosses_the_alarm(ax):
    plots.evidence(ax, LOOKS, [ERRORS])

    errors, alarm = ax.lines
    assert errors.get_label() == "errors"
    assert alarm.get_ydata()[0] == pytest.approx(np.log10(20))
    assert errors.get_ydata()[-1] > alarm.get_ydata()[0]
    assert ax.get_ylim()[0] > -4


def test_error_rates_are_shares_of_each_side(ax):
    plots.error_rates(ax, LOOKS, limit_pct=10)

    canary, stable, limit = ax.lines
    assert canary.get_ydata().tolist() == [10, 40, 40]
    assert list(stable.get_ydata()) == [0, 0, 0]
    assert limit.get_ydata()[0] == 10


def test_labels_are_counted_by_side_and_class_and_a_rest_is_dropped():
    is_canary = [True, False, True, False, True]
    looks = label_looks(is_canary, [True] * 5, ["bag", "bag", "boot", "boot", "bag"], n_per_look=2)

    assert len(looks) == 2
    assert looks[0].counts["wrong"] == Counts(n_canary=1, n_stable=1, bad_canary=1, bad_stable=1)
    assert looks[0].counts["wrong: boot"] == Counts()
    assert looks[1].counts["wrong: boot"].n_canary == 1
