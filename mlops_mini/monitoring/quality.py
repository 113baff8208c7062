"""How good a model is in production, by cohorts whose labels have had the time to come.

A cohort is all predictions of a window. Labels that come early aren't a sample: a delay of three
hours is known later than none. So nothing is said of a cohort's quality before it's mature, and a
mature one that lacks too many labels is reported, but proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_mini.data.periods import Period
from mlops_mini.evidence import intervals
from mlops_mini.evidence.intervals import Interval

_SMALLEST = 1e-7  # of a probability, so that no single row has an infinite loss

State = Literal["empty", "open", "maturing", "few labels", "usable"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Maturity:
    """When labels can be trusted.

    Attributes:
        after: How long after its end a window is mature.
        early_share: Share of labels with which it's mature before that, 0 to 1.
        min_labeled: Share below which a mature window proves nothing, 0 to 1.
    """

    after: timedelta = timedelta(0)
    early_share: float = 0.97
    min_labeled: float = 0.90


@dataclass(frozen=True, kw_only=True, slots=True)
class Cohort:
    """What is known of the predictions of a window.

    Attributes:
        window: Its name.
        version: Of the model; None for all of them together.
        state: `empty`; `open`, not over yet; `maturing`; `few labels`, mature without enough; or
            `usable`. Quality is only known of the last two.
        n: Predictions.
        n_labeled: Those with a label.
        label_shares: Share of each label, 0, 1, ... in order, summing to 1; empty if not known.
        log_loss: Mean, nats; limits over days.
        excess_log_loss: Above that of always answering the shares of the labels, nats; below 0 for
            a model that's good for something. Its limits are those of the log loss, moved.
        error_rate: Share of rows on whose label the model hasn't bet most; limits over days.
    """

    window: str
    version: int | None
    state: State
    n: int
    n_labeled: int
    label_shares: tuple[float, ...] = ()
    log_loss: Interval | None = None
    excess_log_loss: Interval | None = None
    error_rate: Interval | None = None

    @property
    def labeled(self) -> float:
        """Share with a label, 0 to 1; NaN without predictions."""
        return self.n_labeled / self.n if self.n else math.nan


def measure(
    rows: pd.DataFrame,
    window: Period,
    *,
    now: datetime,
    maturity: Maturity,
    version: int | None = None,
) -> Cohort:
    """Measure a cohort, as far as it may be measured now.

    Args:
        rows: As `Journal.rows` gives them.
        window: The cohort's.
        now: The time, with a time zone.
        maturity: When labels can be trusted.
        version: Only predictions of this version; all if None.

    >>> from datetime import UTC
    >>> from mlops_mini.data.periods import Calendar
    >>> rows = pd.DataFrame({"version": 1, "day": ["2026-03-01", "2026-03-02"] * 50,
    ...                      "outputs": [np.float32([0.8])] * 100, "label": [1.0, 0.0] * 50})
    >>> march = Calendar().period("2026-03")
    >>> def at(day: int) -> Cohort:
    ...     return measure(rows, march, now=datetime(2026, 4, day, tzinfo=UTC), maturity=Maturity())
    >>> at(1).state, round(at(1).log_loss.value, 3), at(1).error_rate.value
    ('usable', 0.916, 0.5)
    """
    if version is not None:
        rows = rows[rows["version"] == version]
    known = rows[rows["label"].notna()]
    share = len(known) / len(rows) if len(rows) else math.nan
    state = _state(window, share, now, maturity)
    common: dict[str, Any] = {
        "window": str(window), "version": version, "state": state, "n": len(rows),
        "n_labeled": len(known),
    }  # fmt: skip
    if state not in ("few labels", "usable") or not len(known):
        return Cohort(**common)
    losses, is_wrong, shares = _losses(known)
    days = known["day"].to_numpy()
    log_loss = intervals.of_mean(losses, days)
    return Cohort(
        **common,
        label_shares=shares,
        log_loss=log_loss,
        excess_log_loss=_moved(log_loss, -_entropy(shares)),
        error_rate=intervals.of_mean(is_wrong, days),
    )


def rise(cohorts: Sequence[Cohort], *, n_windows: int = 2) -> tuple[float, float] | None:
    """Compare the newest windows of a model with its own first ones in production.

    Args:
        cohorts: Of one version, oldest first. Only usable ones count.
        n_windows: How many windows make the beginning, and how many the present.

    Returns:
        Excess log loss of all rows of the first windows, and of the newest; None while there are no
        more windows than those, or nothing is known of the newest one.
    """
    known = [cohort for cohort in cohorts if cohort.state == "usable"]
    if len(known) <= n_windows or cohorts[-1].state != "usable":
        return None
    return _pooled_excess(known[:n_windows]), _pooled_excess(known[-n_windows:])


def mature(cohorts: Sequence[Cohort]) -> Sequence[Cohort]:
    """Leave out the newest windows whose labels haven't had the time to come.

    Args:
        cohorts: Oldest first.
    """
    places = [i for i, each in enumerate(cohorts) if each.state in ("few labels", "usable")]
    return cohorts[: places[-1] + 1] if places else []


def n_unknown(cohorts: Sequence[Cohort]) -> int:
    """Count the newest mature windows in a row that lack too many labels.

    Args:
        cohorts: Oldest first.
    """
    n = 0
    for cohort in reversed(cohorts):
        if cohort.state == "usable":
            break
        n += cohort.state == "few labels"
    return n


def _state(window: Period, share: float, now: datetime, maturity: Maturity) -> State:
    if math.isnan(share):
        return "empty"
    if now < window.end:
        return "open"
    if share < maturity.early_share and now < window.end + maturity.after:
        return "maturing"
    return "usable" if share >= maturity.min_labeled else "few labels"


def _losses(
    known: pd.DataFrame,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], tuple[float, ...]]:
    """Compute each row's log loss, whether it's wrong, and the shares of the labels."""
    probabilities = np.stack(known["outputs"].to_list()).astype(np.float64)
    labels = known["label"].to_numpy(np.int64)
    if probabilities.shape[1] == 1:
        probabilities = np.hstack([1 - probabilities, probabilities])
    chosen = probabilities[np.arange(len(labels)), labels].clip(_SMALLEST, 1)
    shares = np.bincount(labels, minlength=probabilities.shape[1]) / len(labels)
    is_wrong = (probabilities.argmax(axis=1) != labels).astype(np.float64)
    return -np.log(chosen), is_wrong, tuple(shares.tolist())


def _pooled_excess(cohorts: Sequence[Cohort]) -> float:
    """Compute the excess log loss of all labeled rows of some cohorts."""
    n_rows = [cohort.n_labeled for cohort in cohorts]
    losses = [cohort.log_loss.value for cohort in cohorts if cohort.log_loss]
    shares = np.average([cohort.label_shares for cohort in cohorts], axis=0, weights=n_rows)
    return float(np.average(losses, weights=n_rows)) - _entropy(shares)


def _entropy(shares: npt.ArrayLike) -> float:
    """Log loss of always answering these shares, nats."""
    positive = np.asarray(shares)[np.asarray(shares) > 0]
    return -float((positive * np.log(positive)).sum())


def _moved(interval: Interval, by: float) -> Interval:
    fields: Mapping[str, Any] = {
        name: getattr(interval, name) for name in Interval.__dataclass_fields__
    }
    moved = {name: fields[name] + by for name in ("value", "lower", "upper")}
    return Interval(**{**fields, **moved})
