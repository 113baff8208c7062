"""Who decides which case at a degree of automation, and which automated ones are audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

from mlops_mini.automation.certificates import Bools, Certificate
from mlops_mini.automation.levels import Level
from mlops_mini.errors import InvalidArgumentError
from mlops_mini.evidence import ab_split


class Route(StrEnum):
    """Who decides a case."""

    AUTO = "auto"  # the model
    HUMAN = "human"  # a person, who doesn't see what the model says
    HINT = "hint"  # a person, who sees it
    SHADOW = "shadow"  # a person; the model is asked only to be compared
    DEFERRED = "deferred"  # nobody yet, for it couldn't be handed over: ask again


@dataclass(frozen=True, kw_only=True, slots=True)
class Routing:
    """Who decides each of some items.

    Attributes:
        routes: One per item.
        is_audited: Whether a person checks what the model has decided, shape [n].
        reason: Why nothing is automated although the level would allow it; empty if something is.
    """

    routes: tuple[Route, ...]
    is_audited: Bools
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AutomationPolicy:
    """A degree of automation with its certificates.

    Attributes:
        level: The degree.
        certificates: By predicted category; one for all under the empty name. Categories without
            one aren't automated.
        audit_share: Share of automated items that a person checks, above 0, up to 1.
        rest: Whether people see the model's answer to what isn't automated: `hint`, or `human`.
        salt: Another one audits other items.
        audits_after: Number of the last outcome in the review queue when the certificates were
            made: audits up to there say nothing about them.
    """

    level: Level
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    audit_share: float = 0.05
    rest: Literal["hint", "human"] = "human"
    salt: str = "audit"
    audits_after: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.audit_share <= 1:
            raise InvalidArgumentError(
                f"audit_share is {self.audit_share}, expected above 0 and up to 1: a promise that"
                " nobody checks is none"
            )

    def certificate_for(self, answer: str) -> Certificate | None:
        """Find the certificate that an answer falls under; None if it has none."""
        return self.certificates.get(answer) or self.certificates.get("")

    @property
    def promise(self) -> Certificate | None:
        """The loosest promise that audits have to hold the model to; None without one."""
        return max(self.certificates.values(), key=lambda made: made.max_error, default=None)

    def route(
        self,
        scores: npt.ArrayLike,
        item_ids: Sequence[str],
        *,
        answers: Sequence[str],
        model_version: int | None,
        at: datetime,
    ) -> Routing:
        """Say who decides each item.

        Args:
            scores: The model's confidence in its answers, 0 to 1; NaN is for people. Shape [n].
            item_ids: Ids of the items. An item is audited or not whenever it's asked about.
            answers: What the model says.
            model_version: The version that says so.
            at: Now. After a certificate's end, and for another version, people decide.

        Raises:
            InvalidArgumentError: The three have different lengths.
        """
        values = np.asarray(scores, np.float64)
        if values.shape != (len(item_ids),) or len(answers) != len(item_ids):
            raise InvalidArgumentError(
                f"{len(item_ids)} ids, {len(answers)} answers and scores of shape {values.shape}:"
                " give one of each per item"
            )
        others = _ROUTES.get(self.level, Route(self.rest))
        is_auto, reason = np.zeros(values.shape, np.bool_), ""
        if self.level in (Level.PARTIAL, Level.FULL):
            is_auto, reason = self._is_auto(values, answers, model_version, at)
        return Routing(
            routes=tuple(Route.AUTO if auto else others for auto in is_auto),
            is_audited=np.array(
                [
                    auto and ab_split.gets_b(each, experiment=self.salt, share=self.audit_share)
                    for auto, each in zip(is_auto, item_ids, strict=True)
                ],
                np.bool_,
            ),
            reason=reason,
        )

    def _is_auto(
        self, scores: npt.NDArray[np.float64], answers: Sequence[str], version: int | None,
        at: datetime,
    ) -> tuple[Bools, str]:  # fmt: skip
        is_auto = np.zeros(scores.shape, np.bool_)
        reasons = {} if self.certificates else {"": "there's no certificate"}
        for category, certificate in self.certificates.items():
            void = certificate.why_void(model_version=version, at=at)
            if certificate.threshold is None:
                void = void or f"no threshold is certified: {certificate.reason}"
            elif self.level is Level.FULL and certificate.threshold > 0:
                void = void or "the promise isn't certified for all items"
            if void:
                reasons[category] = void
                continue
            is_its_own = [self.certificate_for(answer) is certificate for answer in answers]
            is_auto |= np.array(is_its_own, np.bool_) & certificate.automates(scores)
        is_idle = len(reasons) >= max(len(self.certificates), 1)
        return is_auto, next(iter(reasons.values())) if is_idle else ""


_ROUTES = {Level.HUMAN: Route.HUMAN, Level.SHADOW: Route.SHADOW, Level.ASSISTED: Route.HINT}
