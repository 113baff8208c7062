"""The five degrees of automation, and the rules for moving between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mlops_mini.automation.certificates import Certificate
from mlops_mini.automation.shadow import ShadowReport


class Level(StrEnum):
    """Who decides, from people alone to the model alone."""

    HUMAN = "human"  # people decide, the model isn't asked
    SHADOW = "shadow"  # people decide; the model answers, and nobody sees it
    ASSISTED = "assisted"  # people decide, and see the model's answer
    PARTIAL = "partial"  # the model decides where it's sure enough, people the rest
    FULL = "full"  # the model decides everything

    @property
    def below(self) -> Level:
        """The next degree down; people alone have none."""
        return ORDER[max(ORDER.index(self) - 1, 0)]


ORDER = tuple(Level)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """Limits of the rules.

    Attributes:
        margin: A model that's at most this much less accurate than people may assist, 0 to 1.
        min_repaired: Or one that would repair at least this share of all items, 0 to 1.
        min_coverage: Share of items that must be automated for partial automation to be worth its
            trouble, 0 to 1.
        max_category_error: Largest error of any true category among automated items, 0 to 1.
    """

    margin: float = 0.01
    min_repaired: float = 0.01
    min_coverage: float = 0.2
    max_category_error: float = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What is known when a move is considered.

    Attributes:
        shadow: What shadow mode has shown.
        certificate: The newest certificate.
        category_errors: Share of wrong answers among the automated items of each true category.
        saves: Whether partial automation is surely cheaper than people alone.
        alarms: Why the promise is in doubt: an alarm of the audits, a drift trigger, a certificate
            that is void.
    """

    shadow: ShadowReport | None = None
    certificate: Certificate | None = None
    category_errors: Mapping[str, float] = field(default_factory=dict)
    saves: bool = False
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """What the rules say.

    Attributes:
        level: The degree from now on, which may be the one before.
        reasons: Why it moves, or what is missing for the next.
    """

    level: Level
    reasons: tuple[str, ...]


def next_level(level: Level, evidence: Evidence, *, rules: Rules | None = None) -> Move:
    """Tell which degree of automation the evidence allows: at most one step up, or one down.

    Args:
        level: The degree now.
        evidence: What is known.
        rules: Limits, by default those of `Rules`.

    >>> next_level(Level.PARTIAL, Evidence(alarms=("11 of 93 audits were wrong",)))
    Move(level=<Level.ASSISTED: 'assisted'>, reasons=('11 of 93 audits were wrong',))
    >>> next_level(Level.SHADOW, Evidence()).reasons
    ('nothing is known from shadow mode',)
    """
    limits = rules or Rules()
    if evidence.alarms:
        return Move(level=level.below, reasons=evidence.alarms)
    if level is Level.HUMAN:
        return Move(level=Level.SHADOW, reasons=("shadow mode changes nothing for anybody",))
    if level is Level.FULL:
        return Move(level=level, reasons=("nothing is left to automate",))
    missing = {
        Level.SHADOW: _missing_to_assist,
        Level.ASSISTED: _missing_to_automate,
        Level.PARTIAL: _missing_for_everything,
    }[level](evidence, limits)
    if missing:
        return Move(level=level, reasons=missing)
    above = ORDER[ORDER.index(level) + 1]
    return Move(level=above, reasons=(_ALLOWED[above],))


_ALLOWED = {
    Level.ASSISTED: "the model is no worse than people, or right where they are wrong",
    Level.PARTIAL: "a threshold is certified, no category is sacrificed, and it's cheaper",
    Level.FULL: "the promise is certified for all items: release it like a new version",
}


def _missing_to_assist(evidence: Evidence, limits: Rules) -> tuple[str, ...]:
    shadow = evidence.shadow
    if shadow is None:
        return ("nothing is known from shadow mode",)
    if shadow.is_not_worse(limits.margin) or shadow.repaired_lower >= limits.min_repaired:
        return ()
    return (
        f"the model may be {-shadow.lead_lower:.1%} less accurate than people, and surely repairs"
        f" only {shadow.repaired_lower:.1%} of the items".replace("%", " %"),
    )


def _missing_to_automate(evidence: Evidence, limits: Rules) -> tuple[str, ...]:
    certificate = evidence.certificate
    missing = []
    if certificate is None:
        missing.append("there's no certificate")
    elif certificate.threshold is None:
        missing.append(f"no threshold is certified: {certificate.reason}")
    elif certificate.coverage < limits.min_coverage:
        missing.append(
            f"only {certificate.coverage:.0%} of the items would be automated".replace("%", " %")
        )
    missing += [
        f"{name}: {error:.0%} of those automated are wrong".replace("%", " %")
        for name, error in evidence.category_errors.items()
        if error > limits.max_category_error
    ]
    if not evidence.saves:
        missing.append("it isn't surely cheaper than people alone")
    return tuple(missing)


def _missing_for_everything(evidence: Evidence, _limits: Rules) -> tuple[str, ...]:
    certificate = evidence.certificate
    if certificate is None or certificate.threshold is None or certificate.threshold > 0:
        return ("the promise isn't certified for all items",)
    return ()
