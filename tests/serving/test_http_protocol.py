import asyncio
import contextlib
import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_mini.serving import http_answers, http_protocol
from mlops_mini.serving.http_answers import Answer
from mlops_mini.serving.http_protocol import HttpListener, serve
from mlops_mini.serving.http_requests import DEFAULT_LIMITS, Limits, Reply
from tests.serving.servers import wait_until

JSON = {"Content-Type": "application/json"}
IMPATIENT = Limits(head_s=0.2, idle_s=0.4)
BIG_BYTES = 8_000_000
GET = b"GET /ok HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\n\r\n"


class Handler:
    """Answers with what it was asked; `/slow` waits for `release`."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.n_cancelled = 0
        self.release = asyncio.Event()

    async def __call__(
        self, method: str, target: bytes, headers: Mapping[bytes, bytes], body: bytes
    ) -> Answer:
        self.asked.append(target)
        if target == b"/slow":
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.n_cancelled += 1
                raise
        if target == b"/fail":
            raise ZeroDivisionError
        if target == b"/big":
            return Answer(200, {}, b"x" * BIG_BYTES)
        if target.startswith(b"/status/"):
            return Answer(int(target[8:]), JSON)
        seen = {
            "method": method,
            "target": target.decode("latin-1"),
            "headers": {k.decode(): v.decode("latin-1") for k, v in headers.items()},
            "body": body.decode("latin-1"),
        }
        return Answer(200, JSON, json.dumps(seen).encode())


@dataclass
class Running:
    """A server on a loop in a thread of its own."""

    loop: asyncio.AbstractEventLoop
    server: HttpListener
    handler: Handler
    address: tuple[str, int]
    clients: list["Client"] = field(default_factory=list)

    def client(self) -> "Client":
        self.clients.append(Client(socket.create_connection(self.address, timeout=120)))
        return self.clients[-1]

    def release(self) -> None:
        self.loop.call_soon_threadsafe(self.handler.release.set)

    def hang_up(self) -> None:
        while self.clients:
            self.clients.pop().close()
        self.release()
        wait_until(lambda: not self.server.connections, "the end of all connections")

    def drain(self, timeout_s: float) -> "Future[None]":
        return asyncio.run_coroutine_threadsafe(self.server.drain(timeout_s), self.loop)

    def wait_until_asked(self, n: int) -> None:
        wait_until(lambda: len(self.handler.asked) >= n, f"{n} requests")


@dataclass
class Received:
    status: int
    reason: str
    version: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A socket, and the answers on it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")

    def send(self, data: bytes) -> Self:
        self.sock.sendall(data)
        return self

    def answer(self, *, is_head: bool = False) -> Received:
        version, status, reason = self.file.readline().decode().rstrip("\r\n").split(" ", 2)
        headers = {}
        while line := self.file.readline().decode().rstrip("\r\n"):
            name, _, value = line.partition(": ")
            assert name not in headers
            headers[name] = value
        n_bytes = 0 if is_head else int(headers.get("Content-Length", 0))
        return Received(int(status), reason, version, headers, self.file.read(n_bytes))

    def is_closed(self) -> bool:
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True

    def send_while(self, is_wanted: Callable[[], bool], piece: bytes) -> None:
        """Send again and again, unless the server closes."""
        deadline = time.monotonic() + 120
        with contextlib.suppress(ConnectionError):
            while is_wanted():
                self.sock.sendall(piece)
                assert time.monotonic() < deadline

    def close(self) -> None:
        self.file.close()
        self.sock.close()


StartHttp = Callable[..., Running]


@pytest.fixture(params=["uvloop", "asyncio"])
def start(request: pytest.FixtureRequest) -> Iterator[StartHttp]:
    """Starts servers with limits, and sees at the end that nothing of them is left."""
    with contextlib.ExitStack() as stack:
        yield lambda limits=DEFAULT_LIMITS: stack.enter_context(_running(limits, request.param))


@contextlib.contextmanager
def _running(limits: Limits, loop_kind: str) -> Iterator[Running]:
    loop = pytest.importorskip("uvloop").new_event_loop() if loop_kind == "uvloop" else None
    loop = loop or asyncio.new_event_loop()
    problems: list[Any] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        listener.setsockopt(socket.SOL_SOCKET, option, 2**18)  # for tests of slow clients
    address = listener.getsockname()

    async def begin() -> tuple[HttpListener, Handler]:
        handler = Handler()
        return await serve(handler, listener, limits), handler

    server, handler = asyncio.run_coroutine_threadsafe(begin(), loop).result(60)
    running = Running(loop, server, handler, address)
    try:
        yield running
        running.hang_up()
        running.drain(5).result(60)
        tasks = asyncio.run_coroutine_threadsafe(_tasks(), loop).result(60)
        assert tasks == set()
        assert problems == []
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _tasks() -> set[Any]:
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def shared(request: pytest.FixtureRequest) -> Iterator[Running]:
    with _running(DEFAULT_LIMITS, request.param) as running:
        yield running


@pytest.fixture
def http(shared: Running) -> Iterator[Running]:
    """A server with the usual limits and a handler of the test's own."""

    async def begin() -> Handler:
        return Handler()

    handler = asyncio.run_coroutine_threadsafe(begin(), shared.loop).result(60)
    shared.handler = shared.server.handler = handler  # type: ignore[assignment]
    yield shared
    shared.hang_up()


