"""The command `mlops-mini`: one thin function for each verb, without logic."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mlops_mini import cli_lineage, cli_loop, cli_release, cli_triggers, terminal
from mlops_mini.cli_lineage import AsJson, Workspace, print_document
from mlops_mini.errors import InvalidArgumentError, MlopsMiniError, NotFoundError

if TYPE_CHECKING:
    from mlops_mini.runner.records import RunRecord
    from mlops_mini.runner.runner import Runner

FLIGHTS = "mlops_mini.flights.use_case:FLIGHTS"

app = typer.Typer(
    name="mlops-mini",
    help="The whole loop of continuous training on a laptop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Data sets: check ours, send yours.", no_args_is_help=True)
app.add_typer(data_app, name="data")
pipeline_app = typer.Typer(help="The pipeline of continuous training.", no_args_is_help=True)
app.add_typer(pipeline_app, name="pipeline")
app.add_typer(cli_loop.app, name="loop")
app.add_typer(cli_release.app, name="release")
app.add_typer(cli_triggers.app, name="trigger")
app.add_typer(cli_lineage.app)

DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with the data; else MLOPS_MINI_DATA, else ./data."),
]
UseCaseName = Annotated[
    str,
    typer.Option(
        "--use-case",
        help="Which use case: module and name, such as churn:CHURN for CHURN in ./churn.py.",
    ),
]
PeriodText = Annotated[
    str, typer.Option("--period", help="Month or week to judge on, as 2013-03 or 2013-W10.")
]


def main() -> None:
    """Run the command: exit status 0, 1 (failed, one line on stderr) or 2 (flags)."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path.insert(0, str(Path.cwd()))  # where a use case of the reader's own is looked up first
    try:
        app()
    except MlopsMiniError as exc:
        sys.stderr.write(f"mlops-mini: {exc}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("mlops-mini: stopped\n")
        sys.exit(1)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the use case: NAME.py is written.")],
    table: Annotated[
        Path, typer.Option("--from", help="Parquet or CSV file with rows of the table.")
    ],
) -> None:
    """Write a first description of a table into the current folder, guessed from a file.

    Example: mlops-mini new churn --from customers.csv
    """
    from mlops_mini.scaffold import writer

    written = writer.write(name, table, Path())
    typer.echo(f"{name}.py is written, and full of guesses: review each.")
    for question in written.open_questions:
        typer.echo(f"Not guessed: {question}")
    typer.echo(f"Then: mlops-mini describe {written.use_case}")


@app.command()
def describe(
    use_case: Annotated[
        str,
        typer.Argument(help="Module and name, such as churn:CHURN for CHURN in ./churn.py."),
    ] = FLIGHTS,
    as_json: AsJson = False,
) -> None:
    """Say in words what a use case predicts, from what, and which rules its tables keep.

    Example: mlops-mini describe churn:CHURN
    """
    from mlops_mini import description
    from mlops_mini.use_case import load

    case = load(use_case)
    summary, tables = description.summary(case), description.tables(case)
    if not as_json:
        typer.echo(f"{summary}\n")
    document = {
        "summary": summary,
        "tables": [
            {"title": title, "rows": [dict(zip(header, row, strict=True)) for row in rows]}
            for title, header, rows in tables
        ],
    }
    print_document(document, *tables, as_json=as_json)


