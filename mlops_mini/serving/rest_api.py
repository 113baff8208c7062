"""The REST API: TensorFlow Serving's routes, and outside `/v1` a few of our own.

A path is what was sent, undecoded, with query and fragment; it is matched whole, as TensorFlow
Serving does it, and names are decoded after. Our own routes, all JSON:

- `GET /healthz`: 200 while the process answers.
- `GET /readyz`: 200 when every model has a version that answers, else 503 and why not, by model.
- `GET /admin/models`: the models, their folders, versions and labels.
- `POST /admin/models`, a `ModelConfig` of TensorFlow Serving's configuration file as JSON, such as
  `{"name": "m", "base_path": "/models/m"}`: serve one more. It answers at once, `/readyz` tells on.
- `DELETE /admin/models/NAME`: serve one less.

No web page may use the admin routes, not even one that a browser takes for our own: what has an
`Origin` is refused, and so is a body that does not say it is JSON.

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

from google.protobuf import json_format
from tensorflow_serving.config import model_server_config_pb2

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError, NotFoundError, by_code
from mlops_mini.serving import examples, model_config
from mlops_mini.serving.http_protocol import Answer, Handler, error_page
from mlops_mini.serving.inference import ModelServer
from mlops_mini.serving.models import Models

_TARGET = r"(?:(?:/versions/([0-9]+))|(?:/labels/([^/:]+)))?"
_POST = re.compile(rf"(?ia)/v1/models/([^/:]+){_TARGET}:(classify|regress|predict)")
_GET = re.compile(rf"(?ia)/v1/models(?:/([^/:]+))?{_TARGET}(?:/(metadata))?")
_PREFIX = re.compile(r"(?ia)/v1/.*", re.DOTALL)
_ADMIN = re.compile(r"/admin/models(?:/([^/?#]+))?")
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


def application(
    server: ModelServer, models: Models, *, cors: bool = False, admin: bool = False
) -> Handler:
    """Make the handler of HTTP requests.

    Args:
        server: Whom the routes of TensorFlow Serving ask.
        models: Whom our own routes ask.
        cors: Let any web page read the answers of `/v1`.
        admin: Offer `/admin/models`. Whoever reaches the port may use it, and a model is a program:
            only where no other machine reaches it.
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
            not_ready = models.not_ready()
            return _json(503 if not_ready else 200, {"ready": not not_ready, "models": not_ready})
        if admin and (match := _ADMIN.fullmatch(path)):
            return await _administer(models, method, match[1], headers, body)
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
            return server.metadata_json(name=_unquote(name), version=version, version_label=label)
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


async def _administer(
    models: Models, method: str, name: str | None, headers: Mapping[bytes, bytes], body: bytes
) -> Answer:
    try:
        if b"origin" in headers:
            raise by_code(7, "a web page may not administer models: use a client without Origin")
        if method == "POST" and name is None:
            if headers.get(b"content-type", b"").partition(b";")[0].strip() != b"application/json":
                raise InvalidArgumentError("adding a model takes Content-Type: application/json")
            await asyncio.to_thread(models.add, _model_config(body))
        elif method == "DELETE" and name is not None:
            await asyncio.to_thread(models.remove, _unquote(name))
        elif method not in ("GET", "HEAD") or name is not None:
            raise InvalidArgumentError(
                "use GET or POST /admin/models, or DELETE /admin/models/NAME"
            )
        return _json(200, {"models": _list(models)})
    except MlopsMiniError as exc:
        return _error(exc)


def _model_config(body: bytes) -> model_config.ModelConfig:
    message = model_server_config_pb2.ModelServerConfig()
    config = message.model_config_list.config.add()
    try:
        json_format.Parse(body, config)
    except (json_format.ParseError, UnicodeDecodeError) as exc:
        raise InvalidArgumentError(f"not the JSON of a ModelConfig: {exc}") from exc
    if not config.name:
        raise InvalidArgumentError('a model needs a name: {"name": "m", "base_path": "/models/m"}')
    if not (config.model_platform or config.model_type):
        config.model_platform = model_config.PLATFORM
    return model_config.from_message(message)[0]


def _list(models: Models) -> list[dict[str, Any]]:
    not_ready = models.not_ready()
    listed = []
    for config in models.configs():
        try:
            statuses = models.statuses(config.name)
        except NotFoundError:
            statuses = []
        listed.append(
            {
                "name": config.name,
                "base_path": config.base_path,
                "versions": {str(status.version): status.state.name for status in statuses},
                "version_labels": dict(config.labels),
                "not_ready": not_ready.get(config.name),
            }
        )
    return listed


def _error(exc: MlopsMiniError) -> Answer:
    document = {"error": str(exc)}
    if exc.hint:
        document["hint"] = exc.hint
    return _json(_STATUS.get(exc.code, 500), document)


def _json(status: int, document: Mapping[str, Any]) -> Answer:
    text = json.dumps(document, indent=4, ensure_ascii=False)
    return Answer(status, _JSON, text.encode("utf-8", "surrogateescape"))
