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
import contextlib
import functools
import json
import logging
import re
import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import random
from typing import Any, cast
from urllib.parse import unquote

import numpy.typing as npt

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError
from mlops_mini.serving import (
    json_fast,
    json_hint,
    json_long,
    json_request,
    json_response,
    lifecycle,
)
from mlops_mini.serving.batching import Results, to_arrays
from mlops_mini.serving.example_methods import ExampleMethods
from mlops_mini.serving.http_answers import JSON_HEADERS, REQUEST_ID, Answer, error_page
from mlops_mini.serving.http_requests import Reply, Taker
from mlops_mini.serving.json_fast import FastReader, FastRequest, InputLayout
from mlops_mini.serving.json_request import DecodedRequest
from mlops_mini.serving.json_response import PreparedOutputs
from mlops_mini.serving.model_config import LogConfig
from mlops_mini.serving.model_service import ModelService
from mlops_mini.serving.models import Models
from mlops_mini.serving.monitoring import Monitoring
from mlops_mini.serving.predict import Predictor
from mlops_mini.serving.request_log import Exchange, RequestLog, predict_exchange
from mlops_mini.serving.servables import (
    CLASSIFY,
    DEFAULT_SIGNATURE,
    REGRESS,
    LoadedSignature,
    Servable,
)
from mlops_mini.serving.workers import MAX_INLINE_BYTES, Workers
from mlops_mini.wire import ModelSpec, NotQuickError, text_bytes

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

_TARGET = r"(?:(?:/versions/([0-9]+))|(?:/labels/([^/:]+)))?"
_POST = re.compile(rf"(?ia)/v1/models/([^/:]+){_TARGET}:(classify|regress|predict)")
_GET = re.compile(rf"(?ia)/v1/models(?:/([^/:]+))?{_TARGET}(?:/(metadata))?")
_PREFIX = re.compile(r"(?ia)/v1/.*", re.DOTALL)
_ORIGIN = re.compile(r"(?ia)https?://[^/?#]*")
_INT64_MAX = 2**63 - 1
_INT64_DIGITS = 19
_MAX_INFLATED_BYTES = 100 * 2**20
_QUICKLY_INFLATED_BYTES = 4 * 2**10
_FEW_VALUES = 1000  # of an output: never a large answer
_JSON = JSON_HEADERS
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


