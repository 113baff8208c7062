"""Calls wait for others where there are others, and only then."""

import pytest

from mlops_mini.serving.batching import AT_ONCE, MAX_ROWS, Patience
from mlops_mini.serving.grpc_crowd import Crowd

PATIENCE_S = 0.002


def call(crowd: Crowd, now_s: float, lasting_s: float = 50e-6) -> Patience:
    """Play a call that meets no other."""
    crowd.begins(now_s)
    patience = crowd.enters(now_s)
    crowd.leaves(now_s + lasting_s)
    return patience


def test_a_lone_client_never_waits() -> None:
    crowd = Crowd()

    assert {call(crowd, n * 300e-6) for n in range(1000)} == {AT_ONCE}


def test_who_is_not_alone_waits_and_is_soon_alone_again() -> None:
    crowd = Crowd()
    crowd.enters(0.0)
    second = crowd.enters(0.001)
    crowd.leaves(0.002)
    crowd.leaves(0.002)

    assert second.seconds == PATIENCE_S
    assert call(crowd, 0.04).seconds == PATIENCE_S
    assert call(crowd, 0.1) == AT_ONCE


def test_a_call_that_is_on_its_way_is_waited_for_but_not_for_ever() -> None:
    crowd = Crowd()
    crowd.begins(0.0)  # its message comes later, or never

    assert call(crowd, 0.1).seconds == PATIENCE_S
    assert call(crowd, 0.5) == AT_ONCE


def test_calls_that_come_one_by_one_but_too_quickly_for_one_client_wait() -> None:
    crowd = Crowd()
    call(crowd, 0.0)

    assert call(crowd, 150e-6).seconds == PATIENCE_S  # 100 us after the first was answered


def test_a_wait_ends_when_as_many_are_there_as_came_together_before() -> None:
    crowd = Crowd()
    waits = []
    for group in range(4):
        now_s = 0.004 * group
        waits.append([crowd.enters(now_s).n_enough for _ in range(8)])
        for _ in range(8):
            crowd.leaves(now_s + 0.002)

    assert waits[0][-1] == MAX_ROWS  # nobody knows yet how many come
    assert waits[1] == waits[2] == waits[3] == [8] * 8


@pytest.mark.parametrize("n_left", [1, 5])
def test_fewer_clients_are_enough_once_the_others_have_gone(n_left: int) -> None:
    crowd = Crowd()
    enough = 0
    for group, n_clients in enumerate([8] * 5 + [n_left] * 40):
        now_s = 0.004 * group
        enough = [crowd.enters(now_s).n_enough for _ in range(n_clients)][-1]
        for _ in range(n_clients):
            crowd.leaves(now_s + 0.002)

    assert enough == (n_left if n_left > 1 else MAX_ROWS)  # who is alone waits for nobody
