import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlops_mini.errors import InvalidArgumentError, UnimplementedError
from mlops_mini.serving import json_request
from mlops_mini.wire import NotQuickError

SEVERAL = {"a": "float", "b": "int64", "s": "string"}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "The document is empty"),
        (" ", "The document is empty. at offset: 1"),
        ("x", "Invalid value. at offset: 0"),
        ("{", "Missing a name for object member. at offset: 1"),
        ("{1:2}", "Missing a name for object member. at offset: 1"),
        ('{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        ('{"instances":', "Invalid value. at offset: 13"),
        ('{"instances":[1,}', "Invalid value. at offset: 16"),
        ('{"instances":[1,2', "Missing a comma or ']' after an array element. at offset: 17"),
        (
            '{"instances":[1] "a":1}',
            "Missing a comma or '}' after an object member. at offset: 17",
        ),
        ('{"a":01}', "Missing a comma or '}' after an object member. at offset: 6"),
        ('{"a":1.}', "Miss fraction part in number. at offset: 7"),
        ('{"a":1e}', "Miss exponent in number. at offset: 7"),
        ('{"a":1e400}', "Number too big to be stored in double. at offset: 5"),
        ('{"a":nan}', "Invalid value. at offset: 6"),
        ('{"a":tru}', "Invalid value. at offset: 8"),
        ('{"a":"abc', "Missing a closing quotation mark in string. at offset: 9"),
        ('{"a":"\\x"}', "Invalid escape character in string. at offset: 6"),
        ('{"a":"\\u12"}', "Incorrect hex digit after \\u escape in string. at offset: 6"),
        ('{"a":"\\ud800"}', "The surrogate pair in string is invalid. at offset: 6"),
        ('{"a":[NaN,1' + "0" * 400 + "]}", "Number too big to be stored in double. at offset: 10"),
    ],
)
def test_a_broken_body_is_refused_with_text_and_offset(body: str, text: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        json_request.parse_object(body.encode())

    assert str(raised.value) == f"JSON Parse error: {text}"


@pytest.mark.parametrize("body", ["[1]", "1", '"a"', "null"])
def test_a_body_that_is_no_object_is_refused(body: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        json_request.parse_object(body.encode())

    assert str(raised.value) == f"JSON Value: {body} Is not object"


@pytest.mark.parametrize(
    ("body", "document"),
    [
        ('{"a":1} and more', {"a": 1}),
        ('{"é":1}]', {"é": 1}),
        ('{"a":[Inf,-Inf,Infinity,-Infinity]}', {"a": [np.inf, -np.inf, np.inf, -np.inf]}),
        ('{"a":[Inf,9007199254740993]}', {"a": [np.inf, 9007199254740993]}),
        ('{"a":[Inf,18446744073709551616]}', {"a": [np.inf, 2.0**64]}),
        (' \n{"a":1}\n', {"a": 1}),
        ("\ufeff" + '{"a":1}', {"a": 1}),
        ('{"a":1,"b":[{"c":2,"c":3}],"a":4}', {"a": 1, "b": [{"c": 2}]}),
        ('{"a:b":":","a:b":1}', {"a:b": ":"}),
        ('{"a":[{},[],{"b":[]}]} {', {"a": [{}, [], {"b": []}]}),
        (
            r'{"a":"\ud83d\ude00\u00e9\n\/\"é"}]',
            {"a": '\N{GRINNING FACE}é\n/"é'},
        ),
    ],
)
def test_what_strict_parsers_refuse_is_accepted(body: str, document: Any) -> None:
    assert json_request.parse_object(body.encode()) == document


def test_nesting_has_no_limit() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000

    assert json_request.parse_object(b'{"a":1,"b":' + deep + b"}")["a"] == 1
    with pytest.raises(InvalidArgumentError, match="at most 64 dimensions"):
        json_request.decode_predict(
            json_request.parse_object(b'{"inputs":' + deep + b"}"), {"x": "float"}
        )
    with pytest.raises(
        InvalidArgumentError, match=r"Missing a comma or '\]' after an array element"
    ):
        json_request.parse_object(b'{"inputs":' + deep[:-5])


@pytest.mark.parametrize(
    ("document", "dtypes", "text"),
    [
        ({}, {"x": "float"}, "Missing 'inputs' or 'instances' key"),
        (
            {"instances": 1, "inputs": 2},
            {"x": "float"},
            (
                'JSON Value: {\n    "instances": 1,\n    "inputs": 2\n} Not formatted correctly'
                " expecting only one of 'inputs' or 'instances' keys to exist "
            ),
        ),
        (
            {"instances": 5},
            {"x": "float"},
            "JSON Value: {\n    \"instances\": 5\n} Expecting 'instances' to be an list/array",
        ),
        (
            {"instances": []},
            {"x": "float"},
            "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
        ),
        (
            {"instances": [{"x": 1}, 2]},
            {"x": "float"},
            "Expecting object but got list at item 1 of input list",
        ),
        (
            {"instances": [1, {"x": 2}]},
            {"x": "float"},
            "Expecting value/list but got object at item 1 of input list",
        ),
        (
            {"instances": [1]},
            SEVERAL,
            (
                "instances is a plain list, but expecting list of objects as multiple input tensors"
                " required as per tensorinfo_map"
            ),
        ),
        (
            {"instances": [{"x": 1, "y": 2}]},
            {"x": "float"},
            (
                "Failed to process element: 0 key: y of 'instances' list. Error: INVALID_ARGUMENT:"
                " JSON object: does not have named input: y"
            ),
        ),
        (
            {"instances": [{"b64": 5}]},
            {"x": "string"},
            (
                "Failed to process element: 0 key: b64 of 'instances' list. Error:"
                " INVALID_ARGUMENT: JSON object: does not have named input: b64"
            ),
        ),
        (
            {"instances": [{"x": [1, 2]}, {"x": [1]}]},
            {"x": "float"},
            (
                "Failed to process element: 1 key: x of 'instances' list. Error: INVALID_ARGUMENT:"
                " Expecting tensor size: 2 but got: 1"
            ),
        ),
        (
            {"instances": [[1, 2], [1]]},
            {"x": "float"},
            (
                "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT:"
                " Expecting tensor size: 2 but got: 1"
            ),
        ),
        (
            {"instances": [[1, 2], [[1, 2]]]},
            {"x": "float"},
            (
                "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT:"
                " Expecting shape [2] but got: [1,2]"
            ),
        ),
        (
            {"instances": [1, [1]]},
            {"x": "int32"},
            (
                "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT:"
                " Expecting shape [] but got: [1]"
            ),
        ),
        (
            {"instances": [{"a": 1, "b": 2}]},
            SEVERAL,
            (
                "Failed to process element: 0 of 'instances' list. JSON object:"
                ' {\n    "a": 1,\n    "b": 2\n} keys must be equal to: a,b,s'
            ),
        ),
        (
            {"inputs": [1]},
            SEVERAL,
            (
                "inputs is a plain value/list, but expecting an object as multiple input tensors"
                " required as per tensorinfo_map"
            ),
        ),
        (
            {"inputs": {"a": 1, "b": 2}},
            SEVERAL,
            "Missing named input: s in 'inputs' object.",
        ),
        (
            {"inputs": [[1, 2], [3]]},
            {"x": "float"},
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
        ),
        (
            {"inputs": [1, [2]]},
            {"x": "float"},
            "Encountered list at unexpected level: 1 expected < 1",
        ),
        (
            {"inputs": [[1], 2]},
            {"x": "float"},
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
    ],
)
def test_a_body_that_does_not_fit_is_refused_in_tensorflow_servings_words(
    document: Any, dtypes: dict[str, str], text: str
) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        json_request.decode_predict(document, dtypes)

    assert str(raised.value) == text


@pytest.mark.parametrize(
    ("dtype", "value", "text"),
    [
        ("int32", 1.0, "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        ("int32", 1e3, "JSON Value: 1000.0 Type: Number is not of expected type: int32"),
        ("uint8", 2**31, "JSON Value: 2147483648 Type: Number is not of expected type: uint8"),
        ("int64", 2**63, f"JSON Value: {2**63} Type: Number is not of expected type: int64"),
        ("uint32", -1, "JSON Value: -1 Type: Number is not of expected type: uint32"),
        ("uint64", -1, "JSON Value: -1 Type: Number is not of expected type: uint64"),
        ("float", True, "JSON Value: true Type: True is not of expected type: float"),
        ("float", "1", 'JSON Value: "1" Type: String is not of expected type: float'),
        ("float", None, "JSON Value: null Type: Null is not of expected type: float"),
        ("bool", 1, "JSON Value: 1 Type: Number is not of expected type: bool"),
        ("string", 1, "JSON Value: 1 Type: Number is not of expected type: string"),
        ("string", False, "JSON Value: false Type: False is not of expected type: string"),
        ("string", {"b64": "_-=="}, "Unable to base64 decode"),
        ("string", {"b64": "A"}, "Unable to base64 decode"),
        ("string", {"b64": "é"}, "Unable to base64 decode"),
        (
            "string",
            {"b64": "AA==", "c": 1},
            (
                'JSON Value: {\n    "b64": "AA==",\n    "c": 1\n}'
                " not formatted correctly for base64 data"
            ),
        ),
    ],
)
def test_a_value_of_another_type_is_refused(dtype: str, value: Any, text: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        json_request.decode_predict({"inputs": [value]}, {"x": dtype})

    assert str(raised.value) == text


@pytest.mark.parametrize(
    ("dtype", "value", "array"),
    [
        ("float", [1, 2.5, 1e39, 2**64], np.float32([1, 2.5, np.inf, 2.0**64])),
        ("double", [1, 1e300], np.float64([1, 1e300])),
        ("uint8", [256, -1, 255], np.uint8([0, 255, 255])),
        ("int8", [128, -129], np.int8([-128, 127])),
        ("int16", [32768], np.int16([-32768])),
        ("int64", [9007199254740993, -(2**63)], np.int64([9007199254740993, -(2**63)])),
        ("uint64", [2**64 - 1], np.uint64([2**64 - 1])),
        ("bool", [True, False], np.bool_([True, False])),
        ("string", ["é", {"b64": "/w=="}, {"b64": "/ w\n"}], [b"\xc3\xa9", b"\xff", b"\xff"]),
        ("float", [], np.float32([])),
        ("float", [[], []], np.zeros((2, 0), np.float32)),
        ("float", 3, np.float32(3)),
    ],
)
def test_values_become_the_inputs_type(dtype: str, value: Any, array: Any) -> None:
    decoded = json_request.decode_predict({"inputs": value}, {"x": dtype}).inputs["x"]

    expected = np.array(array, object) if dtype == "string" else np.asarray(array)
    assert decoded.dtype == expected.dtype
    assert decoded.shape == expected.shape
    assert decoded.tolist() == expected.tolist()


def test_a_type_that_json_has_no_form_for_is_unimplemented_in_columns_and_invalid_in_rows() -> None:
    with pytest.raises(UnimplementedError, match=r"^Conversion of JSON Value: 1 to type: uint16$"):
        json_request.decode_predict({"inputs": [1]}, {"x": "uint16"})
    with pytest.raises(InvalidArgumentError, match=r"Error: UNIMPLEMENTED: Conversion of JSON"):
        json_request.decode_predict({"instances": [1]}, {"x": "uint16"})


def test_rows_and_columns_give_the_same_arrays() -> None:
    rows = [{"a": [1, 2], "b": 3, "s": "p"}, {"s": "q", "b": 4, "a": [5, 6]}]
    columns = {"a": [[1, 2], [5, 6]], "b": [3, 4], "s": ["p", "q"], "ignored": 1}

    by_rows = json_request.decode_predict({"instances": rows}, SEVERAL)
    by_columns = json_request.decode_predict({"inputs": columns}, SEVERAL)

    assert (by_rows.is_rows, by_columns.is_rows) == (True, False)
    for alias in SEVERAL:
        np.testing.assert_array_equal(by_rows.inputs[alias], by_columns.inputs[alias])


def test_a_base64_object_feeds_the_only_input() -> None:
    decoded = json_request.decode_predict({"inputs": {"b64": "YQ=="}}, {"x": "string"})

    assert decoded.inputs["x"].item() == b"a"


@pytest.mark.parametrize("key", ["inputs", "instances"])
def test_more_dimensions_than_an_array_can_have_are_refused(key: str) -> None:
    value: Any = 1.0
    for _ in range(65):
        value = [value]

    with pytest.raises(InvalidArgumentError, match="at most 64 dimensions"):
        json_request.decode_predict({key: value}, {"x": "float"})


def _listed(item: str, *more: str) -> bytes:
    """A body of about 250 KB whose rows are one item again and again, and then others."""
    items = [item] * (250_000 // (len(item) + 1))
    return f'{{"instances":[{",".join([*items, *more])}]}}'.encode()


def _seconds(work: Callable[[], Any]) -> float:
    """Shortest of some times that a piece of work takes, if it can be done at once."""
    times_s = []
    for _ in range(3):
        began = time.perf_counter()
        with contextlib.suppress(InvalidArgumentError, NotQuickError):
            work()
        times_s.append(time.perf_counter() - began)
    return min(times_s)


@pytest.mark.parametrize(
    ("body", "dtype"),
    [
        (_listed("0"), "float"),
        (_listed("1"), "int8"),
        (_listed("true"), "bool"),
        (_listed('""'), "string"),
        (_listed('{"b64":""}'), "string"),
        (_listed('{"b64":"Y Q="}'), "string"),
        (_listed('"12:30"'), "string"),
        (_listed('{"x":0}'), "float"),
        (_listed('{"x":"a:b"}'), "string"),
        (_listed("[0]"), "float"),
        (_listed("NaN"), "float"),
        (_listed("{}"), "float"),
        # Wrong at the very end.
        (_listed("0", '"a"'), "float"),
        (_listed("1", "1.5"), "int8"),
        (_listed('"a"', "5"), "string"),
        (_listed('{"b64":""}', '{"b64":"*"}'), "string"),
        (_listed('{"x":0}', '{"y":0}'), "float"),
        (_listed('{"x":0}', "0"), "float"),
        (_listed("[0]", "[0,1]"), "float"),
        (_listed("[0,[0]]"), "float"),
        (_listed("0", "0]"), "float"),
        (b'{"instances":' + b"[" * 125_000 + b"]" * 125_000 + b"}", "float"),
        (b'{"instances":[' + b"[" * 60 + b"]" * 60 + b"]}", "float"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value[13:24] + value[-12:]),
)
def test_no_body_of_250_kb_stops_others_longer_than_json_alone(body: bytes, dtype: str) -> None:
    def ask() -> None:
        document = json_request.parse_object(body, quick=True)
        json_request.decode_predict(document, {"x": dtype}, quick=True)

    numbers = json.dumps([0.125] * 35_000)

    assert _seconds(ask) < 50 * _seconds(lambda: np.array(json.loads(numbers)))


@pytest.mark.parametrize("key", ["instances", "inputs"])
@pytest.mark.parametrize("depth", [64, 65, 1_000, 100_000])
def test_nesting_is_looked_at_whatever_its_depth(key: str, depth: int) -> None:
    def decode(value: str) -> Any:
        levels = depth - (key == "instances")
        nested = "[" * levels + value + "]" * levels
        rows = f"[{nested}]" if key == "instances" else nested
        document = json_request.parse_object(f'{{"{key}":{rows}}}'.encode())
        return json_request.decode_predict(document, {"x": "float"}).inputs["x"]

    with pytest.raises(InvalidArgumentError, match="of expected type: float"):
        decode('"a"')  # what is wrong with the values comes first
    if depth <= 64:
        assert decode("1").shape == (1,) * depth
    else:
        with pytest.raises(InvalidArgumentError, match=f"at most 64 dimensions here, got {depth}"):
            decode("1")


def test_many_rows_are_wrong_where_few_are() -> None:
    rows: list[Any] = [[1, 2]] * 5_000
    document = {"instances": [*rows, [1, "a"], *rows]}

    with pytest.raises(NotQuickError):
        json_request.decode_predict(document, {"x": "float"}, quick=True)
    with pytest.raises(InvalidArgumentError, match=r'element: 5000 of .*"a" Type: String'):
        json_request.decode_predict(document, {"x": "float"})