@dataclass(frozen=True, kw_only=True, slots=True)
class RestApi:
    """Answers HTTP requests; `respond` is the handler that `http_protocol` calls.

    Attributes:
        models: All models.
        workers: Where slow work is done.
        predictor: Answers Predict.
        examples: Answers Classify and Regress.
        model_service: Answers questions about models.
        timeout_s: Longest run of a request, seconds; None for no limit.
        cors: Let any web page read the answers of `/v1`.
        monitoring: Writes the page of metrics; None for no page.
        request_log: Where predict requests of models with a log go.
    """

    models: Models
    workers: Workers
    predictor: Predictor
    examples: ExampleMethods
    model_service: ModelService
    timeout_s: float | None = 30.0
    cors: bool = False
    monitoring: Monitoring | None = None
    request_log: RequestLog = field(default_factory=RequestLog)
    _reader: FastReader = field(default_factory=FastReader)
    _large_replies: set[asyncio.Task[None]] = field(default_factory=set)

    def find_taker(
        self, method: str, target: bytes, headers: Mapping[bytes, bytes]
    ) -> Taker | None:
        """Find out who takes the bodies of plain predict requests; see `FindTaker`."""
        path = target.decode("utf-8", "surrogateescape")
        match = _POST.fullmatch(path) if method == "POST" else None
        if match is None or match[4] != "predict" or b"content-encoding" in headers:
            return None
        try:
            spec = _spec(*match.groups()[:3])
        except MlopsMiniError:
            return None
        label = spec.version_label if spec.version is None else ""
        request_id = headers.get(REQUEST_ID, b"")
        return functools.partial(self._take, spec.name, (spec.version, label), request_id)

    def _take(
        self,
        name: str,
        version: tuple[int | None, str],
        request_id: bytes,
        body: bytes,
        reply: Reply,
        is_alone: bool,
    ) -> bool:
        """Take a request that can be run as it is, together with others."""
        model = self.models.by_name.get(name)
        servable = model.answering.get(version) if model else None
        if model is None or servable is None:
            return False
        request = self._reader.read(body, servable.layouts)
        if request is None:
            return False
        signature = servable.signatures.get(request.signature_name or DEFAULT_SIGNATURE)
        if signature is None or signature.layout is None:
            return False
        axis = 0 if signature.layout.shape else 1
        predict = _Predict(self, servable, signature, request, axis, reply)
        logs = self.request_log.logs
        if logs:
            predict.request_id = request_id
            log = logs.get(name)
            if log is not None and random() < log.sampling_rate:  # noqa: S311 - `sampled` inline
                predict.request_id = self.request_log.identify(request_id)
                predict.log, predict.version = log, version
        return self.predictor.submit(model, servable, signature, predict, is_alone=is_alone)

    def log(
        self,
        predict: _Predict,
        log: LogConfig,
        arrays: Sequence[Array],
        start: int,
        stop: int | None,
    ) -> None:
        """Log a request, with its rows of the outputs; what takes long is left to the log."""
        n_bytes = 8 * predict.n_elements
        for array in arrays:
            n_bytes += array.nbytes if stop is None else array.nbytes * predict.n_rows // len(array)
            n_bytes += text_bytes(array[start:stop]) if array.dtype.char == "O" else 0
        make = functools.partial(_exchange, predict, arrays, start, stop)
        name = predict.servable.name
        self.request_log.add_later(log, name, predict.request_id, make, n_bytes)

    def reply_later(
        self, send: Callable[[Answer], None], outputs: Mapping[str, Array], is_rows: bool
    ) -> None:
        """Write a large answer where that stops nobody."""
        work = asyncio.get_running_loop().create_task(self._reply_large(send, outputs, is_rows))
        self._large_replies.add(work)
        work.add_done_callback(self._large_replies.discard)

    async def _reply_large(
        self, send: Callable[[Answer], None], outputs: Mapping[str, Array], is_rows: bool
    ) -> None:
        try:
            body = await self._write(outputs, is_rows)
        except MlopsMiniError as exc:
            send(error_answer(exc))
        else:
            send(Answer(200, _JSON, body))

    def with_cors(self, answer: Answer) -> Answer:
        """Let web pages from elsewhere read an answer, if they may."""
        return answer._replace(headers={**answer.headers, **_CORS}) if self.cors else answer

    async def respond(
        self, method: str, target: bytes, headers: Mapping[bytes, bytes], body: bytes
    ) -> Answer:
        """Answer a request; the arguments are those of a `Handler`."""
        path = target.decode("utf-8", "surrogateescape")
        if path[:1] != "/":
            path = _ORIGIN.sub("", path, count=1)  # as a proxy is asked
        if self.monitoring is not None and (page := await self.monitoring.answer(path)):
            return page
        if _PREFIX.fullmatch(path):
            request_id = b""
            if self.request_log.logs:
                request_id = self.request_log.identify(headers.get(REQUEST_ID, b""))
            answer = await self._serve(method, path, headers, body, request_id)
            if request_id:
                answer = answer._replace(request_id=request_id)
            return self.with_cors(answer)
        if method in ("GET", "HEAD") and path == "/healthz":
            return _json(200, {"status": "ok"})
        if method in ("GET", "HEAD") and path == "/readyz":
            report = self.models.report()
            is_ready = all(model["ready"] for model in report.values())
            return _json(200 if is_ready else 503, {"ready": is_ready, "models": report})
        return error_page(404)

    async def _serve(
        self,
        method: str,
        path: str,
        headers: Mapping[bytes, bytes],
        body: bytes,
        request_id: bytes,
    ) -> Answer:
        if method == "OPTIONS":
            is_from_web = re.search(rb"https?://", headers.get(b"origin", b""))
            return Answer(200 if is_from_web else 400, _EMPTY)
        try:
            return Answer(200, _JSON, await self._ask(method, path, headers, body, request_id))
        except _EmptyBadRequestError:
            return Answer(400, _JSON, code=InvalidArgumentError.code)
        except MlopsMiniError as exc:
            return error_answer(exc)

    async def _ask(
        self,
        method: str,
        path: str,
        headers: Mapping[bytes, bytes],
        body: bytes,
        request_id: bytes,
    ) -> bytes:
        if method == "POST" and (match := _POST.fullmatch(path)):
            name, digits, label, verb = match.groups()
            spec = _spec(name, digits, label)
            if verb in ("predict", "classify", "regress"):
                if b"gzip" in headers.get(b"content-encoding", b""):
                    body = await _inflate(body)
                if verb == "predict":
                    return await self.predict(spec, body, request_id)
                method = CLASSIFY if verb == "classify" else REGRESS
                run = (self.examples.infer_json, method, spec, body, self.timeout_s, request_id)
                return await self.workers.run(*run, timeout_s=self.timeout_s)
        if method == "GET" and (match := _GET.fullmatch(path)):
            name, digits, label, metadata = match.groups()
            spec = _spec(name or "", digits, label)
            if name is None:
                raise InvalidArgumentError("Missing model name in request.")
            if metadata == "metadata":  # in other letters it matches, and asks for the status
                return await self.workers.do(self.model_service.metadata_json, spec)
            return self.model_service.status_json(spec)
        raise InvalidArgumentError(f"Malformed request: {method} {path}")

    async def predict(self, spec: ModelSpec, body: bytes, request_id: bytes = b"") -> bytes:
        """Answer the body of a predict request with the body of its answer.

        Args:
            spec: The model; the body names the signature.
            body: What was sent.
            request_id: For the request log.

        Raises:
            MlopsMiniError: With TensorFlow Serving's code and text; an `InvalidArgumentError` has a
                `hint` that says what the model takes.
        """
        with contextlib.ExitStack() as hold:
            servable, not_served = None, None
            try:
                servable = hold.enter_context(lifecycle.acquire(self.models.by_name, spec))
            except (
                MlopsMiniError
            ) as exc:  # whoever sent a body that is not JSON hears of that first
                not_served = exc
            key, request = await self._read(body, servable.dtypes if servable else {})
            if servable is None:
                raise cast("MlopsMiniError", not_served)
            try:
                _check_signature(servable, key)
                if isinstance(request, MlopsMiniError):
                    raise request
                request = cast("DecodedRequest", request)  # None is an unknown signature
                self._learn(servable, key, body, request)
                outputs = await self.predictor.run(
                    servable, key, request.inputs, timeout_s=self.timeout_s, hold=hold
                )
                log = self.request_log.sampled(spec.name)
                if log is not None:
                    asked, inputs = replace(spec, signature_name=key), request.inputs
                    self.request_log.add_predict(
                        log, request_id, asked, servable.version, inputs, outputs
                    )
                return await self._write(outputs, request.is_rows)
            except InvalidArgumentError as exc:
                exc.hint = json_hint.predict_hint(servable, key)
                raise

    def _learn(self, servable: Servable, key: str, body: bytes, request: DecodedRequest) -> None:
        """Let the next body like this one be read the fast way."""
        layout = servable.signatures[key or DEFAULT_SIGNATURE].layout
        if layout is not None and layout.shape is not None and len(body) <= json_fast.MAX_BYTES:
            self._reader.learn(body, next(iter(request.inputs.values())).shape)

    async def _read(
        self, body: bytes, signatures: Mapping[str, Mapping[str, str]]
    ) -> tuple[str, DecodedRequest | MlopsMiniError | None]:
        """Read a predict body: here if that is quick, else where it stops nobody."""
        if len(body) <= MAX_INLINE_BYTES:
            with contextlib.suppress(NotQuickError):
                return json_request.read_predict(body, signatures, quick=True)
        return await self.workers.do_json(len(body), json_long.read_predict, body, signatures)

    async def _write(self, outputs: Mapping[str, Array], is_rows: bool) -> bytes:
        """Write the body of an answer: here, or where a large one stops nobody."""
        n_bytes = json_response.answer_bytes(outputs)
        if n_bytes <= MAX_INLINE_BYTES:
            return json_response.encode_predict(outputs, is_rows)
        return await self.workers.do_json(n_bytes, json_response.encode_predict, outputs, is_rows)


