"""Notebooks under other arithmetic: which of them run so, and what a pass would notice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_notebook

from tests.notebooks import example
from tools.notebooks import document, passes

ROOT = Path(__file__).resolve().parents[2]
TRAIN = """
import os

os.environ["OMP_NUM_THREADS"] = "1"
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier

x, y = make_classification(500, flip_y=0.3, random_state=0)
model = HistGradientBoostingClassifier(learning_rate=0.1, max_iter=20, random_state=0).fit(x, y)
total = model.predict_proba(x)[:, 1].sum()
"""


def test_the_notebooks_that_train_are_found_by_what_they_do() -> None:
    lessons = sorted((ROOT / "notebooks").glob("*.ipynb"))

    found = {path.name[:2] for path in lessons if passes.trains(document.read(path))}

    assert found >= {"03", "04", "08"}
    assert not found & {"00", "02"}


@pytest.mark.parametrize(
    ("source", "does"),
    [
        ("model.fit(x, y)", True),
        ("from mlops_mini import errors, loop", True),
        ("import mlops_mini.model.training", True),
        ("from mlops_mini.pipeline import definition", True),
        ("from mlops_mini.statistics import drift\nprofit = fits(1)", False),
        ("await model.predict(x)", False),
        ("total +", False),
    ],
)
def test_a_notebook_trains_if_it_fits_or_imports_what_does(source, does) -> None:
    assert passes.trains(new_notebook(cells=[example.code(source)])) is does


def test_no_other_room_of_the_package_trains() -> None:
    rooms = tuple(room.replace(".", "/") for room in passes.TRAINING_ROOMS)

    training = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "mlops_mini").rglob("*.py")
        if ".fit(" in path.read_text() or "xgboost.train(" in path.read_text()
    ]

    assert training
    assert all(path.startswith(rooms) for path in training)


def test_all_passes_run_every_notebook_and_the_tests_repeat_those_that_train(
    tmp_path, capsys
) -> None:
    path = tmp_path / "05_add_it.ipynb"
    document.write(new_notebook(cells=[example.code("total = 1 + 2")]), path)

    assert passes.main([path], tmp_path / "some") == 0
    assert passes.main([path], tmp_path / "all", all_passes=True) == 0

    assert [each.name for each in (tmp_path / "some").iterdir()] == ["plain"]
    assert {each.name for each in (tmp_path / "all").iterdir()} == set(passes.VARIABLES)
    assert capsys.readouterr().out.count("1 passed") == 4


@pytest.mark.slow
def test_a_figure_with_digits_that_hold_on_one_machine_only_fails_a_pass(tmp_path, capsys) -> None:
    train, few, many = TRAIN, "print(f'{total:.0f}')", "print(f'{total:.9f}')"
    said = subprocess.check_output([sys.executable, "-c", f"{train}{few}\n{many}"], text=True)
    outputs = [None, *map(example.stream, said.splitlines(keepends=True))]
    cells = [example.code(*both) for both in zip((train, few, many), outputs, strict=True)]
    for count, cell in enumerate(cells, start=1):
        cell.execution_count = count
    path = tmp_path / "05_fit_it.ipynb"
    document.write(new_notebook(cells=cells), path)

    assert passes.main([path], tmp_path, all_passes=True) == 1

    outcomes = {name: (tmp_path / name / "output.txt").read_text() for name in passes.VARIABLES}
    assert {name for name, text in outcomes.items() if "3 passed" in text} == {"plain", "avx2"}
    assert "1 failed, 2 passed" in outcomes["perturbed"]
    assert "05_fit_it.ipynb::Cell 2" in outcomes["perturbed"]
    assert outcomes["perturbed"] in capsys.readouterr().out


@pytest.mark.slow
def test_every_kind_of_training_is_perturbed() -> None:
    code = """
import keras
from sklearn.ensemble import HistGradientBoostingClassifier
from mlops_mini.pipeline import challenger

optimizer = keras.optimizers.get("adam")
print(round(float(optimizer.learning_rate) / 1e-3, 6))
model = HistGradientBoostingClassifier(learning_rate=0.1, max_iter=1).fit([[0.0], [1.0]], [0, 1])
print(model.learning_rate / 0.1)
command = challenger.challenger.component_spec.implementation.container.command
print(command[-1].count('"learning_rate": 1.0001 * 0.12,'))
"""
    said = subprocess.check_output(
        [sys.executable, "-c", code],
        env={**os.environ, **passes.VARIABLES["perturbed"], "TF_CPP_MIN_LOG_LEVEL": "3"},
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        text=True,
    )

    assert said.split() == ["1.0001", "1.0001", "1"]
