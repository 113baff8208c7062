import numpy as np
import pytest

from mlops_mini import wire
from mlops_mini.serving.grpc_fast import FastReader
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse

SPEC = ModelSpec(name="m", version=3, signature_name="s")


def message(array: object, *, alias: str = "x", spec: ModelSpec = SPEC) -> bytes:
    return PredictRequest(model_spec=spec, inputs={alias: np.asarray(array)}).to_bytes()


def learned(*messages: bytes) -> FastReader:
    reader = FastReader()
    for data in messages:
        reader.learn(data, PredictRequest.from_bytes(data))
    return reader


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("example", [[0, 0, 0], [1, 2, 3], [np.nan, np.inf, -0.0]])
def test_a_message_of_a_known_kind_is_read_as_the_exact_reader_does(
    dtype: type, example: list[float]
) -> None:
    reader = learned(message(dtype([example])))
    data = message(dtype([[7, 8, np.nan]]))

    read = reader.read(data)

    assert read is not None
    assert (read.spec, read.alias) == (SPEC, "x")
    exact = PredictRequest.from_bytes(data).inputs["x"]
    assert (read.array.dtype, read.array.shape) == (exact.dtype, exact.shape)
    np.testing.assert_array_equal(read.array, exact)


def test_typed_values_are_known_as_well_as_content() -> None:
    def typed(*values: float) -> bytes:
        spec = ModelSpec(name="m")
        answer = PredictResponse(model_spec=spec, outputs={"x": np.float32(values)}).to_bytes()
        outputs = wire.parse(wire.FAST["PredictResponse"], answer).outputs
        request = wire.FAST["PredictRequest"]()
        request.model_spec.name = "m"
        request.inputs["x"].CopyFrom(outputs["x"])
        return bytes(request.SerializeToString())

    read = learned(typed(1, 2)).read(typed(3, 4))

    assert read is not None
    assert read.array.tolist() == [3, 4]


@pytest.mark.parametrize(
    "other",
    [
        message(np.float32([[1], [2], [3]])),  # as many bytes, another shape
        message(np.float32([[1, 2, 3]]), alias="y"),
        message(np.float32([[1, 2, 3]]), spec=ModelSpec(name="n", version=3, signature_name="s")),
        message(np.float32([[1, 2, 3]]), spec=ModelSpec(name="m", version=4, signature_name="s")),
        message(np.int32([[1, 2, 3]])),
        message(np.float32([[1, 2, 3]]))[:-1],
        b"",
    ],
)
def test_another_kind_of_message_is_left_to_the_exact_reader(other: bytes) -> None:
    assert learned(message(np.float32([[1, 2, 3]]))).read(other) is None


@pytest.mark.parametrize(
    "request_of_another_kind",
    [
        PredictRequest(model_spec=None, inputs={"x": np.float32([1])}),
        PredictRequest(model_spec=SPEC, inputs={"x": np.float32([1])}, output_filter=["y"]),
        PredictRequest(model_spec=SPEC, inputs={"x": np.float32([1]), "y": np.float32([1])}),
        PredictRequest(model_spec=SPEC, inputs={"x": np.float32([])}),
        PredictRequest(model_spec=SPEC, inputs={"x": np.float32(1)}),
        PredictRequest(model_spec=SPEC, inputs={"x": np.array([b"text"], object)}),
        PredictRequest(model_spec=SPEC, inputs={}),
    ],
    ids=range(7),
)
def test_what_is_not_plain_is_never_learned(request_of_another_kind: PredictRequest) -> None:
    data = request_of_another_kind.to_bytes()

    assert learned(data).read(data) is None


def test_only_so_many_kinds_are_kept() -> None:
    messages = [message(np.ones((1, n), np.float32)) for n in range(1, 200)]
    reader = learned(*messages)

    assert sum(map(len, reader._known.values())) <= 64
    assert reader.read(messages[-1]) is not None
