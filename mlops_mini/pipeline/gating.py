"""Put before the gate what the tasks of a run have written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_mini.data import tensors
from mlops_mini.data.periods import Calendar, Period
from mlops_mini.errors import DataIntegrityError, FailedPreconditionError, InvalidArgumentError
from mlops_mini.evidence import intervals
from mlops_mini.model import evaluation, gate, thresholds, training
from mlops_mini.model.gate import Verdict
from mlops_mini.model.gate_rules import Evidence, Recomputed, Span
from mlops_mini.model.publish import Publication
from mlops_mini.model.serving_check import ServingCheck
from mlops_mini.pipeline import examples
from mlops_mini.use_case import UseCase


def judge(
    use_case: UseCase,
    train_periods: Sequence[Period],
    test_period: Period,
    *,
    holdout_days: int,
    train_file: Path,
    test_file: Path,
    arrivals_file: Path,
    predictions_file: Path,
    baseline: Path | None,
    recomputed: Recomputed,
    serving: ServingCheck,
    thresholds_digest: str,
    verdict_file: Path,
) -> Verdict:
    """Judge a candidate by the files of its run.

    Both models are judged on the rows held out that come after everything that either has learned
    from.

    Args:
        use_case: The use case; it may name a file of thresholds.
        train_periods: Months or weeks in order.
        test_period: The one after them.
        holdout_days: How many days at the end are held out.
        train_file: What the candidate has learned from, as `examples.write` writes it.
        test_file: The days held out, by the same.
        arrivals_file: What arrived, by the same.
        predictions_file: What both models answer, as `evaluation.evaluate` writes it.
        baseline: Folder of the version that would be replaced, if there is one.
        recomputed: Whether features are what serving would have computed.
        serving: Whether the candidate can be served.
        thresholds_digest: Of the file of thresholds that was reviewed for this run.
        verdict_file: Gets the verdict as JSON.

    Returns:
        The verdict.

    Raises:
        DataIntegrityError: The file of thresholds is another one by now.
        FailedPreconditionError: The baseline doesn't tell what it has learned from.
        InvalidArgumentError: A file lacks a column, or there isn't one prediction for each example.
    """
    asked = thresholds.read(use_case.thresholds)
    if asked.digest != thresholds_digest:
        raise DataIntegrityError(
            f"the thresholds have the digest {asked.digest}, {thresholds_digest or 'none'} was"
            " asked for: the file has changed; start a new run"
        )
    columns = use_case.feature_set
    slices, label = use_case.slices, use_case.label.column
    learned = training.read_examples(train_file, [columns.key, *slices])
    test = training.read_examples(test_file, [columns.key, columns.time, label, *slices])
    names = ["candidate", *(["baseline"] if baseline else [])]
    names += [training.FALLBACK_SIGNATURE] if use_case.fallback else []
    answered = training.read_examples(predictions_file, [columns.key, *names])
    if answered[columns.key].tolist() != test[columns.key].tolist():
        raise InvalidArgumentError(
            f"{predictions_file} has no prediction for each example of {test_file}: evaluate again"
        )
    span = Span(start=train_periods[0].start, end=examples.held_out_from(test_period, holdout_days))
    baseline_span = _span_of(baseline, use_case.calendar) if baseline else None
    is_other_data = (
        baseline is not None
        and span == baseline_span
        and _is_other_data(baseline, train_file, [*columns.names, label])
    )
    days = examples.local_days(use_case, test[columns.time])
    is_judged = test[columns.time] >= max(
        span.end, baseline_span.end if baseline_span else span.end
    )
    arrivals = json.loads(arrivals_file.read_text())
    judged_days = sorted(set(map(str, days[is_judged])))
    evidence = Evidence(
        labels=test.loc[is_judged, label].to_numpy(np.float64),
        days=days[is_judged].to_numpy("datetime64[D]"),
        candidate=tensors.to_numpy(answered.loc[is_judged, "candidate"]),
        baseline=tensors.to_numpy(answered.loc[is_judged, "baseline"]) if baseline else None,
        slices={name: test.loc[is_judged, name] for name in slices},
        candidate_span=span,
        baseline_span=baseline_span,
        is_other_data=is_other_data,
        n_seen=int(test.loc[is_judged, columns.key].isin(learned[columns.key]).sum()),
        n_arrived=sum(arrivals["judged"][day] for day in judged_days),
        arrived=arrivals["learned"],
        learned={
            name: {
                str(value): int(n) for value, n in learned[name].astype(str).value_counts().items()
            }
            for name in slices
        },
        recomputed=recomputed,
        serving=serving,
    )
    if use_case.fallback:
        answers = answered.loc[is_judged, training.FALLBACK_SIGNATURE].to_numpy()
        evidence = replace(evidence, serving=_with_fallback(serving, evidence, answers))
    verdict = gate.judge(evidence, asked)
    gate.write(verdict, verdict_file)
    return verdict


def _with_fallback(
    serving: ServingCheck, evidence: Evidence, answers: npt.NDArray[Any]
) -> ServingCheck:
    """A candidate can't be served either if its fallback is of no use."""
    labels, finding = evidence.labels, ""
    if not evaluation.are_probabilities(answers).all():
        finding = "some answers of its fallback are no probabilities"
    elif 0 < labels.sum() < len(labels):
        losses = evaluation.log_loss_per_row(answers, labels)
        base = evaluation.measure(answers, labels).base_rate_log_loss
        if intervals.of_mean(losses - base, evidence.days).lower > 0:
            finding = "its fallback is surely worse than always predicting the base rate"
    if not finding or not serving.is_servable:
        return serving
    return replace(serving, is_servable=False, finding=finding)


def _span_of(version_folder: Path, calendar: Calendar) -> Span:
    """Find what a published version has learned from."""
    known = Publication.read(version_folder)
    if known is None:
        raise FailedPreconditionError(
            f"the baseline {version_folder} doesn't tell what it has learned from, so that no row"
            " is known to be new to it: publish it by the pipeline"
        )
    periods = sorted(calendar.period(text) for text in known.train_periods)
    return Span(start=periods[0].start, end=periods[-1].end)


def _is_other_data(baseline: Path, train_file: Path, columns: Sequence[str]) -> bool:
    """Tell whether a version is known to have learned from other rows, labels or settings."""
    known = baseline / training.LEARNED_FILE
    if not known.is_file():
        return False
    examples = training.read_examples(train_file, columns)
    digest = training.examples_digest(examples, training.read_settings(train_file))
    return known.read_text().strip() != digest
