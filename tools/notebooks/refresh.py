"""Runs notebooks and saves their outputs: the same bytes again, unless something has changed.

Cells run as nbval will run them later: this environment's own kernel, in the notebook's folder,
with capture as under pytest. What varies from run to run is left out of the file: times, kernel
versions, random cell ids, tracebacks.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode
from traitlets import default

from mlops_mini.errors import MlopsMiniError, UnavailableError
from tools.notebooks import document

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
KERNEL_VARIABLES = {
    "PYTHONHASHSEED": "0",
    "PYTEST_CURRENT_TEST": "refresh",  # ipykernel then captures as it does under nbval
    "MLOPS_MINI_REFRESH": "1",  # nb.number refuses what may round differently elsewhere
}
STATED_RUNTIME = re.compile(r"^\*runtime ~(\d+) (s|min)\b", re.MULTILINE)
RUNTIME_FACTOR = 2.0


class CurrentEnvironment(AsyncKernelManager):
    """Starts the kernel of this very interpreter, whatever kernels the user has installed."""

    @default("kernel_spec_manager")
    def _only_native(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def refresh(path: Path, *, cell_timeout_s: float = 180.0) -> bool:
    """Run a notebook and save it, whole or not at all.

    Args:
        path: The notebook.
        cell_timeout_s: Longest time for one cell.

    Returns:
        Whether the file has changed.

    Raises:
        MlopsMiniError: It cannot be read, a cell fails, hangs or ends the kernel, or the file was
            changed meanwhile; the file stays as it was.
    """
    nb = document.read(path)
    before = path.read_bytes()
    nb.nbformat, nb.nbformat_minor = 4, 5
    for cell, cell_id in zip(nb.cells, document.cell_ids(nb), strict=True):
        cell.id = cell_id
    _run(nb, path, cell_timeout_s)
    normalize(nb)
    if problem := document.objection(nb):
        raise MlopsMiniError(f"{path}: the refreshed notebook is not valid: {problem}")
    if path.read_bytes() != before:
        raise MlopsMiniError(f"{path}: the file was changed meanwhile; refresh it again")
    if document.to_text(nb).encode() == before:
        return False
    document.write(nb, path)
    return True


def _run(nb: NotebookNode, path: Path, cell_timeout_s: float) -> None:
    running = "before its first cell"

    def on_cell_start(cell: NotebookNode, cell_index: int) -> None:  # noqa: ARG001 - nbclient's
        nonlocal running
        first_line = cell.source.strip().partition("\n")[0]
        running = f"cell {cell.id} (`{first_line}`)"

    client = NotebookClient(
        nb,
        timeout=cell_timeout_s,
        startup_timeout=120,
        kernel_name="python3",
        kernel_manager_class=CurrentEnvironment,
        record_timing=False,
        shutdown_kernel="immediate",
        # Outputs of Docker and cluster cells were recorded where there is one; they stay.
        skip_cells_with_tag="nbval-skip",
        on_cell_start=on_cell_start,
    )
    try:
        client.execute(
            cwd=str(path.parent.resolve()),
            env={**os.environ, **KERNEL_VARIABLES},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except CellExecutionError as exc:
        what = f"{exc.ename}: {exc.evalue}".strip().partition("\n")[0]
        raise MlopsMiniError(f"{path} {running}: {what}") from exc
    except CellTimeoutError as exc:
        raise MlopsMiniError(
            f"{path} {running}: still running after {cell_timeout_s:g} s, so it was ended"
        ) from exc
    except RuntimeError as exc:  # nbclient's DeadKernelError, and jupyter_client's at the start
        raise UnavailableError(
            f"{path} {running}: the kernel died; native.log in the workspace may say why"
        ) from exc


def normalize(nb: NotebookNode) -> None:
    """Leave in cells and outputs only what a reader sees, numbered in order."""
    count = 0
    for cell in nb.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = _merge_streams(cell.outputs)
            for output in cell.outputs:
                _normalize_output(output, count)
    nb.metadata = nbformat.from_dict(
        {
            "kernelspec": KERNELSPEC,
            "language_info": LANGUAGE_INFO,
            "mlops_mini": {"code": document.code_digest(nb)},
        }
    )


def _merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if (
            last is not None
            and output.output_type == last.output_type == "stream"
            and output.name == last.name
        ):
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _normalize_output(output: NotebookNode, count: int) -> None:
    if output.output_type in ("execute_result", "display_data"):
        output.metadata = nbformat.from_dict({})
    if output.output_type == "execute_result":
        output.execution_count = count
    if output.output_type == "error":
        # Frames name absolute paths, and nbval compares only these two.
        output.traceback = [f"{output.ename}: {output.evalue}"]


def runtime_warning(nb: NotebookNode, took_s: float) -> str | None:
    """Compare the runtime in a notebook's first cell with the time that it took.

    Args:
        nb: The notebook, with a line such as `*runtime ~40 s*` in its first cell.
        took_s: Seconds that its cells took just now.

    Returns:
        A warning if they differ by more than a factor of two; None otherwise, or without such a
        line.
    """
    found = STATED_RUNTIME.search(nb.cells[0].source) if nb.cells else None
    if found is None:
        return None
    stated_s = int(found[1]) * (60 if found[2] == "min" else 1)
    if stated_s / RUNTIME_FACTOR <= took_s <= stated_s * RUNTIME_FACTOR:
        return None
    return (
        f"its first cell says `runtime ~{stated_s} s`, but it took {took_s:.0f} s: on a quiet"
        " machine, correct that line or find out what got slow"
    )


def main(paths: list[Path], *, cell_timeout_s: float) -> list[Path]:
    """Refresh notebooks one after the other; print one line for each, and list those that ran."""
    refreshed = []
    for path in paths:
        began = time.monotonic()
        try:
            what = "rewritten" if refresh(path, cell_timeout_s=cell_timeout_s) else "unchanged"
        except MlopsMiniError as exc:
            print(exc, file=sys.stderr)
        else:
            refreshed.append(path)
            took_s = time.monotonic() - began
            print(f"{path}  {what}  {took_s:.1f} s", flush=True)
            if warning := runtime_warning(document.read(path), took_s):
                print(f"{path}: warning: {warning}", file=sys.stderr)
    return refreshed
