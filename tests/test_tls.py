"""Both clients through TLS: a real proxy in front of a real server, and the server's own TLS."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_mini.client import GrpcClient, RestClient
from mlops_mini.errors import (
    HandshakeError,
    InvalidArgumentError,
    UnavailableError,
)
from mlops_mini.tls import Tls
from tests.certificates import Pair, tls_proxy, with_passphrase, write_pairs
from tests.serving.servers import Server

CLIENTS = {"rest": RestClient, "grpc": GrpcClient}
X = {"x": np.float32([1])}


@pytest.fixture(params=["rest", "grpc"])
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def pem(pairs: dict[str, Pair], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `NAME.pem` and `NAME.key` of each pair."""
    return write_pairs(tmp_path_factory.mktemp("pem"), pairs)


def tls(pem: Path, ca: str = "ca", own: str = "", server_name: str = "") -> Tls:
    return Tls(
        ca=pem / f"{ca}.pem" if ca else None,
        certificate=pem / f"{own}.pem" if own else None,
        key=pem / f"{own}.key" if own else None,
        server_name=server_name,
    )


@pytest.mark.parametrize(
    ("server_pair", "verify", "given"),
    [
        ("server", False, {}),
        ("server", False, {"own": "client"}),
        ("server", True, {"own": "client"}),
        ("named", False, {"server_name": "server.example"}),
        ("server", False, {"ca": "server"}),
    ],
    ids=str,
)
def test_a_trusted_server_is_asked(
    transport: str,
    toy_server: Server,
    pem: Path,
    server_pair: str,
    verify: bool,
    given: dict[str, str],
) -> None:
    with (
        tls_proxy(getattr(toy_server, transport), pem, server_pair, verify=verify) as proxy,
        CLIENTS[transport](proxy.address, model="m", tls=tls(pem, **given)) as client,
    ):
        assert client.predict(X)["y"].tolist() == [2.5]
        assert client.metadata().version == 1
        assert client.versions() == {1: "AVAILABLE"}


