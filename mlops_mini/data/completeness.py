"""Which rows of a regular series are there: holes, freshness, and rows that say nothing."""

from collections.abc import Sequence

import pandas as pd

from mlops_mini.data import columns
from mlops_mini.data.findings import Finding
from mlops_mini.data.periods import Period
from mlops_mini.data.table import Series
from mlops_mini.errors import InvalidArgumentError

_HOUR = pd.Timedelta(hours=1)
_NAMES = {_HOUR: "hour", pd.Timedelta(days=1): "day", pd.Timedelta(minutes=1): "minute"}


def completeness(series: Series, time: str, rows: pd.DataFrame, period: Period) -> pd.DataFrame:
    """Count the steps of a series that have a row and those that have none.

    Args:
        series: How often rows come, and of what each has a series.
        time: The column with their instants.
        rows: Columns `series.of` and `time`; rows out of the period do not count.
        period: Month or week.

    Returns:
        One row for each of `series.values`, or for each value seen if there are none, index
        `series.of`: `n_expected` and `n_missing` steps, `longest_gap`, the most that are missing
        in a row, and `age_h`, the hours from the end of the last step with a row to the end of the
        period, NaN without any. Steps are counted from 1970-01-01T00:00Z.

    Raises:
        InvalidArgumentError: A column is not there, or the instants have no time zone.

    >>> from mlops_mini.data.periods import Calendar
    >>> hours = pd.date_range("2026-03-01", "2026-03-31", freq="h", tz="UTC").delete([5, 6])
    >>> readings = pd.DataFrame({"machine": "press", "time": hours})
    >>> series = Series(every="1h", of="machine", max_age="6h")
    >>> completeness(series, "time", readings, Calendar().period("2026-03"))
             n_expected  n_missing  longest_gap  age_h
    machine
    press           744         25           23   23.0
    """
    columns.require(rows, (series.of, time), "complete hours")
    rows = columns.plain_frame(rows[[series.of, time]])
    if columns.kind(rows[time]) not in {"instant", "empty"}:
        raise InvalidArgumentError(
            f"{time} is {rows[time].dtype}, expected instants with a time zone, or all hours would"
            " be missing: convert it with .dt.tz_localize('UTC')"
        )
    every = pd.Timedelta(series.every)
    # First, for an instant of the year 9999 has no nanoseconds to be looked up by.
    rows = rows[rows[time].between(period.start, period.end)]
    step = f"{every.value}ns"
    start = pd.Timestamp(period.start).ceil(step)
    steps = pd.date_range(start, period.end, freq=every, inclusive="left")
    seen = pd.to_datetime(rows[time], utc=True).dt.floor(step)
    awaited = series.values or sorted(rows[series.of].dropna().unique())  # noqa: PD011 - ours
    counts = {}
    for value in awaited:
        has_row = steps.isin(seen[rows[series.of] == value])
        # A hole and the step before it share a number.
        gaps = pd.Series(~has_row).groupby(has_row.cumsum()).sum()
        age = period.end - (steps[has_row].max() + every)
        counts[value] = {
            "n_expected": len(steps),
            "n_missing": int((~has_row).sum()),
            "longest_gap": int(gaps.max()),
            "age_h": age / _HOUR,
        }
    names = ["n_expected", "n_missing", "longest_gap", "age_h"]
    table = pd.DataFrame.from_dict(counts, orient="index", columns=names)
    return table.rename_axis(series.of)


def findings(series: Series, time: str, rows: pd.DataFrame, period: Period) -> tuple[Finding, ...]:
    """Tell what is missing from a series, none of which keeps it from being used.

    Args:
        series: How often rows come, and of what each has a series.
        time: The column with their instants.
        rows: As they arrived: a row that breaks a rule is there nevertheless.
        period: Month or week that they are the partition of.

    Returns:
        At most one `incomplete` and one `stale` for each value of `series.of`, and an `empty
        observation` for each row in which all columns of `series.together` are missing.
    """
    every, max_age = pd.Timedelta(series.every), pd.Timedelta(series.max_age)
    step = _NAMES.get(every, "step")
    pace = f" of {series.every}" if step == "step" else ""
    texts = []
    for value, counts in completeness(series, time, rows, period).to_dict("index").items():
        if counts["n_missing"]:
            text = (
                f"{value} lacks {counts['n_missing']} of {counts['n_expected']} {step}s{pace} of"
                f" {period}, at most {counts['longest_gap']} in a row"
            )
            texts.append(("incomplete", text))
        if not counts["age_h"] <= max_age / _HOUR:  # NaN, no row at all, is not either
            text = (
                f"{value}'s last {step} is {counts['age_h']:.4g} h old at the end of {period}, and"
                f" is used for at most {max_age / _HOUR:g} h"
            )
            texts.append(("stale", text))
    odd = [Finding(name=name, column=time, text=text) for name, text in texts]
    if series.together:
        nothing = f"has no {' and '.join(_listed(series.together))}"
        plain = columns.plain_frame(rows[[series.of, time, *series.together]])
        is_empty = plain[list(series.together)].isna().all(axis=1)
        odd += [
            Finding(
                name="empty observation",
                column=", ".join(series.together),
                text=f"{value} at {instant} {nothing}",
            )
            for value, instant in zip(
                plain.loc[is_empty, series.of], plain.loc[is_empty, time], strict=True
            )
        ]
    return tuple(odd)


def _listed(names: Sequence[str]) -> list[str]:
    """Join all names but the last by commas."""
    *most, last = names
    return [", ".join(most), last] if most else [last]
