"""What point-in-time features are worth, what a leak and a skew cost, and how fast they are.

Trains the reference model on months of flights and tests it on later ones. A sentence that does not
hold any more is not printed: the script stops at it.

    .venv/bin/python -m benchmarks.features [DATE]

writes `benchmarks/features.md`; it takes less than a minute on two cores.
"""

import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.reference_model import (
    ALL,
    NAIVE,
    NO_RECENT,
    NO_WEATHER,
    RECENT,
    SCHEDULE,
    SPRING,
    by_month,
    flights,
    of_months,
    rows,
    score,
    train,
    train_logistic,
)
from mlops_mini.features import events, offline, online
from mlops_mini.features.store import Store
from mlops_mini.flights import datasets, times
from mlops_mini.flights.features import FEATURES
from mlops_mini.flights.preparation import prepare

# What a first measurement gave, with the same settings: AUC by month or row, then log loss.
TOLERANCES = AUC_TOLERANCE, LOG_LOSS_TOLERANCE = 0.006, 0.003
GROUPS_AUC = {
    "schedule only": (0.625, 0.612, 0.629, 0.643, 0.635, 0.613),
    "+ weather": (0.627, 0.644, 0.612, 0.699, 0.706, 0.691),
    "schedule + recent": (0.687, 0.735, 0.735, 0.748, 0.756, 0.733),
    "all": (0.689, 0.741, 0.725, 0.753, 0.758, 0.738),
    "all, horizon 120 min": (0.680, 0.723, 0.705, 0.739, 0.743, 0.724),
    "all, horizon 0, own departure excluded": (0.704, 0.748, 0.738, 0.758, 0.762, 0.737),
    "all, horizon 0, own departure counted": (0.720, 0.761, 0.753, 0.779, 0.779, 0.760),
    "logistic regression, all": (0.682, 0.732, 0.701, 0.722, 0.728, 0.708),
}
GROUPS_LOG_LOSS = {
    "schedule only": (0.534, 0.539, 0.596, 0.514, 0.635, 0.649),
    "all": (0.502, 0.472, 0.528, 0.448, 0.523, 0.546),
    "logistic regression, all": (0.502, 0.475, 0.552, 0.472, 0.582, 0.640),
}
LEAK = {
    "honest, all features": ((0.7585, 0.4544), (0.7585, 0.4544)),
    "schedule + weather + naive means": ((0.8265, 0.4031), (0.6530, 0.5737)),
    "all honest features + naive means": ((0.8269, 0.4032), (0.6598, 0.5555)),
    "schedule + weather, no delays": ((0.7103, 0.4852), (0.7103, 0.4852)),
    "schedule + weather, trained on yesterday's means": ((0.7222, 0.4818), (0.7222, 0.4818)),
}
SKEW = {
    "as trained": (0.7814, 0.5003),
    "weather in metric units": (0.7514, 0.5274),
    "mean delays in seconds": (0.7664, 0.5428),
    "feature store down, recent features missing": (0.6193, 0.6564),
    "feature store down, recent features 0": (0.6733, 0.6833),
    "fallback model, no recent features": (0.7456, 0.5347),
    "fallback model, schedule only": (0.6895, 0.5876),
}


def groups_table() -> dict[str, npt.NDArray[np.float64]]:
    """Compare groups of features and horizons, trained on January: `by_month` of each."""
    own = {"excluded": rows(0), "counted": rows(0, counts_own=True)}
    cases = {
        "schedule only": (rows(), SCHEDULE),
        "+ weather": (rows(), NO_RECENT),
        "schedule + recent": (rows(), NO_WEATHER),
        "all": (rows(), ALL),
        "all, horizon 120 min": (rows(120), ALL),
        **{f"all, horizon 0, own departure {how}": (table, ALL) for how, table in own.items()},
    }
    result = {
        name: by_month(train(table, [1], columns), table, columns)
        for name, (table, columns) in cases.items()
    }
    result["logistic regression, all"] = by_month(train_logistic(rows(), [1]), rows(), ALL)
    return result


def leak_table() -> dict[str, tuple[tuple[float, float], tuple[float, float]]]:
    """Train on January and February, test March: offline, and with what serving can know."""
    table = rows()
    march = of_months(table, [3])
    today = [f"{name}_today" for name in NAIVE]
    yesterday = [f"{name}_yesterday" for name in NAIVE]
    result = {}
    for name, base, means in (
        ("honest, all features", ALL, []),
        ("schedule + weather + naive means", NO_RECENT, today),
        ("all honest features + naive means", ALL, today),
        ("schedule + weather, no delays", NO_RECENT, []),
        ("schedule + weather, trained on yesterday's means", NO_RECENT, yesterday),
    ):
        model = train(table, [1, 2], [*base, *means])
        served = [*base, *(yesterday if means else [])]
        result[name] = (score(model, march, [*base, *means]), score(model, march, served))
    return result


