"""Bad candidates, planted, and which rule of the gate sees each.

Ten ways to ruin a candidate, each with many seeds: what is drawn for training, what is shuffled. A
baseline has learned January and February, a candidate also the first three days of March, and the
other 28 judge. A sentence that does not hold any more is not printed: the script stops at it.

    .venv/bin/python -m benchmarks.gate_bad_candidates [DATE [N_SEEDS N_SEEDS_OF_KERAS [FOLDER]]]

writes `benchmarks/gate_bad_candidates.md`; it takes some twenty minutes on two cores. What became
of each seed is kept in the folder, so that a run that was ended goes on where it was.
"""

import json
import os
import platform
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.features import claim
from benchmarks.gate_replay import table
from benchmarks.reference_model import ALL, boosting, daily_means, flights
from mlops_mini import workspace
from mlops_mini.features import events, offline
from mlops_mini.flights import datasets
from mlops_mini.flights.features import FEATURES
from mlops_mini.flights.preparation import prepare
from mlops_mini.flights.use_case import FLIGHTS
from mlops_mini.model import gate, serving_check, thresholds
from mlops_mini.model.gate import Verdict
from mlops_mini.model.gate_rules import Evidence, Recomputed, Span
from mlops_mini.model.serving_check import ServingCheck
from mlops_mini.pipeline import examples, recomputing

Array = npt.NDArray[Any]

MONTHS = [FLIGHTS.calendar.period(f"2013-{month:02}") for month in (1, 2, 3)]
CUT = examples.held_out_from(MONTHS[-1], 28)
CATEGORIES = ("carrier", "origin", "dest")
RUINED = "LGA"
MEAN_DELAYS = [
    "org_dep_mean_1h", "org_dep_mean_3h", "car_dep_mean_3h", "car_dep_mean_24h", "dst_arr_mean_24h",
]  # fmt: skip
# Recent means that somebody has replaced by those of the flight's whole date.
LEAKS = {
    "org_dep_mean_3h": "naive_origin",
    "car_dep_mean_24h": "naive_carrier",
    "dst_arr_mean_24h": "naive_dest",
}
# Which rule must see it, among others.
SEEN_BY = {
    "labels shuffled": {"log loss"},
    f"labels of {RUINED} shuffled": {"slice AUC", "log loss"},
    "mean delays in seconds": {"log loss"},
    "vocabulary shifted": {"log loss"},
    "NaN answers": {"answers"},
    # A model whose own mean is low may stay within the limits of the calibration.
    "probabilities too high": {"calibration", "log loss"},
    "signature without dest": {"signature"},
    "too slow": {"latency"},
    f"never saw {RUINED}": {"coverage"},
    "leak of the whole day": {"point in time"},
}
GOOD = "a good candidate"
RULES = (
    "log loss", "slice", "slice AUC", "excess log loss", "AUC", "calibration", "answers",
    "coverage", "point in time", "signature", "serving", "latency",
)  # fmt: skip


class Flights:
    """Flights of the three months with a label: features as stored, to train and to judge."""

    def __init__(self) -> None:
        """Compute features, and those of the leak."""
        year = flights()
        prepared = prepare(year)
        computed = offline.compute(
            year,
            FEATURES,
            prepare=prepare,
            history=events.from_tables(FEATURES, {"flights": prepared}, {"flights": FEATURES.key}),
            observed={"weather": datasets.weather()},
        )
        means = daily_means(year)
        late = prepared["late"].to_numpy()
        departure = prepared["sched_dep_utc"].to_numpy()
        known = computed.assign(
            late=late,
            sched_dep_utc=prepared["sched_dep_utc"].array,
            hours=prepared["hours"].array,
            **{name: np.asarray(means[f"{leak}_today"]) for name, leak in _leaks().items()},
        )
        order = np.lexsort((year["flight_id"], departure))
        known = known.iloc[order]
        known = known[known["late"].notna() & (known["sched_dep_utc"] < MONTHS[-1].end)]
        is_judged = known["sched_dep_utc"] >= CUT
        self.train, self.test = known[~is_judged], known[is_judged]
        self.days = examples.local_days(FLIGHTS, self.test["sched_dep_utc"])
        self.recomputed = {
            is_leaky: recompute(leaky(self.test) if is_leaky else self.test)
            for is_leaky in (False, True)
        }

    def drawn(self, n_rows: int, seed: int, *, until: datetime = CUT) -> pd.DataFrame:
        """Draw the rows that a model is trained on, all from before an instant."""
        before = self.train[self.train["sched_dep_utc"] < until]
        return before.sample(n_rows, random_state=seed)


