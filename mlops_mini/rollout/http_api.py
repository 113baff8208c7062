"""Asks a server that speaks JSON over HTTP, such as Kubernetes' API or Prometheus.

A request is sent again when the connection is lost, time runs out, or the server is busy. That's
safe for what is sent here: reading, and server-side apply, which does the same when done twice.
"""

from pathlib import Path
from typing import Any

import urllib3

from mlops_mini.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    MlopsMiniError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)

_ERRORS: dict[int, type[MlopsMiniError]] = {
    400: InvalidArgumentError,
    401: PermissionDeniedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: FailedPreconditionError,
    422: InvalidArgumentError,
}
_BUSY = (429, 500, 502, 503, 504)


class HttpApi:
    """One server."""

    def __init__(
        self,
        url: str,
        *,
        token_file: Path | None = None,
        ca_file: Path | None = None,
        timeout_s: float = 5.0,
        tries: int = 4,
    ) -> None:
        """Ask nothing yet.

        Args:
            url: Where it is, such as `http://127.0.0.1:8001`.
            token_file: File with the bearer token, read for each request: a pod's is replaced every
                hour.
            ca_file: Certificates that the server's is checked with; None for the system's.
            timeout_s: Seconds for one attempt.
            tries: Attempts in all; between them it waits as long as the server says, or a little
                longer each time.
        """
        self._url, self._token_file = url.rstrip("/"), token_file
        self._http = urllib3.PoolManager(
            timeout=timeout_s,
            ca_certs=str(ca_file) if ca_file else None,
            retries=urllib3.Retry(
                tries - 1,
                redirect=False,
                status_forcelist=_BUSY,
                allowed_methods=None,
                backoff_factor=0.2,
                raise_on_status=False,
            ),
        )

    def ask(self, method: str, path: str, *, content_type: str = "", body: Any = None) -> Any:
        """Send a request.

        Args:
            method: Such as `GET`.
            path: Path with its query.
            content_type: Of the body.
            body: What is sent as JSON, or None.

        Returns:
            The JSON of the answer.

        Raises:
            UnavailableError: No answer after all tries, or the server stays busy.
            PermissionDeniedError: It doesn't allow this.
            NotFoundError: There is no such thing.
            FailedPreconditionError: It conflicts with what is there.
            InvalidArgumentError: The server takes it for nonsense.
        """
        headers = {"accept": "application/json"}
        if content_type:
            headers["content-type"] = content_type
        if self._token_file is not None:
            headers["authorization"] = f"Bearer {self._token_file.read_text().strip()}"
        try:
            answer = self._http.request(method, self._url + path, headers=headers, json=body)
            message = answer.json()
        except (urllib3.exceptions.HTTPError, ValueError) as exc:
            raise UnavailableError(f"{self._url} gives no answer: {exc}") from exc
        if answer.status >= 300:
            text = message.get("message") or message.get("error") or answer.reason
            error = _ERRORS.get(answer.status, UnavailableError)
            raise error(f"{method} {path} was refused ({answer.status}): {text}")
        return message

    def close(self) -> None:
        """Close its connections."""
        self._http.clear()
