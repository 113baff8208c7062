"""What check and one strict nbval pass over the copies with solutions catch, each planted once."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mlops_mini.errors import InvalidArgumentError
from tests.notebooks import example
from tools.notebooks import check, document, solutions

ROOT = Path(__file__).resolve().parents[2]


def plant(old: str, new: str, *, in_outputs: bool = False):
    """A lesson with something changed after its outputs were saved."""
    nb = example.lesson()
    for cell in nb.cells:
        if not in_outputs:
            cell.source = cell.source.replace(old, new)
        for output in cell.get("outputs", []) if in_outputs else []:
            if "text" in output:
                output.text = output.text.replace(old, new)
    return nb


def lesson_with(output):
    nb = example.lesson()
    nb.cells[6].outputs.append(output)
    return nb


PLANTED = {
    "clean": example.lesson(),
    "wrong_output": plant("3\n", "4\n", in_outputs=True),
    "wrong_solution": plant("assert total_of_three == 6", "assert total_of_three == 7"),
    "stale": plant("total = 1 + 2", "total = 2 + 1"),
    "stderr": lesson_with(example.stream("look\n", name="stderr")),
}


def test_check_catches_what_needs_no_kernel(tmp_path):
    found = {}
    for name, nb in PLANTED.items():
        (tmp_path / name).mkdir()
        path = example.save(nb, tmp_path / name)
        found[name] = [violation.rule for violation in check.violations(path)]

    assert found == {
        "clean": [],
        "wrong_output": [],
        "wrong_solution": [],
        "stale": ["stale"],
        "stderr": ["stderr"],
    }


@pytest.mark.slow
def test_one_strict_pass_catches_wrong_outputs_and_wrong_solutions(tmp_path):
    copies = tmp_path / "copies"
    for n, (name, nb) in enumerate(PLANTED.items()):
        path = example.save(nb, tmp_path, f"{n:02}_{name}.ipynb")
        if name != "stale":  # the same value by other code: check's business alone
            assert solutions.main([path], copies) == 0

    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no"),
            *("-c", ROOT / "pyproject.toml", "--rootdir", tmp_path),
            *("--nbval", "--nbval-current-env", "--nbval-cell-timeout=60"),
            f"--nbval-sanitize-with={ROOT}/tests/nbval_sanitize.cfg",
            copies,
        ],
        env={**os.environ, "MLOPS_MINI_HOME": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
        check=False,
    )

    summary = [line.split(" - ")[0] for line in done.stdout.splitlines() if line[:6] == "FAILED"]
    assert [line.rpartition("/")[2] for line in summary] == [
        "01_wrong_output.ipynb::Cell 2",
        "02_wrong_solution.ipynb::Cell 9",
        "04_stderr.ipynb::Cell 1",
    ]
    assert "3 failed, 37 passed" in done.stdout


def test_a_solution_becomes_an_exempt_cell_below_its_text():
    nb = example.lesson()

    copy = solutions.with_solutions(nb)

    added = [cell for cell in copy.cells if cell.id.startswith("solution-")]
    assert [cell.source for cell in added] == [
        "assert total + 1 == 4",
        "total_of_three = total + 3\nassert total_of_three == 6",
    ]
    assert {tuple(cell.metadata.tags) for cell in added} == {("nbval-ignore-output",)}
    assert copy.cells.index(added[0]) == 17
    assert document.objection(copy) is None
    assert nb == example.lesson()


@pytest.mark.parametrize("closing_first", [True, False])
def test_a_solution_runs_before_the_cell_that_stops_what_was_started(closing_first):
    start, close = new_code_cell("server = start()"), new_code_cell("server.close()\nserver")
    fence = "<details>\n\n```python\nassert server\n```\n\n</details>"
    text = new_markdown_cell(fence)
    order = [start, close, text] if closing_first else [start, text, close]

    copy = solutions.with_solutions(new_notebook(cells=order))

    code = [cell.source.partition("\n")[0] for cell in copy.cells if cell.cell_type == "code"]
    assert code == ["server = start()", "assert server", "server.close()"]


def test_code_outside_a_solution_and_other_languages_in_it_stay_text():
    text = "```python\nx\n```\n<details>\n\n```bash\nls\n```\n\n</details>"
    nb = new_notebook(cells=[new_markdown_cell(text)])

    assert len(solutions.with_solutions(nb).cells) == 1


def test_the_copies_never_overwrite_the_notebooks(tmp_path):
    path = example.save(example.lesson(), tmp_path)
    before = path.read_bytes()

    with pytest.raises(InvalidArgumentError, match="name another folder"):
        solutions.main([path], tmp_path / "figures" / "..")

    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("printed", "compared"),
    [
        ("took 12.3 ms", "took DURATION"),
        ("at 127.0.0.1:43211", "at 127.0.0.1:PORT"),
        ("after 300 s, 0.74 of 12 sums", "after 300 s, 0.74 of 12 sums"),
    ],
)
def test_only_durations_and_ports_are_sanitized(printed, compared):
    from nbval.plugin import get_sanitize_patterns

    rules = get_sanitize_patterns((ROOT / "tests/nbval_sanitize.cfg").read_text())

    for regex, replacement in rules:
        printed = re.sub(regex, replacement, printed)
    assert len(rules) == 2
    assert printed == compared
