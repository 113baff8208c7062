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
import time
from collections import deque
from email.utils import formatdate
from typing import cast

import httptools

from mlops_mini.serving.http_answers import JSON_HEADERS, Answer, error_page, head_of, id_line
from mlops_mini.serving.http_requests import (
    DEFAULT_LIMITS,
    MAX_KNOWN_HEAD_BYTES,
    Ended,
    FindTaker,
    Handler,
    KnownHeads,
    Limits,
    RefusalError,
    Request,
)

logger = logging.getLogger(__name__)

_SWEEP_S = 1.0
_LINGER_S = 1.0  # for the client to read the last answer before what it still sends is refused
_SLOWEST_BODY_BYTES_S = 500
_COPIED_BYTES = 64 * 2**10
_LAST_REQUESTS_S = 0.1  # for requests already on their way when the server begins to stop


class HttpListener:
    """A listening socket and its connections; `serve` makes it."""

    acceptor: asyncio.AbstractServer

    def __init__(
        self,
        handler: Handler,
        limits: Limits,
        find_taker: FindTaker | None = None,
        ended: Ended | None = None,
    ) -> None:
        self.handler = handler
        self.known_heads = KnownHeads(find_taker)
        self.ended = ended
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
    ended: Ended | None = None,
) -> HttpListener:
    """Answer HTTP requests on a socket.

    Args:
        handler: Answers one request. If it fails, the client gets a 500 and the log the reason.
        bound_socket: Bound and listening, TCP or Unix; the listener closes it.
        limits: What one connection may do.
        find_taker: Asked before the handler.
        ended: Told of each answer.

    Returns:
        The listener, which accepts connections already; end it with `drain`.
    """
    listener = HttpListener(handler, limits, find_taker, ended)
    listener.acceptor = await listener.loop.create_server(
        functools.partial(_Connection, listener), sock=bound_socket
    )
    return listener


