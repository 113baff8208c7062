"""A hint beside an error: what a signature takes, with a body that it reads."""

from typing import Any

import pytest

from mlops_mini.serving.json_hint import hint


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"x": ("float", (-1, 28, 28, 1))}, "s takes x: float [?,28,28,1]"),
        (
            {"n": ("int64", (-1,)), "s": ("string", (-1, 2))},
            (
                "s takes n: int64 [?], s: string [?,2]; for example"
                ' {"signature_name":"s","instances":[{"n":0,"s":["text","text"]}]}'
            ),
        ),
        (
            {"b": ("bool", ())},
            's takes b: bool []; for example {"signature_name":"s","inputs":{"b":false}}',
        ),
        (
            {"x": ("double", None)},
            (
                "s takes x: double of any shape; for example"
                ' {"signature_name":"s","instances":[{"x":0.0}]}'
            ),
        ),
        ({"x": ("half", (-1,))}, "s takes x: half [?]; JSON has no form for x: use gRPC"),
        ({}, "s takes no input: use gRPC"),
    ],
)
def test_a_hint_shows_a_body_where_one_fits_a_line(inputs: Any, text: str) -> None:
    assert hint(inputs, "s") == text
