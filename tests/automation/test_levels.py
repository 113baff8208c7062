"""The rules for moving between the degrees of automation."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from mlops_mini.automation.certificates import Certificate, Scope, certify_threshold
from mlops_mini.automation.levels import ORDER, Evidence, Level, Rules, next_level
from mlops_mini.automation.shadow import ShadowReport, shadow_report

SCOPE = Scope(
    model_version=1,
    data_from=datetime(2026, 5, 1, tzinfo=UTC),
    data_until=datetime(2026, 5, 8, tzinfo=UTC),
    expires_at=datetime(2026, 6, 1, tzinfo=UTC),
)


@pytest.fixture
def certificate() -> Certificate:
    return replace(
        certify_threshold(np.ones(1000), np.ones(1000), other_scores=np.ones(9), scope=SCOPE),
        threshold=0.8, n_auto=600,
    )  # fmt: skip


@pytest.fixture
def shadow() -> ShadowReport:
    model = np.repeat(["right", "wrong", "right"], [30, 5, 965])
    human = np.repeat(["wrong", "right", "right"], [30, 5, 965])
    return shadow_report(model, human, np.full(1000, "right"))


@pytest.fixture
def good(shadow, certificate) -> Evidence:
    return Evidence(shadow=shadow, certificate=certificate, saves=True)


def test_each_step_up_has_its_evidence(good, certificate) -> None:
    assert next_level(Level.HUMAN, Evidence()).level is Level.SHADOW
    assert next_level(Level.SHADOW, good).level is Level.ASSISTED
    assert next_level(Level.ASSISTED, good).level is Level.PARTIAL
    everything = replace(good, certificate=replace(certificate, threshold=0.0, n_auto=1000))
    moved = next_level(Level.PARTIAL, everything)
    assert moved.level is Level.FULL
    assert "release it like a new version" in moved.reasons[0]
    assert next_level(Level.FULL, everything).level is Level.FULL


@pytest.mark.parametrize(
    ("level", "change", "words"),
    [
        (Level.SHADOW, {"shadow": None}, "nothing is known from shadow mode"),
        (Level.ASSISTED, {"certificate": None}, "there's no certificate"),
        (Level.ASSISTED, {"saves": False}, "it isn't surely cheaper"),
        (Level.ASSISTED, {"category_errors": {"shirt": 0.88}}, "shirt: 88 % of those automated"),
        (Level.PARTIAL, {}, "isn't certified for all items"),
    ],
)
def test_what_is_missing_is_said(level, change, words, good) -> None:
    moved = next_level(level, replace(good, **change))

    assert moved.level is level
    assert words in moved.reasons[0]


def test_a_certificate_for_few_items_is_not_enough(good, certificate) -> None:
    few = replace(good, certificate=replace(certificate, n_auto=150))
    none = replace(good, certificate=replace(certificate, threshold=None))

    assert "only 15 % of the items" in next_level(Level.ASSISTED, few).reasons[0]
    assert "no threshold is certified" in next_level(Level.ASSISTED, none).reasons[0]
    lenient = Rules(min_coverage=0.1)
    assert next_level(Level.ASSISTED, few, rules=lenient).level is Level.PARTIAL


def test_a_worse_model_may_assist_if_it_repairs_what_people_miss(shadow) -> None:
    worse = replace(shadow, lead_lower=-0.05, repaired_lower=0.03)
    useless = replace(shadow, lead_lower=-0.05, repaired_lower=0.001)

    assert next_level(Level.SHADOW, Evidence(shadow=worse)).level is Level.ASSISTED
    moved = next_level(Level.SHADOW, Evidence(shadow=useless))
    assert moved.level is Level.SHADOW
    assert "5.0 % less accurate" in moved.reasons[0]


@pytest.mark.parametrize("level", ORDER)
def test_any_alarm_takes_one_step_down_whatever_else_is_known(level, good) -> None:
    moved = next_level(level, replace(good, alarms=("the photos have changed",)))

    assert moved.level is ORDER[max(ORDER.index(level) - 1, 0)]
    assert moved.reasons == ("the photos have changed",)
