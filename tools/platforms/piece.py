"""What came of one platform: whether its piece ran here, and what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A platform that the notes name, and how far our objects went through it on this machine.

    Attributes:
        name: The platform, such as "SageMaker".
        notes_tool: What the notes call it.
        our_object: What of ours was given to it.
        command: How to run this piece alone.
        state: "ran" or "skipped".
        reason: Why it was skipped; empty if it ran.
        facts: What was measured, such as seconds and sizes, as texts by name.
    """

    name: str
    notes_tool: str
    our_object: str
    command: str
    state: Literal["ran", "skipped"]
    reason: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