class _Predict:
    """A predict request that was taken: one of the tasks of `batching`.

    Attributes:
        key: The signature as the body names it.
        log: Where it's logged, if it is.
        version: The version and label that it asks for; set where it's logged.
        request_id: Goes back with the answer unless it's empty.
    """

    __slots__ = (
        "_api", "_is_rows", "_reply", "axis", "blocks", "key", "kind", "log", "n_elements",
        "n_rows", "queued_s", "request_id", "servable", "signature", "timeout_s", "version",
    )  # fmt: skip

    def __init__(
        self,
        api: RestApi,
        servable: Servable,
        signature: LoadedSignature,
        request: FastRequest,
        axis: int,
        reply: Reply,
    ) -> None:
        self.blocks: Sequence[Any]
        self.kind: Hashable
        self.key, self._is_rows, self.blocks, self.n_rows, self.n_elements, self.kind = request
        self.axis = axis
        self.timeout_s = api.timeout_s
        self.queued_s = reply.began_s
        self._api = api
        self.servable = servable
        self.signature = signature
        self.log: LogConfig | None = None
        self.version: tuple[int | None, str]
        self.request_id = b""
        self._reply = reply

    def done(self, results: Results, start: int, stop: int | None) -> bool:
        if self.log is not None:
            self._api.log(self, self.log, results.arrays, start, stop)
        try:
            aliases, body = self.signature.output_aliases, None
            if stop is None:
                body = json_response.encode_few(aliases, results.arrays, self._is_rows)
            if body is None:
                prepared: PreparedOutputs | None = results.shared
                if prepared is None:
                    outputs = dict(zip(aliases, results.arrays, strict=True))
                    if _is_large(outputs):
                        own = {alias: array[start:stop] for alias, array in outputs.items()}
                        self._api.reply_later(self._send, own, self._is_rows)
                        return False
                    prepared = results.shared = PreparedOutputs(outputs)
                body = prepared.encode(start, stop, self._is_rows)
        except MlopsMiniError as exc:
            self._send(error_answer(exc))
            return False
        if self._api.cors:
            self._send(Answer(200, _JSON, body))
            return False
        return self._reply.send_json(body, self.request_id)

    def _send(self, answer: Answer) -> None:
        self._reply.send(self._api.with_cors(answer._replace(request_id=self.request_id)))

    def failed(self, error: Exception) -> None:
        if not isinstance(error, MlopsMiniError):
            self._reply.send(error_page(500)._replace(request_id=self.request_id))
            return
        if isinstance(error, InvalidArgumentError):
            error.hint = json_hint.predict_hint(self.servable, self.key)
        self._send(error_answer(error))


