from typing import Any

import pytest

from mlops_mini.serving import json_text


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ({}, "{}"),
        ([], "[]"),
        ({"a": {}}, '{\n    "a": {}\n}'),
        ([1, [2.0, "x"], None, True], '[1, [2.0, "x"], null, true]'),
        ({"examples": [{"x": 1}]}, '{\n    "examples": [{\n            "x": 1\n        }]\n}'),
        ({"a": 1, "b": "é\n"}, '{\n    "a": 1,\n    "b": "é\\n"\n}'),
        (1e3, "1000.0"),
        (1e20, "100000000000000000000.0"),
        (1e21, "1e21"),
        (1.5e30, "1.5e30"),
        (1e-5, "0.00001"),
        (1.5e-6, "0.0000015"),
        (1e-7, "1e-7"),
        (-0.0, "-0.0"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (2**64 - 1, "18446744073709551615"),
    ],
)
def test_values_print_as_rapidjson_prints_them(value: Any, printed: str) -> None:
    # An object inside an array is indented two levels, as if the array had one of its own.
    assert json_text.show(value) == printed


def test_printing_stops_at_the_first_token_beyond_256_bytes() -> None:
    assert json_text.show([1] * 1000) == "[" + "1, " * 85
    assert json_text.show(["x" * 1000, 1]) == '["' + "x" * 1000 + '"'
