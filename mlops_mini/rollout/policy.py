"""Who gets which version: the traffic policy that every router is rendered from."""

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from mlops_mini.errors import InvalidArgumentError

Side = Literal["stable", "canary"]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # a DNS label: Kubernetes' and Envoy's
_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, lower case as HTTP/2 has it
_ADDRESS = re.compile(r"(\d{1,3}(?:\.\d{1,3}){3}):(\d{1,5})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """A model server that has one version loaded.

    Attributes:
        name: Name of the version, such as `v7`: lower-case letters, digits and hyphens.
        rest: Address of its REST API, `IP:PORT`; empty on a cluster, which finds it by its name.
        grpc: Address of its gRPC API, likewise.
    """

    name: str
    rest: str = ""
    grpc: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidArgumentError(
                f"a version's name is made of lower-case letters, digits and hyphens, such as "
                f"'v7', got {self.name!r}"
            )
        for protocol in ("rest", "grpc"):
            address = getattr(self, protocol)
            if not address:
                continue
            match = _ADDRESS.fullmatch(address)
            if not match or not 0 < int(match[2]) < 65536:
                raise InvalidArgumentError(
                    f"the {protocol} address of {self.name} must be IP:PORT, such as "
                    f"127.0.0.1:8501, got {address!r}"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class HeaderRule:
    """Sends requests with a header to one side, whatever the weight is.

    Attributes:
        header: Name of the header, in any case.
        value: The exact value that it must have.
        side: Who gets such a request. It isn't retried on the stable: who asks for the canary by
            name wants to see it fail.
    """

    header: str
    value: str
    side: Side

    def __post_init__(self) -> None:
        object.__setattr__(self, "header", _checked_header(self.header))
        if not self.value or not self.value.isprintable():
            raise InvalidArgumentError(
                f"the rule for {self.header} needs a printable value, got {self.value!r}"
            )
        if self.side not in ("stable", "canary"):
            raise InvalidArgumentError(f"a rule's side is 'stable' or 'canary', got {self.side!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrafficPolicy:
    """Who gets which version of a model.

    Attributes:
        model: Name of the model, as in its URL.
        stable: Who serves.
        canary: The new version; None when there is none.
        weight_pct: Share of requests that the canary answers, percent, 0 to 100 in steps of 0.01.
        mirror_pct: Share of requests that the canary gets a copy of, whose answers nobody sees,
            percent, 0 to 100 in steps of 0.01. A canary answers or shadows, never both.
        sticky_header: Header that names a user: the same user always gets the same version, and
            who has had the canary keeps it while the weight grows. None: each request on its own.
        header_rules: What a header decides, the first that fits.
        timeout_s: Seconds for a request with all its attempts, above 0.
        per_try_timeout_s: Seconds for one attempt; above the model's usual latency, and below
            `timeout_s`. Without it a canary that hangs would use up the whole time.
        retries: Attempts after the first, which go to the stable; 0 to 10.

    Raises:
        InvalidArgumentError: The policy makes no sense; the message says what to change.

    >>> TrafficPolicy(
    ...     model="m",
    ...     stable=Backend(name="v1", rest="127.0.0.1:8501", grpc="127.0.0.1:8500"),
    ...     weight_pct=5,
    ... )
    Traceback (most recent call last):
    ...
    mlops_mini.errors.InvalidArgumentError: there is no canary to give 5 % of the requests to: \
name one, or set weight_pct to 0
    """

    model: str
    stable: Backend
    canary: Backend | None = None
    weight_pct: float = 0.0
    mirror_pct: float = 0.0
    sticky_header: str | None = None
    header_rules: tuple[HeaderRule, ...] = field(default=())
    timeout_s: float = 10.0
    per_try_timeout_s: float = 2.5
    retries: int = 2

    def __post_init__(self) -> None:
        if not self.model or "/" in self.model or not self.model.isprintable():
            raise InvalidArgumentError(f"a model's name is one part of a URL, got {self.model!r}")
        for name in ("weight_pct", "mirror_pct"):
            share = getattr(self, name)
            if not 0 <= share <= 100 or not math.isclose(share * 100, round(share * 100)):
                raise InvalidArgumentError(
                    f"{name} is a percentage from 0 to 100 in steps of 0.01, got {share}"
                )
            if share and self.canary is None:
                raise InvalidArgumentError(
                    f"there is no canary to give {share:g} % of the requests to: name one, or set "
                    f"{name} to 0"
                )
        if self.weight_pct and self.mirror_pct:
            raise InvalidArgumentError(
                "a canary that answers needs no copies of what others were asked: set weight_pct "
                f"({self.weight_pct:g}) or mirror_pct ({self.mirror_pct:g}) to 0"
            )
        if self.canary is not None and self.canary.name == self.stable.name:
            raise InvalidArgumentError(f"stable and canary are both {self.stable.name}")
        for rule in self.header_rules:
            if rule.side == "canary" and self.canary is None:
                raise InvalidArgumentError(
                    f"the rule for {rule.header}: {rule.value} names the canary, and there is none"
                )
        if self.sticky_header is not None:
            object.__setattr__(self, "sticky_header", _checked_header(self.sticky_header))
        if not 0 < self.per_try_timeout_s < self.timeout_s < math.inf:
            raise InvalidArgumentError(
                "the timeout of a try must be above 0 and below that of the request, got "
                f"{self.per_try_timeout_s:g} and {self.timeout_s:g} s"
            )
        if not 0 <= self.retries <= 10:
            raise InvalidArgumentError(f"retries must be 0 to 10, got {self.retries}")


def _checked_header(name: str) -> str:
    """Return a header's name in lower case, or say why it is none."""
    if not _HEADER.fullmatch(name.lower()):
        raise InvalidArgumentError(f"not a name of an HTTP header: {name!r}")
    return name.lower()
