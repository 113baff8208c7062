"""What a feature is, and the three sources that it may come from.

A `Formula` over what the schedule says works alike on columns and on the values of one flight. A
`Latest` is the last published observation. A `Window` aggregates what has happened to flights
lately.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from mlops_mini.errors import InvalidArgumentError

Entity = Literal["origin", "carrier", "dest"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Formula:
    """A value that follows from the schedule.

    Attributes:
        compute: The value from `definitions.FLIGHT_COLUMNS` and two inputs looked up for them:
            `epoch_day`, the local date as days since 1970-01-01, and `shift_min`, by how many
            minutes the clocks of the destination are ahead of New York's at departure.
    """

    compute: Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """A series of observations at an entity.

    Attributes:
        entity: Whose they are.
        time: Their column with the instant observed.
        published_after_s: Seconds from that instant to publication: none may be used before.
        time_to_live_s: Seconds from publication during which one stands for now, the last included.
    """

    entity: Entity
    time: str
    published_after_s: int
    time_to_live_s: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Latest:
    """A value of the last observation published, missing if there is none or it has expired.

    Attributes:
        observation: Of which series.
        value: Its column.
    """

    observation: Observation
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happens to a flight at most once.

    Attributes:
        kind: Its name.
        time: When: a column of `times.derive_utc`, missing if it never happens.
        delay: Its delay: a column of `datasets.flights`, minutes; None if it has none.
    """

    kind: str
    time: str
    delay: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """An aggregate of the events at an entity during the last while.

    Seven things fix it: entity, event, event time (the event brings it), value, window, aggregate,
    and the value when empty. An event at time e counts at time t if t - window < e <= t.

    Attributes:
        entity: Events of the flight's own origin, carrier or destination count.
        event: Which events.
        value: What of an event is averaged, a whole number, from its delay in minutes; None to
            count.
        window_s: Length, seconds.
        aggregate: `count` or `mean`.
        empty: The value when no event is in the window.
        less: Events whose count is taken off again; None for none.
    """

    entity: Entity
    event: Event
    value: Callable[[Any], Any] | None = None
    window_s: int
    aggregate: Literal["count", "mean"]
    empty: float
    less: Event | None = None

    def __post_init__(self) -> None:
        is_mean = self.aggregate == "mean"
        fits = is_mean == (self.value is not None) and not (is_mean and self.less)
        if not fits or self.window_s <= 0 or (is_mean and self.event.delay is None):
            raise InvalidArgumentError(
                f"no such window: {self}; a mean needs a value of an event with a delay, a count"
                " has none, and window_s is above 0"
            )


Source: TypeAlias = Formula | Latest | Window
SourceT_co = TypeVar("SourceT_co", bound=Source, covariant=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature(Generic[SourceT_co]):
    """One input of the model.

    Attributes:
        name: Its name in frames, requests and the model's signature.
        dtype: `float32`, where missing is NaN, or `string`, where missing is empty.
        group: `schedule`, `weather` or `recent`; features of a group come or fail together.
        unit: Unit of a number; empty for strings.
        description: What it says, one line.
        source: How its value comes about.
    """

    name: str
    dtype: Literal["float32", "string"] = "float32"
    group: Literal["schedule", "weather", "recent"]
    unit: str
    description: str
    source: SourceT_co
