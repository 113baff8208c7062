"""What a client sees over gRPC, through messages of our own and TensorFlow Serving's classes."""

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from mlops_mini import wire
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse
from tests.serving.models import IDENTITIES
from tests.serving.servers import Server

X = np.float32([1, 2])


@pytest.fixture(scope="module")
def channel(toy_server: Server) -> Iterator[grpc.Channel]:
    no_limit = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(toy_server.grpc, options=no_limit) as opened:
        yield opened


def _ask(channel: grpc.Channel, data: bytes) -> PredictResponse:
    return PredictResponse.from_bytes(channel.unary_unary(wire.PREDICT_METHOD)(data, timeout=60))


def _request(
    inputs: dict[str, Any], *, signature: str = "", output_filter: tuple[str, ...] = (), **spec: Any
) -> bytes:
    model_spec = ModelSpec(**{"name": "m", "signature_name": signature, **spec})
    return PredictRequest(
        model_spec=model_spec, inputs=inputs, output_filter=output_filter
    ).to_bytes()


def _refusal(channel: grpc.Channel, data: bytes) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        _ask(channel, data)
    return raised.value.code().name, raised.value.details()


@pytest.mark.parametrize("spec", [{}, {"version": 1}, {"signature": "serving_default"}])
def test_the_answer_says_which_version_and_signature_it_is_from(
    channel: grpc.Channel, spec: Any
) -> None:
    answer = _ask(channel, _request({"x": X}, **spec))

    assert answer.outputs["y"].tolist() == [2.5, 3.0]
    assert answer.model_spec == ModelSpec(name="m", version=1, signature_name="serving_default")


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (
            PredictRequest(model_spec=None, inputs={"x": X}).to_bytes(),
            "INVALID_ARGUMENT",
            "Missing ModelSpec",
        ),
        (
            _request({"x": X}, name=""),
            "INVALID_ARGUMENT",
            "ModelSpec has no name specified.",
        ),
        (
            _request({"x": X}, name="zz"),
            "NOT_FOUND",
            "Servable not found for request: Latest(zz)",
        ),
        (
            _request({"x": X}, version=9),
            "NOT_FOUND",
            "Servable not found for request: Specific(m, 9)",
        ),
        (
            _request({"x": X}, version=0),
            "NOT_FOUND",
            "Servable not found for request: Specific(m, 0)",
        ),
        (
            _request({"x": X}, version_label="zz"),
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: zz",
        ),
        (
            _request({"x": X}, signature="zz"),
            "FAILED_PRECONDITION",
            'Serving signature key "zz" not found.',
        ),
        (
            _request({"x": X, "w": X}),
            "INVALID_ARGUMENT",
            (
                "input size does not match signature: 2!=1 len({w,x}) != len({x}). Sent extra: {w}."
                " Missing but required: {}."
            ),
        ),
        (
            _request({}),
            "INVALID_ARGUMENT",
            (
                "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}."
                " Missing but required: {x}."
            ),
        ),
        (
            _request({"x": X}, output_filter=("q",)),
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: q Outputs expected to be in the set {y}.",
        ),
        (
            _request({"x": X}, output_filter=("y", "y")),
            "INVALID_ARGUMENT",
            "duplicate output tensor alias: y",
        ),
        (
            _request({"x": np.float64([1])}),
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but double is provided",
        ),
        (
            _request({"x": np.array([b"a"], object)}),
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but string is provided",
        ),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    channel: grpc.Channel, data: bytes, code: str, text: str
) -> None:
    assert _refusal(channel, data) == (code, text)


def test_a_wrong_input_name_is_told_with_the_feed(channel: grpc.Channel) -> None:
    code, text = _refusal(channel, _request({"w": X}))

    assert code == "INVALID_ARGUMENT"
    assert text.startswith("Signature input alias: x(feed name: serving_default_x:0) not found in")
    assert text.endswith(
        " request and no default value provided. Inputs expected to be in the request {w}, or"
        " default input alias set: "
    )


def test_what_fails_in_the_graph_is_told_in_its_words(channel: grpc.Channel) -> None:
    code, text = _refusal(channel, _request({"x": np.float32([10])}, signature="checked"))

    assert code == "INVALID_ARGUMENT"
    assert "too big" in text
    assert "\n\t [[{{" in text


def test_a_long_message_is_cut_at_1024_bytes(channel: grpc.Channel) -> None:
    text = np.array(["é" * 1000 + "x"], object)

    _, details = _refusal(channel, _request({"x": text}, signature="to_number"))

    assert details.endswith("...TRUNCATED")
    assert len(details.encode().removesuffix(b"...TRUNCATED")) in (1023, 1024)


def _broken_tensor(**fields: Any) -> bytes:
    request = wire._EXACT["PredictRequest"]()
    request.model_spec.name = "m"
    sizes = fields.pop("sizes", [1])
    for size in sizes:
        request.inputs["x"].tensor_shape.dim.add(size=size)
    for name, value in {"dtype": 1, **fields}.items():
        setattr(request.inputs["x"], name, value)
    return bytes(request.SerializeToString())


