"""Rules that flights and hourly weather must keep, and what becomes of rows that do not."""

from collections.abc import Collection
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from mlops_mini.data.periods import NEW_YORK, Period
from mlops_mini.data.rules import Finding, RowRules, RowSplit, TableRules, WholeRule, is_whole
from mlops_mini.flights import completeness, tables
from mlops_mini.flights.completeness import ORIGINS

KEY = ("year", "month", "day", "carrier", "flight", "origin")
WEATHER_KEY = ("origin", "time_hour")


def flight_rules(period: Period) -> TableRules:
    """Build the rules of flights.

    They hold for all flights of 2013 but one, of 17 miles. Delays have no limits: the longest is
    over 21 hours, and true.

    Args:
        period: The partition's month or week; `year` and `month` must be its own.

    Returns:
        The rules; its `rows` is a pandera schema, to validate with `lazy=True` for all failures.
    """
    from pandera.pandas import Check, Column, DataFrameSchema

    integral = Check(is_whole, name="is a whole number")
    clock = Check(_is_clock_time, name="is a clock time HHMM")
    months = [month.number for month in period.months()]
    across: RowRules = {
        "is a date": (("year", "month", "day"), _date_exists),
        "no arrival without departure": (("dep_delay", "arr_delay"), _arrived_only_if_departed),
        "once": (KEY, lambda flights: ~flights.duplicated(list(KEY))),
    }
    rows = DataFrameSchema(
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
        checks=[Check(keeps, name=rule) for rule, (_, keeps) in across.items()],
    )
    # The comments tell the extremes of all months and weeks of 2013, here and in another unit.
    whole = (
        WholeRule(  # 764 to 1,008; in km 1,229 and more
            columns=("distance",),
            quantity="distance",
            values=lambda flights: flights["distance"],
            low=600,
            high=1_110,
            unit="miles",
        ),
        WholeRule(  # 366 to 438; in km 589 and more
            columns=("distance", "air_time"),
            quantity="speed",
            values=_speed_mph,
            low=250,
            high=510,
            unit="mph",
        ),
        *(
            WholeRule(  # departure 5 to 11, arrival 12 to 23; in seconds 300 and more
                columns=(name,),
                quantity="size",
                values=partial(_size, name=name),
                low=2,
                high=120,
                unit="min",
            )
            for name in ("dep_delay", "arr_delay")
        ),
    )
    return TableRules(
        table="flights",
        period=period,
        columns=tables.FLIGHTS,
        rows=rows,
        across=across,
        whole=whole,
        max_missing_share={"arr_delay": 0.10},  # a week of blizzard has .17, the next .08
    )


def weather_rules(period: Period) -> TableRules:
    """Build the rules of hourly weather.

    They hold for all hours of 2013 but one, with a wind of 1,048 mph.

    Args:
        period: The partition's month or week; `time_hour` must lie in it.

    Returns:
        The rules; its `rows` is a pandera schema, to validate with `lazy=True` for all failures.
    """
    from pandera.pandas import Check, Column, DataFrameSchema

    def is_in_period(hours: pd.Series) -> "pd.Series[bool]":
        return (hours >= period.start) & (hours < period.end)

    limits = {
        "temp": (-30, 120),
        "dewp": (-60, 90),
        "humid": (0, 100),
        "wind_dir": (0, 360),
        "wind_speed": (0, 100),
        "wind_gust": (0, 150),
        "precip": (0, 12),
        "pressure": (870, 1085),
        "visib": (0, 10),
    }
    local = ("year", "month", "day", "hour")
    across: RowRules = {
        "is the local hour of time_hour": (local, _local_hour_agrees),
        "once": (WEATHER_KEY, lambda weather: ~weather.duplicated(list(WEATHER_KEY))),
    }
    rows = DataFrameSchema(
        {
            "origin": Column(checks=Check.isin(ORIGINS)),
            **{name: Column(checks=Check(is_whole, name="is a whole number")) for name in local},
            **{
                name: Column(checks=Check.in_range(low, high), nullable=True)
                for name, (low, high) in limits.items()
            },
            "time_hour": Column(
                checks=[
                    Check(is_in_period, name=f"is in {period}"),
                    Check(lambda hours: hours == hours.dt.floor("h"), name="is a full hour"),
                ]
            ),
        },
        checks=[Check(keeps, name=rule) for rule, (_, keeps) in across.items()],
    )
    # By airport, for each has a station of its own, but for rain, which is rare.
    whole = (
        WholeRule(  # .01 to .03; with both in degrees Celsius 4.4 and more
            columns=("temp", "dewp", "humid"),
            quantity="gap between humid and what temp and dewp make of it",
            values=_humidity_gap,
            low=0,
            high=1,
            unit="%",
            by="origin",
        ),
        *(
            WholeRule(  # .00, as stations report whole knots; in km/h, m/s or knots about .25
                columns=(name,),
                quantity="distance from whole knots",
                values=partial(_off_whole_knots, name=name),
                low=0,
                high=0.05,
                unit="knots",
                by="origin",
                min_rows=5,
            )
            for name in ("wind_speed", "wind_gust")
        ),
        WholeRule(  # .01 to .17; in mm .25 and more. A week without rain cannot tell.
            columns=("precip",),
            quantity="precipitation of wet hours",
            values=lambda weather: weather["precip"].where(weather["precip"] > 0),
            low=0.005,
            high=0.21,
            unit="inches",
            min_rows=5,
        ),
    )
    max_missing_share = dict.fromkeys(limits, 0.01)
    return TableRules(
        table="weather",
        period=period,
        columns=tables.WEATHER,
        rows=rows,
        across=across,
        whole=whole,
        max_missing_share=max_missing_share
        | {"wind_dir": 0.10, "wind_gust": 0.99, "pressure": 0.35},
    )


