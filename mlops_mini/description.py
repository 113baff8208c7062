"""A use case in words: what `mlops-mini describe` prints."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from mlops_mini.data.periods import Calendar
from mlops_mini.data.table import Series, Table
from mlops_mini.features.feature_set import FeatureSet, offset
from mlops_mini.features.sources import Feature, Formula, Latest, Observation, Window
from mlops_mini.use_case import UseCase

# Title, header and rows of text.
TextTable = tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]
_KINDS = {"float32": "number", "string": "text", "tensor": "array"}


def summary(use_case: UseCase) -> str:
    """Say in a few sentences what is predicted, from what, and how time is cut.

    >>> from mlops_mini.use_case import Label
    >>> columns = {"customer": "text", "billed_at": "instant", "plan": "text", "left": "integer?"}
    >>> customers = Table(name="customers", key=["customer"], time="billed_at", columns=columns)
    >>> churn = UseCase("churn", tables=[customers], label=Label("left", matures_after="30d"),
    ...                 features=["plan"])
    >>> print(summary(churn))
    churn predicts the probability that left is 1, for each row of customers. A prediction is due at
    billed_at. Whether left is 1 is known 30 days after billed_at. Months begin and end at midnight
    in UTC. Models are judged over all rows. Training: a small Keras network, the default.
    """
    features, label = use_case.feature_set, use_case.label
    slices = f" and by {_listed(use_case.slices)}" if use_case.slices else ""
    trained_by = (
        f"{use_case.train.__module__}.{use_case.train.__qualname__}"
        if use_case.train
        else "a small Keras network, the default"
    )
    matures = pd.Timedelta(label.matures_after)
    known = f"{_lasting(matures)} after {features.time}" if matures else f"at {features.time}"
    zone = use_case.calendar.zone
    periods = (
        f"Months begin and end at midnight in {zone}"
        if use_case.calendar.unit == "month"
        else f"Weeks are seven days each, counted from midnight on 1 January in {zone}"
    )
    said, fact = f"that {label.name} is 1", f"Whether {label.name} is 1"
    if label.classes:
        said, fact = f"of each {label.name} ({_listed(label.classes)})", f"The {label.name}"
    return (
        f"{use_case.name} predicts the probability {said}, for each row of"
        f" {features.of}. A prediction is due {_due(features)}. {fact} is known"
        f" {known}. {periods}. Models are judged over all rows{slices}. Training: {trained_by}."
    )


def tables(use_case: UseCase) -> list[TextTable]:
    """Lay a use case out: a table of columns for each of its tables, and one of features."""
    described = [_columns(table, use_case.calendar) for table in use_case.tables]
    rules = [_rules(table) for table in use_case.tables]
    features = [
        (each.name, _KINDS[each.dtype], each.unit, each.description, _source(each))
        for each in use_case.feature_set.features
    ]  # fmt: skip
    header = ("feature", "kind", "unit", "what it says", "where it comes from")
    title = f"Features of {use_case.name}, in the order in which the model takes them"
    return [*described, *rules, (title, header, features)]


def _columns(table: Table, calendar: Calendar) -> TextTable:
    """The stored columns of a table; of each also what it's for and in which limits it lies."""
    rows = []
    for name, kind in table.columns.items():
        roles = [
            *(["key"] if name in table.key else []),
            *(["time"] if name == table.time else []),
        ]
        limits = [
            rule.words or rule.name for rule in table.row_rules if tuple(rule.columns) == (name,)
        ]
        missing = "yes" if kind.endswith("?") else "no"
        rows.append((name, kind.removesuffix("?"), missing, ", ".join(roles), "; ".join(limits)))
    example = "2026-03" if calendar.unit == "month" else "2026-W10"
    title = (
        f"Table {table.name}, one file for each {calendar.unit}, such as"
        f" {table.name}/{example}.parquet, or {table.name}.parquet for all (or .csv)"
    )
    if table.time not in table.columns:
        title += f"; its time is {table.time}, which prepare adds"
    return (title, ("column", "kind", "may be missing", "role", "every value"), rows)


