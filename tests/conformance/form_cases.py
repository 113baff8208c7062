"""The two forms of a Predict body, rows and columns: section 3.5, as in `rest_cases`."""

from collections.abc import Iterator

from tests.conformance.rest_cases import RestCase, failed, of, post, value_text


def _type_error(token: str, kind: str, dtype: str) -> str:
    return f"JSON Value: {token} Type: {kind} is not of expected type: {dtype}"


def _size(got: int, level: int, expected: int) -> str:
    return f"Encountered list at unexpected size: {got} at level: {level} expected size: {expected}"


def _level(shown: str, level: int, expected: int) -> str:
    return (
        f"JSON Value: {shown} found at incorrect level: {level} in the JSON DOM."
        f" Expected at level: {expected}"
    )


# Values of no shape, and what is wrong with them: the first elements say how deep and how wide.
RAGGED: tuple[tuple[list[object], str], ...] = (
    ([[1, 2], [1]], _size(1, 1, 2)),
    ([[1], [1], [1, 2]], _size(2, 1, 1)),
    ([[], [1]], _size(1, 1, 0)),
    ([[1], []], _size(0, 1, 1)),
    ([[[1, 2], [3]], [[4], [5, 6]]], _size(1, 2, 2)),
    ([[[1], [2]], [[3]]], _size(1, 1, 2)),
    ([[[]], [[1]]], _size(1, 2, 0)),
    ([[[]], []], _size(0, 1, 1)),
    ([1, [2]], "Encountered list at unexpected level: 1 expected < 1"),
    ([1, []], "Encountered list at unexpected level: 1 expected < 1"),
    ([[1, [2]]], "Encountered list at unexpected level: 2 expected < 2"),
    ([[[1, []]]], "Encountered list at unexpected level: 3 expected < 3"),
    ([[1], 2], _level("2", 2, 2)),
    ([[], 2], _level("2", 2, 2)),
    ([[[1], 2]], _level("2", 3, 3)),
    ([[[1]], 2], _level("2", 2, 3)),
    ([[[1]], [2]], _level("2", 3, 3)),
    ([[1], None], _level("null", 2, 2)),
    ([[1], "a"], _level('"a"', 2, 2)),
    ([[1], {"a": 1}], _level(value_text({"a": 1}).removeprefix("JSON Value: "), 2, 2)),
    ([1, "a"], _type_error('"a"', "String", "float")),
    ([[1, 2], [3, True]], _type_error("true", "True", "float")),
    ([[[1]], [[None]]], _type_error("null", "Null", "float")),
)


def rows() -> Iterator[RestCase]:
    """3.5: the row form."""
    for values in (5, 1.5, "a", None, True, {}, {"x": [1]}, {"b64": "YQ=="}):
        body = {"instances": values}
        text = f"{value_text(body)} Expecting 'instances' to be an list/array"
        yield post("3.5", "toy:predict", body, 400, text)
        yield post("3.5", "m:predict", body, 400, text)
    yield post(
        "3.5",
        "m:predict",
        {"instances": []},
        400,
        value_text({"instances": []}) + " No values in 'instances' array",
    )
    first = "instances is a plain list, but expecting list of objects as multiple input tensors"
    for values in ([1], [None], [[1, 2]], ["a", {"a": 1}], [[]]):
        yield post(
            "3.5",
            "m:predict",
            {"instances": values},
            400,
            f"{first} required as per tensorinfo_map",
        )
    no_object = "Expecting object but got list at item {} of input list"
    no_value = "Expecting value/list but got object at item {} of input list"
    b64 = {"b64": "YQ=="}
    for signature, values, text in (
        # The first element decides what the others must be.
        ("float", [{"x": 1}, 2], no_object.format(1)),
        ("float", [{"x": 1}, {"x": 2}, None], no_object.format(2)),
        ("float", [{"x": 1}, []], no_object.format(1)),
        ("string", [{"x": "a"}, b64], no_object.format(1)),
        ("float", [1, {"x": 2}], no_value.format(1)),
        ("float", [1, 2, {}], no_value.format(2)),
        ("string", [b64, {"x": "a"}], no_value.format(1)),
        ("string", ["a", {"b64": 5}], no_value.format(1)),
        # Sizes, and then shapes, are those of the first one.
        ("float", [[1, 2], [1]], failed(1, "Expecting tensor size: 2 but got: 1")),
        ("float", [[1], [1], [1, 2]], failed(2, "Expecting tensor size: 1 but got: 2")),
        ("float", [[1, 2], 1], failed(1, "Expecting tensor size: 2 but got: 1")),
        ("float", [[], [1]], failed(1, "Expecting tensor size: 0 but got: 1")),
        ("float", [[1], []], failed(1, "Expecting tensor size: 1 but got: 0")),
        ("float", [1, []], failed(1, "Expecting tensor size: 1 but got: 0")),
        ("float", [1, [1]], failed(1, "Expecting shape [] but got: [1]")),
        ("float", [[1], 1], failed(1, "Expecting shape [1] but got: []")),
        ("float", [[1], [[1]]], failed(1, "Expecting shape [1] but got: [1,1]")),
        ("float", [[[1, 2]], [[1], [2]]], failed(1, "Expecting shape [1,2] but got: [2,1]")),
        ("float", [[], [[]]], failed(1, "Expecting shape [0] but got: [1,0]")),
        ("string", [["a", "b"], [b64]], failed(1, "Expecting tensor size: 2 but got: 1")),
    ):
        yield post("3.5", "toy:predict", of(signature, "instances", values), 400, text)
        if text.startswith("Failed"):
            named = [{"x": value} for value in values]
            by_name = text.replace(" of 'instances'", " key: x of 'instances'")
            yield post("3.5", "toy:predict", of(signature, "instances", named), 400, by_name)
    for value, text in RAGGED:
        yield post("3.5", "toy:predict", {"instances": [value]}, 400, failed(0, text))
        named = [{"x": 1}, {"x": value}]
        yield post("3.5", "toy:predict", {"instances": named}, 400, failed(1, text, key="x"))


