"""Pictures of a server depend on what happened, not on how long it took."""

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt

from mlops_mini.serving import plots


@pytest.fixture(autouse=True)
def agg():
    mpl.use("agg")
    yield
    plt.close("all")


def drawn(answered_by: list[int]) -> tuple[list[str], tuple[float, ...]]:
    _, ax = plt.subplots()
    plots.answers_by_version(ax, answered_by, n_around=10)
    return [text.get_text() for text in ax.texts], ax.dataLim.bounds


def test_a_swap_looks_the_same_however_many_requests_came_far_from_it():
    few, many = ([1] * n + [2] * 2 * n + [4] * n for n in (10, 1234))

    assert drawn(few) == drawn(many)
    assert drawn(few)[0] == ["version 1", "version 2", "version 4"]
    assert drawn(few)[1] == (0, 1, 40, 3)


def test_versions_that_alternate_are_all_drawn():
    assert drawn([1, 2, 1])[0] == ["version 1", "version 2", "version 1"]


def test_no_request_starts_before_it_arrives_nor_waits_while_the_worker_is_free():
    arrivals_ms = [0, 1, 1, 2, 30, 31]

    for most in (1, 2, 8):
        served = plots.queued(arrivals_ms, run_ms=4, row_ms=0.5, max_rows=most)
        runs = served.groupby("start_ms")

        assert served["arrival_ms"].tolist() == arrivals_ms
        assert (served["start_ms"] >= served["arrival_ms"]).all()
        assert (runs.size() <= most).all()
        assert served.loc[4, "start_ms"] == 30


def test_a_queue_has_a_line_per_request():
    _, ax = plt.subplots()

    plots.queue(ax, plots.queued([0, 1, 2], run_ms=4, row_ms=1, max_rows=8))

    assert len(ax.patches) == 6
