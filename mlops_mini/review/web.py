"""The page on which people decide what waits in a review queue, as a small FastAPI application.

On this machine anybody may use it who can reach its port; anywhere else a token is needed. Answers
to pages of other sites are refused, and the page loads nothing from anywhere else.
"""

from __future__ import annotations

import base64
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from importlib import resources
from ipaddress import ip_address
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, Field

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError, UnavailableError
from mlops_mini.review.queue import ReviewQueue

logger = logging.getLogger(__name__)

Name = Annotated[str, Field(min_length=1, max_length=200)]
Answer = Callable[[Request], Awaitable[Response]]

_COOKIE = "mlops_mini_review"
_STATUS = {3: 400, 5: 404, 7: 403, 9: 409, 10: 409, 14: 503}  # of the canonical gRPC codes
_LARGEST = 10_000  # bytes of a request
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}


class Person(BaseModel):
    """Who asks."""

    annotator: Name


class Decision(Person):
    """What a person has decided about an item."""

    item: Name
    label: Name
    saw_hint: bool = False


def create_app(queue: ReviewQueue, *, token: str = "") -> FastAPI:
    """Make the application.

    Args:
        queue: What is to be decided.
        token: Who doesn't have it is refused; without one, only who calls this machine by a name
            that nobody else can give to it, such as `localhost`, is answered.
    """
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, answer: Answer) -> Response:
        refusal = _refusal(request, token)
        if refusal is not None:
            response: Response = JSONResponse({"error": refusal[1]}, refusal[0])
        elif token and request.query_params.get("token"):
            response = RedirectResponse("/", 303)  # takes the token out of the address
            response.set_cookie(_COOKIE, token, httponly=True, samesite="strict")
        else:
            response = await answer(request)
        response.headers.update(_HEADERS)
        return response

    @app.exception_handler(MlopsMiniError)
    def explain(_request: Request, exc: MlopsMiniError) -> Response:
        return JSONResponse({"error": str(exc)}, _STATUS.get(exc.code, 500))

    @app.exception_handler(RequestValidationError)
    def refuse(_request: Request, exc: RequestValidationError) -> Response:
        what = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
        return JSONResponse({"error": what}, 400)

    for path, (file, media_type) in _FILES.items():
        content = (resources.files("mlops_mini.review") / file).read_bytes()
        app.add_api_route(path, _sending(content, media_type))

    @app.get("/api/next")
    def give_next(annotator: Name) -> dict[str, Any]:
        return _state(queue, annotator)

    @app.post("/api/decisions")
    def decide(decision: Decision) -> dict[str, Any]:
        queue.decide(
            decision.item,
            decision.label,
            annotator=decision.annotator,
            saw_hint=decision.saw_hint,
        )
        return _state(queue, decision.annotator)

    @app.post("/api/undo")
    def undo(person: Person) -> dict[str, Any]:
        queue.undo(person.annotator)
        return _state(queue, person.annotator)

    return app


def serve(
    queue: ReviewQueue,
    *,
    bind_address: str = "127.0.0.1",
    port: int = 8600,
    token: str = "",
    on_start: Callable[[str], None] = logger.warning,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        queue: What is to be decided.
        bind_address: Address to listen on; one that others can reach needs a token.
        port: Port; 0 takes any free one.
        token: The token; without it, one is made if it's needed.
        on_start: Given the page's address, with the token.

    Raises:
        InvalidArgumentError: The address isn't an IP address.
        UnavailableError: It can't be listened on.
    """
    try:
        address = ip_address(bind_address)
    except ValueError as exc:
        raise InvalidArgumentError(f"{bind_address!r} is no IP address: {exc}") from exc
    if not address.is_loopback:
        token = token or secrets.token_urlsafe(16)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((bind_address, port))
            listening.listen()
        except OSError as exc:
            raise UnavailableError(f"can't listen on {bind_address} port {port}: {exc}") from exc
        host = f"[{bind_address}]" if address.version == 6 else bind_address
        where = f"http://{host}:{listening.getsockname()[1]}/"
        config = uvicorn.Config(
            create_app(queue, token=token), log_level="warning", lifespan="off", ws="none"
        )
        on_start(f"{where}?token={token}" if token else where)
        uvicorn.Server(config).run(sockets=[listening])


def _sending(content: bytes, media_type: str) -> Callable[[], Response]:
    def send() -> Response:
        return Response(content, media_type=media_type)

    return send


def _state(queue: ReviewQueue, annotator: str) -> dict[str, Any]:
    """Tell a person's page what to show."""
    item = queue.next_for(annotator)
    shown: dict[str, Any] | None = None
    if item is not None:
        shown = {"id": item.id, "text": item.text, "hint": item.answer, "score": item.score}
        if item.image is not None:
            shown["image"] = f"data:image/png;base64,{base64.b64encode(item.image).decode()}"
    return {
        "categories": queue.categories,
        "item": shown,
        "progress": asdict(queue.progress(annotator)),
    }


def _refusal(request: Request, token: str) -> tuple[int, str] | None:
    """Say why a request isn't answered, with a status; None if it is."""
    host = request.headers.get("host", "")
    asking_page = request.headers.get("Origin")
    if asking_page is not None and asking_page != f"{request.url.scheme}://{host}":
        return 403, f"a page of {asking_page} may not use this one"
    # Another name may be one that a page elsewhere has made point to this machine.
    if not token and (request.url.hostname or "") not in ("127.0.0.1", "localhost", "::1"):
        return 403, "without a token, open this page as 127.0.0.1 or localhost"
    if token:
        given = request.query_params.get("token") or request.cookies.get(_COOKIE, "")
        if not secrets.compare_digest(given.encode(), token.encode()):
            return 401, "a token is needed: open the whole address that `mlops-mini review` printed"
    if request.method == "POST":
        length = request.headers.get("content-length", "")
        if not length.isdigit() or int(length) > _LARGEST:
            return 413, f"a request has at most {_LARGEST:,} bytes, and says how many"
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return 415, "send JSON"
    return None
