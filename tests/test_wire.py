"""Our messages against the generated classes, which a child process imports with TensorFlow."""

import struct
import time
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
from mlops_mini.wire_messages import EXACT
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
    request = EXACT["PredictRequest"]()
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

    # Lengths of texts that are written with more bytes, or more bits, than a length can have.
    for content in (
        b"\x81\x00a",
        b"\x81\x80\x80\x80\x00a",
        b"\x81\x80\x80\x80\x70a",
        b"\x81\x80\x80\x80\x80\x00a",
        b"\xff\xff\xff\xff\x0f",
        b"\x80" * 11 + b"\x00",
    ):
        data = _tensor(7, [1], tensor_content=content)
        proto = predict_pb2.PredictRequest.FromString(data).inputs["x"].SerializeToString()
        ours = PredictRequest.from_bytes(data)
        try:
            expected = tf.io.parse_tensor(proto, tf.string).numpy()
        except tf.errors.InvalidArgumentError:
            assert ours.unreadable == ["x"], content
        else:
            _assert_same(ours.inputs["x"], expected)


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

    tensor = EXACT["PredictRequest"].FromString(packed).inputs["x"].SerializeToString()
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


def _seconds(data: bytes) -> float:
    """Shortest of some times that reading takes."""
    times_s = []
    for _ in range(5):
        began = time.perf_counter()
        PredictRequest.from_bytes(data)
        times_s.append(time.perf_counter() - began)
    return min(times_s)


@pytest.mark.parametrize(
    ("n", "content"),
    [
        (1, b"\xff" * 250_000),
        (1, b"\x80" * 250_000 + b"\0"),
        (50_000, b"\x80\x80\x80\x80\0" * 49_999 + b"\x80" * 5),
        (2**27, b"\0" * 250_000),
    ],
    ids=["no end", "long", "the last one", "more texts than bytes"],
)
def test_lengths_without_end_take_no_longer_than_texts(n: int, content: bytes) -> None:
    texts = _tensor(7, [125_000], tensor_content=b"\1" * 125_000 + b"a" * 125_000)
    data = _tensor(7, [n], tensor_content=content)

    assert PredictRequest.from_bytes(data).unreadable == ["x"]
    assert _seconds(data) < 3 * _seconds(texts)


def test_texts_without_a_byte_are_read_in_the_time_of_texts_with_one() -> None:
    ones = _tensor(7, [125_000], tensor_content=b"\1" * 125_000 + b"a" * 125_000)
    empty = _tensor(7, [250_000], tensor_content=b"\0" * 250_000)

    assert not any(PredictRequest.from_bytes(empty).inputs["x"])
    assert _seconds(empty) < 3 * _seconds(ones)


@pytest.mark.parametrize("given_values", [[], [2.5]], ids=str)
def test_a_shape_alone_takes_no_memory(given_values: list[float]) -> None:
    data = _tensor(1, [2**20, 2**8], float_val=given_values)

    array = PredictRequest.from_bytes(data, quick=True).inputs["x"]

    assert array.shape == (2**20, 2**8)
    assert array.strides == (0, 0)  # one value, seen everywhere
    assert array[-1, -1] == (given_values or [0])[0]


def test_a_large_array_of_few_values_is_not_made_by_who_asks_for_a_quick_answer() -> None:
    data = _tensor(1, [2**20], float_val=[1.0, 2.0])

    with pytest.raises(wire.NotQuickError):
        PredictRequest.from_bytes(data, quick=True)

    array = PredictRequest.from_bytes(data).inputs["x"]
    assert (array[0], array[1:].min(), array.sum()) == (1.0, 2.0, 2**21 - 1)


def test_few_texts_are_not_repeated_without_end() -> None:
    some, many = (
        PredictRequest.from_bytes(_tensor(7, [n], string_val=[b"a", b"b"])) for n in (2**18, 2**27)
    )

    assert some.inputs["x"][-1] == b"b"
    assert many.unreadable == ["x"]


def test_very_many_tensors_are_not_read_by_who_asks_for_a_quick_answer() -> None:
    sent = PredictRequest(model_spec=None, inputs={str(i): np.float32(i) for i in range(257)})

    with pytest.raises(wire.NotQuickError):
        PredictRequest.from_bytes(sent.to_bytes(), quick=True)

    assert PredictRequest.from_bytes(sent.to_bytes()).inputs["256"] == 256


def test_one_unreadable_tensor_leaves_the_others() -> None:
    request = EXACT["PredictRequest"].FromString(_tensor(1, [1], float_val=[1.0]))
    request.inputs["w"].dtype = 99

    got = PredictRequest.from_bytes(request.SerializeToString())

    assert (got.inputs["x"].tolist(), got.unreadable) == ([1.0], ["w"])


def test_an_answer_with_an_unreadable_tensor_is_refused() -> None:
    answer = EXACT["PredictResponse"]()
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


@pytest.mark.parametrize("item", [None, 1, -1, 10**9, 1.0, "\ud800", bytearray(b"a"), [b"a"]])
def test_an_object_that_is_no_text_is_not_sent(item: Any) -> None:
    texts = np.empty(2, object)
    texts[:] = [b"a", item]
    request = PredictRequest(model_spec=None, inputs={"x": texts})

    with pytest.raises(InvalidArgumentError, match="cannot be sent as text: "):
        request.to_bytes()
