"""All features of a model: whose they are, when they are due, and what they may be made of."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from mlops_mini.data.table import duration
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.features.sources import Event, Feature, Formula, Latest, Observation, Window


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """The features of a model, computed alike for training and for serving.

    Attributes:
        of: The table whose rows are the examples.
        key: Its column that tells examples apart: whole numbers or texts.
        time: Its column with the instant of an example, stored or added by the table's `prepare`.
        due: When a prediction is due, relative to `time`, such as `-60min`: whole seconds.
        inputs: Stored columns that are known when a prediction is due. Features are made of these
            and of what `prepare` derives from them alone, so that no outcome can leak in.
        features: In the order in which the model takes them.

    Raises:
        InvalidArgumentError: Two features share a name, or two different events a kind, or a table
            of observations is described in two ways, or `due` is no duration.

    >>> load = Feature(
    ...     name="load",
    ...     group="machine",
    ...     unit="kW",
    ...     description="power drawn",
    ...     source=Formula(compute=lambda machine: machine["watts"] / 1000),
    ... )
    >>> machines = FeatureSet(
    ...     of="machines",
    ...     key="machine_id",
    ...     time="started",
    ...     inputs=["watts", "started"],
    ...     features=[load],
    ... )
    >>> machines.names, machines.reach_s
    (('load',), 0)
    """

    of: str
    key: str
    time: str
    due: str = "0min"
    inputs: Sequence[str]
    features: Sequence[Feature[Any]]

    def __post_init__(self) -> None:
        _refuse_twins("features share the name", self.names)
        _refuse_twins("different events share the kind", (event.kind for event in self.events))
        _refuse_twins(
            "different observations share the table",
            (observation.table for observation in self.observations),
        )
        offset(self.due)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features' names, in order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def formulas(self) -> tuple[Feature[Formula], ...]:
        """The features that follow from the example itself."""
        return tuple(each for each in self.features if isinstance(each.source, Formula))

    @cached_property
    def latest(self) -> tuple[Feature[Latest], ...]:
        """The features that are last observations."""
        return tuple(each for each in self.features if isinstance(each.source, Latest))

    @cached_property
    def windows(self) -> tuple[Feature[Window], ...]:
        """The features that aggregate recent events."""
        return tuple(each for each in self.features if isinstance(each.source, Window))

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """The events that some window counts or takes off, each once."""
        used = [event for window in self.windows for event in _events_of(window.source)]
        return tuple(dict.fromkeys(used))

    @cached_property
    def observations(self) -> tuple[Observation, ...]:
        """The series that some feature is a value of, each once."""
        return tuple(dict.fromkeys(feature.source.observation for feature in self.latest))

    @cached_property
    def entities(self) -> tuple[str, ...]:
        """The columns by which events and observations are looked up, each once."""
        of_windows = [feature.source.entity for feature in self.windows]
        of_latest = [observation.entity for observation in self.observations]
        return tuple(dict.fromkeys([*of_windows, *of_latest]))

    @cached_property
    def reach_s(self) -> int:
        """How many seconds features look back at most."""
        longest_windows = [feature.source.window_s for feature in self.windows]
        oldest_observations = [
            observation.published_after_s + observation.time_to_live_s
            for observation in self.observations
        ]
        return max([0, *longest_windows, *oldest_observations])

    def entities_of(self, event: Event) -> tuple[str, ...]:
        """Tell by which entities an event is looked up."""
        used = [f.source.entity for f in self.windows if event in _events_of(f.source)]
        return tuple(dict.fromkeys(used))

    def columns_of(self, observation: Observation) -> tuple[str, ...]:
        """Tell which columns of a series are used."""
        used = [f.source.value for f in self.latest if f.source.observation == observation]
        return tuple(dict.fromkeys(used))


def offset(due: str | pd.Timedelta) -> pd.Timedelta:
    """Read how long after an example's own instant a prediction is due, negative for before.

    Raises:
        InvalidArgumentError: It is no duration of whole seconds.

    >>> offset("-60min")
    Timedelta('-1 days +23:00:00')
    """
    read = due if isinstance(due, pd.Timedelta) else duration(due, "due")
    if read % pd.Timedelta(seconds=1):
        raise InvalidArgumentError(
            f"due is {due!r}, expected a duration of whole seconds such as '-60min'"
        )
    return read


def _events_of(window: Window) -> tuple[Event, ...]:
    return (window.event,) if window.less is None else (window.event, window.less)


def _refuse_twins(message: str, names: Iterable[str]) -> None:
    twins = [name for name, n_times in Counter(names).items() if n_times > 1]
    if twins:
        raise InvalidArgumentError(f"{message} {twins}: give each its own")