@app.command()
def serve(
    model_folder: Annotated[Path, typer.Argument(help="Folder of the model's numbered versions.")],
    name: Annotated[str, typer.Option(help="Name of the model; else the folder's name.")] = "",
    rest_port: Annotated[int, typer.Option(help="Port of the REST API.")] = 8501,
    grpc_port: Annotated[int, typer.Option(help="Port of the gRPC API.")] = 8500,
    bind_address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve a published model over TensorFlow Serving's protocol, until Ctrl-C.

    It serves the champion, and follows when that changes; if there is none, the highest version.
    For the flags of tensorflow_model_server use `mini-model-server`.

    Example: mlops-mini serve runs/loop/models/flights
    """
    from mlops_mini.model import champions, publish
    from mlops_mini.serving import server
    from mlops_mini.serving.config import ServerConfig

    publish.latest_version(model_folder)
    folder = model_folder.resolve()
    of_champion = champions.serving_config(folder) if name in ("", folder.name) else None
    server.run(
        ServerConfig(
            model_name=name or folder.name,
            model_base_path=str(folder),
            model_config_file=str(of_champion or ""),
            model_config_file_poll_wait_seconds=1,
            rest_api_port=rest_port,
            port=grpc_port,
            bind_address=bind_address,
        )
    )


@app.command()
def predict(
    version: Annotated[
        Path, typer.Argument(help="Folder of a version, or of a model: then its latest version.")
    ],
    table: Annotated[Path, typer.Argument(help="Parquet or CSV file; the label isn't needed.")],
    use_case: UseCaseName,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the tables that features look back at.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file to write; else print it.")] = None,
) -> None:
    """Predict for each row of a file: CSV with its key and the probability that the label is 1.

    Example: mlops-mini predict runs/pipeline/models/churn new.csv --use-case churn:CHURN
    """
    from mlops_mini.pipeline import scoring
    from mlops_mini.use_case import load

    if out is not None and out.resolve() == table.resolve():
        raise InvalidArgumentError(f"--out {out} would replace the rows: name another file")
    case = load(use_case)
    with terminal.quiet_libraries():
        predictions = scoring.score(case, version, table, data_folder=data)
    if out is None:
        typer.echo(predictions.to_csv(index=False), nl=False)
    else:
        scoring.write(predictions, out)
        typer.echo(f"{out}: {len(predictions):,} predictions")


@app.command()
def review(
    queue: Annotated[
        Path | None,
        typer.Argument(
            help="File of the queue; else MLOPS_MINI_HOME/review.sqlite, else ./runs/review.sqlite."
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the page; 0: any free one.")] = 8600,
    bind_address: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's need a token.")
    ] = "127.0.0.1",
    token: Annotated[
        str, typer.Option(help="Token to ask for; by default one is made where it's needed.")
    ] = "",
) -> None:
    """Let people decide, in a browser, what waits in a review queue, until Ctrl-C.

    Example: mlops-mini review runs/11/review.sqlite
    """
    from mlops_mini.review import web
    from mlops_mini.review.queue import ReviewQueue
    from mlops_mini.workspace import runs_folder

    with ReviewQueue(queue or runs_folder() / "review.sqlite") as opened:
        web.serve(
            opened,
            bind_address=bind_address,
            port=port,
            token=token,
            on_start=lambda where: typer.echo(f"review at {where}"),
        )


@data_app.command()
def check(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Read every data set, check it against its checksum, and count its rows.

    Example: mlops-mini data check
    """
    from mlops_mini.flights import datasets
    from mlops_mini.photos import datasets as photos

    n_rows = datasets.count_rows(folder=data) | photos.count_rows(folder=data)
    rows = [(file, f"{n:,}") for file, n in n_rows.items()]
    print_document(n_rows, ("Data sets", ("file", "rows"), rows), as_json=as_json)


@data_app.command()
def send(
    file: Annotated[Path, typer.Argument(help="Parquet or CSV file with rows of one table.")],
    use_case: UseCaseName,
    data: Annotated[Path, typer.Option("--data", help="Data folder; made if it isn't there.")],
    table: Annotated[str, typer.Option(help="Which table; needed if there are several.")] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace months or weeks that hold other rows.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Cut a file into months or weeks, and put them into a data folder, each whole or not at all.

    Example: mlops-mini data send customers.csv --use-case churn:CHURN --data data
    """
    from mlops_mini.data import storing
    from mlops_mini.use_case import load, naming

    case = load(use_case)
    with naming(case):
        parts = storing.store(
            file, case.table(table), calendar=case.calendar, folder=data, is_replacing=replace
        )
    rows = [(str(part.period), f"{part.n_rows:,}", part.outcome) for part in parts]
    document = [
        {"period": str(part.period), "n_rows": part.n_rows, "outcome": part.outcome}
        for part in parts
    ]
    title = f"{file} in {data / case.table(table).name}"
    print_document(
        document, (title, (case.calendar.unit, "rows", "outcome"), rows), as_json=as_json
    )


@pipeline_app.command("run")
def run_pipeline(  # noqa: PLR0917 - typer passes them by name
    period: PeriodText,
    workspace: Workspace = None,
    data: DataFolder = None,
    use_case: UseCaseName = FLIGHTS,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    n_train_periods: Annotated[
        int | None,
        typer.Option("--train-periods", help="Train on this many before it; else on all."),
    ] = None,
    holdout_days: Annotated[
        int, typer.Option(help="Days at the end that judge before they train.")
    ] = 14,
    warm_start: Annotated[
        bool, typer.Option("--warm-start", help="Go on training from the version before.")
    ] = False,
    challenger: Annotated[bool, typer.Option(help="Train XGBoost too, to compare.")] = True,
    resume: Annotated[
        str, typer.Option(help="Go on with this run, which was killed, canceled or has failed.")
    ] = "",
    inline: Annotated[
        bool, typer.Option("--inline", help="Run tasks in this process, for a debugger.")
    ] = False,
    runner_name: Annotated[
        Literal["process", "docker"],
        typer.Option("--runner", help="Run each task as a process, or in a container."),
    ] = "process",
    as_json: AsJson = False,
) -> None:
    """Train, judge on the last days of a period, and publish what the gate blesses.

    With --runner docker, each task runs in the image that its component names, without a network,
    and sees only its own files; `make image` builds the images.

    Example: mlops-mini pipeline run --period 2013-03
    """
    from mlops_mini.pipeline import definition
    from mlops_mini.runner.runner import Runner
    from mlops_mini.runner.tasks import Mode
    from mlops_mini.use_case import load
    from mlops_mini.workspace import runs_folder

    folder = workspace or runs_folder() / "pipeline"
    arguments = None
    if not resume:  # before anything is made in the workspace
        arguments = definition.arguments(
            use_case,
            period,
            models_folder=folder / "models" / load(use_case).name,
            verdicts_folder=folder / "verdicts",
            data_folder=data,
            n_train_periods=n_train_periods,
            holdout_days=holdout_days,
            seed=seed,
            is_warm_start=warm_start,
            with_challenger=challenger,
        )
    mode: Mode = "docker" if runner_name == "docker" else "inline" if inline else "fork"
    with (
        terminal.tasks() as on_task,
        Runner(folder / "runs", mode=mode, volumes=definition.VOLUMES, on_task=on_task) as runner,
        terminal.canceled_by_sigterm(),
    ):
        if resume:
            run = runner.resume(resume, definition.continuous_training)
        else:
            run = runner.run(definition.continuous_training, arguments)
    _print_run(run, as_json=as_json)


@pipeline_app.command("compile")
def compile_pipeline(
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("pipeline.yaml"),
    image: Annotated[
        list[str] | None, typer.Option(help="NAME=NAME@sha256:..., for each image in it.")
    ] = None,
) -> None:
    """Write the pipeline as Kubeflow takes it, after checking that it would.

    Example: mlops-mini pipeline compile --out pipeline.yaml
    """
    from mlops_mini.pipeline import definition, kubeflow

    kubeflow.check(definition.continuous_training)
    file = definition.write_package(out)
    if image:
        pairs = [each.partition("=") for each in image]
        file.write_text(kubeflow.pinned(file, {name: digest for name, _, digest in pairs}))
    typer.echo(file)


@pipeline_app.command()
def submit(  # noqa: PLR0917 - typer passes them by name
    period: PeriodText,
    host: Annotated[str, typer.Option(help="Kubeflow's address, such as http://localhost:8080.")],
    models: Annotated[
        Path, typer.Option(help="Folder of the model's versions, as the tasks there see it.")
    ] = Path("/mnt/models/flights"),
    verdicts: Annotated[
        Path, typer.Option(help="Folder of verdicts, as the tasks there see it.")
    ] = Path("/mnt/verdicts"),
    data_there: Annotated[
        str, typer.Option(help="Data folder, as the tasks there see it.")
    ] = "/mnt/data",
    cron: Annotated[str, typer.Option(help="Run again and again: six fields, seconds first.")] = "",
    package: Annotated[
        Path | None, typer.Option(help="File that `compile` wrote; else it's compiled now.")
    ] = None,
    data: DataFolder = None,
    use_case: UseCaseName = FLIGHTS,
) -> None:
    """Hand the pipeline to Kubeflow, once or on a schedule.

    Example: mlops-mini pipeline submit --host http://localhost:8080 --period 2013-03
    """
    from mlops_mini.pipeline import definition, kubeflow

    arguments = definition.arguments(
        use_case, period, models_folder=models, verdicts_folder=verdicts, data_folder=data
    )
    arguments["data_folder"] = data_there
    handed = package or definition.continuous_training
    typer.echo(kubeflow.submit(handed, host=host, arguments=arguments, cron=cron or None))


@pipeline_app.command("runs")
def list_runs(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """List the runs of a workspace, newest first; INTERRUPTED ones were killed.

    Example: mlops-mini pipeline runs
    """
    with _runner(workspace) as runner:
        found = runner.runs()
    rows = [(run.id, run.state, run.started_at[5:16], run.reason) for run in found]
    table = ("Runs", ("run", "state", "UTC", "why"), rows)
    print_document([dataclasses.asdict(run) for run in found], table, as_json=as_json)


@pipeline_app.command()
def show(
    run: Annotated[str, typer.Argument(help="Id of a run, as `runs` lists it.")],
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Show the tasks of a run.

    Example: mlops-mini pipeline show on_demand-b944dc9399f9 --workspace runs/loop
    """
    with _runner(workspace) as runner:
        found = runner.show(run)
    _print_run(found, as_json=as_json)


@pipeline_app.command()
def prepare() -> None:
    """Make the environments that components need, once, so that no run needs a network.

    Example: mlops-mini pipeline prepare
    """
    from mlops_mini.pipeline import definition
    from mlops_mini.runner import environments, spec

    for python in environments.prepare(spec.load(definition.continuous_training)):
        typer.echo(python)


def _runner(workspace: Path | None) -> Runner:
    """Open what pipelines have left in a workspace; asking makes none."""
    from mlops_mini.runner.runner import Runner
    from mlops_mini.workspace import runs_folder

    folder = workspace or runs_folder() / "pipeline"
    if not (folder / "runs").is_dir():
        raise NotFoundError(
            f"no runs in {folder}: name the workspace of an earlier run by --workspace"
        )
    return Runner(folder / "runs")


def _print_run(run: RunRecord, *, as_json: bool) -> None:
    from mlops_mini.pipeline.report import run_tables

    print_document(dataclasses.asdict(run), *run_tables(run), as_json=as_json)


if __name__ == "__main__":
    main()