def named_rows() -> Iterator[RestCase]:
    """3.5: the row form of several inputs, and the answers in rows."""
    good = {"a": [1, 2], "b": 3, "s": "q"}
    kept = {"sum": 6.0, "b2": 6, "s_out": "qq", "s_out_bytes": {"b64": "cQ=="}}
    for row, text in (
        ({**good, "z": 1}, failed(1, "JSON object: does not have named input: z", key="z")),
        ({"A": 1, **good}, failed(1, "JSON object: does not have named input: A", key="A")),
        ({"z": 1}, failed(1, "JSON object: does not have named input: z", key="z")),
        ({**good, "a": [1]}, failed(1, "Expecting tensor size: 2 but got: 1", key="a")),
        ({**good, "a": [[1, 2]]}, failed(1, "Expecting shape [2] but got: [1,2]", key="a")),
        ({**good, "b": [3]}, failed(1, "Expecting shape [] but got: [1]", key="b")),
        ({**good, "b": [3, 4]}, failed(1, "Expecting tensor size: 1 but got: 2", key="b")),
        # What is sent first is looked at first; that a name is missing comes last.
        ({"s": 5, "b": "x"}, failed(1, _type_error("5", "Number", "string"), key="s")),
        ({"b": "x", "s": 5}, failed(1, _type_error('"x"', "String", "int64"), key="b")),
    ):
        yield post("3.5", "m:predict", {"instances": [good, row]}, 400, text)
    for missing in ("a", "b", "s", "ab", "as", "bs", "abs"):
        row = {name: value for name, value in good.items() if name not in missing}
        text = f"JSON object: {value_text(row).removeprefix('JSON Value: ')}"
        for index in (0, 1):
            yield post(
                "3.5",
                "m:predict",
                {"instances": [good] * index + [row]},
                400,
                f"Failed to process element: {index} of 'instances' list. {text}"
                " keys must be equal to: a,b,s",
            )
    text = (
        "Failed to process element: 0 of 'instances' list. JSON object: {} keys must be equal to: x"
    )
    yield post("3.5", "toy:predict", {"instances": [{}]}, 400, text)
    for values, answer in (
        ([good], [kept]),
        ([good, {**good, "b": -3}], [kept, {**kept, "sum": 0.0, "b2": -6}]),
        ([{**good, "a": [1, 2, 3]}], [{**kept, "sum": 9.0}]),  # a declared shape is not looked at
        ([{**good, "a": []}], [{**kept, "sum": 3.0}]),
    ):
        yield post("3.5", "m:predict", {"instances": values}, 200, {"predictions": answer})
    for values, answer in (
        ([[], []], [[], []]),
        ([[[]], [[]]], [[[]], [[]]]),
        ([{"x": []}], [[]]),
        ([[1, 2], [3, 4]], [[1.0, 2.0], [3.0, 4.0]]),
        ([{"x": [[1]]}, {"x": [[2]]}], [[[1.0]], [[2.0]]]),
        ([[[[[1]]]]], [[[[[1.0]]]]]),
    ):
        body = of("float", "instances", values)
        yield post("3.5", "toy:predict", body, 200, {"predictions": answer})
    # Outputs whose 0-th dimensions differ, or that have none.
    for path, signature in (("toy", "mixed"), ("m", "mixb")):
        text = "Tensor name: {} has inconsistent batch size: {} expecting: {}"
        yield post(
            "3.7",
            f"{path}:predict",
            of(signature, "instances", [1, 2]),
            400,
            text.format("z", 4, 2),
        )
    for path, signature in (("toy", "scalar"), ("m", "scalar")):
        text = "Tensor name: y has no shape information "
        yield post("3.7", f"{path}:predict", of(signature, "instances", [1, 2]), 400, text)


