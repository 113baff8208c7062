"""What is JSON and what a Predict body may be: sections 3.4 and 3.5, as in `rest_cases`."""

from collections.abc import Iterator

from tests.conformance.rest_cases import TOY, RestCase, failed, of, post, value_text

NAN, INF = float("nan"), float("inf")
_DEPTH = 100_000


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
        (rb'{"a":"\ud800\u0041"}', "The surrogate pair in string is invalid. at offset: 6"),
        (b'{"a":"x\ny"}', "Invalid escape character in string. at offset: 7"),
        (b'{"a":"x\0y"}', "Missing a closing quotation mark in string. at offset: 7"),
        (b'{"a\xc3\xa9":}', "Invalid value. at offset: 7"),  # an offset counts bytes
        (b'{"a":-}', "Invalid value. at offset: 6"),
        (b'{"a":Infinite}', "Invalid value. at offset: 12"),
        (b'{"a":-1e400}', "Number too big to be stored in double. at offset: 5"),
        (b'{"a":1', "Missing a comma or '}' after an object member. at offset: 6"),
        (b'{"a":1,}', "Missing a name for object member. at offset: 7"),
        (b'{"a"}', "Missing a colon after a name of object member. at offset: 4"),
        (b"[1 2]", "Missing a comma or ']' after an array element. at offset: 3"),
        (b"[", "Invalid value. at offset: 1"),
        (b"\n\t x", "Invalid value. at offset: 3"),
    ):
        for method in ("predict", "classify", "regress"):
            yield post("3.4", f"toy:{method}", body, 400, f"JSON Parse error: {text}")
    # The body is parsed before the model is looked up.
    yield post("3.5", "zz:predict", b"x", 400, "JSON Parse error: Invalid value. at offset: 0")
    for body, answer in (
        (TOY + b" trailing", [2.5]),
        (TOY + b"}", [2.5]),
        (TOY + b"\0", [2.5]),
        (TOY + b"[NaN, x", [2.5]),
        (b'{"instances":[1]}{"instances":[3]}', [2.5]),
        (b'{"instances":[1],"instances":[3]}', [2.5]),
        (b'{"instances":[1],"q":{"a":1,"a":nan}}'.replace(b"nan", b"NaN"), [2.5]),
        (b'{"signature_name":"","signature_name":5,"instances":[1]}', [2.5]),
        (b'{"instances":[{"x":1}],"inputs2":0}', [2.5]),
        (b'{"other":' + b'{"a":' * _DEPTH + b"1" + b"}" * _DEPTH + b',"instances":[1]}', [2.5]),
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
        ("-1e39", -INF),
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
        (b"[]", "[]"),
        (b'[1, [2.0, "x"], null, {"a": {}}]', '[1, [2.0, "x"], null, {\n        "a": {}\n    }]'),
        (b"1e3 and more", "1000.0"),
        (b"NaN", ""),
        (b"[1, NaN, 2]", "[1, "),
        # Of a long one what comes before the 256th byte, to the end of its token.
        (b"[" + b"1," * 999 + b"1]", "[1" + ", 1" * 85),
        (b'["' + b"x" * 999 + b'", 1]', '["' + "x" * 999 + '"'),
    ):
        for method in ("predict", "classify", "regress"):
            yield post("3.4", f"toy:{method}", body, 400, f"JSON Value: {shown} Is not object")
    long = "x" * 300
    for body, shown in (
        ({long: 1, "instances": 1}, f'{{\n    "{long}"'),
        ({"instances": {"a": long, "b": 1}}, f'{{\n    "instances": {{\n        "a": "{long}"'),
        (
            {"instances": {"a": [{"b": [1, 2]}]}},
            (
                '{\n    "instances": {\n        "a": [{\n                "b": [1, 2]'
                "\n            }]\n    }\n}"
            ),
        ),
    ):
        text = f"JSON Value: {shown} Expecting 'instances' to be an list/array"
        yield post("3.4", "toy:predict", body, 400, text)


def bodies() -> Iterator[RestCase]:
    """3.5: the checks of a Predict body, in their order."""
    for signature in (5, None, ["a"]):
        yield post(
            "3.5",
            "toy:predict",
            {"signature_name": signature},
            400,
            value_text({"signature_name": signature})
            + " not formatted correctly. 'signature_name' key must be a string value.",
        )
    # In their order: the name's type, the model, the signature, its inputs, the keys.
    both = {"instances": [1], "inputs": [1]}
    number = value_text({"signature_name": 5})
    number += " not formatted correctly. 'signature_name' key must be a string value."
    unknown = 'Serving signature name: "zz" not found in signature def'
    for target, body, status, text in (
        ("zz", {"signature_name": 5}, 400, number),
        ("numbered/versions/9", {"signature_name": 5}, 400, number),
        ("zz", both, 404, "Servable not found for request: Latest(zz)"),
        ("zz", {}, 404, "Servable not found for request: Latest(zz)"),
        ("numbered/labels/x", {}, 400, "Unrecognized servable version label: x"),
        ("toy", {"signature_name": "zz"}, 400, unknown),
        ("toy", {"signature_name": "zz", **both}, 400, unknown),
        ("toy", {"signature_name": "Float"}, 400, unknown.replace("zz", "Float")),
        (
            "half_plus_two",
            {"signature_name": "y", "instances": 1},
            400,
            unknown.replace("zz", "y"),
        ),
        (
            "toy",
            {"signature_name": "constant"},
            400,
            "Failed to get input map for signature: constant",
        ),
        ("edges", both, 400, "Failed to get input map for signature: DEFAULT"),
        (
            "edges",
            {"signature_name": "", "inputs": {}},
            400,
            "Failed to get input map for signature: DEFAULT",
        ),
        (
            "edges",
            {"signature_name": "serving_default", "inputs": {}},
            400,
            "Failed to get input map for signature: serving_default",
        ),
    ):
        yield post("3.5", f"{target}:predict", body, status, text)
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
            failed(1, "Expecting tensor size: 2 but got: 1"),
        ),
        (
            {"instances": [[1, 2], [[1, 2]]]},
            failed(1, "Expecting shape [2] but got: [1,2]"),
        ),
        (
            {"instances": [1, [1]]},
            failed(1, "Expecting shape [] but got: [1]"),
        ),
        (
            {"instances": ["a"]},
            failed(0, 'JSON Value: "a" Type: String is not of expected type: float'),
        ),
        (
            {"instances": [None]},
            failed(0, "JSON Value: null Type: Null is not of expected type: float"),
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


ALL = [case for table in (texts, bodies) for case in table()]