@pytest.mark.parametrize(
    ("server_pair", "verify", "given", "words"),
    [
        ("server", False, {"ca": "other"}, r"signed by nobody known: .* Tls\(ca=\)"),
        ("server", False, {"ca": ""}, r"signed by nobody known: .* Tls\(ca=\)"),
        ("named", False, {}, r"for another name: .* Tls\(server_name=\)"),
        ("server", False, {"server_name": "zz"}, r"for another name: .* Tls\(server_name=\)"),
        ("expired", False, {}, "has expired"),
        ("server", True, {}, r"Tls\(certificate=, key=\)"),
        ("server", True, {"own": "stranger"}, "that it trusts|does not trust .*stranger.pem"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_certificate_is_told(
    transport: str,
    toy_server: Server,
    pem: Path,
    server_pair: str,
    verify: bool,
    given: dict[str, str],
    words: str,
) -> None:
    # When the server closes the connection, its reasons are unknown, so it is asked again.
    retry_s = 0.2 if verify else 60
    with (
        tls_proxy(getattr(toy_server, transport), pem, server_pair, verify=verify) as proxy,
        CLIENTS[transport](
            proxy.address, model="m", tls=tls(pem, **given), retry_s=retry_s
        ) as client,
        pytest.raises(UnavailableError, match=words) as raised,
    ):
        client.versions(timeout_s=60)
    assert proxy.address in str(raised.value)
    if not verify:
        assert isinstance(raised.value, HandshakeError)
        assert proxy.n_connections < 5  # gRPC may try again by itself, until it is closed


def test_a_server_that_speaks_no_tls_is_told(transport: str, toy_server: Server, pem: Path) -> None:
    address = getattr(toy_server, transport)
    with (
        CLIENTS[transport](address, model="m", tls=tls(pem), retry_s=60) as client,
        pytest.raises(HandshakeError, match="it speaks no TLS: leave tls out"),
    ):
        client.predict(X, timeout_s=60)


def test_a_server_that_speaks_tls_is_told(transport: str, toy_server: Server, pem: Path) -> None:
    with (
        tls_proxy(getattr(toy_server, transport), pem, "server") as proxy,
        CLIENTS[transport](proxy.address, model="m", retry_s=0.2) as client,
        pytest.raises(UnavailableError, match=r"a server that speaks TLS closes .* give tls="),
    ):
        client.versions(timeout_s=60)


@pytest.mark.parametrize("client_verify", [False, True])
def test_the_servers_own_tls_is_spoken(
    pairs: dict[str, Pair],
    pem: Path,
    toy_models: Path,
    tmp_path: Path,
    start_server: Callable[..., Server],
    client_verify: bool,
) -> None:
    fields: dict[str, Any] = {
        "server_key": pairs["server"].key,
        "server_cert": pairs["server"].certificate,
        "custom_ca": pairs["ca"].certificate,
        "client_verify": client_verify,
    }
    (tmp_path / "ssl").write_text("\n".join(f"{k}: {json.dumps(v)}" for k, v in fields.items()))
    server = start_server(toy_models / "toy", f"--ssl_config_file={tmp_path}/ssl")
    server.wait_for(1)

    with GrpcClient(server.grpc, model="m", tls=tls(pem, own="client")) as client:
        assert client.predict(X)["y"].tolist() == [2.5]
    if client_verify:
        with (
            GrpcClient(server.grpc, model="m", tls=tls(pem), retry_s=0.2) as client,
            pytest.raises(UnavailableError, match=r"give Tls\(certificate=, key=\) if it does"),
        ):
            client.versions()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"ca": "gone"}, "tls cannot use ca .*gone: .*No such file"),
        ({"ca": "."}, "tls cannot use ca .*: .*; give a PEM file of certificates"),
        ({"ca": "empty"}, "tls cannot use ca .*empty: .*; give a PEM file of certificates"),
        ({"ca": "client.key"}, "tls cannot use ca .*client.key: .*; give a PEM file of"),
        ({"ca": "half"}, "tls cannot use ca .*half: .*; give a PEM file of certificates"),
        ({"ca": "nul\0"}, "tls cannot use ca "),
        ({"certificate": "client.pem", "key": "gone"}, "client.pem with key .*gone: "),
        ({"certificate": "client.pem", "key": "server.key"}, "key values mismatch .*; give PEM"),
        ({"certificate": "client.key", "key": "client.key"}, "; give PEM files that belong"),
        ({"certificate": "client.pem", "key": "locked.key"}, "the key without a passphrase"),
    ],
    ids=str,
)
def test_files_that_cannot_be_used_are_refused_at_once(
    transport: str, pairs: dict[str, Pair], tmp_path: Path, files: dict[str, str], words: str
) -> None:
    write_pairs(tmp_path, pairs)
    (tmp_path / "empty").touch()
    (tmp_path / "half").write_text(pairs["ca"].certificate[:200])
    (tmp_path / "locked.key").write_text(with_passphrase(pairs["client"].key))
    given = Tls(**{name: tmp_path / file for name, file in files.items()})

    with pytest.raises(InvalidArgumentError, match=words):
        CLIENTS[transport]("127.0.0.1:1", model="m", tls=given)


@pytest.mark.parametrize("alone", ["certificate", "key"])
def test_a_certificate_without_its_key_is_refused(alone: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"belong together, got .*: give both files"):
        Tls(**{alone: Path("client.pem")})


@pytest.mark.parametrize("given", [True, "ca.pem", Path("ca.pem")])
def test_something_else_than_tls_is_refused(transport: str, given: Any) -> None:
    with pytest.raises(
        InvalidArgumentError, match=re.escape(f"such as Tls(ca=...), got {given!r}")
    ):
        CLIENTS[transport]("127.0.0.1:1", model="m", tls=given)