@pytest.mark.parametrize(
    "data",
    [
        _broken_tensor(dtype=0),
        _broken_tensor(dtype=99),
        _broken_tensor(sizes=[-1]),
        _broken_tensor(tensor_content=b"abc"),
        _broken_tensor(sizes=[2**62, 2**62]),
        _broken_tensor(sizes=[2**62, 2**62, 0]),
        _broken_tensor(sizes=[1] * 65),
    ],
)
def test_a_tensor_that_cannot_be_read_is_refused(channel: grpc.Channel, data: bytes) -> None:
    assert _refusal(channel, data) == ("INVALID_ARGUMENT", "tensor parsing error: x")


@pytest.mark.parametrize(
    ("signature", "alias", "code"),
    [("zz", "x", "FAILED_PRECONDITION"), ("", "w", "INVALID_ARGUMENT")],
)
def test_names_are_checked_before_tensors(
    channel: grpc.Channel, signature: str, alias: str, code: str
) -> None:
    request = wire._EXACT["PredictRequest"]()
    request.model_spec.name, request.model_spec.signature_name = "m", signature
    request.inputs[alias].dtype = 99

    refusal = _refusal(channel, request.SerializeToString())

    assert refusal[0] == code
    assert "tensor parsing error" not in refusal[1]


@pytest.mark.parametrize("name", IDENTITIES)
def test_every_type_comes_back_as_it_went(channel: grpc.Channel, name: str) -> None:
    dtype = next(known for known in wire.DTYPES if known.name == name)
    values = np.array([b"a\0", b"\xff"], object) if name == "string" else np.ones(3, dtype.numpy)

    answer = _ask(channel, _request({"x": values}, signature=name)).outputs["y"]

    assert answer.dtype == dtype.numpy
    assert answer.tolist() == values.tolist()


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3), (1, 1, 1)])
def test_the_declared_shape_is_not_checked(channel: grpc.Channel, shape: tuple[int, ...]) -> None:
    answer = _ask(channel, _request({"x": np.ones(shape, np.float32)}))

    assert answer.outputs["y"].shape == shape


def test_a_scalar_answer_has_an_empty_shape(channel: grpc.Channel) -> None:
    assert _ask(channel, _request({"x": X}, signature="scalar")).outputs["y"].shape == ()


def test_a_scalar_text_keeps_its_nul_bytes(channel: grpc.Channel) -> None:
    text = np.array([b"a", b"\0"], object)

    answer = _ask(channel, _request({"x": text}, signature="scalar_bytes"))

    assert answer.outputs["y_bytes"].item() == b"a\0"


def test_a_signature_without_inputs_is_answered(channel: grpc.Channel) -> None:
    assert _ask(channel, _request({}, signature="constant")).outputs["y"].tolist() == [1.0]


def test_the_filter_returns_only_the_outputs_named(channel: grpc.Channel) -> None:
    answer = _ask(channel, _request({"x": X}, signature="mixed", output_filter=("z",)))

    assert list(answer.outputs) == ["z"]


def test_several_inputs_may_differ_in_their_first_dimension(channel: grpc.Channel) -> None:
    inputs = {
        "total": np.ones((1, 2), np.float32),
        "n": np.int64([1, 2]),
        "text": np.array([b"a"], object),
    }

    answer = _ask(channel, _request(inputs, signature="several")).outputs

    assert answer["total"].tolist() == [3.0, 4.0]
    assert answer["text"].tolist() == [b"aa"]
    assert answer["text_bytes"].tolist() == [b"a"]


def test_an_answer_is_in_typed_fields(channel: grpc.Channel) -> None:
    data = channel.unary_unary(wire.PREDICT_METHOD)(_request({"x": X}), timeout=60)

    tensor = wire._EXACT["PredictResponse"].FromString(data).outputs["y"]

    assert list(tensor.float_val) == [2.5, 3.0]
    assert tensor.tensor_content == b""


def test_a_short_list_repeats_its_last_value(channel: grpc.Channel) -> None:
    request = wire._EXACT["PredictRequest"]()
    request.model_spec.name = "m"
    request.inputs["x"].dtype = 1
    request.inputs["x"].tensor_shape.dim.add(size=3)
    request.inputs["x"].float_val.extend([2.0, 4.0])

    answer = _ask(channel, request.SerializeToString())

    assert answer.outputs["y"].tolist() == [3.0, 4.0, 4.0]


def test_bytes_that_are_no_request_are_refused(channel: grpc.Channel) -> None:
    assert _refusal(channel, b"\xff\xff")[0] == "INVALID_ARGUMENT"


def test_a_method_that_does_not_exist_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/tensorflow.serving.PredictionService/Explain")(b"", timeout=60)

    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_large_tensor_passes_both_ways(channel: grpc.Channel) -> None:
    values = np.ones(5_000_000, np.float32)

    assert _ask(channel, _request({"x": values})).outputs["y"].shape == values.shape
