"""What a connection reads requests into, and whom it hands them to.

Clients send the same head again and again on a connection that they keep. Equal bytes are equal
requests, so a head that has been parsed and accepted once is known from then on, with who takes the
bodies that come with it.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from mlops_mini.serving.http_answers import Answer

MAX_KNOWN_HEAD_BYTES = 1024
_MAX_KNOWN_HEADS = 1024
_METHODS = {"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"}


# Asked with the method, the target as it was sent (undecoded, with query and fragment), the headers
# (names in lower case, the first of several values) and the body.
Handler = Callable[[str, bytes, Mapping[bytes, bytes], bytes], Awaitable[Answer]]
# Told, of each request that was complete, the method, the target, the answer (without its body
# where that is a 200), and the seconds that it took.
Ended = Callable[[str, bytes, Answer, float], None]


class Reply(Protocol):
    """Where the answer to one request goes; called once, on the event loop.

    Attributes:
        began_s: When the request's turn came, by `time.perf_counter`; 0 where nobody counts.
    """

    began_s: float

    def send_json(self, body: bytes, request_id: bytes = b"") -> bool:
        """Answer 200 with this body, at no cost but that of sending it.

        Args:
            body: JSON.
            request_id: Sent as `x-request-id` unless it's empty.

        Returns:
            Whether it was sent without being counted: whoever answers many requests at once counts
            them all at once. If the connection is lost, or the answer is counted here, it's False.
        """
        ...

    def send(self, answer: Answer) -> None:
        """Answer anything."""


# Takes a body and where to reply to, now or later; False leaves the request to the handler. Also
# told whether the request is alone: no other client is connected, and nothing more has come.
Taker = Callable[[bytes, Reply, bool], bool]
# Asked first, with a method, target and headers, and once for all requests with the same head: who
# takes their bodies; None leaves them to the handler.
FindTaker = Callable[[str, bytes, Mapping[bytes, bytes]], Taker | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one connection may do.

    Attributes:
        head_bytes: Size of a request line and its headers; also of trailers, chunk extensions.
        head_s: Seconds from the first byte of a request to the end of its headers.
        idle_s: Seconds without a request, without progress of a body, or of an answer being read.
        body_bytes: Size of a body; None for any.
    """

    head_bytes: int = 64 * 2**10
    head_s: float = 20.0
    idle_s: float = 75.0
    body_bytes: int | None = None

    def check_body(self, n_bytes: int) -> None:
        """Raise `RefusalError` if a body is too large."""
        if self.body_bytes is not None and n_bytes > self.body_bytes:
            raise RefusalError(413)


DEFAULT_LIMITS = Limits()


class RefusalError(Exception):
    """A request that is refused for its head, or the size of its body; carries the status."""


class Request:
    """A request as it comes in; its head may be shared by others like it."""

    __slots__ = (
        "body", "headers", "is_last", "method", "more_body", "n_body_bytes", "n_head_bytes",
        "refusal", "take", "target", "version",
    )  # fmt: skip

    def __init__(self, refusal: int = 0) -> None:
        self.take: Taker | None = None
        self.n_body_bytes = 0  # announced
        self.method = ""
        self.target = b""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.more_body: io.BytesIO | None = None  # all of it, where it comes in pieces
        self.n_head_bytes = 0
        self.version = "1.1"
        self.is_last = bool(refusal)
        self.refusal = refusal

    def check_head(self, limits: Limits) -> None:
        """Refuse a head that is whole, or find out how long its body is.

        Raises:
            RefusalError: It's too large, or can't be answered as it is.
        """
        encoding = self.headers.get(b"transfer-encoding")
        if self.n_head_bytes + len(self.target) > limits.head_bytes:
            raise RefusalError(431)
        if self.version not in ("1.0", "1.1"):
            raise RefusalError(505)
        if self.method not in _METHODS:
            raise RefusalError(501)
        if encoding is not None and (encoding.lower() != b"chunked" or self.version == "1.0"):
            raise RefusalError(400)
        self.n_body_bytes = int(self.headers.get(b"content-length", b"0"))  # httptools checks it
        limits.check_body(self.n_body_bytes)

    def head_without_upgrade(self) -> bytes:
        """Write the head again without the offer: the parser would take the body for a request."""
        start = f"{self.method} {self.target.decode('latin-1')} HTTP/{self.version}\r\n"
        lines = [b"%s: %s\r\n" % h for h in self.headers.items() if h[0] != b"upgrade"]
        return b"".join([start.encode("latin-1"), *lines, b"\r\n"])


class KnownHeads:
    """Heads that have come before.

    Attributes:
        requests: By what was sent, up to the blank line, requests without their bodies.
    """

    def __init__(self, find_taker: FindTaker | None) -> None:
        """Know none yet."""
        self.requests: dict[bytes, Request] = {}
        self._find_taker = find_taker

    def find_taker(self, request: Request) -> Taker | None:
        """Ask who takes bodies with this head."""
        if self._find_taker is None:
            return None
        return self._find_taker(request.method, request.target, request.headers)

    def add(self, head: bytes, request: Request) -> None:
        """Remember a whole head that was accepted, if it's a usual one and somebody takes it."""
        if (
            request.method != "POST"
            or request.version != "1.1"
            or request.is_last
            or request.headers.keys() & {b"expect", b"transfer-encoding"}
            or request.headers.get(b"connection", b"keep-alive").lower() != b"keep-alive"
            or (take := self.find_taker(request)) is None
        ):
            return
        if len(self.requests) >= _MAX_KNOWN_HEADS:
            self.requests.clear()
        self.requests[head] = example = copy.copy(request)
        example.take = take