def _exchange(predict: _Predict, arrays: Sequence[Array], start: int, stop: int | None) -> Exchange:
    """Serialize a request with its rows of the outputs."""
    servable, signature = predict.servable, predict.signature
    inputs = to_arrays(cast("InputLayout", signature.layout), predict.blocks)
    own = [array[start:stop] for array in arrays]
    outputs = dict(zip(signature.output_aliases, own, strict=True))
    asked = _asked(servable.name, *predict.version, predict.key)
    return predict_exchange(asked, servable.version, inputs, outputs)


@functools.lru_cache(256)
def _asked(name: str, version: int | None, label: str, key: str) -> ModelSpec:
    return ModelSpec(name=name, version=version, version_label=label, signature_name=key)


def _is_large(outputs: Mapping[str, Array]) -> bool:
    is_small = all(a.size <= _FEW_VALUES and a.dtype != object for a in outputs.values())
    return not is_small and json_response.answer_bytes(outputs) > MAX_INLINE_BYTES


def _spec(name: str, digits: str | None, label: str | None) -> ModelSpec:
    return ModelSpec(
        name=_unquote(name), version=_version(digits), version_label=_unquote(label or "")
    )


def _check_signature(servable: Servable, key: str) -> None:
    """Refuse a signature that REST cannot ask, in other words than gRPC has for it."""
    signature = servable.signatures.get(key or DEFAULT_SIGNATURE)
    if signature is None:
        raise InvalidArgumentError(
            f'Serving signature name: "{key or DEFAULT_SIGNATURE}" not found in signature def'
        )
    if not signature.inputs:
        signature.check_servable()
        raise InvalidArgumentError(f"Failed to get input map for signature: {key or 'DEFAULT'}")


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


def error_answer(exc: MlopsMiniError) -> Answer:
    """Turn an error into its status and TensorFlow Serving's JSON."""
    document = {"error": str(exc)}
    if exc.hint:
        document["hint"] = exc.hint
    return _json(_STATUS.get(exc.code, 500), document)._replace(code=exc.code)


def _json(status: int, document: Mapping[str, Any]) -> Answer:
    text = json.dumps(document, indent=4, ensure_ascii=False)
    return Answer(status, _JSON, text.encode("utf-8", "surrogateescape"))
