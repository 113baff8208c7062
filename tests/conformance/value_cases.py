"""Types and values of Predict over REST, in and out: sections 3.6 and 3.7, as in `rest_cases`."""

from collections.abc import Iterator
from typing import Any

from tests.conformance.rest_cases import RestCase, failed, of, post, value_text

NAN, INF = float("nan"), float("inf")
_FLOATS, _BYTES = ("float", "double"), ("int32", "int16", "int8", "uint8")
_INTEGERS = (*_BYTES, "int64", "uint32", "uint64")
# One token of each JSON type, and the types that take it.
_TOKENS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("null", "Null", ()),
    ("true", "True", ("bool",)),
    ("false", "False", ("bool",)),
    ('"1"', "String", ("string",)),
    ("1", "Number", (*_FLOATS, *_INTEGERS)),
    ("1.5", "Number", _FLOATS),
)
# How a wrong token is printed, where that is not as it was sent. Not finite: nothing is.
_SHOWN = {
    "1e3": "1000.0",
    "1E0": "1.0",
    "NaN": "",
    "-Infinity": "",
    "-9223372036854775809": "-9223372036854776000.0",
    "18446744073709551616": "18446744073709552000.0",
}


def _taken(signature: str, tokens: str, answer: Any) -> Iterator[RestCase]:
    """A list that both forms take, as it is and by its name."""
    named = ", ".join(f'{{"x": {token}}}' for token in tokens.split(", "))
    for key, values in (
        ("instances", f"[{tokens}]"),
        ("instances", f"[{named}]"),
        ("inputs", f"[{tokens}]"),
        ("inputs", f'{{"x": [{tokens}]}}'),
    ):
        answered = {"predictions" if key == "instances" else "outputs": answer}
        yield post("3.6", "toy:predict", of(signature, key, values), 200, answered)


def _refused(signature: str, token: str, text: str) -> Iterator[RestCase]:
    """A value that neither form takes, alone and in a list."""
    for key, values, error in (
        ("inputs", token, text),
        ("inputs", f"[{token}]", text),
        ("inputs", f'{{"x": [[{token}]]}}', text),
        ("instances", f"[[{token}]]", failed(0, text)),
        ("instances", f'[{{"x": {token}}}]', failed(0, text, key="x")),
    ):
        if not token.startswith("{") or values != token:  # an object alone names the inputs
            yield post("3.6", "toy:predict", of(signature, key, values), 400, error)


def _wrong(token: str, kind: str, dtype: str) -> str:
    shown = _SHOWN.get(token, token)
    return f"JSON Value: {shown} Type: {kind} is not of expected type: {dtype}"


def taken() -> Iterator[RestCase]:
    """3.6: what each type takes, to its limits and, where nothing checks them, beyond."""
    wrapped = "-2147483648, 2147483647, -0"
    for signature, tokens, answer in (
        ("float", "1, -0, -0.0, 0.1, 1e3", [1.0, 0.0, -0.0, 0.1, 1000.0]),
        ("float", "16777217, 18446744073709551616", [16777216.0, 1.84467441e19]),
        ("float", "1e39, -1e39, 1e-46, NaN", [INF, -INF, 0.0, NAN]),
        ("double", "1, -0, -0.0, 0.1, 1e3", [1.0, 0.0, -0.0, 0.1, 1000.0]),
        ("double", "9007199254740993, 18446744073709551616", [2.0**53, 2.0**64]),
        ("double", "1e39, -1e308, Infinity, NaN", [1e39, -1e308, INF, NAN]),
        ("int32", wrapped, [-(2**31), 2**31 - 1, 0]),
        ("int16", wrapped, [0, -1, 0]),
        ("int16", "-32768, 32767, 32768, -32769", [-32768, 32767, -32768, 32767]),
        ("int8", wrapped, [0, -1, 0]),
        ("int8", "-128, 127, 128, -129, 255", [-128, 127, -128, 127, -1]),
        ("uint8", wrapped, [0, 255, 0]),
        ("uint8", "0, 255, 256, -1", [0, 255, 0, 255]),
        ("int64", "-9223372036854775808, 9223372036854775807", [-(2**63), 2**63 - 1]),
        ("int64", "9007199254740993, -9007199254740993", [2**53 + 1, -(2**53) - 1]),
        ("uint32", "0, 4294967295, 2147483648", [0, 2**32 - 1, 2**31]),
        ("uint64", "0, 18446744073709551615, 9007199254740993", [0, 2**64 - 1, 2**53 + 1]),
        ("bool", "true, false", [True, False]),
        (
            "string",
            '"a\\u0000\\"\\\\\\n/é", "", "1", "\\ud83d\\ude00"',
            ['a\0"\\\n/é', "", "1", "😀"],
        ),
        ("string", '"a", {"b64": "YQ=="}', ["a", "a"]),
    ):
        yield from _taken(signature, tokens, answer)
        single = tokens.split(", ")[-1]
        yield post(
            "3.6", "toy:predict", of(signature, "inputs", single), 200, {"outputs": answer[-1]}
        )


