"""SageMaker's two routes, in front of TensorFlow Serving's.

- `GET /ping`: 200 and no body if the model has a version that answers, else 502.
- `POST /invocations`: a predict request in whatever format its caller has chosen. These are those
  of AWS's own container for TensorFlow Serving, with two of its faults mended: JSON values that
  stand on one line are read, and of CSV with unquoted text every comma separates, not only the
  first. The answer is that of the route of `/v1` that is meant.

Source: https://github.com/aws/sagemaker-tensorflow-serving-container,
docker/build_artifacts/sagemaker/tensorflowServing.js
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.serving.http_answers import JSON_HEADERS, Answer
from mlops_mini.serving.http_requests import Ended, Handler
from mlops_mini.serving.models import Models
from mlops_mini.serving.rest_api import error_answer
from mlops_mini.serving.workers import MAX_INLINE_BYTES, Workers

_ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"  # as handlers find it
_LINES = "application/jsonlines"
_JSON_TYPES = ("application/json", _LINES, "application/jsons")
_CSV_TYPE = "text/csv"
# A body that has one of these keys anywhere is TensorFlow Serving's own.
_IS_SERVINGS = re.compile(rb'"(?:instances|inputs|examples)"\s*:')
_ATTRIBUTE = re.compile(r"tfs-(model-name|model-version|method)=([^,]+)")
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
# One cell of CSV, quoted or not, and what ends it.
_CELL = re.compile(r'(?:[ \t]*"((?:[^"]|"")*+)"[ \t]*|([^",\n]*))(,|\n|\Z)')
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|NaN|-?Inf(?:inity)?")


class UnsupportedMediaTypeError(InvalidArgumentError):
    """A content type that can't be converted: HTTP's status 415."""

    hint = f"send {', '.join(_JSON_TYPES)} or {_CSV_TYPE}, without parameters"


@dataclass(frozen=True, kw_only=True, slots=True)
class SageMakerRoutes:
    """Answers SageMaker's routes, and leaves all others to another handler.

    Attributes:
        model: The model that is asked unless a request names another one.
        models: All models.
        workers: Where large bodies are converted.
        inner: Answers TensorFlow Serving's routes.
        ended: Told of each invocation, as a request for the route that is meant.
    """

    model: str
    models: Models
    workers: Workers
    inner: Handler
    ended: Ended | None = None

    async def respond(
        self, method: str, target: bytes, headers: Mapping[bytes, bytes], body: bytes
    ) -> Answer:
        """Answer a request; the arguments are those of a `Handler`."""
        if target == b"/ping" and method in ("GET", "HEAD"):
            model = self.models.by_name.get(self.model)
            return Answer(502 if model is None or model.why_not_ready() else 200, JSON_HEADERS)
        if target != b"/invocations" or method != "POST":
            return await self.inner(method, target, headers, body)
        began_s = time.perf_counter()
        route = _route(headers.get(_ATTRIBUTES, b""), self.model).encode()
        answer = await self._invoke(route, headers, body)
        if self.ended is not None:
            self.ended(method, route, answer, time.perf_counter() - began_s)
        return answer

    async def _invoke(self, route: bytes, headers: Mapping[bytes, bytes], body: bytes) -> Answer:
        work = (convert, headers.get(b"content-type", b"").decode("latin-1"), body)
        try:
            if len(body) <= MAX_INLINE_BYTES:
                converted = convert(*work[1:])
            else:
                converted = bytes(await self.workers.do_json(len(body), *work))
        except UnsupportedMediaTypeError as exc:
            return error_answer(exc)._replace(status=415)
        except InvalidArgumentError as exc:
            return error_answer(exc)
        answer = await self.inner("POST", route, headers, converted)
        if headers.get(b"accept") == _LINES.encode():
            # What's within texts is escaped, so all line ends in the answer are layout.
            one_line = answer.body.replace(b"\n", b"")
            answer = answer._replace(headers={"Content-Type": _LINES}, body=one_line)
        return answer


def _route(attributes: bytes, default_model: str) -> str:
    """Find TensorFlow Serving's route for a request.

    Args:
        attributes: The header `X-Amzn-SageMaker-Custom-Attributes`; empty if there's none.
        default_model: Who is asked unless the header names a model.

    >>> _route(b"tfs-model-version=2,tfs-method=regress", "m")
    '/v1/models/m/versions/2:regress'
    """
    said = dict(_ATTRIBUTE.findall(attributes.decode("utf-8", "replace")))
    model = quote(said.get("model-name", default_model).strip(), safe="")
    version = f"/versions/{said['model-version'].strip()}" if "model-version" in said else ""
    return f"/v1/models/{model}{version}:{said.get('method', 'predict').strip()}"


def convert(content_type: str, body: bytes | memoryview) -> bytes:
    r"""Convert a body to a predict body.

    Args:
        content_type: As it was sent.
        body: What was sent.

    Returns:
        JSON with `instances`; or what was sent, if it's TensorFlow Serving's JSON already.

    Raises:
        UnsupportedMediaTypeError: The type is none of those that can be converted.
        InvalidArgumentError: The body isn't of that type; the message says where.

    >>> convert("text/csv", b"1.0,2.0\n3.0,4.0\n"), convert("application/jsons", b'{"x":1} {"x":2}')
    (b'{"instances":[[1.0,2.0],[3.0,4.0]]}', b'{"instances":[{"x":1},{"x":2}]}')
    """
    body = bytes(body)
    if content_type in _JSON_TYPES:
        if _IS_SERVINGS.search(body):
            return body
        values = list(_json_values(body.decode("utf-8", "surrogateescape")))
        is_rows = len(values) == 1 and re.match(r"\[\s*\[", values[0])
        rows = values[0] if is_rows else f"[{','.join(values)}]"
    elif content_type == _CSV_TYPE:
        rows = f"[{','.join(_csv_rows(body.decode('utf-8', 'surrogateescape')))}]"
    else:
        raise UnsupportedMediaTypeError(f"Unsupported Media Type: {content_type or 'Unknown'}")
    return f'{{"instances":{rows}}}'.encode("utf-8", "surrogateescape")


def _json_values(text: str) -> Iterator[str]:
    """Cut a text into the JSON values that stand in it, with nothing but space in between."""
    position = _end_of_space(text, 0)
    if position == len(text):
        raise InvalidArgumentError("the body is empty: send at least one JSON value")
    while position < len(text):
        try:
            _, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as exc:
            at = exc.pos if isinstance(exc, json.JSONDecodeError) else position
            raise InvalidArgumentError(f"no JSON at offset {at}: {text[at : at + 20]!r}") from exc
        yield text[position:end]
        position = _end_of_space(text, end)


def _end_of_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


class _Cell(NamedTuple):
    text: str
    is_quoted: bool


def _csv_rows(text: str) -> Iterator[str]:
    """Write each row of CSV as JSON: a list, or a plain value where there's one column.

    Quoted cells are texts. The others are all numbers or all texts, as the first of them is.
    """
    n_columns, are_numbers = 0, None
    for number, cells in enumerate(_cells(text), 1):
        n_columns = n_columns or len(cells)
        if len(cells) != n_columns:
            raise InvalidArgumentError(
                f"rows 1 and {number} differ in length: {n_columns} and {len(cells)} values"
            )
        if are_numbers is None:
            plain = (cell.text for cell in cells if not cell.is_quoted)
            are_numbers = next(map(_looks_like_number, plain), None)
        values = [
            _value(cell, bool(are_numbers), f"row {number}, column {column}")
            for column, cell in enumerate(cells, 1)
        ]
        yield f"[{','.join(values)}]" if n_columns > 1 else values[0]
    if not n_columns:
        raise InvalidArgumentError("the body is empty: send at least one row of CSV")


def _cells(text: str) -> Iterator[list[_Cell]]:
    """Cut CSV into rows of cells; blank lines are passed over."""
    text = text.replace("\r\n", "\n").rstrip("\n")
    position, end, row, n_rows = 0, ",", list[_Cell](), 1
    while end:
        match = _CELL.match(text, position)
        if match is None:
            raise InvalidArgumentError(
                f"row {n_rows}, column {len(row) + 1}: a quote isn't closed, or has text beside it"
            )
        quoted, plain, end = match.groups()
        cell = _Cell(plain.strip(), False) if quoted is None else _Cell(quoted, True)
        row.append(cell)
        position = match.end()
        if end != ",":
            if row != [_Cell("", False)]:
                yield row
                n_rows += 1
            row = []


def _looks_like_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _value(cell: _Cell, are_numbers: bool, where: str) -> str:
    if cell.is_quoted:
        return json.dumps(cell.text.replace('""', '"'), ensure_ascii=False)
    if not are_numbers:
        return json.dumps(cell.text, ensure_ascii=False)
    if not _NUMBER.fullmatch(cell.text):
        raise InvalidArgumentError(
            f"{where}: {cell.text[:20]!r} is no number, such as 0.5, 1e-3 or NaN; a text beside"
            " numbers needs quotes"
        )
    return cell.text
