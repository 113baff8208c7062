"""What a client sees over gRPC, in TensorFlow Serving's own messages."""

from typing import Any

import grpc
import pytest

from mlops_mini.wire import PREDICT_METHOD, PredictResponse
from tests.conformance import grpc_cases, grpc_example_cases
from tests.conformance.grpc_cases import GrpcCase, X, floats, spec
from tests.conformance.served import Served


@pytest.mark.parametrize("case", grpc_cases.ALL + grpc_example_cases.ALL, ids=str)
def test_the_tables_hold(tables: Served, case: GrpcCase) -> None:
    code, message, response = tables.call(case.method, case.request)

    if isinstance(case.answer, str):
        text = case.answer.removesuffix("...")
        assert (code, message[: len(text)] if case.answer != text else message) == (case.code, text)
    else:
        assert (code, message) == (case.code, "")
        assert response == case.answer


def test_the_metadata_is_a_map_of_all_signatures(tables: Served) -> None:
    request = {"model_spec": spec("half_plus_two", "x"), "metadata_field": ["signature_def"]}

    code, _, response = tables.call("GetModelMetadata", request)

    assert code == "OK"
    assert response["model_spec"] == {"name": "half_plus_two", "version": "123"}
    packed = response["metadata"]["signature_def"]
    assert packed["@type"] == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert packed["signature_def"]["classify_x_to_y"] == {
        "inputs": {
            "inputs": {
                "name": "tf_example:0",
                "dtype": "DT_STRING",
                "tensor_shape": {"unknown_rank": True},
            }
        },
        "outputs": {
            "scores": {
                "name": "y:0",
                "dtype": "DT_FLOAT",
                "tensor_shape": {"dim": [{"size": "-1"}, {"size": "1"}]},
            }
        },
        "method_name": "tensorflow/serving/classify",
    }


def test_a_long_message_is_cut_at_1024_bytes(tables: Served) -> None:
    text = "é" * 1000 + "x"
    request = {"model_spec": {"name": text}, "inputs": X}

    code, message, _ = tables.call("Predict", request)

    assert code == "NOT_FOUND"
    assert message.endswith("...TRUNCATED")
    assert len(message.encode().removesuffix(b"...TRUNCATED")) in (1023, 1024)


def test_a_deadline_that_passes_is_told(tables: Served) -> None:
    request = {"model_spec": spec("m", "slow"), "inputs": {"x": floats(1)}}
    data = tables.protos.request("Predict", request)

    with pytest.raises(grpc.RpcError) as raised:
        tables.channel.unary_unary(PREDICT_METHOD)(data, timeout=0.3)

    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert tables.call("Predict", {"model_spec": spec(), "inputs": X})[0] == "OK"


def test_a_large_tensor_passes_both_ways(tables: Served) -> None:
    content = {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": 5_000_000}]},
        "float_val": [1],
    }

    data = tables.protos.request("Predict", {"model_spec": spec(), "inputs": {"x": content}})

    answer = tables.channel.unary_unary(PREDICT_METHOD)(data, timeout=60)

    assert PredictResponse.from_bytes(answer).outputs["y"].tolist() == [2.5] * 5_000_000


@pytest.mark.parametrize("method", ["Explain", "SessionRun"])
@pytest.mark.parametrize("service", ["PredictionService", "SessionService"])
def test_what_is_not_offered_is_unimplemented(tables: Served, service: str, method: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        tables.channel.unary_unary(f"/tensorflow.serving.{service}/{method}")(b"", timeout=60)

    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", ["Predict", "Classify", "MultiInference", "GetModelStatus"])
def test_bytes_that_are_no_message_are_refused(tables: Served, method: str) -> None:
    code, _, _ = tables.call_bytes(method, b"\xff\xff")

    assert code in ("INVALID_ARGUMENT", "INTERNAL")


def test_reflection_lists_the_services(tables: Served) -> None:
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
        ProtoReflectionDescriptorDatabase,
    )

    database: Any = ProtoReflectionDescriptorDatabase(tables.channel)

    services = set(database.get_services())

    assert {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
    } <= services
