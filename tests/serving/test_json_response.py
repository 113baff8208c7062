import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from hypothesis.strategies import floats

from mlops_mini import wire
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.serving import json_response


def _answer(outputs: dict[str, Any], *, is_rows: bool) -> Any:
    return json.loads(json_response.encode_predict(outputs, is_rows=is_rows))


def _texts(*items: bytes) -> npt.NDArray[Any]:
    return np.array(items, object)


def test_a_lone_output_has_no_name_and_several_have() -> None:
    y, z = np.float32([1, 2]), np.int64([[3], [4]])

    assert _answer({"y": y}, is_rows=True) == {"predictions": [1.0, 2.0]}
    assert _answer({"y": y}, is_rows=False) == {"outputs": [1.0, 2.0]}
    assert _answer({"y": y, "z": z}, is_rows=False) == {"outputs": {"y": [1, 2], "z": [[3], [4]]}}
    assert _answer({"y": y, "z": z}, is_rows=True) == {
        "predictions": [{"y": 1.0, "z": [3]}, {"y": 2.0, "z": [4]}]
    }


def _servings_double(value: float) -> float:
    """Read the text that TensorFlow Serving writes for a float32."""
    short = float(f"{value:.6g}")
    return short if np.float32(short) == np.float32(value) else float(f"{value:.9g}")


@given(arrays(np.float32, 50, elements=floats(width=32, allow_nan=False, allow_infinity=False)))
def test_a_client_reads_the_doubles_of_tensorflow_servings_text(values: Any) -> None:
    body = json_response.encode_predict({"y": values}, is_rows=True)

    assert json.loads(body)["predictions"] == [_servings_double(v) for v in values.tolist()]


def test_every_power_and_every_tie_of_float32_is_printed_alike() -> None:
    powers = np.concatenate([10.0 ** np.arange(-44, 39), 2.0 ** np.arange(-149, 128)])
    ties = [8388608.5, 1000000.5, 0.5, 2097152.25, 16777217, 123456.7, 1435774380, 1 / 3]
    values = np.concatenate([powers, ties]).astype(np.float32)

    assert json_response.as_printed(values).tolist() == [
        _servings_double(v) for v in values.tolist()
    ]


@pytest.mark.parametrize("special", [np.nan, np.inf, 1.0])
def test_every_float32_reads_back_to_itself_also_beside_nan(special: float) -> None:
    values = np.float32([0.1, 1 / 3, 16777217, 3.4e38, 1e-45, -0.0, 123456.7, special])

    body = json_response.encode_predict({"y": values}, is_rows=True)

    assert b"0.1," in body
    assert np.float32(json.loads(body)["predictions"]).tobytes() == values.tobytes()


def test_doubles_and_64_bit_integers_are_exact() -> None:
    assert _answer({"y": np.float64([1234567.8910000001, 1e300])}, is_rows=False) == {
        "outputs": [1234567.8910000001, 1e300]
    }
    assert _answer({"y": np.uint64([2**64 - 1])}, is_rows=False) == {"outputs": [2**64 - 1]}


def test_a_scalar_float32_has_its_own_digits() -> None:
    body = json_response.encode_predict({"y": np.array(0.1, np.float32)}, is_rows=False)

    assert body == b'{\n    "outputs": 0.1\n}'


def test_nan_and_infinity_stand_bare() -> None:
    values = np.float64([np.nan, np.inf, -np.inf])

    body = json_response.encode_predict({"y": values, "n": np.int32([1, 2, 3])}, is_rows=True)

    assert b"NaN" in body
    assert b"-Infinity" in body
    assert [row["n"] for row in json.loads(body)["predictions"]] == [1, 2, 3]


def test_text_is_raw_bytes_and_base64_where_the_output_is_named_so() -> None:
    texts = _texts(b"\xff", b'"\\\n\x01/', "é".encode())

    body = json_response.encode_predict({"y": texts, "y_bytes": texts}, is_rows=False)
    answer = json.loads(body.decode("utf-8", "surrogateescape"))["outputs"]

    assert b'"\xff"' in body
    assert '"é"'.encode() in body
    assert answer["y"][1] == '"\\\n\x01/'
    assert answer["y_bytes"][0] == {"b64": "/w=="}


