"""What each reason to retrain costs and brings over a year, with and without a careful gate.

Replays 47 weeks of flights under a dozen policies, with the reference model and with the pipeline's
Keras model, each trained on at most 100,000 rows. What fires is what `mlops_mini.triggers` says. A
sentence that does not hold any more is not printed: the script stops at it.

    .venv/bin/python -m benchmarks.policy_prices [DATE [FOLDER [reference] [keras]]]

writes `benchmarks/policy_prices.md`. What each model loses is kept in the folder, so that a run
that was ended goes on where it was.
"""

import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_auc_score

from benchmarks.features import claim
from benchmarks.gate_replay import (
    MARGIN,
    WEEKS,
    FitPredict,
    Year,
    keras_year,
    reference_year,
    show,
    table,
)
from benchmarks.reference_model import ALL, CATEGORIES
from mlops_mini.evidence import intervals
from mlops_mini.loop import replay
from mlops_mini.loop.replay import Policy, Replayed, Span
from mlops_mini.monitoring.quality import Cohort
from mlops_mini.statistics import drift, mergeable
from mlops_mini.triggers import reasons

NUMERIC = [name for name in ALL if name not in CATEGORIES]
RELEVANT = [
    "org_dep_mean_3h", "car_dep_mean_24h", "car_late_mean_6h", "dst_arr_mean_24h", "org_overdue",
    "mins", "block", "wind_speed", "visib",
]  # fmt: skip
# Judged on the newest week, which the candidate has not seen, by point estimate.
NEWEST_WEEK = {"holdout_days": 7, "is_by_day": False, "decide": replay.not_worse}
BY_DAY = {"decide": replay.not_inferior(MARGIN)}
TOLERANCE = 0.002
# A first measurement with the reference model under the first protocol: fired, promoted, log loss,
# AUC; None where it had no gate or was not measured.
FIRST = {
    "weekly, all history": (46, 46, 0.4576, 0.7370),
    "weekly, last 4 weeks": (46, 20, 0.4757, 0.7177),
    "every 4 weeks": (11, 10, 0.4602, 0.7338),
    "every 13 weeks": (3, 3, 0.4655, 0.7252),
    "drift > .25, any of 22": (46, 46, 0.4576, 0.7370),
    "drift > .25, the relevant 9": (27, 23, 0.4609, 0.7325),
    "drift > .5, the relevant 9": (13, 11, 0.4646, 0.7289),
    "degradation > .01": (5, 5, 0.4680, 0.7249),
    "degradation > .005": (6, 6, 0.4638, 0.7284),
    "new data, +50,000 rows": (5, 5, 0.4635, 0.7286),
    "training set grown 25 %": (9, 9, 0.4602, 0.7328),
    "training set doubled": (3, 3, 0.4650, 0.7262),
}
FIRST_NEVER = 0.4797
Fires = Callable[[int, Span], bool]


