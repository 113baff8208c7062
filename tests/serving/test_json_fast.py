"""What is read fast must be read as the exact reader reads it, and all else not at all."""

import json
import math
import random
from typing import Any

import numpy as np
import pytest

from mlops_mini.serving import json_request
from mlops_mini.serving.json_fast import FastReader, InputLayout

FLOAT, TEXT = np.dtype(np.float32), np.dtype(object)
IMAGE = InputLayout.of([("x", "float", FLOAT, (-1, 2, 1))])
VECTOR = InputLayout.of([("x", "float", FLOAT, (-1,))])
ROW = InputLayout.of([("n", "float", FLOAT, (-1,)), ("t", "string", TEXT, (-1,))])
ROW_TYPES = {"": {"n": "float", "t": "string"}}


def read_twice(reader: FastReader, body: bytes, layouts: Any) -> Any:
    """Read a body the exact way first, as a server does, and then the fast way."""
    _, exact = json_request.read_predict(body, {"": {"x": "float"}, "other": {"x": "float"}})
    assert isinstance(exact, json_request.DecodedRequest)
    reader.learn(body, exact.inputs["x"].shape)
    return exact.inputs["x"], reader.read(body, layouts)


@pytest.mark.parametrize(
    ("body", "layout"),
    [
        ('{"instances":[1,2.5,-3e2]}', VECTOR),
        ('{"instances":[-0, -0.0, 1E3, 18446744073709551615, 9007199254740993]}', VECTOR),
        ('{"inputs": [ 1.0 ]}', VECTOR),
        ('{"instances":[[[1],[2]],[[3.5],[1e39]]]}', IMAGE),
        ('{"signature_name":"other","instances":[1, 2]}', VECTOR),
        ('{"instances":[1, 2],"signature_name":"other"}', VECTOR),
    ],
)
def test_numbers_are_read_as_the_exact_reader_reads_them(body: str, layout: Any) -> None:
    exact, fast = read_twice(FastReader(), body.encode(), {"": layout, "other": layout})

    with np.errstate(over="ignore"):
        block = fast.blocks[0].astype(np.float32)
    np.testing.assert_array_equal(block, exact)
    assert (np.signbit(block) == np.signbit(exact)).all()
    assert fast.is_rows == ("instances" in body)
    assert fast.signature_name == ("other" if "other" in body else "")
    assert fast.n_rows == len(exact)


@pytest.mark.parametrize(
    "body",
    [
        '{"instances":[[1,2],[3]]}',
        '{"instances":[[1],[]]}',
        '{"instances":[[1,2],[3,]]}',
        '{"instances":[[1,2],[3,4]]} and more',
        '{"instances":[[1,2],[3,NaN]]}',
        '{"instances":[[1,2],[3,true]]}',
        '{"instances":[[1,2],[3,01]]}',
        '{"instances":[[1,2],[3,1e400]]}',
        '{"instances":[[1,2],[3,1 2]]}',
        '{"instances":[[1,2],[3,--4]]}',
        '{"instances":[[1,2],[3,"4"]]}',
        '{"instances":[[1,2],[3,.4]]}',
        '{"inst1ances":[[1,2],[3,4]]}',
        '{"instances":[[1,2],[3,4]],"instances":[[1,2],[3,4]]}',
        '{"instances":[[1,2],[3,4]],"inputs":[[1,2],[3,4]]}',
        "\ufeff" + '{"instances":[[1,2],[3,4]]}',
        '{"instances":[[1,2],[3,4]],"other":[[1,2],[3,4]]}',
        '{"inst\\u0061nces":[[1,2],[3,4]]}',
        '{"signature_name":"a","instances":[[1,2],[3,4]],"signature_name":"b"}',
        "",
    ],
)
def test_what_only_looks_like_a_plain_body_is_left_to_the_exact_reader(body: str) -> None:
    layout = InputLayout.of([("x", "float", FLOAT, (-1, 2))])
    reader = FastReader()
    plain = b'{"instances":[[1,2],[3,4]]}'
    reader.learn(plain, (2, 2))
    reader.learn(body.encode(), (2, 2))  # nor does it become known

    assert reader.read(body.encode(), {"": layout}) is None
    assert reader.read(plain, {"": layout}) is not None  # the parser survives


def test_a_body_of_another_shape_than_declared_is_left_to_the_exact_reader() -> None:
    reader = FastReader()
    _, fast = read_twice(reader, b'{"instances":[[1,2],[3,4]]}', {"": VECTOR})

    assert fast is None


def test_few_skeletons_are_kept() -> None:
    reader = FastReader()
    for n in range(1, 2000):
        reader.learn(b'{"instances":[' + b",".join([b"1"] * n) + b"]}", (n,))

    assert len(reader._shapes) <= 256


