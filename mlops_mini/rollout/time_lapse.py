"""Clients' requests in place of waiting, so that a release takes as long as its requests do.

For tests and notebooks. Each request is its user's only one, so where the traffic is split by user
the same requests always go the same way, and what is counted is the same on any machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import urllib3

from mlops_mini.errors import DeadlineExceededError
from mlops_mini.local_server import LocalServer
from mlops_mini.rollout import release
from mlops_mini.rollout.attempts import Attempt, AttemptLog
from mlops_mini.rollout.envoy import Router
from mlops_mini.rollout.guardrails import Counts
from mlops_mini.rollout.policy import Backend
from mlops_mini.rollout.release import Release

USER_HEADER = "x-user"
_N_CLIENTS = 4
_POLL_S = 0.005
_TIMEOUT_S = 60.0


def backend(name: str, server: LocalServer) -> Backend:
    """Describe a local server to a router.

    Args:
        name: Name of the version that it answers with, such as `v7`.
        server: Whom the router should ask.
    """
    return Backend(name=name, rest=server.address("rest"), grpc=server.address("grpc"))


def disagreements(
    traffic: TimeLapse, *, servers: tuple[LocalServer, LocalServer], images: npt.NDArray[Any]
) -> dict[str, Counts]:
    """Count on how many images of the last second two classifiers differ: a source of a release.

    Envoy throws the answers to copies away, so both are asked again. In production they'd come from
    the servers' logs.

    Args:
        traffic: Its n-th request is about the n-th image, again from the first after the last.
        servers: Whom to ask; each gives one row of scores per image.
        images: What the requests are about.
    """
    asked = images[[number % len(images) for number in traffic.last]]
    first, second = (classes(server, asked) for server in servers)
    n_different = int((first != second).sum())
    return {"differs": Counts(n_canary=len(asked), bad_canary=n_different)}


def classes(server: LocalServer, images: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Ask a classifier with one input and one output for the classes of images.

    Args:
        server: Whom to ask, over gRPC.
        images: What its input takes, any number of them.

    Returns:
        Number of the class with the highest score, one per image.
    """
    with server.client("grpc") as client:
        name = next(iter(client.metadata().signatures["serving_default"].inputs))
        (scores,) = client.predict({name: images.astype(np.float32)}).values()
    highest: npt.NDArray[np.int64] = scores.argmax(axis=1)
    return highest


class TimeLapse:
    """Waits for nothing: its `sleep` sends what clients would have asked meanwhile."""

    def __init__(
        self, router: Router, *, model: str, body: Callable[[int], str], requests_per_s: int
    ) -> None:
        """Send nothing yet.

        Args:
            router: Whom clients ask.
            model: Name of the model.
            body: Makes the JSON of the n-th request, from 0.
            requests_per_s: How many make a second.
        """
        self._url = f"http://{router.address}/v1/models/{model}:predict"
        self._router, self._body, self._requests_per_s = router, body, requests_per_s
        self._log = AttemptLog(router.folder, router)
        self._http = urllib3.PoolManager(retries=False, timeout=_TIMEOUT_S, maxsize=_N_CLIENTS)
        self._pool = ThreadPoolExecutor(_N_CLIENTS)
        self.statuses: list[int] = []
        self.answered_by: list[str] = []
        self.last: Sequence[int] = ()

    def sleep(self, seconds: float) -> None:
        """Send the requests of some seconds, and return once the router has written down all.

        Then `statuses` and `answered_by` have the status of each request so far and the name of the
        version that answered it, and `last` the numbers of those that were just sent.

        Raises:
            DeadlineExceededError: The router hasn't written them down in a minute.
        """
        first = len(self.statuses)
        self.last = range(first, first + round(seconds * self._requests_per_s))
        self._wait_for_health()
        self.statuses += self._pool.map(self._ask, self.last)
        has_copies = "request_mirror_policies" in (self._router.folder / "routes.json").read_text()
        waiting, copies = set(self.last), set(self.last if has_copies else ())
        versions: dict[int, str] = {}
        deadline = time.monotonic() + _TIMEOUT_S
        while waiting or copies:
            for attempt in self._log.read():
                number = int(attempt.request_id)
                if attempt.cluster.endswith("-shadow"):
                    copies.discard(number)
                elif self._is_final(number, attempt):
                    waiting.discard(number)
                    versions[number] = attempt.cluster.removesuffix("-rest")
            if time.monotonic() > deadline:
                raise DeadlineExceededError(
                    f"{len(waiting)} requests and {len(copies)} copies aren't in the router's log "
                    f"after {_TIMEOUT_S:g} s"
                )
            time.sleep(_POLL_S)
        self.answered_by += [versions[number] for number in self.last]

    def run(
        self,
        folder: Path,
        new: Release | None = None,
        *,
        sources: Sequence[Callable[[TimeLapse], Mapping[str, Counts]]] = (),
    ) -> Release:
        """Carry out a release, and send the requests of one more second.

        Args:
            folder: The release's folder.
            new: The release at its beginning; None to go on with the one that's there.
            sources: As those of `release.run`; each is given this time-lapse.
        """
        if new is not None:
            release.start(folder, new)
        counted = [partial(source, self) for source in sources]
        ended = release.run(folder, self._router, sleep=self.sleep, sources=counted)
        self.sleep(1)
        return ended

    def _ask(self, number: int) -> int:
        headers = {"x-request-id": str(number), USER_HEADER: f"user {number}"}
        body = self._body(number)
        return self._http.request("POST", self._url, body=body, headers=headers).status

    def _is_final(self, number: int, attempt: Attempt) -> bool:
        """Tell whether no other attempt followed."""
        return attempt.is_bad == (self.statuses[number] != 200)

    def _wait_for_health(self) -> None:
        """Wait a while for health checks, the only thing that takes real seconds."""
        deadline = time.monotonic() + 5
        while not all(one.is_healthy for one in self._router.counts().values()):
            if time.monotonic() > deadline:
                return  # the release will say what's wrong
            time.sleep(_POLL_S)

    def close(self) -> None:
        """End the clients."""
        self._pool.shutdown()
        self._http.clear()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