def split_rows(
    flights: pd.DataFrame,
    period: Period | str,
    *,
    known_carriers: Collection[str] | None = None,
    max_quarantined_share: float = 0.01,
) -> RowSplit:
    """Part a partition of flights into rows to use and rows to set aside.

    Of two rows with the same key or `flight_id` the first is kept.

    Args:
        flights: Rows as `datasets.flights` gives them, in any integer or float type.
        period: The month or week that they are the partition of.
        known_carriers: Codes that are no news. Flights of another carrier are kept, and a finding.
        max_quarantined_share: Largest share of rows to set aside, 0 to 1, before the partition as a
            whole is refused.

    Returns:
        Both parts, together exactly the rows given; and findings: `extra column`, `many missing`,
        `new carrier`.

    Raises:
        DataIntegrityError: The partition is refused: no rows, a column missing, empty or of the
            wrong kind, a unit that must be another, or too many rows that break a rule. The one
            message tells all of it.

    >>> from mlops_mini.flights import datasets
    >>> july = split_rows(datasets.flights("2013-07"), "2013-07")
    >>> len(july.kept), july.quarantined[["origin", "dest", "reason"]].to_dict("records")
    (29424, [{'origin': 'EWR', 'dest': 'LGA', 'reason': 'distance: in_range(50, 5000), found 17'}])
    """
    rules = flight_rules(Period.parse(period))
    split = rules.split(flights, max_quarantined_share=max_quarantined_share)
    if known_carriers is None:
        return split
    counts = split.kept["carrier"].value_counts()
    new = tuple(
        Finding(
            name="new carrier",
            column="carrier",
            text=f"carrier {carrier!r} is not known: {n_rows} rows, {n_rows / len(flights):.2%}",
        )
        for carrier, n_rows in counts.items()
        if carrier not in known_carriers
    )
    return replace(split, findings=split.findings + new)


def split_weather_rows(
    weather: pd.DataFrame, period: Period | str, *, max_quarantined_share: float = 0.01
) -> RowSplit:
    """Part a partition of hourly weather into rows to use and rows to set aside.

    Args:
        weather: Rows as `datasets.weather` gives them, of this period alone.
        period: The month or week that they are the partition of.
        max_quarantined_share: Largest share of rows to set aside, 0 to 1, before the partition as a
            whole is refused.

    Returns:
        Both parts, together exactly the rows given; and findings: `extra column`, `many missing`,
        `incomplete` (hours are missing), `stale` (the last hour is too old at the period's end) and
        `empty observation` (a row without temperature, dew point and humidity).

    Raises:
        DataIntegrityError: The partition is refused, as `split_rows` does; or its instants have no
            time zone, or another than UTC.

    >>> from mlops_mini.flights import datasets
    >>> hours = datasets.weather()
    >>> february = split_weather_rows(hours[hours["month"] == 2], "2013-02")
    >>> february.quarantined["reason"].tolist()
    ['wind_speed: in_range(0, 100), found 1048.36058']
    """
    period = Period.parse(period)
    split = weather_rules(period).split(weather, max_quarantined_share=max_quarantined_share)
    return replace(split, findings=split.findings + completeness.weather_findings(weather, period))


def _is_clock_time(column: pd.Series) -> "pd.Series[bool]":
    return column.between(0, 2400) & (column % 100 < 60)


def _date_exists(flights: pd.DataFrame) -> "pd.Series[bool]":
    parts = flights[["year", "month", "day"]]
    # Left out first, for infinite numbers raise even so.
    possible = parts.where((parts >= 1) & (parts <= 9999))
    return pd.to_datetime(possible, errors="coerce").notna()


def _arrived_only_if_departed(flights: pd.DataFrame) -> "pd.Series[bool]":
    return flights["dep_delay"].notna() | flights["arr_delay"].isna()


def _local_hour_agrees(weather: pd.DataFrame) -> "pd.Series[bool]":
    local = weather["time_hour"].dt.tz_convert(NEW_YORK).dt
    agrees: pd.Series[bool] = (
        (weather["year"] == local.year)
        & (weather["month"] == local.month)
        & (weather["day"] == local.day)
        & (weather["hour"] == local.hour)
    )
    return agrees


def _speed_mph(flights: pd.DataFrame) -> pd.Series:
    return flights["distance"] / flights["air_time"].where(flights["air_time"] > 0) * 60


def _size(flights: pd.DataFrame, *, name: str) -> pd.Series:
    return flights[name].abs()


def _off_whole_knots(weather: pd.DataFrame, *, name: str) -> pd.Series:
    knots = weather[name] / 1.150_78
    return (knots - knots.round()).abs()


def _humidity_gap(weather: pd.DataFrame) -> pd.Series:
    """Compare the humidity with what temperature and dew point say, percentage points.

    Source: Alduchov and Eskridge, "Improved Magnus form approximation of saturation vapor
    pressure", Journal of Applied Meteorology 35 (1996).
    """
    temp, dewp = ((weather[name] - 32) / 1.8 for name in ("temp", "dewp"))
    exponent = 17.625 * dewp / (243.04 + dewp) - 17.625 * temp / (243.04 + temp)
    gap: pd.Series = (100 * np.exp(exponent) - weather["humid"]).abs()
    return gap
