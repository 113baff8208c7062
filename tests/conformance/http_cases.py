"""What HTTP adds: compression, limits of time, CORS. Sections 3.11, 3.12, as in `rest_cases`."""

import gzip
from collections.abc import Iterator
from typing import Any

from tests.conformance.rest_cases import HTML, JSON, PAGE, TOY, RestCase, get, of, post, version

_CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST, GET",
    "access-control-allow-headers": "Content-Type",
}
_PLAIN = {"content-type": "text/html; charset=ISO-8859-1"}


def compression() -> Iterator[RestCase]:
    """3.11: gzip in, whole or broken."""
    empty, good = "JSON Parse error: The document is empty", {"predictions": [2.5]}
    packed = gzip.compress(TOY, mtime=0)
    for encoding, data, status, answer in (
        ("gzip", packed, 200, good),
        ("x-gzip", packed, 200, good),
        ("gzip, identity", packed, 200, good),
        ("deflate,gzip", packed, 200, good),
        (
            "gzip",
            gzip.compress(b"x", mtime=0),
            400,
            "JSON Parse error: Invalid value. at offset: 0",
        ),
        # What is broken is read as an empty body.
        ("gzip", gzip.compress(b"", mtime=0), 400, empty),
        ("gzip", TOY, 400, empty),
        ("gzip", b"", 400, empty),
        ("gzip", packed[:-9], 400, empty),
        ("gzip", packed[:5], 400, empty),
        ("gzip", packed[:12] + b"\xff" * 9 + packed[21:], 400, empty),
        # Any other body is taken as it is.
        ("identity", TOY, 200, good),
        ("br", TOY, 200, good),
        ("deflate", TOY, 200, good),
        ("GZIP", TOY, 200, good),
        ("", packed, 400, "JSON Parse error: Invalid value. at offset: 0"),
        ("deflate", packed, 400, "JSON Parse error: Invalid value. at offset: 0"),
    ):
        headers = {"Content-Encoding": encoding}
        yield post("3.11", "toy:predict", data, status, answer, request_headers=headers)
    headers = {"Content-Encoding": "gzip"}
    for method in ("classify", "regress"):
        body = b'{"signature_name":"%b_x_to_y","examples":[{"x":2.0}]}' % method.encode()
        answer = {"results": [3.0] if method == "regress" else [[["", 3.0]]]}
        target = f"half_plus_two:{method}"
        for data, status, answered in (
            (gzip.compress(body, mtime=0), 200, answer),
            (gzip.compress(body, mtime=0)[:-9], 400, empty),
        ):
            yield post("3.11", target, data, status, answered, request_headers=headers)


def without_flags() -> Iterator[RestCase]:
    """3.12 without its flag."""
    for path in ("/v1/models/m:predict", "/v1/models/zz", "/v1/anything"):
        yield from _preflights(path, dict.fromkeys(_CORS))


def _preflights(path: str, cors: dict[str, Any]) -> Iterator[RestCase]:
    """3.12: what a browser asks before it lets a page ask."""
    for origin, status in (
        ({"Origin": "http://x"}, 200),
        ({"Origin": "https://x:8080"}, 200),
        ({"Origin": "null"}, 400),
        ({"Origin": "x"}, 400),
        ({}, 400),
    ):
        yield RestCase(
            section="3.12",
            method="OPTIONS",
            path=path,
            request_headers=origin,
            status=status,
            answer=b"",
            headers={**_PLAIN, **cors},
        )


def with_flags() -> Iterator[RestCase]:
    """3.11 and 3.12: CORS headers on every answer, and a run that takes longer than 1 s."""
    for path in ("/v1/models/m:predict", "/v1/models/zz", "/v1/anything"):
        yield from _preflights(path, _CORS)
    cors = {"headers": {**JSON, **_CORS}}
    one = {"model_version_status": [version(1)]}
    yield get("3.12", "/v1/models/m", 200, one, **cors)
    yield get("3.12", "/v1/models/zz", 404, "Could not find any versions of model zz", **cors)
    missing = "Servable not found for request: Latest(zz)"
    yield get("3.12", "/v1/models/zz/metadata", 404, missing, **cors)
    yield get("3.12", "/v1/x", 400, "Malformed request: GET /v1/x", **cors)
    yield get("3.12", f"/v1/models/m/versions/{2**63}", 400, b"", **cors)
    yield get(
        "3.12",
        "/",
        404,
        PAGE.format(404, "Not Found").encode(),
        headers={**HTML, **dict.fromkeys(_CORS)},
    )
    for method in ("predict", "classify", "regress"):
        text = "JSON Parse error: Invalid value. at offset: 0"
        yield post("3.12", f"m:{method}", b"x", 400, text, **cors)
    yield post("3.12", "m:predict", of("flt", "inputs", [1]), 200, {"outputs": [1.0]}, **cors)
    text = "Conversion of JSON Value: 1 to type: uint16"
    yield post("3.12", "m:predict", of("u16", "inputs", [1]), 501, text, **cors)
    for key in ("instances", "inputs"):
        text = "Timed out waiting for notification"
        yield post("3.11", "m:predict", of("slow", key, [1]), 504, text, **cors)


ALL = [case for table in (compression, without_flags) for case in table()]
WITH_FLAGS = [*with_flags()]
