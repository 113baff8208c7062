"""The HTTP edge: TensorFlow Serving's routes as a bare ASGI application.

Paths are matched undecoded and whole, as TensorFlow Serving matches them; names are decoded after.

Source: TensorFlow Serving's RESTful API, https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError, UnimplementedError
from mlops_mini.serving.inference import ModelServer

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_TARGET = r"(?:(?:/versions/([0-9]+))|(?:/labels/([^/:]+)))?"
_POST = re.compile(rf"(?ia)/v1/models/([^/:]+){_TARGET}:(classify|regress|predict)")
_GET = re.compile(rf"(?ia)/v1/models(?:/([^/:]+))?{_TARGET}(?:/(metadata))?")
_PREFIX = re.compile(r"(?ia)/v1/.*", re.DOTALL)
_INT64_MAX = 2**63 - 1
_INT64_DIGITS = 19
_MAX_INFLATED_BYTES = 100 * 2**20
_JSON = b"application/json"
_NOT_FOUND_PAGE = (
    b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD>"
    b"<BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
)
# HTTP status of a canonical gRPC code; every other code is a 500.
_STATUS = {
    3: 400, 9: 400, 11: 400, 16: 401, 7: 403, 5: 404, 6: 409, 10: 409, 8: 429, 1: 499,
    12: 501, 14: 503, 4: 504,
}  # fmt: skip


class _EmptyBadRequestError(InvalidArgumentError):
    """The one error that TensorFlow Serving answers without a body: a version over int64."""


def application(server: ModelServer) -> Application:
    """Make the ASGI application that asks this server."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        path = _raw_path(scope)
        if not _PREFIX.fullmatch(path):
            await _send(
                send,
                404,
                _NOT_FOUND_PAGE,
                (b"content-type", b"text/html"),
                (b"connection", b"close"),
            )
            return
        try:
            status, body = 200, await _answer(server, scope["method"], path, scope, receive)
        except _EmptyBadRequestError:
            status, body = 400, b""
        except MlopsMiniError as exc:
            status = _STATUS.get(exc.code, 500)
            body = json.dumps({"error": str(exc)}, indent=4, ensure_ascii=False).encode(
                "utf-8", "surrogateescape"
            )
        await _send(send, status, b"" if scope["method"] == "HEAD" else body)

    return respond


async def _answer(
    server: ModelServer, method: str, path: str, scope: Scope, receive: Receive
) -> bytes:
    if method == "POST" and (match := _POST.fullmatch(path)):
        name, version, label, verb = match.groups()
        body = await _read_body(scope, receive)
        if verb == "predict":
            return await server.predict_json(
                body, name=_unquote(name), version=_version(version), version_label=_label(label)
            )
        if verb in ("classify", "regress"):
            raise UnimplementedError(f"{verb} is not served yet; use predict")
    if method == "GET" and (match := _GET.fullmatch(path)):
        name, version, label, metadata = match.groups()
        if name is None:
            raise InvalidArgumentError("Missing model name in request.")
        if metadata:
            return server.metadata_json(
                name=_unquote(name), version=_version(version), version_label=_label(label)
            )
        return server.status_json(name=_unquote(name), version=_version(version))
    raise InvalidArgumentError(f"Malformed request: {method} {path}")


def _raw_path(scope: Scope) -> str:
    """Return the path as it was sent: undecoded, with the query, which is part of the name."""
    raw: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    return (raw + b"?" + query if query else raw).decode("utf-8", "surrogateescape")


def _version(digits: str | None) -> int | None:
    if digits is None:
        return None
    significant = digits.lstrip("0") or "0"
    if len(significant) > _INT64_DIGITS or int(significant) > _INT64_MAX:
        raise _EmptyBadRequestError(f"version {digits} does not fit into 64 bits")
    return int(significant)


def _label(label: str | None) -> str | None:
    return None if label is None else _unquote(label)


def _unquote(text: str) -> str:
    """Decode %XX; bytes that are no UTF-8 pass through."""
    return unquote(text, errors="surrogateescape")


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    chunks = []
    more = True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(chunks)
    encodings = [value for name, value in scope["headers"] if name == b"content-encoding"]
    return _inflate(body) if any(b"gzip" in value for value in encodings) else body


def _inflate(body: bytes) -> bytes:
    """Unpack gzip; what is broken, or too large, counts as an empty body."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        inflated = inflater.decompress(body, _MAX_INFLATED_BYTES)
    except zlib.error:
        return b""
    return inflated if inflater.eof else b""


async def _send(
    send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes], kind: bytes = _JSON
) -> None:
    own = headers or ((b"content-type", kind),)
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*own, length]})
    await send({"type": "http.response.body", "body": body})
