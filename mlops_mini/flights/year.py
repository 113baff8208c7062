"""The whole year of flights with a label, to replay what could have been."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini import workspace
from mlops_mini.features import events, offline
from mlops_mini.flights import datasets, day_means
from mlops_mini.flights.features import FEATURES
from mlops_mini.flights.preparation import prepare
from mlops_mini.flights.use_case import FLIGHTS
from mlops_mini.model.gate_rules import Recomputed
from mlops_mini.pipeline import recomputing

if TYPE_CHECKING:
    FloatSeries = pd.Series[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Year:
    """Flights whose outcome is known, one row each, by `flight_id`.

    Attributes:
        flights: Prepared rows.
        features: What a model may know of them an hour before departure.
        late: 1 if a flight arrived more than 15 minutes late, otherwise 0.
        days: Local day of each flight, counted from 0, shape [n_flights].
        leaking: The same features, but three recent means are those of the flight's whole day.
    """

    flights: pd.DataFrame
    features: pd.DataFrame
    late: "FloatSeries"
    days: npt.NDArray[np.int64]
    leaking: pd.DataFrame

    def recompute(self, features: pd.DataFrame, *, period: str, n_rows: int = 100) -> Recomputed:
        """Compute features of some flights once more, from a store that knows only the past.

        Args:
            features: To be compared, by `flight_id`, of flights of the period.
            period: A month or week, such as `2013-03`.
            n_rows: How many to compute, evenly spread over time.
        """
        rows = features.join(self.flights[[FEATURES.time]])
        with TemporaryDirectory() as folder:
            file = Path(folder) / "rows.parquet"
            rows.reset_index().to_parquet(file)
            return recomputing.recompute(
                FLIGHTS,
                [FLIGHTS.calendar.period(period)],
                file,
                data_folder=workspace.data_folder(),
                n_rows=n_rows,
            )


def with_features(months: Sequence[str] = ()) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read flights with and without a label, as prepared, and compute their features.

    Args:
        months: Such as `["2013-01"]`, in order; all if left out.

    Returns:
        Both by `flight_id`, in the order of the source within each month.
    """
    tables = [datasets.flights(month) for month in months or datasets.flight_months()]
    flights = prepare(pd.concat(tables)).set_index("flight_id", drop=False)
    features = offline.compute(
        flights,
        FEATURES,
        prepare=prepare,
        history=events.from_tables(FEATURES, {"flights": flights}, {"flights": FEATURES.key}),
        observed={"weather": datasets.weather()},
    )
    return flights, features


def read(months: Sequence[str] = ()) -> Year:
    """Read flights, and compute their features.

    Args:
        months: Such as `["2013-01"]`, in order; all if left out.
    """
    flights, features = with_features(months)
    of_day = day_means.whole_day(flights)
    leaking = features.assign(
        org_dep_mean_3h=of_day["origin_mean"],
        car_dep_mean_24h=of_day["carrier_mean"],
        dst_arr_mean_24h=of_day["dest_mean"],
    )
    is_known = flights["late"].notna()
    days = flights["epoch_day"] - flights["epoch_day"].min()
    return Year(
        flights=flights[is_known],
        features=features[is_known],
        late=flights.loc[is_known, "late"],
        days=days[is_known].to_numpy("int64"),
        leaking=leaking[is_known],
    )
