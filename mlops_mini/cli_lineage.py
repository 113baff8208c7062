"""The verbs of `mlops-mini` that ask where a version comes from, and that decide what serves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_mini import terminal
from mlops_mini.errors import AbortedError, FailedPreconditionError

if TYPE_CHECKING:
    from mlops_mini.description import TextTable

app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Workspace = Annotated[
    Path | None,
    typer.Option(
        help="Folder of models, verdicts, runs;"
        " else MLOPS_MINI_HOME/pipeline, else ./runs/pipeline."
    ),
]
Model = Annotated[str, typer.Option("--model", help="Name of the model, if there are several.")]


@app.command()
def explain(
    version: Annotated[str, typer.Argument(help="Number of a version, or id of a run.")],
    workspace: Workspace = None,
    model: Model = "",
    picture: Annotated[
        Path | None, typer.Option(help="Draw it, too: a file that ends in .svg or .png.")
    ] = None,
    openlineage: Annotated[
        Path | None, typer.Option(help="Write the run's OpenLineage events to this file, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which data, code, parameters and verdict made a version, and what served around it.

    Exit status 1 if anything of it is missing or was edited.

    Example: mlops-mini explain 2 --workspace runs/loop
    """
    from mlops_mini.lineage import lineage, report
    from mlops_mini.lineage import openlineage as events

    found = lineage.find(workspace_folder(workspace), version, model=model)
    if picture:
        _draw(found, picture)
    if openlineage:
        events.write(found, openlineage)
    print_document(report.document(found), *report.tables(found), as_json=as_json)
    if found.problems:
        raise FailedPreconditionError(
            f"{found.name}: {len(found.problems)} missing or edited: {found.problems[0]}"
        )


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="Number of a version, or id of a run.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    workspace: Workspace = None,
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """List what differs between two versions or runs: parameters, data, code, packages, metrics.

    Example: mlops-mini compare 1 2 --workspace runs/loop
    """
    from mlops_mini.lineage import compare as comparing
    from mlops_mini.lineage import lineage

    pair = [
        lineage.find(workspace_folder(workspace), name, model=model) for name in (first, second)
    ]
    differences = comparing.compare(*pair)
    table = comparing.table(differences, (pair[0].name, pair[1].name))
    print_document([dataclasses.asdict(each) for each in differences], table, as_json=as_json)


@app.command()
def reproduce(
    run: Annotated[str, typer.Argument(help="Id of a run, as `pipeline runs` lists it.")],
    workspace: Workspace = None,
    scratch: Annotated[
        Path | None, typer.Option(help="Where to run again; else WORKSPACE/reproduced/RUN.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference of AUC and log loss that is no difference.")
    ] = 0.002,
    as_json: AsJson = False,
) -> None:
    """Run a run again from the inputs that it has recorded, and list what comes out differently.

    Example: mlops-mini reproduce on_demand-b944dc9399f9 --workspace runs/loop
    """
    from mlops_mini.lineage import reproduce as reproducing

    folder = workspace_folder(workspace)
    with terminal.tasks() as on_task:
        result = reproducing.reproduce(
            folder,
            run,
            scratch=scratch or folder / "reproduced" / run,
            tolerance=tolerance,
            on_task=on_task,
        )
    print_document(reproducing.document(result), *reproducing.tables(result), as_json=as_json)
    if not result.is_reproduced:
        raise AbortedError(
            f"{run} is not reproduced: metrics differ by up to"
            f" {result.largest_metric_difference:.2g}, {tolerance:g} is allowed"
        )


@app.command()
def history(workspace: Workspace = None, model: Model = "", as_json: AsJson = False) -> None:
    """List a model's runs with their verdicts, and which version was the champion when.

    Example: mlops-mini history --workspace runs/loop
    """
    from mlops_mini.lineage import history as histories

    found = histories.read(workspace_folder(workspace), model=model)
    print_document(histories.document(found), *histories.tables(found), as_json=as_json)


@app.command()
def approve(
    run: Annotated[str, typer.Argument(help="Id of a run whose verdict is undecided.")],
    by: Annotated[str, typer.Option(help="Who takes the responsibility.")],
    workspace: Workspace = None,
) -> None:
    """Publish the candidate of a run that the gate has neither blessed nor refused.

    Example: mlops-mini approve new_data-dc6e2080d5d2 --by ada
    """
    from mlops_mini.lineage import approval

    published = approval.approve(workspace_folder(workspace), run, by=by)
    typer.echo(f"version {published.version} is the champion: {published.path}")


@app.command()
def rollback(
    version: Annotated[int, typer.Argument(help="The champion that is taken back.")],
    workspace: Workspace = None,
    model: Model = "",
    by: Annotated[str, typer.Option(help="Who does it.")] = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Make the version before the champion the champion again; the folder of neither is touched.

    Example: mlops-mini rollback 2 --reason "too slow"
    """
    from mlops_mini.lineage import lineage
    from mlops_mini.model import champions

    folder = workspace_folder(workspace)
    models = folder / "models" / lineage.model_of(folder, model)
    move = champions.roll_back(models, version, by=by, reason=reason)
    typer.echo(f"version {move.version} is the champion; `mlops-mini reconcile` tells the registry")


@app.command()
def reconcile(workspace: Workspace = None, model: Model = "", as_json: AsJson = False) -> None:
    """Mend what killed publishers and deleted folders have left, and have MLflow show all runs.

    Example: mlops-mini reconcile --workspace runs/loop
    """
    from mlops_mini.lineage import browse

    changed = browse.sync(workspace_folder(workspace), model=model)
    rows = [(text,) for text in changed] or [("nothing to mend",)]
    print_document(changed, ("Reconciled", ("what",), rows), as_json=as_json)


@app.command()
def prune(
    workspace: Workspace = None,
    model: Model = "",
    keep: Annotated[int, typer.Option(help="Newest versions, and newest runs, that stay.")] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, only tell.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove old versions and runs, but none that serves, can serve again, or explains one.

    Example: mlops-mini prune --keep 5 --dry-run
    """
    from mlops_mini.lineage import pruning

    pruned = pruning.prune(workspace_folder(workspace), model=model, keep=keep, is_dry=dry_run)
    rows = [("version", str(version)) for version in pruned.versions]
    rows += [("run", run) for run in pruned.runs]
    title = f"{'Would be removed' if dry_run else 'Removed'}: {pruned.n_bytes / 1e6:.1f} MB"
    table = (title, ("what", "which"), rows or [("nothing", "")])
    print_document(dataclasses.asdict(pruned), table, as_json=as_json)


def workspace_folder(workspace: Path | None) -> Path:
    """Tell the folder of models, verdicts and runs, named or not."""
    from mlops_mini.workspace import runs_folder

    return workspace or runs_folder() / "pipeline"


def _draw(found: Any, file: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise FailedPreconditionError(
            f"{file} can't be drawn without matplotlib: `pip install mlops_mini[notebooks]`"
        ) from exc
    from mlops_mini.lineage import picture

    figure = Figure(figsize=(11, 5.4))
    picture.plot(found, figure.add_subplot())
    figure.savefig(file, bbox_inches="tight")


def print_document(document: Any, *tables: TextTable, as_json: bool) -> None:
    """Print JSON for scripts, or tables for people."""
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    for table in tables:
        terminal.print_table(*table)
