"""Copies of notebooks in which each hidden solution is a code cell, so that one run tests both.

The copies run in a folder of their own, and need nothing beside them: `begin` finds a notebook's
workspace by its id, and the data of the checkout that their folder is in.
"""

import ast
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from mlops_mini.errors import InvalidArgumentError
from tools.notebooks import document
from tools.notebooks.prose_rules import PYTHON_FENCE, SOLUTION

_ENDS = {"close", "shutdown", "stop", "terminate"}


def with_solutions(nb: NotebookNode) -> NotebookNode:
    """Copy a notebook, with a code cell for each python fence of a solution.

    Args:
        nb: The notebook; it stays as it is.

    Returns:
        The copy. A solution's cells stand below its text, or above the cell that stops what the
        notebook has started if that comes first; so they may use all that the lesson has made. They
        are tagged `nbval-ignore-output`: their asserts are what is tested.
    """
    cells: list[NotebookNode] = []
    for cell in nb.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            behind = _behind_the_lesson(cells)
            bodies = "\n".join(SOLUTION.findall(cell.source))
            cells[behind:behind] = [
                nbformat.v4.new_code_cell(
                    fence.strip(),
                    id=f"solution-{len(cells)}-{n}",
                    execution_count=1,  # nbval compares nothing of a cell that never ran
                    metadata={"tags": ["nbval-ignore-output"]},
                )
                for n, fence in enumerate(PYTHON_FENCE.findall(bodies))
            ]
    return nbformat.from_dict({**nb, "cells": cells})


def _behind_the_lesson(cells: list[NotebookNode]) -> int:
    """Where the next cell would find everything made so far still running."""
    behind = len(cells)
    for index in reversed(range(len(cells))):
        if cells[index].cell_type == "code":
            if not _is_closing(cells[index].source):
                break
            behind = index
    return behind


def _is_closing(source: str) -> bool:
    try:
        first = ast.parse(source).body[:1]
    except SyntaxError:
        return False
    match first:
        case [ast.Expr(value=ast.Call(func=ast.Attribute(attr=name)))]:
            return name in _ENDS
        case _:
            return False


def main(paths: list[Path], folder: Path) -> int:
    """Write the copies, under the notebooks' own names, into a folder made when missing."""
    if any(path.parent.resolve() == folder.resolve() for path in paths):
        raise InvalidArgumentError(f"{folder} holds the notebooks themselves; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        document.write(with_solutions(document.read(path)), folder / path.name)
    return 0
