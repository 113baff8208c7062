"""The monitor of a promise: seldom wrong, and soon right."""

import numpy as np
import pytest

from mlops_mini.automation.audits import AuditMonitor
from mlops_mini.errors import InvalidArgumentError


def _audits_to_alarm(true_error: float, *, n_streams: int, n_before: int = 0) -> np.ndarray:
    """Audits until the alarm in each stream of 3,000, after some in which 1 % were wrong."""
    rng = np.random.default_rng(23)
    rates = np.repeat([0.01, true_error], [n_before, 3000])
    found = []
    for _ in range(n_streams):
        monitor = AuditMonitor(max_error=0.02)
        for errors in np.split((rng.random(rates.size) < rates).astype(int), rates.size // 200):
            monitor.update(errors)
            if monitor.alarm:
                break
        found.append(monitor.alarm.n_audits - n_before if monitor.alarm else np.inf)
    return np.array(found)


def test_while_the_promise_is_kept_there_is_hardly_ever_an_alarm() -> None:
    at_the_limit = _audits_to_alarm(0.02, n_streams=200)

    assert np.isfinite(at_the_limit).mean() <= 0.05


def test_a_broken_promise_is_found_within_150_audits() -> None:
    assert np.median(_audits_to_alarm(0.059, n_streams=300)) <= 150
    assert np.isfinite(_audits_to_alarm(0.04, n_streams=50)).mean() > 0.8


def test_good_times_before_do_not_hide_a_change() -> None:
    assert np.median(_audits_to_alarm(0.059, n_streams=100, n_before=1000)) <= 450


def test_audits_one_by_one_say_what_audits_together_say() -> None:
    errors = (np.random.default_rng(4).random(350) < 0.06).astype(int)
    together, one_by_one = AuditMonitor(max_error=0.02), AuditMonitor(max_error=0.02)

    evidence = together.update(errors)

    assert np.allclose([one_by_one.update([error])[0] for error in errors], evidence)
    assert one_by_one.alarm == together.alarm
    assert one_by_one.n_audits == 350
    assert one_by_one.errors == errors.sum()


def test_an_alarm_stays_until_the_restart() -> None:
    monitor = AuditMonitor(max_error=0.02)
    monitor.update(np.ones(10, int))
    first = monitor.alarm

    monitor.update(np.zeros(1000, int))
    assert monitor.alarm is first

    monitor.restart()
    assert monitor.alarm is None
    assert monitor.n_audits == 0
    assert monitor.update([0])[0] < 0


def test_a_limit_of_a_third_can_be_watched() -> None:
    monitor = AuditMonitor(max_error=1 / 3)

    monitor.update(np.arange(300) % 4 != 0)

    assert monitor.alarm is not None


@pytest.mark.parametrize("found", [[0, 2], [0, np.nan], [[0]], [0.5]])
def test_an_audit_finds_an_error_or_none(found) -> None:
    with pytest.raises(InvalidArgumentError, match="an error, 1, or none, 0"):
        AuditMonitor(max_error=0.02).update(found)


@pytest.mark.parametrize("limits", [{"max_error": 0}, {"max_error": 0.02, "confidence": 1.0}])
def test_a_limit_without_meaning_is_refused(limits) -> None:
    with pytest.raises(InvalidArgumentError, match="between 0 and 1"):
        AuditMonitor(**limits)