def skew_table() -> dict[str, tuple[float, float]]:
    """Train on January to May, test June with inputs as serving may get them wrong."""
    table = rows()
    june = of_months(table, [6])
    months = [1, 2, 3, 4, 5]
    model = train(table, months, ALL)
    fahrenheit, miles = ["temp", "dewp"], ["wind_speed", "wind_gust", "visib"]
    means = [name for name in RECENT if "_mean_" in name and "late" not in name]
    metric = june.assign(
        **(june[fahrenheit] - 32) / 1.8, **june[miles] * 1.609344, precip=june["precip"] * 25.4
    )
    inputs = {
        "as trained": june,
        "weather in metric units": metric,
        "mean delays in seconds": june.assign(**june[means] * 60),
        "feature store down, recent features missing": june.assign(**dict.fromkeys(RECENT, np.nan)),
        "feature store down, recent features 0": june.assign(**dict.fromkeys(RECENT, 0.0)),
    }
    result = {name: score(model, tested, ALL) for name, tested in inputs.items()}
    for name, columns in (
        ("fallback model, no recent features", NO_RECENT),
        ("fallback model, schedule only", SCHEDULE),
    ):
        result[name] = score(train(table, months, columns), june, columns)
    return result


def costs() -> dict[str, float]:
    """Measure the CPU seconds of the year offline, and of March replayed through a store."""
    year, weather = flights(), datasets.weather()
    began = time.process_time()
    history = events.from_tables(FEATURES, {"flights": prepare(year)}, {"flights": FEATURES.key})
    listed = time.process_time()
    offline.compute(year, FEATURES, prepare=prepare, history=history, observed={"weather": weather})
    computed = time.process_time()

    march = year[year["month"] == 3]
    due = (times.scheduled_departure(march) - times.HORIZON).sort_values(kind="stable")
    in_march = history[history["id"].isin(march["flight_id"])]
    stream = events.stream(
        FEATURES, in_march, {"weather": weather[weather["time_hour"].dt.month == 3]}
    )
    reading_s = 0.0
    replayed = time.process_time()
    with TemporaryDirectory() as folder, Store(Path(folder) / "store.sqlite", FEATURES) as store:
        asked = online.requests(march.loc[due.index], FEATURES, prepare=prepare, store=store)
        for at in due:
            if at != store.as_of:
                store.apply(events.between(stream, store.as_of, at), up_to=at)
            reads = time.process_time()
            next(asked)
            reading_s += time.process_time() - reads
    finished = time.process_time()
    return {
        f"events of the year ({len(history):,})": listed - began,
        f"features of the year ({len(year):,} flights)": computed - listed,
        f"March through a store: {len(stream):,} events, a transaction for each of "
        f"{due.nunique():,} instants": finished - replayed - reading_s,
        f"March through a store: {len(march):,} flights read": reading_s,
    }


def claim(sentence: str, *holds: bool) -> str:
    """Hand a sentence back if all that it says holds, else stop."""
    if not all(holds):
        raise SystemExit(f"this does not hold any more: {sentence} {holds}")
    return sentence


def agree(found: Any, expected: Any, tolerance: Any) -> bool:
    """Tell whether figures are as at the first measurement."""
    return bool((np.abs(np.asarray(found) - expected) <= tolerance).all())


def say_groups(found: dict[str, npt.NDArray[np.float64]]) -> list[str]:
    """Say what the first table shows."""
    auc = {name: scores[:, 0] for name, scores in found.items()}
    loss = {name: scores[:, 1] for name, scores in found.items()}
    gain = auc["schedule + recent"] - auc["schedule only"]
    april = SPRING.index(4)
    later = (auc["all"] - auc["all, horizon 120 min"]).mean()
    own = "all, horizon 0, own departure"
    leak = auc[f"{own} counted"] - auc[f"{own} excluded"]
    logistic = loss["logistic regression, all"] - loss["all"]
    return [
        claim(
            f"Recent delays carry the model: they add {gain.min():.3f} to {gain.max():.3f} AUC to"
            " the schedule.",
            gain.min() > 0.06,
            gain.max() > 0.1,
        ),
        claim(
            "Weather alone can hurt: trained on January, it makes April worse, with recent delays"
            " and without.",
            auc["+ weather"][april] < auc["schedule only"][april] - 0.01,
            auc["all"][april] < auc["schedule + recent"][april],
        ),
        claim(
            f"Predicting 120 instead of 60 minutes ahead costs {later:.3f} AUC.",
            0.01 < later < 0.02,
        ),
        claim(
            f"At the scheduled minute a flight's own departure slips in: {leak.min():.3f} to"
            f" {leak.max():.3f} AUC that no prediction before it can have.",
            leak.min() > 0.01,
        ),
        claim(
            "A logistic regression extrapolates the season's weather: its log loss is as good in"
            f" February and {logistic[-1]:.3f} worse in July.",
            logistic[0] < 0.003,
            logistic[-1] > 0.08,
        ),
        claim(
            f"Each AUC is within {AUC_TOLERANCE} and each log loss within {LOG_LOSS_TOLERANCE} of"
            " the first measurement.",
            *(agree(auc[name], figures, AUC_TOLERANCE) for name, figures in GROUPS_AUC.items()),
            *(
                agree(loss[name], figures, LOG_LOSS_TOLERANCE)
                for name, figures in GROUPS_LOG_LOSS.items()
            ),
        ),
    ]


