"""What a single column tells about a label, measured in three ways that honest columns fail.

`checks.no_leakage_column` puts limits on them.
"""

import numpy as np
import pandas as pd

# Rows of the other label that chance alone would put into a group, for a pure group to mean much:
# seeing none of 14 expected has a probability of one in a million.
_MIN_EXPECTED = 14


def auc_alone(column: pd.Series, label: "pd.Series[float]") -> float:
    """Tell how well a column alone sorts rows by label.

    Args:
        column: Numbers, or anything else as categories, which are ranked by their mean label in the
            other half of the rows (every second one), so that a category of one row tells nothing.
        label: 0 or 1, same rows; NaN where nobody knows.

    Returns:
        Area under the ROC curve of the rows that have a value and a label, .5 to 1 whichever way
        round it sorts; .5 if there is only one label.

    >>> auc_alone(pd.Series([30.0, 20.0, 10.0, 0.0]), pd.Series([0.0, 0.0, 1.0, 1.0]))
    1.0
    """
    known = column.notna() & label.notna()
    values, positive = column[known], label[known] == 1
    if not pd.api.types.is_numeric_dtype(values):
        values = _mean_label_elsewhere(values.astype(str), positive)
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return 0.5
    above = values.astype("float64").rank()[positive].sum() - n_positive * (n_positive + 1) / 2
    auc = float(above / (n_positive * n_negative))
    return max(auc, 1 - auc)


def _mean_label_elsewhere(values: pd.Series, positive: "pd.Series[bool]") -> "pd.Series[float]":
    is_even = np.arange(len(values)) % 2 == 0
    encoded = np.full(len(values), float(positive.mean()))
    for these in (is_even, ~is_even):
        means = positive[~these].groupby(values[~these]).mean()
        encoded[these] = values[these].map(means).fillna(positive.mean())
    return pd.Series(encoded, index=values.index)


def presence_gain(column: pd.Series, label: "pd.Series[float]") -> tuple[float, str]:
    """Tell how much of the uncertainty about a label goes when a value is missing, or is there.

    Args:
        column: Any values.
        label: 0 or 1, same rows; NaN where nobody knows.

    Returns:
        The larger of two gains, and its group, `missing` or `there`. A gain is 1 where all rows of
        the group have one label, 0 where the group is mixed as all rows are, and 0 where the group
        is too small to tell.

    >>> label = pd.Series([1.0] * 30 + [0.0] * 70)
    >>> tailnum = pd.Series([None] * 25 + ["N14228"] * 75)
    >>> presence_gain(tailnum, label)
    (1.0, 'missing')
    """
    known = label[label.notna()]
    is_missing = column[label.notna()].isna()
    best = (0.0, "missing")
    for group, rows in (("missing", known[is_missing]), ("there", known[~is_missing])):
        for value in (0.0, 1.0):
            n_expected = len(rows) * float((known != value).mean())
            if n_expected >= _MIN_EXPECTED:
                gain = 1 - float((rows != value).sum()) / n_expected
                best = max(best, (gain, group))
    return best


def foresight(
    column: "pd.Series[float]", label: "pd.Series[float]", predicted_at: pd.Series
) -> float:
    """Tell how well a column knows in the morning what the rest of the day brings.

    A mean over the whole day, the flight's own outcome and later ones included, sorts single rows
    hardly better than an honest mean over the hours before. But it is there at dawn already.

    Args:
        column: Numbers.
        label: 0 or 1, same rows; NaN where nobody knows.
        predicted_at: When each row is predicted, in the time zone whose days are meant.

    Returns:
        Rank correlation over days, 0 to 1 whichever way round: of the column's mean in the first
        tenth of a day's rows with the mean label of the others. 0 with fewer than 21 days.
    """
    rows = pd.DataFrame(
        {"day": predicted_at.dt.date, "at": predicted_at, "value": column, "label": label}
    )
    order = rows.groupby("day")["at"].rank(method="first", pct=True)
    dawn = rows[order <= 0.1].groupby("day")["value"].mean()
    rest = rows[order > 0.1].groupby("day")["label"].mean()
    days = pd.DataFrame({"dawn": dawn, "rest": rest}).dropna().rank()
    if len(days) < 21 or days.nunique().min() < 2:
        return 0.0
    return abs(float(np.corrcoef(days["dawn"], days["rest"])[0, 1]))