@pytest.mark.parametrize(
    ("array", "plain"),
    [
        (np.zeros(0, np.float32), []),
        (np.zeros((2, 0), np.int32), [[], []]),
        (np.bool_([True]), [True]),
        (np.array([[1, 2], [3, 4]], np.int16).T, [[1, 3], [2, 4]]),
        (np.array(b"a", object), "a"),
    ],
)
def test_any_shape_and_layout_is_written(array: npt.NDArray[Any], plain: Any) -> None:
    assert _answer({"y": array}, is_rows=False) == {"outputs": plain}


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        (
            {"y": np.zeros(2), "z": np.zeros(4)},
            "Tensor name: z has inconsistent batch size: 4 expecting: 2",
        ),
        ({"y": np.float32(1)}, "Tensor name: y has no shape information "),
        ({"y": np.float16([1])}, "Failed to write JSON value for tensor type: half"),
        ({"y": np.uint16([1])}, "Failed to write JSON value for tensor type: uint16"),
        ({"y": np.complex64([1])}, "Failed to write JSON value for tensor type: complex64"),
    ],
)
def test_rows_that_cannot_be_written_are_refused(outputs: Any, text: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        json_response.encode_predict(outputs, is_rows=True)

    assert str(raised.value) == text


def test_a_long_text_makes_a_long_answer() -> None:
    outputs = {"y": np.array([b"x" * 2**20], object)}

    assert json_response.answer_bytes(outputs) > 2**20
    assert wire.n_bytes(outputs) > 2**20


FLOATS = floats(width=32)
FEW = arrays(np.float32, array_shapes(min_dims=1, max_dims=2, max_side=4), elements=FLOATS)


@given(st.dictionaries(st.sampled_from("yz"), FEW, min_size=1), st.booleans())
def test_a_few_numbers_are_written_as_many_are(outputs: dict[str, Any], is_rows: bool) -> None:
    outputs = dict(sorted(outputs.items()))
    few = json_response.encode_few([*outputs], [*outputs.values()], is_rows)

    are_finite = all(np.isfinite(array).all() for array in outputs.values())
    if is_rows and len({*map(len, outputs.values())}) > 1:
        assert few is None
    elif are_finite:
        assert few == json_response.encode_predict(outputs, is_rows)
    else:
        assert few is None


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(17, np.float32),
        np.zeros(0, np.float32),
        np.zeros((1, 1, 1), np.float32),
        np.float32(1),
        np.zeros(1),
        np.int64([1]),
        _texts(b"a"),
    ],
)
def test_what_is_not_a_few_numbers_is_left_to_the_exact_writer(array: Any) -> None:
    assert json_response.encode_few(["y"], [array], False) is None


@given(
    st.sampled_from([np.float32, np.float64]),
    st.lists(array_shapes(min_dims=0, max_dims=2, max_side=3), min_size=1, max_size=2),
    st.booleans(),
    st.data(),
)
def test_each_request_of_a_batch_gets_its_rows(
    dtype: type, shapes: list[tuple[int, ...]], is_rows: bool, data: st.DataObject
) -> None:
    outputs = {
        alias: data.draw(arrays(dtype, (8, *shape), elements=FLOATS))
        for alias, shape in zip("yz", shapes, strict=False)
    }
    prepared = json_response.PreparedOutputs(outputs)

    for start, stop in ((0, 1), (1, 4), (4, 8)):
        own = {alias: array[start:stop] for alias, array in outputs.items()}
        written, exact = (
            prepared.encode(start, stop, is_rows),
            json_response.encode_predict(own, is_rows),
        )
        assert repr(json.loads(written)) == repr(json.loads(exact))  # beside NaN 1e-05 is 0.00001
        assert written == exact or not all(np.isfinite(array).all() for array in outputs.values())
