from matplotlib.figure import Figure

from mlops_mini.loop import plots


def test_a_timeline_shows_the_score_its_limit_and_each_retraining() -> None:
    ax = Figure().subplots()

    assert plots.timeline(ax, {5: 0.1, 6: 0.4}, limit=0.3, retrained=[6], name="PSI") is ax

    line, limit, marks = ax.lines
    assert list(line.get_ydata()) == [0.1, 0.4]
    assert set(limit.get_ydata()) == {0.3}
    assert list(marks.get_xdata()) == [6]
    assert ax.get_ylabel() == "PSI"


def test_prices_are_one_dot_with_a_name_per_policy() -> None:
    ax = Figure().subplots()

    assert plots.prices(ax, {"never": 0, "weekly": 46}, {"never": 0.0, "weekly": 1.0}) is ax

    assert [text.get_text() for text in ax.texts] == ["never", "weekly"]
    assert [list(line.get_xdata()) for line in ax.lines[:2]] == [[0], [46]]
