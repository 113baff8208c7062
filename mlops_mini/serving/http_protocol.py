"""HTTP/1.1 on asyncio: stands between a socket and a function that answers requests.

httptools (the parser of Node.js) cuts the bytes into requests; everything around it is here. What a
server must withstand, and how this one does:

- Bytes that are no HTTP, or that two parsers could read differently: 400. A head, or what stands
  between the pieces of a body, above `Limits.head_bytes`: 431. A request that does not end in time:
  408. A method that TensorFlow Serving does not know: 501. Each is a small HTML page, after which
  the connection ends.
- A body above `Limits.body_bytes`: 413, before it is read where its length is announced. While a
  request is being answered its connection is read once more at most: one connection holds one
  request and two reads.
- A client that disappears takes its requests along. One that only stops sending is answered.
- A connection on which nothing comes, a body that hardly moves on, an answer that nobody reads: it
  is cut off.

Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import io
import logging
import math
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Protocol, cast

import httptools

from mlops_mini.serving.http_answers import JSON_HEADERS, Answer, error_page, head_of

logger = logging.getLogger(__name__)

_METHODS = {"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"}
_SWEEP_S = 1.0
_LINGER_S = 1.0  # for the client to read the last answer before what it still sends is refused
_SLOWEST_BODY_BYTES_S = 500
_COPIED_BYTES = 64 * 2**10
_LAST_REQUESTS_S = 0.1  # for requests already on their way when the server begins to stop
_MAX_KNOWN_HEADS, _MAX_KNOWN_HEAD_BYTES = 1024, 1024


# Asked with the method, the target as it was sent (undecoded, with query and fragment), the headers
# (names in lower case, the first of several values) and the body.
Handler = Callable[[str, bytes, Mapping[bytes, bytes], bytes], Awaitable[Answer]]


class Reply(Protocol):
    """Where the answer to one request goes; called once, on the event loop."""

    @property
    def is_alone(self) -> bool:
        """True if no other client is connected, and nothing else has come from this one."""

    def send_json(self, body: bytes) -> None:
        """Answer 200 with this body."""

    def send(self, answer: Answer) -> None:
        """Answer anything."""


# Takes a body and where to reply to, now or later; False leaves the request to the handler.
Taker = Callable[[bytes, Reply], bool]
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


DEFAULT_LIMITS = Limits()


class _RefusalError(Exception):
    """A request that is refused for its head; carries the status."""


class _Request:
    __slots__ = (
        "body", "head", "headers", "is_last", "method", "more_body", "n_body_bytes", "n_head_bytes",
        "refusal", "take", "target", "version",
    )  # fmt: skip

    def __init__(self, refusal: int = 0) -> None:
        self.head = b""  # what was sent, of a request that is kept as an example of those like it
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


class HttpListener:
    """A listening socket and its connections; `serve` makes it."""

    acceptor: asyncio.AbstractServer

    def __init__(
        self, handler: Handler, limits: Limits, find_taker: FindTaker | None = None
    ) -> None:
        self.handler = handler
        self.find_taker = find_taker
        # By what was sent: requests that somebody takes, but for their bodies.
        self.known_heads: dict[bytes, _Request] = {}
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.connections: set[_Connection] = set()
        self.all_gone = asyncio.Event()
        self.all_gone.set()
        self.is_draining = False
        self._tick()

    def _tick(self) -> None:
        """Set the date of the next second's answers, and cut off connections whose time is over."""
        self.date = formatdate(usegmt=True)
        self.json_head = head_of("1.1", 200, JSON_HEADERS, self.date).encode()
        now = self.loop.time()
        self._timer = self.loop.call_later(_SWEEP_S, self._tick)  # first: it must never end
        for connection in list(self.connections):
            connection.sweep(now)

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, let the requests that are being read or answered end, close.

        Args:
            timeout_s: Seconds after which what is still open is cut off.
        """
        self.acceptor.close()
        self.is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(_LAST_REQUESTS_S)
                for connection in list(self.connections):
                    connection.close_if_idle()
                await self.all_gone.wait()
        self._timer.cancel()
        for connection in list(self.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # the connections hear of it in the loop's next turn


async def serve(
    handler: Handler,
    bound_socket: socket.socket,
    limits: Limits = DEFAULT_LIMITS,
    *,
    find_taker: FindTaker | None = None,
) -> HttpListener:
    """Answer HTTP requests on a socket.

    Args:
        handler: Answers one request. If it fails, the client gets a 500 and the log the reason.
        bound_socket: Bound and listening, TCP or Unix; the listener closes it.
        limits: What one connection may do.
        find_taker: Asked before the handler.

    Returns:
        The listener, which accepts connections already; end it with `drain`.
    """
    listener = HttpListener(handler, limits, find_taker)
    listener.acceptor = await listener.loop.create_server(
        functools.partial(_Connection, listener), sock=bound_socket
    )
    return listener


class _Connection(asyncio.Protocol):
    """One connection. The methods `on_…` are called by the parser while it is fed."""

    transport: asyncio.Transport

    def __init__(self, listener: HttpListener) -> None:
        self._listener = listener
        self._limits = listener.limits
        self._parser = httptools.HttpRequestParser(self)
        self._request = _Request()  # the one that is being read
        self._is_reading = False  # a request has begun and is not complete
        self._in_head = False
        self._n_unparsed_bytes = 0  # since the parser last came to anything
        self._waiting: deque[_Request] = deque()  # complete, in order
        self._answering: asyncio.Task[None] | None = None
        self._replying: _Request | None = None  # what has been taken
        self._unfinished: _Request | None = None  # like a known one, and its body isn't whole
        self._pieces: list[bytes] = []
        self._n_missing_bytes = 0
        # Nothing of a request has come, and nothing is to be answered or sent.
        self._is_idle = True
        # A request like a known one has been taken, and nothing else has happened since.
        self._is_quiet = False
        self._owes_continue = False
        self._is_ending = False  # what still comes is not read any more
        self._has_eof = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._n_unsent_bytes = 0
        self._unsent_since = 0.0
        self._deadline = math.inf
        self._now = 0.0  # when something came last

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._listener.connections.add(self)
        self._listener.all_gone.clear()
        self._give(self._limits.idle_s)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._answering is not None:
            self._answering.cancel()
        self._replying = None  # its answer will be dropped
        self._is_idle = self._is_quiet = False
        del self._parser  # it refers to us: a cycle would be left as garbage
        self._listener.connections.discard(self)
        if not self._listener.connections:
            self._listener.all_gone.set()

    def pause_writing(self) -> None:
        self._is_idle = self._is_quiet = False
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def eof_received(self) -> bool:
        """Keep the connection open for the answers that are due."""
        self._is_ending = self._has_eof = True
        self._is_idle = self._is_quiet = False
        return self._is_answering

    def data_received(self, data: bytes) -> None:
        end = 0
        if self._is_idle:
            end = data.find(b"\r\n\r\n", 0, _MAX_KNOWN_HEAD_BYTES) + 4
            known = self._listener.known_heads.get(data[:end])
            if known is not None:
                self._is_idle = False
                if len(data) - end == known.n_body_bytes:
                    self._is_quiet = True
                    self._take(known, data[end:])
                    return
                self._unfinished, self._n_missing_bytes = known, known.n_body_bytes
                self._is_reading = True
                self._deadline = self._listener.loop.time() + self._limits.idle_s
                data, end = data[end:], 0
        if self._is_ending:
            return
        if self._unfinished is not None and not (data := self._add(self._unfinished, data)):
            return
        was_answering, was_idle = self._is_answering, self._is_idle
        self._is_idle = self._is_quiet = False
        self._now = self._listener.loop.time()
        if was_idle and end > 4:
            self._feed(data[:end])
            self._remember(data[:end])
            data = data[end:]
        self._feed(data)
        if was_answering:
            self.transport.pause_reading()

    def _add(self, known: _Request, data: bytes) -> bytes:
        """Add to the body of a request like a known one; return what is beyond its end."""
        piece = data[: self._n_missing_bytes]
        self._pieces.append(piece)
        self._n_missing_bytes -= len(piece)
        if self._n_missing_bytes:
            self._now = self._listener.loop.time()
            self._earn(len(piece))
            return b""
        body, self._pieces, self._unfinished = b"".join(self._pieces), [], None
        self._is_reading, self._is_quiet = False, True
        self._take(known, body)
        return data[len(piece) :]

    def _remember(self, head: bytes) -> None:
        """Remember a whole head, for equal bytes are equal requests, if somebody takes it."""
        request, known = self._request, self._listener.known_heads
        if (
            not self._is_reading  # refused, or without a body
            or self._in_head
            or request.method != "POST"
            or request.version != "1.1"
            or request.is_last
            or request.headers.keys() & {b"expect", b"transfer-encoding", b"upgrade"}
            or (take := self._find_taker(request)) is None
        ):
            return
        if len(known) >= _MAX_KNOWN_HEADS:
            known.clear()
        known[head] = example = copy.copy(request)
        example.take = take

    def _feed(self, data: bytes) -> None:
        """Let the parser read."""
        self._n_unparsed_bytes += len(data)
        while data and not self._is_ending:
            read, data = data, b""
            try:
                self._parser.feed_data(read)
            except httptools.HttpParserUpgrade as exc:  # an offer of another protocol
                data = self._without_upgrade() + read[exc.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError as exc:
                refusal = exc.__context__
                if not self._is_ending:
                    self._refuse(refusal.args[0] if isinstance(refusal, _RefusalError) else 400)
        if self._n_unparsed_bytes > self._limits.head_bytes and not self._is_ending:
            self._refuse(431)

    def on_message_begin(self) -> None:
        self._request = _Request()
        self._is_idle = False
        self._is_reading = self._in_head = True
        self._deadline = self._now + self._limits.head_s

    def on_url(self, url: bytes) -> None:
        self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else a trailer, which nobody asked for
            self._request.n_head_bytes += len(name) + len(value) + 4
            self._request.headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        request = self._request
        self._in_head = False
        self._n_unparsed_bytes = 0
        request.method = self._parser.get_method().decode()
        request.version = version = self._parser.get_http_version()
        encoding = request.headers.get(b"transfer-encoding")
        if request.n_head_bytes + len(request.target) > self._limits.head_bytes:
            raise _RefusalError(431)
        if version not in ("1.0", "1.1"):
            raise _RefusalError(505)
        request.is_last = not self._parser.should_keep_alive()
        if request.method not in _METHODS:
            raise _RefusalError(501)
        if encoding is not None and (encoding.lower() != b"chunked" or version == "1.0"):
            raise _RefusalError(400)
        length = request.headers.get(b"content-length", b"0")  # httptools lets only digits pass
        request.n_body_bytes = int(length)
        self._check_body(request.n_body_bytes)
        if self._parser.should_upgrade():
            return
        if version == "1.1" and request.headers.get(b"expect", b"").lower() == b"100-continue":
            self._owes_continue = True
            if not self._is_answering:
                self._continue()
        self._deadline = self._now + self._limits.idle_s

    def on_body(self, piece: bytes) -> None:
        self._n_unparsed_bytes = 0
        request = self._request
        if not request.body:
            self._check_body(len(piece))
            request.body = piece
        else:
            if request.more_body is None:
                request.more_body = io.BytesIO()
                request.more_body.write(request.body)
            self._check_body(request.more_body.tell() + len(piece))
            request.more_body.write(piece)
        self._earn(len(piece))

    def _earn(self, n_bytes: int) -> None:
        """Give a body that moves on some more time."""
        earned = self._deadline + n_bytes / _SLOWEST_BODY_BYTES_S
        self._deadline = min(earned, self._now + self._limits.idle_s)

    def _check_body(self, n_bytes: int) -> None:
        if self._limits.body_bytes is not None and n_bytes > self._limits.body_bytes:
            raise _RefusalError(413)

    def _without_upgrade(self) -> bytes:
        """Write the head again without the offer: the parser would take the body for a request."""
        request = self._request
        start = f"{request.method} {request.target.decode('latin-1')} HTTP/{request.version}\r\n"
        lines = [b"%s: %s\r\n" % h for h in request.headers.items() if h[0] != b"upgrade"]
        return b"".join([start.encode("latin-1"), *lines, b"\r\n"])

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        self._n_unparsed_bytes = 0
        self._is_reading = self._owes_continue = False
        self._answer(self._request)

    def _refuse(self, status: int) -> None:
        self._is_reading = False
        self._answer(_Request(refusal=status))

    @property
    def _is_answering(self) -> bool:
        return self._answering is not None or self._replying is not None

    def _answer(self, request: _Request) -> None:
        self._is_ending = request.is_last
        if request.more_body is not None:
            request.body = request.more_body.getvalue()
            request.more_body = None
        if self._is_answering:
            self._waiting.append(request)
            return
        request.take = None if request.refusal else self._find_taker(request)
        self._take(request, request.body)

    def _find_taker(self, request: _Request) -> Taker | None:
        find_taker = self._listener.find_taker
        if find_taker is None:
            return None
        return find_taker(request.method, request.target, request.headers)

    def _take(self, request: _Request, body: bytes) -> None:
        """Have a request taken, or else answered by the handler."""
        if request.take is not None:
            self._replying = request
            try:
                if request.take(body, self):
                    return
            except Exception:  # our own fault, whatever it is: the handler has its own say
                logger.exception("no fast answer to %s %r", request.method, request.target)
                if not self._is_answering:  # it has answered
                    return
            self._replying = None
        self._is_quiet = False
        if body is not request.body:
            request = copy.copy(request)  # the known one stays without a body
            request.body = body
        self._waiting.append(request)
        self._answering = self._listener.loop.create_task(self._answer_waiting())

    @property
    def is_alone(self) -> bool:
        """Say whether nobody else can have asked meanwhile; see `Reply`."""
        return self._is_quiet and len(self._listener.connections) == 1

    def send_json(self, body: bytes) -> None:
        """Answer what has been taken; see `Reply`."""
        if not self._is_quiet or self._listener.is_draining or len(body) > _COPIED_BYTES:
            self.send(Answer(200, JSON_HEADERS, body))
            return
        self.transport.write(b"%b%d\r\n\r\n%b" % (self._listener.json_head, len(body), body))
        self._replying = None
        if self._writable.is_set():
            self._is_quiet, self._is_idle, self._deadline = False, True, math.inf
        else:
            self._have_replied()

    def send(self, answer: Answer) -> None:
        """Answer what has been taken; see `Reply`."""
        if self._replying is None:
            return  # the connection is lost
        self._write(self._replying, answer)
        self._replying = None
        self._have_replied()

    def _have_replied(self) -> None:
        if self.transport.is_closing():
            return
        if self._waiting or not self._writable.is_set():
            self._answering = self._listener.loop.create_task(self._answer_waiting())
        else:
            self._have_answered()

    async def _answer_waiting(self) -> None:
        await self._writable.wait()
        while self._waiting and not self.transport.is_closing():
            request = self._waiting.popleft()
            answer = error_page(request.refusal) if request.refusal else await self._ask(request)
            self._write(request, answer)
            await self._writable.wait()
        if self.transport.is_closing():
            return
        self._answering = None
        self._have_answered()

    def _have_answered(self) -> None:
        """Wait for the next request, now that none waits."""
        if self._owes_continue:
            self._continue()
        if not self.transport.is_reading():
            self.transport.resume_reading()
        if self._is_ending:
            self._end()
        else:
            self._give(self._limits.head_s if self._in_head else self._limits.idle_s)
            self._is_idle = not self._is_reading and not self._n_unparsed_bytes

    async def _ask(self, request: _Request) -> Answer:
        try:
            return await self._listener.handler(
                request.method, request.target, request.headers, request.body
            )
        except Exception:  # our own fault, whatever it is: logged whole, and the client gets a 500
            logger.exception("no answer to %s %r", request.method, request.target)
            return error_page(500)

    def _write(self, request: _Request, answer: Answer) -> None:
        if self.transport.is_closing():
            return
        body = answer.body
        id_line = b"x-request-id: %b\r\n" % answer.request_id if answer.request_id else b""
        if (
            answer.headers is JSON_HEADERS
            and answer.status == 200
            and request.version == "1.1"
            and request.method == "POST"
            and len(body) <= _COPIED_BYTES
            and not request.is_last
            and not self._listener.is_draining
        ):
            head = self._listener.json_head
            self.transport.write(b"%b%d\r\n%b\r\n%b" % (head, len(body), id_line, body))
            return
        headers = dict(answer.headers)
        is_drained = self._listener.is_draining and not self._waiting and not self._is_reading
        if request.is_last or is_drained:
            headers["Connection"] = "close"
        elif request.version == "1.0":
            headers.setdefault("Connection", "keep-alive")
        if headers.get("Connection") == "close":
            self._is_ending = True
            self._waiting.clear()
        head = head_of(request.version, answer.status, headers, self._listener.date).encode()
        head += b"%d\r\n%b\r\n" % (len(body), id_line)
        body = b"" if request.method == "HEAD" else body
        if len(body) <= _COPIED_BYTES:
            self.transport.write(head + body)
        else:  # a copy would take its time
            self.transport.write(head)
            self.transport.write(body)

    def _continue(self) -> None:
        self._owes_continue = False
        self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _end(self) -> None:
        """Send the end, then drop what comes until the client's: to close would lose the answer."""
        self._give(_LINGER_S)
        if self._has_eof:
            self.transport.close()
        else:
            with contextlib.suppress(OSError):  # the client may be gone
                self.transport.write_eof()

    def _give(self, seconds: float) -> None:
        self._deadline = self._listener.loop.time() + seconds

    def sweep(self, now: float) -> None:
        """Cut the connection off if its time is over."""
        if self._deadline == math.inf:  # not set with each request: from now on
            self._deadline = now + self._limits.idle_s
        n_unsent_bytes = self.transport.get_write_buffer_size()
        if n_unsent_bytes != self._n_unsent_bytes:
            self._n_unsent_bytes, self._unsent_since = n_unsent_bytes, now
        if n_unsent_bytes:
            if now > self._unsent_since + self._limits.idle_s:
                self.transport.abort()
        elif now > self._deadline and not self._is_answering:
            if self._is_reading and not self._is_ending:
                self._refuse(408)
            else:
                self.transport.abort()

    def close_if_idle(self) -> None:
        """Close unless a request is being read or answered."""
        if not self._is_answering and not self._is_reading and not self._is_ending:
            self.transport.close()
