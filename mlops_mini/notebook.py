"""What each notebook begins with: a workspace of its own, and outputs that never vary.

The set-up cell of `05_gate_the_model.ipynb` says `nb = mlops_mini.notebook.begin("05")`; later
cells write below `nb.workspace`, show code by `nb.source` and print rounded numbers by `nb.number`.
"""

import ast
import inspect
import logging
import math
import os
import random
import re
import sys
import textwrap
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlops_mini import workspace
from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError

# Seeds Python and numpy here; models take it where they are built, by keras.utils.set_random_seed.
SEED = 0
LONGEST_LISTING = 25

# One thread gives the same bits on one core and on many; oneDNN is stated because it changes them.
_VARIABLES = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "OMP_NUM_THREADS": "1",  # scikit-learn's; two of them on a busy core wait for each other
    "NO_ALBUMENTATIONS_UPDATE": "1",
}
_THIS_MACHINE = "127.0.0.1,localhost,::1"
_MARK = ".mlops-mini-notebook"
_held = ExitStack()  # this process's workspace, until it ends
_REFRESH = "MLOPS_MINI_REFRESH"  # set while outputs are being committed


@dataclass(frozen=True, kw_only=True, slots=True)
class Notebook:
    """A notebook that has begun.

    Attributes:
        workspace: Folder that is this notebook's alone, absolute, empty at the start but for
            `native.log`, which receives what compiled libraries write to stderr, and a hidden mark.
        hash_seed: `PYTHONHASHSEED` of this interpreter, "random" unless it was set at its start.
    """

    workspace: Path
    hash_seed: str

    def source(self, function: Callable[..., Any] | type) -> None:
        """Print the source of a function or class.

        Args:
            function: Anything that `inspect.getsource` finds. If it has more than 25 lines, its
                docstring is cut to the first line.

        Raises:
            InvalidArgumentError: It has more than 25 lines even so.
        """
        lines = textwrap.dedent(inspect.getsource(function)).rstrip().splitlines()
        if len(lines) > LONGEST_LISTING:
            lines = _with_short_docstring(lines)
        if len(lines) > LONGEST_LISTING:
            raise InvalidArgumentError(
                f"{function.__qualname__} has {len(lines)} lines, a listing at most"
                f" {LONGEST_LISTING}: show a function that it calls, or split it"
            )
        sys.stdout.write("\n".join([*lines, ""]))

    def number(self, x: float, digits: int) -> str:
        """Format a number that another machine would print the same.

        Args:
            x: Any finite number.
            digits: Decimals to show.

        Returns:
            The rounded number; never "-0.00".

        Raises:
            InvalidArgumentError: It is not finite. Or, only while outputs are being committed: it
                is so near to a rounding edge (.001, or a tenth of the last decimal if that is
                less) that another machine may round it the other way.

        >>> nb = Notebook(workspace=Path("runs/05"), hash_seed="0")
        >>> nb.number(0.7412, 2), nb.number(-0.0004, 2)
        ('0.74', '0.00')
        """
        if not math.isfinite(x):
            raise InvalidArgumentError(f"{x} is not a finite number: say in words what it means")
        x = float(x)
        in_steps = x * 10**digits
        margin = min(0.001, 10.0**-digits / 10)
        to_edge = abs(in_steps - math.floor(in_steps) - 0.5) / 10**digits
        if to_edge <= margin and os.environ.get(_REFRESH):
            raise InvalidArgumentError(
                f"{x} with {digits} decimals is within {margin:g} of a rounding edge, and may print"
                f" differently elsewhere: show {max(digits - 1, 0)} decimals, or a comparison"
            )
        return f"{x:z.{digits}f}"


def begin(notebook_id: str) -> Notebook:
    """Prepare this kernel for a notebook; call it before TensorFlow is imported.

    Empties the notebook's workspace and holds it while this process lives, fixes threads and seeds,
    keeps log lines of compiled libraries and below WARNING out of the outputs, keeps requests to
    this machine away from proxies, tells child processes where the data is, and sets the style of
    the figures.

    Args:
        notebook_id: The two digits that the notebook's file name begins with.

    Returns:
        The notebook, with its workspace: a folder named `notebook_id` in the folder that
        `workspace.runs_folder` tells.

    Raises:
        InvalidArgumentError: The id is not two digits, or MLOPS_MINI_HOME is a relative path.
        FailedPreconditionError: TensorFlow is there already, with other settings; or the folder
            holds what no notebook has put there.
        AlreadyExistsError: Another process, such as a second kernel, works in the folder.
    """
    if not re.fullmatch(r"\d\d", notebook_id):
        raise InvalidArgumentError(
            f"{notebook_id!r} is no notebook: give the two digits of its file name, such as '05'"
        )
    folder, data = workspace.runs_folder() / notebook_id, workspace.data_folder()
    as_needed = all(os.environ.get(name) == value for name, value in _VARIABLES.items())
    if "tensorflow" in sys.modules and not as_needed:
        raise FailedPreconditionError(
            "TensorFlow is imported already, so its threads and its log can no longer be set:"
            " restart the kernel and call begin() before anything imports TensorFlow"
        )
    _held.close()  # by an earlier call in this process
    own = _held.enter_context(
        workspace.emptied(
            folder,
            mark=_MARK,
            owner="a notebook",
            way_out=f"remove it if you need nothing of it, or set {workspace.HOME} to another",
            needed=[data],
        )
    )
    os.environ.update(_VARIABLES)
    if data.is_dir():
        os.environ[workspace.DATA] = str(data)
    ask_this_machine_directly()
    for name in ("tensorflow", "absl"):
        # A filter, since TensorFlow sets the level of its logger anew.
        logging.getLogger(name).addFilter(_is_warning)
    _send_native_stderr_to(own / "native.log")
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 - for libraries that draw from the global state
    _set_style()
    return Notebook(workspace=own, hash_seed=os.environ.get("PYTHONHASHSEED", "random"))


def ask_this_machine_directly() -> None:
    """Add this machine to `no_proxy`, or `http_proxy` takes urllib's requests to 127.0.0.1, too."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if known != "*" and _THIS_MACHINE not in known:
        known = f"{known},{_THIS_MACHINE}".lstrip(",")
    os.environ.update({"no_proxy": known, "NO_PROXY": known})


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def _send_native_stderr_to(log_file: Path) -> None:
    """Point file descriptor 2 to a file, for good; a kernel's own stderr does not go through it."""
    if sys.stderr is sys.__stderr__:  # no kernel, so Python's stderr needs the descriptor's copy
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    with log_file.open("wb") as log:
        os.dup2(log.fileno(), 2)


def _set_style() -> None:
    import matplotlib.style
    from matplotlib_inline.config import InlineBackend

    # From the defaults, so that a matplotlibrc of the reader's own changes nothing.
    matplotlib.style.use(["default", Path(__file__).with_suffix(".mplstyle")])
    # Without the version of matplotlib, which every figure would carry otherwise.
    options: dict[str, Any] = {"bbox_inches": "tight", "metadata": {"Software": None}}
    InlineBackend.instance().print_figure_kwargs = options


def _with_short_docstring(lines: list[str]) -> list[str]:
    """Cut the docstring of a definition, if it has one, to its first line."""
    definition = ast.parse("\n".join(lines)).body[0]
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return lines
    first = definition.body[0]
    docstring = ast.get_docstring(definition)
    if docstring is None:
        return lines
    indent = " " * first.col_offset
    summary = f'{indent}"""{docstring.splitlines()[0]}"""'
    return [*lines[: first.lineno - 1], summary, *lines[first.end_lineno :]]
