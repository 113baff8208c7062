"""The year of flights, week by week: quick models, what their inputs were like, how good they were.

For lessons and replays that look at a whole year, so models are small and learn from every fifth
flight. Week 0 begins with the year.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.flights import year
from mlops_mini.flights.features import FEATURES
from mlops_mini.flights.tables import CALENDAR
from mlops_mini.model import evaluation
from mlops_mini.monitoring import quality
from mlops_mini.monitoring.quality import Cohort, Maturity
from mlops_mini.statistics import drift, mergeable
from mlops_mini.statistics.drift import DriftReport
from mlops_mini.statistics.mergeable import TableStatistics

LABELS_AFTER = timedelta(hours=34)

Array = npt.NDArray[Any]


class Year:
    """All flights with their features, as they were known an hour before departure.

    Attributes:
        flights: One row per flight, by scheduled departure, as `prepare` makes them.
        features: Their features, in the same order.
        day: Days of 24 hours since the year began, one per flight.
        week: Weeks since the year began, one per flight.
        late: 1 if it arrived more than 15 minutes late, 0 if not, NaN if it never arrived.
        chosen: Places of the flights that models learn from and are judged on.
        known: Those of them that have a label.
    """

    def __init__(self, *, every: int = 5) -> None:
        """Load the year and compute its features, which takes seconds.

        Args:
            every: One in so many flights is used.
        """
        flights, features = year.with_features()
        self.flights = flights.sort_values(FEATURES.time, kind="stable")
        self.features = features.loc[self.flights[FEATURES.key]]
        since = self.flights[FEATURES.time] - CALENDAR.period("2013-W00").start
        self.day: Array = (since // pd.Timedelta("1D")).to_numpy()
        self.week: Array = self.day // 7
        self.late: Array = self.flights["late"].to_numpy()
        self.chosen: Array = np.arange(0, len(self.flights), every)
        self.known: Array = self.chosen[~np.isnan(self.late[self.chosen])]
        self._models: dict[int, Any] = {}
        self._inputs: dict[tuple[int, int], TableStatistics] = {}
        self._cohorts: dict[tuple[int, int, float], Cohort] = {}

    @property
    def numeric(self) -> list[str]:
        """Names of the features that are numbers."""
        return [str(name) for name in self.features.select_dtypes("number")]

    def train(self, until: int) -> Any:
        """Train gradient boosting on all weeks before one; the same model the second time."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        if until not in self._models:
            rows = self.known[self.week[self.known] < until]
            model = HistGradientBoostingClassifier(
                learning_rate=0.15, max_iter=40, max_leaf_nodes=15, early_stopping=False
            )
            self._models[until] = model.fit(self._numbers[rows], self.late[rows])
        return self._models[until]

    def predict(self, until: int, rows: Array) -> Array:
        """Predict with the model that has learned from all weeks before one, shape [n_rows]."""
        return np.asarray(self.train(until).predict_proba(self._numbers[rows])[:, 1])

    def losses_of(self, _start: int, end: int) -> Array:
        """Compute the log loss of each known flight under the model of all days before one."""
        return evaluation.log_loss_per_row(
            self.predict(end // 7, self.known), self.late[self.known]
        )

    def mean_loss(self, until: int, week: int) -> float:
        """Mean log loss of a week under the model of all weeks before another."""
        rows = self.known[self.week[self.known] == week]
        return float(evaluation.log_loss_per_row(self.predict(until, rows), self.late[rows]).mean())

    def inputs(self, first: int, last: int) -> TableStatistics:
        """Count what the numeric features were like, from one week to before another."""
        if (first, last) not in self._inputs:
            rows = self.features.loc[self.week == last - 1, self.numeric]
            newest = mergeable.add(mergeable.create(), rows)
            if last - first > 1:
                newest = mergeable.merge(self.inputs(first, last - 1), newest)
            self._inputs[first, last] = newest
        return self._inputs[first, last]

    def drift(
        self, until: int, week: int, *, importances: Mapping[str, float] | None = None
    ) -> DriftReport:
        """Compare two weeks, the second one given, with all weeks before another, limit 0.25."""
        return drift.compare(
            self.inputs(0, until),
            self.inputs(week - 1, week + 1),
            importances=importances,
            thresholds=dict.fromkeys(self.numeric, 0.25),
        )

    def rise(self, until: int, week: int) -> float:
        """Tell by how much a model's newest two usable weeks are worse than its first two.

        Returns:
            Excess log loss now minus that at first, nats; 0 while there's nothing to compare.
        """
        compared = quality.rise([self.cohort(until, each) for each in range(until, week + 1)])
        return compared[1] - compared[0] if compared else 0.0

    def importances(self, until: int, *, seed: int = 0) -> Mapping[str, float]:
        """Measure the permutation importance of each numeric feature.

        Args:
            until: Of the model that has learned from all weeks before this one; it's asked about
                the four weeks that follow.
            seed: Of the shuffling.

        Returns:
            By how much the log loss rises if the feature is shuffled among the flights, at least 0.
        """
        of_known = self.week[self.known]
        rows = self.known[(of_known >= until) & (of_known < until + 4)]
        rng, model, late = np.random.default_rng(seed), self.train(until), self.late[rows]

        def loss(numbers: Array) -> float:
            answers = model.predict_proba(numbers)[:, 1]
            return float(evaluation.log_loss_per_row(answers, late).mean())

        before, rises = loss(self._numbers[rows]), {}
        for name in self.numeric:
            shuffled, place = self._numbers[rows], self.features.columns.get_loc(name)
            shuffled[:, place] = rng.permutation(shuffled[:, place])
            rises[name] = max(loss(shuffled) - before, 0.0)
        return rises

    def cohort(self, until: int, week: int, *, hours: float = 48) -> Cohort:
        """Measure a week's predictions by the labels that are there some hours after its end.

        Args:
            until: Of the model that has learned from all weeks before this one.
            week: The week.
            hours: When it's looked at, hours after its end.
        """
        key = (until, week, hours)
        if key not in self._cohorts:
            window = CALENDAR.period(f"2013-W{week:02}")
            now = window.end + timedelta(hours=hours)
            rows = self.chosen[self.week[self.chosen] == week]
            has_landed = (self.flights["arr_utc"].iloc[rows] <= now).to_numpy()
            table = {
                "version": until,
                "day": self.day[rows],
                "outputs": list(self.predict(until, rows)[:, None]),
                "label": np.where(has_landed, self.late[rows], np.nan),
            }
            self._cohorts[key] = quality.measure(
                pd.DataFrame(table), window, now=now, maturity=Maturity(after=LABELS_AFTER)
            )
        return self._cohorts[key]

    @cached_property
    def _numbers(self) -> Array:
        texts = [str(name) for name in self.features if name not in self.numeric]
        codes = {name: self.features[name].astype("category").cat.codes for name in texts}
        return self.features.assign(**codes).to_numpy("float32")
