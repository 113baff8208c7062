"""A use case in words: what `mlops-mini describe` prints."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from mlops_mini.data.table import RowRule, Series, Table, WholeRule
from mlops_mini.features.feature_set import FeatureSet, offset
from mlops_mini.features.sources import Event, Feature, Formula, Latest, Observation, Window
from mlops_mini.use_case import UseCase

# Title, header and rows of text.
TextTable = tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]


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
    unit = use_case.calendar.unit.capitalize()
    return (
        f"{use_case.name} predicts the probability that {label.name} is 1, for each row of"
        f" {features.of}. A prediction is due {_due(features)}. Whether {label.name} is 1 is known"
        f" {known}. {unit}s begin and end at midnight in {use_case.calendar.zone}. Models are"
        f" judged over all rows{slices}. Training: {trained_by}."
    )


def tables(use_case: UseCase) -> list[TextTable]:
    """Lay a use case out: a table of columns for each of its tables, and one of features."""
    described = [_columns(table) for table in use_case.tables]
    rules = [_rules(table) for table in use_case.tables if table.rules or table.series]
    features = [
        (each.name, "text" if each.dtype == "string" else "number", each.unit, each.description,
         _source(each, use_case.feature_set))
        for each in use_case.feature_set.features
    ]  # fmt: skip
    header = ("feature", "kind", "unit", "what it says", "where it comes from")
    return [*described, *rules, (f"Features of {use_case.name}", header, features)]


def _columns(table: Table) -> TextTable:
    """The stored columns of a table; of each also what it's for and in which limits it lies."""
    rows = []
    for name, kind in table.columns.items():
        roles = [
            *(["key"] if name in table.key else []),
            *(["time"] if name == table.time else []),
        ]
        limits = [
            rule.name
            for rule in table.rules
            if isinstance(rule, RowRule) and tuple(rule.columns) == (name,)
        ]
        missing = "yes" if kind.endswith("?") else "no"
        rows.append((name, kind.removesuffix("?"), missing, ", ".join(roles), "; ".join(limits)))
    title = (
        f"Table {table.name}, stored as {table.name}/PERIOD.parquet or .csv, or {table.name}.csv"
    )
    if table.time not in table.columns:
        title += f"; its time is {table.time}, which prepare adds"
    return (title, ("column", "kind", "may be missing", "role", "every value"), rows)


def _rules(table: Table) -> TextTable:
    """What looks at several columns of a table, or at a whole partition."""
    rows = [(", ".join(table.key), "told apart by the key: the first of two such rows is kept")]
    for rule in table.rules:
        if isinstance(rule, RowRule) and len(rule.columns) > 1:
            rows.append((", ".join(rule.columns), rule.name))
        if isinstance(rule, WholeRule):
            whole = (
                f"{rule.summary} {rule.quantity} {rule.low:g} to {rule.high:g} {rule.unit}"
                + (f" for each {rule.by}" if rule.by else "")
                + ", else the partition is refused"
            )
            rows.append((", ".join(rule.columns), whole))
    if table.series:
        rows += _series(table.series)
    return (f"Rules of {table.name}", ("columns", "rule"), rows)


def _series(series: Series) -> Iterator[tuple[str, str]]:
    required = series.values  # noqa: PD011, a description's, no frame's
    whose = f" of {_listed(required)}" if required else ""
    yield (
        series.of,
        (
            f"one row every {_lasting(pd.Timedelta(series.every))} for each value{whose}; a gap, or"
            f" a last row older than {_lasting(pd.Timedelta(series.max_age))}, is reported"
        ),
    )
    if series.together:
        yield ", ".join(series.together), "a row without any of them is reported"


def _source(feature: Feature[Any], features: FeatureSet) -> str:
    source = feature.source
    if isinstance(source, Formula):
        return f"the row itself ({', '.join(features.inputs)})" if not feature.group else "the row"
    if isinstance(source, Latest):
        return _latest(source.observation, source.value)
    return _window(source)


def _latest(observation: Observation, value: str) -> str:
    alive = _lasting(pd.Timedelta(seconds=observation.time_to_live_s))
    published = pd.Timedelta(seconds=observation.published_after_s)
    late = f", known {_lasting(published)} after {observation.time}" if published else ""
    return (
        f"last {value} in {observation.table} for the same {observation.entity}{late}, for {alive}"
    )


def _window(window: Window) -> str:
    length = _lasting(pd.Timedelta(seconds=window.window_s))
    event = window.event
    what = "number" if window.aggregate == "count" else f"mean of {event.value}"
    less = f", less that of {window.less.kind}" if window.less else ""
    return f"{what} of {_events(event)} for the same {window.entity}, last {length}{less}"


def _events(event: Event) -> str:
    return f"{event.kind} ({event.table}.{event.time})"


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
    for unit, name in (("1d", "day"), ("1h", "hour"), ("1min", "minute"), ("1s", "second")):
        number = duration / pd.Timedelta(unit)
        if number >= 1 and number == int(number):
            return f"{int(number)} {name}{'' if number == 1 else 's'}"
    return str(duration)


def _listed(names: Sequence[str]) -> str:
    """Say names aloud, such as `plan, calls and usd`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else str(last)
