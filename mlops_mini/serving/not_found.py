"""Errors for models, versions and labels that aren't there, and hints at those that are."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

from mlops_mini.errors import InvalidArgumentError, MlopsMiniError, NotFoundError

_MAX_NAMED = 20
_MAX_COMPARED = 100  # characters of a name; a longer one is like none of them


def not_served(name: str, version: int | None) -> MlopsMiniError:
    """Make the error for a model or version that cannot be asked now."""
    asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return NotFoundError(f"Servable not found for request: {asked}")


def unknown_label(label: str) -> MlopsMiniError:
    """Make the error for a label that stands for nothing."""
    return InvalidArgumentError(f"Unrecognized servable version label: {label}")


def versions_hint(name: str, answering: Collection[tuple[int | None, str]]) -> str:
    """Say which versions and labels of a model answer.

    >>> versions_hint("m", [(1, ""), (2, ""), (None, "stable"), (None, "")])
    'versions of m that answer: 1, 2; labels: stable'
    """
    numbers = sorted(number for number, _ in answering if number is not None)
    labels = sorted(label for _, label in answering if label)
    versions = f"versions of {name} that answer: {', '.join(map(str, numbers)) or 'none'}"
    return f"{versions}; labels: {', '.join(labels)}" if labels else versions


def models_hint(name: str, names: Sequence[str]) -> str:
    """Say which models there are, and whether one of them is like the name that was asked for.

    >>> models_hint("pohtos", ["photos", "sales"])
    'did you mean photos? models here: photos, sales'
    """
    named = f"models here: {', '.join(sorted(names)[:_MAX_NAMED]) or 'none'}"
    if len(names) > _MAX_NAMED:
        return f"{named}, ..."
    close = difflib.get_close_matches(name[:_MAX_COMPARED], names, n=1)
    return f"did you mean {close[0]}? {named}" if close else named
