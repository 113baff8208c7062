import contextlib
import json
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.serving import json_request, json_text
from mlops_mini.wire import NotQuickError

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)


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
        (-(2.0**63), "-9223372036854776000.0"),
        (1e21, "1e21"),
        (1.5e30, "1.5e30"),
        (1e-5, "0.00001"),
        (1.5e-6, "0.0000015"),
        (1e-7, "1e-7"),
        (-0.0, "-0.0"),
        (float("nan"), ""),
        ({"a": [1, float("-inf"), 2], "b": 1}, '{\n    "a": [1, '),
        (2**64 - 1, "18446744073709551615"),
    ],
)
def test_values_print_as_rapidjson_prints_them(value: Any, printed: str) -> None:
    # An object inside an array is indented two levels, as if the array had one of its own.
    assert json_text.show(value) == printed


def test_printing_stops_at_the_first_token_beyond_256_bytes() -> None:
    assert json_text.show([1] * 1000) == "[1" + ", 1" * 85
    assert json_text.show({"x" * 1000: 1}) == '{\n    "' + "x" * 1000 + '"'
    assert json_text.show(["x" * 1000, 1]) == '["' + "x" * 1000 + '"'


@given(
    st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_what_other_writers_write_is_read(value: Any, indent: int | None, ascii_only: bool) -> None:
    written = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    body = written.encode("utf-8", "surrogatepass")

    assert json_text.parse_exactly(body + b" ]") == json.loads(written)


@given(
    st.binary() | st.text(st.sampled_from('{}[]",:\\u0dDeE+-. \n\0tfnaINrulsiy1')).map(str.encode)
)
@example(b'["\\ud83d\\u12')
def test_any_bytes_are_read_or_refused_at_an_offset_within_them(body: bytes) -> None:
    try:
        json_text.parse_exactly(body)
    except InvalidArgumentError as exc:
        text, _, offset = str(exc).partition(" at offset: ")
        assert text.startswith("JSON Parse error: ")
        assert 0 <= int(offset or 0) <= len(body)


WORDS = [
    "NaN", "null", '"NaN"', '"null"', "-NaN", "1", '"a"', "[]", '{"NaN": NaN}', "NaNull", "-0",
    '"12:30"', r'"\u003a"', r'"\":"', '{"a:": 1}', '{"a": ":", "a": 2}', "1.5e3", "[true, 0]",
]  # fmt: skip


@given(
    st.recursive(
        st.sampled_from(WORDS),
        lambda inner: (
            st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
            | st.lists(st.tuples(st.sampled_from('abN:"'), inner), max_size=4).map(
                lambda items: f"{{{','.join(f'{json.dumps(k)}:{v}' for k, v in items)}}}"
            )
        ),
        max_leaves=8,
    )
)
@example('{"a":"NaN","b":[null]}')
@example('{"a":1,"b":[{"c":NaN}],"a":NaN}')
@example(r'{"a":"\u003a","a":1}')
@example(r'{"a":null,"a":"\u003a"}')
@example(r'{"a":null,"a":"\u003A"}')
@example('{"a":":","b":[{":":0}]}')
def test_the_fast_way_reads_the_same_as_the_exact_one(text: str) -> None:
    answers = []
    for parse in (json_request.parse, json_text.parse_exactly):
        try:
            answers.append(repr(parse(text.encode())))  # NaN is no equal of itself
        except InvalidArgumentError as exc:
            answers.append(str(exc))

    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"[Infi]", "Invalid value. at offset: 5"),
        (b"[-N]", "Invalid value. at offset: 3"),
        (b"[-a]", "Invalid value. at offset: 2"),
        (b"[1,2,]", "Invalid value. at offset: 5"),
        (b'{"a":1,}', "Missing a name for object member. at offset: 7"),
        (b"[1.5e+]", "Miss exponent in number. at offset: 6"),
        (b'{"a":"x\ny"}', "Invalid escape character in string. at offset: 7"),
        (b'{"a":"x\0y"}', "Missing a closing quotation mark in string. at offset: 7"),
        (b"\0", "The document is empty. at offset: 0"),
        (rb'"\udc00"', "The surrogate pair in string is invalid. at offset: 1"),
        (rb'"\udc00\u1"', "The surrogate pair in string is invalid. at offset: 1"),
        (rb'["\ud83d\u12"]', r"Incorrect hex digit after \u escape in string. at offset: 2"),
        ('{"é" 1}'.encode(), "Missing a colon after a name of object member. at offset: 6"),
        (b'["\xff\xc3\xa9" 1]', "Missing a comma or ']' after an array element. at offset: 7"),
        (b"\xef\xbb\xbf[x]", "Invalid value. at offset: 4"),
        (b"[1.7976931348623159e308]", "Number too big to be stored in double. at offset: 1"),
        (b"[" * 1200 + b"x" + b"]" * 1200, "Invalid value. at offset: 1200"),
        (
            b"[x," + b"[" * 1200 + b"x",  # the first error counts, not the innermost one
            "Invalid value. at offset: 1",
        ),
        (
            b'["[",' * 1200 + b"1" + b"]" * 650 + b" 1" + b"]" * 550,
            "Missing a comma or ']' after an array element. at offset: 6652",
        ),
        (b'{"a":' * 1200 + b"1}", "Missing a comma or '}' after an object member. at offset: 6002"),
    ],
)
def test_an_error_is_where_rapidjson_sees_it(body: bytes, text: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        json_text.parse_exactly(body)

    assert str(raised.value) == f"JSON Parse error: {text}"


@pytest.mark.parametrize("word", ["NaN", "-NaN"])
def test_not_a_number_has_two_words(word: str) -> None:
    assert math.isnan(json_text.parse_exactly(word.encode()))


def test_bytes_that_are_no_utf8_pass_through() -> None:
    (text,) = json_text.parse_exactly(b'["a\xff\xc3\xa9"]')

    assert text.encode("utf-8", "surrogateescape") == b"a\xff\xc3\xa9"
    assert json_text.show(text) == f'"{text}"'


def test_what_is_nested_deeply_is_what_was_sent() -> None:
    value = json_text.parse_exactly(
        b'[1, "]", {"a": ' * 700 + b'"\xff"' + b'}, "[", 2]' * 700 + b"]"
    )

    for _ in range(700):
        one, closing, inner, opening, two = value
        assert (one, closing, opening, two) == (1, "]", "[", 2)
        value = inner["a"]
    assert value == "\udcff"


def test_a_number_that_no_integer_of_64_bits_holds_is_a_double() -> None:
    numbers = json_text.parse_exactly(
        b"[18446744073709551615, 18446744073709551616, -9223372036854775808, -0]"
    )

    assert [type(number) for number in numbers] == [int, float, int, int]


def _seconds(read: Callable[[], Any]) -> float:
    """Shortest of some times that reading takes."""
    times_s = []
    for _ in range(3):
        began = time.perf_counter()
        with contextlib.suppress(InvalidArgumentError):
            read()
        times_s.append(time.perf_counter() - began)
    return min(times_s)


def test_texts_with_colons_are_read_as_fast_as_others() -> None:
    colons = json.dumps({"x": ["2020-01-01T00:00:00"] * 10_000, "u": "http://a:80"}).encode()
    none = colons.replace(b"T00:00:00", b"T00.00.00").replace(b"http://a:80", b"http;//a;80")

    assert json_request.parse(colons) == json.loads(colons)
    assert _seconds(lambda: json_request.parse(colons)) < 5 * _seconds(
        lambda: json_request.parse(none)
    )


@pytest.mark.parametrize("item", ["0", "-1.25e3", '"some text"', "null"])
@pytest.mark.parametrize("end", ["", "]x", ",1e400]", "]]"], ids=repr)
def test_an_error_behind_a_long_list_is_found_about_as_fast_as_others_read_it(
    item: str, end: str
) -> None:
    items = ", ".join([item] * (250_000 // len(item)))

    broken_s = _seconds(lambda: json_request.parse(f"[{items}{end}".encode()))

    assert broken_s < 40 * _seconds(lambda: json.loads(f"[{items}]"))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 250_000,
        b"[0]," * 60_000,
        b'{"":' * 60_000,
        b"[" + b'{"a":1,"a":2},' * 20_000,
        b"[" + b"-Infinity," * 20_000 + b"0]",
        b'["' + b"\\n" * 100_000 + b'\xff"]',
        b"[" + b'"\xff",' * 50_000 + b"0]",
        b"[" + b"NaN," * 60_000 + b"null]",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_takes_long_is_left_to_who_has_time(body: bytes) -> None:
    with pytest.raises(NotQuickError):
        json_request.parse(body, quick=True)

    plain = json.dumps([0.125] * 30_000).encode()

    def ask() -> None:
        with contextlib.suppress(NotQuickError):
            json_request.parse(body, quick=True)

    assert _seconds(ask) < 5 * _seconds(lambda: json.loads(plain))
    assert json_request.parse(b"[Inf]", quick=True) == [math.inf]  # a short one takes no time
