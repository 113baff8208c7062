"""A lineage as tables for people and as JSON for scripts."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mlops_mini.errors import NotFoundError
from mlops_mini.lineage.lineage import Lineage
from mlops_mini.runner.records import RunRecord

if TYPE_CHECKING:
    from mlops_mini.description import TextTable

_SHORT = 12  # characters of a digest that people compare
_TOO_SMALL = "too small"


def document(lineage: Lineage) -> dict[str, Any]:
    """Reduce a lineage to what JSON can hold."""
    run = lineage.run
    return {
        "model": lineage.model,
        "version": lineage.version,
        "folder": str(lineage.folder) if lineage.folder else None,
        "publication": asdict(lineage.publication) if lineage.publication else None,
        "data": [asdict(partition) for partition in lineage.partitions],
        "data_digest": run.arguments.get("data_digest") if run else None,
        "parameters": lineage.parameters,
        "parents": [asdict(parent) for parent in lineage.parents],
        "verdict": lineage.verdict,
        "metrics": lineage.metrics,
        "served": [asdict(service) for service in lineage.services],
        "environment": dict(lineage.environment),
        "modules": dict(lineage.modules),
        "run": asdict(run) if run else None,
        "problems": list(lineage.problems),
    }


def tables(lineage: Lineage) -> list[TextTable]:
    """Lay a lineage out: for each question a title, the header, and rows of text."""
    laid_out: list[TextTable] = [_model(lineage)]
    if lineage.partitions:
        laid_out.append(_data(lineage))
    if lineage.run:
        laid_out += [_code(lineage, lineage.run), _parameters(lineage), _why(lineage, lineage.run)]
    if rules := lineage.verdict.get("rules"):
        laid_out.append(_rules(rules))
    laid_out.append(_served(lineage))
    if lineage.problems:
        problems = [(problem,) for problem in lineage.problems]
        laid_out.append(("Missing or edited", ("what",), problems))
    return laid_out


def _model(lineage: Lineage) -> TextTable:
    known, run = lineage.publication, lineage.run
    rows = [("run", run.id if run else known.run_id if known else "not known")]
    if lineage.folder:
        rows.append(("folder", str(lineage.folder)))
    if known:
        rows.append(("answers (digest)", known.model_digest[:_SHORT]))
    if known and known.approved_by:
        rows.append(("approved by", known.approved_by))
    if known and known.holdout_days:
        rows.append(("not learned from", f"the last {known.holdout_days} days, which judged it"))
    for who, measured in lineage.metrics.items():
        auc, log_loss = (
            "none" if (value := measured.get(name)) is None else f"{value:.4f}"
            for name in ("auc", "log_loss")
        )
        rows.append((who, f"AUC {auc}, log loss {log_loss} on {measured['n_rows']:,} rows"))
    return (lineage.name, ("what", "which"), rows)


def _data(lineage: Lineage) -> TextTable:
    rows = [
        (
            part.table,
            part.period,
            part.role,
            f"{part.n_rows:,}",
            f"{part.n_quarantined:,}",
            part.digest[:_SHORT],
        )
        for part in lineage.partitions
    ]
    return ("Data", ("table", "period", "role", "rows", "set aside", "digest"), rows)


def _code(lineage: Lineage, run: RunRecord) -> TextTable:
    rows = [
        ("commit", run.git_commit or "no checkout"),
        ("pipeline (digest)", run.spec_digest[:_SHORT]),
        ("use case (digest)", str(run.arguments.get("use_case_digest", ""))[:_SHORT]),
        ("code (digest)", f"{run.code_digest[:_SHORT]}, {len(lineage.modules)} modules"),
        ("Python", str(lineage.environment.get("python", "not known")).partition(" (")[0]),
        (
            "packages (digest)",
            (
                f"{run.environment_digest[:_SHORT]},"
                f" {len(lineage.environment.get('packages', []))} packages"
            ),
        ),
    ]
    return ("Code and environment", ("what", "which"), rows)


def _parameters(lineage: Lineage) -> TextTable:
    rows = [(name, str(value) or '""') for name, value in sorted(lineage.parameters.items())]
    rows += [
        (
            parent.role,
            (
                f"version {parent.version if parent.version is not None else parent.folder}"
                f" ({parent.digest[:_SHORT]}), of run {parent.run_id or 'not known any more'}"
            ),
        )
        for parent in lineage.parents
    ]
    return ("Parameters and parents", ("what", "which"), rows)


def _why(lineage: Lineage, run: RunRecord) -> TextTable:
    verdict = lineage.verdict
    rows = [
        (
            "trained because",
            _listed(run.trigger) or "somebody asked for it: no trigger is on record",
        ),
        (
            "verdict",
            f"{verdict['decision']}: {verdict['reason']}"
            if verdict
            else "the gate was not reached",
        ),
        ("released", _listed(run.release) or "at once: no release is on record"),
    ]
    try:
        counted = Counter(
            f"{row['table']} of {row['period']}: {row['column']}: {row['rule']}, found"
            f" {row['value']}"
            for row in lineage.quarantined()
        )
    except NotFoundError:  # told among the problems
        counted = Counter()
    rows += [("set aside", f"{n:,} x {reason}") for reason, n in counted.items()]
    return ("Why", ("what", "why"), rows)


def _rules(rules: list[dict[str, Any]]) -> TextTable:
    """Lay out a row for each rule, and for slices that are too small a single one for all."""
    laid_out = [
        (
            f"{rule['rule']} {rule.get('slice', '')}".rstrip(),
            _measured(rule),
            str(rule.get("limit", "")),
            f"{rule['n']:,}" if rule.get("n") else "",
            ": ".join(filter(None, (rule["verdict"], rule.get("reason")))),
        )
        for rule in rules
        if rule["verdict"] != _TOO_SMALL
    ]
    small: dict[str, list[str]] = {}
    for rule in rules:
        if rule["verdict"] == _TOO_SMALL:
            small.setdefault(rule["rule"], []).append(rule["slice"])
    laid_out += [(name, ", ".join(each), "", "", _TOO_SMALL) for name, each in small.items()]
    return ("Rules of the gate", ("rule", "measured", "limit", "n", "verdict"), laid_out)


def _measured(rule: dict[str, Any]) -> str:
    value, lower, upper = (rule.get(name) for name in ("value", "lower", "upper"))
    if value is None:
        return ""
    if None in (lower, upper):
        return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"
    return f"{value:.3f} ({lower:.3f} to {upper:.3f})"


def _served(lineage: Lineage) -> TextTable:
    rows = [
        (
            each.since[:16],
            each.until[:16] if each.until else "now",
            _version(each.before),
            _version(each.after),
            f"{each.kind}{f' by {each.by}' if each.by else ''}",
            each.ended or "still the champion",
        )
        for each in lineage.services
    ]
    header = ("since (UTC)", "until", "before it", "after it", "came", "ended")
    return ("Champion", header, rows or [("never", "", "", "", "", "")])


def _version(version: int | None) -> str:
    return "none" if version is None else f"version {version}"


def _listed(said: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in said.items())
