"""What a loop has brought: the facts, as tables for people and as JSON for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlops_mini.model import gate
from mlops_mini.model.evaluation import Metrics
from mlops_mini.model.gate import Verdict
from mlops_mini.runner.records import RunRecord, TaskRecord

_DIGEST = 64  # characters of a sha256
# Title, header and rows of text.
TextTable = tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """What a served version was asked, and how its answers compare with the model's own.

    Attributes:
        version: The version that answered.
        n_asked: Number of predictions, by transport, `rest` and `grpc`.
        max_difference: Largest absolute difference from the exported model run in this process,
            by transport; probabilities, 0 to 1.
    """

    version: int
    n_asked: dict[str, int]
    max_difference: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sorted:
    """What the rows of one period were good for.

    Attributes:
        period: Which one, such as 2013-01.
        n_arrived: Rows of the examples' table that arrived.
        n_quarantined: Those of them that were set aside.
        n_without_label: Those kept that neither train nor judge a model.
        refused: Number of rows set aside, of all tables, by the rule that they break.
    """

    period: str
    n_arrived: int
    n_quarantined: int
    n_without_label: int
    refused: dict[str, int]

    @property
    def n_used(self) -> int:
        """Rows that train or judge a model."""
        return self.n_arrived - self.n_quarantined - self.n_without_label


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """How the loop went.

    Attributes:
        table: Name of the table that holds the examples.
        label: What is predicted.
        partitions: What arrived, in order: two that both models have learned, and the newest, whose
            last days judge.
        findings: What is odd but no reason to set a row aside, a sentence each.
        metrics: How good models are on the last days: the served `baseline`, the new `candidate`,
            and the `challenger`, which is only there to compare.
        verdict: Whether the candidate was published, and why.
        before: Questions to the version served before the verdict.
        after: Questions to the version served after it.
    """

    table: str
    label: str
    partitions: Sequence[Sorted]
    findings: Sequence[str]
    metrics: dict[str, Metrics]
    verdict: Verdict
    before: Questions
    after: Questions


def tables(report: Report) -> list[TextTable]:
    """Lay a report out: for each table a title, the header, and rows of text."""
    learned = ("both", "both", "candidate; last days judge")
    rows = [
        (
            partition.period,
            f"{partition.n_arrived:,}",
            f"{partition.n_quarantined:,}",
            f"{partition.n_without_label:,}",
            f"{partition.n_used:,}",
            who,
        )
        for partition, who in zip(report.partitions, learned, strict=True)
    ]
    refused = [
        (f"{n:,}", reason) for part in report.partitions for reason, n in part.refused.items()
    ]
    baseline = report.metrics["baseline"]
    models = [("always the base rate", f"{0.5:.4f}", f"{baseline.base_rate_log_loss:.4f}")]
    for name in ("baseline", "candidate", "challenger"):
        of = report.metrics[name]
        what = f"{name} (XGBoost)" if name == "challenger" else name
        models.append((what, f"{of.auc:.4f}", f"{of.log_loss:.4f}"))
    served = [
        (when, str(asked.version), transport, f"{n:,}", f"{asked.max_difference[transport]:.1e}")
        for when, asked in (("before", report.before), ("after", report.after))
        for transport, n in asked.n_asked.items()
    ]
    judged_on = report.partitions[-1].period
    judged_rows = f"{baseline.n_rows:,} {report.table}, {baseline.base_rate:.1%} {report.label}"
    return [
        (
            report.table.capitalize(),
            ("month", "arrived", "refused", "no label", "used", "learned by"),
            rows,
        ),
        ("Refused", ("rows", "why"), refused or [("0", "every row keeps every rule")]),
        (
            f"Models on the last days of {judged_on} ({judged_rows})",
            ("model", "AUC", "log loss"),
            models,
        ),
        _gate_table(report.verdict),
        ("Verdict", ("candidate", "why"), [(report.verdict.decision, report.verdict.reason)]),
        (
            "Predictions, each against the model's own",
            ("verdict", "version", "over", "asked", "largest difference"),
            served,
        ),
    ]


def summarize(report: Report) -> dict[str, Any]:
    """Reduce a report to what JSON can hold."""
    return {
        "partitions": [
            {
                "period": partition.period,
                "n_arrived": partition.n_arrived,
                "refused": partition.refused,
                "n_without_label": partition.n_without_label,
            }
            for partition in report.partitions
        ],
        "findings": list(report.findings),
        **{name: asdict(metrics) for name, metrics in report.metrics.items()},
        "verdict": gate.as_fields(report.verdict),
        **{name: asdict(getattr(report, name)) for name in ("before", "after")},
    }


def _gate_table(verdict: Verdict) -> TextTable:
    header = ("rule, of its slices the worst", "measured", "limit", "verdict")
    return ("Gate", header, gate.summarize(verdict))


def run_tables(run: RunRecord) -> list[TextTable]:
    """Lay a pipeline's run out: its tasks, and what the gate has asked if it came to that."""
    verdicts = [
        Path(task.outputs["artifacts"]["verdict"]["uri"])
        for task in run.tasks.values()
        if "verdict" in task.outputs.get("artifacts", {})
    ]
    return [_run_table(run), *(_gate_table(gate.read(f)) for f in verdicts if f.is_file())]


def _run_table(run: RunRecord) -> TextTable:
    rows = [
        (
            task.name,
            task.state,
            f"{task.elapsed_s:.1f}" if task.attempt and task.state != "CACHED" else "",
            str(task.attempt or ""),
            task.error or _in_short(task),
        )
        for task in run.tasks.values()
    ]
    return (f"{run.id}: {run.state}", ("task", "state", "s", "attempts", "what"), rows)


def _in_short(task: TaskRecord) -> str:
    """Put what a task has returned into a few words: no digest, and of a list its length."""
    shown = [
        f"{len(value)} {name}" if isinstance(value, list) else f"{name} {value}"
        for name, value in task.outputs.get("parameters", {}).items()
        if not (isinstance(value, str) and len(value) == _DIGEST)
    ]
    return ", ".join(shown).removeprefix("Output ")
