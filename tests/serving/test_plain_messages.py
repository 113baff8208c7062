"""Messages written from templates mean what those of the exact writer mean."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_mini.serving import plain_messages
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse

SHAPES = st.lists(st.integers(0, 3), max_size=3)
ALIASES = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
SPECS = st.builds(
    ModelSpec,
    name=st.text("mü", min_size=1, max_size=150),
    version=st.none() | st.integers(0, 2**63 - 1),
    signature_name=st.sampled_from(["", "s"]),
)


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    shape, char = draw(SHAPES), draw(st.sampled_from("fdO"))
    n_values = int(np.prod(shape))
    if char == "O":
        array = np.empty(n_values, object)
        array[:] = draw(st.lists(st.binary(max_size=300), min_size=n_values, max_size=n_values))
        return array.reshape(shape)
    numbers = st.floats(width=32 if char == "f" else 64)
    values = draw(st.lists(numbers, min_size=n_values, max_size=n_values))
    return np.array(values, char).reshape(shape)


def assert_same(read: Any, array: Any) -> None:
    assert (read.shape, read.dtype) == (array.shape, array.dtype)
    if array.dtype == object:
        assert read.tolist() == array.tolist()
    else:
        assert read.tobytes() == array.tobytes()


@given(SPECS, st.dictionaries(ALIASES, tensors(), max_size=3))
def test_a_request_says_what_was_asked(
    spec: ModelSpec, inputs: dict[str, np.ndarray[Any, Any]]
) -> None:
    request = PredictRequest.from_bytes(plain_messages.write_request(spec, inputs))

    assert (request.model_spec, request.output_filter) == (spec, ())
    assert request.inputs.keys() == inputs.keys()
    for alias, array in inputs.items():
        assert_same(request.inputs[alias], array)


@given(SPECS, st.dictionaries(ALIASES, tensors(), max_size=3))
def test_a_response_says_what_was_answered(
    spec: ModelSpec, outputs: dict[str, np.ndarray[Any, Any]]
) -> None:
    written = plain_messages.write_response(spec, [*outputs], [*outputs.values()])

    response = PredictResponse.from_bytes(written)
    assert response.model_spec == spec
    assert response.outputs.keys() == outputs.keys()
    for alias, array in outputs.items():
        assert_same(response.outputs[alias], array)


@pytest.mark.parametrize(
    ("array", "is_plain"),
    [
        (np.float32([1]), True),
        (np.float64([1]), True),
        (np.array([b"text"], object), True),
        (np.int64([1]), False),
        (np.float16([1]), False),
        (np.array([True]), False),
    ],
)
def test_which_tensors_are_plain(array: np.ndarray[Any, Any], *, is_plain: bool) -> None:
    assert plain_messages.are_plain([np.float32([1]), array]) == is_plain