def test_a_request_arrives_as_it_was_sent(http: Running) -> None:
    answer = http.client().send(
        b"PATCH /a%20b/%C3%A9?x=1&y#z? HTTP/1.1\r\nX-A: 1\r\nx-a: 2\r\nEmpty:\r\n"
        b"Content-Length: 3\r\n\r\n\x00{\xff"
    ).answer()  # fmt: skip

    assert (answer.version, answer.status, answer.reason) == ("HTTP/1.1", 200, "OK")
    assert answer.json == {
        "method": "PATCH",
        "target": "/a%20b/%C3%A9?x=1&y#z?",
        "headers": {"x-a": "1", "empty": "", "content-length": "3"},
        "body": "\x00{\xff",
    }


def test_an_answer_has_type_length_and_date(http: Running) -> None:
    headers = http.client().send(GET).answer().headers

    assert set(headers) == {"Content-Type", "Content-Length", "Date"}
    date = time.strptime(headers["Date"], "%a, %d %b %Y %H:%M:%S GMT")
    assert abs(time.mktime(time.gmtime()) - time.mktime(date)) <= 3


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (200, "OK"), (400, "Bad Request"), (404, "Not Found"), (409, "Conflict"),
        (429, "Client Error"), (499, "Client Error"), (500, "Internal Server Error"),
        (501, "Not Implemented"), (503, "Service Unavailable"), (504, "Gateway Time-out"),
    ],
)  # fmt: skip
def test_reasons_are_those_of_libevent(http: Running, status: int, reason: str) -> None:
    answer = http.client().send(b"GET /status/%d HTTP/1.1\r\n\r\n" % status).answer()

    assert (answer.status, answer.reason) == (status, reason)


def test_a_connection_is_kept(http: Running) -> None:
    client = http.client()

    for _ in range(3):
        assert "Connection" not in client.send(GET).answer().headers


@pytest.mark.parametrize(
    ("head", "connection"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", "close"),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "close"),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive"),
    ],
)
def test_the_client_decides_whether_it_ends(http: Running, head: bytes, connection: str) -> None:
    client = http.client()
    answer = client.send(head).answer()

    assert answer.headers["Connection"] == connection
    assert answer.version == head.split()[2].decode()
    if connection == "close":
        assert client.is_closed()
    else:
        assert client.send(head).answer().status == 200


def test_pipelined_requests_are_answered_in_order(http: Running) -> None:
    targets = ["/slow", *(f"/{number}" for number in range(200))]
    client = http.client().send(b"".join(f"GET {t} HTTP/1.1\r\n\r\n".encode() for t in targets))
    http.wait_until_asked(1)
    http.release()

    assert [client.answer().json["target"] for _ in targets] == targets


def test_a_chunked_body_is_joined_and_its_trailers_count_for_nothing(http: Running) -> None:
    client = http.client().send(
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;why=not\r\nabc\r\n1\r\nd\r\n0\r\nContent-Encoding: gzip\r\n\r\n" + GET
    )  # fmt: skip

    seen = client.answer().json
    assert seen["body"] == "abcd"
    assert seen["headers"] == {"transfer-encoding": "chunked"}
    assert client.answer().json["target"] == "/ok"


def test_a_large_body_comes_whole(http: Running) -> None:
    body = os.urandom(5_000_000)
    head = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)

    assert http.client().send(head + body).answer().json["body"].encode("latin-1") == body


