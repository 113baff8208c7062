"""What a gate costs over a year of retraining, and what it saves when a candidate is bad.

Replays 47 weeks of flights under several policies and gates, with the reference model and with the
pipeline's Keras model, each trained on at most 100,000 rows. A sentence that does not hold any more
is not printed: the script stops at it.

    .venv/bin/python -m benchmarks.gate_replay [DATE [FOLDER [reference] [keras]]]

writes `benchmarks/gate_replay.md`; it takes twenty minutes on two cores, half of them Keras. What
each model loses is kept in the folder, so that a run that was ended goes on where it was.
"""

import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.features import claim
from benchmarks.reference_model import ALL, MAX_ROWS, boosting, flights, rows
from mlops_mini import files
from mlops_mini.evidence import intervals
from mlops_mini.flights import times
from mlops_mini.flights import year as flights_year
from mlops_mini.flights.features import FEATURES
from mlops_mini.loop import replay
from mlops_mini.loop.replay import Policy, Replayed
from mlops_mini.model import evaluation

WEEKS = range(5, 52)
MARGIN = 0.002
GATES: dict[str, dict[str, Any]] = {
    "no gate": {},
    "point estimate not worse": {"decide": replay.not_worse},
    "not significantly worse": {"decide": replay.not_significantly_worse},
    "significantly better": {"decide": replay.significantly_better},
}
ROW_WISE = {"holdout_days": 3, "is_by_day": False}
POLICIES: dict[str, dict[str, Any]] = {
    "weekly, all history": {},
    "weekly, last 4 weeks": {"window_days": 28},
    "every 4 weeks, all history": {"every_weeks": 4},
}
BY_DAY: dict[str, dict[str, Any]] = {
    "every 4 weeks, all history": {"every_weeks": 4},
    "+50,000 rows, all history": {"every_rows": 50_000},
    "every 4 weeks, last 4 weeks": {"every_weeks": 4, "window_days": 28},
}
# A first measurement with the reference model: promoted, log loss.
FIRST_BY_ROW = {
    "weekly, all history": ((46, 0.4576), (27, 0.4587), (36, 0.4587), (17, 0.4599)),
    "weekly, last 4 weeks": ((46, 0.4734), (20, 0.4767), (37, 0.4755), (17, 0.4785)),
    "every 4 weeks, all history": ((11, 0.4601), (6, 0.4616), (9, 0.4611), (4, 0.4622)),
}
# Promoted, refused, undecided, log loss.
FIRST_BY_DAY = {
    "every 4 weeks, all history": (9, 0, 2, 0.4607),
    "+50,000 rows, all history": (5, 0, 0, 0.4635),
    "every 4 weeks, last 4 weeks": (3, 1, 7, 0.4894),
}
FIRST_NEVER = 0.4797
TOLERANCE = 0.002
# Retrainings of the policy of 4 weeks whose data are ruined: their labels are shuffled.
BAD_ENDS = {119, 203, 287}

Array = npt.NDArray[Any]
# Trains on some rows, with these labels, and predicts others.
FitPredict = Callable[[Array, Array, Array], Array]


