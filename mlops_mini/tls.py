"""TLS of the clients: whom they trust, how they show who they are, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_mini.errors import HandshakeError, InvalidArgumentError, UnavailableError

if TYPE_CHECKING:
    import ssl

# Words of OpenSSL, of BoringSSL (inside gRPC) and of http.client; the first that fit are taken.
_NAME = "its certificate is for another name: give the one to expect as Tls(server_name=)"
_REFUSED = "it accepts only certificates that it trusts: give Tls(certificate=, key=)"
_WAYS_OUT = {
    "certificate is not valid for": _NAME,
    "Hostname Verification Check failed": _NAME,
    "certificate has expired": "its certificate has expired, or this machine's clock is wrong",
    "CERTIFICATE_VERIFY_FAILED": (
        "its certificate is signed by nobody known: give the file of who did as Tls(ca=)"
    ),
    "WRONG_VERSION_NUMBER": "it speaks no TLS: leave tls out, or use its TLS port",
    "ALERT_CERTIFICATE_REQUIRED": _REFUSED,
    "ALERT_UNKNOWN_CA": _REFUSED,
    "ALERT_BAD_CERTIFICATE": _REFUSED,
    "Failed parsing HTTP/2": "it speaks no HTTP/2: gRPC has a port of its own, often 8500",
    "BadStatusLine(": "it speaks no HTTP/1.1: REST has a port of its own, often 8501",
}
_CLOSED = (
    "Socket closed",
    "EOF occurred",
    "onnection reset",
    "RemoteDisconnected(",
    "Broken pipe",
    "Unwrap failed",  # an alert of TLS 1.3, which gRPC does not read
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tls:
    """How a client makes sure whom it talks to, and shows who it is itself.

    The server's certificate is always verified. There is no switch against it, since one that you
    made yourself can be trusted by its file: `Tls(ca=Path("server.pem"))`.

    Attributes:
        ca: PEM file with the certificates to trust; without it those that the libraries trust,
            which are the system's over REST and Mozilla's, as gRPC ships them, over gRPC.
        certificate: PEM file with the client's own certificate, for a server that asks for one;
            certificates of authorities between it and the server's follow it in the file.
        key: PEM file with the certificate's private key, without a passphrase.
        server_name: Name in the server's certificate, where that is not the address's host.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidArgumentError(
                f"certificate and key belong together, got {self.certificate} and {self.key}:"
                " give both files, or neither"
            )

    def context(self) -> ssl.SSLContext:
        """Read the files, for REST.

        Raises:
            InvalidArgumentError: A file cannot be read, or is not what it should be.
        """
        import ssl

        with _files(f"ca {self.ca}", "a PEM file of certificates"):
            context = ssl.create_default_context(cafile=self.ca)
        # Also what no authority has signed, as gRPC does, and Python itself from 3.13 on.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.certificate and self.key:
            pair = f"certificate {self.certificate} with key {self.key}"
            with _files(pair, "PEM files that belong together, the key without a passphrase"):
                # Without a password, a key that needs one would be asked for on the terminal.
                context.load_cert_chain(self.certificate, self.key, password="")
        return context

    def credentials(self) -> Any:
        """Read the files, as `grpc.ChannelCredentials`.

        Raises:
            InvalidArgumentError: A file cannot be read, or is not what it should be.
        """
        import grpc

        self.context()  # gRPC would find out at the first call, and not say what
        files = (self.ca, self.key, self.certificate)
        return grpc.ssl_channel_credentials(*[file and Path(file).read_bytes() for file in files])


@contextmanager
def _files(given: str, wanted: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        raise InvalidArgumentError(f"tls cannot use {given}: {exc}; give {wanted}") from exc


def connection_error(where: str, reason: str, tls: Tls | None) -> UnavailableError:
    """Make the error of a connection that could not be used.

    Args:
        where: What was asked, and at which address.
        reason: What the library says, OpenSSL's words or BoringSSL's among them.
        tls: What the client was given.

    Returns:
        A `HandshakeError` with the way out if somebody is there, but asking again cannot help.
    """
    for words, way_out in _WAYS_OUT.items():
        if words in reason:
            return HandshakeError(f"{where}: {way_out} ({reason})")
    if "[SSL: " in reason or "SSL_ERROR_SSL" in reason:
        return HandshakeError(f"{where}: client and server agree on no TLS ({reason})")
    hint = ""
    if any(words in reason for words in _CLOSED):
        if tls is None:
            hint = "; a server that speaks TLS closes plain connections: give tls= if it does"
        elif tls.certificate is None:
            hint = (
                "; a server may do so if it wants a certificate of the client's: give"
                " Tls(certificate=, key=) if it does"
            )
        else:
            hint = f"; a server may do so if it does not trust {tls.certificate}"
    return UnavailableError(f"{where}: no model server answers ({reason}){hint}")