class Reasons:
    """Tells what would fire, from the rows of a year and the losses of its models."""

    def __init__(self, year: Year, losses_of: replay.LossesOf, numeric: npt.NDArray[Any]) -> None:
        """Count what each week's features are like; `numeric` has the 22 columns of NUMERIC."""
        self._year, self._losses_of = year, losses_of
        frame = pd.DataFrame(numeric, columns=NUMERIC)
        self._week = year.day // 7
        weeks = [
            mergeable.add(mergeable.create(), frame[self._week == week])
            for week in range(WEEKS[-1] + 1)
        ]
        self._by_week = weeks
        self._until = [mergeable.create()]  # all weeks before the n-th
        for week in weeks:
            self._until.append(mergeable.merge(self._until[-1], week))

    @cache  # noqa: B019 - one object per model
    def _psi(self, week: int, start: int, end: int) -> dict[str, float]:
        reference = self._until[end // 7]
        if start:
            reference = mergeable.create()
            for each in self._by_week[start // 7 : end // 7]:
                reference = mergeable.merge(reference, each)
        now = mergeable.merge(*self._by_week[week - 1 : week + 1])
        return {column.column: column.psi for column in drift.compare(reference, now).columns}

    def drifted(self, threshold: float, relevant: list[str]) -> Fires:
        """Fire when a relevant feature has moved, the last two weeks against the training."""

        def fires(week: int, span: Span) -> bool:
            psi = self._psi(week, *span)
            nan = float("nan")
            columns = tuple(
                drift.ColumnDrift(
                    column=name, psi=value, jensen_shannon=nan, l_infinity=nan, ks=nan,
                    importance=nan, threshold=threshold,
                )
                for name, value in psi.items()
            )  # fmt: skip
            report = drift.DriftReport(columns=columns)
            fired = reasons.drifted(report, version=span[1], window=str(week), relevant=relevant)
            return bool(fired)

        return fires

    @cache  # noqa: B019 - one object per model
    def _cohort(self, week: int, span: Span) -> Cohort:
        rows = self._week == week
        late = float(self._year.labels[rows].mean())
        return Cohort(
            window=str(week), version=span[1], state="usable", n=int(rows.sum()),
            n_labeled=int(rows.sum()), label_shares=(1 - late, late),
            log_loss=intervals.of_mean(self._losses_of(*span)[rows]),
        )  # fmt: skip

    def degraded(self, margin: float) -> Fires:
        """Fire when the last two weeks' excess log loss is above that of the model's first two."""

        def fires(week: int, span: Span) -> bool:
            cohorts = [self._cohort(each, span) for each in range(span[1] // 7, week + 1)]
            return bool(reasons.degraded(cohorts, version=span[1], margin=margin))

        return fires

    def grown(self, factor: float) -> Fires:
        """Fire when there are so many times the rows that the model has learned from."""

        def fires(week: int, span: Span) -> bool:
            n_known = int((self._year.day < 7 * (week + 1)).sum())
            return n_known >= factor * int((self._year.day < span[1]).sum())

        return fires


class Played:
    """All replays of one model."""

    def __init__(
        self, name: str, year: Year, fit_predict: FitPredict, folder: Path, numeric: Any
    ) -> None:
        """Play them."""
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.year = name, year
        self.losses = year.losses(fit_predict, set(), folder)
        why = Reasons(year, self.losses, numeric)
        self.policies: dict[str, dict[str, Any]] = {
            "weekly, all history": {},
            "weekly, last 4 weeks": {"window_days": 28},
            "every 4 weeks": {"every_weeks": 4},
            "every 5 weeks": {"every_weeks": 5},
            "every 13 weeks": {"every_weeks": 13},
            "drift > .25, any of 22": {"fires": why.drifted(0.25, NUMERIC)},
            "drift > .25, the relevant 9": {"fires": why.drifted(0.25, RELEVANT)},
            "drift > .5, the relevant 9": {"fires": why.drifted(0.5, RELEVANT)},
            "degradation > .01": {"fires": why.degraded(0.01)},
            "degradation > .005": {"fires": why.degraded(0.005)},
            "new data, +50,000 rows": {"every_rows": 50_000},
            "training set grown 25 %": {"fires": why.grown(1.25)},
            "training set doubled": {"fires": why.grown(2.0)},
        }
        if name == "Keras model":  # a year of windows would take as long as all others
            del self.policies["weekly, last 4 weeks"]
        self.never = self.play(Policy(every_weeks=len(WEEKS)))
        self.newest_week = {
            policy: self.play(Policy(**how, **NEWEST_WEEK)) for policy, how in self.policies.items()
        }
        self.by_day = {
            policy: self.play(Policy(**how, **BY_DAY)) for policy, how in self.policies.items()
        }

    def play(self, policy: Policy) -> Replayed:
        """Play the year under a policy."""
        played = replay.replay(self.year.day, self.losses, policy, weeks=WEEKS)
        print(f"{self.name}: {show(played)}", file=sys.stderr, flush=True)
        return played

    def auc(self, played: Replayed) -> float:
        """Mean of the weeks' AUCs, each under the model then in use."""
        values = []
        for week, span in played.in_use.items():
            rows = self.year.day // 7 == week
            late, loss = self.year.labels[rows], self.losses(*span)[rows]
            probability = np.where(late == 1, np.exp(-loss), -np.expm1(-loss))
            values.append(roc_auc_score(late, probability))
        return float(np.mean(values))

    def share(self, played: Replayed) -> float:
        """Share of the gap between never and weekly retraining that is closed, 0 to 1."""
        weekly = self.newest_week["weekly, all history"].mean_loss
        return (self.never.mean_loss - played.mean_loss) / (self.never.mean_loss - weekly)


def tables(played: Played) -> str:
    """Write the table of one model."""

    def cells(replayed: Replayed) -> list[str]:
        counts = [len(replayed.judgments), *map(replayed.count, ("blessed", "refused"))]
        share = f"{played.share(replayed):.0%}"
        return [
            *map(str, counts),
            f"{replayed.mean_loss:.4f}",
            f"{played.auc(replayed):.4f}",
            share,
        ]

    lines = [
        [policy, *cells(each), str(len(day.judgments)), str(day.count("blessed")),
         str(day.count("refused")), str(day.count("undecided")), f"{day.mean_loss:.4f}",
         f"{played.share(day):.0%}"]
        for (policy, each), day in zip(
            played.newest_week.items(), played.by_day.values(), strict=True
        )
    ]  # fmt: skip
    header = [
        "retrain", "fired", "promoted", "refused", "log loss", "AUC", "of the gap",
        "fired, by day", "promoted", "refused", "undecided", "log loss", "of the gap",
    ]  # fmt: skip
    return f"""\
## {played.name}

Never retrained: log loss {played.never.mean_loss:.4f}, AUC {played.auc(played.never):.4f}.

{table(header, lines)}
"""


def say(played: Played) -> list[str]:
    """Say what the table of a model shows."""
    point, day = played.newest_week, played.by_day
    naive, weekly = point["drift > .25, any of 22"], point["weekly, all history"]
    weighted = point["drift > .25, the relevant 9"]
    rows = point["new data, +50,000 rows"]
    cheap = [
        f"{policy} ({each.count('blessed')} of {len(each.judgments)}, {played.share(each):.0%})"
        for policy, each in day.items()
        if each.count("blessed") <= min(8, len(each.judgments) - 1) and played.share(each) >= 0.6
    ]
    return [
        claim(
            f"The drift alarm on any feature rings in {len(naive.judgments)} of 46 weeks: it is a"
            f" weekly schedule. On the relevant features it rings {len(weighted.judgments)} times.",
            len(naive.judgments) == len(weekly.judgments) == 46,
            len(weighted.judgments) <= 35,
        ),
        claim(
            f"With {rows.count('blessed')} retrainings placed by the growth of the data,"
            f" {played.share(rows):.0%} of what 46 bring is there.",
            rows.count("blessed") <= 8,
            played.share(rows) > 0.5,
        ),
        claim(
            "With the gate by days, these policies keep at least 60 % of the gain with at most 8"
            f" promotions, and hold at least one candidate back: {'; '.join(cheap)}.",
            len(cheap) > 0,
        ),
    ]


def say_reference(played: Played) -> list[str]:
    """Say how near the figures are to a first measurement."""
    near = [abs(played.never.mean_loss - FIRST_NEVER) <= TOLERANCE]
    other_counts = []
    for policy, (n_fired, n_promoted, loss, auc) in FIRST.items():
        each = played.newest_week[policy]
        near += [abs(each.mean_loss - loss) <= TOLERANCE, abs(played.auc(each) - auc) <= 0.003]
        counts = (len(each.judgments), each.count("blessed"))
        if counts != (n_fired, n_promoted):
            other_counts.append(f"{policy} {counts}, not {(n_fired, n_promoted)}")
    return [
        claim(
            f"Each log loss is within {TOLERANCE} of a first measurement, each AUC within 0.003;"
            f" other counts: {'; '.join(other_counts) or 'none'}.",
            *near,
        )
    ]


def main(date: str, folder: str = "runs/policy_prices", *models: str) -> None:
    """Replay with the models, and write the page."""
    kept = Path(folder)
    year, fit_predict = reference_year()
    numeric = year.features[NUMERIC].to_numpy("float64")
    parts = []
    if "reference" in (models or ("reference",)):
        played = Played("Reference model", year, fit_predict, kept / "reference", numeric)
        parts += [tables(played), *say(played), *say_reference(played)]
    if "keras" in (models or ("keras",)):
        played = Played("Keras model", *keras_year(), kept / "keras", numeric)
        parts += [tables(played), *say(played)]
    sections = "\n\n".join(part.strip() for part in parts)
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("scikit-learn", "keras", "tensorflow", "numpy")
    )
    text = f"""# The price of each policy

Written by `benchmarks/policy_prices.py` on {date}; Python {platform.python_version()}, {packages};
{platform.system()} {platform.machine()}, {os.cpu_count()} cores.

47 weeks of 2013 are replayed, 296,892 flights with a label. At the end of each week but the last, a
reason may fire. Then a candidate is judged against the model in use, and on a pass it's trained
once more on everything. The left half of the table judges by point estimate on the newest week
alone, the right half by the gate's own rule: not inferior by {MARGIN} on the last 14 days, sums by
day. Drift is the last two weeks against the weeks that the model in use has learned from.
Degradation is the excess log loss of the last two weeks above that of the model's first two. Log
loss is the mean over all flights, AUC the mean over the weeks, and the gap is that between never
and weekly retraining. `mlops-mini loop` waits for about as much new data as its first model has
learned from, and at least {WEEKS[0]} weeks since the last time, which here is every 5 weeks.

{sections}
"""
    print(text)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:] or [f"{datetime.now(UTC):%Y-%m-%d}"])
