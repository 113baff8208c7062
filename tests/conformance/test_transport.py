"""The gRPC edge beside its answers: 2.2, 4.9 and 4.10, on servers with flags of their own."""

import http.client
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlops_mini.wire import PREDICT_METHOD, PredictResponse
from tests.certificates import Pair
from tests.serving.servers import (
    Server,
    copy_version,
    predict_request,
    publish_numbered,
    start_main,
    wait_until,
)
from tests.serving.test_server_versions import model_list, reload_request

StartServer = Callable[..., Server]

SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)
REQUEST = predict_request("x", np.zeros(1, np.float32))


def predict(channel: grpc.Channel, request: bytes = REQUEST, timeout_s: float = 30.0) -> Any:
    """Ask once, and close the channel."""
    with channel:
        answer = channel.unary_unary(PREDICT_METHOD)(request, timeout=timeout_s)
        return {k: v.tolist() for k, v in PredictResponse.from_bytes(answer).outputs.items()}


def ended(argv: list[str], folder: Path) -> tuple[int | None, str]:
    """Start what cannot start; return its status and all that it wrote."""
    process = start_main(argv, folder / "log")
    process.join(60)
    status = process.exitcode
    process.kill()
    return status, (folder / "log").read_text()


def channel_credentials(root: Pair, pair: Pair | None) -> grpc.ChannelCredentials:
    """Make the credentials of a client that shows this pair and trusts that root."""
    shown = (pair.key.encode(), pair.certificate.encode()) if pair else ()
    return grpc.ssl_channel_credentials(root.certificate.encode(), *shown)


def ssl_config(file: Path, **fields: Any) -> str:
    """Write an SSLConfig; return the flag."""
    texts = {name: json.dumps(value) for name, value in fields.items()}  # escapes as text protos do
    file.write_text("\n".join(f"{name}: {text}" for name, text in texts.items()))
    return f"--ssl_config_file={file}"


def tls_flag(file: Path, pairs: dict[str, Pair], *, client_verify: bool) -> str:
    """Write the SSLConfig of a server that `ca` vouches for; return the flag."""
    return ssl_config(
        file,
        server_key=pairs["server"].key,
        server_cert=pairs["server"].certificate,
        custom_ca=pairs["ca"].certificate,
        client_verify=client_verify,
    )


@pytest.mark.parametrize("client_verify", [False, True])
def test_with_keys_the_port_speaks_tls_and_may_ask_for_the_clients(
    pairs: dict[str, Pair],
    toy_models: Path,
    tmp_path: Path,
    start_server: StartServer,
    client_verify: bool,
) -> None:
    ca, other, client = (pairs[name] for name in ("ca", "other", "client"))
    flag = tls_flag(tmp_path / "ssl", pairs, client_verify=client_verify)
    server = start_server(toy_models / "toy", flag, f"--grpc_socket_path={tmp_path}/s")
    server.wait_for(1)  # asked over REST, which stays plain

    for credentials, is_served in (
        (channel_credentials(ca, client), True),
        (channel_credentials(ca, None), not client_verify),
        (channel_credentials(ca, other), not client_verify),
        (channel_credentials(other, client), False),
        (None, False),
    ):
        channel = (
            grpc.secure_channel(server.grpc, credentials)
            if credentials
            else grpc.insecure_channel(server.grpc)
        )
        if is_served:
            assert predict(channel) == {"y": [2.0]}
            continue
        with pytest.raises(grpc.RpcError) as raised:
            predict(channel)
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    with pytest.raises(grpc.RpcError):
        predict(grpc.insecure_channel(f"unix:{tmp_path}/s"))


