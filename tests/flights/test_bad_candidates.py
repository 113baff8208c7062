"""Bad candidates are refused, each by a rule that can see it: one seed of the benchmark's fifty."""

import pytest

from benchmarks.gate_bad_candidates import GOOD, SEEN_BY, Flights, Reference, verdicts


@pytest.mark.slow
def test_each_planted_candidate_is_refused_by_a_rule_that_sees_it():
    planted = verdicts(Flights(), 0, Reference)

    failed = {
        name: {rule.rule for rule in verdict.rules if rule.verdict == "fail"}
        for name, verdict in planted.items()
    }
    assert set(planted) == {GOOD, *SEEN_BY}
    assert planted[GOOD].decision in ("blessed", "undecided")
    assert {name for name in SEEN_BY if planted[name].decision != "refused"} == set()
    assert {name: by for name, by in SEEN_BY.items() if not failed[name] & by} == {}
    assert failed["leak of the whole day"] == {"point in time"}
    (leak,) = (rule for rule in planted["leak of the whole day"].rules if rule.rule == "log loss")
    assert leak.upper < -0.03  # it's surely better, offline