def columns() -> Iterator[RestCase]:
    """3.5: the column form, with one input and with several."""
    plain = "inputs is a plain value/list, but expecting an object as multiple input tensors"
    for values in (1, "a", None, True, [], [1], [{"a": 1}], {"b64": "YQ=="}):
        text = f"{plain} required as per tensorinfo_map"
        yield post("3.5", "m:predict", {"inputs": values}, 400, text)
    good = {"a": [[1, 2]], "b": [3], "s": ["q"]}
    kept = {"sum": [6.0], "b2": [6], "s_out": ["qq"], "s_out_bytes": [{"b64": "cQ=="}]}
    for missing in good:
        body = {"inputs": {name: value for name, value in good.items() if name != missing}}
        text = f"Missing named input: {missing} in 'inputs' object."
        yield post("3.5", "m:predict", body, 400, text)
        yield post("3.5", "m:predict", {"inputs": {**body["inputs"], "z": 1}}, 400, text)
    for changed, answer in (
        ({}, kept),
        ({"z": None, "A": [{}]}, kept),
        ({"b": [3, 4]}, {**kept, "sum": [6.0, 7.0], "b2": [6, 8]}),
        ({"b": []}, {**kept, "sum": [], "b2": []}),
        ({"b": 3}, {**kept, "b2": 6}),
        ({"s": "q"}, {**kept, "s_out": "qq", "s_out_bytes": {"b64": "cQ=="}}),
        ({"a": [[1, 2, 3]]}, {**kept, "sum": [9.0]}),
        ({"s": [["q"]]}, {**kept, "s_out": [["qq"]], "s_out_bytes": [[{"b64": "cQ=="}]]}),
    ):
        yield post("3.5", "m:predict", {"inputs": {**good, **changed}}, 200, {"outputs": answer})
    for value, text in (
        (
            {"a": [[1], [2, 3]]},
            "Encountered list at unexpected size: 2 at level: 1 expected size: 1",
        ),
        ({"b": [3, [4]]}, "Encountered list at unexpected level: 1 expected < 1"),
        ({"b": [1.5]}, _type_error("1.5", "Number", "int64")),
        ({"s": ["q", 5]}, _type_error("5", "Number", "string")),
        ({"s": [{"b64": "*"}]}, "Unable to base64 decode"),
    ):
        yield post("3.5", "m:predict", {"inputs": {**good, **value}}, 400, text)
    for value, text in RAGGED:
        yield post("3.5", "toy:predict", {"inputs": value}, 400, text)
        yield post("3.5", "toy:predict", {"inputs": {"x": value}}, 400, text)
    for value in (
        5.0,
        -1.0,
        [],
        [[]],
        [[], []],
        [[[]]],
        [[[], []]],
        [1.0],
        [[1.0, 2.0]],
        [[[[1.0]]]],
    ):
        for values in (value, {"x": value}, {"x": value, "y": [[], 1]}):
            body = of("float", "inputs", values)
            yield post("3.5", "toy:predict", body, 200, {"outputs": value})
    for values in ({}, {"X": 1}, {"x ": 1}, {"b64": 5}, {"b64": "YQ==", "y": 1}):
        text = "Missing named input: x in 'inputs' object."
        yield post("3.5", "toy:predict", {"inputs": values}, 400, text)
    for value, kind in (("null", "Null"), ("true", "True"), ('"a"', "String")):
        for body in (f'{{"inputs": {value}}}', f'{{"inputs": {{"x": {value}}}}}'):
            yield post("3.5", "toy:predict", body, 400, _type_error(value, kind, "float"))


ALL = [case for table in (rows, named_rows, columns) for case in table()]
