"""Our messages against the generated classes, which a child process imports with TensorFlow."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from mlops_mini import wire
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse
from tests.serving.servers import run_in_child

SPEC = ModelSpec(name="m", version=3, signature_name="s")
NAMES = [dtype.name for dtype in wire.DTYPES]


def _values(dtype: wire.DType) -> npt.NDArray[Any]:
    """Six values, 2 by 3, with the extremes of the type."""
    kind = dtype.numpy.kind
    if kind == "O":
        flat: Any = np.array([b"", b"a", b"\0", b"\xff", b"b" * 300, "é".encode()], object)
    elif kind == "b":
        flat = np.array([True, False] * 3)
    elif kind in "iu":
        limits = np.iinfo(dtype.numpy)
        flat = np.array([limits.min, limits.max, 0, 1, 2, 3], dtype.numpy)
    elif kind == "f" or dtype.name == "bfloat16":
        flat = np.array([np.nan, np.inf, -0.0, 0.1, 1, -2.5], dtype.numpy)
    else:
        flat = np.array([1 + 2j, -0.5j, 3, np.nan, 0, 1j], dtype.numpy)
    return flat.reshape(2, 3)


def _assert_same(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> None:
    assert left.dtype == right.dtype
    assert left.shape == right.shape
    if left.dtype == object:
        assert left.tolist() == right.tolist()
    else:
        assert left.tobytes() == right.tobytes()


def _tensor(dtype: int, sizes: list[int], **fields: Any) -> bytes:
    """A request whose input `x` is spelled out field by field."""
    request = wire.EXACT["PredictRequest"]()
    tensor = request.inputs["x"]
    tensor.dtype = dtype
    tensor.tensor_shape.SetInParent()
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    for name, value in fields.items():
        if isinstance(value, list):
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)
    return bytes(request.SerializeToString())


def _check_against_tensorflow() -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    for dtype in wire.DTYPES:
        values = _values(dtype)
        sent = PredictRequest(model_spec=SPEC, inputs={"x": values}, output_filter=("y",))
        theirs = predict_pb2.PredictRequest.FromString(sent.to_bytes())
        _assert_same(tf.make_ndarray(theirs.inputs["x"]), values)
        assert theirs.inputs["x"].dtype == tf.as_dtype(values.dtype).as_datatype_enum
        assert theirs.model_spec.version.value == 3
        assert list(theirs.output_filter) == ["y"]

        answered = PredictResponse(model_spec=SPEC, outputs={"y": values})
        their_answer = predict_pb2.PredictResponse.FromString(answered.to_bytes())
        _assert_same(tf.make_ndarray(their_answer.outputs["y"]), values)
        assert not their_answer.outputs["y"].tensor_content

        for array in (values, values[0], values[:0], values[0, 0]):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "m"
            request.inputs["content"].CopyFrom(tf.make_tensor_proto(array, dtype=values.dtype))
            request.inputs["fields"].CopyFrom(their_answer.outputs["y"])
            ours = PredictRequest.from_bytes(request.SerializeToString())
            _assert_same(ours.inputs["content"], np.asarray(array, values.dtype))
            _assert_same(ours.inputs["fields"], values)

    # Lists that are short, long, or without a value, as TensorFlow's own C++ reads them.
    shorts: list[tuple[int, list[int], str, list[Any]]] = [
        (1, [4], "float_val", [1.0, 2.0]),
        (1, [2], "float_val", [1.0, 2.0, 3.0]),
        (1, [3], "float_val", []),
        (3, [2, 2], "int_val", [7]),
        (7, [3], "string_val", [b"a"]),
        (8, [3], "scomplex_val", [1.0, 2.0, 3.0]),
        (9, [3], "int64_val", [2**62]),
        (10, [3], "bool_val", [True]),
        (17, [2], "int_val", [65535]),
        (14, [3], "half_val", [16256]),
        (19, [3], "half_val", [15360]),
        (23, [2], "uint64_val", [2**64 - 1]),
    ]
    for number, sizes, field, given_values in shorts:
        data = _tensor(number, sizes, **{field: given_values})
        proto = predict_pb2.PredictRequest.FromString(data).inputs["x"].SerializeToString()
        expected = tf.io.parse_tensor(proto, tf.as_dtype(number)).numpy()
        _assert_same(PredictRequest.from_bytes(data).inputs["x"], expected)


def test_tensorflow_reads_ours_and_we_read_theirs(tmp_path: Path) -> None:
    run_in_child(_check_against_tensorflow, log_file=tmp_path / "log")


@pytest.mark.parametrize("dtype", wire.DTYPES, ids=NAMES)
@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 6, 1)])
def test_every_type_makes_the_round_trip(dtype: wire.DType, shape: tuple[int, ...]) -> None:
    values = _values(dtype).reshape(shape)

    request = PredictRequest(model_spec=SPEC, inputs={"x": values}, output_filter=("a", "b"))
    answer = PredictResponse(model_spec=SPEC, outputs={"x": values})

    got = PredictRequest.from_bytes(request.to_bytes())
    _assert_same(got.inputs["x"], values)
    _assert_same(PredictResponse.from_bytes(answer.to_bytes()).outputs["x"], values)
    assert (got.model_spec, got.output_filter, got.unreadable) == (SPEC, ("a", "b"), [])


@given(
    # Hypothesis has no values of bfloat16.
    st.sampled_from([d for d in wire.DTYPES if d.name not in ("string", "bfloat16")]).flatmap(
        lambda dtype: st_numpy.arrays(
            dtype.numpy, st_numpy.array_shapes(min_dims=0, min_side=0, max_side=4)
        )
    )
)
def test_any_array_of_numbers_makes_the_round_trip(array: npt.NDArray[Any]) -> None:
    request = PredictRequest(model_spec=None, inputs={"x": array, "y": array.T})

    inputs = PredictRequest.from_bytes(request.to_bytes()).inputs

    _assert_same(inputs["x"], array)
    _assert_same(inputs["y"], np.ascontiguousarray(array.T).reshape(array.T.shape))


@given(st.lists(st.binary(max_size=9), max_size=5))
def test_any_bytes_make_the_round_trip_also_as_content(texts: list[bytes]) -> None:
    array = np.empty(len(texts), object)
    array[:] = texts
    content = b"".join(bytes([len(text)]) for text in texts) + b"".join(texts)
    data = _tensor(7, [len(texts)], tensor_content=content)

    sent = PredictRequest(model_spec=None, inputs={"x": array}).to_bytes()

    assert PredictRequest.from_bytes(sent).inputs["x"].tolist() == texts
    assert PredictRequest.from_bytes(data).inputs["x"].tolist() == texts


@given(st.binary(max_size=40))
def test_any_bytes_are_a_request_or_an_error_of_ours(data: bytes) -> None:
    try:
        request = PredictRequest.from_bytes(data)
    except InvalidArgumentError:
        return
    assert set(request.inputs).isdisjoint(request.unreadable)


def test_a_sender_that_does_not_pack_is_read() -> None:
    packed = _tensor(1, [2], float_val=[1.5, 2.5])
    run = b"\x2a\x08" + struct.pack("<ff", 1.5, 2.5)
    alone = b"".join(b"\x2d" + struct.pack("<f", value) for value in (1.5, 2.5))
    assert run in packed

    tensor = wire.EXACT["PredictRequest"].FromString(packed).inputs["x"].SerializeToString()
    tensor = tensor.replace(run, alone)
    entry = b"\x0a\x01x\x12" + bytes([len(tensor)]) + tensor
    data = b"\x12" + bytes([len(entry)]) + entry

    assert PredictRequest.from_bytes(data).inputs["x"].tolist() == [1.5, 2.5]


def test_content_wins_over_fields() -> None:
    data = _tensor(1, [1], tensor_content=struct.pack("<f", 2), float_val=[1.0])

    assert PredictRequest.from_bytes(data).inputs["x"].tolist() == [2.0]


@pytest.mark.parametrize(
    "data",
    [
        _tensor(0, [1]),
        _tensor(15, [1], half_val=[1]),
        _tensor(99, []),
        _tensor(-1, []),
        _tensor(1, [-1]),
        _tensor(1, [2**63 - 1]),
        _tensor(1, [2**40, 2**40]),
        _tensor(1, [2**62, 2**62, 0]),
        _tensor(1, [1] * 65, float_val=[1.0]),
        _tensor(1, [1] * 65, tensor_content=b"\0\0\0\0"),
        _tensor(1, [2], tensor_content=b"\0\0\0\0"),
        _tensor(7, [1], tensor_content=b"\x05abc"),
        _tensor(7, [1], tensor_content=b"\x80"),
        _tensor(7, [2], tensor_content=b"\x01a"),
    ],
)
def test_a_tensor_that_cannot_become_an_array_is_named(data: bytes) -> None:
    request = PredictRequest.from_bytes(data)

    assert (dict(request.inputs), list(request.unreadable)) == ({}, ["x"])


@pytest.mark.parametrize(
    ("number", "field", "given_values", "read"),
    [
        (19, "half_val", [70000, -1], np.uint16([4464, 65535]).view(np.float16)),
        (4, "int_val", [256, -1], np.uint8([0, 255])),
        (18, "dcomplex_val", [1.0, 2.0, 3.0], np.complex128([1 + 2j, 1 + 2j])),
    ],
)
def test_values_that_do_not_fit_are_cut(
    number: int, field: str, given_values: list[Any], read: npt.NDArray[Any]
) -> None:
    data = _tensor(number, [2], **{field: given_values})

    _assert_same(PredictRequest.from_bytes(data).inputs["x"], read)


def test_one_unreadable_tensor_leaves_the_others() -> None:
    request = wire.EXACT["PredictRequest"].FromString(_tensor(1, [1], float_val=[1.0]))
    request.inputs["w"].dtype = 99

    got = PredictRequest.from_bytes(request.SerializeToString())

    assert (got.inputs["x"].tolist(), got.unreadable) == ([1.0], ["w"])


def test_an_answer_with_an_unreadable_tensor_is_refused() -> None:
    answer = wire.EXACT["PredictResponse"]()
    answer.outputs["y"].dtype = 99

    with pytest.raises(InvalidArgumentError, match="tensor parsing error: y"):
        PredictResponse.from_bytes(answer.SerializeToString())


def test_a_request_without_a_model_is_told_from_one_with_an_empty_name() -> None:
    without = PredictRequest(model_spec=None, inputs={})
    empty = PredictRequest(model_spec=ModelSpec(name=""), inputs={})

    assert PredictRequest.from_bytes(without.to_bytes()).model_spec is None
    assert PredictRequest.from_bytes(empty.to_bytes()).model_spec == ModelSpec(name="")


def test_version_0_is_a_version() -> None:
    sent = PredictRequest(model_spec=ModelSpec(name="m", version=0), inputs={})

    assert PredictRequest.from_bytes(sent.to_bytes()).model_spec == ModelSpec(name="m", version=0)


def test_text_is_sent_as_utf_8() -> None:
    sent = PredictRequest(model_spec=None, inputs={"x": np.array(["é", "b"])})

    assert PredictRequest.from_bytes(sent.to_bytes()).inputs["x"].tolist() == ["é".encode(), b"b"]


@pytest.mark.parametrize(
    "array",
    [np.array(["2013-01-01"], "datetime64[D]"), np.zeros(1, np.longdouble)],
)
def test_an_array_that_cannot_be_sent_is_refused(array: npt.NDArray[Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be sent; convert it to one of"):
        PredictRequest(model_spec=None, inputs={"x": array}).to_bytes()
