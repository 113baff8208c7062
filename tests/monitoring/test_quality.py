from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from mlops_mini.data.periods import Calendar
from mlops_mini.monitoring import quality
from mlops_mini.monitoring.quality import Maturity

MARCH = Calendar().period("2026-03")
AFTER = Maturity(after=timedelta(hours=34))
END = datetime(2026, 4, 1, tzinfo=UTC)


def rows(labels: list[float], probability: float = 0.3, version: int = 1) -> pd.DataFrame:
    days = [f"2026-03-{1 + i % 20:02}" for i in range(len(labels))]
    outputs = [np.float32([probability])] * len(labels)
    return pd.DataFrame({"version": version, "day": days, "outputs": outputs, "label": labels})


def state(labeled: float, now: datetime) -> str:
    n = round(1000 * labeled)
    labels = [0.0, 1.0] * (n // 2) + [np.nan] * (1000 - n)
    return quality.measure(rows(labels), MARCH, now=now, maturity=AFTER).state


@pytest.mark.parametrize(
    ("labeled", "hours", "expected"),
    [
        (1.0, -1, "open"),
        (1.0, 0, "usable"),  # all are there already
        (0.97, 1, "usable"),
        (0.968, 1, "maturing"),
        (0.968, 33.9, "maturing"),
        (0.968, 34, "usable"),
        (0.90, 34, "usable"),
        (0.898, 34, "few labels"),
        (0.0, 34, "few labels"),
    ],
)
def test_a_cohort_is_usable_once_its_labels_have_had_their_time(
    labeled: float, hours: float, expected: str
) -> None:
    assert state(labeled, END + timedelta(hours=hours)) == expected


def test_early_labels_are_never_taken_for_the_cohort() -> None:
    """What is punctual is known first: half of the labels, and all of them 0."""
    early = rows([0.0] * 500 + [np.nan] * 500)

    cohort = quality.measure(early, MARCH, now=END, maturity=AFTER)

    assert (cohort.state, cohort.labeled, cohort.log_loss) == ("maturing", 0.5, None)


def test_log_loss_excess_and_errors_with_limits_over_days() -> None:
    labels = [1.0] * 300 + [0.0] * 700
    cohort = quality.measure(rows(labels), MARCH, now=END, maturity=AFTER)

    assert cohort.label_shares == (0.7, 0.3)
    assert cohort.log_loss.value == pytest.approx(0.6109, abs=1e-4)
    assert cohort.excess_log_loss.value == pytest.approx(0, abs=1e-6)
    assert cohort.error_rate.value == pytest.approx(0.3)
    assert cohort.log_loss.n_clusters == 20
    assert cohort.log_loss.lower <= cohort.log_loss.value <= cohort.log_loss.upper


def test_several_classes_have_the_same_measures() -> None:
    table = rows([0.0, 1.0, 2.0, 2.0] * 50).assign(
        outputs=[np.float32(p) for p in ([0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0, 0, 1], [1, 0, 0])]
        * 50
    )

    cohort = quality.measure(table, MARCH, now=END, maturity=AFTER)

    assert cohort.label_shares == (0.25, 0.25, 0.5)
    assert cohort.error_rate.value == 0.25
    assert 1 < cohort.log_loss.value < 10  # an answer of 0 isn't an infinite loss


def test_versions_are_measured_apart() -> None:
    table = pd.concat([rows([1.0] * 60, 0.9, 1), rows([0.0, 1.0] * 20, 0.9, 2)])
    first, second = (
        quality.measure(table, MARCH, now=END, maturity=AFTER, version=version)
        for version in (1, 2)
    )

    assert (first.n, second.n) == (60, 40)
    assert first.log_loss.value < second.log_loss.value


def test_an_empty_window_is_said_to_be_empty() -> None:
    cohort = quality.measure(rows([]), MARCH, now=END, maturity=AFTER)

    assert (cohort.state, cohort.n) == ("empty", 0)
    assert np.isnan(cohort.labeled)


def test_mature_windows_that_lack_labels_are_counted_from_the_newest() -> None:
    def cohorts(*states: str) -> list[quality.Cohort]:
        return [
            quality.Cohort(window="w", version=None, state=each, n=9, n_labeled=0)
            for each in states
        ]

    assert quality.n_unknown(cohorts("usable", "few labels", "maturing", "open")) == 1
    assert quality.n_unknown(cohorts("few labels", "empty", "few labels")) == 2
    assert quality.n_unknown(cohorts("few labels", "usable")) == 0
    assert quality.rise(cohorts("few labels", "few labels", "few labels")) is None
