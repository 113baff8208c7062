"""What a client sees over gRPC, in TensorFlow Serving's own messages."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mlops_mini.wire import PREDICT_METHOD, ModelSpec, PredictRequest, PredictResponse
from tests.conformance import (
    grpc_cases,
    grpc_example_cases,
    grpc_other_cases,
    order_cases,
    tensor_cases,
)
from tests.conformance.grpc_cases import ONE, GrpcCase, X, floats, spec, tensor
from tests.conformance.protos import Protos
from tests.conformance.served import Served, serve_tables

_TABLES = (grpc_cases, tensor_cases, grpc_example_cases, grpc_other_cases)


@pytest.mark.parametrize(
    "case", [case for table in _TABLES for case in table.ALL] + order_cases.GRPC, ids=str
)
def test_the_tables_hold(tables: Served, case: GrpcCase) -> None:
    code, message, response = tables.call(case.method, case.request)

    if isinstance(case.answer, str):
        begin, dots, end = case.answer.rpartition("...")
        if dots:
            message = f"{message[: len(begin)]}...{message[len(message) - len(end) :]}"
        assert (code, message) == (case.code, case.answer)
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


@pytest.mark.parametrize(
    ("asked", "version"),
    [({}, "3"), ({"version": "1"}, "1"), ({"version_label": "stable"}, "2")],
    ids=str,
)
def test_the_metadata_echo_has_the_version_and_no_signature(
    tables: Served, asked: dict[str, str], version: str
) -> None:
    request = {"model_spec": spec("numbered", "zz", **asked), "metadata_field": ["signature_def"]}

    code, _, response = tables.call("GetModelMetadata", request)

    assert (code, response["model_spec"]) == ("OK", {"name": "numbered", "version": version})


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


def test_64_mebibytes_pass_both_ways(tables: Served) -> None:
    x = np.arange(2**24, dtype=np.float32)
    asked = ModelSpec(name="toy", signature_name="float")
    data = PredictRequest(model_spec=asked, inputs={"x": x}).to_bytes()

    answer = tables.channel.unary_unary(PREDICT_METHOD)(data, timeout=60)

    np.testing.assert_array_equal(PredictResponse.from_bytes(answer).outputs["y"], x)


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


def test_reflection_lists_the_services_and_describes_them(tables: Served) -> None:
    def ask(**question: str) -> Any:
        request = reflection_pb2.ServerReflectionRequest(**question)
        return next(stub.ServerReflectionInfo(iter([request]), timeout=30))

    stub: Any = reflection_pb2_grpc.ServerReflectionStub(tables.channel)
    listed = {s.name for s in ask(list_services="").list_services_response.service}
    found = ask(file_containing_symbol="tensorflow.serving.PredictionService")
    unknown = ask(file_containing_symbol="no.such.Service")

    assert {
        "grpc.reflection.v1alpha.ServerReflection",
        "tensorflow.serving.ModelService",
        "tensorflow.serving.PredictionService",
    } <= listed
    assert "grpc.health.v1.Health" not in listed
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(file)
        for file in found.file_descriptor_response.file_descriptor_proto
    ]
    methods = {m.name for file in files for service in file.service for m in service.method}
    assert {"Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"} <= methods
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.fixture(scope="module")
def flagged(
    table_models: Path, serving_protos: Protos, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The models of the tables behind the two flags that change what gRPC answers."""
    flags = (
        "--enable_serialization_as_tensor_content",
        "--enable_signature_method_name_check",
    )
    folder = tmp_path_factory.mktemp("flagged")
    with serve_tables(table_models, folder, serving_protos, *flags) as (_, served):
        yield served


@pytest.mark.parametrize(
    ("signature", "field", "values", "array"), tensor_cases.TYPES, ids=lambda value: str(value)[:9]
)
@pytest.mark.parametrize("shape", [[1, 2], [], [2, 0]], ids=str)
def test_on_request_every_output_is_content(
    flagged: Served, signature: str, field: str, values: list[Any], array: Any, shape: list[int]
) -> None:
    name = "kinds" if signature == "bfloat16" else "toy"
    sent = tensor(signature.upper(), (field, values), shape)

    code, message, response = flagged.call(
        "Predict", {"model_spec": spec(name, signature), "inputs": {"x": sent}}
    )

    n = int(np.prod(shape))
    # Of text the lengths, then the bytes.
    content = (b"", b"\2a\0", b"\2\1a\0\xff")[n] if array is None else array[:n].tobytes()
    assert (code, message) == ("OK", "")
    assert response["outputs"]["y"] == tensor(
        signature.upper(),
        ("", []),
        shape,
        **({"tensor_content": base64.b64encode(content).decode()} if content else {}),
    )


def test_on_request_text_is_its_lengths_and_then_its_bytes(flagged: Served) -> None:
    texts = [base64.b64encode(text).decode() for text in (b"", b"x" * 200)]
    sent = tensor("STRING", ("string_val", texts))

    _, _, response = flagged.call(
        "Predict", {"model_spec": spec("toy", "string"), "inputs": {"x": sent}}
    )

    content = base64.b64decode(response["outputs"]["y"]["tensor_content"])
    assert content == b"\0\xc8\1" + b"x" * 200


_KIND = "Expected {} signature method_name to be tensorflow/serving/{}. Was: tensorflow/serving/"


@pytest.mark.parametrize(
    ("method", "request_", "text"),
    [
        (
            "Classify",
            {"model_spec": spec("half_plus_two", "regress_x_to_y"), "input": ONE},
            f"{_KIND.format('classification', 'classify')}regress",
        ),
        (
            "Regress",
            {"model_spec": spec("half_plus_two"), "input": ONE},
            f"{_KIND.format('regression', 'regress')}predict",
        ),
        (
            "Regress",
            {"model_spec": spec("half_plus_two", "zz"), "input": ONE},
            "No signature was found with the name: zz",
        ),
        (
            "MultiInference",
            {
                "tasks": [
                    {
                        "model_spec": spec("half_plus_two", "regress_x_to_y"),
                        "method_name": "tensorflow/serving/classify",
                    }
                ],
                "input": ONE,
            },
            f"{_KIND.format('classification', 'classify')}regress",
        ),
        ("Regress", {"model_spec": spec("half_plus_two", "regress_x_to_y"), "input": ONE}, ""),
        ("Classify", {"model_spec": spec("half_plus_two", "classify_x_to_y"), "input": ONE}, ""),
    ],
    ids=str,
)
def test_on_request_a_signature_must_be_exported_for_its_method(
    flagged: Served, method: str, request_: Any, text: str
) -> None:
    code, message, _ = flagged.call(method, request_)

    assert (code, message) == ("INVALID_ARGUMENT" if text else "OK", text)
