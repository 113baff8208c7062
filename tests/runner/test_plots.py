"""A compiled pipeline, drawn: what waits for what, what is conditional, what became of it."""

import matplotlib.pyplot as plt
import pytest

from mlops_mini.pipeline import definition
from mlops_mini.runner import plots, spec


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return spec.load(definition.write_package(tmp_path_factory.mktemp("package") / "p.yaml"))


def test_tasks_wait_for_those_that_no_other_task_already_waits_for(package):
    waits = plots.dependencies(package)

    assert len(waits) == 15
    assert waits["ingest"] == set()
    assert waits["train"] == {"features"}
    assert waits["refit"] == {"gate"}
    assert waits["publish"] == {"serving-check-2"}


def test_what_stands_behind_a_condition_is_known(package):
    blessed = {"refit", "serving-check-2", "publish"}

    assert plots.conditional(package) == {*blessed, "challenger", "score"}


def test_every_task_is_a_box_with_its_state(package):
    _, ax = plt.subplots()

    assert plots.draw_graph(package, ax, states={"train": "CACHED"}) is ax

    labels = {text.get_text() for text in ax.texts if text.get_text()}
    assert {"ingest", "train\ncached", "write-\nverdict"} <= labels
    assert len(labels) == 15
    plt.close(ax.figure)