def refused() -> Iterator[RestCase]:
    """3.6: each type and what it does not take."""
    b64 = {"b64": "YQ=="}
    for dtype in (*_FLOATS, *_INTEGERS, "bool", "string"):
        for token, kind, takers in _TOKENS:
            if dtype not in takers:
                yield from _refused(dtype, token, _wrong(token, kind, dtype))
        if dtype != "string":
            text = f"{value_text(b64)} Type: Object is not of expected type: {dtype}"
            yield from _refused(dtype, '{"b64": "YQ=="}', text)
            text = f"{value_text({'q': 1})} Type: Object is not of expected type: {dtype}"
            yield from _refused(dtype, '{"q": 1}', text)
    for dtypes, tokens in (
        (_BYTES, ("2147483648", "-2147483649")),
        (("int64",), ("9223372036854775808", "-9223372036854775809")),
        (("uint32",), ("4294967296", "-1", "-2147483648")),
        (("uint64",), ("18446744073709551616", "-1")),
        (_INTEGERS, ("1.0", "-0.0", "1e3", "1E0", "NaN")),
        (("bool",), ("0", "1.0")),
        (("string",), ("NaN", "-Infinity")),
    ):
        for dtype in dtypes:
            for token in tokens:
                yield from _refused(dtype, token, _wrong(token, "Number", dtype))
    # The value that is refused need not be the first one.
    text = _wrong("1.0", "Number", "int32")
    for key, values, error in (
        ("inputs", "[[1, 2], [3, 1.0]]", text),
        ("instances", "[1, 1.0]", failed(1, text)),
        ("instances", "[[1, 2], [3, 4], [5, 1.0]]", failed(2, text)),
        ("instances", '[{"x": 1}, {"x": 1.0}]', failed(1, text, key="x")),
    ):
        yield post("3.6", "toy:predict", of("int32", key, values), 400, error)


def without_form() -> Iterator[RestCase]:
    """3.6: types that JSON has no form for, as inputs and (3.7) as outputs."""
    for path, signature in (
        ("toy", "uint16"),
        ("toy", "half"),
        ("toy", "complex64"),
        ("toy", "complex128"),
        ("kinds", "bfloat16"),
    ):
        for token in ("1", '"a"', "null"):
            text = f"Conversion of JSON Value: {token} to type: {signature}"
            rows = {"code": "UNIMPLEMENTED"}
            for key, values, status, error in (
                ("inputs", token, 501, text),
                ("inputs", f'{{"x": [{token}]}}', 501, text),
                ("instances", f"[{token}]", 400, failed(0, text, **rows)),
                ("instances", f'[{{"x": {token}}}]', 400, failed(0, text, key="x", **rows)),
            ):
                yield post("3.6", f"{path}:predict", of(signature, key, values), status, error)
        text = f"{value_text({'q': 1})} Type: Object is not of expected type: {signature}"
        yield post("3.6", f"{path}:predict", of(signature, "inputs", [{"q": 1}]), 400, text)
        # Where there is no value there is none to read or write.
        yield post("3.6", f"{path}:predict", of(signature, "inputs", [[]]), 200, {"outputs": [[]]})
    # Of several inputs one is enough.
    text = "Conversion of JSON Value: 2 to type: half"
    yield post("3.6", "edges:predict", of("with_half", "inputs", {"x": [1], "h": [2]}), 501, text)
    yield post(
        "3.6",
        "edges:predict",
        of("with_half", "instances", [{"x": 1, "h": 2}]),
        400,
        failed(0, text, key="h", code="UNIMPLEMENTED"),
    )
    for path, signature, dtype in (
        ("toy", "to_half", "half"),
        ("edges", "to_uint16", "uint16"),
        ("edges", "to_bfloat16", "bfloat16"),
        ("edges", "to_complex64", "complex64"),
        ("edges", "to_complex128", "complex128"),
    ):
        for key in ("instances", "inputs"):
            yield post("3.7", f"{path}:predict", of(signature, key, [1]), 400, _unwritten(dtype))