def say_leak(found: dict[str, tuple[tuple[float, float], tuple[float, float]]]) -> list[str]:
    """Say what the second table shows."""
    auc = {name: (offline_score[0], served[0]) for name, (offline_score, served) in found.items()}
    honest, _ = auc["honest, all features"]
    leaky, leaky_served = auc["schedule + weather + naive means"]
    without, _ = auc["schedule + weather, no delays"]
    yesterday, _ = auc["schedule + weather, trained on yesterday's means"]
    return [
        claim(
            f"The leaky model looks better offline ({leaky:.3f} against {honest:.3f}) and loses"
            f" {leaky - leaky_served:.3f} AUC when served.",
            leaky > honest + 0.05,
            leaky - leaky_served > 0.15,
        ),
        claim(
            f"Served, it is worse than a model without any delays ({leaky_served:.3f} against"
            f" {without:.3f}); honest features beside the naive ones do not save it.",
            leaky_served < without - 0.04,
            auc["all honest features + naive means"][1] < without - 0.04,
        ),
        claim(
            f"Means that can be known, yesterday's, are worth {yesterday - without:.3f}; features"
            f" as of the minute {honest - without:.3f}.",
            without < yesterday < honest,
        ),
        claim(
            "All figures agree with the first measurement, as above.",
            *(agree(found[name], figures, TOLERANCES) for name, figures in LEAK.items()),
        ),
    ]


def say_skew(found: dict[str, tuple[float, float]]) -> list[str]:
    """Say what the third table shows."""
    auc = {name: scores[0] for name, scores in found.items()}
    loss = {name: scores[1] for name, scores in found.items()}
    missing = auc["feature store down, recent features missing"]
    zero = "feature store down, recent features 0"
    fallback = auc["fallback model, no recent features"]
    schedule = auc["fallback model, schedule only"]
    return [
        claim(
            f"When the store is down, a fallback model ({fallback:.3f}) beats feeding missing"
            f" values ({missing:.3f}) by {fallback - missing:.2f} AUC; even one on the schedule"
            f" alone does ({schedule:.3f}).",
            fallback - missing > 0.12,
            missing < auc[zero] < schedule < fallback < auc["as trained"],
        ),
        claim(
            "Zeros in place of missing values have the worst log loss of all.",
            loss[zero] == max(loss.values()),
        ),
        claim(
            "All figures agree with the first measurement, as above.",
            *(agree(found[name], figures, TOLERANCES) for name, figures in SKEW.items()),
        ),
    ]


def markdown(header: Sequence[str], scores: Mapping[str, Any], sentences: Sequence[str]) -> str:
    """Lay out pairs of AUC and log loss, and below them what they say."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for name, pairs in scores.items():
        lines.append([name, *(f"{auc:.4f} / {loss:.4f}" for auc, loss in pairs)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([table, *sentences])


def main(date: str) -> None:
    """Measure, check, print and write down."""
    groups, leak, skew, cpu_s = groups_table(), leak_table(), skew_table(), costs()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("scikit-learn", "numpy", "pandas"))
    months = [f"2013-{month:02}" for month in SPRING]
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    text = f"""# Point-in-time features

Written by `benchmarks/features.py` on {date}; Python {platform.python_version()}, {libraries};
{machine}.

## Groups of features

Trained on January 2013; AUC / log loss by month of the test.

{markdown(["features", *months], groups, say_groups(groups))}

## A leak

Trained on January and February, tested on March; AUC / log loss. A naive mean is that of the
flight's date, which serving knows only for the day before.

{markdown(["model", "offline", "served"], leak, say_leak(leak))}

## Skew between training and serving

Trained on January to May, tested on June.

{markdown(["serving input", "AUC / log loss"], {n: [s] for n, s in skew.items()}, say_skew(skew))}

## Cost

| work | CPU s |
| --- | ---: |
{"".join(f"| {name} | {s:.2f} |" + chr(10) for name, s in cpu_s.items())}"""
    print(text)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:] or [f"{datetime.now(UTC):%Y-%m-%d}"])
