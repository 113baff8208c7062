"""What is odd in a partition that can be used nevertheless."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something odd in a partition that can be used nevertheless.

    Attributes:
        name: What it is, such as `stale` or `extra column`; the same words each time.
        column: The column it is about.
        text: One line with the numbers.
    """

    name: str
    column: str
    text: str