@pytest.mark.parametrize(
    "body",
    [
        '{"instances":[{"n":1.5,"t":"a"}]}',
        '{"instances":[{"t":"é","n":NaN},{"n":2,"t":""}]}',
        '{"signature_name":"","inputs":{"n":[1,NaN,3e0],"t":["a","b","c"]}}',
    ],
)
def test_named_values_are_read_as_the_exact_reader_reads_them(body: str) -> None:
    _, exact = json_request.read_predict(body.encode(), ROW_TYPES)

    fast = FastReader().read(body.encode(), {"": ROW})

    assert isinstance(exact, json_request.DecodedRequest)
    assert fast is not None
    numbers, texts = (np.array(block).reshape(1, -1) for block in fast.blocks)
    np.testing.assert_array_equal(numbers[0].astype(np.float32), exact.inputs["n"])
    assert texts[0].tolist() == exact.inputs["t"].tolist()
    assert fast.is_rows == exact.is_rows
    assert fast.n_rows == len(exact.inputs["n"])


@pytest.mark.parametrize(
    "body",
    [
        '{"instances":[{"n":1,"t":"a"},{"n":1}]}',
        '{"instances":[{"n":1,"t":"a","n":2}]}',
        '{"instances":[{"n":1,"t":"a","u":2}]}',
        '{"instances":[{"n":"1","t":"a"}]}',
        '{"instances":[{"n":true,"t":"a"}]}',
        '{"instances":[{"n":null,"t":"a"}]}',
        '{"instances":[{"n":null,"t":"NaN"}]}',
        '{"instances":[{"n":1,"t":"NaN"}]}',
        '{"instances":[{"n":[1],"t":["a"]}]}',
        '{"instances":[{"n":1,"t":{"b64":"YQ=="}}]}',
        '{"instances":[{"n":1,"t":"a:b"}]}',
        '{"instances":[["n","t"]]}',
        '{"instances":[]}',
        '{"instances":["nt"]}',
        '{"inputs":{"n":[1,2],"t":["a"]}}',
        '{"inputs":{"n":[],"t":[]}}',
        '{"inputs":{"n":1,"t":"a"}}',
        '{"inputs":{"n":[1],"t":["a"]},"instances":[{"n":1,"t":"a"}]}',
        '{"inputs":[{"n":[1],"t":["a"]}]}',
        '{"signature_name":1,"inputs":{"n":[1],"t":["a"]}}',
        '{"signature_name":"none","inputs":{"n":[1],"t":["a"]}}',
        '{"inputs":{"n":[1],"t":["a"]}} more',
        "[1]",
        "1",
        '"instances"',
    ],
)
def test_what_is_not_plain_among_named_values_is_left_to_the_exact_reader(body: str) -> None:
    assert FastReader().read(body.encode(), {"": ROW}) is None


def test_mutated_bodies_are_never_read_differently() -> None:
    rng = random.Random(16)
    layout = InputLayout.of([("x", "float", FLOAT, (-1, 2))])
    reader = FastReader()
    seeds = [b'{"instances":[[1,2.5],[-3e1,4]]}', b'{"signature_name":"","inputs":[[10,2]]}']
    n_read = 0
    for _ in range(20_000):
        body = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(0, 2)):
            position = rng.randrange(len(body))
            body[position : position + rng.randint(0, 1)] = bytes(
                [rng.choice(b'0123,.[]{}"-eE :N')]
            )
        fast = reader.read(bytes(body), {"": layout})
        try:
            _, exact = json_request.read_predict(bytes(body), {"": {"x": "float"}})
        except json_request.InvalidArgumentError:
            assert fast is None, body
            continue
        if isinstance(exact, json_request.DecodedRequest):
            reader.learn(bytes(body), exact.inputs["x"].shape)
        if fast is not None:
            n_read += 1
            assert isinstance(exact, json_request.DecodedRequest), body
            with np.errstate(over="ignore"):
                block = fast.blocks[0].astype(np.float32)
            np.testing.assert_array_equal(block, exact.inputs["x"], str(body))
    assert n_read > 1000


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [("x", "int32", np.dtype(np.int32), (-1,))],
        [("x", "float", FLOAT, None)],
        [("x", "float", FLOAT, ())],
        [("x", "float", FLOAT, (3,))],
        [("x", "float", FLOAT, (-1,)), ("b64", "string", TEXT, (-1,))],
        [("x", "float", FLOAT, (-1,)), ("y", "float", FLOAT, (-1, 2))],
    ],
)
def test_other_inputs_have_no_plain_layout(inputs: Any) -> None:
    assert InputLayout.of(inputs) is None


def test_the_flight_models_body_is_plain() -> None:
    columns = {f"n{i}": [math.nan if i % 3 else 1.5] for i in range(20)}
    texts = {f"t{i}": ["UA"] for i in range(5)}
    layout = InputLayout.of(
        [(name, "float", FLOAT, (-1,)) for name in columns]
        + [(name, "string", TEXT, (-1,)) for name in texts]
    )
    body = json.dumps({"signature_name": "", "inputs": {**columns, **texts}}).encode()

    fast = FastReader().read(body, {"": layout})

    assert fast is not None
    assert [len(block) for block in fast.blocks] == [20, 5]
