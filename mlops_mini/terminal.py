"""Show work under way, and tables, in a terminal: progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

    from rich.table import Table

    from mlops_mini.runner.records import TaskRecord

_COLORS = {"SUCCEEDED": "green", "CACHED": "cyan", "FAILED": "red", "CANCELLED": "yellow"}


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout; columns of numbers to the right."""
    from rich.console import Console

    console = Console()
    console.print(title, style="bold", highlight=False)
    console.print(_table(header, rows), "")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, name in enumerate(header):
        is_number = all(row[index][:1].isdigit() for row in rows)
        # The first column names the row, and is to be copied in one piece.
        table.add_column(
            name,
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=index == 0,
        )
    for row in rows:
        table.add_row(*row)
    return table


@contextlib.contextmanager
def live_tables() -> Iterator[Callable[..., None]]:
    """Give a function that shows tables on stderr, in place of those that it showed before.

    Each is a title, a header and rows, as `print_table` takes them. Where stderr is no terminal,
    only titles are written, and each once.
    """
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True)
    shown: list[str] = []
    with Live(console=console, transient=True, auto_refresh=False) as live:

        def show(*tables: tuple[str, Sequence[str], Sequence[Sequence[str]]]) -> None:
            if console.is_terminal:
                parts = [p for t, h, r in tables for p in (Text(t, "bold"), _table(h, r))]
                live.update(Group(*parts), refresh=True)
                return
            titles = [title for title, _, _ in tables]
            if titles != shown:
                shown[:] = titles
                console.print(*titles, sep="\n", highlight=False)

        yield show


@contextlib.contextmanager
def canceled_by_sigterm() -> Iterator[Event]:
    """Let a SIGTERM do what Ctrl-C does: end what runs in good order.

    Yields:
        Set by either. A KeyboardInterrupt may be lost on its way, as in a callback of a library
        or if it's taken for the failure of what is tried again: whoever goes on may look here.
    """
    asked = Event()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        asked.set()
        raise KeyboardInterrupt

    # A shell has its jobs in the background ignore Ctrl-C, and so it stays.
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    handled = (signal.SIGTERM,) if is_ignored else (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.signal(each, interrupt) for each in handled}
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Drop what libraries in C++ write to stderr meanwhile: no setting of TensorFlow's stops it."""
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int, Sequence[str]], None]]:
    """Give a function that shows how far something is, and lines about what has happened.

    It takes what is being done, how much is done and how much there is, and the lines. A bar shows
    how long it has taken and how long it still takes. Where stderr is no terminal, there are only
    the lines.
    """
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.BarColumn(bar_width=20),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("about"),
        bars.TimeRemainingColumn(elapsed_when_finished=True),
        bars.TextColumn("to go: {task.description}"),
    )
    console = Console(stderr=True)
    with bars.Progress(*columns, console=console, transient=True, speed_estimate_period=120) as bar:
        task = bar.add_task("start", total=None)

        def show(text: str, n_done: int, n_all: int, lines: Sequence[str]) -> None:
            bar.update(task, description=text, completed=n_done, total=n_all)
            for line in lines:
                console.print(line, markup=False, highlight=False, soft_wrap=True)

        yield show


@contextlib.contextmanager
def tasks() -> Iterator[Callable[[TaskRecord], None]]:
    """Give a function that shows a pipeline's tasks: those that run, and each as it ends."""
    from rich.console import Console

    console = Console(stderr=True)
    running: dict[str, None] = {}
    with console.status("start") as status:

        def on_task(task: TaskRecord) -> None:
            if task.state == "RUNNING":
                running[task.name] = None
            else:
                running.pop(task.name, None)
                console.print(task_line(task), style=_COLORS.get(task.state), highlight=False)
            status.update(", ".join(running) or "...")

        yield on_task


def task_line(task: TaskRecord) -> str:
    """Put a task that has ended into one line."""
    retried = f", attempt {task.attempt}" if task.attempt > 1 else ""
    time = f"{task.elapsed_s:6.1f} s" if task.state not in {"CACHED", "SKIPPED"} else " " * 8
    return f"{task.state:<13} {time}  {task.name}{retried}"
