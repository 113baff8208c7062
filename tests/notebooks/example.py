"""A small lesson that breaks no rule, for tests that break one."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.notebooks import document, refresh

NAVIGATION = "[Contents](00_index.ipynb)"
OPENING = f"""# 05 · Add with care

{NAVIGATION}

*runtime ~4 s · after 04*"""
BUILD = "## You will build\n\nA sum. ![The loop, with its stage lit](figures/loop.svg)"
LEARN = "## You will learn\n\n- to add\n- to check\n- to tell\n  what you found"
FIGURES = "![A sum](figures/sum.svg)\n\n![A doubt](figures/doubt.svg)"
FIRST_EXERCISE = "## Check yourself\n\nPredict `total + 1`."
SECOND_EXERCISE = "Build a sum of three."
SECOND_SOLUTION = """<details>
<summary>▸ Solution (click)</summary>

```python
total_of_three = total + 3
assert total_of_three == 6
```

</details>"""
FIRST_SOLUTION = """<details>
<summary>▸ Solution (click)</summary>

```python
assert total + 1 == 4
```

</details>"""
RECAP = """## What you built

- a sum of 3
- a check
- a sentence

## On a cluster

The same."""


def lesson() -> NotebookNode:
    """A notebook as refresh writes it, outputs included, without having been run."""
    nb = new_notebook(
        cells=[
            new_markdown_cell(OPENING),
            new_markdown_cell(BUILD),
            new_markdown_cell(LEARN),
            new_markdown_cell("## Set up"),
            code('import mlops_mini.notebook\n\nnb = mlops_mini.notebook.begin("05")'),
            new_markdown_cell(f"## Add\n\nTwo numbers make a third:\n\n{FIGURES}"),
            code("total = 1 + 2\ntotal", result("3")),
            new_markdown_cell("## Print\n\nThe sum is 3, so we print it:"),
            code("print(total)", stream("3\n")),
            code("_ = total + total"),
            new_markdown_cell("## Fail\n\nDividing by nothing fails:"),
            code("total / 0", error("ZeroDivisionError", "division by zero"), "raises-exception"),
            new_markdown_cell("## Doubt\n\nThat was to be expected; something else varies:"),
            code("assert 0 < total < 5", None, "nbval-ignore-output"),
            new_markdown_cell(FIRST_EXERCISE),
            code("# Your turn"),
            new_markdown_cell(FIRST_SOLUTION),
            new_markdown_cell(SECOND_EXERCISE),
            code("# Your turn"),
            new_markdown_cell(SECOND_SOLUTION),
            new_markdown_cell(RECAP),
            new_markdown_cell(f"## Next\n\n{NAVIGATION}"),
        ]
    )
    return stamp(nb)


def code(source: str, output: NotebookNode | None = None, *tags: str) -> NotebookNode:
    """A code cell with at most one output."""
    metadata = {"tags": list(tags)} if tags else {}
    return new_code_cell(source, outputs=[output] if output else [], metadata=metadata)


def result(text: str, **others: str) -> NotebookNode:
    """The value of a cell; `others` are MIME types with _ for their punctuation."""
    data = {"text/plain": text, **others}
    return new_output("execute_result", data=data, execution_count=1)


def stream(text: str, name: str = "stdout") -> NotebookNode:
    """What a cell printed."""
    return new_output("stream", name=name, text=text)


def error(ename: str, evalue: str) -> NotebookNode:
    """What a cell raised."""
    return new_output("error", ename=ename, evalue=evalue, traceback=[f"{ename}: {evalue}"])


def stamp(nb: NotebookNode) -> NotebookNode:
    """Name, number and digest as refresh does, after a test has changed cells."""
    for cell, cell_id in zip(nb.cells, document.cell_ids(nb), strict=True):
        cell.id = cell_id
    refresh.normalize(nb)
    return nb


def save(nb: NotebookNode, folder: Path, name: str = "05_add_with_care.ipynb") -> Path:
    """Write it as it is, beside the files that it links to."""
    (folder / "figures").mkdir(exist_ok=True)
    for figure in ("loop", "sum", "doubt"):
        svg = "<svg xmlns='http://www.w3.org/2000/svg'/>"
        (folder / "figures" / f"{figure}.svg").write_text(svg)
    index = new_notebook(cells=[new_markdown_cell("# Contents\n\n## Where to `begin`")])
    (folder / "00_index.ipynb").write_text(nbformat.writes(index))
    path = folder / name
    path.write_text(document.to_text(nb))
    return path
