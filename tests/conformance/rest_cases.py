"""What a request over REST is answered, rule by rule of the wire reference (tf-serving.md).

The models are those of `models.py`. An error is its whole text, or with `...` in it how it begins
and ends; an answer is parsed JSON, or bytes for a body that is compared as it is, but for blanks
between JSON's values: TensorFlow Serving's layout is cosmetic.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

PAGE = "<HTML><HEAD>\n<TITLE>{0} {1}</TITLE>\n</HEAD><BODY>\n<H1>{1}</H1>\n</BODY></HTML>\n"
# Answers are never compressed; None stands for a header that must not be there.
JSON: dict[str, str | None] = {"content-type": "application/json", "content-encoding": None}
HTML: dict[str, str | None] = {"content-type": "text/html", "connection": "close"}
# Lists of plain values, which stand on one line.
_LISTS = re.compile(r"\[\s+([^\[\]{}]*?)\s+\]")


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
    headers: dict[str, str | None] = field(default_factory=lambda: JSON)

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


def get(section: str, path: str, status: int, answer: Any, **more: Any) -> RestCase:
    return RestCase(section=section, method="GET", path=path, status=status, answer=answer, **more)


def of(signature: str, key: str, values: Any) -> bytes:
    """Write a body for a signature; `values` as text is JSON already."""
    text = values if isinstance(values, str) else json.dumps(values)
    return f'{{"signature_name":"{signature}","{key}":{text}}}'.encode()


def value_text(body: Any) -> str:
    """Print a small body as error texts show it."""
    text = json.dumps(body, indent=4)
    return "JSON Value: " + _LISTS.sub(lambda m: re.sub(r",\s+", ", ", f"[{m[1]}]"), text)


def failed(index: int, text: str, *, key: str | None = None, code: str = "INVALID_ARGUMENT") -> str:
    """Say which row, and which of its inputs if they are named, an error is about."""
    where = str(index) if key is None else f"{index} key: {key}"
    return f"Failed to process element: {where} of 'instances' list. Error: {code}: {text}"


def version(number: int) -> dict[str, Any]:
    status = {"error_code": "OK", "error_message": ""}
    return {"version": str(number), "state": "AVAILABLE", "status": status}


TOY = of("", "instances", [1])


def routes() -> Iterator[RestCase]:
    """3.1 and 3.2."""
    for method, path in (
        ("POST", "/v1/models/m:PREDICT"),
        ("POST", "/v1/models/m:Classify"),
        ("POST", "/v1/models/m:regresS"),
        ("POST", "/v1/models/m:"),
        ("POST", "/v1/models/m:predict:predict"),
        ("POST", "/v1/models/:predict"),
        ("POST", "/v1/models/m/versions/:predict"),
        ("POST", "/v1/models/m/versions/-1:predict"),
        ("POST", "/v1/models/m/versions/+1:predict"),
        ("POST", "/v1/models/m/labels/:predict"),
        ("POST", "/v1/models/m/labels/a:b:predict"),
        ("POST", "/v1/models/m/labels/a/versions/1:predict"),
        ("POST", "/v1/models/m/versions/1:classify?x"),
        ("POST", "/v1/models/m/labels/a:regress/"),
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
        ("GET", "/v1/x"),
        ("GET", "/v1/models?x=1"),
        ("GET", "/v1/models//metadata"),
        ("GET", "/v1/models/m:classify"),
        ("GET", "/v1/models/m/x"),
        ("GET", "/v1/models/m/metadata?x=1"),
        ("GET", "/v1/models/m/versions/1/"),
        ("GET", "/v1/models/m/versions/x"),
        ("GET", "/v1/models/m/versions/1.0"),
        ("GET", "/v1/models/m/labels/"),
        ("GET", "/v1/models/m/versions/"),
        ("GET", "/v1/models/m/versions/-1"),
        ("GET", "/v1/models/m/versions/1/labels/a"),
        ("GET", "/v1/models/m/metadata/"),
        *(
            (method, path)
            for method in ("PUT", "DELETE", "PATCH")
            for path in (
                "/v1/",
                "/v1/models/m",
                "/v1/models/m/metadata",
                "/v1/models/m:predict",
                f"/v1/models/m/versions/{2**63}",
            )
        ),
    ):
        yield RestCase(
            section="3.1",
            method=method,
            path=path,
            body=b"{}" if method == "POST" else None,
            status=400,
            answer=f"Malformed request: {method} {path}",
        )
    for path in ("/v1/models/m", "/v1/models/m/metadata", "/v1/models/m:predict", "/v1/models/zz"):
        yield RestCase(section="3.1", method="HEAD", path=path, status=400, answer=b"")
    page = PAGE.format(404, "Not Found").encode()
    for path in ("/", "/v1", "/v1?x", "/v2/models/m", "/metrics", "/v1models", "/monitoring/"):
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            yield RestCase(
                section="3.1", method=method, path=path, status=404, answer=page, headers=HTML
            )
    for path in ("/", "/v1/models/m", "/v1/models/m:predict"):
        yield RestCase(
            section="3.2",
            method="TRACE",
            path=path,
            status=501,
            answer=PAGE.format(501, "Not Implemented").encode(),
            headers=HTML,
        )
    one = {"model_version_status": [version(1)]}
    for path, status, answer in (
        ("/v1/models", 400, "Missing model name in request."),
        ("/V1/MODELS/m", 200, one),
        ("/v1/models/%6d", 200, one),
        ("/v1/models/m/versions/0001", 200, one),
        ("/v1/models/m/VERSIONS/1", 200, one),
        ("/v1/models/m/Labels/x", 200, one),
        ("/v1/models/m/METADATA", 200, one),  # read as the status: its word is compared by case
        ("/v1/models/versions/1", 400, "Missing model name in request."),
        ("/v1/models/labels/x", 400, "Missing model name in request."),
        ("/v1/models/versions/1/metadata", 400, "Missing model name in request."),
        ("/v1/models/metadata", 404, "Could not find any versions of model metadata"),
        ("/v1/models/metadata/metadata", 404, "Servable not found for request: Latest(metadata)"),
        ("/v1/models/M", 404, "Could not find any versions of model M"),
        ("/v1/models/a+b", 404, "Could not find any versions of model a+b"),
        ("/v1/models/%zz", 404, "Could not find any versions of model %zz"),
        ("/v1/models/m%3Ax", 404, "Could not find any versions of model m:x"),
        ("/v1/models/th%C3%A9", 404, "Could not find any versions of model thé"),
        (
            f"/v1/models/m/versions/{2**63 - 1}",
            404,
            f"Could not find version {2**63 - 1} of model m",
        ),
        ("/v1/models/m?x=1", 404, "Could not find any versions of model m?x=1"),
        ("/v1/models/m#a", 404, "Could not find any versions of model m#a"),
        ("/v1/models/a%20b", 404, "Could not find any versions of model a b"),
        ("/v1/models/a%2Fb", 404, "Could not find any versions of model a/b"),
    ):
        yield get("3.1", path, status, answer)
    for path in (
        "/v1/MODELS/toy",
        "/V1/models/toy",
        "/v1/models/toy/versions/1",
        "/v1/models/toy/VERSIONS/1",
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
        for method, ending in (
            ("GET", ""),
            ("GET", "/metadata"),
            ("POST", ":predict"),
            ("POST", ":classify"),
            ("POST", ":regress"),
            # The version is read before anything else is looked at.
            ("POST", ":PREDICT"),
        ):
            path = f"/v1/models/m/versions/{digits}{ending}"
            yield RestCase(
                section="3.1", method=method, path=path, body=b"{}", status=400, answer=b""
            )
        yield get("3.1", f"/v1/models/versions/{digits}", 400, b"")
    for headers in (
        {"Content-Type": "text/plain"},
        {"Accept": "text/html"},
        {"Accept-Encoding": "gzip"},
        {"Accept-Encoding": "gzip, deflate, br", "Content-Type": "application/x-protobuf"},
        {"Origin": "http://x"},
        {"Content-Encoding": "deflate"},
    ):
        yield post("3.2", "toy:predict", TOY, 200, {"predictions": [2.5]}, request_headers=headers)


def finding() -> Iterator[RestCase]:
    """4.1 and 5.6 over REST, the status of 3.9 and the errors of the metadata of 3.10."""
    latest = "Servable not found for request: Latest(zz)"
    end, label = 2**63 - 1, "Unrecognized servable version label: x"
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
        (
            f"numbered/versions/{end}:predict",
            404,
            f"Servable not found for request: Specific(numbered, {end})",
        ),
        ("zz/labels/x:predict", 400, label),  # it is resolved first
        ("a%20b:predict", 404, "Servable not found for request: Latest(a b)"),
        ("%6Eumbered:predict", 200, {"predictions": [3.0]}),
        ("numbered/LABELS/stable:predict", 200, {"predictions": [2.0]}),
        ("numbered/labels/Stable:predict", 400, "Unrecognized servable version label: Stable"),
        ("numbered/versions/2:predict", 200, {"predictions": [2.0]}),
        ("numbered/versions/3:predict", 200, {"predictions": [3.0]}),
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
        yield post("4.1", f"zz/labels/x:{method}", body, 400, label)
        where = "Servable not found for request: Specific(numbered, 9)"
        yield post("4.1", f"numbered/labels/gone:{method}", body, 404, where)
        half = {"signature_name": f"{method}_x_to_y", "examples": [{"x": 2.0}]}
        answer = {"results": [3.0] if method == "regress" else [[["", 3.0]]]}
        for target in ("", "/versions/123", "/versions/00123", "/labels/stable"):
            yield post("4.1", f"half_plus_two{target}:{method}", half, 200, answer)
        yield post(
            "4.1",
            f"examples/versions/7:{method}",
            body,
            404,
            "Servable not found for request: Specific(examples, 7)",
        )
    three = {"model_version_status": [version(3), version(2), version(1)]}
    for path, status, answer in (
        ("numbered", 200, three),
        ("numbered/labels/stable", 200, three),
        ("numbered/labels/zz", 200, three),
        ("numbered/versions/2", 200, {"model_version_status": [version(2)]}),
        ("half_plus_two", 200, {"model_version_status": [version(123)]}),
        ("numbered/versions/4", 404, "Could not find version 4 of model numbered"),
        ("zz", 404, "Could not find any versions of model zz"),
        ("zz/versions/1", 404, "Could not find version 1 of model zz"),
    ):
        yield get("3.9", f"/v1/models/{path}", status, answer)
    for path, status, answer in (
        ("zz", 404, latest),
        ("numbered/versions/9", 404, "Servable not found for request: Specific(numbered, 9)"),
        ("numbered/labels/x", 400, label),
        ("numbered/labels/gone", 404, "Servable not found for request: Specific(numbered, 9)"),
        ("zz/labels/x", 400, label),
        ("zz/versions/9", 404, "Servable not found for request: Specific(zz, 9)"),
        ("a%20b", 404, "Servable not found for request: Latest(a b)"),
    ):
        yield get("3.10", f"/v1/models/{path}/metadata", status, answer)


ALL = [case for table in (routes, finding) for case in table()]
