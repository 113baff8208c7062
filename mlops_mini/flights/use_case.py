"""The flights as a use case: will a flight arrive more than 15 minutes late?"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data.periods import Calendar
from mlops_mini.flights.features import FEATURES
from mlops_mini.flights.tables import CALENDAR, WEATHER
from mlops_mini.flights.tables import FLIGHTS as FLIGHTS_TABLE
from mlops_mini.use_case import Label, UseCase

FLIGHTS = UseCase(
    "flights",
    tables=[FLIGHTS_TABLE, WEATHER],
    calendar=CALENDAR,
    label=Label("late", matures_after="34h"),
    features=FEATURES,
    slices=["origin", "carrier", "hours"],
    fallback=[feature.name for feature in FEATURES.features if feature.group != "recent"],
)

_MAX_ROWS = 100_000  # more of them change the third digit, and take minutes over a year


def train(features: pd.DataFrame, labels: npt.ArrayLike, *, seed: int = 0, **how: Any) -> Any:
    """Train as the default does, on at most 100,000 rows drawn by the seed."""
    from mlops_mini.model import training

    rows = np.arange(len(features))
    if len(rows) > _MAX_ROWS:
        rows = np.random.default_rng(seed).choice(rows, _MAX_ROWS, replace=False)
    return training.train(features.iloc[rows], np.asarray(labels)[rows], seed=seed, **how)


# As the loop plays them: delivered by week.
WEEKLY = replace(FLIGHTS, calendar=Calendar("week", zone=CALENDAR.zone), train=train)
