"""HTTP answers as libevent writes them, for TensorFlow Serving is built on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    408: "Request Time-out", 409: "Conflict", 413: "Request Entity Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable",
    504: "Gateway Time-out", 505: "HTTP Version not supported",
}  # fmt: skip
JSON_HEADERS = {"Content-Type": "application/json"}
REQUEST_ID = b"x-request-id"  # as handlers find it


class Answer(NamedTuple):
    """What a handler returns.

    Attributes:
        status: HTTP status.
        headers: Without Date and Content-Length; `Connection: close` ends the connection.
        body: Not sent when the method is HEAD.
        code: Canonical gRPC code of an error; 0 where there is none, or none is known.
        request_id: Sent as `x-request-id` unless it's empty.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    code: int = 0
    request_id: bytes = b""


def reason(status: int) -> str:
    """Name a status as libevent does, which has no words for those that are newer than itself.

    >>> reason(404), reason(429)
    ('Not Found', 'Client Error')
    """
    return _REASONS.get(status) or ("Client Error" if status < 500 else "Server Error")


def error_page(status: int) -> Answer:
    """Make the HTML page that libevent sends for an error, which also ends the connection."""
    words = reason(status)
    page = (
        f"<HTML><HEAD>\n<TITLE>{status} {words}</TITLE>\n</HEAD>"
        f"<BODY>\n<H1>{words}</H1>\n</BODY></HTML>\n"
    )
    return Answer(status, {"Content-Type": "text/html", "Connection": "close"}, page.encode())


def id_line(request_id: bytes) -> bytes:
    """Write the header of a request's id, or nothing."""
    return b"x-request-id: %b\r\n" % request_id if request_id else b""


def head_of(version: str, status: int, headers: Mapping[str, str], date: str) -> str:
    """Write the head of an answer, all but the length of its body."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"HTTP/{version} {status} {reason(status)}\r\n{lines}Date: {date}\r\nContent-Length: "
