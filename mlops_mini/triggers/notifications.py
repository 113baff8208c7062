"""Tells people what happened: by a command, or a webhook on this machine.

Whoever sends never waits: a thread delivers, and tries again for a while. What can't be delivered
is counted and logged, and nothing else stops because of it.
"""

from __future__ import annotations

import json
import logging
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

from mlops_mini.errors import InvalidArgumentError

logger = logging.getLogger(__name__)

Event = Literal["alarm", "refusal", "rollback"]
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Notifier:
    """Delivers notifications, in order; `close` it at the end.

    Each is one JSON object with `event`, `text` and `details`: on the command's stdin, or as the
    body of a POST. Delivered is what ends with exit status 0, or a status from 200 to 299.

    Attributes:
        n_delivered: How many arrived.
        n_lost: How many were given up, or dropped because too many waited.

    >>> with Notifier(command=["cat"]) as notifier:
    ...     notifier.send("alarm", "the model is worse than when it was new", version=3)
    >>> notifier.n_delivered, notifier.n_lost
    (1, 0)
    """

    def __init__(
        self,
        *,
        command: Sequence[str] = (),
        webhook: str = "",
        n_tries: int = 5,
        wait_s: float = 1.0,
        timeout_s: float = 10.0,
        max_waiting: int = 1_000,
    ) -> None:
        """Start nothing yet; without a command and a webhook, notifications are only logged.

        Args:
            command: Program and arguments, without a shell.
            webhook: Such as `http://127.0.0.1:9000/hook`; only this machine is allowed.
            n_tries: After how many failures a notification is given up.
            wait_s: Seconds before the second try; twice as many before each further one.
            timeout_s: Longest that a command or an answer may take, seconds.
            max_waiting: The oldest is dropped if more wait.

        Raises:
            InvalidArgumentError: Both are given, or the webhook isn't on this machine.
        """
        if command and webhook:
            raise InvalidArgumentError("give a command or a webhook, not both")
        if webhook:
            parts = urllib.parse.urlsplit(webhook)
            if parts.scheme != "http" or parts.hostname not in _LOOPBACK:
                raise InvalidArgumentError(
                    f"the webhook {webhook!r} isn't on this machine: give one such as"
                    " http://127.0.0.1:9000/hook, or a command that knows the way out"
                )
        self.n_delivered = self.n_lost = 0
        self._deliver: Callable[[bytes], None] | None = None
        if command or webhook:
            self._deliver = self._run(list(command)) if command else self._post(webhook)
        self._n_tries, self._wait_s, self._timeout_s = n_tries, wait_s, timeout_s
        self._waiting: deque[bytes] = deque()
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def send(self, event: Event, text: str, **details: Any) -> None:
        """Have a notification delivered, and return at once.

        Args:
            event: What kind of event it is.
            text: One sentence for people.
            details: JSON values for programs.
        """
        logger.info("%s: %s", event, text)
        if self._deliver is None:
            return
        body = json.dumps({"event": event, "text": text, "details": details}).encode()
        with self._changed:
            if len(self._waiting) >= self._max_waiting:
                self._waiting.popleft()
                self.n_lost += 1
            self._waiting.append(body)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="notifier", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self, timeout_s: float = 10.0) -> None:
        """Deliver what waits, without further pauses, for that many seconds at most."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if not self._waiting:
                    return
                body = self._waiting.popleft()
            is_delivered = self._try(body)
            with self._changed:
                self.n_delivered += is_delivered
                self.n_lost += not is_delivered

    def _try(self, body: bytes) -> bool:
        assert self._deliver is not None  # noqa: S101 - for mypy: `send` starts no thread otherwise
        for number in range(self._n_tries):
            try:
                self._deliver(body)
            except (OSError, subprocess.SubprocessError) as exc:
                logger.warning("not delivered, try %d of %d: %s", number + 1, self._n_tries, exc)
            else:
                return True
            if number + 1 < self._n_tries:
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closed, self._wait_s * 2**number)
        return False

    def _run(self, command: list[str]) -> Callable[[bytes], None]:
        def deliver(body: bytes) -> None:
            subprocess.run(
                command, input=body, capture_output=True, check=True, timeout=self._timeout_s
            )

        return deliver

    def _post(self, url: str) -> Callable[[bytes], None]:
        # A proxy that the environment names can't reach this machine's ports.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())

        def deliver(body: bytes) -> None:
            request = urllib.request.Request(  # noqa: S310 - http on this machine, checked above
                url, body, {"Content-Type": "application/json"}, method="POST"
            )
            opener.open(request, timeout=self._timeout_s).close()

        return deliver


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nobody to another machine: a redirect is an error."""

    def redirect_request(self, *_args: Any) -> None:
        return None
