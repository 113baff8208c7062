"""Who decides which item, by the degree of automation."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from mlops_mini.automation.certificates import Certificate, Scope, certify_threshold
from mlops_mini.automation.levels import Level
from mlops_mini.automation.policy import AutomationPolicy, Route
from mlops_mini.errors import InvalidArgumentError

SCOPE = Scope(
    model_version=3,
    data_from=datetime(2026, 5, 1, tzinfo=UTC),
    data_until=datetime(2026, 5, 8, tzinfo=UTC),
    expires_at=datetime(2026, 6, 1, tzinfo=UTC),
)
NOW = {"model_version": 3, "at": datetime(2026, 5, 20, tzinfo=UTC)}
SCORES = np.array([0.95, 0.9, 0.5, np.nan])
ITEMS = {"item_ids": ["a", "b", "c", "d"], "answers": ["bag", "shirt", "bag", ""]}


@pytest.fixture
def certificate() -> Certificate:
    made = certify_threshold(np.ones(200), np.ones(200), other_scores=np.ones(9), scope=SCOPE)
    return replace(made, threshold=0.9)


def _routes(policy: AutomationPolicy, **changed: object) -> str:
    routing = policy.route(SCORES, **ITEMS | NOW | changed)
    return " ".join(routing.routes)


@pytest.mark.parametrize(
    ("level", "routes"),
    [
        (Level.HUMAN, "human human human human"),
        (Level.SHADOW, "shadow shadow shadow shadow"),
        (Level.ASSISTED, "hint hint hint hint"),
        (Level.PARTIAL, "auto auto human human"),
    ],
)
def test_each_degree_has_its_routes(level, routes, certificate) -> None:
    assert _routes(AutomationPolicy(level=level, certificates={"": certificate})) == routes


def test_full_automation_needs_a_promise_for_all_and_leaves_out_what_has_no_score(
    certificate,
) -> None:
    full = AutomationPolicy(level=Level.FULL, certificates={"": replace(certificate, threshold=0)})
    for_some = replace(full, certificates={"": certificate})

    assert _routes(full) == "auto auto auto human"
    assert _routes(for_some) == "human human human human"
    assert "isn't certified for all" in for_some.route(SCORES, **ITEMS, **NOW).reason


def test_people_may_see_the_answer_to_what_is_left(certificate) -> None:
    policy = AutomationPolicy(level=Level.PARTIAL, certificates={"": certificate}, rest="hint")

    assert _routes(policy) == "auto auto hint hint"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model_version": 4}, "it's for model version 3, not 4"),
        ({"model_version": None}, "not None"),
        ({"at": datetime(2026, 6, 1, tzinfo=UTC)}, "it expired at 2026-06-01 00:00"),
    ],
)
def test_a_void_certificate_means_people(changed, words, certificate) -> None:
    policy = AutomationPolicy(level=Level.PARTIAL, certificates={"": certificate})

    routing = policy.route(SCORES, **ITEMS | NOW | changed)

    assert set(routing.routes) == {Route.HUMAN}
    assert not routing.is_audited.any()
    assert words in routing.reason


def test_a_category_without_a_certificate_is_for_people(certificate) -> None:
    none = replace(certificate, threshold=None)
    policy = AutomationPolicy(level=Level.PARTIAL, certificates={"bag": certificate, "shirt": none})

    assert _routes(policy) == "auto human human human"
    assert policy.route(SCORES, **ITEMS, **NOW).reason == ""
    nothing = replace(policy, certificates={"shirt": none})
    assert "no threshold is certified" in nothing.route(SCORES, **ITEMS, **NOW).reason
    assert (
        "there's no certificate"
        in replace(policy, certificates={}).route(SCORES, **ITEMS, **NOW).reason
    )


def test_the_audited_share_is_drawn_by_the_id_and_stays(certificate) -> None:
    policy = AutomationPolicy(level=Level.PARTIAL, certificates={"": certificate}, audit_share=0.1)
    ids = [f"item {n}" for n in range(20_000)]
    given = {"answers": ["bag"] * len(ids), **NOW}

    first = policy.route(np.ones(len(ids)), ids, **given).is_audited
    again = policy.route(np.ones(len(ids)), ids[::-1], **given).is_audited
    other = replace(policy, salt="another").route(np.ones(len(ids)), ids, **given).is_audited

    assert first.mean() == pytest.approx(0.1, abs=0.01)
    assert (first == again[::-1]).all()
    assert (first & other).mean() == pytest.approx(0.01, abs=0.004)


def test_float32_scores_at_the_threshold_count(certificate) -> None:
    at = np.float32([0.9])
    policy = AutomationPolicy(
        level=Level.PARTIAL, certificates={"": replace(certificate, threshold=float(at[0]))}
    )

    assert policy.route(at, ["a"], answers=["bag"], **NOW).routes == (Route.AUTO,)


def test_a_promise_that_nobody_checks_and_uneven_arrays_are_refused(certificate) -> None:
    with pytest.raises(InvalidArgumentError, match="a promise that nobody checks is none"):
        AutomationPolicy(level=Level.PARTIAL, audit_share=0)
    with pytest.raises(InvalidArgumentError, match="give one of each per item"):
        AutomationPolicy(level=Level.HUMAN).route([0.5], ["a", "b"], answers=["bag"], **NOW)
