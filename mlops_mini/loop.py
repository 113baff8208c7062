"""Plays the loop: flights arrive, a model is trained, judged, published, served, asked, replaced.

The only module that knows all the others. Each month is used once for what it can honestly do: the
first trains the baseline, the second trains the candidate with it, the third, which neither has
seen, judges both.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini import arrivals
from mlops_mini.arrivals import Arrivals, Partition
from mlops_mini.data import times
from mlops_mini.data.periods import Period
from mlops_mini.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
)
from mlops_mini.features import events, online
from mlops_mini.features.store import Store
from mlops_mini.local_server import LocalServer, Transport
from mlops_mini.pipeline import evaluation, publish, training
from mlops_mini.pipeline.evaluation import Metrics
from mlops_mini.report import Questions, Report

MODEL_NAME = "flights"
_LOCK = ".mlops-mini-loop"
_N_STEPS = 10
_TRANSPORTS: tuple[Transport, ...] = ("rest", "grpc")

Array = npt.NDArray[Any]
OnStep = Callable[[str, int, int], None]


def default_workspace() -> Path:
    """Return `MLOPS_MINI_HOME`, else `runs/` of the repository, with `loop` below it."""
    home = os.environ.get("MLOPS_MINI_HOME")
    return (Path(home) if home else Path(__file__).resolve().parents[1] / "runs") / "loop"


def play(
    *,
    first: Period,
    data_folder: Path | None = None,
    workspace: Path,
    n_questions: int = 200,
    seed: int = 0,
    on_step: OnStep = lambda _step, _n_done, _n_all: None,
) -> Report:
    """Play two months, and a third to judge them.

    Args:
        first: The month that the first model is trained on; the two that follow are needed too.
        data_folder: Where the flights are; see `datasets.data_folder`.
        workspace: Receives models, logs and the record of rows set aside. It is emptied first, if
            it is empty or an earlier loop's, and refused if it is anything else.
        n_questions: Predictions to ask for over each transport, before and after the verdict.
        seed: Of the training.
        on_step: Told what begins, how many steps are done and how many there are.

    Returns:
        What happened.

    Raises:
        NotFoundError: A month is not there.
        DataIntegrityError: A file is not what it should be, or too many of its rows are refused.
        UnavailableError: The model server ended before its time.
        AlreadyExistsError: Another loop is at work in the workspace.
        FailedPreconditionError: The workspace holds what no loop has put there.
    """
    if first.kind != "month":
        raise InvalidArgumentError(f"the loop plays months, got {first}: use one like 2013-01")
    second, third = first.next(), first.next().next()
    n_done = itertools.count()

    def begin(step: str) -> None:
        on_step(step, next(n_done), _N_STEPS)

    with _own(workspace):
        begin(f"read and check {first}, {second} and {third}")
        arrived = arrivals.read((first, second, third), data_folder=data_folder)
        partitions = arrived.partitions
        arrived.quarantined.to_csv(workspace / "quarantine.csv", index=False)

        begin(f"train the baseline on {first}")
        baseline = _train(partitions[:1], workspace / "baseline", seed=seed)
        begin("publish it")
        models = workspace / "models" / MODEL_NAME
        published = publish.publish(baseline, models)

        begin("start the model server")
        with (
            LocalServer(models, workspace / "server") as server,
            Store(workspace / "features.sqlite") as store,
        ):
            server.wait_until_served(published.version)
            begin(f"ask version {published.version} about flights of {second}")
            before = _ask(server, published, _replay(arrived, partitions[1], store, n_questions))

            begin(f"train the candidate on {first} and {second}")
            candidate = _train(partitions[:2], workspace / "candidate", seed=seed)
            begin(f"judge both on {third}, which neither has seen")
            metrics = [_measure(folder, partitions[2]) for folder in (baseline, candidate)]
            verdict = evaluation.judge(metrics[1], metrics[0])

            begin("publish the candidate" if verdict.is_blessed else "keep the baseline")
            if verdict.is_blessed:
                published = publish.publish(candidate, models)
            begin(f"wait until version {published.version} is served")
            server.wait_until_served(published.version)
            begin(f"ask version {published.version} about flights of {third}")
            after = _ask(server, published, _replay(arrived, partitions[2], store, n_questions))
    return Report(
        partitions=partitions,
        baseline=metrics[0],
        candidate=metrics[1],
        verdict=verdict,
        before=before,
        after=after,
    )


@contextmanager
def _own(workspace: Path) -> Iterator[None]:
    """Empty the workspace and hold it, so that two loops never share one."""
    lock_file = workspace / _LOCK
    if workspace.exists() and not lock_file.exists() and any(workspace.iterdir()):
        raise FailedPreconditionError(
            f"{workspace} holds other files than a loop's and would be emptied: name an empty or"
            " new folder as workspace"
        )
    workspace.mkdir(parents=True, exist_ok=True)
    with lock_file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise AlreadyExistsError(
                f"another loop is at work in {workspace}: wait for it or name another workspace"
            ) from exc
        for entry in workspace.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry != lock_file:
                entry.unlink()
        yield


def _train(partitions: Sequence[Partition], folder: Path, *, seed: int) -> Path:
    parts = [partition.labeled() for partition in partitions]
    features = pd.concat([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
    training.export(training.train(features, labels, seed=seed), folder)
    return folder


def _measure(model: Path, partition: Partition) -> Metrics:
    features, labels = partition.labeled()
    return evaluation.measure(evaluation.predict(model, features), labels)


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
