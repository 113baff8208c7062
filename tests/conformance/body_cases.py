"""What is JSON, what it means and how an answer is written: sections 3.4 to 3.7 of `rest_cases`."""

from collections.abc import Iterator

from tests.conformance.rest_cases import TOY, RestCase, of, post, value_text

NAN, INF = float("nan"), float("inf")
_DEPTH = 100_000
_AT_0, _AT_1 = (
    f"Failed to process element: {index} of 'instances' list. Error: INVALID_ARGUMENT: "
    for index in (0, 1)
)


def texts() -> Iterator[RestCase]:
    """3.4: what is JSON, and 3.5's checks of the body as a whole."""
    for body, text in (
        (b"", "The document is empty"),
        (b" ", "The document is empty. at offset: 1"),
        (b"x", "Invalid value. at offset: 0"),
        (b"{", "Missing a name for object member. at offset: 1"),
        (b"{1:2}", "Missing a name for object member. at offset: 1"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        (b'{"instances":', "Invalid value. at offset: 13"),
        (b'{"instances":[1,}', "Invalid value. at offset: 16"),
        (b'{"instances":[1,2', "Missing a comma or ']' after an array element. at offset: 17"),
        (
            b'{"instances":[1] "a":1}',
            "Missing a comma or '}' after an object member. at offset: 17",
        ),
        (b'{"a":01}', "Missing a comma or '}' after an object member. at offset: 6"),
        (b'{"a":1.}', "Miss fraction part in number. at offset: 7"),
        (b'{"a":1e}', "Miss exponent in number. at offset: 7"),
        (b'{"a":1e400}', "Number too big to be stored in double. at offset: 5"),
        (b'{"a":nan}', "Invalid value. at offset: 6"),
        (b'{"a":tru}', "Invalid value. at offset: 8"),
        (b'{"a":"abc', "Missing a closing quotation mark in string. at offset: 9"),
        (rb'{"a":"\x"}', "Invalid escape character in string. at offset: 6"),
        (rb'{"a":"\u12"}', r"Incorrect hex digit after \u escape in string. at offset: 6"),
        (rb'{"a":"\ud800"}', "The surrogate pair in string is invalid. at offset: 6"),
        (rb'{"a":"b\ud800c"}', "The surrogate pair in string is invalid. at offset: 7"),
    ):
        for method in ("predict", "classify", "regress"):
            yield post("3.4", f"toy:{method}", body, 400, f"JSON Parse error: {text}")
    # The body is parsed before the model is looked up.
    yield post("3.5", "zz:predict", b"x", 400, "JSON Parse error: Invalid value. at offset: 0")
    for body, answer in (
        (TOY + b" trailing", [2.5]),
        (TOY + b"}", [2.5]),
        (TOY + b"\0", [2.5]),
        (b'{"instances":[1],"instances":[3]}', [2.5]),
        (b'{"other":' + b"[" * _DEPTH + b"]" * _DEPTH + b',"instances":[1]}', [2.5]),
        (b'\n\t {"instances" : [ 1 ] }', [2.5]),
    ):
        yield post("3.4", "toy:predict", body, 200, {"predictions": answer})
    for token, number in (
        ("NaN", NAN),
        ("Inf", INF),
        ("Infinity", INF),
        ("-Inf", -INF),
        ("-Infinity", -INF),
        ("1e39", INF),
        ("1e-400", 0.0),
    ):
        yield post(
            "3.4", "m:predict", of("flt", "inputs", f"[{token}]"), 200, {"outputs": [number]}
        )
    yield post(
        "3.4",
        "m:predict",
        b'{"signature_name":"stri","inputs":["\xff"]}',
        200,
        b'{\n    "outputs": [\n        "\xff"\n    ]\n}',
    )
    for body, shown in (
        (b"[1]", "[1]"),
        (b'"a"', '"a"'),
        (b"5", "5"),
        (b"null", "null"),
        (b"1.50", "1.5"),
        (b"true", "true"),
    ):
        yield post("3.4", "toy:predict", body, 400, f"JSON Value: {shown} Is not object")


def bodies() -> Iterator[RestCase]:
    """3.5: the checks of a Predict body, in their order."""
    for signature in (5, None, ["a"]):
        yield post(
            "3.5",
            "toy:predict",
            {"signature_name": signature},
            400,
            value_text({"signature_name": signature}).replace('[\n        "a"\n    ]', '["a"]')
            + " not formatted correctly. 'signature_name' key must be a string value.",
        )
    both = {"instances": [1], "inputs": [1]}
    for body, text in (
        (
            {"signature_name": "zz", "instances": 1},
            'Serving signature name: "zz" not found in signature def',
        ),
        (
            {"signature_name": "constant", "instances": [1]},
            "Failed to get input map for signature: constant",
        ),
        ({}, "Missing 'inputs' or 'instances' key"),
        (
            both,
            (
                'JSON Value: {\n    "instances": [1],\n    "inputs": [1]\n} Not formatted correctly'
                " expecting only one of 'inputs' or 'instances' keys to exist "
            ),
        ),
        (
            {"instances": 1},
            value_text({"instances": 1}) + " Expecting 'instances' to be an list/array",
        ),
        (
            {"instances": {}},
            value_text({"instances": {}}) + " Expecting 'instances' to be an list/array",
        ),
        (
            {"instances": None},
            value_text({"instances": None}) + " Expecting 'instances' to be an list/array",
        ),
        ({"instances": []}, value_text({"instances": []}) + " No values in 'instances' array"),
        ({"instances": [{"x": 1}, [1]]}, "Expecting object but got list at item 1 of input list"),
        (
            {"instances": [1, {"x": 1}]},
            "Expecting value/list but got object at item 1 of input list",
        ),
        (
            {"instances": [{"x": 1, "q": 1}]},
            (
                "Failed to process element: 0 key: q of 'instances' list. Error: INVALID_ARGUMENT:"
                " JSON object: does not have named input: q"
            ),
        ),
        (
            {"instances": [[1, 2], [1]]},
            (f"{_AT_1}Expecting tensor size: 2 but got: 1"),
        ),
        (
            {"instances": [[1, 2], [[1, 2]]]},
            (f"{_AT_1}Expecting shape [2] but got: [1,2]"),
        ),
        (
            {"instances": [1, [1]]},
            (f"{_AT_1}Expecting shape [] but got: [1]"),
        ),
        (
            {"instances": ["a"]},
            (f'{_AT_0}JSON Value: "a" Type: String is not of expected type: float'),
        ),
        (
            {"instances": [None]},
            (f"{_AT_0}JSON Value: null Type: Null is not of expected type: float"),
        ),
        ({"inputs": {"y": [1]}}, "Missing named input: x in 'inputs' object."),
        ({"inputs": {}}, "Missing named input: x in 'inputs' object."),
        (
            {"inputs": [[1, 2], [1]]},
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
        ),
        ({"inputs": [1, [2]]}, "Encountered list at unexpected level: 1 expected < 1"),
        (
            {"inputs": [[1], 2]},
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        (
            {"signature_name": "mixed", "instances": [1, 2]},
            "Tensor name: z has inconsistent batch size: 4 expecting: 2",
        ),
        (
            {"signature_name": "scalar", "instances": [1]},
            "Tensor name: y has no shape information ",
        ),
        (
            {"signature_name": "matrix", "instances": [[1, 2]]},
            "Matrix size-incompatible: In[0]: [1,2], In[1]: [3,2]...",
        ),
        ({"signature_name": "matrix", "instances": [1]}, "In[0] ndims must be >= 2..."),
        ({"signature_name": "checked", "inputs": [10]}, "assertion failed: [too big]..."),
    ):
        yield post("3.5", "toy:predict", body, 400, text)
    yield post(
        "3.5",
        "m:predict",
        {"instances": [1]},
        400,
        "instances is a plain list, but expecting list of objects as multiple input tensors"
        " required as per tensorinfo_map",
    )
    yield post(
        "3.5",
        "m:predict",
        {"inputs": [1]},
        400,
        "inputs is a plain value/list, but expecting an object as multiple input tensors"
        " required as per tensorinfo_map",
    )
    yield post(
        "3.5",
        "m:predict",
        {"instances": [{"a": [1, 2]}]},
        400,
        "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"a\": [1, 2]"
        "\n} keys must be equal to: a,b,s",
    )
    for body, answer in (
        ({"instances": [1, 2]}, {"predictions": [2.5, 3.0]}),
        ({"signature_name": "", "inputs": [1]}, {"outputs": [2.5]}),
        ({"inputs": {"x": [1], "ignored": 2}}, {"outputs": [2.5]}),
        ({"instances": [{"x": 1}]}, {"predictions": [2.5]}),
        ({"inputs": []}, {"outputs": []}),
        ({"inputs": 1}, {"outputs": 2.5}),
        ({"instances": [[]]}, {"predictions": [[]]}),
        ({"instances": [[[1], [2]]]}, {"predictions": [[[2.5], [3.0]]]}),
        ({"signature_name": "scalar", "inputs": [1, 2]}, {"outputs": 3.0}),
        ({"signature_name": "scalar_bytes", "inputs": ["a", "b"]}, {"outputs": {"b64": "YWI="}}),
        ({"signature_name": "mixed", "inputs": [1]}, {"outputs": {"y": [1.0], "z": [1.0, 1.0]}}),
        ({"signature_name": "checked", "instances": [9]}, {"predictions": [9.0]}),
    ):
        yield post("3.5", "toy:predict", body, 200, answer)
    row = {"sum": 6.0, "b2": 6, "s_out": "éé", "s_out_bytes": {"b64": "w6k="}}
    yield post(
        "3.5",
        "m:predict",
        {"instances": [{"a": [1, 2], "b": 3, "s": "é"}]},
        200,
        {"predictions": [row]},
    )
    yield post(
        "3.5",
        "m:predict",
        {"inputs": {"a": [[1, 2]], "b": [3], "s": [{"b64": "w6k="}], "q": 0}},
        200,
        {"outputs": {name: [value] for name, value in row.items()}},
    )


def dtypes() -> Iterator[RestCase]:
    """3.6: JSON's values in each type, both forms."""
    for signature, sent, answered in (
        ("float", "[1, 18446744073709551616, -0.0]", [1.0, 1.84467441e19, -0.0]),
        ("double", "[0.1, 18446744073709551616]", [0.1, 18446744073709551616.0]),
        ("int32", "[-2147483648, 2147483647]", [-2147483648, 2147483647]),
        ("int16", "[32768]", [-32768]),
        ("int8", "[255]", [-1]),
        ("uint8", "[256, -1]", [0, 255]),
        (
            "int64",
            "[9007199254740993, -9223372036854775808]",
            [9007199254740993, -9223372036854775808],
        ),
        ("uint32", "[4294967295]", [4294967295]),
        ("uint64", "[18446744073709551615]", [18446744073709551615]),
        ("bool", "[true, false]", [True, False]),
        ("string", '["a\\u0000\\"\\\\\\n/é", {"b64": "YQ"}, ""]', ['a\0"\\\n/é', "a", ""]),
        (
            "string",
            '[{"b64": "a GVs\\nbG8="}, {"b64": "/+8="}]'.replace("/+8=", "Pz8="),
            ["hello", "??"],
        ),
    ):
        yield post(
            "3.6", "toy:predict", of(signature, "instances", sent), 200, {"predictions": answered}
        )
        yield post("3.6", "toy:predict", of(signature, "inputs", sent), 200, {"outputs": answered})
    for signature, token, kind in (
        ("int32", "1.0", "Number"),
        ("int32", "1000.0", "Number"),
        ("int32", "2147483648", "Number"),
        ("int32", "true", "True"),
        ("int16", "2147483648", "Number"),
        ("uint8", "-2147483649", "Number"),
        ("int64", "9223372036854775808", "Number"),
        ("int64", "1.0", "Number"),
        ("uint32", "4294967296", "Number"),
        ("uint32", "-1", "Number"),
        ("uint64", "1.5", "Number"),
        ("uint64", "-1", "Number"),
        ("bool", "1", "Number"),
        ("bool", '"true"', "String"),
        ("float", "false", "False"),
        ("string", "5", "Number"),
        ("string", "null", "Null"),
    ):
        text = f"JSON Value: {token} Type: {kind} is not of expected type: {signature}"
        yield post("3.6", "toy:predict", of(signature, "inputs", f"[{token}]"), 400, text)
        yield post(
            "3.6",
            "toy:predict",
            of(signature, "instances", f"[{token}]"),
            400,
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: " + text,
        )
    yield post(
        "3.6",
        "toy:predict",
        of("int32", "inputs", "[1e3]"),
        400,
        "JSON Value: 1000.0 Type: Number is not of expected type: int32",
    )
    for signature in ("uint16", "half", "complex64", "complex128"):
        text = f"Conversion of JSON Value: 1 to type: {signature}"
        yield post(
            "3.6", "toy:predict", of(signature, "inputs", [1]), 501, text, reason="Not Implemented"
        )
        yield post(
            "3.6",
            "toy:predict",
            of(signature, "instances", [1]),
            400,
            f"Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: {text}",
        )
    for code in ("a_-_", "****"):
        yield post(
            "3.6",
            "toy:predict",
            of("string", "inputs", [{"b64": code}]),
            400,
            "Unable to base64 decode",
        )
    wrong = {"b64": "aGk=", "x": 1}
    yield post(
        "3.6",
        "m:predict",
        {"instances": [{"a": [1, 2], "b": 3, "s": wrong}]},
        400,
        "Failed to process element: 0 key: s of 'instances' list. Error: INVALID_ARGUMENT: "
        + value_text(wrong)
        + " not formatted correctly for base64 data",
    )
    yield post(
        "3.6",
        "m:predict",
        of("stri", "instances", [{"b64": 5}]),
        400,
        "Failed to process element: 0 key: b64 of 'instances' list. Error:"
        " INVALID_ARGUMENT: JSON object: does not have named input: b64",
    )


def answers() -> Iterator[RestCase]:
    """3.7: values and layout, byte by byte."""
    yield post(
        "3.7",
        "toy:predict",
        {"signature_name": "to_half", "inputs": [1]},
        400,
        "Failed to write JSON value for tensor type: half",
    )
    doubles = [0.1, 1234567.8910000001, 1e16, 1e300, 0.30000000000000004, 123456789.0, -0.0, 3.0]
    yield post("3.7", "m:predict", of("dbl", "inputs", doubles), 200, {"outputs": doubles})
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
            "m",
            {"signature_name": "stri", "instances": ['"\\\b\f\n\r\t\x01/é']},
            '{\n    "predictions": ["\\"\\\\\\b\\f\\n\\r\\t\\u0001/é"\n    ]\n}'.encode(),
        ),
    ):
        yield post("3.7", f"{path}:predict", body, 200, answer)


ALL = [case for table in (texts, bodies, dtypes, answers) for case in table()]
