"""The command `mlops-mini loop`: weeks or months of production, one after the other."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_mini import terminal
from mlops_mini.cli_lineage import AsJson, print_document
from mlops_mini.errors import AbortedError

if TYPE_CHECKING:
    from mlops_mini.loop.state import State

app = typer.Typer(
    help="Play weeks or months of production, one by one.\n\nExample: mlops-mini loop --weeks 8"
)

WEEKLY = "mlops_mini.flights.use_case:WEEKLY"

Folder = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        help="Folder of the loop; else MLOPS_MINI_HOME/loop, else ./runs/loop. A new loop empties"
        " an earlier one's.",
    ),
]


@app.callback(invoke_without_command=True)
def loop(  # noqa: PLR0917 - typer passes them by name
    context: typer.Context,
    use_case: Annotated[
        str, typer.Option(help="Which use case: module and name, such as churn:CHURN.")
    ] = WEEKLY,
    weeks: Annotated[
        int | None,
        typer.Option(
            "--weeks",
            "--periods",
            help="How many weeks (or months) to play after those that train the first model;"
            " else as many as there are.",
        ),
    ] = None,
    n_first: Annotated[
        int, typer.Option("--first", help="How many of them train the first model.")
    ] = 5,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an earlier loop was stopped or killed.")
    ] = False,
    workspace: Folder = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder with the data; else MLOPS_MINI_DATA, else ./data."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all trainings.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Play production: data arrives, models are retrained, released through Envoy, and watched.

    A year of flights, if nothing else is said. It may be stopped by Ctrl-C, and resumed.

    Example: mlops-mini loop --weeks 8
    """
    if context.invoked_subcommand:
        return
    from mlops_mini.loop import plan, play, report

    folder = _folder(workspace)
    if not resume:
        play.begin(folder, plan.of_data(use_case, data, n_first=n_first, n_played=weeks, seed=seed))
    with terminal.canceled_by_sigterm() as is_canceled, terminal.progress() as show:
        show("", 0, 1, [play.announcement(folder)])
        told = _Told()

        def on_step(state: State) -> None:
            show(*told.of(state))
            if is_canceled.is_set():
                raise KeyboardInterrupt

        try:
            play.go_on(folder, on_step=on_step)
        except KeyboardInterrupt as exc:
            again = f" --workspace {workspace}" if workspace else ""
            raise AbortedError(
                f"stopped in {told.period}; `{_program()} loop --resume{again}` goes on from there"
            ) from exc
    written = report.write(folder)
    print_document(report.record(folder), *report.tables(folder), as_json=as_json)
    if not as_json:
        typer.echo(f"{written} shows it with pictures.")


@app.command("report")
def write_report(workspace: Folder = None, as_json: AsJson = False) -> None:
    """Write the page of a loop, finished or not, and say where it is.

    Example: mlops-mini loop report
    """
    from mlops_mini.loop import report

    written = report.write(_folder(workspace))
    typer.echo(json.dumps(report.record(_folder(workspace)), indent=2) if as_json else written)


def _program() -> str:
    """Name this command as it can be typed in the current folder."""
    script, here = Path(sys.argv[0]).absolute(), Path.cwd()
    return str(script.relative_to(here)) if script.is_relative_to(here) else script.name


def _folder(workspace: Path | None) -> Path:
    from mlops_mini.workspace import runs_folder

    return workspace or runs_folder() / "loop"


class _Told:
    """What has been shown of a loop.

    Attributes:
        period: Where it is.
    """

    def __init__(self) -> None:
        self.period = "its set-up"
        self._n_events: int | None = None

    def of(self, state: State) -> tuple[str, int, int, list[str]]:
        """Make what `terminal.progress` takes: text, done, all, and a line per new event."""
        from mlops_mini.loop import play

        self.period = state.period
        n_before = len(state.events) if self._n_events is None else self._n_events
        new = state.events[n_before:]
        self._n_events = len(state.events)
        lines = [
            f"{event.period}  {event.kind}"
            f"{'' if event.version is None else f', version {event.version}'}: {event.text}"
            for event in new
        ]
        done, whole = play.progress(state)
        return f"{state.period}, {play.DOES[state.step]}", done, whole, lines
