"""Refresh on real kernels: the same bytes twice, and whole or not at all."""

import base64

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError
from tests.notebooks import example
from tools.notebooks import __main__ as command
from tools.notebooks import document, refresh


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPS_MINI_HOME", str(tmp_path / "runs"))
    return tmp_path / "runs"


def notebook(*sources: str, title: str = "# 05 · Try") -> NotebookNode:
    return new_notebook(cells=[new_markdown_cell(title), *map(new_code_cell, sources)])


def save(nb, folder):
    path = folder / "05_try.ipynb"
    path.write_text(document.to_text(nb))
    return path


def test_a_second_refresh_changes_no_byte(tmp_path):
    nb = notebook(
        'import mlops_mini.notebook\n\nnb = mlops_mini.notebook.begin("05")',
        "import matplotlib.pyplot as plt\n\n_, ax = plt.subplots()\n_ = ax.plot([1, 3, 2])",
        'print("a", flush=True)\nprint("b", end="\\r\\n")\nsorted({"x", "y", "z"}, key=hash)',
        "1 / 0",
    )
    nb.cells[-1].metadata = {"tags": ["raises-exception"], "collapsed": True}
    nb.cells.append(new_code_cell("run_on_a_cluster()", metadata={"tags": ["nbval-skip"]}))
    nb.cells[-1].outputs = [example.stream("recorded\n")]
    nb.metadata = {"language_info": {"name": "python", "version": "3.9"}, "widgets": {}}
    path = save(nb, tmp_path)

    assert refresh.refresh(path)
    first = path.read_bytes()
    assert not refresh.refresh(path)

    assert path.read_bytes() == first
    assert [each.name for each in tmp_path.iterdir() if each.name != "runs"] == [path.name]
    nb = document.read(path)
    assert document.objection(nb) is None
    assert (nb.nbformat, nb.nbformat_minor) == (4, 5)
    assert "version" not in nb.metadata.language_info
    assert set(nb.metadata) == {"kernelspec", "language_info", "mlops_mini"}
    assert [cell.id for cell in nb.cells] == [f"05-try-{n}" for n in range(1, 7)]
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    assert b"Software" not in base64.b64decode(code[1].outputs[0].data["image/png"])
    assert [output.get("text") for output in code[2].outputs][:1] == ["a\nb\r\n"]
    assert code[3].metadata == {"tags": ["raises-exception"]}
    assert code[3].outputs[0].traceback == ["ZeroDivisionError: division by zero"]
    assert code[4].outputs[0].text == "recorded\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n1 / 0\n2", r"05_try.ipynb cell 05-try-2 \(`1 / 0`\): ZeroDivisionError: division"),
        ("import os\nos._exit(3)", r"cell 05-try-2 \(`import os`\): the kernel died"),
        ("while True:\n    pass", r"cell 05-try-2 \(`while True:`\): still running after 2 s"),
    ],
)
def test_a_cell_that_fails_is_one_line_and_leaves_the_file_as_it_was(
    tmp_path, capsys, source, message
):
    path = save(notebook(source), tmp_path)
    before = path.read_bytes()

    assert command.main(["refresh", "--cell-timeout", "2", str(path)]) == 1

    lines, printed = capsys.readouterr()
    assert lines == ""
    assert printed.count("\n") == 1
    with pytest.raises(MlopsMiniError, match=message):
        raise MlopsMiniError(printed)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_edit_made_meanwhile_is_not_lost(tmp_path):
    path = save(
        notebook('from pathlib import Path\n_ = Path("05_try.ipynb").write_text("x")'), tmp_path
    )

    with pytest.raises(MlopsMiniError, match="changed meanwhile"):
        refresh.refresh(path)

    assert path.read_text() == "x"


def test_a_runtime_that_is_off_by_more_than_a_factor_of_two_is_a_warning(tmp_path, capsys):
    path = save(notebook("1 + 1", title="# 05 · Try\n\n*runtime ~20 min · no TF needed*"), tmp_path)

    assert refresh.main([path], cell_timeout_s=60) == [path]

    assert "its first cell says `runtime ~1200 s`, but it took" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stated", "took_s", "is_off"),
    [
        ("*runtime ~40 s · needs TF*", 21, False),
        ("*runtime ~40 s*", 79, False),
        ("*runtime ~40 s*", 81, True),
        ("*runtime ~40 s*", 19, True),
        ("*runtime ~2 min*", 100, False),
        ("no such line", 900, False),
    ],
)
def test_a_stated_runtime_holds_within_a_factor_of_two(stated, took_s, is_off):
    nb = notebook(title=f"# 05 · Try\n\n{stated}")

    assert (refresh.runtime_warning(nb, took_s) is not None) is is_off


def test_a_number_on_a_rounding_edge_is_refused_only_while_outputs_are_committed(tmp_path):
    begin = 'import mlops_mini.notebook\n\nnb = mlops_mini.notebook.begin("05")'
    path = save(notebook(begin, "print(nb.number(0.1249, 2))"), tmp_path)

    with pytest.raises(MlopsMiniError, match=r"0.1249 with 2 decimals .* show 1 decimals"):
        refresh.refresh(path)


def test_a_notebook_that_is_not_json_is_refused(tmp_path):
    path = tmp_path / "05_try.ipynb"
    path.write_text("{")

    with pytest.raises(InvalidArgumentError, match="not JSON"):
        refresh.refresh(path)


def test_an_inserted_cell_renames_only_its_section():
    nb = notebook()
    nb.cells = [
        new_markdown_cell(text)
        for text in ("# 05 · Try", "## Fit", "more", "```\n# no heading\n```", "## Judge", "more")
    ]
    before = document.cell_ids(nb)
    nb.cells.insert(3, new_markdown_cell("inserted"))
    after = document.cell_ids(nb)

    assert before == ["05-try-1", "fit-1", "fit-2", "fit-3", "judge-1", "judge-2"]
    assert after == ["05-try-1", "fit-1", "fit-2", "fit-3", "fit-4", "judge-1", "judge-2"]


def test_ids_are_short_and_unique_whatever_the_headings():
    headings = ["## " + "very " * 30, "## Fit", "## Fit", "## Fit 1", "## 模型", "## ···"]
    nb = new_notebook(cells=[new_markdown_cell(text) for text in headings for _ in range(12)])

    ids = document.cell_ids(nb)

    assert len(set(ids)) == len(ids)
    assert max(map(len, ids)) <= 64


@pytest.mark.slow
def test_a_notebook_with_a_trained_model_is_the_same_twice_and_quiet(tmp_path, home):
    path = save(
        notebook(
            'import mlops_mini.notebook\n\nnb = mlops_mini.notebook.begin("05")\nimport keras',
            "import numpy as np\n\nkeras.utils.set_random_seed(mlops_mini.notebook.SEED)\n"
            "layers = [keras.layers.Input((2,)), keras.layers.Dense(1)]\n"
            "model = keras.Sequential(layers)\n"
            'model.compile("sgd", "mse", jit_compile=False)\n'
            "x = np.random.uniform(size=(64, 2))\n"
            "history = model.fit(x, x.sum(1), epochs=2, verbose=0).history\n"
            'model.export(str(nb.workspace / "1"), verbose=False)\nhistory',
        ),
        tmp_path,
    )

    assert refresh.refresh(path)
    assert not refresh.refresh(path)

    outputs = [output for cell in document.read(path).cells for output in cell.get("outputs", [])]
    assert [output.output_type for output in outputs] == ["execute_result"]
    assert (home / "05" / "native.log").stat().st_size > 0
