"""The flights as a use case: will a flight arrive more than 15 minutes late?"""

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
