"""What each notebook begins with: a workspace of its own, and outputs that never vary.

The set-up cell of `05_gate_the_model.ipynb` says `nb = mlops_mini.notebook.begin("05")`. Later
cells write below `nb.workspace`, and leave plumbing to these helpers:

| helper | what it shows |
|---|---|
| `nb.number(x, 2)` | a number, rounded as any other machine would round it |
| `nb.rounded(table, 2)` | a table or a series in which every number is rounded like that |
| `nb.table(frame)` | a table whose columns of text are left-aligned in every viewer |
| `nb.source(function)` | the source of a function, or the part of it that matters |
| `nb.message(text_or_error)` | a long message, wrapped, without the path of the workspace |
| `with nb.expecting(SomeError):` | the message of an error that's raised on purpose |
| `nb.run_tests(file)` | what pytest says about each test of a file, and its exit code |
| `nb.pipeline(package, states)` | a drawing of a compiled pipeline, with what became of each task |
| `nb.recorded(platform, *facts)` | what `make platforms` has recorded of a platform |
"""

import ast
import inspect
import json
import logging
import math
import os
import random
import re
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from mlops_mini import workspace
from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from IPython.display import Markdown
    from matplotlib.axes import Axes

Table = TypeVar("Table", pd.Series, pd.DataFrame)