def _unwritten(dtype: str) -> str:
    return f"Failed to write JSON value for tensor type: {dtype}"


def base64() -> Iterator[RestCase]:
    """3.6: bytes as base64, alone, in lists and by name."""
    for code, text in (
        ("YQ==", "a"),
        ("YQ", "a"),
        ("YWI", "ab"),
        (" Y\\tQ\\n=\\r= ", "a"),
        ("Pz8/Pj4+", "???>>>"),
        ("", ""),
    ):
        token = f'{{"b64": "{code}"}}'
        yield from _taken("string", token, [text])
        for key, values, answer in (
            ("inputs", token, {"outputs": text}),
            ("inputs", f"[[{token}, {token}]]", {"outputs": [[text, text]]}),
            ("inputs", f'{{"x": {token}}}', {"outputs": text}),
            ("instances", f'[["b", {token}]]', {"predictions": [["b", text]]}),
        ):
            yield post("3.6", "toy:predict", of("string", key, values), 200, answer)
    for code in ("a_==", "a-==", "****", "Y", "YQ=", "YQ===", "YWJj=", "YQ==YQ==", "é", "="):
        token, error = f'{{"b64": "{code}"}}', "Unable to base64 decode"
        yield from _refused("string", token, error)
        yield post("3.6", "toy:predict", of("string", "inputs", token), 400, error)
        rows = f'["a", {token}]'
        yield post("3.6", "toy:predict", of("string", "instances", rows), 400, failed(1, error))
    for wrong in (
        {"b64": "YQ==", "x": 1},
        {"x": "YQ=="},
        {},
        {"b64": 5},
        {"b64": None},
        {"B64": ""},
    ):
        text = f"{value_text(wrong)} not formatted correctly for base64 data"
        for key, values, error in (
            ("inputs", [wrong], text),
            ("inputs", {"x": wrong}, text),
            ("instances", [[wrong]], failed(0, text)),
            ("instances", [{"x": "a"}, {"x": wrong}], failed(1, text, key="x")),
        ):
            yield post("3.6", "toy:predict", of("string", key, values), 400, error)
    # Without its one string it is an object that names inputs.
    error = failed(0, "JSON object: does not have named input: b64", key="b64")
    for named in ({"b64": 5}, {"b64": None}, {"b64": "YQ==", "x": "a"}):
        yield post("3.6", "toy:predict", of("string", "instances", [named]), 400, error)
    error = "Missing named input: x in 'inputs' object."
    yield post("3.6", "toy:predict", of("string", "inputs", {"b64": 5}), 400, error)