@pytest.mark.parametrize("client_verify", [False, True])
def test_clients_that_show_a_certificate_may_change_the_models_from_anywhere(
    pairs: dict[str, Pair],
    toy_models: Path,
    tmp_path: Path,
    start_server: StartServer,
    client_verify: bool,
) -> None:
    flag = tls_flag(tmp_path / "ssl", pairs, client_verify=client_verify)
    server = start_server(toy_models / "toy", flag, "--bind_address=0.0.0.0")
    address = server.grpc.replace("0.0.0.0", "127.0.0.1")
    credentials = channel_credentials(pairs["ca"], pairs["client"])
    with grpc.secure_channel(address, credentials) as channel:
        call = channel.unary_unary("/tensorflow.serving.ModelService/HandleReloadConfigRequest")
        request = reload_request(model_list(m=toy_models / "toy"))
        if client_verify:
            call(request, timeout=60)
            return
        with pytest.raises(grpc.RpcError) as raised:
            call(request, timeout=60)

    assert raised.value.code() == grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"server_key": "no key"}, "server_key and server_cert must be a pair of PEM texts"),
        ({"server_cert": "none"}, "server_key and server_cert must be a pair of PEM texts"),
        ({"server_key": ""}, "server_key and server_cert must be a pair of PEM texts"),
        ({"custom_ca": "none", "client_verify": True}, "custom_ca empty or PEM text"),
        ({"client_verify": True}, "client_verify needs a custom_ca"),
        ({"keys": "x"}, "Invalid protobuf file: "),
    ],
    ids=str,
)
def test_keys_that_cannot_be_used_end_the_start(
    pairs: dict[str, Pair], tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    pair = pairs["server"]
    given = {"server_key": pair.key, "server_cert": pair.certificate, **fields}
    flag = ssl_config(tmp_path / "ssl", **given)

    status, log = ended(
        [f"--model_base_path={tmp_path}", "--port=0", f"--address_file={tmp_path}/a", flag],
        tmp_path,
    )

    assert status == 255
    assert "Failed to start server. Error: INVALID_ARGUMENT: " in log
    assert words in log
    assert "Traceback" not in log


def test_a_unix_socket_answers_beside_the_port_and_with_any_channel_argument(
    tmp_path: Path, toy_models: Path, start_server: StartServer
) -> None:
    arguments = (
        "grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb,grpc.so_reuseaddr=1,"
        "grpc.max_send_message_length=1000,no.such=argument"
    )
    server = start_server(
        toy_models / "toy",
        f"--grpc_socket_path={tmp_path}/s",
        f"--grpc_channel_arguments={arguments}",
    )
    server.wait_for(1)

    for address in (f"unix:{tmp_path}/s", server.grpc):
        assert predict(grpc.insecure_channel(address)) == {"y": [2.0]}
    with pytest.raises(grpc.RpcError) as raised:  # so they do reach gRPC
        predict(
            grpc.insecure_channel(server.grpc), predict_request("x", np.zeros(1000, np.float32))
        )
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_predict_works_over_a_unix_socket_alone(toy_models: Path, tmp_path: Path) -> None:
    argv = [
        f"--model_base_path={toy_models / 'toy'}", "--model_name=m", "--port=0",
        f"--grpc_socket_path={tmp_path}/s",
    ]  # fmt: skip
    process = start_main(argv, tmp_path / "log")
    log = tmp_path / "log"
    try:
        wait_until(lambda: log.exists() and "Entering the event loop" in log.read_text(), "start")
        assert predict(grpc.insecure_channel(f"unix:{tmp_path}/s")) == {"y": [2.0]}
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("arguments", ["b", "a=1,b", "a=1,,b"])
def test_a_channel_argument_without_a_value_ends_the_start(tmp_path: Path, arguments: str) -> None:
    status, log = ended(
        [f"--model_base_path={tmp_path}", f"--address_file={tmp_path}/a", "--port=0",
         f"--grpc_channel_arguments={arguments}"], tmp_path,
    )  # fmt: skip

    assert status == 255
    assert "INVALID_ARGUMENT: --grpc_channel_arguments: b is no key=value" in log


@pytest.mark.parametrize(
    ("bind_address", "client_host"), [("::1", "::1"), ("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1")]
)
def test_both_ports_listen_where_they_are_told(
    toy_models: Path, start_server: StartServer, bind_address: str, client_host: str
) -> None:
    server = start_server(toy_models / "toy", f"--bind_address={bind_address}")
    shown = f"[{bind_address}]" if ":" in bind_address else bind_address
    host, port = server.rest.rsplit(":", 1)
    assert (host, server.grpc.rsplit(":", 1)[0]) == (shown, shown)
    rest = http.client.HTTPConnection(client_host, int(port), timeout=30)

    def is_loaded() -> bool:
        rest.request("GET", "/readyz")
        answer = rest.getresponse()
        answer.read()
        return answer.status == 200

    wait_until(is_loaded, f"version 1, see {server.log_file}")
    rest.close()
    client = f"[{client_host}]" if ":" in client_host else client_host
    address = f"{client}:{server.grpc.rsplit(':', 1)[1]}"
    assert predict(grpc.insecure_channel(address)) == {"y": [2.0]}
    assert f"Running gRPC ModelServer at {server.grpc} ..." in server.log_file.read_text()


def _health(stub: Any, service: str) -> Any:
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status


def test_health_follows_the_models_and_ends_with_the_server(
    tmp_path: Path, toy_models: Path, start_server: StartServer
) -> None:
    base = tmp_path / "m"
    base.mkdir()
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
        for service in ("tensorflow.serving.ModelService", "M", "zz"):
            with pytest.raises(grpc.RpcError) as raised:
                _health(stub, service)
            assert raised.value.code() == grpc.StatusCode.NOT_FOUND
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="zz"), timeout=60)
        assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

        assert server.stop() == 0
        assert next(watching).status == NOT_SERVING


def test_health_is_not_there_unless_it_is_asked_for(toy_server: Server) -> None:
    with grpc.insecure_channel(toy_server.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
        for ask in (lambda: _health(stub, ""), lambda: next(watching)):
            with pytest.raises(grpc.RpcError) as raised:
                ask()
            assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_deadline_ends_the_run_itself(
    tmp_path: Path, toy_models: Path, start_server: StartServer
) -> None:
    copy_version(toy_models / "slow" / "1", tmp_path / "1")
    server = start_server(tmp_path, "--rest_api_timeout_in_ms=600000")
    server.wait_for(1)
    half_an_hour = predict_request("n", np.array([2**30], np.int32))
    with pytest.raises(grpc.RpcError) as raised:
        predict(grpc.insecure_channel(server.grpc), half_an_hour, timeout_s=0.3)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED

    shutil.rmtree(tmp_path / "1")

    server.wait_for(1, "END")  # which it cannot reach while a run holds it
