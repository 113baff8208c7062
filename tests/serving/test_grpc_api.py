"""The gRPC edge beside its answers: addresses, keys, health, reflection, limits."""

import datetime as dt
import ipaddress
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.serving import grpc_api
from mlops_mini.wire import PREDICT_METHOD, ModelSpec, PredictRequest, PredictResponse
from tests.serving.servers import Server, copy_version, predict_request, publish_numbered

StartServer = Callable[..., Server]

SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)


def _predict(channel: grpc.Channel, request: bytes, timeout_s: float = 30.0) -> Any:
    with channel:
        answer = channel.unary_unary(PREDICT_METHOD)(request, timeout=timeout_s)
        return PredictResponse.from_bytes(answer).outputs


@pytest.fixture
def one(base: Path, toy_models: Path) -> Path:
    """A base path with version 1."""
    publish_numbered(toy_models, base, 1)
    return base


def test_a_unix_socket_answers_beside_the_port_and_with_any_channel_argument(
    one: Path, tmp_path: Path, start_server: StartServer
) -> None:
    arguments = "grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb,grpc.so_reuseport=0"
    server = start_server(
        one, f"--grpc_socket_path={tmp_path}/s", f"--grpc_channel_arguments={arguments}"
    )
    server.wait_for(1)

    for address in (f"unix:{tmp_path}/s", server.grpc):
        outputs = _predict(
            grpc.insecure_channel(address), predict_request("x", np.zeros(1, np.float32))
        )
        assert outputs["version"].tolist() == [1.0]


def test_channel_arguments_are_numbers_where_they_read_as_int32() -> None:
    assert grpc_api._options("a=1,b=x,c=-5,d=9999999999,e=,f=1=2") == [
        ("a", 1), ("b", "x"), ("c", -5), ("d", "9999999999"), ("e", ""), ("f", "1=2"),
    ]  # fmt: skip
    assert grpc_api._options("") == []
    with pytest.raises(InvalidArgumentError, match="--grpc_channel_arguments: b is no key=value"):
        grpc_api._options("a=1,b")


def _certificate(name: str) -> tuple[str, str]:
    """Make a key and a certificate that it has signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode(), certificate.public_bytes(encoding).decode()


def _text_field(name: str, pem: str) -> str:
    return f'{name}: "{pem}"'.replace("\n", "\\n")


def test_with_keys_the_port_speaks_tls_and_may_ask_for_the_clients(
    one: Path, tmp_path: Path, start_server: StartServer
) -> None:
    (server_key, server_cert), (client_key, client_cert) = _certificate("s"), _certificate("c")
    file = tmp_path / "ssl.pbtxt"
    keys = [_text_field("server_key", server_key), _text_field("server_cert", server_cert)]
    file.write_text(
        "\n".join([*keys, _text_field("custom_ca", client_cert), "client_verify: true"])
    )
    server = start_server(one, f"--ssl_config_file={file}")
    server.wait_for(1)
    request = predict_request("x", np.zeros(1, np.float32))

    root = server_cert.encode()
    known = grpc.ssl_channel_credentials(root, client_key.encode(), client_cert.encode())
    outputs = _predict(grpc.secure_channel(server.grpc, known), request)

    assert outputs["version"].tolist() == [1.0]
    for unknown in (
        grpc.secure_channel(server.grpc, grpc.ssl_channel_credentials(root)),
        grpc.insecure_channel(server.grpc),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            _predict(unknown, request)
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


def _health(stub: Any, service: str) -> Any:
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status


def test_health_follows_the_models_and_ends_with_the_server(
    base: Path, toy_models: Path, start_server: StartServer
) -> None:
    server = start_server(base, "--enable_grpc_healthcheck_service")
    with grpc.insecure_channel(server.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watching: Iterator[Any] = stub.Watch(health_pb2.HealthCheckRequest(service="m"), timeout=60)
        services = ("", "ModelService", "PredictionService", "m")
        assert [_health(stub, service) for service in services] == [NOT_SERVING] * 4
        assert next(watching).status == NOT_SERVING

        publish_numbered(toy_models, base, 1)

        assert next(watching).status == SERVING
        assert [_health(stub, service) for service in services] == [SERVING] * 4
        with pytest.raises(grpc.RpcError) as raised:
            _health(stub, "tensorflow.serving.ModelService")
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND

        assert server.stop() == 0
        assert next(watching).status == NOT_SERVING


def test_health_is_not_there_unless_it_is_asked_for(toy_server: Server) -> None:
    with (
        grpc.insecure_channel(toy_server.grpc) as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        _health(health_pb2_grpc.HealthStub(channel), "")

    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_reflection_lists_the_services_and_describes_them(toy_server: Server) -> None:
    def ask(**question: str) -> Any:
        request = reflection_pb2.ServerReflectionRequest(**question)
        return next(stub.ServerReflectionInfo(iter([request]), timeout=30))

    with grpc.insecure_channel(toy_server.grpc) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        listed = [s.name for s in ask(list_services="").list_services_response.service]
        found = ask(file_containing_symbol="tensorflow.serving.PredictionService")
        unknown = ask(file_containing_symbol="no.such.Service")

    assert listed == [
        "grpc.reflection.v1alpha.ServerReflection",
        "tensorflow.serving.ModelService",
        "tensorflow.serving.PredictionService",
    ]
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(file)
        for file in found.file_descriptor_response.file_descriptor_proto
    ]
    methods = {m.name for file in files for service in file.service for m in service.method}
    assert {"Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"} <= methods
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_a_message_over_1024_bytes_is_cut(toy_server: Server) -> None:
    spec = ModelSpec(name="m", signature_name="é" * 1000)
    with pytest.raises(grpc.RpcError) as raised:
        _predict(
            grpc.insecure_channel(toy_server.grpc),
            PredictRequest(model_spec=spec, inputs={}).to_bytes(),
        )

    details = raised.value.details()
    assert details.startswith('Serving signature key "éé')
    assert details.endswith("é...TRUNCATED")
    assert len(details.removesuffix("...TRUNCATED").encode()) in (1023, 1024)


def test_a_message_of_many_megabytes_passes(toy_server: Server) -> None:
    spec = ModelSpec(name="m", signature_name="float")
    x = np.arange(4_000_000, dtype=np.float32)
    no_limit = [("grpc.max_receive_message_length", -1)]
    channel = grpc.insecure_channel(toy_server.grpc, options=no_limit)

    outputs = _predict(channel, PredictRequest(model_spec=spec, inputs={"x": x}).to_bytes())

    np.testing.assert_array_equal(outputs["y"], x)


def test_a_deadline_ends_the_run_itself(
    base: Path, toy_models: Path, start_server: StartServer
) -> None:
    copy_version(toy_models / "slow" / "1", base / "1")
    server = start_server(base, "--rest_api_timeout_in_ms=600000")
    server.wait_for(1)
    with pytest.raises(grpc.RpcError) as raised:
        _predict(
            grpc.insecure_channel(server.grpc),
            predict_request("n", np.int32([2**30])),  # half an hour
            timeout_s=0.3,
        )
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED

    shutil.rmtree(base / "1")

    server.wait_for(1, "END")  # which it cannot reach while a run holds it
