"""Mean delays of a flight's day: the obvious features, to show what is wrong with them.

The mean over the whole day is a leak, since most of that day is still to come when a prediction is
due. The mean of the day so far isn't.
"""

import pandas as pd

# The delay that is averaged for each entity, and the column with the instant when it's known.
_DELAYS = {
    "origin": ("dep_delay", "dep_utc"),
    "carrier": ("dep_delay", "dep_utc"),
    "dest": ("arr_delay", "arr_utc"),
}


def whole_day(flights: pd.DataFrame, *, days_back: int = 0) -> pd.DataFrame:
    """Average the delays of a day at each flight's origin and destination, and of its carrier.

    Args:
        flights: Prepared rows, those of several months in one frame.
        days_back: 0 for the flight's own day, and so a leak; 1 for the day before.

    Returns:
        Minutes, NaN where nothing flew: `origin_mean`, `carrier_mean` and `dest_mean`, one row per
        flight in the given order.
    """
    date = _dates(flights)
    wanted = date - pd.Timedelta(days=days_back)
    means = {}
    for entity, (delay, _) in _DELAYS.items():
        by_day = flights[delay].groupby([flights[entity], date]).mean()
        rows = pd.MultiIndex.from_arrays([flights[entity], wanted])
        means[f"{entity}_mean"] = by_day.reindex(rows).to_numpy()
    return pd.DataFrame(means, index=flights.index)


def so_far(flights: pd.DataFrame, due: "pd.Series[pd.Timestamp]") -> pd.DataFrame:
    """Average what is known of a flight's own day when its prediction is due.

    Args:
        flights: Prepared rows, those of several months in one frame.
        due: When, one instant for each row.

    Returns:
        As `whole_day`; NaN also before the first event of the day.
    """
    asked = pd.DataFrame({"due": due.array, "date": _dates(flights).array}).sort_values(
        "due", kind="stable"
    )
    means = {}
    for entity, (delay, known_at) in _DELAYS.items():
        happened = flights[[entity, delay, known_at]].assign(date=_dates(flights))
        happened = happened.dropna().sort_values(known_at, kind="stable")
        of_day = happened.groupby([entity, "date"])[delay]
        happened["mean"] = of_day.cumsum() / (of_day.cumcount() + 1)
        asked[entity] = flights[entity].to_numpy()[asked.index]
        found = pd.merge_asof(
            asked, happened, left_on="due", right_on=known_at, by=[entity, "date"]
        )
        found.index = asked.index
        means[f"{entity}_mean"] = found["mean"].sort_index().to_numpy()
    return pd.DataFrame(means, index=flights.index)


def _dates(flights: pd.DataFrame) -> "pd.Series[pd.Timestamp]":
    return pd.to_datetime(flights[["year", "month", "day"]])