class _Connection(asyncio.Protocol):
    """One connection. The methods `on_…` are called by the parser while it is fed."""

    transport: asyncio.Transport
    _request: Request  # the one that is being read

    def __init__(self, listener: HttpListener) -> None:
        self._listener = listener
        self._limits = listener.limits
        self._parser = httptools.HttpRequestParser(self)
        self._is_reading = False  # a request has begun and is not complete
        self._in_head = False
        self._n_unparsed_bytes = 0  # since the parser last came to anything
        self._waiting: deque[Request] = deque()  # complete, in order
        self._answering: asyncio.Task[None] | None = None
        self._replying: Request | None = None  # what has been taken
        self.began_s = 0.0  # when its turn came, or that of what the handler answers
        self._unfinished: Request | None = None  # like a known one, and its body isn't whole
        self._pieces: list[bytes] = []
        self._n_missing_bytes = 0
        self._is_idle = True  # nothing of a request has come, and nothing is to be answered or sent
        self._is_quiet = False  # one like a known one was taken, and nothing has happened since
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
            end = data.find(b"\r\n\r\n", 0, MAX_KNOWN_HEAD_BYTES) + 4
            known = self._listener.known_heads.requests.get(data[:end])
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
            if self._is_reading and not self._in_head:  # neither refused nor without a body
                self._listener.known_heads.add(data[:end], self._request)
            data = data[end:]
        self._feed(data)
        if was_answering:
            self.transport.pause_reading()

    def _add(self, known: Request, data: bytes) -> bytes:
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

    def _feed(self, data: bytes) -> None:
        """Let the parser read."""
        self._n_unparsed_bytes += len(data)
        while data and not self._is_ending:
            read, data = data, b""
            try:
                self._parser.feed_data(read)
            except httptools.HttpParserUpgrade as exc:  # an offer of another protocol
                data = self._request.head_without_upgrade() + read[exc.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError as exc:
                refusal = exc.__context__
                if not self._is_ending:
                    self._refuse(refusal.args[0] if isinstance(refusal, RefusalError) else 400)
        if self._n_unparsed_bytes > self._limits.head_bytes and not self._is_ending:
            self._refuse(431)

    def on_message_begin(self) -> None:
        self._request = Request()
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
        request.version = self._parser.get_http_version()
        request.is_last = not self._parser.should_keep_alive()
        request.check_head(self._limits)
        if self._parser.should_upgrade():
            return
        if (
            request.version == "1.1"
            and request.headers.get(b"expect", b"").lower() == b"100-continue"
        ):
            self._owes_continue = True
            if not self._is_answering:
                self._continue()
        self._deadline = self._now + self._limits.idle_s

    def on_body(self, piece: bytes) -> None:
        self._n_unparsed_bytes = 0
        request = self._request
        if not request.body:
            self._limits.check_body(len(piece))
            request.body = piece
        else:
            if request.more_body is None:
                request.more_body = io.BytesIO()
                request.more_body.write(request.body)
            self._limits.check_body(request.more_body.tell() + len(piece))
            request.more_body.write(piece)
        self._earn(len(piece))

    def _earn(self, n_bytes: int) -> None:
        """Give a body that moves on some more time."""
        earned = self._deadline + n_bytes / _SLOWEST_BODY_BYTES_S
        self._deadline = min(earned, self._now + self._limits.idle_s)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        self._n_unparsed_bytes = 0
        self._is_reading = self._owes_continue = False
        self._answer(self._request)

    def _refuse(self, status: int) -> None:
        self._is_reading = False
        self._answer(Request(refusal=status))

    @property
    def _is_answering(self) -> bool:
        return self._answering is not None or self._replying is not None

    def _answer(self, request: Request) -> None:
        self._is_ending = request.is_last
        if request.more_body is not None:
            request.body = request.more_body.getvalue()
            request.more_body = None
        if self._is_answering:
            self._waiting.append(request)
            return
        if not request.refusal:
            request.take = self._listener.known_heads.find_taker(request)
        self._take(request, request.body)

    def _take(self, request: Request, body: bytes) -> None:
        """Have a request taken, or else answered by the handler."""
        if request.take is not None:
            if self._listener.ended is not None:
                self.began_s = time.perf_counter()
            self._replying = request
            is_alone = self._is_quiet and len(self._listener.connections) == 1
            try:
                if request.take(body, self, is_alone):
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

    def send_json(self, body: bytes, request_id: bytes = b"") -> bool:
        """Answer what has been taken; see `Reply`."""
        if not self._is_quiet or self._listener.is_draining or len(body) > _COPIED_BYTES:
            self.send(Answer(200, JSON_HEADERS, body, request_id=request_id))
            return False
        head, line = self._listener.json_head, id_line(request_id) if request_id else b""
        self.transport.write(b"%b%d\r\n%b\r\n%b" % (head, len(body), line, body))
        is_sent, self._replying = self._replying is not None, None
        if self._writable.is_set():
            self._is_quiet, self._is_idle, self._deadline = False, True, math.inf
        else:
            self._have_replied()
        return is_sent

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
            self.began_s = time.perf_counter()
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

    async def _ask(self, request: Request) -> Answer:
        try:
            return await self._listener.handler(
                request.method, request.target, request.headers, request.body
            )
        except Exception:  # our own fault, whatever it is: logged whole, and the client gets a 500
            logger.exception("no answer to %s %r", request.method, request.target)
            return error_page(500)

    def _write(self, request: Request, answer: Answer) -> None:
        ended = self._listener.ended
        if ended is not None and not request.refusal:
            ended(request.method, request.target, answer, time.perf_counter() - self.began_s)
        if self.transport.is_closing():
            return
        body = answer.body
        if (
            answer.headers is JSON_HEADERS
            and answer.status == 200
            and request.version == "1.1"
            and request.method == "POST"
            and len(body) <= _COPIED_BYTES
            and not request.is_last
            and not self._listener.is_draining
        ):
            head, line = self._listener.json_head, id_line(answer.request_id)
            self.transport.write(b"%b%d\r\n%b\r\n%b" % (head, len(body), line, body))
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
        head += b"%d\r\n%b\r\n" % (len(body), id_line(answer.request_id))
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
