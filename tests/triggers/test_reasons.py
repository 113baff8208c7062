import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlops_mini.data.partitions import Partition
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.evidence import intervals
from mlops_mini.monitoring.quality import Cohort
from mlops_mini.statistics.drift import ColumnDrift, DriftReport
from mlops_mini.triggers import reasons
from mlops_mini.triggers.schedules import Schedule

START = datetime(2026, 4, 1, tzinfo=UTC)


def partition(month: int, *, n_rows: int = 100, sha: str = "a", arrival: int = 1) -> Partition:
    name = f"readings-2026-{month:02}.parquet"
    arrived_at = START + timedelta(days=month, hours=arrival)
    return Partition(
        name=name, period=f"2026-{month:02}", n_rows=n_rows, sha256=sha * 64, arrival=arrival,
        arrived_at=arrived_at, path=Path(name),
    )  # fmt: skip


def cohort(week: int, excess: float | None, *, n: int = 1000, state: str = "usable") -> Cohort:
    """A week with half of the labels 1, and that excess log loss."""
    loss = None if excess is None else intervals.of_mean([math.log(2) + excess] * 2)
    return Cohort(
        window=f"2013-W{week:02}", version=3, state=state, n=n, n_labeled=n,
        label_shares=(0.5, 0.5), log_loss=loss,
    )  # fmt: skip


def column(name: str, psi: float, importance: float = float("nan")) -> ColumnDrift:
    nan = float("nan")
    return ColumnDrift(
        column=name, psi=psi, jensen_shannon=0.1, l_infinity=nan, ks=0.1, importance=importance,
        threshold=0.25,
    )  # fmt: skip


def test_a_request_that_is_sent_twice_has_one_key() -> None:
    first, again = (reasons.on_demand("7", reason=why) for why in ("now", "now, please"))

    assert first.key == again.key
    with pytest.raises(InvalidArgumentError, match="no id"):
        reasons.on_demand("")


def test_a_schedule_fires_under_the_instant_that_was_meant() -> None:
    schedule = Schedule("0 6 * * *", catches_up=True)
    keys = [
        [each.key for each in reasons.scheduled(schedule, since=START, now=START + later)]
        for later in (timedelta(hours=6), timedelta(hours=17), timedelta(days=1, hours=7))
    ]

    assert keys[0] == keys[1] == ["schedule:0 6 * * * UTC:2026-04-01T06:00:00+00:00"]
    assert len(keys[2]) == 2
    assert keys[2][0] == keys[0][0]
    assert reasons.scheduled(schedule, since=START, now=START - timedelta(days=3)) == []


def test_new_data_fires_once_it_is_enough() -> None:
    months = [partition(1), partition(2), partition(3)]
    known = {months[0].key}

    assert reasons.new_data(months, trained_on=known, min_rows=201) == []
    (firing,) = reasons.new_data(months, trained_on=known, min_rows=200)
    assert firing.key == f"new_data:{months[2].key}"
    assert firing.reason["n_rows"] == 200
    assert reasons.new_data(months, trained_on={each.key for each in months}) == []


def test_the_same_data_have_the_same_key_and_changed_data_another() -> None:
    first = partition(1)
    changed = replace(first, sha256="b" * 64, arrival=2)
    known = {first.key}

    assert reasons.new_data([first], trained_on=known) == []
    (firing,) = reasons.new_data([first, changed], trained_on=known)
    assert firing.key == f"new_data:{changed.key}"
    assert firing.reason["n_rows"] == 100


def test_late_data_fire_although_later_months_are_known() -> None:
    late = replace(partition(1), arrived_at=START + timedelta(days=99))
    others = [partition(2), partition(3)]

    (firing,) = reasons.new_data([late, *others], trained_on={each.key for each in others})

    assert firing.reason["partitions"] == [late.key]


@pytest.mark.parametrize(
    ("excess", "fires"),
    [
        ([], False),
        ([-0.09, -0.08], False),  # its first windows are all it has
        ([-0.09, -0.08, -0.08, -0.08], False),
        ([-0.09, -0.07, -0.07, -0.06], True),
        ([-0.09, -0.07, -0.06, -0.06, -0.09], False),  # it has recovered
        ([-0.01, -0.09, -0.09], False),  # bad when it was new
    ],
)
def test_degradation_compares_with_the_model_s_own_first_windows(
    excess: list[float], fires: bool
) -> None:
    cohorts = [cohort(5 + i, value) for i, value in enumerate(excess)]

    fired = reasons.degraded(cohorts, version=3, margin=0.01)

    assert bool(fired) == fires
    assert {each.key for each in fired} <= {f"degradation:3:{each.window}" for each in cohorts[-1:]}


@pytest.mark.parametrize("state", ["maturing", "few labels", "open", "empty"])
def test_labels_that_never_come_degrade_nothing(state: str) -> None:
    known = [cohort(week, -0.09) for week in (5, 6, 7)]
    bad = [cohort(week, 0.2) for week in (8, 9)]
    unknown = [cohort(week, None, state=state) for week in (10, 11, 12)]

    assert reasons.degraded(known + unknown, version=1, margin=0.01) == []
    assert reasons.degraded(unknown, version=1, margin=0.01) == []
    assert reasons.degraded([], version=1, margin=0.01) == []
    # Nothing new is known, so what was fired isn't fired under another key.
    fired = reasons.degraded(known + bad, version=1, margin=0.01)
    again = reasons.degraded(known + bad + unknown, version=1, margin=0.01)
    assert fired
    assert again == ([] if state == "few labels" else fired)


def test_labels_that_take_longer_than_a_window_degrade_the_newest_mature_one() -> None:
    """There's always a newer window that nobody knows anything of."""
    weeks = [cohort(week, excess) for week, excess in ((5, -0.09), (6, -0.09), (7, 0.1), (8, 0.1))]
    waiting = [cohort(week, None, state="maturing") for week in (9, 10, 11)]
    now = cohort(12, None, state="open")

    (firing,) = reasons.degraded([*weeks, *waiting, now], version=3, margin=0.01)

    assert firing.key == "degradation:3:2013-W08"


def test_windows_count_by_their_rows() -> None:
    first = [cohort(5, -0.1), cohort(6, -0.1)]
    blizzard = cohort(7, 0.5, n=10)

    assert reasons.degraded([*first, blizzard, cohort(8, -0.1)], version=1, margin=0.02) == []
    assert reasons.degraded([*first, blizzard, cohort(8, -0.1, n=40)], version=1, margin=0.02)


def test_drift_fires_for_what_the_model_relies_on_alone() -> None:
    weather, load = column("temp_c", 3.2, 0.0), column("load", 0.2, 0.1)
    moved = replace(load, psi=0.3)
    where = {"version": 2, "window": "W09"}

    assert reasons.drifted(DriftReport(columns=(weather, load)), **where) == []
    (firing,) = reasons.drifted(DriftReport(columns=(weather, moved)), **where)
    assert firing.key == "drift:2:W09"
    assert firing.reason["psi"] == {"load": 0.3}
    # Named by hand, whatever the importances say; and all without either.
    (by_hand,) = reasons.drifted(DriftReport(columns=(weather, load)), relevant=["temp_c"], **where)
    assert by_hand.reason["psi"] == {"temp_c": 3.2}
    assert reasons.drifted(DriftReport(columns=(column("temp_c", 3.2),)), **where)
