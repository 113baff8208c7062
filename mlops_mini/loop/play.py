"""Plays the loop: flights arrive, a model is trained, judged, published, served, asked, replaced.

The only module that knows all the others. The pipeline runs twice: its first run learns the first
month, its second the first and the second; the third, which neither has seen, judges both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini import processes
from mlops_mini.data.periods import Period
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features import events, online
from mlops_mini.features.store import Store
from mlops_mini.flights import arrivals, datasets, times
from mlops_mini.flights.arrivals import Arrivals, Partition
from mlops_mini.local_server import LocalServer, Transport
from mlops_mini.loop.report import Questions, Report
from mlops_mini.model import evaluation, publish
from mlops_mini.model.evaluation import Metrics, Verdict
from mlops_mini.pipeline import definition
from mlops_mini.runner.records import RunRecord, TaskRecord
from mlops_mini.runner.runner import Runner
from mlops_mini.workspace import emptied

MODEL_NAME = "flights"
_MARK = ".mlops-mini-loop"
_N_STEPS = 7
_TRANSPORTS: tuple[Transport, ...] = ("rest", "grpc")

Array = npt.NDArray[Any]
OnStep = Callable[[str, int, int], None]


def play(
    *,
    first: Period,
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
        first: The month that the first model is trained on; the two that follow are needed too.
        data_folder: Where the flights are; see `datasets.data_folder`.
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
        NotFoundError: The data folder or a month is not there.
        DataIntegrityError: A file is not what it should be, or too many of its rows are refused.
        UnavailableError: The model server ended before its time.
        AbortedError: A task of the pipeline has failed.
        AlreadyExistsError: Another loop is at work in the workspace.
        FailedPreconditionError: The workspace is not a loop's; see `workspace.emptied`. Nothing in
            it or beside it has changed.
    """
    if first.kind != "month":
        raise InvalidArgumentError(f"the loop plays months, got {first}: use one like 2013-01")
    second, third = first.next(), first.next().next()
    n_done = itertools.count()

    def begin(step: str) -> None:
        on_step(step, next(n_done), _N_STEPS)

    owned = emptied(
        workspace,
        mark=_MARK,
        owner="a loop",
        way_out="name an empty or a new folder as workspace",
        needed=[datasets.data_folder(data_folder)],
    )
    with (
        owned,
        processes.native_stderr_to(workspace / "native.log") if is_quiet else nullcontext(),
    ):
        begin(f"read and check {first}, {second} and {third}")
        arrived = arrivals.read((first, second, third), data_folder=data_folder)
        partitions = arrived.partitions
        arrived.quarantined.to_csv(workspace / "quarantine.csv", index=False)

        models = workspace / "models" / MODEL_NAME
        with Runner(workspace / "runs", on_task=on_task) as runner:

            def run_pipeline(newest: Period, *, n_train_periods: int) -> RunRecord:
                arguments = definition.arguments(
                    newest,
                    models_folder=models,
                    verdicts_folder=workspace / "verdicts",
                    data_folder=data_folder,
                    n_train_periods=n_train_periods,
                    seed=seed,
                )
                return runner.run(definition.flights, arguments, run_id=f"judged-on-{newest}")

            begin(f"pipeline: a first model learns {first}, judged on {second}")
            run_pipeline(second, n_train_periods=1)
            published = publish.latest_version(models)

            begin("start the model server")
            with (
                LocalServer(models, workspace / "server") as server,
                Store(workspace / "features.sqlite") as store,
            ):
                server.wait_until_served(published.version)
                begin(f"ask version {published.version} about flights of {second}")
                replayed = _replay(arrived, partitions[1], store, n_questions)
                before = _ask(server, published, replayed)

                begin(f"pipeline: a candidate learns {first} and {second}, judged on {third}")
                judged = run_pipeline(third, n_train_periods=2)

                published = publish.latest_version(models)
                begin(f"wait until version {published.version} is served")
                server.wait_until_served(published.version)
                begin(f"ask version {published.version} about flights of {third}")
                replayed = _replay(arrived, partitions[2], store, n_questions)
                after = _ask(server, published, replayed)
    return Report(
        partitions=partitions,
        metrics=_metrics(judged),
        verdict=_verdict(judged),
        before=before,
        after=after,
    )


def _metrics(run: RunRecord) -> dict[str, Metrics]:
    """Read how good the models are that a run has measured, by what they are in it."""
    evaluated, scored = (
        evaluation.overall(Path(task.outputs["artifacts"]["metrics"]["uri"]))
        for name in ("evaluate", "score")
        for task in run.tasks.values()
        if task.component == name
    )
    return {**evaluated, "challenger": scored["candidate"]}


def _verdict(run: RunRecord) -> Verdict:
    (gate,) = (task for task in run.tasks.values() if task.component == "gate")
    said = gate.outputs["parameters"]
    return Verdict(is_blessed=said["blessed"], reason=said["reason"])


def _replay(
    arrived: Arrivals, partition: Partition, store: Store, n_questions: int
) -> tuple[list[dict[str, Array]], pd.DataFrame]:
    """Live through the first flights of a period: what has happened goes into the store.

    Returns:
        The request about each flight, made from the store when its prediction is due; and the same
        features as training would have them, one row each.
    """
    due = times.scheduled_departure(partition.flights) - times.HORIZON
    first = due.sort_values(kind="stable").index[:n_questions]
    requests = []
    for index in first:
        at = due[index].to_pydatetime()
        store.apply(events.between(arrived.stream, store.as_of, at), up_to=at)
        flight = {str(k): v for k, v in partition.flights.loc[index].to_dict().items()}
        features = online.compute(flight, store=store, zones=arrived.zones)
        requests.append({name: _array_of_one(value) for name, value in features.items()})
    return requests, partition.features.loc[partition.flights.loc[first, "flight_id"]]


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
