"""Who gets which version in an A/B test, and how many it takes."""

import math
from hashlib import sha256

from mlops_mini.errors import InvalidArgumentError


def gets_b(user: str, *, experiment: str, share: float = 0.5) -> bool:
    """Tell whether a user gets version B: always the same answer in one experiment.

    A hash decides, so a client needs no table of users, and the groups of two experiments have
    nothing to do with each other.

    Args:
        user: Who asks.
        experiment: Its name.
        share: How many users are to get B, 0 to 1.

    Raises:
        InvalidArgumentError: The share isn't between 0 and 1.

    >>> [gets_b(f"user {n}", experiment="first") for n in range(4)]
    [False, True, True, True]
    """
    if not 0 <= share <= 1:
        raise InvalidArgumentError(f"share is {share}, expected 0 to 1")
    digest = sha256(f"{experiment}\0{user}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def n_per_version(rate: float, lead: float) -> int:
    """Tell how many examples each version needs, so four tests in five find a lead.

    Args:
        rate: The share of successes, about, 0 to 1.
        lead: By how much one version is better, in the same unit.

    Returns:
        Examples for each version, for a two-sided test at 5%.

    Raises:
        InvalidArgumentError: The rate isn't between 0 and 1, or the lead not above 0.

    Source:
        Lehr's rule, 16 times the variance over the squared difference (Statistics in Medicine 11,
        1992).

    >>> n_per_version(0.85, 0.02)
    5100
    """
    if not 0 <= rate <= 1 or not 0 < lead <= 1:
        raise InvalidArgumentError(
            f"rate is {rate} and lead {lead}: expected a rate from 0 to 1, and a lead above 0"
        )
    return math.ceil(round(16 * rate * (1 - rate) / lead**2, 6))
