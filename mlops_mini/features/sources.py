"""What a feature is, and the three sources that it may come from.

A `Formula` follows from columns of the example itself. A `Latest` is the last published observation
of a series. A `Window` aggregates what has happened lately.
"""

import keyword
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from mlops_mini.errors import InvalidArgumentError


@dataclass(frozen=True, kw_only=True, slots=True)
class Formula:
    """A value that follows from the example's own columns.

    Attributes:
        compute: Gets the columns by name, those that are known when a prediction is due and those
            that the table's `prepare` derives from them, and returns a column of the same length.
    """

    compute: Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """A table with a series of observations of each entity, such as the weather at each airport.

    Attributes:
        table: Its name.
        entity: The column that says whose observation it is; examples have it too.
        time: Its column with the instant observed.
        published_after_s: Seconds from that instant to publication: none may be used before.
        time_to_live_s: Seconds from publication during which one stands for now, the last included.
    """

    table: str
    entity: str
    time: str
    published_after_s: int
    time_to_live_s: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Latest:
    """A value of the last observation published, missing if there is none or it has expired.

    Attributes:
        observation: The series.
        value: The column of numbers whose last value is taken.
    """

    observation: Observation
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happens at most once to a row of a table.

    Attributes:
        kind: Its name, such as `departure`.
        table: The table with one row for each that may happen.
        time: The column with the instant when it happens, missing if it never does.
        value: The column with a whole number that comes with it; None if none does.
        published_after_s: Seconds from that instant until it is known: it does not count before.
    """

    kind: str
    table: str
    time: str
    value: str | None
    published_after_s: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """An aggregate of an entity's recent events, such as the departures from an airport.

    An event at time e counts at time t if t - window < e <= t, and if it's known by then.

    Attributes:
        entity: The column that events and the example must have in common.
        event: The events that are aggregated.
        value: What is averaged, a whole number or a truth value, computed from a column of the
            event's values or from one of them; None to average the values themselves, or to count.
        window_s: Length, seconds.
        aggregate: `count` or `mean`.
        empty: The value when no event is in the window.
        less: Events whose count is subtracted; None to subtract nothing.
    """

    entity: str
    event: Event
    value: Callable[[Any], Any] | None = None
    window_s: int
    aggregate: Literal["count", "mean"]
    empty: float
    less: Event | None = None

    def __post_init__(self) -> None:
        fits = self.less is None if self.aggregate == "mean" else self.value is None
        if not fits or self.window_s <= 0 or (self.aggregate == "mean" and not self.event.value):
            raise InvalidArgumentError(
                f"there can't be a window with the {self.aggregate} of {self.event.kind} events in"
                f" {self.window_s} s: a mean needs events that have a value, and subtracts no"
                " others; a count takes no value; window_s must be above 0"
            )


Dtype: TypeAlias = Literal["float32", "string", "tensor"]
Source: TypeAlias = Formula | Latest | Window
SourceT_co = TypeVar("SourceT_co", bound=Source, covariant=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature(Generic[SourceT_co]):
    """One input of the model.

    Attributes:
        name: Its name in frames, requests and the model's signature: ASCII letters, digits and `_`,
            as TensorFlow takes the names of inputs.
        dtype: `float32`, where missing is NaN, `string`, where missing is empty, or `tensor`, an
            array in each row, of the type and shape that its column has.
        group: Features that come or fail together, such as `weather`.
        unit: Unit of a number; empty for strings.
        description: What it says, one line.
        source: How its value comes about; only a formula gives strings or tensors.
    """

    name: str
    dtype: Dtype = "float32"
    group: str
    unit: str
    description: str
    source: SourceT_co

    def __post_init__(self) -> None:
        is_usable = self.name.isascii() and self.name.isidentifier()
        if not is_usable or keyword.iskeyword(self.name):
            raise InvalidArgumentError(
                f"{self.name!r} can't name a feature, which a model takes as an input: use letters,"
                ' digits and _, such as as_stored("price (USD)", name="price_usd")'
            )
        if self.dtype != "float32" and not isinstance(self.source, Formula):
            raise InvalidArgumentError(
                f"feature {self.name!r} is a {self.dtype}, and its source is a"
                f" {type(self.source).__name__}: only a formula gives strings or tensors"
            )


def as_stored(column: str, *, name: str = "", dtype: Dtype = "float32") -> Feature[Formula]:
    """Make a feature that is a stored column as it is.

    Args:
        column: The column of the examples' table; the feature set's `inputs` must name it too.
        name: The feature's name; without one, the column's.
        dtype: What the column holds: numbers or truth values (`float32`), texts or tensors.

    >>> as_stored("price (USD)", name="price_usd").description
    'the column price (USD), as it is'
    """
    return Feature(
        name=name or column,
        dtype=dtype,
        group="columns",
        unit="",
        description=f"the column {column}, as it is",
        source=Formula(compute=itemgetter(column)),
    )
