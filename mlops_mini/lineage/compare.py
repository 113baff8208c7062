"""Compare two lineages: what differs in parameters, data, code, packages and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_mini.lineage.lineage import Lineage

if TYPE_CHECKING:
    from mlops_mini.description import TextTable


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Something that isn't the same in two lineages.

    Attributes:
        kind: `parameter`, `data`, `parent`, `pipeline`, `use case`, `code`, `package`, `metric` or
            `verdict`.
        name: Which one, such as `epochs`.
        a: What the first has; empty if nothing.
        b: What the second has; empty if nothing.
    """

    kind: str
    name: str
    a: str
    b: str


def compare(a: Lineage, b: Lineage) -> list[Difference]:
    """List what differs between two versions, or two runs.

    Args:
        a: The first, such as `lineage.of_version` tells it.
        b: The second.

    Returns:
        The differences, by kind; none if both were made from the same, by the same.
    """
    differences = []
    for kind in _facts(a):
        of_a, of_b = _facts(a)[kind], _facts(b)[kind]
        for name in dict.fromkeys([*of_a, *of_b]):
            pair = [_text(facts.get(name, "")) for facts in (of_a, of_b)]
            if pair[0] != pair[1]:
                differences.append(Difference(kind=kind, name=name, a=pair[0], b=pair[1]))
    return differences


def _facts(lineage: Lineage) -> dict[str, Mapping[str, Any]]:
    run, verdict = lineage.run, lineage.verdict
    return {
        "parameter": lineage.parameters,
        "data": {
            f"{part.table} of {part.period}": f"{part.role}, {part.n_rows:,} rows, "
            f"{part.n_quarantined:,} set aside, {part.digest[:12]}"
            for part in lineage.partitions
        },
        "parent": {
            parent.role: f"{Path(parent.folder).name} ({parent.digest[:12]})"
            for parent in lineage.parents
        },
        "pipeline": {"digest": run.spec_digest[:12] if run else ""},
        "use case": {"digest": str(run.arguments.get("use_case_digest", ""))[:12] if run else ""},
        "code": {name: digest[:12] for name, digest in lineage.modules.items()},
        "package": _packages(lineage.environment),
        "metric": {
            f"{who}: {name}": value
            for who, measured in lineage.metrics.items()
            for name, value in measured.items()
        },
        "verdict": {name: verdict.get(name, "") for name in ("decision", "reason")},
    }


def _packages(environment: Mapping[str, Any]) -> dict[str, str]:
    """Split names such as `numpy-2.4.6.dist-info`."""
    packages = {"Python": str(environment.get("python", ""))}
    for entry in environment.get("packages", []):
        name, _, version = entry.rpartition(".")[0].partition("-")
        packages[name] = version
    return packages


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def table(differences: Sequence[Difference], names: tuple[str, str]) -> TextTable:
    """Lay differences out: a title, the header, and rows of text.

    Args:
        differences: As `compare` lists them.
        names: What the two are called.
    """
    rows = [(each.kind, each.name, each.a, each.b) for each in differences]
    return ("Differences", ("kind", "which", *names), rows or [("none", "", "", "")])
