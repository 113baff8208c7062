"""What a single column tells about a label, measured in four ways that honest columns fail.

`checks.no_leakage_column` puts limits on them. A label is any column of two classes: 0 and 1, truth
values, "yes" and "no"; missing where nobody knows.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data import columns
from mlops_mini.errors import InvalidArgumentError

# Rows of the other label that chance alone would put into a group, for a pure group to mean much:
# seeing none of 14 expected has a probability of one in a million.
_MIN_EXPECTED = 14

# Fewer days than these tell nothing about foresight.
MIN_DAYS = 21

# Different numbers above which they are put into as many groups of equal size.
_MAX_GROUPS = 100


def two_classes(label: "pd.Series[Any]") -> "pd.Series[float]":
    """Read a label as 0 and 1.

    Args:
        label: Two different values at most, of any dtype; missing where nobody knows.

    Returns:
        float64, same index: 1 for the class that sorts last, NaN for missing. 0 and 1 stay, also
        when one of them is the only class.

    Raises:
        InvalidArgumentError: There are more classes than two, or they have no order.

    >>> two_classes(pd.Series(["no", "yes", None])).tolist()
    [0.0, 1.0, nan]
    """
    values = columns.plain(label)
    present = values.dropna()
    try:
        classes = sorted(set(present))
    except TypeError as exc:
        raise InvalidArgumentError(
            f"label {label.name!r} holds values that are no two classes, such as"
            f" {columns.odd_one(label)}: make 0 and 1 of it"
        ) from exc
    if len(classes) > 2:
        examples = ", ".join(columns.shown(value) for value in classes[:3])
        raise InvalidArgumentError(
            f"label {label.name!r} has {len(classes)} different values ({examples}, ...), expected"
            " two classes: make a yes or no of it, such as label == one class, or label > a limit"
        )
    if not classes:
        return pd.Series(np.nan, index=values.index, name=values.name)
    if not set(classes) <= {0, 1}:
        values = values.map({value: at for at, value in enumerate(classes)})
    return values.astype("float64")


def auc_alone(column: "pd.Series[Any]", label: "pd.Series[Any]") -> float:
    """Tell how well a column alone sorts rows by label.

    Args:
        column: Numbers, or anything else as categories, see `auc_of_groups`.
        label: Of two classes, same rows; missing where nobody knows.

    Returns:
        Area under the ROC curve of the rows that have a value and a label, .5 to 1 whichever way
        round it sorts; .5 if there is only one label.

    Raises:
        InvalidArgumentError: The label has more than two classes.

    >>> auc_alone(pd.Series([30.0, 20.0, 10.0, 0.0]), pd.Series([0.0, 0.0, 1.0, 1.0]))
    1.0
    """
    values, positive = _known(column, label)
    if columns.kind(values) not in {"number", "boolean"}:
        return auc_of_groups(column, label)
    auc = _auc(columns.numbers(values), positive)
    return max(auc, 1 - auc)


def auc_of_groups(column: "pd.Series[Any]", label: "pd.Series[Any]") -> float:
    """Tell how well a column sorts rows by label if each of its values may mean anything.

    This finds what no order shows: codes of which 3 and 7 are the customers who left, a status.

    Args:
        column: Each value is a group; of more than a hundred different numbers, each percentile.
            Groups are ranked by their mean label in the other half of their rows (every second
            one), so that a group of one row tells nothing.
        label: Of two classes, same rows; missing where nobody knows.

    Returns:
        As `auc_alone`.

    Raises:
        InvalidArgumentError: The label has more than two classes.

    >>> auc_of_groups(pd.Series([3, 5, 7] * 4), pd.Series([0, 1, 0] * 4))
    1.0
    """
    values, positive = _known(column, label)
    if columns.kind(values) in {"number", "boolean"}:
        numbers = columns.numbers(values)
        groups: npt.NDArray[Any] = numbers
        if len(np.unique(numbers)) > _MAX_GROUPS:
            groups = (pd.Series(numbers).rank().to_numpy() - 1) * _MAX_GROUPS // len(numbers)
    else:
        # Not by factorize, which takes texts for the same that differ after a NUL only.
        codes: dict[str, int] = {}
        groups = np.array([codes.setdefault(str(value), len(codes)) for value in values])
    # Below .5 the halves contradict each other, which says nothing about the column.
    return max(_auc(_mean_label_elsewhere(groups, positive), positive), 0.5)


def _known(
    column: "pd.Series[Any]", label: "pd.Series[Any]"
) -> tuple["pd.Series[Any]", npt.NDArray[np.bool_]]:
    """Find the values in rows that have a value and a label, and which of these are positive."""
    values, classes = columns.plain(column), two_classes(label)
    is_known = values.notna().to_numpy() & classes.notna().to_numpy()
    return values[is_known], classes.to_numpy()[is_known] == 1


def _auc(values: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return 0.5
    ranks = pd.Series(values).rank().to_numpy()
    above = ranks[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))


def _mean_label_elsewhere(
    groups: npt.NDArray[Any], positive: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    # Halves of each group, not of the table: of a table whose labels alternate, every second row
    # would have none of the others' values.
    rows = pd.DataFrame({"group": groups, "label": positive})
    is_even = (rows.groupby("group").cumcount() % 2 == 0).to_numpy()
    encoded = np.empty(len(rows))
    for these in (is_even, ~is_even):
        means = rows[~these].groupby("group")["label"].mean()
        encoded[these] = rows.loc[these, "group"].map(means).fillna(rows["label"].mean())
    return encoded


def presence_gain(column: "pd.Series[Any]", label: "pd.Series[Any]") -> tuple[float, str]:
    """Tell how much of the uncertainty about a label goes when a value is missing, or is there.

    Args:
        column: Any values.
        label: Of two classes, same rows; missing where nobody knows.

    Returns:
        The larger of two gains, and its group, `missing` or `there`. A gain is 1 where all rows of
        the group have one label, 0 where the group is mixed as all rows are, and 0 where the group
        is too small to tell. In a table of any size it is 1 where the missing rows are exactly
        those of one label.

    Raises:
        InvalidArgumentError: The label has more than two classes.

    >>> label = pd.Series([1.0] * 30 + [0.0] * 70)
    >>> tailnum = pd.Series([None] * 25 + ["N14228"] * 75)
    >>> presence_gain(tailnum, label)
    (1.0, 'missing')
    """
    classes = two_classes(label).to_numpy()
    is_known = ~np.isnan(classes)
    known = classes[is_known]
    is_missing = columns.plain(column).isna().to_numpy()[is_known]
    for value in (0.0, 1.0):
        if 0 < is_missing.sum() < len(known) and ((known == value) == is_missing).all():
            return 1.0, "missing"
    best = (0.0, "missing")
    if not len(known):
        return best
    for group, rows in (("missing", known[is_missing]), ("there", known[~is_missing])):
        for value in (0.0, 1.0):
            n_expected = len(rows) * float((known != value).mean())
            if n_expected >= _MIN_EXPECTED:
                gain = 1 - float((rows != value).sum()) / n_expected
                best = max(best, (gain, group))
    return best


def foresight(
    column: "pd.Series[Any]", label: "pd.Series[Any]", predicted_at: "pd.Series[Any]"
) -> float:
    """Tell how well a column knows in the morning what the rest of the day brings.

    A mean over the whole day, the row's own outcome and later ones included, sorts single rows
    hardly better than an honest mean over the hours before. But it is there at dawn already.

    Args:
        column: Numbers or truth values.
        label: Of two classes, same rows; missing where nobody knows.
        predicted_at: When each row is predicted, in the time zone whose days are meant.

    Returns:
        Rank correlation over days, 0 to 1 whichever way round: of the column's mean in the first
        tenth of a day's rows with the mean label of the others. 0 with fewer than `MIN_DAYS`.

    Raises:
        InvalidArgumentError: A value of the column is no number, the label has more than two
            classes, or `predicted_at` holds no instants.
    """
    days = _by_day(columns.numbers(column), label, predicted_at).dropna().rank()
    if len(days) < MIN_DAYS or days.nunique().min() < 2:
        return 0.0
    return abs(float(np.corrcoef(days["dawn"], days["rest"])[0, 1]))


def n_days(label: "pd.Series[Any]", predicted_at: "pd.Series[Any]") -> int:
    """Count the days that `foresight` could use, if a column had a value at dawn of each.

    Args:
        label: Of two classes; missing where nobody knows.
        predicted_at: When each row is predicted, same rows.

    Returns:
        Days, 0 and up.

    Raises:
        InvalidArgumentError: As `foresight`.
    """
    return len(_by_day(np.zeros(len(label)), label, predicted_at).dropna())


def _by_day(
    values: npt.NDArray[np.float64], label: "pd.Series[Any]", predicted_at: "pd.Series[Any]"
) -> pd.DataFrame:
    """Average by day: the values at `dawn`, the labels of the `rest`."""
    at = columns.plain(predicted_at)
    if columns.kind(at) not in {"instant", "local time"}:
        raise InvalidArgumentError(
            f"{at.name!r} is {predicted_at.dtype}, expected the instants of the predictions:"
            " convert it with pd.to_datetime"
        )
    rows = pd.DataFrame({"day": at.dt.date.to_numpy(), "at": at.array, "value": values}).assign(
        label=two_classes(label).to_numpy()
    )
    order = rows.groupby("day")["at"].rank(method="first", pct=True)
    dawn = rows[order <= 0.1].groupby("day")["value"].mean()
    rest = rows[order > 0.1].groupby("day")["label"].mean()
    return pd.DataFrame({"dawn": dawn, "rest": rest})