def _rules(table: Table) -> TextTable:
    """What looks at several columns of a table, or at a whole partition."""
    rows = [
        (", ".join(table.key), "tells rows apart: of two rows with the same, the first is kept")
    ]
    rows += [
        (", ".join(rule.columns), rule.words or rule.name)
        for rule in table.row_rules
        if len(rule.columns) > 1
    ]
    rows += [
        (
            ", ".join(rule.columns),
            f"{rule.summary} {rule.quantity} is {rule.low:g} to {rule.high:g} {rule.unit}"
            + (f" for each {rule.by}" if rule.by else "")
            + "; else the whole file is refused, for its unit may be another",
        )
        for rule in table.whole_rules
    ]
    rows += [
        (column, f"reported if more than {share:.0%} are missing")
        for column, share in table.max_missing.items()
    ]
    if table.series:
        rows += _series(table.series)
    if table.schema:
        rows.append(("all", f"their statistics agree with {table.schema.name}, a reviewed schema"))
    return (f"Rules of {table.name}", ("columns", "rule"), rows)


def _series(series: Series) -> Iterator[tuple[str, str]]:
    required = series.values  # noqa: PD011, a description's, no frame's
    whose = f"{_listed(required)} each have" if required else "each value has"
    yield (
        series.of,
        (
            f"{whose} one row every {_span(pd.Timedelta(series.every))}; a gap is reported, and so"
            f" is a last row that's older than {_lasting(pd.Timedelta(series.max_age))}"
        ),
    )
    if series.together:
        yield ", ".join(series.together), "a row without any of them is reported"


def _source(feature: Feature[Any]) -> str:
    source = feature.source
    if isinstance(source, Formula):
        return "the row itself"
    if isinstance(source, Latest):
        return _latest(source.observation, source.value)
    return _window(source)


def _latest(observation: Observation, value: str) -> str:
    alive = _lasting(pd.Timedelta(seconds=observation.time_to_live_s))
    published = pd.Timedelta(seconds=observation.published_after_s)
    since = f"{_lasting(published)} after" if published else "from"
    return (
        f"the last {value} in {observation.table} with the same {observation.entity}; a row is"
        f" known {since} its {observation.time}, and used for {alive}"
    )


def _window(window: Window) -> str:
    span = _span(pd.Timedelta(seconds=window.window_s))
    event = window.event
    if window.aggregate == "count":
        what = f"number of {event.kind} events"
    elif window.value:
        what = f"mean of what follows from {event.value}, of {event.kind} events"
    else:
        what = f"mean {event.value} of {event.kind} events"
    less = f", less that of {window.less.kind} events" if window.less else ""
    published = pd.Timedelta(seconds=event.published_after_s)
    known = f", each known {_lasting(published)} after it" if published else ""
    empty = "missing" if math.isnan(window.empty) else f"{window.empty:g}"
    return (
        f"{what} ({event.table}, {event.time}) with the same {window.entity} in the last"
        f" {span}{less}{known}; {empty} if there are none"
    )


def _due(features: FeatureSet) -> str:
    due = offset(features.due)
    if not due:
        return f"at {features.time}"
    side = "before" if due < pd.Timedelta(0) else "after"
    return f"{_lasting(abs(due))} {side} {features.time}"


def _lasting(duration: pd.Timedelta) -> str:
    """Say how long something lasts, such as 34 hours.

    >>> [_lasting(pd.Timedelta(text)) for text in ("34h", "30d", "1h", "90min", "5s")]
    ['34 hours', '30 days', '1 hour', '90 minutes', '5 seconds']
    """
    for unit, name in (("1D", "day"), ("1h", "hour"), ("1min", "minute"), ("1s", "second")):
        number = duration / pd.Timedelta(unit)
        if number >= 1 and number == int(number):
            return f"{int(number)} {name}{'' if number == 1 else 's'}"
    return str(duration)


def _span(duration: pd.Timedelta) -> str:
    """Say how long something lasts after a word like `every` or `the last`, such as hour."""
    return _lasting(duration).removeprefix("1 ")


def _listed(names: Sequence[str]) -> str:
    """Say names aloud, such as `plan, calls and usd`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else str(last)
