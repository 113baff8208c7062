"""A long body is read as a short one is, whatever it holds."""

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mlops_mini.errors import MlopsMiniError
from mlops_mini.serving import json_fast, json_long, json_request

ONE, TWO = {"x": "float"}, {"x": "float", "y": "float"}
SIGNATURES = {"": ONE, "wide": {"x": "double"}, "whole": {"x": "int64"}, "two": TWO}


def read(reader: Any, body: bytes) -> Any:
    """Read a body; whatever comes of it can be compared."""
    try:
        name, request = reader.read_predict(body, SIGNATURES)
    except MlopsMiniError as exc:
        return type(exc), str(exc)
    if isinstance(request, MlopsMiniError):
        return name, type(request), str(request)
    if request is None:
        return name, None
    inputs = {
        alias: (array.dtype, array.shape, array.tobytes() if array.dtype != object else [*array])
        for alias, array in request.inputs.items()
    }
    return name, request.is_rows, inputs


NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
NESTED = st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=3), max_leaves=8)


@given(
    st.sampled_from(["instances", "inputs"]),
    arrays(np.float64, array_shapes(max_dims=4, max_side=4), elements=NUMBERS.map(float)).map(
        np.ndarray.tolist
    )
    | NESTED,
    st.sampled_from(["", "wide", "whole", "two", "unknown"]),
    st.booleans(),
    st.sampled_from([None, 1, "\t"]),
)
def test_numbers_are_read_as_the_exact_reader_does(
    key: str, values: Any, signature: str, is_first: bool, indent: Any
) -> None:
    names = {"signature_name": signature} if signature else {}
    document = {**names, key: values} if is_first else {key: values, **names}
    body = json.dumps(document, indent=indent).encode()

    assert read(json_long, body) == read(json_request, body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"instances": [[1, 2], [3]]}',
        b'{"instances": [[1, 2], [3, 4]]} and more',
        b'{"instances": [1, NaN]}',
        b'{"instances": [1,, 2]}',
        b'{"instances": [1, ]}',
        b'{"instances": [1 2]}',
        b'{"instances": [1e999]}',
        b'{"instances": [1e39]}',
        b'{"instances": [-0.0, 1E2, 0.1]}',
        b'{"instances": []}',
        b'{"instances": [[], []]}',
        b'{"instances": [[1], []]}',
        b'{"instances": 1}',
        b'{"instances": [1], "instances": [2]}',
        b'{"instances": [1], "inputs": [2]}',
        b'{"signature_name": "wide", "instances": [1], "signature_name": "two"}',
        b'{"signature_name": "", "instances": [1]}',
        b'{"signature_name": 1, "instances": [1]}',
        b'{"instances": [{"x": 1}]}',
        b'{"instances": ["1"]}',
        b'{"instances": [true]}',
        b'{"instances": [null]}',
        b'{"in\\u0073tances": [1]}',
        b"[1]",
    ],
)
def test_what_is_no_plain_body_is_left_to_the_exact_reader(body: bytes) -> None:
    assert read(json_long, body) == read(json_request, body)


def test_images_are_read_the_short_way() -> None:
    images = np.random.default_rng(16).random((64, 28, 28, 1)).round(6)
    body = json.dumps({"instances": images.tolist()}).encode()

    plain = json_fast.read_numbers(body)

    assert plain is not None
    assert (plain.n_rows, plain.row_shape) == (64, (28, 28, 1))
    np.testing.assert_array_equal(plain.blocks[0], images)


@pytest.mark.parametrize("n_levels", [64, 65, 200_000])
def test_lists_in_lists_take_no_time(n_levels: int) -> None:
    brackets = b"[" * n_levels + b"]" * n_levels

    began_s = time.process_time()
    shape = json_fast._regular_shape(brackets)

    assert len(shape) == (64 if n_levels == 64 else 0)
    assert time.process_time() - began_s < 1