def test_a_client_that_asks_first_is_told_to_continue(http: Running) -> None:
    client = http.client()
    head = b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n"
    told = client.send(head).answer()

    assert (told.status, told.reason, told.headers) == (100, "Continue", {})
    assert client.send(b"{}").answer().json["body"] == "{}"


def test_it_is_told_so_in_its_turn(http: Running) -> None:
    client = http.client().send(SLOW)
    http.wait_until_asked(1)
    client.send(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    http.release()

    assert client.answer().json["target"] == "/slow"
    assert client.answer().status == 100
    assert client.send(b"{}").answer().json["body"] == "{}"


def test_head_is_answered_without_the_body(http: Running) -> None:
    client = http.client()
    answer = client.send(b"HEAD /ok HTTP/1.1\r\n\r\n").answer(is_head=True)

    assert int(answer.headers["Content-Length"]) > 50
    assert client.send(GET).answer().json["method"] == "GET"


def test_an_offer_of_another_protocol_is_declined(http: Running) -> None:
    offer = b" HTTP/1.1\r\nConnection: Upgrade, Other\r\nUpgrade: h2c\r\nA: b\r\n"
    length = b"Content-Length: %d\r\n\r\n%s" % (len(SMUGGLED), SMUGGLED)
    chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    client = http.client().send(
        b"GET /1"
        + offer
        + b"\r\n"
        + GET
        + b"POST /2"
        + offer
        + length
        + b"POST /3"
        + offer
        + chunks
    )

    seen = [client.answer().json for _ in range(4)]
    assert [request["target"] for request in seen] == ["/1", "/ok", "/2", "/3"]
    assert [request["body"] for request in seen] == ["", "", SMUGGLED.decode(), SMUGGLED.decode()]
    assert seen[3]["headers"] == {
        "connection": "Upgrade, Other", "a": "b", "transfer-encoding": "chunked",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (POST + b"Content-Length: 0\r\nContent-Length: 26\r\n\r\n", 400),
        (POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
        (POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Content-Length : 0\r\n\r\n", 400),
        (POST + b"Content-Length: +0\r\n\r\n", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: 0x0\r\n\r\n", 400),
        (POST + b"Content-Length: 0, 0\r\n\r\n", 400),
        (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
        (POST + b"A: b\r\n Content-Length: 0\r\n\r\n", 400),
        (POST + b"A: b\0\r\nContent-Length: 0\r\n\r\n", 400),
        (POST + b"A\0: b\r\nContent-Length: 0\r\n\r\n", 400),
        (POST + b"A: b\rContent-Length: 0\r\n\r\n", 400),
        (POST + b": b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\nContent-Length: 0\n\n", 400),
        (b"GET /\0 HTTP/1.1\r\n\r\n", 400),
        (b"GET / / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"GET v1 HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.10\r\n\r\n", 400),
        (b"GET / HTCPCP/1.0\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"NOSUCH / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\0" * 50, 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 505),
        (b"TRACE / HTTP/1.1\r\n\r\n", 501),
        (b"CONNECT h:1 HTTP/1.1\r\n\r\n", 501),
        (b"PROPFIND / HTTP/1.1\r\n\r\n", 501),
    ],
)
def test_a_bad_request_gets_a_page_and_what_follows_it_is_not_read(
    http: Running, sent: bytes, status: int
) -> None:
    client = http.client().send(sent + SMUGGLED)
    answer = client.answer()

    assert answer.status == status
    assert answer.headers["Connection"] == "close"
    assert answer.headers["Content-Type"] == "text/html"
    words = http_answers.reason(status)
    assert answer.body.decode() == (
        f"<HTML><HEAD>\n<TITLE>{status} {words}</TITLE>\n</HEAD><BODY>\n<H1>{words}</H1>\n"
        "</BODY></HTML>\n"
    )
    assert client.is_closed()
    assert http.handler.asked == []


def test_a_bad_chunk_ends_the_connection_and_is_not_asked(http: Running) -> None:
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    for chunk in (b"x\r\n", b"1\r\nab\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"1 \r\na\r\n"):
        client = http.client().send(head + chunk + SMUGGLED)
        assert client.answer().status == 400, chunk
        assert client.is_closed()
    assert http.handler.asked == []


def test_what_was_asked_before_a_bad_request_is_answered_first(http: Running) -> None:
    client = http.client().send(SLOW + b"\0\0\0")
    http.wait_until_asked(1)
    http.release()

    assert client.answer().json["target"] == "/slow"
    assert client.answer().status == 400
    assert client.is_closed()


def test_nothing_is_read_after_the_last_request(http: Running) -> None:
    client = http.client().send(b"GET /1 HTTP/1.1\r\nConnection: close\r\n\r\n" + SMUGGLED)

    assert client.answer().json["target"] == "/1"
    assert client.is_closed()
    assert http.handler.asked == [b"/1"]


CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET / HTTP/1.1\r\nA: ", b"a" * 4096),
        (b"GET / HTTP/1.1\r\n", b"A: b\r\n" * 700),
        (b"GET / HTTP/1.1\r\n", b"a" * 4096),
        (b"GET /", b"a" * 4096),
        (b"", b"\r\n" * 2048),
        (CHUNKED + b"1;", b"a" * 4096),
        (CHUNKED + b"0\r\n", b"A: b\r\n" * 700),
        (CHUNKED + b"0\r\nA: ", b"a" * 4096),
    ],
)
def test_what_never_comes_to_an_end_is_cut_off(http: Running, begin: bytes, piece: bytes) -> None:
    client = http.client().send(begin)
    answers: list[Received] = []
    reader = threading.Thread(target=lambda: answers.append(client.answer()))
    reader.start()
    client.send_while(reader.is_alive, piece)
    reader.join()

    assert answers[0].status == 431
    assert http.handler.asked == []


def test_who_goes_on_sending_after_the_end_is_cut_off(http: Running) -> None:
    client = http.client()
    client.send_while(lambda: True, b"\0" * 4096)

    wait_until(lambda: not http.server.connections, "the connection's end")


def test_the_limit_of_a_head_is_exact_however_it_comes(start: StartHttp) -> None:
    http = start(Limits(head_bytes=2000))
    for n_bytes, status in ((1900, 200), (2001, 431), (200_000, 431)):
        head = b"GET /ok HTTP/1.1\r\nA: %s\r\n\r\n" % (b"a" * n_bytes)
        assert http.client().send(head).answer().status == status


def test_the_limit_of_a_body_is_exact_however_it_comes(start: StartHttp) -> None:
    http = start(Limits(body_bytes=1000))
    for n_bytes, status in ((1000, 200), (1001, 413)):
        body = b"x" * n_bytes
        whole = POST + b"Content-Length: %d\r\n\r\n%s" % (n_bytes, body)
        chunk = b"%x\r\n%s\r\n" % (len(body) // 2, body[: len(body) // 2])
        rest = body[len(body) // 2 :]
        pieces = CHUNKED + chunk + b"%x\r\n%s\r\n0\r\n\r\n" % (len(rest), rest)
        for request in (whole, pieces):
            client = http.client().send(request)
            answer = client.answer()
            assert answer.status == status
            if status == 413:
                assert answer.reason == "Request Entity Too Large"
                assert client.is_closed()
    assert len(http.handler.asked) == 2


def test_a_body_that_announces_its_size_is_refused_before_it_is_sent(start: StartHttp) -> None:
    http = start(Limits(body_bytes=1000))
    head = POST + b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n"

    assert http.client().send(head).answer().status == 413


def test_body_and_pipelined_heads_do_not_count_as_head(start: StartHttp) -> None:
    http = start(Limits(head_bytes=200))
    body = b"x" * 10_000
    chunk = b"%x\r\n%s\r\n" % (len(body), body)
    client = http.client().send(
        b"POST /1 HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        + CHUNKED + chunk * 3 + b"0\r\n\r\n" + GET * 50
    )  # fmt: skip

    assert [client.answer().status for _ in range(52)] == [200] * 52


def test_who_says_nothing_is_cut_off_in_silence(start: StartHttp) -> None:
    http = start(IMPATIENT)
    silent, kept = http.client(), http.client()
    kept.send(GET).answer()

    assert silent.is_closed()
    assert kept.is_closed()


def test_who_does_not_finish_in_time_is_told_and_cut_off(start: StartHttp) -> None:
    http = start(IMPATIENT)
    clients = [
        http.client().send(begin)
        for begin in (
            b"G",
            b"GET / HTTP/1.1\r\nA: b",
            GET + b"GET / HTTP/1.1\r\n",
            POST + b"Content-Length: 10\r\n\r\n123",
            CHUNKED + b"a\r\n123",
        )
    ]
    assert clients[2].answer().status == 200
    for client in clients:
        answer = client.answer()
        assert (answer.status, answer.reason) == (408, "Request Time-out")
        assert client.is_closed()


def test_who_dribbles_is_cut_off(start: StartHttp) -> None:
    http = start(IMPATIENT)
    begins = (b"GET / HTTP/1.1\r\nA: ", POST + b"Content-Length: 9999\r\n\r\n")
    clients = [http.client().send(begin) for begin in begins]
    deadline, heads, ticks = time.monotonic() + 120, {}, threading.Event()
    while len(heads) < len(clients):
        assert not ticks.wait(0.05)
        assert time.monotonic() < deadline
        for client in clients:
            client.send(b"x")
            client.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                heads.setdefault(client, client.sock.recv(1000)[:13])
            client.sock.setblocking(True)

    assert set(heads.values()) == {b"HTTP/1.1 408 "}


@dataclass
class Pace:
    """How steady a client was itself: on a busy machine it may be held up."""

    idle_s: float
    at: list[float] = field(default_factory=lambda: [time.monotonic()])

    def tick(self) -> None:
        """Pause, but not for long enough to look silent."""
        threading.Event().wait(self.idle_s / 8)
        self.at.append(time.monotonic())

    @property
    def lasted_s(self) -> float:
        return self.at[-1] - self.at[0]

    @property
    def is_steady(self) -> bool:
        return max(after - before for before, after in pairwise(self.at)) < self.idle_s / 2


def steadily(act: Callable[[float], Pace]) -> Pace:
    """Act on a server that cuts off sooner or, where the machine held up the client, later."""
    for idle_s in (0.4, 2.0, 10.0):
        if (pace := act(idle_s)).is_steady:
            break
    return pace


def test_a_steady_upload_may_take_longer_than_silence(start: StartHttp) -> None:
    answers: list[Received] = []

    def upload(idle_s: float) -> Pace:
        http, pace, piece = (
            start(Limits(head_s=idle_s / 2, idle_s=idle_s)),
            Pace(idle_s),
            b"x" * int(2500 * idle_s),
        )
        client = http.client().send(POST + b"Content-Length: %d\r\n\r\n" % (40 * len(piece)))
        with contextlib.suppress(ConnectionError):  # then the answer tells why
            for _ in range(40):  # with sweeps in between
                pace.tick()
                client.send(piece)
        answers.append(client.answer())
        return pace

    pace = steadily(upload)

    assert answers[-1].status == 200
    assert pace.lasted_s > 4 * pace.idle_s


def test_who_does_not_read_the_answers_is_read_no_further_and_cut_off(start: StartHttp) -> None:
    http = start(IMPATIENT)
    http.client().send(b"GET /big HTTP/1.1\r\n\r\n" * 200)
    http.wait_until_asked(1)

    wait_until(lambda: not http.server.connections, "the connection's end")
    assert len(http.handler.asked) < 20


def test_who_reads_slowly_gets_all_of_it(start: StartHttp) -> None:
    n_read: list[int] = []

    def read(idle_s: float) -> Pace:
        http, pace = start(Limits(head_s=idle_s / 2, idle_s=idle_s)), Pace(idle_s)
        client = http.client().send(b"GET /big HTTP/1.1\r\nConnection: close\r\n\r\n")
        n_read.append(0)
        with contextlib.suppress(ConnectionError):
            while piece := client.sock.recv(int(50_000 * idle_s)):
                n_read[-1] += len(piece)
                if pace.lasted_s < 4 * idle_s:
                    pace.tick()
        return pace

    steadily(read)

    assert n_read[-1] > BIG_BYTES


def test_a_connection_is_not_read_while_its_request_is_answered(http: Running) -> None:
    body = b"x" * 20_000_000
    client = http.client().send(SLOW)
    http.wait_until_asked(1)
    client.sock.settimeout(0.5)
    rest = memoryview(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    with contextlib.suppress(TimeoutError):
        while rest:
            rest = rest[client.sock.send(rest[:1_000_000]) :]
    n_kept = len(rest)
    client.sock.settimeout(120)
    http.release()
    client.send(bytes(rest))

    assert n_kept > len(body) / 2
    assert client.answer().json["target"] == "/slow"
    assert len(client.answer().json["body"]) == len(body)


def test_a_client_that_disappears_takes_its_request_along(http: Running) -> None:
    client = http.client().send(SLOW)
    http.wait_until_asked(1)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()

    wait_until(lambda: http.handler.n_cancelled == 1, "the handler's end")
    wait_until(lambda: not http.server.connections, "the connection's end")


def test_a_client_that_only_stops_sending_is_answered(http: Running) -> None:
    client = http.client().send(SLOW + GET + b"GET /half")
    client.sock.shutdown(socket.SHUT_WR)
    http.wait_until_asked(1)
    http.release()

    assert [client.answer().json["target"] for _ in range(2)] == ["/slow", "/ok"]
    assert client.is_closed()


def test_a_handler_that_fails_is_a_500_and_a_line_in_the_log(
    http: Running, caplog: pytest.LogCaptureFixture
) -> None:
    client = http.client().send(b"GET /fail HTTP/1.1\r\n\r\n" + GET)

    answer = client.answer()
    assert (answer.status, answer.headers["Connection"]) == (500, "close")
    assert client.is_closed()
    assert "no answer to GET b'/fail'" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert http.client().send(GET).answer().status == 200


def test_a_drain_answers_what_has_come_and_closes(start: StartHttp) -> None:
    http = start()
    slow, idle, uploading = (http.client() for _ in range(3))
    idle.send(GET).answer()
    slow.send(SLOW)
    uploading.send(POST + b"Content-Length: 4\r\n\r\nab")
    http.wait_until_asked(2)
    drained = http.drain(20)

    assert idle.is_closed()
    with pytest.raises(OSError, match="refused"):
        http.client()
    assert not drained.done()
    http.release()
    uploading.send(b"cd")
    for client in (slow, uploading):
        assert client.answer().headers["Connection"] == "close"
        assert client.is_closed()
        client.close()
    drained.result(60)


def test_a_request_on_its_way_when_the_drain_begins_is_answered(start: StartHttp) -> None:
    http = start()
    clients = [http.client() for _ in range(20)]
    for client in clients:
        client.send(GET).answer()
    drained = http.drain(20)
    wait_until(lambda: http.server.is_draining, "the drain")
    for client in clients:
        client.send(GET)

    assert [client.answer().headers["Connection"] for client in clients] == ["close"] * 20
    for client in clients:
        client.close()
    drained.result(60)


def test_a_drain_does_not_wait_longer_than_it_is_told(start: StartHttp) -> None:
    http = start()
    client = http.client().send(SLOW)
    http.wait_until_asked(1)
    http.drain(0.2).result(5)

    assert client.is_closed()
    assert http.handler.n_cancelled == 1
    assert http.server.connections == set()


class Transport(asyncio.Transport):
    """Takes what is written; enough of a transport to feed a connection by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.has_ended = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def write_eof(self) -> None:
        self.has_ended = True

    def is_closing(self) -> bool:
        return False

    def is_reading(self) -> bool:
        return True

    def pause_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


def _feed(pieces: list[bytes]) -> tuple[list[bytes], bytes, bool]:
    """Give a connection these reads, each while it waits for more; return asked, answered, end."""

    async def feed() -> tuple[list[bytes], bytes, bool]:
        handler, transport = Handler(), Transport()
        server = HttpListener(handler, DEFAULT_LIMITS)
        server.date = "D"
        connection = http_protocol._Connection(server)
        connection.connection_made(transport)
        for piece in pieces:
            connection.data_received(piece)
            await asyncio.gather(*filter(None, [connection._answering]))
        connection.connection_lost(None)
        server._timer.cancel()
        return handler.asked, transport.written, transport.has_ended

    return asyncio.run(feed())


async def _turns() -> None:
    """Let the event loop do what it has to, without any input or timer."""
    for _ in range(10):
        await asyncio.sleep(0)


TAKEN = b"POST /taken HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\n"


class Taker:
    """Takes what is posted to `/taken`, and answers in the loop's next turn, or when it is told."""

    def __init__(self, *, is_held: bool = False) -> None:
        self.n_found = 0
        self.bodies: list[bytes] = []
        self.replies: list[Reply] = []
        self.is_held = is_held

    def find(self, method: str, target: bytes, headers: Mapping[bytes, bytes]) -> Any:
        self.n_found += 1
        assert b"x-secret" not in headers
        return self.take if (method, target) == ("POST", b"/taken") else None

    def take(self, body: bytes, reply: Reply, is_alone: bool) -> bool:
        if body == b"refused":
            return False
        self.bodies.append(body)
        if self.is_held:
            self.replies.append(reply)
        elif is_alone:
            reply.send_json(body)
        else:
            asyncio.get_running_loop().call_soon(reply.send_json, body)
        return True


def _taken(pieces: list[bytes], *, n_others: int = 0) -> tuple[list[bytes], list[bytes], Taker]:
    """Give a connection these reads; return the bodies taken, the bodies answered and the taker."""

    async def feed() -> tuple[list[bytes], list[bytes], Taker]:
        handler, transport, taker = Handler(), Transport(), Taker()
        server = HttpListener(handler, DEFAULT_LIMITS, taker.find)
        connection, *others = [http_protocol._Connection(server) for _ in range(1 + n_others)]
        for one in (connection, *others):
            one.connection_made(transport)
        for piece in pieces:
            connection.data_received(piece)
            await _turns()
        assert len(server.known_heads.requests) <= 1
        server._timer.cancel()
        bodies = re.findall(rb"\r\n\r\n([^H]*)", transport.written)
        for one in (connection, *others):
            one.connection_lost(None)
        return taker.bodies, bodies, taker

    return asyncio.run(feed())


@pytest.mark.parametrize("n_others", [0, 1])
def test_a_head_that_has_come_before_is_read_the_same_wherever_it_is_cut(n_others: int) -> None:
    bodies = [b"{'a':%d}" % n for n in range(1, 6)]
    first, *rest = [TAKEN + body for body in bodies]
    whole = _taken([first, *rest], n_others=n_others)
    assert whole[:2] == (bodies, bodies)
    assert whole[2].n_found == 2  # for what is remembered, and for the first request itself

    stream = b"".join(rest)
    for at in range(1, len(stream)):
        cut = _taken([first, stream[:at], stream[at:]], n_others=n_others)
        # What was sent before the answer to the one before goes to the handler, in its turn.
        assert cut[0] == [body for body in bodies if body in cut[0]], at
        assert len(cut[1]) == len(bodies), at


@settings(max_examples=50)
@given(st.lists(st.integers(0, 4 * len(TAKEN)), max_size=20))
def test_a_known_head_cut_into_many_is_the_same_request(cuts: list[int]) -> None:
    bodies = [b"{'a':%d}" % n for n in range(1, 6)]
    stream = b"".join([TAKEN + body for body in bodies])
    edges = [0, *sorted(cuts), len(stream)]
    taken, answered, _ = _taken([stream[a:b] for a, b in pairwise(edges) if a < b])

    assert len(answered) == len(bodies)
    assert taken == [body for body in bodies if body in taken]


@pytest.mark.parametrize(
    "head",
    [
        b"POST /taken HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\r\n",
        b"POST /taken HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 7\r\n\r\n",
        b"POST /taken HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 7\r\n\r\n",
        b"POST /taken HTTP/1.1\r\nA: %b\r\nContent-Length: 7\r\n\r\n" % (b"a" * 1024),
        b"POST /other HTTP/1.1\r\nContent-Length: 7\r\n\r\n",
    ],
)
def test_unusual_heads_are_parsed_each_time(head: bytes) -> None:
    async def feed() -> None:
        taker, transport = Taker(), Transport()
        server = HttpListener(Handler(), DEFAULT_LIMITS, taker.find)
        connection = http_protocol._Connection(server)
        connection.connection_made(transport)
        for _ in range(3):
            connection.data_received(head + b"{'a':1}")
            await _turns()
        assert transport.written.count(b" 200 OK\r\n") == 3
        assert not server.known_heads.requests
        connection.connection_lost(None)
        server._timer.cancel()

    asyncio.run(feed())


def test_few_heads_are_remembered() -> None:
    async def feed() -> None:
        server = HttpListener(Handler(), DEFAULT_LIMITS, Taker().find)
        connection = http_protocol._Connection(server)
        connection.connection_made(Transport())
        for n in range(3000):
            head = b"POST /taken HTTP/1.1\r\nA: %d\r\nContent-Length: 7\r\n\r\n" % n
            connection.data_received(head + b"{'a':1}")
            await _turns()
            assert len(server.known_heads.requests) <= 1024
        connection.connection_lost(None)
        server._timer.cancel()

    asyncio.run(feed())


def test_what_is_not_taken_goes_to_the_handler_whole() -> None:
    bodies = [b"{'a':1}", b"refused", b"refused", b"{'a':2}"]

    taken, answered, _ = _taken([TAKEN + body for body in bodies])

    assert taken == [b"{'a':1}", b"{'a':2}"]
    assert [json.loads(body)["body"] for body in answered[1:3]] == ["refused", "refused"]


def test_the_answer_to_a_client_that_has_left_is_dropped() -> None:
    async def leave() -> None:
        taker = Taker(is_held=True)
        server = HttpListener(Handler(), DEFAULT_LIMITS, taker.find)
        gone, there = http_protocol._Connection(server), http_protocol._Connection(server)
        for round_ in range(2):  # the head is known the second time
            transports = Transport(), Transport()
            gone, there = http_protocol._Connection(server), http_protocol._Connection(server)
            for connection, transport in zip((gone, there), transports, strict=True):
                connection.connection_made(transport)
                connection.data_received(TAKEN + b"{'a':%d}" % round_)
            gone.connection_lost(None)
            for reply in taker.replies:
                reply.send_json(b"{}")
            taker.replies.clear()
            assert transports[0].written == b""
            assert transports[1].written.endswith(b"\r\n\r\n{}")
            there.connection_lost(None)
        server._timer.cancel()

    asyncio.run(leave())


def test_the_body_of_a_known_head_must_come_in_time() -> None:
    async def wait() -> None:
        transport = Transport()
        server = HttpListener(Handler(), DEFAULT_LIMITS, Taker().find)
        connection = http_protocol._Connection(server)
        connection.connection_made(transport)
        for data in (TAKEN + b"{'a':1}", TAKEN + b"{'a'"):
            connection.data_received(data)
            await _turns()
        connection.sweep(server.loop.time() + 74)
        assert not connection._is_ending
        connection.sweep(server.loop.time() + 76)
        await _turns()
        assert b"HTTP/1.1 408 " in transport.written
        connection.data_received(b":1}")
        assert transport.written.count(b"HTTP/1.1 200 ") == 1
        connection.connection_lost(None)
        server._timer.cancel()

    asyncio.run(wait())


STREAM = (
    b"\r\nGET /1?a#b HTTP/1.1\r\nA: b\r\nEmpty:\r\n\r\n"
    b"POST /2 HTTP/1.1\r\ncontent-LENGTH: 7\r\nExpect: 100-continue\r\n\r\n{'a':1}"
    b"POST /3 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    b"POST /4 HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: u\r\n\r\n"
    b"HEAD /5 HTTP/1.1\r\n\r\n"
    b"GET /6 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
)  # fmt: skip


@pytest.mark.parametrize(
    "end", [b"GET /last HTTP/1.0\r\n\r\n", POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n"]
)
def test_a_stream_means_the_same_wherever_it_is_cut(end: bytes) -> None:
    stream = STREAM + end
    whole = _feed([stream])
    assert [target[:2] for target in whole[0][:6]] == [b"/1", b"/2", b"/3", b"/4", b"/5", b"/6"]
    assert whole[2]

    for at in range(1, len(stream)):
        cut = _feed([stream[:at], stream[at:]])
        assert _finals(cut) == _finals(whole), at
    assert _finals(_feed([bytes([byte]) for byte in stream])) == _finals(whole)


@settings(max_examples=100)
@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_a_stream_means_the_same_cut_into_many(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(edges) if a < b]

    assert _finals(_feed(pieces)) == _finals(_feed([STREAM]))


def _finals(fed: tuple[list[bytes], bytes, bool]) -> tuple[list[bytes], bytes, bool]:
    """Leave out the 100s: one is sent only if the body had not come yet."""
    asked, written, has_ended = fed
    return asked, written.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""), has_ended


TOKENS = st.sampled_from(
    [
        b"GET ", b"POST ", b"/ok", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n\r\n", b"\n", b"\0",
        b"Content-Length: ", b"Transfer-Encoding: ", b"chunked", b"Connection: ", b"close",
        b"Upgrade", b"Expect: 100-continue", b"0", b"5", b": ", b",", b" ", b"0\r\n\r\n", GET,
    ]
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.one_of(TOKENS, st.binary(max_size=8)), max_size=25))
def test_no_bytes_break_a_connection(pieces: list[bytes]) -> None:
    asked, written, has_ended = _feed([piece for piece in pieces if piece])

    statuses = re.findall(rb"HTTP/1\.[01] (\d+) ", written)
    finals = [status for status in statuses if status != b"100"]
    assert set(finals) <= {b"200", b"400", b"501", b"505"}
    assert len(finals) - len(asked) in (0, 1)
    refused = {b"400", b"501", b"505"} & set(finals)
    if refused:
        assert has_ended
        assert finals[-1] in refused
        assert finals[:-1] == [b"200"] * len(asked)
