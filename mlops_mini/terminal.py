"""Show work under way, and tables, in a terminal: progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
def canceled_by_sigterm() -> Iterator[None]:
    """Let a SIGTERM do what Ctrl-C does: end what runs in good order."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
def steps() -> Iterator[tuple[Callable[[str, int, int], None], Callable[[TaskRecord], None]]]:
    """Give two functions: one shows a step as it begins, the other a task as it ends.

    A step is its text, how many are done and how many there are.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("start")

        def on_step(text: str, n_done: int, n_all: int) -> None:
            progress.update(task, description=text, completed=n_done, total=n_all)
            console.print(f"[{n_done + 1}/{n_all}] {text}", markup=False, highlight=False)

        def on_task(task: TaskRecord) -> None:
            if task.ended_at:
                console.print("      " + task_line(task), style="dim", highlight=False)

        yield on_step, on_task


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
