"""The reference model: gradient boosting with fixed settings, on the features of the year.

Quick to train, and the same to the digit for any order of the rows, so that figures of several
benchmarks can be compared.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mlops_mini.features import events, offline
from mlops_mini.flights import datasets, day_means, times
from mlops_mini.flights.features import FEATURES
from mlops_mini.flights.preparation import prepare

CATEGORIES = ["carrier", "origin", "dest"]
NAIVE = {"naive_origin": "origin", "naive_carrier": "carrier", "naive_dest": "dest"}
SPRING = (2, 3, 4, 5, 6, 7)
MAX_ROWS = 100_000


def names(*groups: str) -> list[str]:
    """List the features of some groups."""
    return [feature.name for feature in FEATURES.features if feature.group in groups]


SCHEDULE = names("schedule")
NO_RECENT = names("schedule", "weather")
RECENT = names("recent")
NO_WEATHER = names("schedule", "recent")
ALL = names("schedule", "weather", "recent")


@cache
def flights() -> pd.DataFrame:
    """Load the year of flights."""
    return pd.concat(
        [datasets.flights(month) for month in datasets.flight_months()], ignore_index=True
    )


@cache
def rows(horizon_min: int = 60, *, counts_own: bool = False) -> pd.DataFrame:
    """Compute the year's features, as the model wants them, with month and label.

    Rows are sorted by scheduled departure and `flight_id`; categories are codes by frequency in
    January, NaN if unseen then.
    """
    year = flights()
    prepared = prepare(year)
    features = offline.compute(
        year,
        FEATURES,
        prepare=prepare,
        history=events.from_tables(FEATURES, {"flights": prepared}, {"flights": FEATURES.key}),
        observed={"weather": datasets.weather()},
        due=f"-{horizon_min}min",
        counts_own=counts_own,
    )
    table = features.astype(dict.fromkeys(names("weather", "recent"), "float64"))
    january = (year["month"] == 1).to_numpy()
    for name in CATEGORIES:
        counts = features.loc[january, name].value_counts().sort_index()
        ranked = counts.sort_values(ascending=False, kind="stable").index
        table[name] = features[name].map({value: float(i) for i, value in enumerate(ranked)})
    extra = {"month": year["month"], "late": prepared["late"].to_numpy(), **daily_means(year)}
    table = table.assign(**{name: np.asarray(values) for name, values in extra.items()})
    departure = times.scheduled_departure(year).to_numpy()
    return table.iloc[np.lexsort((year["flight_id"], departure))]


def daily_means(year: pd.DataFrame) -> dict[str, Any]:
    """Compute the obvious features: mean delays of the flight's date, and of the day before."""
    means = {}
    for when, days_back in (("today", 0), ("yesterday", 1)):
        found = day_means.whole_day(year, days_back=days_back)
        means |= {f"{name}_{when}": found[f"{entity}_mean"] for name, entity in NAIVE.items()}
    return means


def of_months(table: pd.DataFrame, months: Sequence[int]) -> pd.DataFrame:
    """Cut out the rows of some months that have a label."""
    return table[table["month"].isin(months) & table["late"].notna()]


def train(table: pd.DataFrame, months: Sequence[int], columns: Sequence[str]) -> Any:
    """Train the reference model: gradient boosting on at most 100,000 rows, drawn with a seed."""
    chosen = of_months(table, months)
    if len(chosen) > MAX_ROWS:
        drawn = np.random.RandomState(0).choice(len(chosen), MAX_ROWS, replace=False)
        chosen = chosen.iloc[drawn]
    model = HistGradientBoostingClassifier(
        max_iter=60,
        learning_rate=0.12,
        early_stopping=False,
        random_state=0,
        categorical_features=[name in CATEGORIES for name in columns],
    )
    return model.fit(chosen[list(columns)].to_numpy("float64"), chosen["late"])


def train_logistic(table: pd.DataFrame, months: Sequence[int]) -> Any:
    """Train a logistic regression on all features."""
    chosen = of_months(table, months)
    is_category = [name in CATEGORIES for name in ALL]
    model = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), is_category),
            (
                make_pipeline(SimpleImputer(strategy="median"), StandardScaler()),
                [not category for category in is_category],
            ),
        ),
        LogisticRegression(max_iter=1000),
    )
    return model.fit(chosen[ALL].to_numpy("float64"), chosen["late"])


def score(model: Any, tested: pd.DataFrame, columns: Sequence[str]) -> tuple[float, float]:
    """Measure AUC and log loss."""
    predicted = model.predict_proba(tested[list(columns)].to_numpy("float64"))[:, 1]
    late = tested["late"].to_numpy()
    return float(roc_auc_score(late, predicted)), float(log_loss(late, predicted))


def by_month(model: Any, table: pd.DataFrame, columns: Sequence[str]) -> npt.NDArray[np.float64]:
    """Test on each month of February to July: AUC and log loss, shape [6, 2]."""
    return np.array([score(model, of_months(table, [month]), columns) for month in SPRING])
