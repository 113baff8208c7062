"""Plays the loop: flights arrive, a model is trained, judged, published, served, asked, replaced.

The only module that knows all the others. Each month is used once for what it can honestly do: the
first trains the baseline, the second trains the candidate with it, the third, which neither has
seen, judges both.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data import datasets, schema
from mlops_mini.data.periods import Period
from mlops_mini.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
)
from mlops_mini.features import offline, online
from mlops_mini.local_server import LocalServer, Transport
from mlops_mini.pipeline import evaluation, publish, training
from mlops_mini.pipeline.evaluation import Metrics, Verdict

logger = logging.getLogger(__name__)

MODEL_NAME = "flights"
_LOCK = ".mlops-mini-loop"
_N_STEPS = 10
_TRANSPORTS: tuple[Transport, ...] = ("rest", "grpc")

Array = npt.NDArray[Any]
OnStep = Callable[[str, int, int], None]
# Title, header and rows of text.
TextTable = tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """One period of flights, sorted into what it is good for.

    Attributes:
        period: Which one.
        n_arrived: Rows in the file.
        refused: Number of rows quarantined, by the rule that they break.
        flights: The rows kept.
        features: Their features, one row each.
        labels: 1 late, 0 not, NaN unknown because the flight was canceled or diverted.
        zones: IANA time zone by airport, which the features were computed with.
    """

    period: Period
    n_arrived: int
    refused: dict[str, int]
    flights: pd.DataFrame
    features: pd.DataFrame
    labels: pd.Series[float]
    zones: Mapping[str, str]

    @property
    def n_without_label(self) -> int:
        """Rows kept that neither train nor judge a model."""
        return int(self.labels.isna().sum())

    def labeled(self) -> tuple[pd.DataFrame, Array]:
        """Features and labels, shape [n] of 0 and 1, of the rows that have a label."""
        known = self.labels.notna()
        return self.features[known], self.labels[known].to_numpy(np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """What a served version was asked, and how its answers compare with the model's own.

    Attributes:
        version: The version that answered.
        n_asked: Number of predictions, by transport, `rest` and `grpc`.
        max_difference: Largest absolute difference from the exported model run in this process,
            by transport; probabilities, 0 to 1.
    """

    version: int
    n_asked: dict[str, int]
    max_difference: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """How the loop went.

    Attributes:
        partitions: What arrived, in order: trained on, trained on by the candidate, judged on.
        baseline: The served model on the rows of the last partition.
        candidate: The new model on the same rows.
        verdict: Whether the candidate was published, and why.
        before: Questions to the version served before the verdict.
        after: Questions to the version served after it.
    """

    partitions: Sequence[Partition]
    baseline: Metrics
    candidate: Metrics
    verdict: Verdict
    before: Questions
    after: Questions


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
        workspace: Receives models and logs. It is emptied first, if it is empty or an earlier
            loop's, and refused if it is anything else.
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
        partitions = [read_partition(p, data_folder=data_folder) for p in (first, second, third)]

        begin(f"train the baseline on {first}")
        baseline = _train(partitions[:1], workspace / "baseline", seed=seed)
        begin("publish it")
        models = workspace / "models" / MODEL_NAME
        published = publish.publish(baseline, models)

        begin("start the model server")
        with LocalServer(models, workspace / "server") as server:
            server.wait_until_served(published.version)
            begin(f"ask version {published.version} about flights of {second}")
            before = _ask(server, published, partitions[1], n_questions)

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
            after = _ask(server, published, partitions[2], n_questions)
    return Report(
        partitions=partitions,
        baseline=metrics[0],
        candidate=metrics[1],
        verdict=verdict,
        before=before,
        after=after,
    )


def tables(report: Report) -> list[TextTable]:
    """Lay a report out: for each table a title, the header, and rows of text."""
    learned = ("baseline, candidate", "candidate", "neither: judges both")
    rows = [
        (
            str(partition.period),
            f"{partition.n_arrived:,}",
            f"{sum(partition.refused.values()):,}",
            f"{partition.n_without_label:,}",
            f"{len(partition.labeled()[1]):,}",
            who,
        )
        for partition, who in zip(report.partitions, learned, strict=True)
    ]
    refused = [
        (f"{n:,}", reason) for part in report.partitions for reason, n in part.refused.items()
    ]
    baseline, candidate = report.baseline, report.candidate
    models = [
        (name, f"{auc:.4f}", f"{log_loss:.4f}")
        for name, auc, log_loss in (
            ("always the base rate", 0.5, baseline.base_rate_log_loss),
            ("baseline", baseline.auc, baseline.log_loss),
            ("candidate", candidate.auc, candidate.log_loss),
        )
    ]
    served = [
        (when, str(asked.version), transport, f"{n:,}", f"{asked.max_difference[transport]:.1e}")
        for when, asked in (("before", report.before), ("after", report.after))
        for transport, n in asked.n_asked.items()
    ]
    judged_on = report.partitions[-1].period
    decision = "published" if report.verdict.is_blessed else "refused"
    return [
        (
            "Flights",
            ("month", "arrived", "refused", "no label", "used", "learned by"),
            rows,
        ),
        ("Refused", ("rows", "why"), refused or [("0", "every row keeps every rule")]),
        (
            f"Models on {judged_on} ({baseline.n_rows:,} flights, {baseline.base_rate:.1%} late)",
            ("model", "AUC", "log loss"),
            models,
        ),
        ("Verdict", ("candidate", "why"), [(decision, report.verdict.reason)]),
        (
            "Predictions, each against the model's own",
            ("verdict", "version", "over", "asked", "largest difference"),
            served,
        ),
    ]


def summarize(report: Report) -> dict[str, Any]:
    """Reduce a report to what JSON can hold."""
    return {
        "partitions": [
            {
                "period": str(partition.period),
                "n_arrived": partition.n_arrived,
                "refused": partition.refused,
                "n_without_label": partition.n_without_label,
            }
            for partition in report.partitions
        ],
        **{
            name: asdict(getattr(report, name))
            for name in ("baseline", "candidate", "verdict", "before", "after")
        },
    }


def read_partition(period: Period, *, data_folder: Path | None = None) -> Partition:
    """Read a period of flights, set aside the rows that break a rule, compute features and labels.

    Raises:
        NotFoundError: The period is not there.
        DataIntegrityError: Its file is damaged, or too many of its rows are refused.
    """
    arrived = datasets.flights(period, folder=data_folder)
    split = schema.split_rows(arrived, period)
    for reason in split.quarantined["reason"]:
        logger.warning("quarantined a flight of %s: %s", period, reason)
    zones = datasets.airport_zones(folder=data_folder)
    return Partition(
        period=period,
        n_arrived=len(arrived),
        refused={str(k): int(v) for k, v in split.quarantined["reason"].value_counts().items()},
        flights=split.kept,
        features=offline.compute(split.kept, zones=zones),
        labels=offline.labels(split.kept),
        zones=zones,
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


def _ask(
    server: LocalServer,
    published: publish.PublishedVersion,
    partition: Partition,
    n_questions: int,
) -> Questions:
    """Ask about the first flights, one by one, as their features are computed when they are due."""
    flights = partition.flights.head(n_questions)
    own = evaluation.predict(published.path, partition.features.head(n_questions))
    asked: dict[str, int] = {}
    differences: dict[str, float] = {}
    for transport in _TRANSPORTS:
        with server.client(transport) as client:
            answers = [
                client.predict(_as_inputs(flight, partition.zones))["probability"][0]
                for flight in flights.to_dict("records")
            ]
        asked[transport] = len(answers)
        differences[transport] = float(np.abs(np.array(answers) - own).max())
    return Questions(version=published.version, n_asked=asked, max_difference=differences)


def _as_inputs(flight: Mapping[Any, Any], zones: Mapping[str, str]) -> dict[str, Array]:
    """Make the request about one flight: each feature as an array of one."""
    return {
        name: np.array([value], object if isinstance(value, str) else np.float32)
        for name, value in online.compute(flight, zones=zones).items()
    }
