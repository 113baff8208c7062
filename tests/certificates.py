"""Keys and certificates made anew for each run, and a real program that speaks TLS with them."""

import datetime as dt
import ipaddress
import select
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# Who signed whom: `ca` and `other` themselves; `stranger` is signed by `other`, all else by `ca`.
_ISSUERS = {"ca": "ca", "other": "other", "stranger": "other"}
_ADDRESS = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


@dataclass(frozen=True)
class Pair:
    """A key and its certificate, PEM."""

    key: str
    certificate: str


def make_pairs() -> dict[str, Pair]:
    """Make all; `server` is for 127.0.0.1, `named` for server.example, `expired` is too old."""
    made: dict[str, tuple[Any, Any]] = {}
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    for name in ("ca", "other", "server", "client", "stranger", "named", "expired"):
        key = ec.generate_private_key(ec.SECP256R1())
        issuer_name = _ISSUERS.get(name, "ca")
        issuer_key, issuer = made.get(issuer_name, (key, None))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        host = x509.DNSName("server.example") if name == "named" else _ADDRESS
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 3 * day)
            .not_valid_after(now - day if name == "expired" else now + day)
            .add_extension(x509.SubjectAlternativeName([host]), critical=False)
            .add_extension(x509.BasicConstraints(ca=not issuer, path_length=None), critical=True)
        )
        for extension in (  # Python 3.13 demands them
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
        ):
            certificate = certificate.add_extension(extension, critical=False)
        made[name] = key, certificate.sign(issuer_key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return {
        name: Pair(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain).decode(),
            certificate.public_bytes(pem).decode(),
        )
        for name, (key, certificate) in made.items()
    }


def write_pairs(folder: Path, pairs: Mapping[str, Pair]) -> Path:
    """Write `NAME.pem` and `NAME.key` for each."""
    for name, pair in pairs.items():
        (folder / f"{name}.pem").write_text(pair.certificate)
        (folder / f"{name}.key").write_text(pair.key)
    return folder


def with_passphrase(key: str) -> str:
    """Encrypt a key."""
    return (
        serialization.load_pem_private_key(key.encode(), None)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        .decode()
    )


@dataclass
class TlsProxy:
    """Where a proxy that speaks TLS listens, and how many connections it has accepted."""

    address: str
    n_connections: int = 0


@contextmanager
def tls_proxy(target: str, pem: Path, name: str, *, verify: bool = False) -> Iterator[TlsProxy]:
    """Speak TLS under a pair's name; pass what comes on to a plain server, and back.

    With `verify`, only clients with a certificate that `ca` has signed are let in.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem / f"{name}.pem", pem / f"{name}.key")
    context.set_alpn_protocols(["h2", "http/1.1"])
    if verify:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(pem / "ca.pem")
    host, port = target.split(":")
    listening = socket.create_server(("127.0.0.1", 0))
    proxy = TlsProxy(f"127.0.0.1:{listening.getsockname()[1]}")

    def accept() -> None:
        while True:
            try:
                accepted, _ = listening.accept()
            except OSError:  # shut down
                return
            proxy.n_connections += 1
            threading.Thread(target=serve, args=(accepted,), daemon=True).start()

    def serve(accepted: socket.socket) -> None:
        with accepted:
            try:
                secured = context.wrap_socket(accepted, server_side=True)
            except OSError:  # the client's words about it are what is tested
                return
            with secured, socket.create_connection((host, int(port))) as upstream:
                _forward(secured, upstream)

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield proxy
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join()
        listening.close()


def _forward(secured: ssl.SSLSocket, upstream: socket.socket) -> None:
    while True:
        both = [secured, upstream]
        ready = [secured] if secured.pending() else select.select(both, [], [])[0]
        for source in ready:
            try:
                data = source.recv(65536)
                (upstream if source is secured else secured).sendall(data)
            except OSError:
                return
            if not data:
                return
