"""The drawings show what they're given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from mlops_mini.automation import plots, reviewers
from mlops_mini.errors import InvalidArgumentError


@pytest.fixture
def ax():
    return Figure().subplots()


def test_the_promise_stands_where_it_is(ax) -> None:
    drawn = plots.broken_promises(ax, {"naive": [0.01, 0.03], "certified": [0.01]}, max_error=0.02)

    assert drawn.lines[0].get_xdata()[0] == pytest.approx(2)
    assert [text.get_text() for text in drawn.get_legend().texts] == ["naive", "certified"]


def test_the_worst_class_is_on_top(ax) -> None:
    drawn = plots.errors_by_class(ax, pd.Series({"shirt": 0.4, "bag": 0.01}), max_error=0.02)

    assert [text.get_text() for text in drawn.get_yticklabels()] == ["bag", "shirt"]


def test_evidence_is_drawn_in_powers_of_ten(ax) -> None:
    drawn = plots.evidence(ax, np.log([1, 10, 100]), limit=20)

    assert drawn.lines[0].get_ydata() == pytest.approx([0, 1, 2])
    assert drawn.lines[1].get_ydata()[0] == pytest.approx(np.log10(20))


def test_each_kind_of_people_has_a_curve_and_each_point_its_name(ax) -> None:
    curve = pd.DataFrame({"error_rate": [0.1, 0.2], "cost": [3.0, 4.0]})

    drawn = plots.costs(ax, {"experts": curve, "crowd": curve}, [("full", 0.13, 2.6)])

    assert len(drawn.lines) == 3
    assert [text.get_text() for text in drawn.texts] == ["full"]


def test_simulated_people_err_as_often_as_asked_and_where_it_is_hard() -> None:
    rng = np.random.default_rng(1)
    views = rng.dirichlet(np.full(10, 0.05), size=4000)
    truth = np.array([rng.choice(10, p=view) for view in views])

    decided = reviewers.decide(views, truth, accuracy=0.93, seed=0)

    assert (decided == truth).mean() == pytest.approx(0.93, abs=0.015)
    is_hard = views[np.arange(4000), truth] < np.median(views[np.arange(4000), truth])
    assert (decided != truth)[is_hard].mean() > 2 * (decided != truth)[~is_hard].mean()
    assert (decided == reviewers.decide(views, truth, accuracy=0.93, seed=0)).all()
    with pytest.raises(InvalidArgumentError, match=r"accuracy is 0\.1"):
        reviewers.decide(views, truth, accuracy=0.1, seed=0)


def test_only_confident_hints_are_followed() -> None:
    decided = np.zeros(1000, int)
    scores = np.where(np.arange(1000) % 2, 0.95, 0.6)

    followed = reviewers.follow_hints(decided, np.ones(1000, int), scores, trust=0.3, seed=0)

    assert followed[::2].sum() == 0
    assert followed[1::2].mean() == pytest.approx(0.3, abs=0.06)
