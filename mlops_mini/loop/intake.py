"""What comes in at the end of a period: its partitions, its labels, and how good the model was."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd

from mlops_mini.data.periods import Period
from mlops_mini.loop import arrival, world
from mlops_mini.loop.production import Production
from mlops_mini.loop.state import Served, State
from mlops_mini.model import evaluation
from mlops_mini.monitoring import quality
from mlops_mini.monitoring.quality import Cohort, Maturity
from mlops_mini.statistics import drift
from mlops_mini.statistics.drift import DriftReport

_N_SHOWN = 8


def deliver(of: Production, known: State) -> State:
    """Receive the period before, join its labels, and see how good its predictions were."""
    before, now = of.period(known).previous(), of.now(known)
    known = receive(of, known, before, now=now)
    return observe(of, known, before, now=now) if before in of.played else known


def receive(of: Production, known: State, period: Period, *, now: datetime) -> State:
    """Have a period delivered, and what was refused before once more, as it should have been."""
    late = [each for each in of.periods if each < period and _is_refused(of, known, each)]
    for each in (*late, period):
        for table in of.case.tables:
            rows = of.world.partition(table, each)
            if rows.empty and table is of.case.examples:
                known = known.noted("missing", f"no {table.name} of {each} have come")
                continue
            incident = (of.plan.incidents or {}).get(str(each))
            if incident == "other units" and each == period and table is of.case.examples:
                rows = world.in_other_units(table, rows)
            arrival.send(rows, table, each, of.workspace)
    arrival.receive(of.case, of.workspace, now=now)
    for name, by_period in arrival.newest(of.case, of.workspace).items():
        table = of.case.by_name[name]
        for each, partition in by_period.items():
            if partition.key in known.checked:
                continue
            problem = arrival.check(of.case, table, partition)
            if problem:
                known = known.noted("quarantined", problem)
            else:
                arrival.take(partition, table, of.workspace)
                if partition.arrival > 1:
                    known = known.noted("mended", f"{name} of {each} came again, and was taken")
            known = replace(known, checked={**known.checked, partition.key: problem})
    return known


def observe(of: Production, known: State, period: Period, *, now: datetime) -> State:
    """Join the labels of a period that's over, and measure what was served."""
    outcomes = of.world.outcomes(period)
    matured = outcomes[outcomes["known_s"] <= now.timestamp()]
    of.journal.add_labels(matured[["request_id", "label"]], now=now)
    rows = of.journal.rows(period)
    moved = drifted(of, period)
    if len(rows) and rows["label"].isna().all():
        known = known.noted("unknown quality", f"no label of {period} has come")
    served = Served(
        period=str(period),
        n_requests=len(rows),
        n_labeled=int(rows["label"].notna().sum()),
        log_loss=_mean_loss(rows),
        by_version={str(v): n for v, n in sorted(Counter(rows["version"].tolist()).items())},
        psi={c.column: round(c.psi, 4) for c in moved.columns[:_N_SHOWN]} if moved else {},
    )
    return replace(known, served=(*known.served, served))


def drifted(of: Production, period: Period) -> DriftReport | None:
    """Compare the inputs of a period with those of the first ones; None if nobody has asked."""
    asked = of.journal.statistics(period)
    shared = set(of.reference.columns) & set(asked.columns)
    if not shared or not asked.n_rows:
        return None
    threshold = of.settings.drift_threshold
    limits = dict.fromkeys(shared, threshold) if threshold is not None else None
    return drift.compare(of.reference, asked, thresholds=limits)


def cohorts(of: Production, known: State, version: int) -> list[Cohort]:
    """Measure all periods in which a version has given most of the answers, oldest first."""
    measured = []
    for each in known.served:
        if each.by_version.get(str(version), 0) * 2 > each.n_requests:
            period = of.case.calendar.period(each.period)
            maturity = Maturity(after=of.world.matured_at(period) - period.end)
            measured.append(
                quality.measure(
                    of.journal.rows(period), period, now=of.now(known), maturity=maturity,
                    version=version,
                )
            )  # fmt: skip
    return measured


def _is_refused(of: Production, known: State, period: Period) -> bool:
    """Tell whether the newest state of any partition of a period was refused."""
    newest = [by.get(period) for by in arrival.newest(of.case, of.workspace).values()]
    return any(each is not None and known.checked.get(each.key) for each in newest)


def _mean_loss(rows: pd.DataFrame) -> float | None:
    """Mean log loss of all labeled predictions; None if there are none."""
    known = rows[rows["label"].notna()]
    if known.empty:
        return None
    probabilities = np.stack(known["outputs"].to_list()).astype(np.float64)
    answers = probabilities[:, 0] if probabilities.shape[1] == 1 else probabilities
    return float(evaluation.log_loss_per_row(answers, known["label"].to_numpy()).mean())