class Year:
    """The labeled flights of a year by day of scheduled departure, days of 24 hours from 0."""

    def __init__(self, table: pd.DataFrame) -> None:
        """Keep the rows that have a label, in the order that draws of rows depend on."""
        departure = times.scheduled_departure(flights().set_index("flight_id"))
        since = departure.loc[table.index] - pd.Timestamp("2013-01-01T05:00Z")
        known = table["late"].notna().to_numpy()
        self.features = table[known]
        self.day = (since // pd.Timedelta("1D")).to_numpy()[known]
        self.labels = self.features["late"].to_numpy("float64")

    def losses(self, fit_predict: FitPredict, bad_ends: set[int], folder: Path) -> replay.LossesOf:
        """Make what a replay asks: losses of the rows after a span, remembered."""

        @cache
        def losses_of(start: int, end: int) -> Array:
            file = folder / f"{start}-{end}{'-bad' if end in bad_ends else ''}.npy"
            if file.exists():
                return np.asarray(np.load(file), np.float64)
            chosen = np.flatnonzero((self.day >= start) & (self.day < end))
            if chosen.size > MAX_ROWS:
                chosen = np.random.RandomState(0).choice(chosen, MAX_ROWS, replace=False)
            labels = self.labels[chosen]
            if end in bad_ends:
                labels = np.random.RandomState(end).permutation(labels)
            after = np.flatnonzero(self.day >= end)
            losses = np.full(self.day.size, np.nan)
            predicted = fit_predict(chosen, labels, after)
            losses[after] = evaluation.log_loss_per_row(predicted, self.labels[after])
            with files.whole_file(file) as unfinished, unfinished.open("wb") as opened:
                np.save(opened, losses.astype(np.float32))
            return losses

        return losses_of


def reference_year() -> tuple[Year, FitPredict]:
    """The reference model on the features of the year."""
    year = Year(rows())
    matrix = year.features[ALL].to_numpy("float64")

    def fit_predict(chosen: Array, labels: Array, after: Array) -> Array:
        return boosting(ALL).fit(matrix[chosen], labels).predict_proba(matrix[after])[:, 1]

    return year, fit_predict


def keras_year() -> tuple[Year, FitPredict]:
    """The pipeline's Keras model, two epochs, on the same rows in the same order."""
    import keras

    from mlops_mini.model import training

    prepared, computed = flights_year.with_features()
    late = prepared["late"].to_numpy()
    year = Year(computed.assign(late=late).loc[rows().index])
    features = year.features[list(FEATURES.names)]

    def fit_predict(chosen: Array, labels: Array, after: Array) -> Array:
        keras.backend.clear_session()
        model = training.train(features.iloc[chosen], labels, epochs=2)
        inputs = training.as_inputs(features.iloc[after])
        return np.asarray(model.predict(inputs, batch_size=8192, verbose=0)["probability"])

    return year, fit_predict


class Played:
    """All replays of one model."""

    def __init__(
        self, name: str, year: Year, fit_predict: FitPredict, folder: Path, *, by_row: Sequence[str]
    ) -> None:
        """Play them; those judged by row for some policies alone."""
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.year = name, year
        self.losses = year.losses(fit_predict, set(), folder)
        self.never = self.play(Policy(every_weeks=len(WEEKS)))
        self.by_day = {
            policy: {
                "no gate": self.play(Policy(**how)),
                "not inferior": self.play(Policy(**how, decide=replay.not_inferior(MARGIN))),
                "significantly better": self.play(
                    Policy(**how, decide=replay.significantly_better)
                ),
            }
            for policy, how in BY_DAY.items()
        }
        self.by_row = {
            policy: [
                self.play(Policy(**POLICIES[policy], **ROW_WISE, **gate)) for gate in GATES.values()
            ]
            for policy in by_row
        }
        self.itself = (
            self.play(Policy(holdout_days=7, decide=replay.not_worse))
            if "weekly, all history" in by_row
            else None
        )
        ends = BAD_ENDS | {end - 14 for end in BAD_ENDS} | {end - 3 for end in BAD_ENDS}
        bad = year.losses(fit_predict, ends, folder)
        every_4 = BY_DAY["every 4 weeks, all history"]
        self.bad = {
            "no gate": self.play(Policy(**every_4), bad),
            "point estimate not worse, by row, 3 days": self.play(
                Policy(**every_4, **ROW_WISE, decide=replay.not_worse), bad
            ),
            "not inferior, by day, 14 days": self.play(
                Policy(**every_4, decide=replay.not_inferior(MARGIN)), bad
            ),
        }

    def play(self, policy: Policy, losses: replay.LossesOf | None = None) -> Replayed:
        """Play the year under a policy."""
        played = replay.replay(self.year.day, losses or self.losses, policy, weeks=WEEKS)
        print(f"{self.name}: {show(played)}", file=sys.stderr, flush=True)
        return played

    def errors(self) -> list[tuple[int, float, float, float]]:
        """Compare, week by week, all history with the first model: how sure by row and by day?"""
        result = []
        for week in WEEKS[5::5]:
            is_in = self.year.day // 7 == week
            difference = (self.losses(0, 7 * week) - self.losses(0, 35))[is_in]
            by_row = intervals.of_mean(difference)
            by_day = intervals.of_mean(difference, self.year.day[is_in])
            result.append((week, by_row.value, by_row.standard_error, by_day.standard_error))
        return result


def show(played: Replayed) -> str:
    """Say in short what came of a replay."""
    counts = [
        f"{played.count(decision)} {word}"
        for decision, word in (
            ("blessed", "promoted"),
            ("refused", "refused"),
            ("undecided", "undecided"),
        )
        if played.count(decision)  # type: ignore[arg-type]
    ]
    return f"{', '.join(counts) or 'none fired'}: {played.mean_loss:.4f}"


def table(header: list[str], lines: list[list[str]]) -> str:
    """Write a table in Markdown."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, marks, *lines))


def tables(played: Played) -> str:
    """Write the tables of one model."""
    errors = played.errors()
    return f"""\
## {played.name}

Never retrained: {played.never.mean_loss:.4f}.

Judged on the last 3 days, each row taken as independent:

{
        table(
            ["retrain", *GATES],
            [[policy, *map(show, replays)] for policy, replays in played.by_row.items()],
        )
    }

Judged on the last 14 days, sums by day, Student's t; not inferior means an upper 95% limit below
{MARGIN}:

{
        table(
            ["retrain", "no gate", "not inferior", "significantly better"],
            [[policy, *map(show, by.values())] for policy, by in played.by_day.items()],
        )
    }

Every 4 weeks, all history, and three of the eleven trainings get shuffled labels:

{table(["gate", "outcome"], [[gate, show(each)] for gate, each in played.bad.items()])}

All history against the model of week 4, a few weeks:

{
        table(
            ["week", "difference", "standard error by row", "by day", "ratio"],
            [
                [str(week), f"{value:.4f}", f"{row:.4f}", f"{day:.4f}", f"{day / row:.1f}"]
                for week, value, row, day in errors
            ],
        )
    }
"""


def say(played: Played) -> list[str]:
    """Say what the tables of a model show."""
    by_day = played.by_day["every 4 weeks, all history"]
    gained = played.never.mean_loss - by_day["no gate"].mean_loss
    cost = by_day["not inferior"].mean_loss - by_day["no gate"].mean_loss
    ungated, _, gated = played.bad.values()
    saved = ungated.mean_loss - gated.mean_loss
    ratios = [day / row for _, _, row, day in played.errors()]
    sentences = [
        claim(
            f"Retraining every 4 weeks gains {gained:.4f}; a gate by day takes {cost:.4f} of it.",
            gained > 0.01,
            cost < 0.25 * gained,
        ),
        claim(
            f"In a year with three bad trainings the same gate saves {saved:.4f}, several times as"
            f" much: {ungated.mean_loss:.4f} without a gate, {gated.mean_loss:.4f} with it.",
            saved > 3 * max(cost, 0.001),
        ),
        claim(
            f"Taking rows as independent is {min(ratios):.1f} to {max(ratios):.1f} times too sure.",
            min(ratios) > 1.2,
            max(ratios) > 3,
        ),
    ]
    if played.itself:
        differences = [each.difference for each in played.itself.judgments]
        n_passed = played.itself.count("blessed")
        sentences.append(
            claim(
                "Retrained weekly and judged by point estimate on the newest week, which was held"
                f" out, {n_passed} of {len(differences)} candidates pass: since the last training"
                " both have learned from the same days, so that a model is compared with itself,"
                " and every difference is exactly 0.",
                all(each is not None and each.value == 0 for each in differences),
                n_passed == len(differences) == 46,
            )
        )
    return sentences


def say_reference(played: Played) -> list[str]:
    """Say that the figures are those of a first measurement."""
    near = [abs(played.never.mean_loss - FIRST_NEVER) <= TOLERANCE]
    counts = []
    for policy, figures in FIRST_BY_ROW.items():
        for each, (n_promoted, loss) in zip(played.by_row[policy], figures, strict=True):
            near.append(abs(each.mean_loss - loss) <= TOLERANCE)
            counts.append(each.count("blessed") == n_promoted)
    for policy, (blessed, refused, undecided, loss) in FIRST_BY_DAY.items():
        each = played.by_day[policy]["not inferior"]
        near.append(abs(each.mean_loss - loss) <= TOLERANCE)
        found = (each.count("blessed"), each.count("refused"), each.count("undecided"))
        counts.append(found == (blessed, refused, undecided))
    return [
        claim(
            f"Each log loss is within {TOLERANCE} of a first measurement, each count the same.",
            *near,
            *counts,
        )
    ]


def main(date: str, folder: str = "runs/gate_replay", *models: str) -> None:
    """Replay with the models, and write the page."""
    kept = Path(folder)
    parts = []
    if "reference" in (models or ("reference",)):
        played = Played(
            "Reference model", *reference_year(), kept / "reference", by_row=list(POLICIES)
        )
        parts += [tables(played), *say(played), *say_reference(played)]
    if "keras" in (models or ("keras",)):
        played = Played(
            "Keras model", *keras_year(), kept / "keras", by_row=["every 4 weeks, all history"]
        )
        parts += [tables(played), *say(played)]
    sections = "\n\n".join(part.strip() for part in parts)
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("scikit-learn", "keras", "tensorflow", "numpy")
    )
    text = f"""# What a gate costs, and what it saves

Written by `benchmarks/gate_replay.py` on {date}; Python {platform.python_version()}, {packages};
{platform.system()} {platform.machine()}, {os.cpu_count()} cores.

47 weeks of 2013 are replayed: at the end of a week a candidate may be trained on the flights so
far, judged against the model in use on rows that neither has seen, and on a pass trained once more
on everything. Each cell says how many were promoted and the mean log loss of all 296,892 flights of
these weeks, each under the model then in use.

{sections}
"""
    print(text)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:] or [f"{datetime.now(UTC):%Y-%m-%d}"])