def recompute(test: pd.DataFrame) -> Recomputed:
    """Compute test rows again through the online store."""
    with TemporaryDirectory() as folder:
        clean = Path(folder) / "clean"
        examples.clean(
            FLIGHTS,
            MONTHS[-1:],
            clean,
            quarantine_file=Path(folder) / "quarantined.csv",
            partitions_file=Path(folder) / "partitions.json",
            data_folder=workspace.data_folder(),
        )
        test.reset_index().to_parquet(Path(folder) / "test.parquet")
        return recomputing.recompute(
            FLIGHTS, MONTHS[-1:], Path(folder) / "test.parquet", data_folder=clean, n_rows=100
        )


def _leaks() -> dict[str, str]:
    return {f"leak_{name}": leak for name, leak in LEAKS.items()}


def leaky(table_: pd.DataFrame) -> pd.DataFrame:
    """Put the leaks in place of the honest features."""
    return table_.assign(**{name: table_[f"leak_{name}"] for name in LEAKS})


def features_of(table_: pd.DataFrame) -> pd.DataFrame:
    """The columns that models may read."""
    return table_[list(FEATURES.names)]


def counts(table_: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count rows by slice."""
    return {
        name: {str(value): int(n) for value, n in table_[name].astype(str).value_counts().items()}
        for name in FLIGHTS.slices
    }


def shifted(table_: pd.DataFrame) -> pd.DataFrame:
    """Read each category as the next one of its vocabulary."""
    columns = {}
    for name in CATEGORIES:
        values = sorted(set(table_[name]))
        columns[name] = table_[name].map(dict(zip(values, [*values[1:], values[0]], strict=True)))
    return table_.assign(**columns)


def judge(
    known: Flights,
    trained_on: pd.DataFrame,
    candidate: Array,
    baseline: Array,
    serving: ServingCheck,
    *,
    is_leaky: bool = False,
    with_slices: bool = True,
) -> Verdict:
    """Put a candidate before the gate."""
    before = known.train
    evidence = Evidence(
        labels=known.test["late"].to_numpy("float64"),
        days=known.days.to_numpy("datetime64[D]"),
        candidate=candidate,
        baseline=baseline,
        slices={name: known.test[name] for name in FLIGHTS.slices} if with_slices else {},
        candidate_span=Span(start=MONTHS[0].start, end=CUT),
        baseline_span=Span(start=MONTHS[0].start, end=MONTHS[1].end),
        arrived=counts(before),
        learned=counts(trained_on),
        recomputed=known.recomputed[is_leaky],
        serving=serving,
    )
    return gate.judge(evidence, thresholds.read())


class Reference:
    """The reference model; its categories are codes by frequency."""

    n_rows = 30_000

    def __init__(self, train: pd.DataFrame, labels: Array) -> None:
        """Train it."""
        self.ranks = {
            name: {value: float(i) for i, value in enumerate(train[name].value_counts().index)}
            for name in CATEGORIES
        }
        self.model = boosting(ALL).fit(self.matrix(train), labels)

    def matrix(self, asked: pd.DataFrame) -> Array:
        """Encode features."""
        codes = {name: asked[name].map(ranks) for name, ranks in self.ranks.items()}
        return asked.assign(**codes)[ALL].to_numpy("float64")

    def predict(self, asked: pd.DataFrame) -> Array:
        """Answer with probabilities."""
        return np.asarray(self.model.predict_proba(self.matrix(asked))[:, 1])

    def served(
        self, asked: pd.DataFrame, *, lacks: str = "", is_slow: bool = False
    ) -> ServingCheck:
        """Check a model that no server takes: what it takes, and how long one row needs."""
        times_s = []
        for row in range(1 if is_slow else 5):
            began = time.perf_counter()
            for _ in range(200 if is_slow else 1):
                self.predict(asked.iloc[row : row + 1])
            times_s.append(time.perf_counter() - began)
        return ServingCheck(
            is_servable=True,
            finding="",
            misfit=f"the baseline takes {lacks}, where it takes no such" if lacks else "",
            latency_ms=1000 * min(times_s),
        )


class Keras:
    """The pipeline's model: its answers, and those of changed exports of it."""

    n_rows = 45_000

    def __init__(self, train: pd.DataFrame, labels: Array) -> None:
        """Train it."""
        import keras

        from mlops_mini.model import training

        keras.backend.clear_session()
        self.model = training.train(features_of(train), labels)

    def predict(self, asked: pd.DataFrame) -> Array:
        """Answer with probabilities."""
        from mlops_mini.model import training

        inputs = training.as_inputs(features_of(asked))
        answers = self.model.predict(inputs, batch_size=8192, verbose=0)
        return np.asarray(answers["probability"])

    def served(
        self, asked: pd.DataFrame, *, lacks: str = "", is_slow: bool = False
    ) -> ServingCheck:
        """Start the model server on an export, beside the baseline's."""
        with TemporaryDirectory() as name:
            folder = Path(name)
            self.model.export(str(folder / "baseline"), verbose=False)
            changed = self.changed(lacks=lacks, is_slow=is_slow)
            changed.export(str(folder / "candidate"), verbose=False)
            features_of(asked).to_parquet(folder / "test.parquet")
            return serving_check.check(
                folder / "candidate",
                folder / "test.parquet",
                features=FEATURES.names,
                baseline=folder / "baseline",
                n_rows=5,
            )

    def changed(self, *, lacks: str, is_slow: bool) -> Any:
        """Make a model that takes one input less, or works for long at the same answer."""
        import keras

        fields = {
            name: keras.Input((), name=name, dtype=tensor.dtype)
            for name, tensor in self.model.input.items()
            if name != lacks
        }
        given = dict(fields)
        if lacks:
            # Of unknown origin, so to say: each row gets the value that's missing.
            given[lacks] = keras.ops.full_like(given["carrier"], "")
        probability = self.model(given)["probability"]
        if is_slow:
            probability = _slow_layer()(probability)
        return keras.Model(fields, {"probability": probability})


def _slow_layer() -> Any:
    """Make a layer that multiplies large matrices for about a second on one core."""
    import keras

    class Slow(keras.layers.Layer):  # type: ignore[misc]
        def call(self, probability: Any) -> Any:
            start = keras.ops.zeros((500, 500)) + keras.ops.mean(probability) / 500
            end = keras.ops.fori_loop(0, 400, lambda _, x: keras.ops.matmul(x, x + 1e-3), start)
            return probability + 1e-30 * keras.ops.tanh(keras.ops.mean(end))

    return Slow()


def verdicts(known: Flights, seed: int, train: type[Reference | Keras]) -> dict[str, Verdict]:
    """Plant each bad candidate of one kind of model."""
    rng = np.random.default_rng(seed)
    drawn = known.drawn(train.n_rows, seed)
    february = known.drawn(train.n_rows, seed, until=MONTHS[1].end)
    labels, test = drawn["late"].to_numpy(), known.test
    yesterdays = train(february, february["late"].to_numpy())
    good = train(drawn, labels)
    baseline, answers = yesterdays.predict(test), good.predict(test)
    fine = good.served(test)
    logit = np.log(answers / (1 - answers))
    is_ruined = (drawn["origin"] == RUINED).to_numpy()
    ruined = labels.copy()
    ruined[is_ruined] = rng.permutation(labels[is_ruined])
    seconds = drawn.assign(**drawn[MEAN_DELAYS] * 60)
    unseen, leaking = drawn[~is_ruined], leaky(drawn)

    def verdict(candidate: Array, on: pd.DataFrame = drawn, **how: Any) -> Verdict:
        return judge(known, on, candidate, baseline, how.pop("serving", fine), **how)

    def trained(on: pd.DataFrame, with_labels: Array) -> Array:
        return np.asarray(train(on, with_labels).predict(test))

    return {
        GOOD: verdict(answers),
        "labels shuffled": verdict(trained(drawn, rng.permutation(labels))),
        f"labels of {RUINED} shuffled": verdict(trained(drawn, ruined)),
        "mean delays in seconds": verdict(trained(seconds, labels)),
        "vocabulary shifted": verdict(yesterdays.predict(shifted(test))),
        "NaN answers": verdict(np.where(test["wind_gust"].isna(), np.nan, answers)),
        "probabilities too high": verdict(1 / (1 + np.exp(-logit - 1.5))),
        "signature without dest": verdict(
            answers, serving=good.served(test, lacks="dest"), with_slices=False
        ),
        "too slow": verdict(answers, serving=good.served(test, is_slow=True), with_slices=False),
        f"never saw {RUINED}": verdict(trained(unseen, unseen["late"].to_numpy()), on=unseen),
        "leak of the whole day": verdict(
            train(leaking, labels).predict(leaky(test)), is_leaky=True
        ),
    }


class Planted:
    """What became of all candidates of one kind of model."""

    def __init__(
        self, name: str, train: type[Reference | Keras], n_seeds: int, folder: Path
    ) -> None:
        """Plant them."""
        self.name, self.n_seeds = name, n_seeds
        known = cache(Flights)
        self.decisions = {each: Counter[str]() for each in (GOOD, *SEEN_BY)}
        self.failed = {each: Counter[str]() for each in (GOOD, *SEEN_BY)}
        self.n_seen = Counter[str]()
        self.differences: dict[str, list[float]] = {each: [] for each in (GOOD, *SEEN_BY)}
        for seed in range(n_seeds):
            file = folder / f"{train.__name__}-{seed}.json"
            if not file.exists():
                planted = {
                    each: [
                        verdict.decision,
                        sorted({rule.rule for rule in verdict.rules if rule.verdict == "fail"}),
                        [rule.value for rule in verdict.rules if rule.rule == "log loss"],
                    ]
                    for each, verdict in verdicts(known(), seed, train).items()
                }
                file.write_text(json.dumps(planted))
                print(f"{name}: seed {seed}", file=sys.stderr, flush=True)
            for each, (decision, failed, differences) in json.loads(file.read_text()).items():
                self.decisions[each][decision] += 1
                self.failed[each].update(failed)
                self.n_seen[each] += bool(SEEN_BY.get(each, set()).intersection(failed))
                self.differences[each] += differences

    def table(self) -> str:
        """Count, for each candidate, the seeds in which it was refused, and by which rule."""
        lines = []
        for each, decisions in self.decisions.items():
            differences = self.differences[each]
            lines.append(
                [
                    each,
                    f"{np.mean(differences):+.3f}" if differences else "",
                    str(decisions["refused"]),
                    *(str(self.failed[each][rule] or "") for rule in RULES),
                ]
            )
        return table(["candidate", "log loss", "refused", *RULES], lines)

    def say(self) -> list[str]:
        """Say what the table shows."""
        leak = float(np.mean(self.differences["leak of the whole day"]))
        return [
            claim(
                f"Each bad candidate is refused with {self.n_seeds} of {self.n_seeds} seeds, by a"
                " rule that's meant to see it: "
                + "; ".join(f"{each}, {' or '.join(sorted(by))}" for each, by in SEEN_BY.items())
                + ".",
                *(
                    self.decisions[each]["refused"] == self.n_seen[each] == self.n_seeds
                    for each in SEEN_BY
                ),
            ),
            claim(
                f"The leak scores better by {-leak:.3f}; no rule but point in time sees it.",
                leak < -0.04,
                set(self.failed["leak of the whole day"]) == {"point in time"},
            ),
            claim(
                f"A good candidate is refused with {self.decisions[GOOD]['refused']} seeds, blessed"
                f" with {self.decisions[GOOD]['blessed']}.",
                self.decisions[GOOD]["refused"] <= max(1, 0.1 * self.n_seeds),
            ),
        ]


def main(
    date: str,
    n_seeds: str = "50",
    n_seeds_of_keras: str = "5",
    folder: str = "runs/gate_bad_candidates",
) -> None:
    """Plant all, and write the page."""
    parts = []
    kept = Path(folder)
    kept.mkdir(parents=True, exist_ok=True)
    for name, train, seeds in (
        ("Reference model", Reference, int(n_seeds)),
        ("Keras model", Keras, int(n_seeds_of_keras)),
    ):
        planted = Planted(name, train, seeds, kept)
        sentences = "\n\n".join(planted.say())
        parts.append(f"## {name}, {seeds} seeds\n\n{planted.table()}\n\n{sentences}\n")
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("scikit-learn", "keras", "tensorflow", "numpy")
    )
    text = f"""# Bad candidates, and which rule sees each

Written by `benchmarks/gate_bad_candidates.py` on {date}; Python {platform.python_version()},
{packages}; {platform.system()} {platform.machine()}, {os.cpu_count()} cores.

A baseline has learned from flights of January and February ({Reference.n_rows:,} drawn for the
reference model, {Keras.n_rows:,} for Keras), each candidate from as many up to 3 March; the last 28
days of March judge. Columns count the seeds in which a rule alone would
have refused; log loss is the mean difference to the baseline, candidate minus baseline.

{chr(10).join(parts)}"""
    print(text)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:] or [f"{datetime.now(UTC):%Y-%m-%d}"])