def answers() -> Iterator[RestCase]:
    """3.7: values and layout, byte by byte."""
    singles = "1, 0.1, 1000, -0.0, 1234567, 12345678, 16777217, 100000, 1e6, 1e-7, 3.4e38"
    read = [1.0, 0.1, 1000.0, -0.0, 1234567.0, 12345678.0, 16777216.0, 100000.0, 1e6, 1e-7, 3.4e38]
    singles += ", 1435774380, 0.3333333333, 123456.7, 18446744073709551616"
    read += [1.43577434e9, 0.333333343, 123456.703, 1.84467441e19]
    doubles = [0.1, 1234567.8910000001, 1e16, 1e300, 0.30000000000000004, 123456789.0, -0.0, 3.0]
    for key, answer in (("instances", "predictions"), ("inputs", "outputs")):
        body = of("flt", key, f"[{singles}]")
        yield post("3.7", "m:predict", body, 200, {answer: read})
        # More than a few are written in another way, which must not be seen.
        body = of("flt", key, f"[{', '.join([singles] * 4)}]")
        yield post("3.7", "m:predict", body, 200, {answer: read * 4})
        yield post("3.7", "m:predict", of("dbl", key, doubles), 200, {answer: doubles})
    invalid = {"a": [1, 2], "b": 3, "s": {"b64": "/w=="}}
    for path, body, answer in (
        ("toy", {"instances": [1, 2, 5]}, b'{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}'),
        (
            "m",
            {"signature_name": "mat", "instances": [[1, 2, 3]]},
            b'{\n    "predictions": [[6.0, 6.0]\n    ]\n}',
        ),
        ("toy", {"instances": [[]]}, b'{\n    "predictions": [[]\n    ]\n}'),
        ("toy", {"inputs": []}, b'{\n    "outputs": []\n}'),
        ("toy", {"inputs": [1, 2]}, b'{\n    "outputs": [\n        2.5,\n        3.0\n    ]\n}'),
        ("toy", {"inputs": 2}, b'{\n    "outputs": 3.0\n}'),
        (
            "toy",
            {"signature_name": "int64", "inputs": [2**63 - 1]},
            b'{"outputs":[%d]}' % (2**63 - 1),
        ),
        (
            "toy",
            {"signature_name": "bool", "instances": [True, False]},
            b'{"predictions":[true,false]}',
        ),
        (
            "m",
            {"signature_name": "flt", "inputs": [NAN, INF, -INF, 1]},
            b'{"outputs":[NaN,Infinity,-Infinity,1.0]}',
        ),
        (
            "m",
            {"signature_name": "dbl", "instances": [NAN, INF, -INF, 1]},
            b'{"predictions":[NaN,Infinity,-Infinity,1.0]}',
        ),
        (
            "m",
            {"signature_name": "flt", "instances": [0.1, 1000, 16777217, 1 / 3, -0.0]},
            b'{"predictions":[0.1,1000.0,16777216.0,0.333333343,-0.0]}',
        ),
        (
            "m",
            {"signature_name": "dbl", "inputs": [0.1, 123456789, 0.30000000000000004, -0.0]},
            b'{"outputs":[0.1,123456789.0,0.30000000000000004,-0.0]}',
        ),
        (
            "m",
            {"signature_name": "stri", "instances": ['"\\\b\f\n\r\t\x01/é']},
            '{\n    "predictions": ["\\"\\\\\\b\\f\\n\\r\\t\\u0001/é"\n    ]\n}'.encode(),
        ),
        ("m", {"signature_name": "stri", "inputs": {"b64": "/w=="}}, b'{"outputs":"\xff"}'),
        (
            "m",
            {"signature_name": "stri", "instances": [{"b64": "/w=="}]},
            b'{"predictions":["\xff"]}',
        ),
    ):
        yield post("3.7", f"{path}:predict", body, 200, answer)
    row = {"sum": 6.0, "b2": 6, "s_out": "\udcff\udcff", "s_out_bytes": {"b64": "/w=="}}
    yield post("3.7", "m:predict", {"instances": [invalid] * 2}, 200, {"predictions": [row] * 2})
    columns = {name: [value] * 2 for name, value in invalid.items()}
    answer = {"outputs": {name: [value] * 2 for name, value in row.items()}}
    yield post("3.7", "m:predict", {"inputs": columns}, 200, answer)
    # What ends in _bytes is the name of the output, and it holds strings.
    b64 = {"b64": "/w=="}
    for signature, values, answer in (
        ("bytes_out", [b64, "a"], [b64, {"b64": "YQ=="}]),
        ("bytes_out", [[b64, ""]], [[b64, {"b64": ""}]]),
        ("bytes_in", ["a"], ["a"]),
        ("bytes_inside", ["a"], ["a"]),
        ("bytes_of_numbers", [1], [1.0]),
    ):
        for key, answered in (("instances", "predictions"), ("inputs", "outputs")):
            body = of(signature, key, values)
            yield post("3.7", "edges:predict", body, 200, {answered: answer})


ALL = [case for table in (taken, refused, without_form, base64, answers) for case in table()]
