"""The clients of TensorFlow Serving's own tutorials, written anew, and ours, against both edges."""

import base64
import struct
import threading
import zlib
from typing import Any

import grpc
import numpy as np
import pytest

from mlops_mini.client import GrpcClient, RestClient
from mlops_mini.errors import InvalidArgumentError, NotFoundError
from tests.conformance import protos
from tests.conformance.served import Served

FORM = {"Content-Type": "application/x-www-form-urlencoded", "User-Agent": "curl/8.5.0"}


def _png(gray: int) -> bytes:
    """Encode an image of 4 by 4 equal pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes([gray] * 4)) * 4)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_the_first_curl_of_the_tutorial_works(tables: Served) -> None:
    body = '{"instances": [1.0, 2.0, 5.0]}'

    reply = tables.ask("POST", "/v1/models/half_plus_two:predict", body, FORM)

    assert (reply.status, reply.json) == (200, {"predictions": [2.5, 3.0, 4.5]})


def test_an_image_is_classified_over_rest(tables: Served) -> None:
    code = base64.b64encode(_png(200)).decode()

    for instance in (f'{{"b64": "{code}"}}', f'{{"image_bytes": {{"b64": "{code}"}}}}'):
        body = f'{{"instances" : [{instance}]}}'
        reply = tables.ask("POST", "/v1/models/photos:predict", body)
        prediction = reply.json["predictions"][0]
        assert prediction["classes"] == 1
        assert prediction["probabilities"][1] == pytest.approx(200 / 255)


def test_an_image_is_classified_over_grpc(tables: Served) -> None:
    request = tables.protos.message("PredictRequest")
    request.model_spec.name = "photos"
    request.model_spec.signature_name = "serving_default"
    request.inputs["image_bytes"].dtype = 7
    request.inputs["image_bytes"].tensor_shape.dim.add(size=1)
    request.inputs["image_bytes"].string_val.append(_png(10))
    predict = tables.channel.unary_unary(
        protos.path("Predict"),
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=type(tables.protos.message("PredictResponse")).FromString,
    )

    result = predict(request, timeout=10)

    assert list(result.outputs["classes"].int64_val) == [0]
    assert result.outputs["probabilities"].float_val[1] == pytest.approx(10 / 255)


def test_many_digits_are_asked_for_at_once(tables: Served) -> None:
    answered, errors, done = [], [], threading.Semaphore(0)

    def note(future: grpc.Future, label: int) -> None:
        if future.exception():
            errors.append(future.exception())
        else:
            scores = tables.protos.response("Predict", future.result())["outputs"]["scores"]
            answered.append(int(np.argmax(scores["float_val"])) == label)
        done.release()

    call = tables.channel.unary_unary(protos.path("Predict"))
    for number in range(100):
        pixels = np.zeros(784)
        pixels[number % 10] = 1
        image = {
            "dtype": "DT_FLOAT",
            "tensor_shape": {"dim": [{"size": 1}, {"size": 784}]},
            "float_val": pixels.tolist(),
        }
        spec = {"name": "photos", "signature_name": "predict_images"}
        data = tables.protos.request("Predict", {"model_spec": spec, "inputs": {"images": image}})
        future = call.future(data, timeout=30)
        future.add_done_callback(lambda ended, label=number % 10: note(ended, label))
    for _ in range(100):
        assert done.acquire(timeout=30)

    assert (len(answered), all(answered), errors) == (100, True, [])


def _client(transport: str, tables: Served, model: str) -> Any:
    if transport == "rest":
        return RestClient(tables.rest, model=model)
    return GrpcClient(tables.grpc, model=model)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_our_client_finds_versions_and_labels(tables: Served, transport: str) -> None:
    x = {"x": np.float32([0, 0])}
    with _client(transport, tables, "numbered") as client:
        for given, number in (
            ({}, 3),
            ({"version": 1}, 1),
            ({"label": "stable"}, 2),
            ({"label": "canary"}, 3),
        ):
            answer = client.predict(x, **given)
            assert (answer["version"].tolist(), answer.version) == ([number] * 2, number)
            assert client.metadata(**given).version == number
        assert client.versions() == {3: "AVAILABLE", 2: "AVAILABLE", 1: "AVAILABLE"}
        with pytest.raises(NotFoundError, match=r"Servable not found .*: Specific\(numbered, 9\)"):
            client.predict(x, label="gone")
        with pytest.raises(InvalidArgumentError, match="Unrecognized servable version label: zz"):
            client.metadata(label="zz")


@pytest.mark.parametrize("model", ["m", "half_plus_two", "examples", "toy"])
def test_our_client_reads_the_same_metadata_over_both_edges(tables: Served, model: str) -> None:
    with _client("rest", tables, model) as rest, _client("grpc", tables, model) as over_grpc:
        metadata = rest.metadata()

        assert metadata == over_grpc.metadata()
        assert "serving_default" in metadata.signatures
        assert rest.versions() == over_grpc.versions()
