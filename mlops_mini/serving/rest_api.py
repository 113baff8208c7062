"""The REST API: TensorFlow Serving's routes, and outside `/v1` a few of our own.

A path is what was sent, undecoded, with query and fragment; it is matched whole, as TensorFlow
Serving does it, and names are decoded after. Our own routes, all JSON:

- `GET /healthz`: 200 while the process answers.
- `GET /readyz`: 200 when every model has a version that answers, else 503; in both cases each
  model's versions with their states and last errors, its labels, and why it is not ready.

Nothing over REST changes what is served: for that there are the configuration file and gRPC.

Source: TensorFlow Serving's RESTful API, https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError
from mlops_mini.serving import examples
from mlops_mini.serving.http_protocol import Answer, Handler, error_page
from mlops_mini.serving.inference import ModelServer
from mlops_mini.serving.models import Models

_TARGET = r"(?:(?:/versions/([0-9]+))|(?:/labels/([^/:]+)))?"
_POST = re.compile(rf"(?ia)/v1/models/([^/:]+){_TARGET}:(classify|regress|predict)")
_GET = re.compile(rf"(?ia)/v1/models(?:/([^/:]+))?{_TARGET}(?:/(metadata))?")
_PREFIX = re.compile(r"(?ia)/v1/.*", re.DOTALL)
_ORIGIN = re.compile(r"(?ia)https?://[^/?#]*")
_INT64_MAX = 2**63 - 1
_INT64_DIGITS = 19
_MAX_INFLATED_BYTES = 100 * 2**20
_QUICKLY_INFLATED_BYTES = 4 * 2**10
_JSON = {"Content-Type": "application/json"}
_EMPTY = {"Content-Type": "text/html; charset=ISO-8859-1"}
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}
# HTTP status of a canonical gRPC code; every other code is a 500.
_STATUS = {
    3: 400, 9: 400, 11: 400, 16: 401, 7: 403, 5: 404, 6: 409, 10: 409, 8: 429, 1: 499,
    12: 501, 14: 503, 4: 504,
}  # fmt: skip


class _EmptyBadRequestError(InvalidArgumentError):
    """The one error that TensorFlow Serving answers without a body: a version over int64."""


def application(server: ModelServer, models: Models, *, cors: bool = False) -> Handler:
    """Make the handler of HTTP requests.

    Args:
        server: Whom the routes of TensorFlow Serving ask.
        models: Whom our own routes ask.
        cors: Let any web page read the answers of `/v1`.
    """

    async def respond(
        method: str, target: bytes, headers: Mapping[bytes, bytes], body: bytes
    ) -> Answer:
        path = target.decode("utf-8", "surrogateescape")
        if path[:1] != "/":
            path = _ORIGIN.sub("", path, count=1)  # as a proxy is asked
        if _PREFIX.fullmatch(path):
            answer = await _serve(server, method, path, headers, body)
            return answer._replace(headers={**answer.headers, **_CORS}) if cors else answer
        if method in ("GET", "HEAD") and path == "/healthz":
            return _json(200, {"status": "ok"})
        if method in ("GET", "HEAD") and path == "/readyz":
            report = models.report()
            is_ready = all(model["ready"] for model in report.values())
            return _json(200 if is_ready else 503, {"ready": is_ready, "models": report})
        return error_page(404)

    return respond


async def _serve(
    server: ModelServer, method: str, path: str, headers: Mapping[bytes, bytes], body: bytes
) -> Answer:
    if method == "OPTIONS":
        is_from_web = re.search(rb"https?://", headers.get(b"origin", b""))
        return Answer(200 if is_from_web else 400, _EMPTY)
    try:
        return Answer(200, _JSON, await _ask(server, method, path, headers, body))
    except _EmptyBadRequestError:
        return Answer(400, _JSON)
    except MlopsMiniError as exc:
        return _error(exc)


async def _ask(
    server: ModelServer, method: str, path: str, headers: Mapping[bytes, bytes], body: bytes
) -> bytes:
    if method == "POST" and (match := _POST.fullmatch(path)):
        name, digits, label, verb = match.groups()
        version = _version(digits)
        verbs: dict[str, Callable[..., Awaitable[bytes]]] = {
            "predict": server.predict_json,
            "classify": functools.partial(server.infer_json, examples.CLASSIFY),
            "regress": functools.partial(server.infer_json, examples.REGRESS),
        }
        if verb in verbs:
            if b"gzip" in headers.get(b"content-encoding", b""):
                body = await _inflate(body)
            label = label and _unquote(label)
            return await verbs[verb](
                body, name=_unquote(name), version=version, version_label=label
            )
    if method == "GET" and (match := _GET.fullmatch(path)):
        name, digits, label, metadata = match.groups()
        version = _version(digits)
        if name is None:
            raise InvalidArgumentError("Missing model name in request.")
        if metadata == "metadata":  # in other letters it is matched, and asks for the status
            label = label and _unquote(label)
            return await server.metadata_json(
                name=_unquote(name), version=version, version_label=label
            )
        return server.status_json(name=_unquote(name), version=version)
    raise InvalidArgumentError(f"Malformed request: {method} {path}")


def _version(digits: str | None) -> int | None:
    if digits is None:
        return None
    significant = digits.lstrip("0") or "0"
    if len(significant) > _INT64_DIGITS or int(significant) > _INT64_MAX:
        raise _EmptyBadRequestError(f"version {digits} does not fit into 64 bits")
    return int(significant)


def _unquote(text: str) -> str:
    """Decode %XX; bytes that are no UTF-8 pass through."""
    return unquote(text, errors="surrogateescape")


async def _inflate(body: bytes) -> bytes:
    """Unpack gzip; what is broken, or too large, counts as an empty body."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        if len(body) <= _QUICKLY_INFLATED_BYTES:
            inflated = inflater.decompress(body, _MAX_INFLATED_BYTES)
        else:
            inflated = await asyncio.to_thread(inflater.decompress, body, _MAX_INFLATED_BYTES)
    except zlib.error:
        return b""
    return inflated if inflater.eof else b""


def _error(exc: MlopsMiniError) -> Answer:
    document = {"error": str(exc)}
    if exc.hint:
        document["hint"] = exc.hint
    return _json(_STATUS.get(exc.code, 500), document)


def _json(status: int, document: Mapping[str, Any]) -> Answer:
    text = json.dumps(document, indent=4, ensure_ascii=False)
    return Answer(status, _JSON, text.encode("utf-8", "surrogateescape"))
