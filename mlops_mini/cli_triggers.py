"""The command `mlops-mini trigger`: why a model is retrained."""

from __future__ import annotations

import dataclasses
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_mini import terminal
from mlops_mini.cli_lineage import AsJson, Workspace
from mlops_mini.errors import InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from mlops_mini.triggers.ledger import Entry, Ledger
    from mlops_mini.triggers.settings import Settings

app = typer.Typer(help="Why a model is retrained, and when it was.", no_args_is_help=True)


@app.command("list")
def list_(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Show the five reasons, when each fires, and what became of the last time.

    Example: mlops-mini trigger list --workspace runs/loop
    """
    settings, ledger = _opened(workspace)
    rows = []
    for kind, when in settings.rows():
        last = next(iter(ledger.entries(kind=kind, limit=1)), None)
        fired_at = f"{last.fired_at:%Y-%m-%d %H:%M}" if last else "-"
        rows.append((kind, when, fired_at, last.state if last else "-"))
    now = datetime.now(UTC)
    following = settings.schedule.next(now).isoformat() if settings.schedule else ""
    if as_json:
        header = ("kind", "when", "last_fired_at", "state")
        reasons = [dict(zip(header, row, strict=True)) for row in rows]
        typer.echo(json.dumps({"reasons": reasons, "next_scheduled": following}, indent=2))
        return
    cool_down = settings.limits.cool_down
    title = f"Reasons to retrain, cool-down {cool_down}" if cool_down else "Reasons to retrain"
    terminal.print_table(title, ("reason", "fires", "last fired (UTC)", "state"), rows)
    if following:
        typer.echo(f"next by schedule: {following}")


@app.command()
def fire(
    reason: Annotated[str, typer.Option(help="Why, for the ledger.")],
    workspace: Workspace = None,
    request_id: Annotated[
        str, typer.Option(help="The same id again changes nothing; made up if not given.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Ask for a retraining; whoever works at the ledger runs it next.

    Example: mlops-mini trigger fire --reason "the new prices are out"
    """
    from mlops_mini.triggers import reasons

    _, ledger = _opened(workspace)
    fired = ledger.fire(reasons.on_demand(request_id or secrets.token_hex(8), reason=reason))
    if as_json:
        typer.echo(json.dumps({"verdict": fired.verdict, **_document(fired.entry)}, indent=2))
        return
    why = f": {fired.entry.suppressed_by}" if fired.verdict == "SUPPRESSED" else ""
    typer.echo(f"{fired.verdict} {fired.entry.key}{why}")


@app.command()
def history(
    workspace: Workspace = None,
    kind: Annotated[str, typer.Option(help="Only this reason, such as drift.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many lines.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the ledger, newest first: what fired, and what came of it.

    Example: mlops-mini trigger history --kind drift
    """
    _, ledger = _opened(workspace)
    entries = ledger.entries(kind=kind, limit=limit)
    if as_json:
        typer.echo(json.dumps([_document(entry) for entry in entries], indent=2))
        return
    header = ("key", "fired (UTC)", "state", "run", "outcome")
    rows = [
        (
            entry.key,
            f"{entry.fired_at:%Y-%m-%d %H:%M}",
            entry.state,
            entry.run_id or "-",
            entry.outcome or entry.suppressed_by or "-",
        )
        for entry in entries
    ]
    terminal.print_table(f"{len(rows)} firings, newest first", header, rows)


@app.command()
def export(
    target: Annotated[str, typer.Argument(help="kubeflow, vertex or argo.")],
    name: Annotated[str, typer.Option(help="How it's listed there.")],
    workspace: Workspace = None,
    package: Annotated[
        Path | None, typer.Option(help="Compiled pipeline; not needed for argo.")
    ] = None,
    parent: Annotated[str, typer.Option(help="Vertex: projects/P/locations/L.")] = "",
    root: Annotated[str, typer.Option(help="Vertex: folder for outputs, gs://...")] = "",
    image: Annotated[str, typer.Option(help="Argo: image with mlops-mini.")] = "mlops-mini:0.1.0",
) -> None:
    """Print the schedule for Kubeflow or Vertex AI, or all triggers for Argo Events.

    Example: mlops-mini trigger export kubeflow --name weekly --package pipeline.yaml
    """
    import yaml

    from mlops_mini.runner import spec
    from mlops_mini.triggers import exports

    settings, _ = _opened(workspace)
    if target == "argo":
        manifests = exports.argo_events(settings.schedule, name=name, image=image)
        typer.echo(yaml.safe_dump_all(manifests, sort_keys=False), nl=False)
        return
    if target not in ("kubeflow", "vertex"):
        raise InvalidArgumentError(f"no target {target!r}: use kubeflow, vertex or argo")
    if settings.schedule is None or package is None:
        raise InvalidArgumentError(
            f"{target} needs a schedule, in triggers.yaml of the workspace, and --package"
        )
    pipeline = spec.load(package).spec
    body = (
        exports.kubeflow_recurring_run(settings.schedule, pipeline, name=name)
        if target == "kubeflow"
        else exports.vertex_schedule(
            settings.schedule, pipeline, name=name, parent=parent, root=root
        )
    )
    typer.echo(json.dumps(body, indent=2))


def _opened(workspace: Path | None) -> tuple[Settings, Ledger]:
    from mlops_mini.triggers import settings as settings_module
    from mlops_mini.triggers.ledger import Ledger
    from mlops_mini.workspace import runs_folder

    folder = workspace or runs_folder() / "pipeline"
    if not folder.is_dir():
        raise NotFoundError(f"no workspace {folder}: name one by --workspace, or run the pipeline")
    settings = settings_module.read(folder / settings_module.FILE)
    return settings, Ledger(folder / settings_module.LEDGER, limits=settings.limits)


def _document(entry: Entry) -> dict[str, Any]:
    document = dataclasses.asdict(entry)
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in document.items()}
