"""Plays the loop: data arrives, a model is trained, judged, published, served, asked, replaced.

The pipeline runs twice: its first run learns the first period, its second the first and the second;
the third, which neither has seen, judges both. What the loop itself reads is what the pipeline's
tasks have written, so each row is checked once.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini import processes, use_case
from mlops_mini import workspace as workspaces
from mlops_mini.data import rules
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import feature_set, online
from mlops_mini.features.store import Store
from mlops_mini.local_server import LocalServer, Transport
from mlops_mini.loop.report import Questions, Report, Sorted
from mlops_mini.model import evaluation, publish
from mlops_mini.model.evaluation import Metrics, Verdict
from mlops_mini.pipeline import definition, examples
from mlops_mini.pipeline.examples import Examples, PeriodOfExamples
from mlops_mini.runner.records import RunRecord, TaskRecord
from mlops_mini.runner.runner import Runner

_MARK = ".mlops-mini-loop"
_N_STEPS = 7
_TRANSPORTS: tuple[Transport, ...] = ("rest", "grpc")

Array = npt.NDArray[Any]
OnStep = Callable[[str, int, int], None]


def play(
    name: str,
    *,
    first: str,
    data_folder: Path | None = None,
    workspace: Path,
    n_questions: int = 200,
    seed: int = 0,
    is_quiet: bool = False,
    on_step: OnStep = lambda _step, _n_done, _n_all: None,
    on_task: Callable[[TaskRecord], None] = lambda _task: None,
) -> Report:
    """Play two months, and a third to judge them.

    Args:
        name: Dotted name of the use case, such as churn:CHURN.
        first: The month that the first model is trained on; the two that follow are needed too.
        data_folder: Holds the use case's tables; without it `workspace.data_folder()`.
        workspace: Receives models, logs and the record of rows set aside. It is emptied first, if
            it is an earlier loop's, and refused if it is anything but that, empty or not there.
        n_questions: Predictions to ask for over each transport, before and after the verdict.
        seed: Of the training.
        is_quiet: Whether what compiled libraries write to stderr goes to `native.log` in the
            workspace.
        on_step: Told what begins, how many steps are done and how many there are.
        on_task: Told of each change of a pipeline's task, in another thread.

    Returns:
        What happened.

    Raises:
        NotFoundError: The use case, the data folder or a month is not there.
        DataIntegrityError: A file is not what it should be, or too many of its rows are refused.
        UnavailableError: The model server ended before its time.
        AbortedError: A task of the pipeline has failed.
        AlreadyExistsError: Another loop is at work in the workspace.
        FailedPreconditionError: The workspace is not a loop's; see `workspace.emptied`. Nothing in
            it or beside it has changed.
    """
    case = use_case.load(name)
    period = case.calendar.period(first)
    if period.kind != "month":
        raise InvalidArgumentError(f"the loop plays months, got {period}: use one like 2013-01")
    months = (period, period.next(), period.next().next())
    first_month, second, third = months
    data = workspaces.existing_data_folder(data_folder)
    n_done = itertools.count()

    def begin(step: str) -> None:
        on_step(step, next(n_done), _N_STEPS)

    owned = workspaces.emptied(
        workspace,
        mark=_MARK,
        owner="a loop",
        way_out="name an empty or a new folder as workspace",
        needed=[data],
    )
    with (
        owned,
        processes.native_stderr_to(workspace / "native.log") if is_quiet else nullcontext(),
    ):
        begin(f"look for {first_month}, {second} and {third}")
        examples.digest(case, months, data_folder=data)

        models = workspace / "models" / case.name
        with Runner(workspace / "runs", on_task=on_task) as runner:

            def run_pipeline(newest: str, *, n_train_periods: int) -> RunRecord:
                arguments = definition.arguments(
                    name,
                    newest,
                    models_folder=models,
                    verdicts_folder=workspace / "verdicts",
                    data_folder=data,
                    n_train_periods=n_train_periods,
                    seed=seed,
                )
                return runner.run(
                    definition.continuous_training, arguments, run_id=f"judged-on-{newest}"
                )

            begin(f"pipeline: a first model learns {first_month}, judged on {second}")
            trained = run_pipeline(str(second), n_train_periods=1)
            published = publish.latest_version(models)

            begin("start the model server")
            with (
                LocalServer(models, workspace / "server") as server,
                Store(workspace / "features.sqlite", case.feature_set) as store,
            ):
                server.wait_until_served(published.version)
                begin(f"ask version {published.version} about {case.examples.name} of {second}")
                known = examples.read(case, months[:2], data_folder=_artifact(trained, "clean"))
                before = _ask(server, published, _replay(known, store, n_questions))

                begin(f"pipeline: a candidate learns {first_month} and {second}, judged on {third}")
                judged = run_pipeline(str(third), n_train_periods=2)

                published = publish.latest_version(models)
                begin(f"wait until version {published.version} is served")
                server.wait_until_served(published.version)
                begin(f"ask version {published.version} about {case.examples.name} of {third}")
                known = examples.read(case, months, data_folder=_artifact(judged, "clean"))
                after = _ask(server, published, _replay(known, store, n_questions))
        quarantined = _quarantined(judged, known.periods)
        quarantined.to_csv(workspace / "quarantine.csv", index=False)
    return Report(
        table=case.examples.name,
        label=case.label.name,
        partitions=[_sorted(part, quarantined, case.examples.name) for part in known.periods],
        findings=_artifact(judged, "findings").read_text().splitlines(),
        metrics=_metrics(judged),
        verdict=_verdict(judged),
        before=before,
        after=after,
    )


def _artifact(run: RunRecord, name: str) -> Path:
    """Find the one artifact of this name that a run's tasks have written."""
    (artifact,) = (
        task.outputs["artifacts"][name]
        for task in run.tasks.values()
        if name in task.outputs.get("artifacts", {})
    )
    return Path(artifact["uri"])


