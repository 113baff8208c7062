"""Rules that each row of a partition must keep, and what becomes of rows that do not."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from pandas.api import types

from mlops_mini.data import tables
from mlops_mini.data.periods import Period
from mlops_mini.errors import DataIntegrityError

if TYPE_CHECKING:  # importing pandera takes over a second
    from pandera.pandas import DataFrameSchema

ORIGINS = ("EWR", "JFK", "LGA")
KEY = ("year", "month", "day", "carrier", "flight", "origin")


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSplit:
    """A partition, parted by the row rules: every row that arrived is in one of the two.

    Attributes:
        kept: Rows that keep all rules, as they arrived, with their index.
        quarantined: The others, with a further column `reason`: for each broken rule the column,
            the rule and the value, such as `distance: in_range(50, 5000), found 17`.
    """

    kept: pd.DataFrame
    quarantined: pd.DataFrame


def flight_rules(period: Period) -> "DataFrameSchema":
    """Build the row rules of flights.

    They hold for all flights of 2013 but one, of 17 miles. Delays have no limits: the longest is
    over 21 hours, and true.

    Args:
        period: The partition's month or week; `year` and `month` must be its own.

    Returns:
        A pandera schema; validate with `lazy=True` to see all failures at once.
    """
    from pandera.pandas import Check, Column, DataFrameSchema

    integral = Check(_is_integral, name="is a whole number")
    clock = Check(_is_clock_time, name="is a clock time HHMM")
    months = [month.number for month in period.months()]
    return DataFrameSchema(
        {
            "flight_id": Column(checks=integral, unique=True, report_duplicates="exclude_first"),
            "year": Column(checks=Check.equal_to(period.year)),
            "month": Column(checks=Check.isin(months)),
            "day": Column(checks=[integral, Check.in_range(1, 31)]),
            "sched_dep_time": Column(checks=[integral, clock]),
            "sched_arr_time": Column(checks=[integral, clock]),
            "dep_delay": Column(checks=integral, nullable=True),
            "arr_delay": Column(checks=integral, nullable=True),
            "air_time": Column(checks=integral, nullable=True),
            "carrier": Column(checks=Check.str_length(2, 2)),
            "flight": Column(checks=integral),
            "origin": Column(checks=Check.isin(ORIGINS)),
            "dest": Column(checks=Check.str_length(3, 3)),
            "distance": Column(checks=[integral, Check.in_range(50, 5000)]),
        },
        checks=[Check(keeps, name=rule) for rule, (_, keeps) in _rules_across_columns().items()],
    )


def split_rows(
    flights: pd.DataFrame, period: Period | str, *, max_quarantined_share: float = 0.01
) -> RowSplit:
    """Part a partition of flights into rows to use and rows to set aside.

    Of two rows with the same key or `flight_id` the first is kept.

    Args:
        flights: Rows as `datasets.flights` gives them, in any integer or float type.
        period: The month or week that they are the partition of.
        max_quarantined_share: Largest share of rows to set aside, 0 to 1, before the partition as a
            whole is refused.

    Returns:
        Both parts; together exactly the rows given.

    Raises:
        DataIntegrityError: The partition is refused: no rows, a column missing or of the wrong
            kind, or too many rows that break a rule.

    >>> from mlops_mini.data import datasets
    >>> july = split_rows(datasets.flights("2013-07"), "2013-07")
    >>> len(july.kept), july.quarantined[["origin", "dest", "reason"]].to_dict("records")
    (29424, [{'origin': 'EWR', 'dest': 'LGA', 'reason': 'distance: in_range(50, 5000), found 17'}])
    """
    period = Period.parse(period)
    _check_columns(flights, period)
    reasons = _broken_rules(flights.reset_index(drop=True), flight_rules(period))
    share = len(reasons) / len(flights)
    if share > max_quarantined_share:
        texts = [text for row_texts in reasons.values() for text in row_texts]
        most_common, n_rows = Counter(texts).most_common(1)[0]
        raise DataIntegrityError(
            f"flights of {period} refused: {len(reasons)} of {len(flights)} rows break a rule, at"
            f" most {max_quarantined_share:.1%} may; most often {most_common} ({n_rows} rows):"
            " have the partition sent again"
        )
    bad = sorted(reasons)
    quarantined = flights.iloc[bad].assign(reason=["; ".join(reasons[row]) for row in bad])
    is_bad = pd.Series(range(len(flights))).isin(bad).to_numpy()
    return RowSplit(kept=flights[~is_bad], quarantined=quarantined)


def _broken_rules(flights: pd.DataFrame, rules: "DataFrameSchema") -> dict[int, list[str]]:
    """List what is wrong by position of the row."""
    from pandera.errors import SchemaErrors

    try:
        rules.validate(flights, lazy=True)
    except SchemaErrors as exc:
        failures = exc.failure_cases
    else:
        return {}
    across = _rules_across_columns()
    reasons: dict[int, list[str]] = {}
    for case in failures.itertuples():
        row, column, found = int(case.index), case.column, case.failure_case
        if case.check in across:
            columns, _ = across[case.check]
            column = ", ".join(columns)
            found = ", ".join(str(flights[name].iloc[row]) for name in columns)
        text = f"{column}: {case.check}, found {found}"
        if text not in reasons.setdefault(row, []):
            reasons[row].append(text)
    return reasons


def _check_columns(flights: pd.DataFrame, period: Period) -> None:
    missing = [name for name in tables.FLIGHTS.names if name not in flights.columns]
    if missing:
        raise DataIntegrityError(
            f"flights of {period} refused: columns {missing} are missing, there are"
            f" {list(flights.columns)}: have the partition sent again"
        )
    if flights.empty:
        raise DataIntegrityError(
            f"flights of {period} refused: no rows, expected at least one:"
            " have the partition sent again"
        )
    for field in tables.FLIGHTS:
        column = flights[field.name]
        is_text = str(field.type) == "string"
        kind: Callable[[pd.Series], bool] = _is_text if is_text else types.is_numeric_dtype
        if not kind(column):
            raise DataIntegrityError(
                f"flights of {period} refused: column {field.name!r} is {column.dtype}, expected"
                f" {field.type}: have the partition sent again"
            )


def _is_text(column: pd.Series) -> bool:
    return types.infer_dtype(column, skipna=True) in {"string", "empty", "categorical"}


def _is_integral(column: pd.Series) -> pd.Series:
    return column % 1 == 0


def _is_clock_time(column: pd.Series) -> pd.Series:
    return column.between(0, 2400) & (column % 100 < 60)


def _rules_across_columns() -> dict[str, tuple[tuple[str, ...], Callable[..., pd.Series]]]:
    """Name the rules on whole rows: the columns that each is about, and what keeps it."""
    return {
        "is a date": (("year", "month", "day"), _date_exists),
        "no arrival without departure": (("dep_delay", "arr_delay"), _arrived_only_if_departed),
        "once": (KEY, _is_first_of_key),
    }


def _date_exists(flights: pd.DataFrame) -> pd.Series:
    return pd.to_datetime(flights[["year", "month", "day"]], errors="coerce").notna()


def _arrived_only_if_departed(flights: pd.DataFrame) -> pd.Series:
    return flights["dep_delay"].notna() | flights["arr_delay"].isna()


def _is_first_of_key(flights: pd.DataFrame) -> pd.Series:
    return ~flights.duplicated(list(KEY))