# Seeds Python and numpy here; models take it where they are built, by keras.utils.set_random_seed.
SEED = 0
LONGEST_LISTING = 25
WIDEST_LINE = 88

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
# A line of pytest's summary.
_TEST = re.compile(r"^(PASSED|FAILED) \S+::(\S+)(?: - (.*))?$", re.MULTILINE)
_MARK = ".mlops-mini-notebook"
_PLATFORMS = Path(__file__).resolve().parents[1] / "docs" / "platforms.json"
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

    def source(
        self, function: Callable[..., Any] | type, *, start: str = "", stop: str = ""
    ) -> None:
        """Print the source of a function or class, or a part of it.

        Args:
            function: Anything that `inspect.getsource` finds. If it has more than 25 lines, its
                docstring is cut to the first line.
            start: Text of the first line to print; by default the function's first.
            stop: Text of the line before which to end; by default the function's end.

        Raises:
            InvalidArgumentError: There's no such line, or more than 25 lines would be printed.
        """
        lines = textwrap.dedent(inspect.getsource(function)).rstrip().splitlines()
        if start or stop:
            lines = _part(lines, start, stop)
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

    def rounded(self, table: Table, digits: int) -> Table:
        """Round every number in a table as `number` does.

        Args:
            table: A series or a frame; texts and whole numbers in it stay as they are.
            digits: Decimals to show.

        Returns:
            A copy with texts such as "0.74".

        Raises:
            InvalidArgumentError: As `number` raises it.
        """
        return table.map(lambda x: self.number(x, digits) if isinstance(x, float) else x)

    def table(self, frame: pd.DataFrame, *, has_index: bool = True) -> "Markdown":
        """Show a table whose columns of text are aligned on the left in every viewer.

        Args:
            frame: Rounded already.
            has_index: Whether the index becomes the first column.

        Returns:
            Markdown, for the last line of a cell. Columns of numbers are aligned on the right.
        """
        from IPython.display import Markdown

        shown = frame.reset_index() if has_index else frame
        is_number = [pd.api.types.is_numeric_dtype(shown[name]) for name in shown]
        rows = [list(shown), *shown.astype(object).to_numpy()]
        lines = ["| " + " | ".join(_in_cell(value) for value in row) + " |" for row in rows]
        lines.insert(1, "|" + "|".join("---:" if each else ":---" for each in is_number) + "|")
        return Markdown("\n".join(lines))  # type: ignore[no-untyped-call]

    def message(self, what: str | BaseException) -> None:
        """Print a long text or the message of an error, wrapped to the width of a page.

        Args:
            what: What to print; the path of the workspace is cut to what's below it.
        """
        for line in str(what).replace(f"{self.workspace}{os.sep}", "").splitlines():
            sys.stdout.write(textwrap.fill(line, WIDEST_LINE, break_on_hyphens=False) + "\n")

    @contextmanager
    def expecting(self, error: type[Exception]) -> Iterator[None]:
        """Print the message of an error that the lines below raise on purpose.

        Args:
            error: What they raise.

        Raises:
            FailedPreconditionError: They didn't raise it.
        """
        try:
            yield
        except error as exc:
            self.message(f"{type(exc).__name__}: {exc}")
        else:
            raise FailedPreconditionError(
                f"no {error.__name__} was raised, but it should have been"
            )

    def run_tests(self, file: Path) -> None:
        """Run a file of tests with pytest, as continuous integration does, and print its verdict.

        Args:
            file: Such as `nb.workspace / "test_weather.py"`; the tests run in its folder.

        Raises:
            FailedPreconditionError: pytest found no tests that it could run.
        """
        options = ["-q", "-rpf", "-c", os.devnull, "-p", "no:cacheprovider", "--color=no"]
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", *options, file.name],
            cwd=file.parent,
            env=os.environ | {"COLUMNS": "1000"},  # or it would cut the reasons short
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode not in (0, 1):
            raise FailedPreconditionError(f"pytest could not run {file.name}: {ran.stdout}")
        for verdict, name, reason in _TEST.findall(ran.stdout):
            said = reason.partition("assert ")[2].removeprefix("FAILED: ") or reason
            self.message(f"{name} {verdict.lower()}{': ' if said else ''}{said}")
        sys.stdout.write(f"exit code {ran.returncode}\n")

    def recorded(self, platform: str, *facts: str) -> None:
        """Print what was recorded when a platform that a notebook can't run ran last.

        Args:
            platform: Such as `feast`.
            facts: Which, as docs/platforms.md names them.

        Raises:
            NotFoundError: There's no such record; it's in a checkout of mlops_mini alone.
        """
        known = json.loads(_PLATFORMS.read_text()) if _PLATFORMS.exists() else {}
        entry = known.get(platform, {"name": platform, "facts": {}})
        there = entry["facts"]
        if missing_facts := [fact for fact in facts if fact not in there]:
            raise NotFoundError(
                f"{_PLATFORMS} has nothing of {platform} under {missing_facts}, but {list(there)}:"
                f" work in a checkout, and run `make platforms ONLY={platform}`"
            )
        for fact in facts:
            self.message(f"{entry['name']}: {fact}: {there[fact]}")

    def pipeline(self, package: Path | Any, states: Mapping[str, str] | None = None) -> "Axes":
        """Draw a compiled pipeline.

        Args:
            package: A file that kfp's compiler wrote, or a function with `@dsl.pipeline`.
            states: What became of each task, by its name, such as CACHED; none if it hasn't run.

        Returns:
            The axes of a figure of its own.
        """
        from matplotlib import pyplot as plt

        from mlops_mini.runner import plots, spec

        _, ax = plt.subplots(figsize=(9.5, 2.6))
        return plots.draw_graph(spec.load(package), ax, states=states or {})


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
    # numpy has read the environment before; on a busy machine its threads wait for each other.
    threadpool_limits(1, user_api="blas")
    if data.is_dir():
        os.environ[workspace.DATA] = str(data)
    ask_this_machine_directly()
    # Progress bars of libraries look for widgets, which no viewer shows.
    warnings.filterwarnings("ignore", message="IProgress not found")
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


def _part(lines: list[str], start: str, stop: str) -> list[str]:
    """Cut a listing out of a source."""
    first = next((n for n, line in enumerate(lines) if start in line), None)
    if first is None:
        raise InvalidArgumentError(f"no line of the source has {start!r} in it")
    after = (n for n in range(first + 1, len(lines)) if stop and stop in lines[n])
    last = next(after, None if stop else len(lines))
    if last is None:
        raise InvalidArgumentError(f"no line after {start!r} has {stop!r} in it")
    text = re.sub(r"  # noqa\b.*", "", "\n".join(lines[first:last]))
    return textwrap.dedent(text).rstrip().splitlines()


def _in_cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", r"\|")


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
