"""Clients of the model: they ask over REST, many at a time, each request with its own id.

What isn't answered is told to the caller, who asks again: the same id makes it the same request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from mlops_mini.loop.plan import USER_HEADER
from mlops_mini.loop.world import Request

_N_CONNECTIONS = 16
_TIMEOUT_S = 30.0
_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length:"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    Attributes:
        status: Of HTTP.
        body: JSON.
    """

    status: int
    body: bytes


def ask(address: str, model: str, requests: Sequence[Request]) -> dict[str, Answer]:
    """Ask all, as fast as they are answered.

    Args:
        address: `IP:PORT`.
        model: Name of the model.
        requests: What to ask. Their ids are those of the users too, so that each always goes the
            same way where traffic is split by user.

    Returns:
        Answers by the request's id, errors included; a request whose connection broke, or that got
        none in time, is left out.
    """
    return asyncio.run(_ask(address, model, requests))


async def _ask(address: str, model: str, requests: Sequence[Request]) -> dict[str, Answer]:
    host, _, port = address.partition(":")
    head = (
        f"POST /v1/models/{quote(model, safe='')}:predict HTTP/1.1\r\nhost: {address}\r\n"
        "content-type: application/json\r\n"
    )
    waiting, answers = deque(requests), dict[str, Answer]()
    loop = asyncio.get_running_loop()
    clients = [_Client(head, waiting, answers) for _ in range(min(_N_CONNECTIONS, len(requests)))]
    opened = await asyncio.gather(
        *(loop.create_connection(partial(_itself, client), host, int(port)) for client in clients),
        return_exceptions=True,
    )
    connected = [c for c, one in zip(clients, opened, strict=True) if isinstance(one, tuple)]
    await asyncio.gather(*(client.watch() for client in connected))
    return answers


def _itself(client: _Client) -> _Client:
    return client


class _Client(asyncio.Protocol):
    """One connection, which asks the next request once the last one is answered."""

    def __init__(self, head: str, waiting: deque[Request], answers: dict[str, Answer]) -> None:
        self._head, self._waiting, self._answers = head, waiting, answers
        self._asked: Request | None = None
        self._received = b""
        self._n_answered = 0
        self._is_over = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what TCP gives
        self._transport = transport
        self._ask_next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(_END_OF_HEAD)
        if end < 0:
            return
        lengths = self._received[:end].lower().partition(_LENGTH)[2].split(b"\r\n", 1)
        n_bytes = int(lengths[0] or 0)
        body_end = end + len(_END_OF_HEAD) + n_bytes
        if len(self._received) < body_end:
            return
        assert self._asked is not None  # noqa: S101 - nothing comes unasked
        body = self._received[end + len(_END_OF_HEAD) : body_end]
        self._answers[self._asked.id] = Answer(int(self._received[9:12]), body)
        self._received = self._received[body_end:]
        self._n_answered += 1
        self._ask_next()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._is_over.set()

    async def watch(self) -> None:
        """Return once everything is asked, or nothing has been answered for too long."""
        n_before = -1
        while not self._is_over.is_set():
            if n_before == self._n_answered:
                break
            n_before = self._n_answered
            try:
                await asyncio.wait_for(self._is_over.wait(), _TIMEOUT_S)
            except TimeoutError:
                continue
        if self._transport is not None:
            self._transport.abort()

    def _ask_next(self) -> None:
        if not self._waiting or self._transport is None:
            self._is_over.set()
            return
        self._asked = self._waiting.popleft()
        self._transport.write(
            f"{self._head}x-request-id: {self._asked.id}\r\n{USER_HEADER}: {self._asked.id}\r\n"
            f"content-length: {len(self._asked.body)}\r\n\r\n".encode()
            + self._asked.body
        )
