"""The process beside ours: what goes there comes back, and its end is not ours."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from mlops_mini.errors import InternalError, InvalidArgumentError
from mlops_mini.serving import json_request, json_response
from mlops_mini.serving.large_messages import LargeMessages
from tests.serving.servers import wait_until

FLOATS = {"": {"x": "float"}}


@pytest.fixture(scope="module")
def large() -> Iterator[LargeMessages]:
    with closing(LargeMessages()) as made:
        yield made


def test_bodies_and_answers_are_those_of_our_own_process(large: LargeMessages) -> None:
    numbers = np.arange(500_000, dtype=np.float32) / 3
    answer = bytes(large.call(json_response.encode_predict, {"x": numbers}, False))
    assert answer == json_response.encode_predict({"x": numbers}, is_rows=False)

    body = b'{"inputs"' + answer[answer.index(b":") :]
    key, request = large.call(json_request.read_predict, body, FLOATS)

    assert key == ""
    assert request.inputs["x"].tobytes() == numbers.tobytes()
    texts = np.array([b"a", b"\xff" * 100_000], object)
    echoed = large.call(json_response.encode_predict, {"y_bytes": texts}, True)
    assert bytes(echoed) == json_response.encode_predict({"y_bytes": texts}, is_rows=True)


def test_an_error_comes_back_as_it_was_raised(large: LargeMessages) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^JSON Parse error: Invalid value. at offset"):
        large.call(json_request.read_predict, b'{"inputs": ' + b" " * 100_000 + b"x", FLOATS)
    key, problem = large.call(json_request.read_predict, b'{"inputs": "text"}', FLOATS)
    assert (key, type(problem)) == ("", InvalidArgumentError)
    assert large.call(json_request.read_predict, b'{"signature_name": "zz"}', FLOATS) == (
        "zz",
        None,
    )


def test_a_fault_of_ours_is_told_and_ends_nothing(large: LargeMessages) -> None:
    with pytest.raises(InternalError, match="TypeError"):
        large.call(len, 5)
    assert large.call(json_request.read_predict, b"{}", FLOATS)[0] == ""


def test_a_child_that_is_killed_fails_one_call_and_is_replaced(large: LargeMessages) -> None:
    pid = large.call(os.getpid)

    with pytest.raises(InternalError, match="has ended with status -9: is there enough memory"):
        large.call(os.kill, pid, signal.SIGKILL)

    again = large.call(os.getpid)
    assert again != pid
    os.kill(again, signal.SIGKILL)  # between two calls: nobody notices
    wait_until(lambda: large._child is None or large._child.poll() is not None, "its end")
    assert large.call(os.getpid) != again