def _quarantined(run: RunRecord, periods: Sequence[PeriodOfExamples]) -> pd.DataFrame:
    """Read which rows of some periods were set aside; a run looks at the one before them too."""
    lines = pd.read_csv(_artifact(run, "quarantined"), dtype=str, keep_default_na=False)
    return lines[lines["period"].isin([str(part.period) for part in periods])]


def _sorted(part: PeriodOfExamples, quarantined: pd.DataFrame, table: str) -> Sorted:
    """Count what a period's rows are good for."""
    lines = quarantined[quarantined["period"] == str(part.period)]
    n_quarantined = lines.loc[lines["table"] == table, "row"].nunique()
    return Sorted(
        period=str(part.period),
        n_arrived=len(part.rows) + n_quarantined,
        n_quarantined=n_quarantined,
        n_without_label=part.n_without_label,
        refused=dict(Counter(rules.reasons(lines))),
    )


def _metrics(run: RunRecord) -> dict[str, Metrics]:
    """Read how good the models are that a run has measured, by what they are in it."""
    evaluated, scored = (
        evaluation.overall(run.task(name).artifact("metrics")) for name in ("evaluate", "score")
    )
    return {**evaluated, "challenger": scored["candidate"]}


def _verdict(run: RunRecord) -> Verdict:
    gate = run.task("gate")
    return Verdict(is_blessed=gate.parameter("blessed"), reason=gate.parameter("reason"))


def _replay(
    known: Examples, store: Store, n_questions: int
) -> tuple[list[dict[str, Array]], pd.DataFrame]:
    """Live through the first rows of the last period: what has happened goes into the store.

    Returns:
        The request about each row, made from the store when its prediction is due; and the same
        features as training would have them, one row each.
    """
    newest, features = known.periods[-1], known.use_case.feature_set
    due = newest.rows[features.time] + feature_set.offset(features.due)
    first = due.sort_values(kind="stable").index[:n_questions]
    asked = newest.rows.loc[first]
    served = online.replay(
        asked, features, known.stream, store=store, prepare=known.use_case.examples.prepare
    )
    requests = [
        {str(name): _array_of_one(value) for name, value in row.items()}
        for row in served.to_dict("records")
    ]
    return requests, newest.features.loc[asked[features.key]]


def _array_of_one(value: str | float) -> Array:
    return np.array([value], object if isinstance(value, str) else np.float32)


def _ask(
    server: LocalServer,
    published: publish.PublishedVersion,
    replayed: tuple[list[dict[str, Array]], pd.DataFrame],
) -> Questions:
    """Send each request over each transport; compare with the model run on training's features."""
    requests, features = replayed
    own = evaluation.predict(published.path, features)
    asked: dict[str, int] = {}
    differences: dict[str, float] = {}
    for transport in _TRANSPORTS:
        with server.client(transport) as client:
            answers = [client.predict(request)["probability"][0] for request in requests]
        asked[transport] = len(answers)
        differences[transport] = float(np.abs(np.array(answers) - own).max())
    return Questions(version=published.version, n_asked=asked, max_difference=differences)
