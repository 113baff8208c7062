"""What is known of a signature's runs, and what may run on the event loop because of it."""

import pytest

from mlops_mini.serving.run_costs import INLINE_LIMIT_S, RunCosts

SHORT_S, LONG_S = INLINE_LIMIT_S / 10, INLINE_LIMIT_S * 3


def costs(*runs: tuple[int, float], may_inline: bool = True) -> RunCosts:
    """Learn 20 short runs of 100 elements, then these."""
    made = RunCosts(may_inline=may_inline)
    for n_elements, seconds in [(100, SHORT_S)] * 20 + list(runs):
        made.add(n_elements, seconds)
    return made


def test_the_first_twenty_runs_are_not_for_the_event_loop() -> None:
    made = RunCosts()
    for _ in range(19):
        made.add(1, SHORT_S)
        assert made.inline_elements == -1
    made.add(1, SHORT_S)
    assert made.inline_elements == 1


def test_a_size_that_was_never_seen_is_not_short() -> None:
    assert costs().inline_elements == 127
    assert costs((12_000, SHORT_S), (12_000, SHORT_S)).inline_elements == 127
    assert costs(*[(12_000, SHORT_S)] * 3).inline_elements == 2**14 - 1


def test_what_is_larger_than_a_long_run_is_not_short() -> None:
    assert costs(*[(1000, LONG_S)] * 3, *[(9000, SHORT_S)] * 3).inline_elements == 127


def test_a_size_that_becomes_slow_loses_its_good_name_and_may_earn_it_again() -> None:
    slow = costs(*[(100, LONG_S)] * 5)
    assert slow.inline_elements == -1
    for _ in range(5):
        slow.add(100, SHORT_S)
    assert slow.inline_elements == 127


def test_one_very_long_run_is_enough() -> None:
    assert costs((100, INLINE_LIMIT_S * 100)).inline_elements == -1


def test_one_run_that_was_held_up_is_not_enough() -> None:
    assert costs((100, LONG_S)).inline_elements == 127


@pytest.mark.parametrize("n_elements", [0, 1, 100])
def test_a_signature_with_a_loop_never_runs_there(n_elements: int) -> None:
    made = RunCosts(may_inline=False)
    for _ in range(30):
        made.add(n_elements, SHORT_S)
    assert made.inline_elements == -1
