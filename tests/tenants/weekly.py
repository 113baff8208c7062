"""The sensors, delivered by week, with a gate that lets a few hundred rows prove something."""

from dataclasses import replace
from pathlib import Path

from mlops_mini.data.periods import Calendar
from tests.tenants.sensors import STOPS, ZONE

WEEKLY = replace(
    STOPS,
    calendar=Calendar("week", zone=ZONE),
    thresholds=Path(__file__).with_name("lenient.yaml"),
)
