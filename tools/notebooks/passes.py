"""Runs notebooks as tests: not only as they are, but under other arithmetic too.

From about the third decimal on, trained figures differ between processors. A notebook must not show
that. One machine cannot try many processors, so each pass beside the plain one stands for some.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

from tools.notebooks import document, solutions

ROOT = Path(__file__).resolve().parents[2]
# Rooms of the package in which models are trained; a test looks for others.
TRAINING_ROOMS = (
    "mlops_mini.data_centric", "mlops_mini.flights.weeks", "mlops_mini.loop", "mlops_mini.model",
    "mlops_mini.photos", "mlops_mini.pipeline", "mlops_mini.runner",
)  # fmt: skip
VARIABLES = {
    "plain": {},
    # What oneDNN does on processors without AVX-512; on one of these it changes nothing.
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    # Changes trained figures on every processor, about as another one would.
    "perturbed": {"PYTHONPATH": str(ROOT / "tools" / "perturbed")},
}
CELL_TIMEOUT_S = 300  # how long a busy machine may take, and until a dead kernel is noticed


def trains(nb: NotebookNode) -> bool:
    """Tell whether a notebook may train: it calls `fit`, or imports from a room that does."""
    nodes = [
        node
        for cell in nb.cells
        if cell.cell_type == "code"
        for node in ast.walk(_tree(cell.source))
    ]
    calls_fit = any(isinstance(node, ast.Attribute) and node.attr == "fit" for node in nodes)
    imported = [f"{name}." for node in nodes for name in _imported(node)]
    rooms = tuple(f"{room}." for room in TRAINING_ROOMS)
    return calls_fit or any(name.startswith(rooms) for name in imported)


def _tree(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError:  # an error on purpose, which trains nothing
        return ast.Module([], [])


def _imported(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=str(module), names=names):
            yield from (f"{module}.{alias.name}" for alias in names)
        case _:
            pass


def main(paths: list[Path], folder: Path, *, all_passes: bool = False) -> int:
    """Run notebooks under nbval, with their solutions, and print what came of it.

    The passes run side by side: a notebook keeps but one core busy.

    Args:
        paths: The notebooks.
        folder: Gets a folder for each pass, with copies, workspaces and the output.
        all_passes: Whether every notebook runs in every pass; otherwise all notebooks run in the
            plain pass, and those that train also as on AVX2.

    Returns:
        1 if an output differs from the saved one or a cell fails in any pass.
    """
    training = [path for path in paths if trains(document.read(path))]
    chosen = {"plain": paths, "avx2": training}
    if all_passes:
        chosen = dict.fromkeys(VARIABLES, paths)
    running = {name: _start(folder / name, some, name) for name, some in chosen.items() if some}
    status = 0
    for name, process in running.items():
        print(f"{name} ({len(chosen[name])} notebooks, {folder / name}/output.txt):", flush=True)
        status |= int(process.wait() != 0)
        print((folder / name / "output.txt").read_text(), flush=True)
    return status


def _start(home: Path, paths: list[Path], name: str) -> subprocess.Popen[bytes]:
    copies = home / "notebooks"
    solutions.main(paths, copies)
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=20"),
        *("--nbval", "--nbval-current-env", "--nbval-sanitize-with=tests/nbval_sanitize.cfg"),
        *(f"--nbval-cell-timeout={CELL_TIMEOUT_S}", "--nbval-kernel-startup-timeout=120"),
        *(str(copies / path.name) for path in paths),
    ]
    variables = {**os.environ, **VARIABLES[name], "MLOPS_MINI_HOME": str(home.resolve())}
    with (home / "output.txt").open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=output, stderr=output)
