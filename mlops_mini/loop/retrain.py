"""When a loop retrains, and what came of it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from mlops_mini.data.periods import Period
from mlops_mini.errors import AbortedError
from mlops_mini.lineage import lineage
from mlops_mini.loop import arrival, intake, planted
from mlops_mini.loop.production import Production
from mlops_mini.loop.state import Kind, State
from mlops_mini.model import champions, publish
from mlops_mini.model.publish import Publication
from mlops_mini.pipeline import definition
from mlops_mini.runner.records import RunRecord
from mlops_mini.triggers import reasons
from mlops_mini.triggers.ledger import Claim
from mlops_mini.triggers.reasons import Firing

_N_TRIES = 3


def look(of: Production, known: State) -> State:
    """Ask whether there's a reason to retrain, and write those that there are into the ledger."""
    if known.releasing is not None or known.stable is None:
        return known
    for firing in _firings(of, known, known.stable):
        entry = of.ledger.fire(firing).entry
        if entry.fired_at != of.now(known):  # nothing has come since it was fired
            continue
        text = in_words(firing)
        if entry.state == "SUPPRESSED":
            known = known.noted("suppressed", f"{text}; {entry.suppressed_by}")
        else:
            known = known.noted("fired", text)
    return known


def retrain(of: Production, known: State) -> State:
    """Run the pipeline if a reason was accepted, or let somebody publish by hand."""
    usable = _usable(of, known)
    if known.releasing is not None or not usable:
        return known
    ended = run(of, period=usable[-1], now=of.now(known))
    if ended is not None:
        kind, reason = verdict(ended)
        version = champions.versions_by_run(of.models).get(ended.id)
        known = known.noted(kind, f"{ended.id}: {reason}", version=version)
    return _publish_by_hand(of, known) if known.happens("bad version") else known


def _publish_by_hand(of: Production, known: State) -> State:
    """Have somebody publish a bad version, unless the pipeline has just published one."""
    run_id = f"by-hand-{known.period}"
    by_hand = champions.versions_by_run(of.models).get(run_id)
    if champions.champion(of.models) not in (known.stable, by_hand):
        return known
    _prepare_server(of)
    planted.publish(of.runner, run_id, of.models.resolve() / str(known.stable))
    version = champions.versions_by_run(of.models).get(run_id)
    text = "somebody has published a version without a test"
    return known.noted("by hand", text, version=version)


def _usable(of: Production, known: State) -> list[Period]:
    newest = arrival.newest(of.case, of.workspace)
    return arrival.usable(newest, known.checked, of.periods)


def _firings(of: Production, known: State, version: int) -> list[Firing]:
    """List the reasons to retrain that there are now; the same again for the same state."""
    settings, now = of.settings, of.now(known)
    before = of.period(known).previous()
    fired: list[Firing] = []
    if settings.schedule is not None:
        since = now - (before.end - before.start)
        fired += reasons.scheduled(settings.schedule, since=since, now=now)
    if settings.min_rows is not None:
        arrived = arrival.newest(of.case, of.workspace)[of.case.examples.name]
        partitions = [arrived[each] for each in _usable(of, known)]
        learned = learned_from(of.models, version)
        trained_on = {each.key for each in partitions if each.period in learned}
        fired += reasons.new_data(partitions, trained_on=trained_on, min_rows=settings.min_rows)
    if settings.degradation_margin is not None:
        fired += reasons.degraded(
            intake.cohorts(of, known, version),
            version=version,
            margin=settings.degradation_margin,
            n_windows=settings.degradation_windows,
        )
    if settings.drift_threshold is not None and (moved := intake.drifted(of, before)):
        relevant = settings.drift_features or None
        fired += reasons.drifted(moved, version=version, window=str(before), relevant=relevant)
    return fired


def in_words(firing: Firing) -> str:
    """Say why a firing was fired."""
    reason = firing.reason
    if firing.kind == "new_data":
        return f"new data: {reason['n_rows']:,} rows that the model hasn't learned from"
    if firing.kind == "degradation":
        return f"degradation: excess log loss {reason['now']:.3f}, at first {reason['first']:.3f}"
    if firing.kind == "drift":
        return f"drift: {', '.join(reason['psi'])} moved"
    return f"{firing.kind.replace('_', ' ')}: {reason.get('due') or reason.get('asked', '')}"


def run(of: Production, *, period: Period, now: datetime) -> RunRecord | None:
    """Run the pipeline for what the ledger has accepted, or go on with the run that was killed.

    Args:
        of: What the loop works with.
        period: The newest that can be learned from.
        now: The loop's clock, by which the ledger goes too.

    Returns:
        The run, succeeded or not, be it one that ended before the loop was killed; None if nothing
        was accepted now.
    """
    claim = of.ledger.claim(is_alone=True)
    if claim is None:
        ended_now = [
            entry for entry in of.ledger.entries(limit=5) if entry.fired_at == now and entry.run_id
        ]
        return of.runner.show(ended_now[0].run_id) if ended_now else None
    _prepare_server(of)
    try:
        with claim.kept():
            ended = _run_pipeline(of, claim, period)
    except AbortedError as exc:
        claim.fail(str(exc))
        return of.runner.show(claim.entry.run_id)
    claim.finish(verdict(ended)[0])
    return ended


def _run_pipeline(of: Production, claim: Claim, period: Period) -> RunRecord:
    """Run the pipeline, or resume it; a task may fail because somebody has killed its process.

    Raises:
        AbortedError: It has failed three times.
        KeyboardInterrupt: It was canceled.
    """
    run_id = claim.entry.run_id
    is_begun = any(run.id == run_id for run in of.runner.runs())
    for n_left in reversed(range(_N_TRIES)):
        try:
            if is_begun:
                return of.runner.resume(run_id, definition.continuous_training)
            arguments = definition.arguments(
                of.plan.use_case,
                period,
                models_folder=of.models,
                verdicts_folder=of.workspace / "verdicts",
                data_folder=of.workspace / arrival.DATA,
                holdout_days=of.plan.holdout_days,
                seed=of.plan.seed,
                with_challenger=False,
            )
            return of.runner.run(
                definition.continuous_training,
                # MLflow takes seconds for each version: `mlops-mini reconcile` registers all.
                {**arguments, "epochs": of.plan.epochs, "registry": ""},
                run_id=run_id,
                trigger=claim.trigger,
            )
        except AbortedError as exc:
            if of.runner.show(run_id).state == "CANCELLED":
                raise KeyboardInterrupt from exc
            if not n_left:
                raise
            is_begun = True
    raise AssertionError  # the last try has returned or raised


def _prepare_server(of: Production) -> None:
    """Have the server of the next version start while the pipeline runs."""
    versions = [each.version for each in publish.published_versions(of.models)]
    of.gateway.prepare(max(versions, default=0) + 1)


def verdict(run: RunRecord) -> tuple[Kind, str]:
    """Tell what the gate has said of a run's candidate, or that the run has failed, and why."""
    gate = lineage.task_of(run, "gate")
    if run.state != "SUCCEEDED" or gate is None:
        return "failed", run.reason
    said = gate.outputs["parameters"]
    kinds: dict[str, Kind] = {"undecided": "undecided", "refused": "refused"}
    return kinds.get(said["decision"], "blessed"), said["reason"]


def learned_from(models: Path, version: int) -> tuple[str, ...]:
    """List the periods that a version has learned from."""
    path = next(each.path for each in publish.published_versions(models) if each.version == version)
    known = Publication.read(path)
    return known.train_periods if known else ()
