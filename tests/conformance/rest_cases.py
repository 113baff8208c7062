"""What a request over REST is answered, rule by rule of the wire reference (tf-serving.md).

The models are those of `models.py`. An error is its whole text, or with `...` at its end how it
begins; an answer is parsed JSON, or bytes for a body that is compared as it is, but for blanks
between JSON's values: TensorFlow Serving's layout is cosmetic.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

HTML_404 = (
    b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD>"
    b"<BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
)


@dataclass(frozen=True, kw_only=True)
class RestCase:
    """One request and its answer; `section` is that of the reference."""

    section: str
    path: str
    status: int
    answer: Any
    method: str = "POST"
    body: bytes | None = None
    request_headers: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    reason: str | None = None

    def __str__(self) -> str:
        body = (self.body or b"")[:40].decode("ascii", "replace")
        return f"{self.section} {self.method} {self.path[:40]} {body}".rstrip()


def _data(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode()


def post(section: str, path: str, body: Any, status: int, answer: Any, **more: Any) -> RestCase:
    path = f"/v1/models/{path}"
    return RestCase(
        section=section, path=path, body=_data(body), status=status, answer=answer, **more
    )


def _get(section: str, path: str, status: int, answer: Any, **more: Any) -> RestCase:
    return RestCase(section=section, method="GET", path=path, status=status, answer=answer, **more)


def of(signature: str, key: str, values: Any) -> bytes:
    """Write a body for a signature; `values` as text is JSON already."""
    text = values if isinstance(values, str) else json.dumps(values)
    return f'{{"signature_name":"{signature}","{key}":{text}}}'.encode()


def value_text(body: Any) -> str:
    """Print a small body as error texts show it."""
    return "JSON Value: " + json.dumps(body, indent=4)


def _version(number: int) -> dict[str, Any]:
    status = {"error_code": "OK", "error_message": ""}
    return {"version": str(number), "state": "AVAILABLE", "status": status}


TOY = of("", "instances", [1])


def routes() -> Iterator[RestCase]:
    """3.1, 3.2 and 3.12."""
    for method, path in (
        ("POST", "/v1/models/m:PREDICT"),
        ("POST", "/v1/models/m:predict?x=1"),
        ("POST", "/v1/models/m:predict?"),
        ("POST", "/v1/models/m:predict#a"),
        ("POST", "/v1/models/m:predict/"),
        ("POST", "/v1/models/m/:predict"),
        ("POST", "/v1/models/m"),
        ("POST", "/v1/models/m/metadata"),
        ("POST", "/v1/models/m:explain"),
        ("POST", "/v1/models/m/versions/x:predict"),
        ("POST", "/v1/models/m/versions/1/labels/a:predict"),
        ("POST", "/v1/models"),
        ("GET", "/v1/"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/m/"),
        ("GET", "/v1/models/m:predict"),
        ("GET", "/v1/models/m/versions/"),
        ("GET", "/v1/models/m/versions/-1"),
        ("GET", "/v1/models/m/versions/1/labels/a"),
        ("GET", "/v1/models/m/metadata/"),
        ("PUT", "/v1/models/m"),
        ("DELETE", "/v1/models/m"),
        ("PATCH", "/v1/models/m:predict"),
    ):
        yield RestCase(
            section="3.1",
            method=method,
            path=path,
            body=b"{}" if method == "POST" else None,
            status=400,
            answer=f"Malformed request: {method} {path}",
        )
    yield RestCase(section="3.1", method="HEAD", path="/v1/models/m", status=400, answer=b"")
    html = {"content-type": "text/html", "connection": "close"}
    for path in ("/", "/v1", "/v2/models/m", "/metrics", "/v1models", "/monitoring/"):
        yield _get("3.1", path, 404, HTML_404, headers=html, reason="Not Found")
    one = {"model_version_status": [_version(1)]}
    for path, status, answer in (
        ("/v1/models", 400, "Missing model name in request."),
        ("/V1/MODELS/m", 200, one),
        ("/v1/models/%6d", 200, one),
        ("/v1/models/m/versions/0001", 200, one),
        ("/v1/models/m?x=1", 404, "Could not find any versions of model m?x=1"),
        ("/v1/models/m#a", 404, "Could not find any versions of model m#a"),
        ("/v1/models/a%20b", 404, "Could not find any versions of model a b"),
        ("/v1/models/a%2Fb", 404, "Could not find any versions of model a/b"),
    ):
        yield _get("3.1", path, status, answer)
    for path in (
        "/v1/MODELS/toy",
        "/V1/models/toy",
        "/v1/models/toy/versions/1",
        "/v1/models/toy/versions/0001",
        "/v1/models/%74oy",
    ):
        yield RestCase(
            section="3.1",
            path=f"{path}:predict",
            body=TOY,
            status=200,
            answer={"predictions": [2.5]},
        )
    for digits in (str(2**63), "9" * 1000):
        for method, ending in (("GET", ""), ("GET", "/metadata"), ("POST", ":predict")):
            path = f"/v1/models/m/versions/{digits}{ending}"
            yield RestCase(
                section="3.1", method=method, path=path, body=b"{}", status=400, answer=b""
            )
    for headers in (
        {"Content-Type": "text/plain"},
        {"Accept": "text/html"},
        {"Accept-Encoding": "gzip"},
        {"Content-Encoding": "deflate"},
    ):
        yield post("3.2", "toy:predict", TOY, 200, {"predictions": [2.5]}, request_headers=headers)
    plain = {"content-type": "text/html; charset=ISO-8859-1"}
    for origin, status in (
        ({"Origin": "http://x"}, 200),
        ({"Origin": "https://x"}, 200),
        ({}, 400),
    ):
        for path in ("/v1/models/m:predict", "/v1/anything"):
            yield RestCase(
                section="3.12",
                method="OPTIONS",
                path=path,
                request_headers=origin,
                status=status,
                answer=b"",
                headers=plain if status == 200 else {},
            )


def finding() -> Iterator[RestCase]:
    """4.1 and 5.6 over REST, the status of 3.9 and the errors of the metadata of 3.10."""
    latest = "Servable not found for request: Latest(zz)"
    label = "Unrecognized servable version label: x"
    for target, status, answer in (
        ("zz:predict", 404, latest),
        ("zz/versions/1:predict", 404, "Servable not found for request: Specific(zz, 1)"),
        (
            "numbered/versions/4:predict",
            404,
            "Servable not found for request: Specific(numbered, 4)",
        ),
        (
            "numbered/versions/0:predict",
            404,
            "Servable not found for request: Specific(numbered, 0)",
        ),
        ("numbered/labels/x:predict", 400, label),
        ("numbered/labels/a%20b:predict", 400, "Unrecognized servable version label: a b"),
        (
            "numbered/labels/gone:predict",
            404,
            "Servable not found for request: Specific(numbered, 9)",
        ),
        ("numbered:predict", 200, {"predictions": [3.0]}),
        ("numbered/versions/1:predict", 200, {"predictions": [1.0]}),
        ("numbered/labels/stable:predict", 200, {"predictions": [2.0]}),
        ("numbered/labels/canary:predict", 200, {"predictions": [3.0]}),
        ("numbered/labels/%73table:predict", 200, {"predictions": [2.0]}),
    ):
        yield post("4.1", target, TOY, status, answer)
    for method in ("classify", "regress"):
        body = {"examples": [{"x": 1.5}]}
        yield post("4.1", f"zz:{method}", body, 404, latest)
        yield post("4.1", f"examples/labels/x:{method}", body, 400, label)
        yield post(
            "4.1",
            f"examples/versions/7:{method}",
            body,
            404,
            "Servable not found for request: Specific(examples, 7)",
        )
    three = {"model_version_status": [_version(3), _version(2), _version(1)]}
    for path, status, answer in (
        ("numbered", 200, three),
        ("numbered/labels/stable", 200, three),
        ("numbered/labels/zz", 200, three),
        ("numbered/versions/2", 200, {"model_version_status": [_version(2)]}),
        ("half_plus_two", 200, {"model_version_status": [_version(123)]}),
        ("numbered/versions/4", 404, "Could not find version 4 of model numbered"),
        ("zz", 404, "Could not find any versions of model zz"),
        ("zz/versions/1", 404, "Could not find version 1 of model zz"),
    ):
        yield _get("3.9", f"/v1/models/{path}", status, answer)
    for path, status, answer in (
        ("zz", 404, latest),
        ("numbered/versions/9", 404, "Servable not found for request: Specific(numbered, 9)"),
        ("numbered/labels/x", 400, label),
        ("numbered/labels/gone", 404, "Servable not found for request: Specific(numbered, 9)"),
    ):
        yield _get("3.10", f"/v1/models/{path}/metadata", status, answer)


def compression() -> Iterator[RestCase]:
    """3.11: gzip in, whole or broken."""
    empty, good = "JSON Parse error: The document is empty", {"predictions": [2.5]}
    for encoding, data, status, answer in (
        ("gzip", gzip.compress(TOY), 200, good),
        ("x-gzip", gzip.compress(TOY), 200, good),
        ("gzip, identity", gzip.compress(TOY), 200, good),
        ("gzip", TOY, 400, empty),
        ("gzip", b"", 400, empty),
        ("gzip", gzip.compress(TOY)[:-9], 400, empty),
        ("identity", TOY, 200, good),
        ("br", TOY, 200, good),
    ):
        yield post(
            "3.11",
            "toy:predict",
            data,
            status,
            answer,
            request_headers={"Content-Encoding": encoding},
        )


ALL = [case for table in (routes, finding, compression) for case in table()]
